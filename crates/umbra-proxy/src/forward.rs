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

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use umbra_routing::{CorsDecision, CorsHeaders};

pub(crate) use answer::AnswerBody;
use answer::Record;
use attempt::{Attempts, Reached};
use change::{Came, Head, change, change_answer};
use choose::{Chosen, Subject, choose};
use deadline::Deadline;
use local::{Own, Refusal, failure};
use understand::{NotUnderstood, understand};

use crate::balance::Backends;
use crate::body::Bodies;
use crate::clock;
use crate::headers::{self, Noticed};
use crate::held::Held;
use crate::metrics::{DropReason, Flags};
use crate::serve::{ClientBody, Serving};
use crate::shadow::{Drawn, Original};
use crate::upgrade::Switched;
use crate::version::HttpVersion;

/// Answers one request, into `answer`: one that is handed on is copied as often. What goes wrong has a status. Dropped when
/// the client leaves, which ends the primary's connection too. What is left of the request is the caller's to drop: nobody
/// reads its body any more.
pub(crate) async fn answer(
    serving: &Rc<Serving>,
    request: &mut Request<ClientBody>,
    answer: &mut Option<Response<AnswerBody>>,
) {
    let _waiting = serving.begins();
    let is_head = request.method() == Method::HEAD;
    let answer = match Accepted::new(serving, request) {
        Ok(mut accepted) => {
            let mut begun = Begun::default();
            let asked = accepted.ask(&mut begun).await;
            answer.insert(accepted.answer(asked, begun))
        }
        Err(own) => answer.insert(*own),
    };
    answer::to_method(is_head, answer);
}

/// An answer that has begun, where there is one, and how long it may take.
#[derive(Default)]
struct Begun {
    reached: Option<Reached>,
    deadline: Deadline,
}

/// A request that a rule was found for. Its steps borrow it where it is: a future that is handed what it works on keeps it
/// twice, and copies it at each step.
struct Accepted<'s> {
    serving: &'s Rc<Serving>,
    request: &'s mut Request<ClientBody>,
    subject: Subject,
    chosen: Chosen,
    came: Came,
    record: Record,
    /// When it went on to its destination: a fault's delay is none of its timeout, nor of an endpoint's doing.
    goes_on: Instant,
}

impl<'s> Accepted<'s> {
    /// Finds the rule of a request, or answers what has none.
    fn new(
        serving: &'s Rc<Serving>,
        request: &'s mut Request<ClientBody>,
    ) -> Result<Self, Box<Response<AnswerBody>>> {
        let noticed = Noticed::of(request.headers());
        if let Err(NotUnderstood { reason, status, text }) = understand(request, noticed) {
            serving.worker.metrics.bad_request(reason);
            return Err(Box::new(answer::last(status, text.into_bytes())));
        }
        let Some(subject) = Subject::of(serving, request, noticed) else {
            serving.worker.metrics.refused("no_service");
            let text = b"no governed service has this host\n".to_vec();
            return Err(Box::new(answer::own(StatusCode::NOT_FOUND, text)));
        };
        name_host(request, &subject);
        let record = Record::new(&serving.worker, &subject, (request, noticed));
        match choose(serving, &subject, request) {
            Ok(chosen) => {
                let came = Came::new(request, serving, (&subject, record.started(), noticed));
                let goes_on = record.started();
                Ok(Self { serving, request, subject, chosen, came, record, goes_on })
            }
            Err(refusal) => Err(Box::new(Own::refused(refusal, record.is_grpc()).send(record))),
        }
    }

    /// What the rule makes of it, from its own answer to the primary's, which is put into `begun`.
    async fn ask(&mut self, begun: &mut Begun) -> Result<(), Box<Own>> {
        if let Some(own) = self.own_answer() {
            return Err(self.changed(own));
        }
        let draw = &mut |bound| self.serving.worker.rng().u64(0..bound);
        if let Some(delay) = self.chosen.route.delay(draw) {
            self.record.delayed();
            // Boxed, because it is rare and would make every request larger.
            Box::pin(tokio::time::sleep(delay)).await;
            self.goes_on = clock::now();
        }
        let cors = self.passes()?;
        // Drawn before anything can fail: what was eligible and did not go out is counted.
        let drawn = self.chosen.draw(self.serving, &self.subject, self.request);
        match self.chosen.set(&self.serving.worker, &self.subject.governed.service) {
            Ok(set) => self.send(&set, &cors, drawn, begun).await,
            Err(refusal) => {
                let mut own = self.changed(Own::refused(refusal, self.record.is_grpc()));
                cors.put_into(&mut own.headers);
                Err(own)
            }
        }
    }

    /// A redirect or a direct response.
    fn own_answer(&self) -> Option<Own> {
        let Chosen { route, block, port, .. } = &self.chosen;
        if !route.has_answer() {
            return None;
        }
        let answer = route.answer(&self.subject.head(self.request), *block, *port)?;
        Some(Own::of_rule(&answer, self.record.is_grpc()))
    }

    /// What belongs to the answer of a request that neither a fault nor CORS answers.
    fn passes(&self) -> Result<CorsHeaders, Box<Own>> {
        let route = &self.chosen.route;
        let draw = &mut |bound| self.serving.worker.rng().u64(0..bound);
        if let Some(aborted) = route.abort(self.record.is_grpc(), draw) {
            return Err(self.changed(Own::aborted(aborted)));
        }
        if !route.has_cors() {
            return Ok(CorsHeaders::default());
        }
        match route.cors(&self.subject.head(self.request)) {
            CorsDecision::Pass => Ok(CorsHeaders::default()),
            CorsDecision::Allow(headers) => Ok(headers),
            // A preflight's answer, which nothing else changes.
            CorsDecision::Answer(headers) => {
                let mut own = Own::preflight();
                headers.put_into(&mut own.headers);
                Err(Box::new(own))
            }
        }
    }

    /// An answer of our own to a request that went nowhere, with what the rule does to all answers.
    fn changed(&self, mut own: Own) -> Box<Own> {
        let (head, about) = (Head::of(self.request), (own.status, None));
        change_answer(&mut own.headers, head, (&self.chosen, &self.came), (None, about));
        Box::new(own)
    }

    /// Sends it to the endpoints that its rule chose. Their answer is put into `begun`.
    async fn send(
        &mut self,
        set: &Held<Backends>,
        cors: &CorsHeaders,
        drawn: Drawn,
        Begun { reached, deadline }: &mut Begun,
    ) -> Result<(), Box<Own>> {
        let worker = &self.serving.worker;
        let (mut original, body, drawn) = self.leave(set, drawn);
        let bodies = Bodies::new(body, worker.limits.replay_bytes, self.goes_on);
        self.record.request_body(&bodies);
        let (route, is_grpc) = (&self.chosen.route, self.record.is_grpc());
        let headers = (&mut original.headers, is_grpc);
        *deadline = Deadline::new(route.timeout(), headers, (&bodies, &worker.recycled));
        let with = (route.retries(), drawn, self.goes_on);
        let mut attempts = Attempts::new(worker, set, &original, &bodies, with, reached);
        let late = || Own::timed_out(&set.service, is_grpc);
        let ended = tokio::select! {
            biased;
            ended = attempts.run(&mut self.record) => ended.map_err(|flags| match flags {
                Flags::UpstreamTimeout => late(),
                flags => Own::refused(failure(&bodies, flags, &set.service), is_grpc),
            }),
            () = deadline.passed() => Err(late()),
        };
        match ended {
            Ok(()) => reached.iter_mut().for_each(|reached| self.finish(reached, &original, cors)),
            Err(mut own) => {
                self.change(&mut own.headers, &original, cors, (own.status, None));
                return Err(Box::new(own));
            }
        }
        Ok(())
    }

    /// The request as it leaves, with what is copied of it.
    fn leave(&mut self, set: &Held<Backends>, drawn: Drawn) -> (Original, ClientBody, Option<Drawn>) {
        self.record.chosen(set);
        let headers = Some(self.request.headers_mut()).filter(|_| self.came.noticed.has_upgrade);
        let upgrade = headers.and_then(|headers| upgrade(self.serving, set, headers));
        let rule = (&self.chosen, &self.came);
        let (mut original, body) = change(self.request, &self.subject, rule, &self.serving.worker);
        let Some(protocol) = upgrade else { return (original, body, Some(drawn)) };
        headers::set_upgrade(&mut original.headers, protocol);
        original.switches = true;
        drawn.drop_all(DropReason::Upgrade);
        (original, body, None)
    }

    /// The head of a primary's answer, as it leaves.
    fn finish(&self, reached: &mut Reached, original: &Original, cors: &CorsHeaders) {
        let status = reached.answer.status();
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return;
        }
        let upstream = Some(reached.lease.upstream().endpoint.address);
        let headers = reached.answer.headers_mut();
        headers::answer_hop(headers);
        self.change(headers, original, cors, (status, upstream));
    }

    /// The rule's last word on an answer's head.
    fn change(
        &self,
        headers: &mut HeaderMap,
        original: &Original,
        cors: &CorsHeaders,
        about: (StatusCode, Option<SocketAddr>),
    ) {
        let destination = Some(self.chosen.destination);
        let head = Head::of_original(original);
        change_answer(headers, head, (&self.chosen, &self.came), (destination, about));
        cors.put_into(headers);
    }

    fn answer(self, asked: Result<(), Box<Own>>, Begun { reached, deadline }: Begun) -> Response<AnswerBody> {
        if let Err(own) = asked {
            return own.send(self.record);
        }
        let reached = reached.expect("what has begun was put there");
        match reached.answer.status() {
            StatusCode::SWITCHING_PROTOCOLS => switch(reached, self.record),
            _ => answer::relay(&self.serving.worker, reached, deadline, self.record),
        }
    }
}

/// What a request wants to switch to, where that can be: HTTP/2 has no upgrades, and a server may always go on without
/// one (RFC 9110 section 7.8).
fn upgrade(serving: &Serving, set: &Backends, headers: &mut HeaderMap) -> Option<HeaderValue> {
    headers::decline_h2c(headers);
    let client = serving.version();
    let both = [client, client.towards(set.spoken_to())];
    headers::upgrade(headers).filter(|_| both == [HttpVersion::Http1; 2])
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
