//! Which rule a request gets: from its connection's service, port and client, and from its head.

use std::rc::Rc;
use std::sync::Arc;

use http::{Method, Request, StatusCode, Version, header};
use umbra_routing::{Client, RequestHead, Route, ServiceName};

use super::local::Refusal;
use crate::balance::{Backends, Family};
use crate::connection::Worker;
use crate::headers::Noticed;
use crate::held::Held;
use crate::metrics::Flags;
use crate::serve::{self, ClientBody, Serving};
use crate::shadow::{Asked, Drawn};
use crate::tables::{Governed, PortRoutes, Target};

/// Which table a request is subject to.
pub(super) struct Subject {
    pub(super) governed: Held<Governed>,
    /// Absent in ByHost mode: the default port.
    pub(super) port: Option<u16>,
    pub(super) client: Option<Held<Client>>,
    pub(super) family: Option<Family>,
    pub(super) scheme: &'static str,
}

/// The rule, and what was drawn of it.
pub(super) struct Chosen {
    pub(super) route: Held<Route<Target>>,
    /// Index into the route's destinations.
    pub(super) destination: usize,
    /// Which of the rule's blocks matched.
    pub(super) block: usize,
    /// The Service's port.
    pub(super) port: u16,
    /// The service has lost this port, and the connection goes on with its last routes.
    last_routes: bool,
}

impl Subject {
    pub(super) fn of(serving: &Serving, request: &Request<ClientBody>, noticed: Noticed) -> Option<Self> {
        let scheme = match noticed.has_forwarded_proto || request.version() == Version::HTTP_2 {
            true => umbra_routing::scheme(request.version(), request.uri().scheme_str(), request.headers()),
            // It says none.
            false => "http",
        };
        match &serving.asked {
            serve::Asked::Intercepted(arrived) => Some(Self {
                governed: arrived.governed.clone(),
                port: Some(arrived.port),
                client: arrived.client.clone(),
                family: Some(arrived.family),
                scheme,
            }),
            serve::Asked::ByHost { client } => {
                let host = match request.uri().authority() {
                    Some(authority) => authority.as_str(),
                    None => request.headers().get(header::HOST)?.to_str().ok()?,
                };
                let governed = serving.named(host)?;
                Some(Self { governed, port: None, client: client.clone(), family: None, scheme })
            }
        }
    }

    /// What of a request decides about it.
    pub(super) fn head<'r>(&'r self, request: &'r Request<ClientBody>) -> RequestHead<'r> {
        let (uri, headers) = (request.uri(), request.headers());
        RequestHead {
            method: request.method().as_str(),
            scheme: self.scheme,
            authority: umbra_routing::authority(uri, headers),
            target: uri.path_and_query().map_or("/", |target| target.as_str()),
            headers,
            labels: self.client.as_ref().map(|client| &client.labels),
        }
    }
}

/// The rule that matches, or the answer where there is none.
pub(super) fn choose(
    serving: &Rc<Serving>,
    subject: &Subject,
    request: &Request<ClientBody>,
) -> Result<Chosen, Refusal> {
    if request.method() == Method::CONNECT {
        let text = "CONNECT is for proxies that the client chose\n".into();
        return Err(Refusal { status: StatusCode::METHOD_NOT_ALLOWED, flags: Flags::NoRoute, text });
    }
    let newest = subject.governed.routes.load();
    let mut last = serving.last_routes.borrow_mut();
    let is_last = last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &newest));
    let has_port = subject.port.is_none_or(|number| newest.port(number).is_some());
    if !is_last && (has_port || last.is_none()) {
        *last = Some(Arc::clone(&newest));
    }
    let last_routes = !has_port && !is_last;
    let routes = last.as_ref().expect("set when there was none");
    let port = match subject.port {
        Some(number) => routes.port(number),
        None => routes.default_port(),
    };
    let port = port.ok_or_else(|| no_rule(&subject.governed.service, "has no such port"))?;
    select(serving, subject, port, last_routes, request)
}

fn select(
    serving: &Rc<Serving>,
    subject: &Subject,
    port: &PortRoutes,
    last_routes: bool,
    request: &Request<ClientBody>,
) -> Result<Chosen, Refusal> {
    let service = &subject.governed.service;
    let namespace = subject.client.as_ref().map(|client| client.namespace.as_str());
    let rules = port.variant(namespace).ok_or_else(|| no_rule(service, "has no rules for this client"))?;
    let draw = &mut |bound| serving.worker.rng().u64(0..bound);
    let selection = rules
        .select(&subject.head(request), draw)
        .ok_or_else(|| no_rule(service, "has no rule that matches this request"))?;
    let route = serving.worker.at_hand.routes.get(selection.route);
    let (destination, block) = (selection.destination, selection.block);
    Ok(Chosen { route, destination, block, port: port.number, last_routes })
}

impl Chosen {
    /// The copies that this request is eligible for.
    pub(super) fn draw(&self, serving: &Serving, subject: &Subject, request: &Request<ClientBody>) -> Drawn {
        // A service that is no longer governed wants no copies, nor one that has lost the port.
        if self.route.mirrors.is_empty() || self.last_routes || subject.governed.retired_at().is_some() {
            return Drawn::none();
        }
        let asked = Asked {
            headers: request.headers(),
            source: serving.peer,
            is_local: subject.client.is_some(),
            disarmed: !serving.is_in_force(),
        };
        Drawn::new(&serving.worker, &self.route, &asked)
    }

    /// The endpoints that the request is for.
    pub(super) fn set(&self, worker: &Worker, service: &ServiceName) -> Result<Held<Backends>, Refusal> {
        let unavailable =
            |text| Refusal { status: StatusCode::SERVICE_UNAVAILABLE, flags: Flags::NoCluster, text };
        let name = &self.route.name;
        let (to, Target { set, .. }) = self
            .route
            .destinations
            .get(self.destination)
            .ok_or_else(|| unavailable(format!("rule {name} of {service} has no destination\n")))?;
        set.as_ref().map(|set| worker.at_hand.sets.get(set)).ok_or_else(|| {
            let subset = to.backend.subset.as_deref().unwrap_or_default();
            let (port, of) = (to.backend.port, &to.backend.service);
            unavailable(format!(
                "rule {name} of {service}: subset {subset:?}, port {port} of {of} is not defined\n"
            ))
        })
    }
}

fn no_rule(service: &ServiceName, what: &str) -> Refusal {
    let text = format!("service {service} {what}\n");
    Refusal { status: StatusCode::NOT_FOUND, flags: Flags::NoRoute, text }
}
