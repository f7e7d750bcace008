//! What is counted, and what a scrape tells of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use umbra_routing::{Client, Endpoint, ServiceName};
use umbra_testkit::allocations;

use super::*;
use crate::balance::Upstream;
use crate::metrics::Metrics;

/// Who asks whom, in tests.
struct Parties {
    client: Arc<Client>,
    service: Arc<ServiceName>,
    upstream: Arc<Upstream>,
}

impl Parties {
    fn new(workload: &str, port: u16) -> Self {
        let (pod, namespace, app) = (format!("{workload}-1"), "shop".to_owned(), workload.to_owned());
        let client = Client {
            pod,
            namespace: namespace.clone(),
            workload: "web".into(),
            app: "web".into(),
            version: "v3".into(),
            canonical_name: "web".into(),
            canonical_revision: "v3".into(),
            labels: [].into(),
            skip: false,
        };
        let endpoint = Endpoint {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            pod: None,
            namespace,
            workload: app.clone(),
            app: app.clone(),
            version: "v1".into(),
            canonical_name: app,
            canonical_revision: "v1".into(),
            zone: None,
        };
        Self {
            client: Arc::new(client),
            service: Arc::new(ServiceName::new("shop", "pay")),
            upstream: Upstream::new(endpoint, Instant::now()),
        }
    }

    fn exchange(&self, code: u16, shadow: bool) -> Exchange<'_> {
        let (client, upstream) = (Some(&self.client), Some(&self.upstream));
        let (spoken, flags) = (Spoken::Http, ResponseFlags::default());
        Exchange { client, service: &self.service, upstream, code, spoken, flags, shadow }
    }
}

/// The numbers of all lines that begin with `name{` and have all of `labels`.
fn numbers(text: &str, name: &str, labels: &[&str]) -> Vec<f64> {
    let lines = text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')));
    lines
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .map(|line| line.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a number"))
        .collect()
}

#[test]
fn names_and_labels_are_istios() {
    let metrics = Metrics::new();
    let service = Arc::new(ServiceName::new("shop", "pay"));
    let (client, upstream, flags) = (None, None, Flags::NoRoute.into());
    let spoken = Spoken::Http;
    let exchange = Exchange { client, service: &service, upstream, code: 404, spoken, flags, shadow: false };
    let mut cache = SeriesCache::new(&metrics);
    assert!(!metrics.encode().contains("istio_"), "nothing was counted");
    cache.get(&exchange).record(Duration::from_millis(3), 10, 20);
    cache.get(&exchange).record(Duration::from_millis(3), 10, 20);
    let text = metrics.encode();
    let line = |begins: &str| text.lines().find(|line| line.starts_with(begins)).map(str::to_owned);
    let total = line("istio_requests_total{reporter=\"source\"").expect("a counter");
    assert!(
        total.ends_with(" 2") && total.contains("destination_service=\"pay.shop.svc.cluster.local\""),
        "{total}"
    );
    assert!(line("istio_requests_total{reporter=\"destination\"").is_none(), "nobody was asked");
    for histogram in ["istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes"] {
        for part in ["bucket", "sum", "count"] {
            assert!(line(&format!("{histogram}_{part}{{")).is_some(), "{histogram}_{part}");
        }
    }
}

#[test]
fn one_record_is_told_by_those_who_report_it() {
    let metrics = Metrics::new();
    let parties = Parties::new("pay", 1);
    let mut cache = SeriesCache::new(&metrics);
    cache.get(&parties.exchange(200, false)).record(Duration::from_micros(500), 0, 1_000);
    cache.get(&parties.exchange(200, false)).record(Duration::from_nanos(500_001), 1, 1_001);
    cache.get(&parties.exchange(200, true)).record(Duration::from_secs(7_200), 1, 1);
    let text = metrics.encode();
    let of = |name: &str, labels: &[&str]| numbers(&text, name, labels);
    for reporter in ["reporter=\"source\"", "reporter=\"destination\""] {
        let primary = [reporter, "request_role=\"primary\""];
        assert_eq!(of("istio_requests_total", &primary), [2.0], "{reporter}");
        assert_eq!(of("istio_response_bytes_sum", &primary), [2_001.0]);
        assert_eq!(of("istio_request_duration_milliseconds_sum", &primary), [1.0]);
        let at_most = |name: &str, bound: &str| {
            of(name, &[reporter, "request_role=\"primary\"", &format!("le=\"{bound}\"")])
        };
        let bounds = ["0.5", "1.0", "1000.0", "2500.0", "+Inf"];
        let told = |name| bounds.map(|bound| at_most(name, bound)[0]);
        assert_eq!(told("istio_request_duration_milliseconds_bucket"), [1.0, 2.0, 2.0, 2.0, 2.0]);
        assert_eq!(told("istio_request_bytes_bucket"), [1.0, 2.0, 2.0, 2.0, 2.0]);
        assert_eq!(told("istio_response_bytes_bucket"), [0.0, 0.0, 1.0, 2.0, 2.0]);
    }
    assert_eq!(of("istio_requests_total", &["request_role=\"shadow\"", "reporter=\"destination\""]), [1.0]);
    assert_eq!(of("istio_requests_total", &["request_role=\"shadow\"", "reporter=\"source\""]), [0.0; 0]);
    let long = ["request_role=\"shadow\"", "le=\"3600000.0\""];
    assert_eq!(of("istio_request_duration_milliseconds_bucket", &long), [0.0]);
}

#[test]
fn what_is_told_alike_is_one_series_of_all_workers_and_pods() {
    let metrics = Metrics::new();
    let pods = [Parties::new("pay", 1), Parties::new("pay", 2)];
    let mut workers = [SeriesCache::new(&metrics), SeriesCache::new(&metrics)];
    for worker in &mut workers {
        for pod in &pods {
            worker.get(&pod.exchange(200, false)).record(Duration::from_millis(1), 1, 1);
        }
    }
    let text = metrics.encode();
    assert_eq!(numbers(&text, "istio_requests_total", &["reporter=\"source\""]), [4.0]);
}

#[test]
fn a_source_tells_the_same_of_nobody_and_of_an_endpoint_that_says_nothing_of_itself() {
    let metrics = Metrics::new();
    let unknown = || "unknown".to_owned();
    let silent = Endpoint {
        address: SocketAddr::from(([127, 0, 0, 1], 1)),
        pod: None,
        namespace: unknown(),
        workload: unknown(),
        app: unknown(),
        version: unknown(),
        canonical_name: unknown(),
        canonical_revision: unknown(),
        zone: None,
    };
    let parties = Parties { upstream: Upstream::new(silent, Instant::now()), ..Parties::new("pay", 1) };
    let nobody = Exchange { upstream: None, ..parties.exchange(503, false) };
    let mut cache = SeriesCache::new(&metrics);
    for exchange in [parties.exchange(503, false), nobody] {
        cache.get(&exchange).record(Duration::from_millis(1), 1, 1);
    }
    let text = metrics.encode();
    assert_eq!(numbers(&text, "istio_requests_total", &["reporter=\"source\""]), [2.0]);
    assert_eq!(numbers(&text, "istio_requests_total", &["reporter=\"destination\""]), [1.0]);
}

#[test]
fn a_cache_that_starts_anew_goes_on_with_its_counts() {
    let metrics = Metrics::new();
    let mut cache = SeriesCache::new(&metrics);
    // All of them are there until the end: none is let go of because it is gone.
    let (first, pods) = (Parties::new("pay", 1), (0..10_000).map(|port| Parties::new("pay", port)));
    let pods: Vec<_> = pods.collect();
    cache.get(&first.exchange(200, false)).record(Duration::from_millis(1), 1, 1);
    for pod in &pods {
        cache.get(&pod.exchange(200, false)).record(Duration::from_millis(1), 1, 1);
    }
    cache.get(&first.exchange(200, false)).record(Duration::from_millis(1), 1, 1);
    let text = metrics.encode();
    assert_eq!(numbers(&text, "istio_requests_total", &["reporter=\"source\""]), [10_002.0]);
    assert!(cache.kinds() < pods.len(), "{}", cache.kinds());
}

#[test]
fn pods_that_are_gone_are_not_kept() {
    let metrics = Metrics::new();
    let mut cache = SeriesCache::new(&metrics);
    let stays = Parties::new("pay", 1);
    cache.get(&stays.exchange(200, false)).record(Duration::from_millis(1), 1, 1);
    for port in 0..10_000 {
        let goes = Parties { service: Arc::clone(&stays.service), ..Parties::new("pay", port) };
        cache.get(&goes.exchange(200, false)).record(Duration::from_millis(1), 1, 1);
        assert_eq!(Arc::strong_count(&goes.upstream), 1, "its place alone is kept");
    }
    cache.get(&stays.exchange(200, false)).record(Duration::from_millis(1), 1, 1);
    assert!(cache.kinds() <= 64, "{}", cache.kinds());
    let text = metrics.encode();
    assert_eq!(numbers(&text, "istio_requests_total", &["reporter=\"source\""]), [10_002.0]);
}

#[test]
fn scrapes_during_writes_lose_nothing_and_never_fall() {
    const EACH: u64 = 20_000;
    let metrics = Metrics::new();
    let write = || {
        let parties = Parties::new("pay", 1);
        let mut cache = SeriesCache::new(&metrics);
        for number in 0..EACH {
            let code = if number % 2 == 0 { 200 } else { 500 };
            cache.get(&parties.exchange(code, false)).record(Duration::from_micros(number), number, 1);
        }
    };
    std::thread::scope(|scope| {
        let writers = [scope.spawn(write), scope.spawn(write)];
        let mut seen = 0.0;
        while !writers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let text = metrics.encode();
            let total = numbers(&text, "istio_requests_total", &["reporter=\"source\""]).iter().sum();
            assert!(total >= seen, "{total} after {seen}");
            seen = total;
        }
    });
    let text = metrics.encode();
    let all = EACH as f64;
    for code in ["response_code=\"200\"", "response_code=\"500\""] {
        for reporter in ["reporter=\"source\"", "reporter=\"destination\""] {
            assert_eq!(numbers(&text, "istio_requests_total", &[code, reporter]), [all]);
            assert_eq!(numbers(&text, "istio_response_bytes_sum", &[code, reporter]), [all]);
            assert_eq!(numbers(&text, "istio_request_bytes_count", &[code, reporter]), [all]);
        }
    }
}

#[test]
fn recording_allocates_nothing() {
    let metrics = Metrics::new();
    let parties = Parties::new("pay", 1);
    let mut cache = SeriesCache::new(&metrics);
    let mut record = || {
        for (code, shadow) in [(200, false), (500, false), (200, true)] {
            cache.get(&parties.exchange(code, shadow)).record(Duration::from_millis(3), 10, 20);
        }
    };
    let ((), first) = allocations(&mut record);
    assert!(first > 0, "what is allocated is counted");
    let ((), again) = allocations(&mut record);
    assert_eq!(again, 0);
}
