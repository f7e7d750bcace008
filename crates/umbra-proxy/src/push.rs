//! The push server: `PUT` and `PATCH /v1/config`, `GET /v1/state`.
//!
//! Takes: the controller's requests, over mutual TLS. Gives: parsed pushes to the owner of the configuration, and its
//! answers back. Never changes anything on a refusal, applies one push at a time, and listens to nobody but the
//! controller; plain HTTP is for loopback only.

mod listener;
mod serve;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::sync::{Semaphore, mpsc, oneshot};
use umbra_routing::{CONFIG_PATH, ConfigError, EPOCH_HEADER, Refusal, Reply, STATE_PATH, VERSION_HEADER};

use crate::config::{self, ApplyError, Command, Push};
use crate::metrics::Labels;
pub(crate) use listener::{Peer, PushListener};
pub(crate) use serve::serve;

/// Largest push, in bytes: 60,000 endpoints at 1 KB. The controller's own measure is 1 MB for 1,000 services with 10
/// endpoints each (spec/control-plane.md 6); the node's memory limit is 512 MB, and a push is held about three times.
const MAX_BODY: usize = 64 << 20;
/// For a body to arrive: 64 MiB at 10 Mbit/s.
const BODY_WITHIN: Duration = Duration::from_secs(60);

/// Counts what came to the push port.
#[derive(Clone, Debug, Default)]
pub(crate) struct PushMetrics {
    pushes: Family<Labels, Counter>,
}

impl PushMetrics {
    /// Adds `umbra_pushes_total{kind, result}` to the registry.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "umbra_pushes",
            "Requests on the push port, by kind and result",
            self.pushes.clone(),
        );
    }

    pub(crate) fn count(&self, kind: &str, result: &str) {
        self.pushes.get_or_create(&vec![("kind", kind.to_owned()), ("result", result.to_owned())]).inc();
    }
}

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct PushServer {
    owner: mpsc::Sender<Command>,
    metrics: PushMetrics,
    /// One push at a time; a second one is refused, not queued: the controller sends the latest when it comes again.
    turn: Arc<Semaphore>,
}

/// A push that was refused; the words are part of the protocol ([`Refusal`]).
#[derive(Debug, thiserror::Error)]
enum PushError {
    #[error("{0}")]
    Malformed(String),
    #[error("{0}")]
    Forbidden(String),
    #[error("{0}")]
    Base(String),
    #[error("{0}")]
    Epoch(String),
    #[error("larger than {MAX_BODY} bytes")]
    TooLarge,
    #[error("{0}")]
    Busy(&'static str),
}

impl PushError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Forbidden(_) => "forbidden",
            Self::Base(_) => "base",
            Self::Epoch(_) => "epoch",
            Self::TooLarge => "too_large",
            Self::Busy(_) => "busy",
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Base(_) => StatusCode::PRECONDITION_FAILED,
            Self::Epoch(_) => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl From<ApplyError> for PushError {
    fn from(error: ApplyError) -> Self {
        let message = error.to_string();
        match error {
            ApplyError::Epoch { .. } => Self::Epoch(message),
            ApplyError::Config(ConfigError::Base { .. }) => Self::Base(message),
            ApplyError::Config(
                ConfigError::Malformed { .. } | ConfigError::Disagrees { .. } | ConfigError::Patch { .. },
            ) => Self::Malformed(message),
        }
    }
}

impl PushServer {
    /// A server that hands pushes to `owner`.
    pub(crate) fn new(owner: mpsc::Sender<Command>, metrics: PushMetrics) -> Self {
        Self { owner, metrics, turn: Arc::new(Semaphore::new(1)) }
    }

    /// The paths of the push API.
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route(CONFIG_PATH, put(push).patch(push))
            .route(STATE_PATH, get(state))
            // The body is read with a bound of our own, so that it has our answer.
            .layer(DefaultBodyLimit::disable())
            .with_state(self)
    }

    async fn push(
        &self,
        peer: &Peer,
        method: &Method,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Reply, PushError> {
        allowed(peer)?;
        let epoch = decimal(headers, EPOCH_HEADER)?;
        let version = decimal(headers, VERSION_HEADER)?;
        let bytes = read(headers, body).await?;
        // Not before: whoever sends slowly keeps nobody else out.
        let _turn = self.turn.try_acquire().map_err(|_| PushError::Busy("another push is being applied"))?;
        let malformed = |error: serde_json::Error| PushError::Malformed(format!("body: {error}"));
        let body = match *method {
            Method::PUT => config::Body::Put(serde_json::from_slice(&bytes).map_err(malformed)?),
            _ => config::Body::Patch(serde_json::from_slice(&bytes).map_err(malformed)?),
        };
        drop(bytes);
        let applied = self.ask(|reply| Command::Push(Push { epoch, version, body }, reply)).await?;
        Ok(applied?)
    }

    async fn heartbeat(&self, peer: &Peer, headers: &HeaderMap) -> Result<Reply, PushError> {
        allowed(peer)?;
        // A person who looks with curl names none, and changes none.
        let named = headers.contains_key(EPOCH_HEADER);
        let epoch = if named { Some(decimal(headers, EPOCH_HEADER)?) } else { None };
        Ok(self.ask(|reply| Command::Heartbeat(epoch, reply)).await??)
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, PushError> {
        let ending = |_| PushError::Busy("the proxy is ending");
        let (reply, answer) = oneshot::channel();
        self.owner.send(command(reply)).await.map_err(|_| PushError::Busy("the proxy is ending"))?;
        answer.await.map_err(ending)
    }

    fn answer(&self, kind: &str, result: Result<Reply, PushError>) -> Response {
        match result {
            Ok(reply) => {
                self.metrics.count(kind, "ok");
                Json(reply).into_response()
            }
            Err(error) => {
                self.metrics.count(kind, error.reason());
                tracing::warn!(kind, reason = error.reason(), %error, "refused");
                let refusal = Refusal { reason: error.reason().to_owned(), message: error.to_string() };
                (error.status(), Json(refusal)).into_response()
            }
        }
    }
}

async fn push(
    State(server): State<PushServer>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    method: Method,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let result = server.push(&peer, &method, &headers, body).await;
    server.answer(&method.as_str().to_ascii_lowercase(), result)
}

async fn state(
    State(server): State<PushServer>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
) -> Response {
    let result = server.heartbeat(&peer, &headers).await;
    server.answer("state", result)
}

fn allowed(peer: &Peer) -> Result<(), PushError> {
    match peer {
        Peer::Controller | Peer::Loopback => Ok(()),
        Peer::Other => Err(PushError::Forbidden(
            "the client certificate is not that of umbra-controller.umbra-system".into(),
        )),
    }
}

fn decimal<T: std::str::FromStr>(headers: &HeaderMap, name: &str) -> Result<T, PushError> {
    let text = headers.get(name).and_then(|value| value.to_str().ok());
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| PushError::Malformed(format!("header {name} is not a decimal number")))
}

async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, PushError> {
    // Said before it is sent.
    let said =
        headers.get(http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if said.is_some_and(|len| len > MAX_BODY as u64) {
        return Err(PushError::TooLarge);
    }
    let collected = tokio::time::timeout(BODY_WITHIN, Limited::new(body, MAX_BODY).collect()).await;
    match collected {
        Err(_) => Err(PushError::Malformed(format!("the body did not arrive within {BODY_WITHIN:?}"))),
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(PushError::TooLarge),
        Ok(Err(error)) => Err(PushError::Malformed(format!("body: {error}"))),
    }
}
