//! The API server through `kubectl proxy`: changes without kubectl's start-up time, and the moment of its answer.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use umbra_testkit::{CEILING, Cluster, Process, wait_for};

/// Istio's group, where both kinds live.
const ISTIO: &str = "/apis/networking.istio.io/v1";

/// One client of the API server.
pub(crate) struct Api {
    _proxy: Process,
    address: SocketAddr,
}

impl Api {
    pub(crate) fn start(cluster: &Cluster) -> Result<Self> {
        let log = std::env::temp_dir().join(format!("umbra-kubectl-proxy-{}", std::process::id()));
        let command = cluster.kubectl().command(&["proxy", "--port=0"]);
        let proxy = Process::start("kubectl proxy", &command, &log)?;
        let address = wait_for("kubectl proxy serves", CEILING, || {
            let text = proxy.log()?;
            let address = text.split("Starting to serve on ").nth(1).with_context(|| text.clone())?;
            Ok(address.trim().parse()?)
        })?;
        Ok(Self { _proxy: proxy, address })
    }

    /// Merges `change` into `spec` of a VirtualService; gives the moment of the API server's answer.
    pub(crate) fn patch_virtual_service(&self, namespace: &str, name: &str, spec: &Value) -> Result<Instant> {
        let path = format!("{ISTIO}/namespaces/{namespace}/virtualservices/{name}");
        let body = serde_json::json!({"spec": spec}).to_string();
        self.ask("PATCH", &path, "application/merge-patch+json", &body)
    }

    /// Creates an object of Istio's group (`resource` is its plural) from YAML.
    pub(crate) fn create(&self, namespace: &str, resource: &str, yaml: &str) -> Result<Instant> {
        self.ask("POST", &format!("{ISTIO}/namespaces/{namespace}/{resource}"), "application/yaml", yaml)
    }

    /// Deletes an object of Istio's group.
    pub(crate) fn delete(&self, namespace: &str, resource: &str, name: &str) -> Result<Instant> {
        self.ask(
            "DELETE",
            &format!("{ISTIO}/namespaces/{namespace}/{resource}/{name}"),
            "application/json",
            "",
        )
    }

    fn ask(&self, method: &str, path: &str, kind: &str, body: &str) -> Result<Instant> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(CEILING))?;
        // HTTP/1.0: the answer ends with the connection, whatever its length.
        let head = format!("{method} {path} HTTP/1.0\r\nhost: localhost\r\ncontent-type: {kind}");
        write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
        let mut answer = vec![0; 64];
        stream.read_exact(&mut answer)?;
        let answered = Instant::now();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        let success = answer.split(' ').nth(1).is_some_and(|status| status.starts_with('2'));
        ensure!(success, "{method} {path}: {answer}");
        Ok(answered)
    }
}
