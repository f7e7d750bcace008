//! What the kernel's fallback counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{Labels, registered};

/// Counters of connections that the kernel keeps, and of the fallback itself.
pub(crate) struct KernelMetrics {
    /// Connections of this node's pods to governed services, by who took them (`umbra_node_connections_total`): `umbra`,
    /// the kernel's `fallback`, or `kube-proxy`. The kernel counts, also while no proxy runs, and goes on where it was.
    connections: Family<Labels, Counter>,
    /// How often the fallback's entries were written anew, because somebody had changed them or a batch had failed
    /// (`umbra_fallback_rebuilt_total`).
    pub(crate) rebuilt: Counter,
    /// 1 while the kernel refuses the fallback (`umbra_fallback_failing`): a crash would leave users to kube-proxy.
    pub(crate) failing: Gauge,
}

impl KernelMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            connections: registered(
                registry,
                "umbra_node_connections",
                "Connections of this node's pods to governed services, by who took them",
            ),
            rebuilt: registered(
                registry,
                "umbra_fallback_rebuilt",
                "Times that the kernel's fallback was written anew",
            ),
            failing: registered(
                registry,
                "umbra_fallback_failing",
                "1 while the kernel refuses the fallback",
            ),
        }
    }

    /// Connections that umbra, the fallback and kube-proxy took, when last told and now.
    pub(crate) fn took(&self, before: [u64; 3], now: [u64; 3]) {
        for (path, (before, now)) in
            ["umbra", "fallback", "kube-proxy"].into_iter().zip(before.into_iter().zip(now))
        {
            let labels: Labels = vec![("path", path.to_owned())];
            self.connections.get_or_create(&labels).inc_by(now.saturating_sub(before));
        }
    }
}
