//! Bounds of connections and requests.

use super::problem::Field;
use super::{actions, numbers};
use crate::words::H2_UPGRADE_POLICIES;
use crate::{ConnectionPoolSettings, HttpSettings, TcpSettings};

pub(super) fn check(pool: &ConnectionPoolSettings, field: &mut Field<'_>) {
    if pool.tcp.is_none() && pool.http.is_none() {
        field.error("connection pool must have at least one field; add tcp or http, or remove it");
    }
    if let Some(settings) = &pool.tcp {
        tcp(settings, &mut field.at("tcp"));
    }
    if let Some(settings) = &pool.http {
        http(settings, &mut field.at("http"));
    }
}

fn tcp(tcp: &TcpSettings, field: &mut Field<'_>) {
    numbers::not_negative(tcp.max_connections, "maxConnections", field);
    numbers::duration(tcp.connect_timeout.as_ref(), "connectTimeout", field);
    numbers::duration(tcp.max_connection_duration.as_ref(), "maxConnectionDuration", field);
    numbers::duration_or_zero(tcp.idle_timeout.as_ref(), "idleTimeout", field);
    if let Some(keepalive) = &tcp.tcp_keepalive {
        let mut field = field.at("tcpKeepalive");
        numbers::duration(keepalive.time.as_ref(), "time", &mut field);
        numbers::duration(keepalive.interval.as_ref(), "interval", &mut field);
    }
}

fn http(http: &HttpSettings, field: &mut Field<'_>) {
    let counts = [
        ("http1MaxPendingRequests", http.http1_max_pending_requests),
        ("http2MaxRequests", http.http2_max_requests),
        ("maxRequestsPerConnection", http.max_requests_per_connection),
        ("maxRetries", http.max_retries),
        ("maxConcurrentStreams", http.max_concurrent_streams),
    ];
    for (name, count) in counts {
        numbers::not_negative(count, name, field);
    }
    numbers::duration(http.idle_timeout.as_ref(), "idleTimeout", field);
    actions::one_of(http.h2_upgrade_policy.as_deref(), &H2_UPGRADE_POLICIES, "h2UpgradePolicy", field);
    if http.h2_upgrade_policy.as_deref() == Some("UPGRADE") && http.use_client_protocol == Some(true) {
        field
            .at("useClientProtocol")
            .error("use client protocol must not be true when H2UpgradePolicy is UPGRADE; keep one");
    }
    if let Some(keep_alive) = &http.http2_keep_alive {
        let mut field = field.at("http2KeepAlive");
        for (name, time) in [("interval", &keep_alive.interval), ("timeout", &keep_alive.timeout)] {
            if time.is_none() {
                field.at(name).error("is missing; http2KeepAlive needs interval and timeout");
            }
            numbers::duration(time.as_ref(), name, &mut field);
        }
    }
}
