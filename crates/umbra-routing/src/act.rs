//! What a rule does to a request and its answer, prepared once for each push.
//!
//! Takes: a rule's actions as data. Gives: decisions and changed heads, for the proxy to carry out in this order:
//! 1. [`Route::answer`]: a redirect or direct response, and nothing but [`Route::change_answer`] after it.
//! 2. [`Route::delay`], then [`Route::abort`].
//! 3. [`Route::cors`]: a preflight is answered, or something is to be added in step 6.
//! 4. [`Route::change_request`], which sees the request as it came, then [`Route::authority`] and [`Route::rewrite`].
//! 5. Sending, by [`Route::timeout`] and [`Route::retries`].
//! 6. [`Route::change_answer`], then [`CorsHeaders::put_into`].
//!
//! What cannot be used is an error before any request meets it.

mod cors;
mod edits;
mod fault;
mod format;
mod grpc;
mod instant;
mod redirect;
mod retry;
mod rewrite;

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};

pub use cors::{CorsDecision, CorsHeaders};
pub use fault::{ABORT_MESSAGE, Aborted};
pub use format::{Exchange, FormatError, check_format};
pub use grpc::{grpc_message, grpc_status, grpc_status_of, grpc_timeout, grpc_timeout_text, is_grpc};
pub use retry::{Attempt, Failure, RetryPolicy};

use cors::Cors;
use edits::Edits;
use fault::Fault;
use redirect::Redirect;
use rewrite::PathRewrite;

use crate::action::{self, HeaderChanges};
use crate::head::RequestHead;
use crate::matcher::{Block, MatchError, Taken};
use crate::route::Route;
use crate::select::Draw;
use crate::table::Rule;

/// A rule that no node can use. The author's fault; the controller finds it with [`Rule::check`] before a node does.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// A condition, or another regex.
    #[error(transparent)]
    Match(#[from] MatchError),
    /// A header operation's value.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A header operation's name.
    #[error("{0:?} is not a header that a rule can change here; Host can be set for requests only")]
    HeaderName(String),
    /// A header operation that would break the connection.
    #[error("{0:?} says how a message is framed on its connection, so no rule can change it")]
    Framing(String),
    /// In place of Host.
    #[error("{0:?} is not a host with an optional port")]
    Authority(String),
    /// A rewrite's or redirect's text.
    #[error("{0:?} cannot be part of an address; write other characters as percent escapes")]
    Target(String),
    /// A regex rewrite's text.
    #[error(r"the substitution {0:?} has a \ that is not followed by another, or by the number of a group of its regex")]
    Substitution(String),
    /// A redirect's code.
    #[error("the redirect code {0} is not one of 301, 302, 303, 307 and 308")]
    RedirectCode(u16),
    /// A direct response's or abort's status.
    #[error("the status {0} is not within 200 to 600")]
    Status(u16),
    /// A list of a CORS policy.
    #[error("the CORS list {0:?} cannot be a header's value")]
    Cors(String),
}

/// An answer that a rule gives itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalAnswer<'r> {
    /// Go elsewhere.
    Redirect {
        /// One of the five.
        status: StatusCode,
        /// The `Location` header.
        location: String,
    },
    /// This.
    Direct {
        /// 200 to 600.
        status: StatusCode,
        /// May be empty.
        body: &'r [u8],
    },
}

/// A rule's actions, ready to use.
pub(crate) struct Actions {
    answer: Option<Answer>,
    path: Option<PathRewrite>,
    authority: Option<HeaderValue>,
    headers: Headers,
    /// As many as destinations.
    of_destinations: Vec<Headers>,
    fault: Option<Fault>,
    cors: Option<Cors>,
    retries: Option<RetryPolicy>,
    timeout: Option<Duration>,
}

enum Answer {
    Redirect(Redirect),
    Direct(StatusCode, Vec<u8>),
}

#[derive(Default)]
struct Headers {
    requests: Edits,
    answers: Edits,
}

impl Actions {
    pub(crate) fn new(rule: &Rule) -> Result<Self, RuleError> {
        let headers = |changes: Option<&HeaderChanges>| changes.map_or(Ok(Headers::default()), Headers::new);
        let of_destinations = rule.destinations.iter().map(|to| headers(to.headers.as_ref()));
        let rewrite = rule.rewrite.as_ref();
        let path = rewrite.and_then(|rewrite| rewrite.path.as_ref()).map(PathRewrite::new);
        let authority = rewrite.and_then(|rewrite| rewrite.authority.as_deref()).map(edits::authority);
        // Neither acts on a rule that answers itself (spec/istio.md 1A and 4.4).
        let sends = rule.answer.is_none();
        Ok(Self {
            answer: rule.answer.as_ref().map(Answer::new).transpose()?.flatten(),
            path: path.transpose()?,
            authority: authority.transpose()?,
            headers: headers(rule.headers.as_ref())?,
            of_destinations: of_destinations.collect::<Result<_, _>>()?,
            fault: rule.fault.as_ref().filter(|_| sends).map(Fault::new).transpose()?,
            cors: rule.cors.as_ref().filter(|_| sends).map(Cors::new).transpose()?,
            retries: rule.retries.as_ref().map(RetryPolicy::new),
            timeout: rule.timeout_ms.map(Duration::from_millis),
        })
    }
}

impl Actions {
    fn edits(&self) -> impl Iterator<Item = &Headers> {
        self.of_destinations.iter().chain([&self.headers])
    }
}

impl Answer {
    fn new(answer: &action::Answer) -> Result<Option<Self>, RuleError> {
        Ok(match answer {
            action::Answer::Redirect(redirect) => Some(Self::Redirect(Redirect::new(redirect)?)),
            action::Answer::Direct(direct) => {
                Some(Self::Direct(fault::answer_status(direct.status)?, direct.body.clone()))
            }
            // No request gets such a rule.
            action::Answer::NoRoute => None,
        })
    }

    fn to(&self, head: &RequestHead<'_>, taken: Taken, service_port: u16) -> LocalAnswer<'_> {
        match self {
            Self::Direct(status, body) => LocalAnswer::Direct { status: *status, body },
            Self::Redirect(redirect) => LocalAnswer::Redirect {
                status: redirect.status,
                location: redirect.location(head, taken, service_port),
            },
        }
    }
}

impl Headers {
    fn new(changes: &HeaderChanges) -> Result<Self, RuleError> {
        let requests = Edits::of_requests(&changes.request)?;
        Ok(Self { requests, answers: Edits::of_answers(&changes.response)? })
    }
}

impl Rule {
    /// Says whether a node could use this rule.
    ///
    /// # Errors
    /// A condition or action that cannot be used.
    pub fn check(&self) -> Result<(), RuleError> {
        Route::new(self, &mut |_| ()).map(|_| ())
    }
}

impl<B> Route<B> {
    /// The rule answers itself, and sends nothing anywhere.
    pub fn has_answer(&self) -> bool {
        self.actions.answer.is_some()
    }

    /// The rule has a CORS policy.
    pub fn has_cors(&self) -> bool {
        self.actions.cors.is_some()
    }

    /// The rule's own answer, if it has one. `block` is the one that matched ([`Selection`](crate::Selection)),
    /// `service_port` the one that the client connected to.
    pub fn answer(&self, head: &RequestHead<'_>, block: usize, service_port: u16) -> Option<LocalAnswer<'_>> {
        self.actions.answer.as_ref().map(|answer| answer.to(head, self.taken(block), service_port))
    }

    /// How long the request waits before anything else happens to it; outside the rule's timeout.
    pub fn delay(&self, draw: &mut impl Draw) -> Option<Duration> {
        self.actions.fault.as_ref()?.delay(draw)
    }

    /// How the request is aborted, if it is; see [`is_grpc`].
    pub fn abort(&self, is_grpc: bool, draw: &mut impl Draw) -> Option<Aborted> {
        self.actions.fault.as_ref()?.abort(is_grpc, draw)
    }

    /// What the rule's CORS policy says to the request.
    pub fn cors(&self, head: &RequestHead<'_>) -> CorsDecision {
        self.actions.cors.as_ref().map_or(CorsDecision::Pass, |cors| cors.decide(head))
    }

    /// The target to send, if it is not the request's: a path and query that differs. It may have become longer than an
    /// URI can be.
    pub fn rewrite(&self, block: usize, target: &str) -> Option<String> {
        self.actions.path.as_ref()?.rewritten(self.taken(block), target)
    }

    /// What is sent in place of Host: the rewrite's, else the header operations' of the rule, else of the destination.
    pub fn authority(&self, destination: usize) -> Option<&HeaderValue> {
        let of_destination = || self.actions.of_destinations.get(destination)?.requests.authority();
        let actions = &self.actions;
        actions.authority.as_ref().or_else(|| actions.headers.requests.authority()).or_else(of_destination)
    }

    /// Header operations on a request that goes to that destination: the destination's block in full, then the rule's.
    pub fn change_request(&self, destination: usize, headers: &mut HeaderMap, exchange: &Exchange<'_>) {
        if let Some(own) = self.actions.of_destinations.get(destination) {
            own.requests.change_request(headers, exchange);
        }
        self.actions.headers.requests.change_request(headers, exchange);
    }

    /// The same on an answer, also on one that the proxy makes itself after a rule was found; without a destination
    /// only the rule's. `request` is what the backend got.
    pub fn change_answer(
        &self,
        destination: Option<usize>,
        answer: &mut HeaderMap,
        request: &HeaderMap,
        exchange: &Exchange<'_>,
    ) {
        if let Some(own) = destination.and_then(|index| self.actions.of_destinations.get(index)) {
            own.answers.change_answer(answer, request, exchange);
        }
        self.actions.headers.answers.change_answer(answer, request, exchange);
    }

    /// Some header operation acts on requests: whoever carries them out has to say how the request came.
    pub fn changes_requests(&self) -> bool {
        self.actions.edits().any(|headers| !headers.requests.is_empty())
    }

    /// The same of answers.
    pub fn changes_answers(&self) -> bool {
        self.actions.edits().any(|headers| !headers.answers.is_empty())
    }

    /// When the request is sent again; `None`: never.
    pub fn retries(&self) -> Option<&RetryPolicy> {
        self.actions.retries.as_ref()
    }

    /// How long the request may take with all its retries.
    pub fn timeout(&self) -> Option<Duration> {
        self.actions.timeout
    }

    fn taken(&self, block: usize) -> Taken {
        self.blocks.get(block).map_or(Taken::NOTHING_ASKED, Block::taken)
    }
}
