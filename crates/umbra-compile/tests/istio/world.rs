//! The recorded cluster, with our tables in place of Istio's.

use std::collections::BTreeMap;

use http::HeaderMap;
use serde_json::{Value, json};
use umbra_compile::{Options, Outcome};
use umbra_index::api::ObjectKey;
use umbra_index::{Change, Event, Index};
use umbra_routing::{Answer, BackendRef, Draw, Endpoint, RequestHead, RouteTable, Rule, ServiceName};

use crate::cases::{Case, Drawn, base};

pub(crate) struct World {
    index: Index,
}

/// SplitMix64.
pub(crate) struct Seeded(pub(crate) u64);

impl Draw for Seeded {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

fn apply<T: serde::de::DeserializeOwned>(object: Value) -> Change<T> {
    Change::Apply(serde_json::from_value(object).expect("a recorded object"))
}

fn event(object: Value) -> Event {
    match object["kind"].as_str().expect("a kind") {
        "VirtualService" => Event::VirtualService(apply(object)),
        "DestinationRule" => Event::DestinationRule(apply(object)),
        "Service" => Event::Service(apply(object)),
        "EndpointSlice" => Event::EndpointSlice(apply(object)),
        "Pod" => Event::Pod(apply(object)),
        other => panic!("a recorded {other}"),
    }
}

/// The object, or those of a `List`.
fn items(object: &Value) -> &[Value] {
    object["items"].as_array().map_or(std::slice::from_ref(object), Vec::as_slice)
}

/// As the API server stores it.
fn created(mut object: Value, second: usize) -> Value {
    let meta = &mut object["metadata"];
    if meta["namespace"].is_null() {
        meta["namespace"] = json!("default");
    }
    meta["creationTimestamp"] = json!(format!("2026-01-01T00:00:{second:02}Z"));
    meta["uid"] = json!(format!("{}/{}", meta["namespace"], meta["name"]));
    object
}

impl World {
    pub(crate) fn of(case: &Case) -> Self {
        let mut index = Index::new();
        for object in base() {
            if object["kind"] != "Namespace" {
                index.apply(event(object));
            }
        }
        for (number, document) in case.objects.iter().enumerate() {
            for object in items(document).iter().filter(|object| !case.refuses(object)) {
                let second = if case.spread { number } else { 0 };
                index.apply(event(created(object.clone(), second)));
            }
        }
        Self { index }
    }

    /// What the service of a request does for its client.
    pub(crate) fn prepare(&self, request: &Value) -> Prepared {
        let (name, port) = request["to"].as_str().and_then(|to| to.split_once(':')).expect("service:port");
        let port: u16 = port.parse().expect("a port");
        let service = ObjectKey::new(if name == "ratings" { "other" } else { "default" }, name);
        let client = Client::of(request);
        let groups = |backend: &BackendRef| self.groups(backend);
        match self.rules(&service, port, &client) {
            Some(rules) => {
                let answers = rules.iter().map(|rule| rule.answer.clone()).collect();
                Prepared::Rules(RouteTable::new(&rules, groups).expect("rules that a node can use"), answers)
            }
            None => {
                Prepared::Plain(groups(&BackendRef::all(ServiceName::new(&service.namespace, name), port)))
            }
        }
    }

    /// `None`: not governed. A held service answers nothing here: Istio has no such state.
    fn rules(&self, service: &ObjectKey, port: u16, client: &Client) -> Option<Vec<Rule>> {
        let options = Options { foreign_virtual_services: true, ..Options::default() };
        let table = match umbra_compile::service(self.index.view(), service, &options).outcome {
            Outcome::Table(table) => table,
            Outcome::NotGoverned => return None,
            Outcome::Hold(_) => return Some(Vec::new()),
        };
        let port = table.ports.into_iter().find(|candidate| candidate.number == port)?;
        let variant = port.variant(Some(client.namespace)).expect("a default variant");
        Some(variant.rules.clone())
    }

    /// The group of each of the backend set's pods.
    fn groups(&self, backend: &BackendRef) -> Vec<String> {
        let set = umbra_compile::backends(self.index.view(), backend);
        let group =
            |endpoint: &Endpoint| format!("{}-{}", endpoint.app.trim_start_matches("sa-"), endpoint.version);
        set.endpoints.iter().map(group).collect()
    }
}

/// One of the two recorded client pods.
struct Client {
    namespace: &'static str,
    labels: [(&'static str, &'static str); 2],
}

impl Client {
    fn of(request: &Value) -> Self {
        match request["client"].as_str() {
            Some("tester") => Self { namespace: "other", labels: [("app", "tester"), ("version", "v7")] },
            _ => Self { namespace: "default", labels: [("app", "web-app"), ("version", "v1")] },
        }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        self.labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }
}

/// A service for one client; backend sets as their pods' groups.
pub(crate) enum Prepared {
    /// With the answers that stand in for destinations, rule by rule.
    Rules(RouteTable<Vec<String>>, Vec<Option<Answer>>),
    /// Not governed.
    Plain(Vec<String>),
}

impl Prepared {
    /// Who answers a request, and who gets copies.
    pub(crate) fn send(&self, request: &Value, draw: &mut Seeded) -> Drawn {
        let (table, answers) = match self {
            Self::Plain(groups) => return answer(groups, Vec::new(), draw),
            Self::Rules(table, answers) => (table, answers),
        };
        let method = request["method"].as_str().unwrap_or("GET");
        let to = request["to"].as_str().and_then(|to| to.split(':').next()).unwrap_or_default();
        let headers = headers(request);
        let labels = Client::of(request).labels();
        let Ok(target) = umbra_routing::normalise(request["path"].as_str().unwrap_or("/")) else {
            return (400, None, Vec::new());
        };
        let head = RequestHead {
            method,
            scheme: scheme(request, &headers),
            authority: request["host"].as_str().unwrap_or(to),
            target: &target,
            headers: &headers,
            labels: Some(&labels),
        };
        let Some(selection) = table.select(&head, draw) else {
            return (404, None, Vec::new());
        };
        let place = table.routes().iter().position(|route| std::sync::Arc::ptr_eq(route, selection.route));
        match answers[place.expect("one of its rules")] {
            Some(Answer::Direct(ref direct)) => return (direct.status.into(), None, Vec::new()),
            Some(Answer::Redirect(ref redirect)) => return (redirect.code.into(), None, Vec::new()),
            Some(Answer::NoRoute) => unreachable!("no request gets it"),
            None => {}
        }
        let source = std::net::Ipv4Addr::LOCALHOST.into();
        let mirrors = selection.route.mirrors.iter();
        let sampled: Vec<_> = mirrors.filter(|mirror| mirror.samples(head.headers, source, draw)).collect();
        let copies = sampled.iter().filter_map(|mirror| pick(&mirror.backend, draw)).collect();
        let (_, groups) = &selection.route.destinations[selection.destination];
        answer(groups, copies, draw)
    }
}

fn scheme(request: &Value, headers: &HeaderMap) -> &'static str {
    match request["h2c"].as_bool() {
        Some(true) => umbra_routing::scheme(http::Version::HTTP_2, Some("http"), headers),
        _ => umbra_routing::scheme(http::Version::HTTP_11, None, headers),
    }
}

/// No primary, no copies (spec/istio.md 2.6).
fn answer(groups: &[String], mut copies: Vec<String>, draw: &mut Seeded) -> Drawn {
    copies.sort();
    match pick(groups, draw) {
        Some(group) => (200, Some(group), copies),
        None => (503, None, Vec::new()),
    }
}

fn pick(groups: &[String], draw: &mut Seeded) -> Option<String> {
    let bound = u64::try_from(groups.len()).expect("a small count");
    let picked = (bound > 0).then(|| draw.below(bound))?;
    groups.get(usize::try_from(picked).expect("a small count")).cloned()
}

fn headers(request: &Value) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &str| {
        let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a header's name");
        headers
            .append(name, http::HeaderValue::from_bytes(value.trim().as_bytes()).expect("a header's value"));
    };
    match &request["headers"] {
        Value::Object(map) => {
            for (name, value) in map {
                match value {
                    Value::Array(values) => {
                        values.iter().for_each(|value| add(name, value.as_str().expect("text")))
                    }
                    value => add(name, value.as_str().expect("text")),
                }
            }
        }
        Value::Array(pairs) => {
            for pair in pairs {
                add(pair[0].as_str().expect("text"), pair[1].as_str().expect("text"));
            }
        }
        _ => {}
    }
    headers
}
