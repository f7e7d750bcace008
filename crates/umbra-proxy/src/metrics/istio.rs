//! Istio's standard metrics, as its own proxies would report what this one sees (spec/shadowing.md 3.3 and 3.5).
//!
//! A user's request is reported by both ends, a shadow by its destination only, so that a failing mirror never shows up
//! as a user's failure; `request_role` tells them apart.
//!
//! An exchange is counted once, whoever reports it: its worker finds its `block` in a `cache` and adds to numbers that
//! nobody else writes. A scrape takes all workers' blocks from the `book`, adds them up and tells them with the `labels`
//! of each reporter.

mod block;
mod book;
mod buckets;
mod cache;
mod exchange;
mod labels;

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

pub(crate) use block::Series;
use block::{Block, Cells};
pub(crate) use book::Book;
use buckets::{BOUNDS, BUCKETS};
pub(crate) use cache::SeriesCache;
pub(crate) use exchange::{Exchange, Flags, ResponseFlags, Spoken};

/// `istio_requests_total`.
#[derive(Debug)]
struct Requests(Arc<Book>);

/// One of the histograms.
#[derive(Debug)]
struct Histograms {
    book: Arc<Book>,
    of: fn(&Block) -> &Cells,
    /// So many of what is summed are one of what is told.
    per_unit: f64,
}

/// Registers the four families. Gives where they are counted.
pub(super) fn register(registry: &mut Registry) -> Arc<Book> {
    let book = Arc::<Book>::default();
    let mut histogram = |name: &str, help: &str, of, per_unit| {
        registry.register(name, help, Histograms { book: Arc::clone(&book), of, per_unit });
    };
    let milliseconds = "istio_request_duration_milliseconds";
    histogram(milliseconds, "From a request's head to its answer's end", |block| &block.duration, 1_000.0);
    histogram("istio_request_bytes", "Size of requests, head and body", |block| &block.request_bytes, 1.0);
    histogram("istio_response_bytes", "Size of answers, head and body", |block| &block.response_bytes, 1.0);
    registry.register("istio_requests", "Requests, when they are over", Requests(Arc::clone(&book)));
    book
}

impl EncodeMetric for Requests {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        // Each request took its time, so that histogram has counted them all.
        for (reported, total) in self.0.snapshot().totals(|block| &block.duration) {
            encoder.encode_family(&reported)?.encode_counter::<NoLabelSet, _, u64>(&total.count(), None)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl EncodeMetric for Histograms {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (reported, total) in self.book.snapshot().totals(self.of) {
            let buckets: [(f64, u64); BUCKETS] = std::array::from_fn(|at| (BOUNDS[at], total.buckets[at]));
            let sum = total.sum as f64 / self.per_unit;
            encoder.encode_family(&reported)?.encode_histogram::<NoLabelSet>(
                sum,
                total.count(),
                &buckets,
                None,
            )?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }

    fn is_empty(&self) -> bool {
        self.book.is_empty()
    }
}

#[cfg(test)]
mod tests;
