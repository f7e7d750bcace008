//! Forward: one request, from its head to its answer's head.
//!
//! Takes: a request and the table of its service. Gives: the primary's answer, streamed; copies to the rule's mirrors
//! once the primary has its request; 404 when no rule matches and 503 when there is nobody to ask. Adds nothing to
//! either, and never waits for a mirror.

mod answer;
mod attempt;

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use umbra_routing::{Client, RequestHead, ServiceName};

pub(crate) use answer::AnswerBody;
use answer::Record;
use attempt::{Attempts, Reached};

use crate::balance::{Backends, Family, Lease};
use crate::body::Bodies;
use crate::headers;
use crate::metrics::{DropReason, Flags};
use crate::serve::{Asked, Busy, Serving};
use crate::shadow::{Drawn, Original};
use crate::tables::{Governed, PortRoutes, Target};
use crate::upgrade;

/// What a request gets.
struct Decision {
    set: Arc<Backends>,
    drawn: Drawn,
}

/// A request that gets no primary, and why.
struct Refusal {
    status: StatusCode,
    flags: Flags,
    text: String,
}

/// Which table a request is subject to.
struct Subject {
    governed: Arc<Governed>,
    /// Absent in ByHost mode: the default port.
    port: Option<u16>,
    client: Option<Arc<Client>>,
    family: Option<Family>,
}

/// Answers one request. Dropped when the client leaves, which ends the primary's connection too.
///
/// # Errors
/// Never: what goes wrong has a status.
pub(crate) async fn answer(
    serving: Rc<Serving>,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Infallible> {
    let mut answer = asked(&serving, request).await;
    let close = serving.worker.is_draining() || !serving.is_in_force();
    if close && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(answer)
}

async fn asked(serving: &Rc<Serving>, mut request: Request<Incoming>) -> Response<AnswerBody> {
    let busy = serving.busy();
    if let Err(wrong) = headers::check_host(request.version(), request.headers()) {
        serving.worker.metrics.bad_request("host");
        let mut answer = answer::text(StatusCode::BAD_REQUEST, wrong.into(), busy);
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        return answer;
    }
    let Some(subject) = subject(serving, &request) else {
        serving.worker.metrics.refused("no_service");
        return answer::text(StatusCode::NOT_FOUND, "no governed service has this host\n".into(), busy);
    };
    name_host(&mut request, &subject);
    serving.serves(&subject.governed);
    let service = &subject.governed.service;
    let mut record = Record::new(&serving.worker, subject.client.clone(), Arc::clone(service), &request);
    let decision = match decide(serving, &subject, &request) {
        Ok(decision) => decision,
        Err(refusal) => return refuse(record, refusal, busy),
    };
    record.service(&decision.set.service);
    headers::decline_h2c(request.headers_mut());
    let upgrade = headers::upgrade(request.headers()).map(|to| (to, hyper::upgrade::on(&mut request)));
    let (mut original, body) = original(request, subject);
    let mut drawn = Some(decision.drawn);
    if let Some((protocol, _)) = &upgrade {
        headers::set_upgrade(&mut original.headers, protocol.clone());
        drawn.take().into_iter().for_each(|drawn| drawn.drop_all(DropReason::Upgrade));
    }
    let bodies = Bodies::new(body, serving.worker.limits.replay_bytes);
    record.request_body(bodies.bytes());
    let attempts = Attempts::new(&serving.worker, &decision.set, &original, &bodies, drawn);
    let mut reached = match attempts.run(&mut record).await {
        Ok(reached) => reached,
        Err(flags) => return refuse(record, failure(&bodies, flags, &decision.set.service), busy),
    };
    if let Some((_, client)) = upgrade
        && reached.answer.status() == StatusCode::SWITCHING_PROTOCOLS
    {
        return switch(serving, client, reached, record);
    }
    headers::answer_hop(reached.answer.headers_mut());
    answer::relay(&serving.worker, reached, record, busy)
}

/// A request of HTTP/1.0 may leave its host out; the copy on its way to a server of HTTP/1.1 may not.
fn name_host(request: &mut Request<Incoming>, subject: &Subject) {
    if request.headers().contains_key(header::HOST) || request.uri().authority().is_some() {
        return;
    }
    let host = match subject.port {
        None | Some(80) => subject.governed.service.fqdn(),
        Some(port) => format!("{}:{port}", subject.governed.service.fqdn()),
    };
    if let Ok(host) = host.parse() {
        request.headers_mut().insert(header::HOST, host);
    }
}

fn subject(serving: &Serving, request: &Request<Incoming>) -> Option<Subject> {
    match &serving.asked {
        Asked::Intercepted(arrived) => Some(Subject {
            governed: Arc::clone(&arrived.governed),
            port: Some(arrived.port),
            client: arrived.client.clone(),
            family: Some(arrived.family),
        }),
        Asked::ByHost { client } => {
            let host = match request.uri().authority() {
                Some(authority) => authority.as_str(),
                None => request.headers().get(header::HOST)?.to_str().ok()?,
            };
            let governed = serving.worker.tables.by_host(host)?;
            Some(Subject { governed, port: None, client: client.clone(), family: None })
        }
    }
}

fn decide(serving: &Serving, subject: &Subject, request: &Request<Incoming>) -> Result<Decision, Refusal> {
    if request.method() == Method::CONNECT {
        return Err(Refusal {
            status: StatusCode::METHOD_NOT_ALLOWED,
            flags: Flags::NoRoute,
            text: "CONNECT is for proxies that the client chose\n".into(),
        });
    }
    let mut routes = subject.governed.routes.load_full();
    let mut last_routes = false;
    if let Some(number) = subject.port {
        let mut last = serving.last_routes.borrow_mut();
        match &*last {
            Some(last) if routes.port(number).is_none() => {
                routes = Arc::clone(last);
                last_routes = true;
            }
            _ => *last = Some(Arc::clone(&routes)),
        }
    }
    let port = match subject.port {
        Some(number) => routes.port(number),
        None => routes.default_port(),
    };
    let port = port.ok_or_else(|| no_rule(&subject.governed.service, "has no such port"))?;
    select(serving, subject, port, last_routes, request)
}

fn select(
    serving: &Serving,
    subject: &Subject,
    port: &PortRoutes,
    last_routes: bool,
    request: &Request<Incoming>,
) -> Result<Decision, Refusal> {
    let service = &subject.governed.service;
    let namespace = subject.client.as_ref().map(|client| client.namespace.as_str());
    let rules = port.variant(namespace).ok_or_else(|| no_rule(service, "has no rules for this client"))?;
    let mut rng = serving.worker.rng();
    let draw = &mut |bound| rng.u64(0..bound);
    let selection = rules
        .select(&head(request, subject), draw)
        .ok_or_else(|| no_rule(service, "has no rule that matches this request"))?;
    // Drawn before anything can fail: what was eligible and did not go out is counted.
    let drawn = Drawn::new(&subject.governed, (last_routes, !serving.is_in_force()), selection.route, draw);
    let (to, Target { set, .. }) =
        selection.route.destinations.get(selection.destination).ok_or_else(|| Refusal {
            status: StatusCode::SERVICE_UNAVAILABLE,
            flags: Flags::NoCluster,
            text: format!("rule {} of {service} has no destination\n", selection.route.name),
        })?;
    let set = set.clone().ok_or_else(|| Refusal {
        status: StatusCode::SERVICE_UNAVAILABLE,
        flags: Flags::NoCluster,
        text: format!(
            "rule {} of {service}: subset {:?}, port {} of {} is not defined\n",
            selection.route.name,
            to.backend.subset.as_deref().unwrap_or_default(),
            to.backend.port,
            to.backend.service
        ),
    })?;
    Ok(Decision { set, drawn })
}

/// What of a request decides about it.
fn head<'r>(request: &'r Request<Incoming>, subject: &'r Subject) -> RequestHead<'r> {
    let (uri, headers) = (request.uri(), request.headers());
    RequestHead {
        method: request.method().as_str(),
        scheme: umbra_routing::scheme(request.version(), uri.scheme_str(), headers),
        authority: umbra_routing::authority(uri, headers),
        target: uri.path_and_query().map_or("/", |target| target.as_str()),
        headers,
        labels: subject.client.as_ref().map(|client| &client.labels),
    }
}

fn no_rule(service: &ServiceName, what: &str) -> Refusal {
    Refusal {
        status: StatusCode::NOT_FOUND,
        flags: Flags::NoRoute,
        text: format!("service {service} {what}\n"),
    }
}

fn failure(bodies: &Bodies, flags: Flags, service: &ServiceName) -> Refusal {
    if bodies.is_broken() {
        let text = "the request's body is not what its head says\n".into();
        return Refusal { status: StatusCode::BAD_REQUEST, flags: Flags::DownstreamTermination, text };
    }
    let what = match flags {
        Flags::NoHealthyUpstream => "has no ready endpoint",
        Flags::UpstreamConnectFailure => "has no endpoint that takes a connection",
        _ => "ended the connection before it answered",
    };
    Refusal { status: StatusCode::SERVICE_UNAVAILABLE, flags, text: format!("service {service} {what}\n") }
}

fn refuse(mut record: Record, refusal: Refusal, busy: Busy) -> Response<AnswerBody> {
    record.ended(refusal.status, refusal.flags, refusal.text.len() as u64);
    answer::text(refusal.status, refusal.text, busy)
}

fn original(request: Request<Incoming>, subject: Subject) -> (Original, Incoming) {
    let (head, body) = request.into_parts();
    let Subject { client, family, .. } = subject;
    let mut original = Original { method: head.method, uri: head.uri, headers: head.headers, client, family };
    normalise(&mut original);
    (original, body)
}

/// What is true for a hop ends here, and the target becomes a path: whoever is asked is not a proxy (RFC 9112, 3.2.2).
fn normalise(original: &mut Original) {
    headers::request_hop(&mut original.headers);
    let Some(authority) = original.uri.authority() else { return };
    if let Ok(host) = authority.as_str().parse() {
        original.headers.insert(header::HOST, host);
    }
    let path = original.uri.path_and_query().cloned();
    original.uri = path.map_or_else(|| Uri::from_static("/"), Uri::from);
}

/// The primary has switched protocols: from here on bytes pass.
fn switch(
    serving: &Serving,
    client: hyper::upgrade::OnUpgrade,
    reached: Reached,
    mut record: Record,
) -> Response<AnswerBody> {
    let Reached { mut answer, pooled, lease } = reached;
    let lease: Lease = lease;
    let protocol = headers::upgrade(answer.headers());
    let upstream = hyper::upgrade::on(&mut answer);
    pooled.detach();
    upgrade::join(serving, client, upstream, lease);
    headers::answer_hop(answer.headers_mut());
    if let Some(protocol) = protocol {
        headers::set_upgrade(answer.headers_mut(), protocol);
    }
    record.ended(StatusCode::SWITCHING_PROTOCOLS, Flags::None, 0);
    answer.map(|_| AnswerBody::empty())
}
