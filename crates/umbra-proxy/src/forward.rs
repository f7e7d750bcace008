//! Forward: one request, from its head to its answer's head.
//!
//! Takes: a request and the table of its service. Gives: the primary's answer, streamed; copies to the rule's mirrors
//! once the primary has its request; or an answer of our own (`local`). In the order in which Istio's proxies do it: the
//! rule's own answer, faults, CORS, header changes and rewrites, sending with retries and a timeout. Adds nothing unless
//! a rule says so, and never waits for a mirror.

mod answer;
mod attempt;
mod change;
mod choose;
mod deadline;
mod local;
mod understand;

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use umbra_routing::{CorsDecision, CorsHeaders};

pub(crate) use answer::AnswerBody;
use answer::Record;
use attempt::{Attempts, Reached};
use change::{AnswerChanges, Came, Head, change};
use choose::{Chosen, Subject, choose};
use deadline::Deadline;
use local::{Own, failure};
use understand::{NotUnderstood, understand};

use crate::balance::{Backends, Lease};
use crate::body::Bodies;
use crate::headers;
use crate::metrics::{DropReason, Flags};
use crate::serve::{Busy, Serving};
use crate::shadow::{Drawn, Original};
use crate::upgrade;
use crate::version::HttpVersion;

/// Answers one request. Dropped when the client leaves, which ends the primary's connection too.
///
/// # Errors
/// Never: what goes wrong has a status.
pub(crate) async fn answer(
    serving: Rc<Serving>,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Infallible> {
    let is_head = request.method() == Method::HEAD;
    let mut answer = asked(&serving, request).await;
    if is_head {
        answer::to_head(&mut answer);
    }
    let close = serving.worker.is_draining() || !serving.is_in_force();
    if close && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        leave(&serving, &mut answer);
    }
    Ok(answer)
}

/// Tells the client that its connection ends; HTTP/2 says it with a frame of its own.
fn leave(serving: &Serving, answer: &mut Response<AnswerBody>) {
    if serving.version() == HttpVersion::Http1 {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

async fn asked(serving: &Rc<Serving>, mut request: Request<Incoming>) -> Response<AnswerBody> {
    let busy = serving.busy();
    if let Err(NotUnderstood { reason, status, text }) = understand(&mut request) {
        serving.worker.metrics.bad_request(reason);
        let mut answer = answer::own(status, text.into_bytes(), busy);
        leave(serving, &mut answer);
        return answer;
    }
    let Some(subject) = Subject::of(serving, &request) else {
        serving.worker.metrics.refused("no_service");
        return answer::own(StatusCode::NOT_FOUND, b"no governed service has this host\n".to_vec(), busy);
    };
    name_host(&mut request, &subject);
    serving.serves(&subject.governed);
    let service = Arc::clone(&subject.governed.service);
    let record = Record::new(&serving.worker, subject.client.clone(), service, &request);
    match choose(serving, &subject, &request) {
        Ok(chosen) => by_rule(serving, &subject, &chosen, request, record, busy).await,
        Err(refusal) => Own::refused(refusal, record.is_grpc()).send(record, busy),
    }
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

/// What becomes of a request before anybody is asked.
enum First {
    /// The rule answers, and may change its answer.
    Answered(Own),
    /// A preflight, which nothing else changes.
    Preflight(Own),
    /// It goes on; these belong to its answer.
    Goes(CorsHeaders),
}

async fn first(
    serving: &Serving,
    subject: &Subject,
    chosen: &Chosen,
    request: &Request<Incoming>,
    record: &mut Record,
) -> First {
    let (route, head) = (&chosen.route, subject.head(request));
    if let Some(answer) = route.answer(&head, chosen.block, chosen.port) {
        return First::Answered(Own::of_rule(&answer, record.is_grpc()));
    }
    let draw = &mut |bound| serving.worker.rng().u64(0..bound);
    if let Some(delay) = route.delay(draw) {
        record.delayed();
        tokio::time::sleep(delay).await;
    }
    if let Some(aborted) = route.abort(record.is_grpc(), draw) {
        return First::Answered(Own::aborted(aborted));
    }
    match route.cors(&head) {
        CorsDecision::Pass => First::Goes(CorsHeaders::default()),
        CorsDecision::Allow(headers) => First::Goes(headers),
        CorsDecision::Answer(headers) => {
            let mut own = Own::preflight();
            headers.put_into(&mut own.headers);
            First::Preflight(own)
        }
    }
}

async fn by_rule(
    serving: &Rc<Serving>,
    subject: &Subject,
    chosen: &Chosen,
    request: Request<Incoming>,
    mut record: Record,
    busy: Busy,
) -> Response<AnswerBody> {
    let came = Came::new(&request, serving);
    let early = |mut own: Own, came: Came, cors: &CorsHeaders, record: Record, busy: Busy| {
        let changes = AnswerChanges::new(chosen, came);
        changes.apply(&mut own.headers, Head::of(&request), None, (own.status, None));
        cors.put_into(&mut own.headers);
        own.send(record, busy)
    };
    let cors = match first(serving, subject, chosen, &request, &mut record).await {
        First::Preflight(own) => return own.send(record, busy),
        First::Answered(own) => return early(own, came, &CorsHeaders::default(), record, busy),
        First::Goes(cors) => cors,
    };
    // Drawn before anything can fail: what was eligible and did not go out is counted.
    let drawn = chosen.draw(serving, subject, &request);
    match chosen.set(&subject.governed.service) {
        Ok(set) => {
            record.service(&set.service);
            let sending = Sending { serving, chosen, set, cors };
            sending.send(subject, request, (came, drawn), (record, busy)).await
        }
        Err(refusal) => early(Own::refused(refusal, record.is_grpc()), came, &cors, record, busy),
    }
}

/// A request on its way to the endpoints that its rule chose.
struct Sending<'a> {
    serving: &'a Rc<Serving>,
    chosen: &'a Chosen,
    set: Arc<Backends>,
    cors: CorsHeaders,
}

impl Sending<'_> {
    async fn send(
        &self,
        subject: &Subject,
        mut request: Request<Incoming>,
        (came, drawn): (Came, Drawn),
        (mut record, busy): (Record, Busy),
    ) -> Response<AnswerBody> {
        let worker = &self.serving.worker;
        headers::decline_h2c(request.headers_mut());
        let upgrade = self.upgrade(&mut request);
        let (mut original, changes, body) = change(request, subject, self.chosen, came);
        let mut drawn = Some(drawn);
        if let Some((protocol, _)) = &upgrade {
            headers::set_upgrade(&mut original.headers, protocol.clone());
            drawn.take().into_iter().for_each(|drawn| drawn.drop_all(DropReason::Upgrade));
        }
        let bodies = Bodies::new(body, worker.limits.replay_bytes);
        record.request_body(bodies.bytes());
        let mut deadline = Deadline::new(self.chosen.route.timeout(), &mut original.headers, &bodies);
        let retries = self.chosen.route.retries();
        let attempts = Attempts::new(worker, &self.set, &original, &bodies, (retries, drawn));
        let is_grpc = record.is_grpc();
        let late = || Own::timed_out(&self.set.service, is_grpc);
        let ended = tokio::select! {
            biased;
            ended = attempts.run(&mut record) => ended.map_err(|flags| match flags {
                Flags::UpstreamTimeout => late(),
                flags => Own::refused(failure(&bodies, flags, &self.set.service), is_grpc),
            }),
            () = deadline.passed() => Err(late()),
        };
        match ended {
            Ok(reached) => self.reached(reached, upgrade, (&original, &changes), (deadline, record, busy)),
            Err(mut own) => {
                self.finish(&mut own.headers, &original, &changes, (own.status, None));
                own.send(record, busy)
            }
        }
    }

    /// What the request wants to switch to, where that can be: HTTP/2 has no upgrades, and a server may always go on
    /// without one (RFC 9110 section 7.8).
    fn upgrade(&self, request: &mut Request<Incoming>) -> Option<(HeaderValue, hyper::upgrade::OnUpgrade)> {
        if self.serving.version().towards(self.set.spoken_to()) == HttpVersion::Http2 {
            return None;
        }
        headers::upgrade(request.headers()).map(|to| (to, hyper::upgrade::on(request)))
    }

    fn reached(
        &self,
        mut reached: Reached,
        upgrade: Option<(HeaderValue, hyper::upgrade::OnUpgrade)>,
        (original, changes): (&Original, &AnswerChanges),
        (deadline, record, busy): (Deadline, Record, Busy),
    ) -> Response<AnswerBody> {
        let status = reached.answer.status();
        if let Some((_, client)) = upgrade
            && status == StatusCode::SWITCHING_PROTOCOLS
        {
            return switch(self.serving, client, reached, record);
        }
        headers::answer_hop(reached.answer.headers_mut());
        let upstream = Some(reached.lease.upstream().endpoint.address);
        self.finish(reached.answer.headers_mut(), original, changes, (status, upstream));
        answer::relay(&self.serving.worker, reached, deadline, (record, busy))
    }

    /// The rule's last word on an answer's head.
    fn finish(
        &self,
        answer: &mut http::HeaderMap,
        original: &Original,
        changes: &AnswerChanges,
        about: (StatusCode, Option<std::net::SocketAddr>),
    ) {
        changes.apply(answer, Head::of_original(original), Some(self.chosen.destination), about);
        self.cors.put_into(answer);
    }
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
