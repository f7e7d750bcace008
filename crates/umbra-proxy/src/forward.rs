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
use change::{Came, Head, change, change_answer};
use choose::{Chosen, Subject, choose};
use deadline::Deadline;
use local::{Own, Refusal, failure};
use understand::{NotUnderstood, understand};

use crate::balance::Backends;
use crate::body::Bodies;
use crate::headers;
use crate::metrics::{DropReason, Flags};
use crate::serve::{ClientBody, Serving};
use crate::shadow::Drawn;
use crate::upgrade::Switched;
use crate::version::HttpVersion;

/// Answers one request; what goes wrong has a status. Dropped when the client leaves, which ends the primary's connection
/// too.
pub(crate) async fn answer(serving: &Rc<Serving>, request: Request<ClientBody>) -> Response<AnswerBody> {
    let _waiting = serving.begins();
    let is_head = request.method() == Method::HEAD;
    let mut accepted = match Accepted::new(serving, request) {
        Ok(accepted) => accepted,
        Err(answer) => return answer::to_method(is_head, answer),
    };
    let asked = accepted.ask().await;
    answer::to_method(is_head, accepted.answer(asked))
}

/// A request that a rule was found for. Its steps borrow it where it is: a future that is handed what it works on keeps it
/// twice, and copies it at each step.
struct Accepted<'s> {
    serving: &'s Rc<Serving>,
    request: Request<ClientBody>,
    subject: Subject,
    chosen: Chosen,
    came: Came,
    record: Record,
}

impl<'s> Accepted<'s> {
    /// Finds the rule of a request, or answers what has none.
    fn new(serving: &'s Rc<Serving>, mut request: Request<ClientBody>) -> Result<Self, Response<AnswerBody>> {
        if let Err(NotUnderstood { reason, status, text }) = understand(&mut request) {
            serving.worker.metrics.bad_request(reason);
            return Err(answer::last(status, text.into_bytes()));
        }
        let Some(subject) = Subject::of(serving, &request) else {
            serving.worker.metrics.refused("no_service");
            return Err(answer::own(StatusCode::NOT_FOUND, b"no governed service has this host\n".to_vec()));
        };
        name_host(&mut request, &subject);
        let service = Arc::clone(&subject.governed.service);
        let record = Record::new(&serving.worker, subject.client.clone(), service, &request);
        match choose(serving, &subject, &request) {
            Ok(chosen) => {
                let came = Came::new(&request, serving, (&subject, record.started()));
                Ok(Self { serving, request, subject, chosen, came, record })
            }
            Err(refusal) => Err(Own::refused(refusal, record.is_grpc()).send(record)),
        }
    }

    /// What the rule makes of it, from its own answer to the primary's.
    async fn ask(&mut self) -> Result<(Reached, Deadline), Own> {
        if let Some(own) = self.own_answer() {
            return Err(self.changed(own));
        }
        let draw = &mut |bound| self.serving.worker.rng().u64(0..bound);
        if let Some(delay) = self.chosen.route.delay(draw) {
            self.record.delayed();
            // Boxed, because it is rare and would make every request larger.
            Box::pin(tokio::time::sleep(delay)).await;
        }
        let cors = self.passes()?;
        // Drawn before anything can fail: what was eligible and did not go out is counted.
        let drawn = self.chosen.draw(self.serving, &self.subject, &self.request);
        match self.chosen.set(&self.subject.governed.service) {
            Ok(set) => self.send(&set, &cors, drawn).await,
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
        let answer = route.answer(&self.subject.head(&self.request), *block, *port)?;
        Some(Own::of_rule(&answer, self.record.is_grpc()))
    }

    /// What belongs to the answer of a request that neither a fault nor CORS answers.
    fn passes(&self) -> Result<CorsHeaders, Own> {
        let route = &self.chosen.route;
        let draw = &mut |bound| self.serving.worker.rng().u64(0..bound);
        if let Some(aborted) = route.abort(self.record.is_grpc(), draw) {
            return Err(self.changed(Own::aborted(aborted)));
        }
        if !route.has_cors() {
            return Ok(CorsHeaders::default());
        }
        match route.cors(&self.subject.head(&self.request)) {
            CorsDecision::Pass => Ok(CorsHeaders::default()),
            CorsDecision::Allow(headers) => Ok(headers),
            // A preflight's answer, which nothing else changes.
            CorsDecision::Answer(headers) => {
                let mut own = Own::preflight();
                headers.put_into(&mut own.headers);
                Err(own)
            }
        }
    }

    /// An answer of our own to a request that went nowhere, with what the rule does to all answers.
    fn changed(&self, mut own: Own) -> Own {
        let (head, about) = (Head::of(&self.request), (own.status, None));
        change_answer(&mut own.headers, head, (&self.chosen, &self.came), (None, about));
        own
    }

    /// Sends it to the endpoints that its rule chose.
    async fn send(
        &mut self,
        set: &Backends,
        cors: &CorsHeaders,
        drawn: Drawn,
    ) -> Result<(Reached, Deadline), Own> {
        let worker = &self.serving.worker;
        let upgrade = upgrade(self.serving, set, self.request.headers_mut());
        let (mut original, body) =
            change(std::mem::take(&mut self.request), &self.subject, (&self.chosen, &self.came), worker);
        let mut drawn = Some(drawn);
        if let Some(protocol) = upgrade {
            headers::set_upgrade(&mut original.headers, protocol);
            original.switches = true;
            drawn.take().into_iter().for_each(|drawn| drawn.drop_all(DropReason::Upgrade));
        }
        self.record.service(&set.service);
        let bodies = Bodies::new(body, worker.limits.replay_bytes, self.record.started());
        self.record.request_body(&bodies);
        let (rule, is_grpc) = (self.chosen.route.timeout(), self.record.is_grpc());
        let mut deadline = Deadline::new(rule, (&mut original.headers, is_grpc), (&bodies, &worker.recycled));
        let mut attempts = Attempts::new(
            worker,
            set,
            &original,
            &bodies,
            (self.chosen.route.retries(), drawn, self.record.started()),
        );
        let late = || Own::timed_out(&set.service, is_grpc);
        let ended = tokio::select! {
            biased;
            ended = attempts.run(&mut self.record) => ended.map_err(|flags| match flags {
                Flags::UpstreamTimeout => late(),
                flags => Own::refused(failure(&bodies, flags, &set.service), is_grpc),
            }),
            () = deadline.passed() => Err(late()),
        };
        let change = |headers: &mut HeaderMap, about| {
            let destination = Some(self.chosen.destination);
            let head = Head::of_original(&original);
            change_answer(headers, head, (&self.chosen, &self.came), (destination, about));
            cors.put_into(headers);
        };
        match ended {
            Ok(mut reached) => {
                let status = reached.answer.status();
                if status != StatusCode::SWITCHING_PROTOCOLS {
                    let upstream = Some(reached.lease.upstream().endpoint.address);
                    headers::answer_hop(reached.answer.headers_mut());
                    change(reached.answer.headers_mut(), (status, upstream));
                }
                Ok((reached, deadline))
            }
            Err(mut own) => {
                change(&mut own.headers, (own.status, None));
                Err(own)
            }
        }
    }

    fn answer(self, asked: Result<(Reached, Deadline), Own>) -> Response<AnswerBody> {
        match asked {
            Ok((reached, _)) if reached.answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
                switch(reached, self.record)
            }
            Ok((reached, deadline)) => answer::relay(&self.serving.worker, reached, deadline, self.record),
            Err(own) => own.send(self.record),
        }
    }
}

/// What a request wants to switch to, where that can be: HTTP/2 has no upgrades, and a server may always go on without
/// one (RFC 9110 section 7.8).
fn upgrade(serving: &Serving, set: &Backends, headers: &mut HeaderMap) -> Option<HeaderValue> {
    if !headers.contains_key(header::UPGRADE) {
        return None;
    }
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
