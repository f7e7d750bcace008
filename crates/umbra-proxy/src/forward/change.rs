//! What a rule changes on a request's way to its destination, and on the answer's way back.
//!
//! Takes: the request as it came. Gives: the request that the primary and its copies get. Values that tell of the exchange
//! are evaluated only where a rule has some.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use http::{HeaderMap, Method, Request, StatusCode, Uri, Version, header};
use umbra_routing::Exchange;

use super::choose::{Chosen, Subject};
use crate::connection::Worker;
use crate::headers::{self, Noticed};
use crate::serve::{ClientBody, Serving};
use crate::shadow::Original;
use crate::version::HttpVersion;

/// How a request came.
pub(super) struct Came {
    scheme: &'static str,
    version: Version,
    spoken: HttpVersion,
    client: IpAddr,
    started: Instant,
    pub(super) noticed: Noticed,
}

/// A request's head: as it came, or as it was sent.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
}

impl Came {
    pub(super) fn new(
        request: &Request<ClientBody>,
        serving: &Serving,
        (subject, started, noticed): (&Subject, Instant, Noticed),
    ) -> Self {
        let (spoken, client) = (serving.version(), serving.peer);
        Self { scheme: subject.scheme, version: request.version(), spoken, client, started, noticed }
    }
}

impl<'a> Head<'a> {
    pub(super) fn of(request: &'a Request<ClientBody>) -> Self {
        Self { method: request.method(), uri: request.uri(), headers: request.headers() }
    }

    pub(super) fn of_original(original: &'a Original) -> Self {
        Self { method: &original.method, uri: &original.uri, headers: &original.headers }
    }

    fn authority(self) -> &'a str {
        umbra_routing::authority(self.uri, self.headers)
    }

    fn target(self) -> &'a str {
        self.uri.path_and_query().map_or("/", |target| target.as_str())
    }

    fn exchange(self, came: &Came, upstream: Option<SocketAddr>, status: Option<StatusCode>) -> Exchange<'a> {
        Exchange {
            method: self.method.as_str(),
            scheme: came.scheme,
            authority: self.authority(),
            target: self.target(),
            version: came.version,
            client: came.client,
            started: SystemTime::now() - came.started.elapsed(),
            upstream,
            status,
        }
    }
}

/// Takes a request where it is, and carries a rule's changes out on it.
pub(super) fn change(
    request: &mut Request<ClientBody>,
    subject: &Subject,
    (chosen, came): (&Chosen, &Came),
    worker: &Worker,
) -> (Original, ClientBody) {
    let mut original = Original {
        method: std::mem::take(request.method_mut()),
        uri: std::mem::take(request.uri_mut()),
        headers: std::mem::take(request.headers_mut()),
        client: subject.client.clone(),
        family: subject.family,
        scheme: came.scheme,
        version: came.spoken,
        switches: false,
        recycled: Rc::clone(&worker.recycled),
    };
    if came.noticed.ends_here {
        headers::request_hop(&mut original.headers);
    }
    one_host(&mut original);
    let route = &chosen.route;
    if route.changes_requests() {
        let mut headers = original.headers.clone();
        let exchange = Head::of_original(&original).exchange(came, None, None);
        route.change_request(chosen.destination, &mut headers, &exchange);
        original.headers = headers;
    }
    if let Some(authority) = route.authority(chosen.destination) {
        original.headers.insert(header::HOST, authority.clone());
    }
    if let Some(target) = route.rewrite(chosen.block, Head::of_original(&original).target()) {
        // What is longer than an URI can be stays as it came.
        if let Ok(uri) = Uri::try_from(target) {
            original.uri = uri;
        }
    }
    (original, std::mem::take(request.body_mut()))
}

/// Changes the head of an answer to `request`, whoever makes it. `destination`: the one that it was for, if it got so far.
pub(super) fn change_answer(
    answer: &mut HeaderMap,
    request: Head<'_>,
    (chosen, came): (&Chosen, &Came),
    (destination, (status, upstream)): (Option<usize>, (StatusCode, Option<SocketAddr>)),
) {
    if chosen.route.changes_answers() {
        let exchange = request.exchange(came, upstream, Some(status));
        chosen.route.change_answer(destination, answer, request.headers, &exchange);
    }
}

/// The target becomes a path: whoever is asked is not a proxy (RFC 9112, 3.2.2).
fn one_host(original: &mut Original) {
    let Some(authority) = original.uri.authority() else { return };
    if let Ok(host) = authority.as_str().parse() {
        original.headers.insert(header::HOST, host);
    }
    let path = original.uri.path_and_query().cloned();
    original.uri = path.map_or_else(|| Uri::from_static("/"), Uri::from);
}
