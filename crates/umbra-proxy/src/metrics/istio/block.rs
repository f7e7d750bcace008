//! Numbers of one worker for one label set: written by that worker alone, read by whoever scrapes.
//!
//! A write is a load and a store, which would lose another writer's: there is none, for a [`Series`] does not leave its
//! worker's thread and no two workers have the same block. A reader may see a request's time before its bytes; it never
//! sees a number fall, and a histogram's count is what its buckets add up to.

use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::buckets::{BUCKETS, bucket};

/// One number, with one writer.
#[derive(Debug, Default)]
struct Written(AtomicU64);

impl Written {
    /// Only for the writer.
    fn add(&self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often each bucket was hit, and the sum of what hit them.
#[derive(Debug, Default)]
pub(super) struct Cells {
    buckets: [Written; BUCKETS],
    sum: Written,
}

impl Cells {
    fn record(&self, thousandths: u64, sum: u64) {
        self.buckets[bucket(thousandths)].add(1);
        self.sum.add(sum);
    }
}

/// On lines of the processor's cache that no other worker writes to.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Block {
    /// Sum in microseconds.
    pub(super) duration: Cells,
    pub(super) request_bytes: Cells,
    pub(super) response_bytes: Cells,
}

/// What adds to a block. Whoever makes one sees to it that its thread is the only one that does.
pub(crate) struct Series {
    block: Arc<Block>,
    _stays: PhantomData<Rc<()>>,
}

impl Series {
    pub(super) fn new(block: Arc<Block>) -> Self {
        Self { block, _stays: PhantomData }
    }

    /// Counts one exchange, whoever reports it.
    pub(crate) fn record(&self, took: Duration, request_bytes: u64, response_bytes: u64) {
        let micros = |nanos: u32| took.as_secs() * 1_000_000 + u64::from(nanos);
        // Up for the bucket, for it takes what does not exceed its bound; to the nearest for the sum.
        let up = micros(took.subsec_nanos().div_ceil(1_000));
        self.block.duration.record(up, micros((took.subsec_nanos() + 500) / 1_000));
        self.block.request_bytes.record(request_bytes.saturating_mul(1_000), request_bytes);
        self.block.response_bytes.record(response_bytes.saturating_mul(1_000), response_bytes);
    }
}

/// What several blocks say together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Totals {
    pub(super) buckets: [u64; BUCKETS],
    pub(super) sum: u64,
}

impl Totals {
    pub(super) fn add(&mut self, cells: &Cells) {
        for (total, cell) in self.buckets.iter_mut().zip(&cells.buckets) {
            *total += cell.get();
        }
        self.sum = self.sum.wrapping_add(cells.sum.get());
    }

    /// How many exchanges they have counted.
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}
