//! Metrics and health, for Prometheus and the kubelet.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::watch::Missing;

/// The port of metrics and health.
pub const PORT: u16 = 15020;

#[derive(Clone)]
struct Health {
    metrics: Arc<Metrics>,
    missing: watch::Receiver<Missing>,
}

/// Binds `address`, or the usual port on all addresses.
///
/// # Errors
/// The port is taken, or the address is not this machine's.
pub async fn bind(address: Option<SocketAddr>) -> std::io::Result<TcpListener> {
    match address {
        Some(address) => TcpListener::bind(address).await,
        // One socket serves both families; a machine without IPv6 cannot have it.
        None => match TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).await {
            Ok(listener) => Ok(listener),
            Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await,
        },
    }
}

/// Serves `/metrics`, `/livez` and `/readyz` until `stop`.
///
/// # Errors
/// The listener fails.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    missing: watch::Receiver<Missing>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let routes = axum::Router::new()
        .route("/metrics", get(metrics_text))
        // An answer needs the runtime to turn, and a task that died has ended the process.
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(ready))
        .with_state(Health { metrics, missing });
    axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn metrics_text(State(health): State<Health>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], health.metrics.encode())
}

/// Ready when every kind has been listed; leading has nothing to do with it.
async fn ready(State(health): State<Health>) -> (StatusCode, String) {
    let missing: Vec<_> = health.missing.borrow().iter().copied().collect();
    if missing.is_empty() {
        (StatusCode::OK, "ok".into())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not listed yet: {}", missing.join(", ")))
    }
}
