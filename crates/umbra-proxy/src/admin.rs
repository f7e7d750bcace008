//! Metrics and health on the node's address, administration on loopback.
//!
//! Takes: questions. Gives: counters, whether the workers live and a configuration has come, what is in force. Changes
//! nothing but the log level, and that from loopback only.

mod listener;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use http::{StatusCode, header};
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::Command;
use crate::intercept::Interceptor;
use crate::metrics::Metrics;
use crate::options::LogFilter;
pub(crate) use listener::{Bounded, CONNECTIONS};

/// The media type of Prometheus' text, as the encoder writes it.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Says whether every worker has ticked lately.
pub(crate) type Lives = Arc<dyn Fn() -> bool + Send + Sync>;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) lives: Lives,
    pub(crate) ready: watch::Receiver<bool>,
    pub(crate) owner: mpsc::Sender<Command>,
    pub(crate) interceptor: Option<Interceptor>,
    pub(crate) log_filter: Option<LogFilter>,
}

impl Admin {
    /// `/metrics`, `/livez`, `/readyz`.
    pub(crate) fn public(self) -> Router {
        Router::new()
            .route("/metrics", get(metrics))
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .with_state(self)
    }

    /// `/config`, `/state`, `/counters`, `/metrics`, `PUT /log`.
    pub(crate) fn local(self) -> Router {
        Router::new()
            .route("/config", get(config))
            .route("/state", get(state))
            .route("/counters", get(counters))
            .route("/metrics", get(metrics))
            .route("/log", put(log))
            .with_state(self)
    }

    async fn ask<T: serde::Serialize>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Response {
        let (reply, answer) = oneshot::channel();
        let sent = self.owner.send(command(reply)).await.is_ok();
        match answer.await {
            Ok(value) if sent => Json(value).into_response(),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "the proxy is ending\n").into_response(),
        }
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    ([(header::CONTENT_TYPE, OPENMETRICS)], admin.metrics.encode()).into_response()
}

async fn livez(State(admin): State<Admin>) -> Response {
    health((admin.lives)(), "a worker has not ticked for 10 s\n")
}

async fn readyz(State(admin): State<Admin>) -> Response {
    health(*admin.ready.borrow(), "no configuration yet: the controller has not pushed\n")
}

fn health(good: bool, why_not: &'static str) -> Response {
    match good {
        true => (StatusCode::OK, "ok\n").into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, why_not).into_response(),
    }
}

async fn config(State(admin): State<Admin>) -> Response {
    admin.ask(Command::Dump).await
}

async fn state(State(admin): State<Admin>) -> Response {
    admin.ask(Command::State).await
}

/// What the kernel counted.
async fn counters(State(admin): State<Admin>) -> Response {
    let Some(interceptor) = admin.interceptor else {
        return (StatusCode::NOT_FOUND, "interception is off\n").into_response();
    };
    match interceptor.intercepted().await {
        Ok(intercepted) => Json(serde_json::json!({ "intercepted": intercepted })).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

/// The body is a filter such as `info` or `umbra_proxy=debug`.
async fn log(State(admin): State<Admin>, filter: String) -> Response {
    let Some(set) = admin.log_filter else {
        return (StatusCode::NOT_FOUND, "this process does not change its log level\n").into_response();
    };
    match set(filter.trim()) {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}
