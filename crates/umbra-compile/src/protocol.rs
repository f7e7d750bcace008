//! What is spoken on a Service's port (spec/istio.md 2.10).

use umbra_index::api::ServicePort;
use umbra_routing::Protocol;

/// Ports that carry other protocols by convention, when nothing says what they speak.
const WELL_KNOWN_TCP: [u16; 4] = [25, 53, 3306, 27017];

/// `None`: not for umbra (UDP, TLS, databases, declared TCP).
pub(crate) fn protocol(port: &ServicePort) -> Option<Protocol> {
    if !is_tcp(port) {
        return None;
    }
    let declared = port.app_protocol.as_deref().filter(|name| !name.is_empty()).unwrap_or(&port.name);
    let declared = declared.to_ascii_lowercase();
    match declared.as_str() {
        "kubernetes.io/h2c" | "kubernetes.io/ws" => return Some(Protocol::Http),
        "kubernetes.io/wss" => return None,
        _ => {}
    }
    match declared.split('-').next().unwrap_or_default() {
        "http" | "http2" | "grpc" => Some(Protocol::Http),
        "https" | "tls" | "tcp" | "udp" | "mongo" | "redis" | "mysql" => None,
        _ if WELL_KNOWN_TCP.contains(&port.port) => None,
        _ => Some(Protocol::Unknown),
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
}
