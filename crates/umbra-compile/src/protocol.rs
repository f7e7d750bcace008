//! What is spoken on a Service's port (spec/istio.md 2.10).

use umbra_index::api::ServicePort;
use umbra_routing::{Protocol, SpokenTo};

/// Ports that carry other protocols by convention, when nothing says what they speak.
const WELL_KNOWN_TCP: [u16; 4] = [25, 53, 3306, 27017];

/// What a port's appProtocol, or else the prefix of its name, says.
enum Declared {
    Http1,
    Http2,
    /// Both versions.
    Http,
    Other,
    Nothing,
}

fn declared(port: &ServicePort) -> Declared {
    let text = port.app_protocol.as_deref().filter(|name| !name.is_empty()).unwrap_or(&port.name);
    let text = text.to_ascii_lowercase();
    match text.as_str() {
        "kubernetes.io/h2c" => return Declared::Http2,
        "kubernetes.io/ws" => return Declared::Http1,
        "kubernetes.io/wss" => return Declared::Other,
        // Istio turns it into gRPC over HTTP/2; umbra leaves it as it is, and browsers speak it over either version.
        "grpc-web" => return Declared::Http,
        name if name.starts_with("grpc-web-") => return Declared::Http,
        _ => {}
    }
    match text.split('-').next().unwrap_or_default() {
        "http" => Declared::Http1,
        "http2" | "grpc" => Declared::Http2,
        "https" | "tls" | "tcp" | "udp" | "mongo" | "redis" | "mysql" => Declared::Other,
        _ => Declared::Nothing,
    }
}

/// What clients of a port speak. `None`: not for umbra (UDP, TLS, databases, declared TCP).
pub(crate) fn protocol(port: &ServicePort) -> Option<Protocol> {
    match declared(port) {
        _ if !is_tcp(port) => None,
        Declared::Http1 | Declared::Http2 | Declared::Http => Some(Protocol::Http),
        Declared::Other => None,
        Declared::Nothing if WELL_KNOWN_TCP.contains(&port.port) => None,
        Declared::Nothing => Some(Protocol::Unknown),
    }
}

/// Which HTTP is spoken to the endpoints behind a port, whatever its clients speak.
pub(crate) fn spoken_to(port: &ServicePort) -> SpokenTo {
    match declared(port) {
        Declared::Http2 => SpokenTo::Http2,
        // Whoever sends HTTP there says by that only that it is HTTP.
        Declared::Http1 | Declared::Other => SpokenTo::Http1,
        Declared::Http | Declared::Nothing => SpokenTo::AsClient,
    }
}

/// Kubernetes: an absent protocol is TCP.
pub(crate) fn is_tcp(port: &ServicePort) -> bool {
    port.protocol.is_empty() || port.protocol == "TCP"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, app_protocol: Option<&str>, protocol: &str, port: u16) -> Option<Protocol> {
        let app_protocol = app_protocol.map(str::to_owned);
        super::protocol(&ServicePort { name: name.into(), protocol: protocol.into(), app_protocol, port })
    }

    #[test]
    fn names_and_app_protocols_say_what_is_spoken() {
        let (http, unknown) = (Some(Protocol::Http), Some(Protocol::Unknown));
        let cases = [
            ("http", None, "", 80, http),
            ("HTTP-web", None, "TCP", 80, http),
            ("http2-x", None, "TCP", 80, http),
            ("grpc-web", None, "TCP", 80, http),
            ("web", None, "TCP", 80, unknown),
            ("", None, "TCP", 80, unknown),
            ("https", None, "TCP", 443, None),
            ("tcp-x", None, "TCP", 80, None),
            ("http", None, "UDP", 80, None),
            ("", None, "TCP", 3306, None),
            ("db", None, "TCP", 3306, None),
            ("http", None, "TCP", 3306, http),
            ("tcp", Some("http"), "TCP", 80, http),
            ("http", Some("kubernetes.io/wss"), "TCP", 80, None),
            ("x", Some("kubernetes.io/h2c"), "TCP", 80, http),
            ("http", Some("example.com/own"), "TCP", 80, unknown),
        ];
        for (name, app, protocol, port, expected) in cases {
            assert_eq!(of(name, app, protocol, port), expected, "{name} {app:?} {protocol} {port}");
        }
    }

    #[test]
    fn a_declared_version_is_spoken_to_endpoints_and_else_the_clients() {
        for (name, app_protocol, expected) in [
            ("http", None, SpokenTo::Http1),
            ("http-web", None, SpokenTo::Http1),
            ("http2", None, SpokenTo::Http2),
            ("HTTP2-web", None, SpokenTo::Http2),
            ("grpc", None, SpokenTo::Http2),
            ("grpc-orders", None, SpokenTo::Http2),
            ("grpc-web", None, SpokenTo::AsClient),
            ("grpc-web-shop", None, SpokenTo::AsClient),
            ("web", None, SpokenTo::AsClient),
            ("", None, SpokenTo::AsClient),
            ("tcp", None, SpokenTo::Http1),
            ("http", Some("kubernetes.io/h2c"), SpokenTo::Http2),
            ("http", Some("grpc"), SpokenTo::Http2),
            ("grpc", Some("http"), SpokenTo::Http1),
            ("grpc", Some("kubernetes.io/ws"), SpokenTo::Http1),
            ("http2", Some("example.com/own"), SpokenTo::AsClient),
            ("http2", Some(""), SpokenTo::Http2),
        ] {
            let (name, app_protocol) = (name.to_owned(), app_protocol.map(str::to_owned));
            let port = ServicePort { name, protocol: String::new(), app_protocol, port: 80 };
            assert_eq!(spoken_to(&port), expected, "{port:?}");
        }
    }
}
