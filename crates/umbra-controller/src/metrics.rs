//! The controller's counters: what it did, for whom, and with which result.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// All metrics of one controller, with their registry. Moving figures live here, never in a status.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Services compiled: one endpoint's change of a cluster with 1,000 services adds 1.
    pub services_compiled: Counter,
    /// Snapshots published.
    pub snapshots: Counter,
    /// Requests to nodes.
    pub pushes: Family<PushLabels, Counter>,
    /// Bytes of request bodies to nodes.
    pub push_bytes: Family<BytesLabels, Counter>,
    /// Pushes that nodes refused, by their word for it.
    pub refusals: Family<RefusalLabels, Counter>,
    /// Tables that nodes hold and that found no room to be taken up; they come again.
    pub held_tables_dropped: Counter,
    /// The last version a node has acknowledged.
    pub acked_version: Family<NodeLabels, Gauge>,
    /// Objects of each kind the watches have seen.
    pub objects: Family<KindLabels, Gauge>,
    /// Writes of `.status`.
    pub status_writes: Family<ResultLabels, Counter>,
    /// 1 while this replica leads.
    pub leader: Gauge,
    /// Terms that have begun.
    pub terms: Counter,
    /// Seconds since 1970 at which a certificate ends.
    pub certificate_expiry: Family<CertificateLabels, Gauge>,
}

/// Words for a refused push, a closed list: what a node says must not become new time series without end.
const REFUSALS: [&str; 9] =
    ["base", "wire", "epoch", "malformed", "forbidden", "too_large", "busy", "digest", OTHER_REFUSAL];
const OTHER_REFUSAL: &str = "other";

/// What a request to a node was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the derive takes label values from the variants' names")]
pub enum PushKind {
    /// Everything.
    put,
    /// A delta.
    patch,
    /// What the node has.
    state,
}

/// How a request or a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the derive takes label values from the variants' names")]
pub enum Outcome {
    /// Done.
    ok,
    /// The other side said no.
    refused,
    /// No answer.
    failed,
}

/// Labels of `umbra_controller_pushes_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PushLabels {
    /// The node's name.
    pub node: String,
    /// What was sent.
    pub kind: PushKind,
    /// How it ended.
    pub result: Outcome,
}

/// Labels of `umbra_controller_push_bytes_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BytesLabels {
    /// The node's name.
    pub node: String,
    /// What was sent.
    pub kind: PushKind,
}

/// Labels of `umbra_controller_push_refusals_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusalLabels {
    /// The node's name.
    pub node: String,
    /// `base`, `epoch`, `malformed`, `forbidden`, `too_large`, `busy`, `digest` or `other`.
    pub reason: String,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct NodeLabels {
    /// The node's name.
    pub node: String,
}

/// A kind of object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabels {
    /// As in a manifest.
    pub kind: String,
}

/// How a write ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabels {
    /// How.
    pub result: Outcome,
}

/// A certificate of the push channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CertificateLabels {
    /// `ca`, `controller` or `proxy`.
    pub certificate: String,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("umbra_controller"),
            services_compiled: Counter::default(),
            snapshots: Counter::default(),
            pushes: Family::default(),
            push_bytes: Family::default(),
            refusals: Family::default(),
            held_tables_dropped: Counter::default(),
            acked_version: Family::default(),
            objects: Family::default(),
            status_writes: Family::default(),
            leader: Gauge::default(),
            terms: Counter::default(),
            certificate_expiry: Family::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        // The library appends `_total` to counters.
        let r = &mut self.registry;
        r.register("services_compiled", "Services compiled", self.services_compiled.clone());
        r.register("snapshots", "Snapshots published", self.snapshots.clone());
        r.register("pushes", "Requests to nodes", self.pushes.clone());
        r.register("push_bytes", "Bytes of request bodies to nodes", self.push_bytes.clone());
        r.register("push_refusals", "Pushes refused by nodes", self.refusals.clone());
        let dropped = self.held_tables_dropped.clone();
        r.register(
            "held_tables_dropped",
            "Tables held by nodes that found no room; they come again",
            dropped,
        );
        r.register("node_acked_version", "Last version acknowledged", self.acked_version.clone());
        r.register("objects", "Objects seen by the watches", self.objects.clone());
        r.register("status_writes", "Writes of .status", self.status_writes.clone());
        r.register("leader", "1 while this replica leads", self.leader.clone());
        r.register("terms", "Terms of leading that have begun", self.terms.clone());
        r.register(
            "certificate_expiry_timestamp_seconds",
            "When a certificate of the push channel ends",
            self.certificate_expiry.clone(),
        );
    }

    /// Counts a refused push.
    pub fn push_refused(&self, node: &str, reason: &str) {
        let reason = if REFUSALS.contains(&reason) { reason } else { OTHER_REFUSAL };
        self.refusals.get_or_create(&RefusalLabels { node: node.into(), reason: reason.into() }).inc();
    }

    /// Removes all series of a node that has gone.
    pub fn forget_node(&self, node: &str) {
        self.acked_version.remove(&NodeLabels { node: node.into() });
        for kind in [PushKind::put, PushKind::patch, PushKind::state] {
            self.push_bytes.remove(&BytesLabels { node: node.into(), kind });
            for result in [Outcome::ok, Outcome::refused, Outcome::failed] {
                self.pushes.remove(&PushLabels { node: node.into(), kind, result });
            }
        }
        for reason in REFUSALS {
            self.refusals.remove(&RefusalLabels { node: node.into(), reason: reason.into() });
        }
    }

    /// All of it in Prometheus' text format (OpenMetrics).
    pub fn encode(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("writing to a string cannot fail");
        text
    }

    /// How many requests of that kind the node has answered with 200.
    pub fn pushes_ok(&self, node: &str, kind: PushKind) -> u64 {
        self.pushes.get_or_create(&PushLabels { node: node.into(), kind, result: Outcome::ok }).get()
    }
}
