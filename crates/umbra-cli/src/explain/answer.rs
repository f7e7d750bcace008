//! What happens to a request, as data: `--output json` prints it as it is.

use std::net::SocketAddr;

use serde::Serialize;
use umbra_routing::{BackendRef, Rule, SampleBy, ServiceName};

use super::own::Own;
use super::request::Wanted;

/// The explanation.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Method, URL and client, as asked.
    #[serde(skip)]
    pub asked: String,
    /// The Service that was connected to: its full name.
    pub service: String,
    /// Its port.
    pub port: u16,
    /// `namespace/name` of the VirtualService whose rule serves; absent when none does.
    pub virtual_service: Option<String>,
    /// Index of the rule in it.
    pub rule: Option<usize>,
    /// The rule's name.
    pub name: Option<String>,
    /// Where the user's answer comes from.
    pub destinations: Vec<Share>,
    /// Where copies go.
    pub mirrors: Vec<Copies>,
    /// The status that umbra itself answers with: every time, since an abort of some requests is a policy; absent when a
    /// destination answers.
    pub status: Option<u16>,
    /// Of an answer to gRPC that umbra gives itself: `grpc-status`; `status` is 200 then.
    pub grpc_status: Option<u8>,
    /// Of a redirect: where to.
    pub location: Option<String>,
    /// Why umbra has no part in it: then every ready endpoint of the Service may answer.
    pub not_governed: Option<String>,
    /// Why nodes leave the service to its primary although a VirtualService governs it; then nothing is copied.
    pub left_alone: Option<String>,
    /// What else the rule does: its fields as a node has them.
    pub policies: serde_json::Value,
    /// The other rules, and why they do not serve.
    pub others: Vec<Skipped>,
}

/// A backend set.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// Full name of the service.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The subset, if one is named.
    pub subset: Option<String>,
    /// Nothing defines it.
    pub unresolved: bool,
    /// Ready addresses; `None` when there is nothing to know them from (files without EndpointSlices of the Service),
    /// which scripts see as an empty list.
    #[serde(serialize_with = "as_list")]
    pub endpoints: Option<Vec<SocketAddr>>,
}

fn as_list<S: serde::Serializer>(endpoints: &Option<Vec<SocketAddr>>, to: S) -> Result<S::Ok, S::Error> {
    endpoints.as_deref().unwrap_or_default().serialize(to)
}

/// A destination.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Share {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// In per cent of the rule's requests, when there is one destination; else as written.
    pub weight: u32,
}

/// A mirror.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Copies {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// How many of the rule's requests.
    pub percent: f64,
    /// What decides which; absent: chance, request by request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<SampleBy>,
}

/// A rule that does not serve.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Skipped {
    /// `namespace/name` of its VirtualService.
    pub virtual_service: Option<String>,
    /// Its index there.
    pub rule: Option<usize>,
    /// Its name.
    pub name: String,
    /// Why, one reason a line.
    pub because: Vec<String>,
}

impl Answer {
    pub(super) fn new(wanted: &Wanted, service: &ServiceName) -> Self {
        Self {
            asked: format!("{} {} from {}", wanted.method, wanted.url, wanted.from),
            service: service.fqdn(),
            port: wanted.port,
            virtual_service: None,
            rule: None,
            name: None,
            destinations: Vec::new(),
            mirrors: Vec::new(),
            status: None,
            grpc_status: None,
            location: None,
            not_governed: None,
            left_alone: None,
            policies: serde_json::Value::Null,
            others: Vec::new(),
        }
    }

    /// This rule serves.
    pub(super) fn chosen(
        &mut self,
        rule: &Rule,
        endpoints: &impl Fn(&BackendRef) -> Option<Vec<SocketAddr>>,
    ) {
        let place = |backend: &BackendRef| Place {
            host: backend.service.fqdn(),
            port: backend.port,
            subset: backend.subset.clone(),
            unresolved: backend.is_unresolved(),
            endpoints: endpoints(backend),
        };
        self.virtual_service = rule.origin.as_ref().map(|origin| origin.virtual_service.clone());
        self.rule = rule.origin.as_ref().map(|origin| origin.rule);
        self.name = Some(rule.name.clone());
        let single = rule.destinations.len() == 1;
        let shares = rule.destinations.iter();
        self.destinations = shares
            .map(|to| Share { place: place(&to.backend), weight: if single { 100 } else { to.weight } })
            .collect();
        let mirrors = rule.mirrors.iter();
        self.mirrors = mirrors
            .map(|to| Copies {
                place: place(&to.backend),
                percent: f64::from(to.per_million) / 10_000.0,
                sample: to.sample.clone(),
            })
            .collect();
        self.policies = policies(rule);
    }

    /// No destination has anybody to ask; nobody is asked who has no share.
    pub(super) fn asks_nobody(&self) -> bool {
        self.destinations.iter().filter(|to| to.weight > 0).all(|to| to.place.answers_nobody())
    }

    /// Nobody else is asked, so nothing is copied either.
    pub(super) fn answers_itself(&mut self, own: Own) {
        self.status = Some(own.status);
        self.grpc_status = own.grpc_status;
        self.location = own.location;
        self.mirrors.clear();
    }

    /// Nodes do not take the service over.
    pub(super) fn leave_alone(&mut self, why: String) {
        self.left_alone = Some(why);
        self.mirrors.clear();
    }
}

impl Place {
    fn answers_nobody(&self) -> bool {
        self.unresolved || self.endpoints.as_ref().is_some_and(Vec::is_empty)
    }
}

/// The rule without what is told elsewhere.
fn policies(rule: &Rule) -> serde_json::Value {
    let mut value = serde_json::to_value(rule).expect("a rule is plain data");
    if let Some(fields) = value.as_object_mut() {
        for told in ["name", "origin", "matches", "destinations", "mirrors"] {
            fields.remove(told);
        }
    }
    value
}

impl Skipped {
    pub(super) fn new(rule: &Rule, because: Vec<String>) -> Self {
        Self {
            virtual_service: rule.origin.as_ref().map(|origin| origin.virtual_service.clone()),
            rule: rule.origin.as_ref().map(|origin| origin.rule),
            name: rule.name.clone(),
            because,
        }
    }
}
