//! What a node has: `/config` of its proxy's admin port.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;
use umbra_routing::Key;

use super::ExplainError;
use super::source::NodeConfig;

/// For a port on this machine or one that is forwarded.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the proxy at `address` (`127.0.0.1:15000`).
pub(super) fn config(address: &str) -> Result<NodeConfig, ExplainError> {
    let failed = |why: String| ExplainError::Node { address: address.to_owned(), why };
    let text = get(address).map_err(|error| failed(error.to_string()))?;
    let body = text
        .split_once("\r\n\r\n")
        .filter(|(head, _)| head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.0 200"));
    let (_, body) = body.ok_or_else(|| failed("this is not the admin port of umbra-proxy".to_owned()))?;
    let resources: Value = serde_json::from_str(body).map_err(|error| failed(error.to_string()))?;
    let mut config = NodeConfig::default();
    for (key, value) in resources.as_object().into_iter().flatten() {
        take(&mut config, key, value.clone()).map_err(|error| failed(format!("{key}: {error}")))?;
    }
    Ok(config)
}

fn take(config: &mut NodeConfig, key: &str, value: Value) -> Result<(), serde_json::Error> {
    match key.parse::<Key>() {
        Ok(Key::Service(_)) => config.tables.push(serde_json::from_value(value)?),
        Ok(set @ Key::Backends(_)) => drop(config.sets.insert(set, serde_json::from_value(value)?)),
        Ok(Key::Client(_)) => config.clients.push(serde_json::from_value(value)?),
        // What a newer proxy has beside these says nothing about one request.
        _ => {}
    }
    Ok(())
}

/// HTTP/1.0: the answer's end is the connection's.
fn get(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /config HTTP/1.0\r\nhost: {address}\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
