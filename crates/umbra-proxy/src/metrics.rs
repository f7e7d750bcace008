//! The process's counters, in one registry.
//!
//! Takes: what happened to connections, requests and shadows. Gives: Prometheus text. Istio's names and labels are kept
//! to the letter (spec/shadowing.md 3.3); everything of our own begins with `umbra_`. Never decides anything.

mod interception;
mod istio;
mod kernel;
mod shadow;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

pub(crate) use interception::{InterceptionMetrics, KernelCounts, LapseReason};
pub(crate) use istio::{Exchange, Flags, ResponseFlags, Series, SeriesCache, Spoken};
pub use shadow::DropReason;
pub(crate) use shadow::{Outcome, ShadowCounters, ShadowResult};

/// Labels by name, for families that are few.
pub(crate) type Labels = Vec<(&'static str, String)>;

/// All metrics of this process.
pub struct Metrics {
    registry: Registry,
    /// Seconds since the controller was last heard of (`umbra_config_age_seconds`); the owner of the configuration sets it.
    pub config_age: Gauge<f64, AtomicU64>,
    /// Connections that were accepted (`umbra_connections_total`).
    pub connections: Counter,
    /// Connections closed at once (`umbra_refused_connections_total`), by reason: `not_intercepted` (came straight to this
    /// port), `not_governed` (no table has its destination), `too_many` (clients have as many as this process may give them),
    /// `too_many_of_client` (this one has), `no_upstream` (bytes that no catch-all rule takes, or whose
    /// endpoints take no connection); and requests whose Host names no governed service (`no_service`).
    pub refused_connections: Family<Labels, Counter>,
    /// Connections from an address that no `client/<ip>` names (`umbra_unknown_sources_total`).
    pub unknown_sources: Counter,
    /// Connections passed through as bytes (`umbra_passthrough_connections_total`), by service.
    pub passthrough_connections: Family<Labels, Counter>,
    /// Bytes passed through (`umbra_passthrough_bytes_total`), by service and direction (`sent`, `received`).
    pub passthrough_bytes: Family<Labels, Counter>,
    /// Requests whose head was not understood (`umbra_bad_requests_total`), by reason: `malformed`,
    /// `too_large`, `incomplete`, `stalled`, `host`, `path`.
    pub bad_requests: Family<Labels, Counter>,
    /// Upstream connections that were replaced because they turned out closed (`umbra_upstream_replaced_total`).
    pub replaced_connections: Counter,
    /// Requests sent again as their rule's retries say (`umbra_retries_total`).
    pub retries: Counter,
    /// Requests that would have been, but whose body had not been kept: it was too long
    /// (`umbra_retries_not_repeatable_total`).
    pub retries_not_repeatable: Counter,
    /// What the kernel's fallback counts.
    pub(crate) kernel: kernel::KernelMetrics,
    interception: InterceptionMetrics,
    istio: Arc<istio::Book>,
    shadow: shadow::Families,
}

impl Metrics {
    /// A new registry with every metric of the data path.
    pub fn new() -> Arc<Self> {
        Self::with(|_| {})
    }

    /// The same, with what `more` registers.
    pub fn with(more: impl FnOnce(&mut Registry)) -> Arc<Self> {
        let mut registry = Registry::default();
        let metrics = Self {
            config_age: registered(
                &mut registry,
                "umbra_config_age_seconds",
                "Since the controller was last heard of",
            ),
            connections: registered(&mut registry, "umbra_connections", "Connections accepted"),
            refused_connections: registered(
                &mut registry,
                "umbra_refused_connections",
                "Connections closed at once",
            ),
            unknown_sources: registered(
                &mut registry,
                "umbra_unknown_sources",
                "Connections whose pod is not known",
            ),
            passthrough_connections: registered(
                &mut registry,
                "umbra_passthrough_connections",
                "Connections that are not HTTP, passed through as bytes",
            ),
            passthrough_bytes: registered(&mut registry, "umbra_passthrough_bytes", "Bytes passed through"),
            bad_requests: registered(&mut registry, "umbra_bad_requests", "Request heads that were refused"),
            replaced_connections: registered(
                &mut registry,
                "umbra_upstream_replaced",
                "Reused upstream connections that were found closed and replaced",
            ),
            retries: registered(&mut registry, "umbra_retries", "Requests sent again by a rule's retries"),
            retries_not_repeatable: registered(
                &mut registry,
                "umbra_retries_not_repeatable",
                "Failed requests that were not sent again because their body had not been kept",
            ),
            kernel: kernel::KernelMetrics::register(&mut registry),
            interception: InterceptionMetrics::register(&mut registry),
            istio: istio::register(&mut registry),
            shadow: shadow::Families::register(&mut registry),
            registry: {
                more(&mut registry);
                registry
            },
        };
        Arc::new(metrics)
    }

    /// Prometheus' (OpenMetrics) text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }

    /// The counters of one mirror.
    pub(crate) fn shadow(&self, service: &str, rule: &str, mirror: &str) -> ShadowCounters {
        self.shadow.counters(service, rule, mirror)
    }

    /// The counters of interception.
    pub(crate) fn interception(&self) -> &InterceptionMetrics {
        &self.interception
    }

    /// Where exchanges are counted.
    pub(crate) fn istio(&self) -> &Arc<istio::Book> {
        &self.istio
    }

    pub(crate) fn refused(&self, reason: &str) {
        self.refused_connections.get_or_create(&vec![("reason", reason.to_owned())]).inc();
    }

    pub(crate) fn bad_request(&self, reason: &str) {
        self.bad_requests.get_or_create(&vec![("reason", reason.to_owned())]).inc();
    }
}

fn registered<M>(registry: &mut Registry, name: &str, help: &str) -> M
where
    M: prometheus_client::registry::Metric + Default + Clone,
{
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}
