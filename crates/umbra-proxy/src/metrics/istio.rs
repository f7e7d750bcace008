//! Istio's standard metrics, as its own proxies would report what this one sees (spec/shadowing.md 3.3 and 3.5).
//!
//! A user's request is reported by both ends, a shadow by its destination only, so that a failing mirror never shows up
//! as a user's failure; `request_role` tells them apart.

use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use umbra_routing::{Client, ServiceName, grpc_status_of};

use super::{Labels, Metrics, registered};
use crate::balance::Upstream;

/// Envoy's default buckets (spec/shadowing.md 3.3), for milliseconds and for bytes alike.
const BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// A worker keeps this many label sets at hand; past it the cache starts anew. Each holds 8 handles of 8 bytes, so that
/// is below 1 MiB a worker.
const CACHE_LIMIT: usize = 4096;

/// What went wrong, by Envoy's response flags, as far as they can happen here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Flags {
    /// Nothing went wrong.
    #[default]
    None,
    /// No rule matches.
    NoRoute,
    /// The destination is not defined.
    NoCluster,
    /// No ready endpoint.
    NoHealthyUpstream,
    /// Connecting failed.
    UpstreamConnectFailure,
    /// The upstream ended the connection before its answer was whole.
    UpstreamTermination,
    /// The upstream ended this request's stream of HTTP/2, and nothing else.
    UpstreamReset,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// A rule's fault answered.
    FaultInjected,
    /// The client left before the answer was whole.
    DownstreamTermination,
}

impl Flags {
    fn as_str(self) -> &'static str {
        match self {
            Self::None => "",
            Self::NoRoute => "NR",
            Self::NoCluster => "NC",
            Self::NoHealthyUpstream => "UH",
            Self::UpstreamConnectFailure => "UF",
            Self::UpstreamTermination => "UC",
            Self::UpstreamReset => "UR",
            Self::UpstreamTimeout => "UT",
            Self::FaultInjected => "FI",
            Self::DownstreamTermination => "DC",
        }
    }
}

/// All of an exchange's response flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct ResponseFlags {
    pub(crate) cause: Flags,
    /// A rule's fault made it wait.
    pub(crate) delayed: bool,
    /// It would have been sent once more, had its rule allowed that.
    pub(crate) retries_exceeded: bool,
}

impl From<Flags> for ResponseFlags {
    fn from(cause: Flags) -> Self {
        Self { cause, ..Self::default() }
    }
}

impl fmt::Display for ResponseFlags {
    /// In Envoy's order, with `-` for none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after_delay = [Flags::FaultInjected, Flags::DownstreamTermination, Flags::NoCluster];
        let (before, after) = match self.cause {
            late if after_delay.contains(&late) => ("", late.as_str()),
            early => (early.as_str(), ""),
        };
        let delayed = if self.delayed { "DI" } else { "" };
        let exceeded = if self.retries_exceeded { "URX" } else { "" };
        let all = [before, delayed, after, exceeded];
        let mut set = all.into_iter().filter(|flag| !flag.is_empty());
        f.write_str(set.next().unwrap_or("-"))?;
        set.try_for_each(|flag| write!(f, ",{flag}"))
    }
}

/// What was spoken above HTTP, by the request's content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Spoken {
    Http,
    /// With the status that the answer ended with.
    Grpc(Option<u8>),
}

impl Spoken {
    /// `status` said by the answer's head or trailers, or else what stands for its HTTP status as Envoy has it.
    pub(crate) fn new(is_grpc: bool, status: Option<u8>, code: u16) -> Self {
        if !is_grpc {
            return Self::Http;
        }
        let stands_for = StatusCode::from_u16(code).ok().map(grpc_status_of);
        Self::Grpc(status.or(stands_for))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc(_) => "grpc",
        }
    }

    fn grpc_status(self) -> String {
        match self {
            Self::Grpc(Some(status)) => status.to_string(),
            Self::Http | Self::Grpc(None) => String::new(),
        }
    }
}

#[derive(Clone)]
struct Buckets;

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(BUCKETS)
    }
}

type Histograms = Family<Labels, Histogram, Buckets>;

pub(crate) struct Families {
    requests: Family<Labels, Counter>,
    duration: Histograms,
    request_bytes: Histograms,
    response_bytes: Histograms,
}

/// Who asked whom and how it ended: everything that labels are made of.
pub(crate) struct Exchange<'a> {
    pub(crate) client: Option<&'a Arc<Client>>,
    /// The host that was asked for.
    pub(crate) service: &'a Arc<ServiceName>,
    /// Who answered, if anybody was asked.
    pub(crate) upstream: Option<&'a Arc<Upstream>>,
    /// 0 when the client left before there was an answer.
    pub(crate) code: u16,
    pub(crate) spoken: Spoken,
    pub(crate) flags: ResponseFlags,
    pub(crate) shadow: bool,
}

/// Handles of one label set.
pub(crate) struct Series {
    reporters: Vec<Reporter>,
}

struct Reporter {
    requests: Counter,
    duration: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
}

impl Series {
    pub(crate) fn record(&self, took: Duration, request_bytes: u64, response_bytes: u64) {
        for reporter in &self.reporters {
            reporter.requests.inc();
            reporter.duration.observe(took.as_secs_f64() * 1_000.0);
            reporter.request_bytes.observe(request_bytes as f64);
            reporter.response_bytes.observe(response_bytes as f64);
        }
    }
}

impl Families {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let mut histogram = |name: &str, help: &str| {
            let family = Histograms::new_with_constructor(Buckets);
            registry.register(name, help, family.clone());
            family
        };
        Self {
            duration: histogram(
                "istio_request_duration_milliseconds",
                "From a request's head to its answer's end",
            ),
            request_bytes: histogram("istio_request_bytes", "Size of requests, head and body"),
            response_bytes: histogram("istio_response_bytes", "Size of answers, head and body"),
            requests: registered(registry, "istio_requests", "Requests, when they are over"),
        }
    }

    fn series(&self, exchange: &Exchange<'_>) -> Series {
        let destination = exchange.upstream.map(|_| self.reporter("destination", exchange));
        let source = (!exchange.shadow).then(|| self.reporter("source", exchange));
        Series { reporters: destination.into_iter().chain(source).collect() }
    }

    fn reporter(&self, reporter: &'static str, exchange: &Exchange<'_>) -> Reporter {
        let labels = labels(reporter, exchange);
        Reporter {
            requests: self.requests.get_or_create_owned(&labels),
            duration: self.duration.get_or_create_owned(&labels),
            request_bytes: self.request_bytes.get_or_create_owned(&labels),
            response_bytes: self.response_bytes.get_or_create_owned(&labels),
        }
    }
}

const UNKNOWN: &str = "unknown";
/// Istio's name for the cluster when nothing else was configured.
const CLUSTER: &str = "Kubernetes";

fn labels(reporter: &'static str, exchange: &Exchange<'_>) -> Labels {
    let source =
        |field: fn(&Client) -> &String| exchange.client.map_or(UNKNOWN, |client| field(client).as_str());
    let to = |field: fn(&umbra_routing::Endpoint) -> &String| {
        exchange.upstream.map_or(UNKNOWN, |upstream| field(&upstream.endpoint).as_str())
    };
    let security = if reporter == "source" { UNKNOWN } else { "none" };
    let fqdn = exchange.service.fqdn();
    let code = exchange.code.to_string();
    let (grpc_status, flags) = (exchange.spoken.grpc_status(), exchange.flags.to_string());
    let pairs: [(&'static str, &str); 26] = [
        ("reporter", reporter),
        ("source_workload", source(|c| &c.workload)),
        ("source_canonical_service", source(|c| &c.canonical_name)),
        ("source_canonical_revision", source(|c| &c.canonical_revision)),
        ("source_workload_namespace", source(|c| &c.namespace)),
        ("source_principal", UNKNOWN),
        ("source_app", source(|c| &c.app)),
        ("source_version", source(|c| &c.version)),
        ("source_cluster", if exchange.client.is_some() { CLUSTER } else { UNKNOWN }),
        ("destination_workload", to(|e| &e.workload)),
        ("destination_workload_namespace", to(|e| &e.namespace)),
        ("destination_principal", UNKNOWN),
        ("destination_app", to(|e| &e.app)),
        ("destination_version", to(|e| &e.version)),
        ("destination_service", &fqdn),
        ("destination_canonical_service", to(|e| &e.canonical_name)),
        ("destination_canonical_revision", to(|e| &e.canonical_revision)),
        ("destination_service_name", &exchange.service.name),
        ("destination_service_namespace", &exchange.service.namespace),
        ("destination_cluster", CLUSTER),
        ("request_protocol", exchange.spoken.name()),
        ("response_code", &code),
        ("grpc_response_status", &grpc_status),
        ("response_flags", &flags),
        ("connection_security_policy", security),
        ("request_role", if exchange.shadow { "shadow" } else { "primary" }),
    ];
    pairs.into_iter().map(|(name, value)| (name, value.to_owned())).collect()
}

#[derive(PartialEq, Eq, Hash)]
struct CacheKey {
    client: usize,
    service: usize,
    upstream: usize,
    code: u16,
    spoken: Spoken,
    flags: ResponseFlags,
    shadow: bool,
}

/// What a cached entry's key points to: kept alive, so that no other object can get the same address.
struct Cached {
    series: Rc<Series>,
    _client: Option<Arc<Client>>,
    _service: Arc<ServiceName>,
    _upstream: Option<Arc<Upstream>>,
}

/// One worker's label sets, by who and what, so that a request does not build and hash 26 strings.
pub(crate) struct SeriesCache {
    metrics: Arc<Metrics>,
    entries: HashMap<CacheKey, Cached>,
}

impl SeriesCache {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, entries: HashMap::new() }
    }

    pub(crate) fn get(&mut self, exchange: &Exchange<'_>) -> Rc<Series> {
        let key = CacheKey {
            client: exchange.client.map_or(0, |client| Arc::as_ptr(client) as usize),
            service: Arc::as_ptr(exchange.service) as usize,
            upstream: exchange.upstream.map_or(0, |upstream| Arc::as_ptr(upstream) as usize),
            code: exchange.code,
            spoken: exchange.spoken,
            flags: exchange.flags,
            shadow: exchange.shadow,
        };
        if self.entries.len() >= CACHE_LIMIT {
            self.entries.clear();
        }
        let cached = self.entries.entry(key).or_insert_with(|| Cached {
            series: Rc::new(self.metrics.istio().series(exchange)),
            _client: exchange.client.cloned(),
            _service: Arc::clone(exchange.service),
            _upstream: exchange.upstream.cloned(),
        });
        Rc::clone(&cached.series)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Istio's order (istio/proxy testdata/metric/server_request_total.yaml.tmpl), and our one label.
    const NAMES: &str = "reporter source_workload source_canonical_service source_canonical_revision \
        source_workload_namespace source_principal source_app source_version source_cluster destination_workload \
        destination_workload_namespace destination_principal destination_app destination_version destination_service \
        destination_canonical_service destination_canonical_revision destination_service_name \
        destination_service_namespace destination_cluster request_protocol response_code grpc_response_status \
        response_flags connection_security_policy request_role";

    #[test]
    fn flags_are_told_together_in_envoys_order() {
        use Flags::{
            DownstreamTermination, FaultInjected, NoCluster, None, UpstreamConnectFailure, UpstreamTimeout,
        };
        for (cause, delayed, retries_exceeded, expected) in [
            (None, false, false, "-"),
            (None, true, false, "DI"),
            (None, false, true, "URX"),
            (UpstreamTimeout, true, false, "UT,DI"),
            (UpstreamConnectFailure, false, true, "UF,URX"),
            (UpstreamConnectFailure, true, true, "UF,DI,URX"),
            (FaultInjected, true, false, "DI,FI"),
            (DownstreamTermination, true, false, "DI,DC"),
            (NoCluster, true, false, "DI,NC"),
        ] {
            assert_eq!(ResponseFlags { cause, delayed, retries_exceeded }.to_string(), expected);
        }
    }

    #[test]
    fn grpc_has_a_status_in_any_case() {
        let told = |spoken: Spoken| (spoken.name(), spoken.grpc_status());
        assert_eq!(told(Spoken::new(false, Some(5), 200)), ("http", String::new()));
        assert_eq!(told(Spoken::new(true, Some(0), 200)), ("grpc", "0".to_owned()));
        assert_eq!(told(Spoken::new(true, None, 503)), ("grpc", "14".to_owned()));
        assert_eq!(told(Spoken::new(true, None, 0)), ("grpc", String::new()), "there was no answer");
    }

    #[test]
    fn names_and_labels_are_istios() {
        let metrics = Metrics::new();
        let service = Arc::new(ServiceName::new("shop", "pay"));
        let (client, upstream, flags) = (None, None, Flags::NoRoute.into());
        let spoken = Spoken::Http;
        let exchange =
            Exchange { client, service: &service, upstream, code: 404, spoken, flags, shadow: false };
        let mut cache = SeriesCache::new(Arc::clone(&metrics));
        cache.get(&exchange).record(Duration::from_millis(3), 10, 20);
        cache.get(&exchange).record(Duration::from_millis(3), 10, 20);
        let names: Vec<_> = labels("source", &exchange).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, NAMES.split_whitespace().collect::<Vec<_>>());
        let text = metrics.encode();
        let line = |begins: &str| text.lines().find(|line| line.starts_with(begins)).map(str::to_owned);
        let total = line("istio_requests_total{reporter=\"source\"").expect("a counter");
        assert!(
            total.ends_with(" 2") && total.contains("destination_service=\"pay.shop.svc.cluster.local\""),
            "{total}"
        );
        assert!(line("istio_requests_total{reporter=\"destination\"").is_none(), "nobody was asked");
        for histogram in
            ["istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes"]
        {
            for part in ["bucket", "sum", "count"] {
                assert!(line(&format!("{histogram}_{part}{{")).is_some(), "{histogram}_{part}");
            }
        }
    }
}
