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

use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use umbra_routing::{CorsDecision, CorsHeaders};

pub(crate) use answer::AnswerBody;
use answer::Record;
use attempt::{Attempts, Reached};
use change::{AnswerChanges, Came, Head, change};
use choose::{Chosen, Subject, choose};
use deadline::Deadline;
use local::{Own, Refusal, failure};
use understand::{NotUnderstood, understand};

use crate::balance::Backends;
use crate::body::Bodies;
use crate::headers;
use crate::metrics::{DropReason, Flags};
use crate::serve::{ClientBody, Serving};
use crate::shadow::{Drawn, Original};
use crate::upgrade::Switched;
use crate::version::HttpVersion;

/// Answers one request; what goes wrong has a status. Dropped when the client leaves, which ends the primary's connection
/// too.
pub(crate) async fn answer(serving: &Rc<Serving>, request: Request<ClientBody>) -> Response<AnswerBody> {
    let _waiting = serving.begins();
    let is_head = request.method() == Method::HEAD;
    let mut answer = asked(serving, request).await;
    if is_head {
        answer::to_head(&mut answer);
    }
    answer
}

async fn asked(serving: &Rc<Serving>, mut request: Request<ClientBody>) -> Response<AnswerBody> {
    if let Err(NotUnderstood { reason, status, text }) = understand(&mut request) {
        serving.worker.metrics.bad_request(reason);
        return answer::last(status, text.into_bytes());
    }
    let Some(subject) = Subject::of(serving, &request) else {
        serving.worker.metrics.refused("no_service");
        return answer::own(StatusCode::NOT_FOUND, b"no governed service has this host\n".to_vec());
    };
    name_host(&mut request, &subject);
    let service = Arc::clone(&subject.governed.service);
    let record = Record::new(&serving.worker, subject.client.clone(), service, &request);
    match choose(serving, &subject, &request) {
        Ok(chosen) => by_rule(serving, &subject, &chosen, request, record).await,
        Err(refusal) => Own::refused(refusal, record.is_grpc()).send(record),
    }
}

/// A request of HTTP/1.0 may leave its host out; the copy on its way to a server of HTTP/1.1 may not.
fn name_host(request: &mut Request<ClientBody>, subject: &Subject) {
    let is_named = || request.headers().contains_key(header::HOST) || request.uri().authority().is_some();
    if request.version() >= Version::HTTP_11 || is_named() {
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
    request: &Request<ClientBody>,
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
    request: Request<ClientBody>,
    mut record: Record,
) -> Response<AnswerBody> {
    let came = Came::new(&request, serving, (subject, record.started()));
    let early = |mut own: Own, came: Came, cors: &CorsHeaders, record: Record| {
        let changes = AnswerChanges::new(chosen, came);
        changes.apply(&mut own.headers, Head::of(&request), None, (own.status, None));
        cors.put_into(&mut own.headers);
        own.send(record)
    };
    let cors = match first(serving, subject, chosen, &request, &mut record).await {
        First::Preflight(own) => return own.send(record),
        First::Answered(own) => return early(own, came, &CorsHeaders::default(), record),
        First::Goes(cors) => cors,
    };
    // Drawn before anything can fail: what was eligible and did not go out is counted.
    let drawn = chosen.draw(serving, subject, &request);
    match chosen.set(&subject.governed.service) {
        Ok(set) => {
            record.service(&set.service);
            let sending = Sending { serving, chosen, set, cors };
            sending.send(subject, request, (came, drawn), record).await
        }
        Err(refusal) => early(Own::refused(refusal, record.is_grpc()), came, &cors, record),
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
        mut request: Request<ClientBody>,
        (came, drawn): (Came, Drawn),
        mut record: Record,
    ) -> Response<AnswerBody> {
        let worker = &self.serving.worker;
        let upgrade = self.upgrade(request.headers_mut());
        let (mut original, changes, body) = change(request, subject, self.chosen, (came, &worker.recycled));
        let mut drawn = Some(drawn);
        if let Some(protocol) = upgrade {
            headers::set_upgrade(&mut original.headers, protocol);
            original.switches = true;
            drawn.take().into_iter().for_each(|drawn| drawn.drop_all(DropReason::Upgrade));
        }
        let bodies = Bodies::new(body, worker.limits.replay_bytes, record.started());
        record.request_body(&bodies);
        let (rule, is_grpc) = (self.chosen.route.timeout(), record.is_grpc());
        let mut deadline = Deadline::new(rule, (&mut original.headers, is_grpc), (&bodies, &worker.recycled));
        let retries = self.chosen.route.retries();
        let attempts = Attempts::new(worker, &self.set, &original, &bodies, (retries, drawn));
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
            Ok(reached) => self.reached(reached, (&original, &changes), (deadline, record)),
            Err(mut own) => {
                self.finish(&mut own.headers, &original, &changes, (own.status, None));
                own.send(record)
            }
        }
    }

    /// What the request wants to switch to, where that can be: HTTP/2 has no upgrades, and a server may always go on
    /// without one (RFC 9110 section 7.8).
    fn upgrade(&self, headers: &mut HeaderMap) -> Option<HeaderValue> {
        if !headers.contains_key(header::UPGRADE) {
            return None;
        }
        headers::decline_h2c(headers);
        let client = self.serving.version();
        let both = [client, client.towards(self.set.spoken_to())];
        headers::upgrade(headers).filter(|_| both == [HttpVersion::Http1; 2])
    }

    fn reached(
        &self,
        mut reached: Reached,
        (original, changes): (&Original, &AnswerChanges),
        (deadline, record): (Deadline, Record),
    ) -> Response<AnswerBody> {
        let status = reached.answer.status();
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return switch(reached, record);
        }
        headers::answer_hop(reached.answer.headers_mut());
        let upstream = Some(reached.lease.upstream().endpoint.address);
        self.finish(reached.answer.headers_mut(), original, changes, (status, upstream));
        answer::relay(&self.serving.worker, reached, deadline, record)
    }

    /// The rule's last word on an answer's head.
    fn finish(
        &self,
        answer: &mut HeaderMap,
        original: &Original,
        changes: &AnswerChanges,
        about: (StatusCode, Option<std::net::SocketAddr>),
    ) {
        changes.apply(answer, Head::of_original(original), Some(self.chosen.destination), about);
        self.cors.put_into(answer);
    }
}

/// The primary has switched protocols: from here on bytes pass.
fn switch(reached: Reached, mut record: Record) -> Response<AnswerBody> {
    let Reached { answer, pooled, lease } = reached;
    let (mut head, _) = answer.into_parts();
    let Some(upstream) = pooled.detach() else {
        let text = "the primary switched protocols before it had the whole request\n".into();
        let (status, flags) = (StatusCode::SERVICE_UNAVAILABLE, Flags::UpstreamTermination);
        return Own::refused(Refusal { status, flags, text }, record.is_grpc()).send(record);
    };
    let protocol = headers::upgrade(&head.headers);
    headers::answer_hop(&mut head.headers);
    if let Some(protocol) = protocol {
        headers::set_upgrade(&mut head.headers, protocol);
    }
    record.ended(StatusCode::SWITCHING_PROTOCOLS, Flags::None, 0);
    Response::from_parts(head, AnswerBody::switched(Switched { upstream, lease }))
}
