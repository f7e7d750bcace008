//! The push server, from outside: what it takes, what it refuses, and that a refusal changes nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use umbra_proxy::{Options, Proxy};

const CONTROLLER: &str = "umbra-controller.umbra-system";

/// A directory of its own, gone with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("umbra-push-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

/// A CA of this test, and leaves under it.
struct Ca {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

struct Leaf {
    certificate: String,
    key: String,
}

impl Ca {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: rcgen::Issuer::new(params, key) }
    }

    fn leaf(&self, name: &str) -> Leaf {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Leaf { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// What the controller writes for the proxy, the key first.
    fn write(&self, dir: &Path) {
        let proxy = self.leaf("umbra-proxy.umbra-system");
        std::fs::write(dir.join("proxy.key"), proxy.key).unwrap();
        std::fs::write(dir.join("proxy.crt"), proxy.certificate).unwrap();
        std::fs::write(dir.join("ca.crt"), self.certificate.pem()).unwrap();
    }

    fn client(&self, leaf: Option<&Leaf>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match leaf {
            None => config.with_no_client_auth(),
            Some(leaf) => {
                let chain = vec![CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        Arc::new(config)
    }
}

fn options() -> Options {
    Options { workers: 1, ..Options::laptop(SocketAddr::from(([127, 0, 0, 1], 0))) }
}

fn head(method: &str, path: &str, epoch: &str, len: usize) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: node\r\numbra-epoch: {epoch}\r\numbra-version: 3\r\n\
         content-length: {len}\r\nconnection: close\r\n\r\n"
    )
}

/// Sends bytes, reads to the end; status and body.
async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> (u16, Value) {
    let mut stream = stream;
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A peer that closes without TLS's goodbye has still answered.
    let _unclean = stream.read_to_end(&mut answer).await;
    let text = String::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

async fn plain(proxy: &Proxy, method: &str, path: &str, epoch: &str, body: &str) -> (u16, Value) {
    let stream = TcpStream::connect(proxy.push_addr()).await.unwrap();
    exchange(stream, format!("{}{body}", head(method, path, epoch, body.len())).as_bytes()).await
}

fn table() -> String {
    let service = json!({ "namespace": "default", "name": "a" });
    let backend = json!({ "service": service, "port": 80, "selector": {} });
    let rule = json!({ "name": "http[0]", "destinations": [{ "weight": 1, "backend": backend }] });
    let port = json!({ "number": 80, "protocol": "http", "variants": [{ "rules": [rule] }] });
    let table = json!({ "service": service, "addresses": [], "ports": [port] });
    json!({ "resources": { "service/default/a": table } }).to_string()
}

#[tokio::test]
async fn a_push_is_applied_and_armed_and_acknowledged() {
    let proxy = Proxy::start(options()).await.unwrap();
    let (status, reply) = plain(&proxy, "PUT", "/v1/config", "9", &table()).await;
    assert_eq!(status, 200, "{reply}");
    assert_eq!(reply["armed"], json!(["service/default/a"]));
    assert_eq!((&reply["epoch"], &reply["version"]), (&json!("9"), &json!("3")));
    assert_eq!(reply["bootId"].as_str().unwrap().len(), 32);
    let (status, state) = plain(&proxy, "GET", "/v1/state", "9", "").await;
    assert_eq!((status, &state), (200, &reply));
    let patch = json!({ "base": reply["digest"], "remove": ["service/default/a"] }).to_string();
    let (status, reply) = plain(&proxy, "PATCH", "/v1/config", "9", &patch).await;
    assert_eq!((status, &reply["armed"]), (200, &json!([])));
    let text = proxy.metrics_text();
    assert!(text.contains(r#"umbra_pushes_total{kind="put",result="ok"} 1"#), "{text}");
    proxy.stop().await.unwrap();
}

#[tokio::test]
async fn a_refusal_says_why_changes_nothing_and_is_counted() {
    let proxy = Proxy::start(options()).await.unwrap();
    let (_, before) = plain(&proxy, "PUT", "/v1/config", "9", &table()).await;
    let other_base = json!({ "base": "0".repeat(32), "remove": ["service/default/a"] }).to_string();
    let wrong_key = json!({ "resources": { "pod/x": {} } }).to_string();
    let cases = [
        ("PUT", "9", "{", 400, "malformed"),
        ("PUT", "9", wrong_key.as_str(), 400, "malformed"),
        ("PUT", "new", "{}", 400, "malformed"),
        ("PATCH", "9", other_base.as_str(), 412, "base"),
        ("PUT", "8", r#"{"resources":{}}"#, 409, "epoch"),
    ];
    for (method, epoch, body, status, reason) in cases {
        let (answered, refusal) = plain(&proxy, method, "/v1/config", epoch, body).await;
        assert_eq!(
            (answered, &refusal["reason"]),
            (status, &json!(reason)),
            "{method} {epoch} {body}: {refusal}"
        );
        assert!(!refusal["message"].as_str().unwrap().is_empty());
    }
    let too_large = head("PUT", "/v1/config", "9", 1 << 30);
    let stream = TcpStream::connect(proxy.push_addr()).await.unwrap();
    let (status, refusal) = exchange(stream, too_large.as_bytes()).await;
    assert_eq!((status, &refusal["reason"]), (413, &json!("too_large")));

    let (_, after) = plain(&proxy, "GET", "/v1/state", "9", "").await;
    assert_eq!(after, before);
    let text = proxy.metrics_text();
    for (kind, reason, count) in
        [("put", "malformed", 3), ("patch", "base", 1), ("put", "epoch", 1), ("put", "too_large", 1)]
    {
        let line = format!(r#"umbra_pushes_total{{kind="{kind}",result="{reason}"}} {count}"#);
        assert!(text.contains(&line), "{line} in {text}");
    }
    proxy.stop().await.unwrap();
}

#[tokio::test]
async fn a_body_without_a_length_is_bounded_too() {
    let proxy = Proxy::start(options()).await.unwrap();
    let mut stream = TcpStream::connect(proxy.push_addr()).await.unwrap();
    let head = "PUT /v1/config HTTP/1.1\r\nhost: n\r\numbra-epoch: 1\r\numbra-version: 1\r\n\
                transfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 20, " ".repeat(1 << 20));
    let feeding = tokio::spawn(async move {
        // Until the proxy has had enough, and closes.
        while writer.write_all(chunk.as_bytes()).await.is_ok() {}
    });
    let mut start = [0; 12];
    reader.read_exact(&mut start).await.unwrap();
    assert_eq!(std::str::from_utf8(&start).unwrap(), "HTTP/1.1 413");
    drop(reader);
    feeding.await.unwrap();
    proxy.stop().await.unwrap();
}

#[tokio::test]
async fn a_push_that_arrives_slowly_keeps_no_other_out() {
    let proxy = Proxy::start(options()).await.unwrap();
    let body = table();
    let (begin, rest) = body.split_at(body.len() / 2);
    let mut slow = TcpStream::connect(proxy.push_addr()).await.unwrap();
    slow.write_all(head("PUT", "/v1/config", "1", body.len()).as_bytes()).await.unwrap();
    slow.write_all(begin.as_bytes()).await.unwrap();
    // Many, so that the slow one's beginning has been read before the last.
    for _ in 0..50 {
        let (status, answer) = plain(&proxy, "PUT", "/v1/config", "1", &body).await;
        assert_eq!(status, 200, "{answer}");
    }
    let (status, _) = exchange(slow, rest.as_bytes()).await;
    assert_eq!(status, 200);
    proxy.stop().await.unwrap();
}

#[tokio::test]
async fn only_the_controller_s_certificate_pushes() {
    let scratch = Scratch::new("names");
    let ca = Ca::new();
    let proxy = Proxy::start(Options { tls_dir: Some(scratch.0.clone()), ..options() }).await.unwrap();
    // The controller writes the files later; connections wait.
    ca.write(&scratch.0);
    let with = async |config: Arc<ClientConfig>| {
        let tcp = TcpStream::connect(proxy.push_addr()).await.unwrap();
        let name = ServerName::try_from("umbra-proxy.umbra-system").unwrap();
        tokio_rustls::TlsConnector::from(config).connect(name, tcp).await
    };
    let put = format!("{}{}", head("PUT", "/v1/config", "1", table().len()), table());

    let stream = with(ca.client(Some(&ca.leaf(CONTROLLER)))).await.unwrap();
    let (status, reply) = exchange(stream, put.as_bytes()).await;
    assert_eq!((status, &reply["armed"]), (200, &json!(["service/default/a"])));

    let stream = with(ca.client(Some(&ca.leaf("umbra-proxy.umbra-system")))).await.unwrap();
    let (status, refusal) = exchange(stream, put.as_bytes()).await;
    assert_eq!((status, &refusal["reason"]), (403, &json!("forbidden")));

    let stranger = Leaf { ..Ca::new().leaf(CONTROLLER) };
    for config in [ca.client(None), ca.client(Some(&stranger))] {
        // With TLS 1.3 the client hears of the refusal when it reads.
        if let Ok(mut stream) = with(config).await {
            let _broken = stream.write_all(put.as_bytes()).await;
            let mut answer = Vec::new();
            let read = stream.read_to_end(&mut answer).await;
            assert!(read.is_err() && answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
        }
    }
    let text = proxy.metrics_text();
    assert!(text.contains(r#"umbra_pushes_total{kind="connection",result="handshake"} 2"#), "{text}");
    proxy.stop().await.unwrap();
}

#[tokio::test]
async fn without_tls_only_loopback_is_bound() {
    let push_listen = SocketAddr::from(([0, 0, 0, 0], 0));
    let error = Proxy::start(Options { push_listen, ..options() }).await.err().unwrap();
    assert!(error.to_string().contains("--tls-dir"), "{error}");
}

#[tokio::test]
async fn health_follows_workers_and_the_first_push() {
    let proxy = Proxy::start(options()).await.unwrap();
    let ask = async |path: &str| {
        let stream = TcpStream::connect(proxy.metrics_addr()).await.unwrap();
        exchange(stream, head("GET", path, "", 0).as_bytes()).await.0
    };
    assert_eq!((ask("/livez").await, ask("/readyz").await), (200, 503));
    plain(&proxy, "PUT", "/v1/config", "1", &table()).await;
    assert_eq!((ask("/readyz").await, ask("/metrics").await), (200, 200));
    let stream = TcpStream::connect(proxy.admin_addr()).await.unwrap();
    let (status, config) = exchange(stream, head("GET", "/config", "", 0).as_bytes()).await;
    assert_eq!((status, &config["service/default/a"]["ports"][0]["number"]), (200, &json!(80)));
    proxy.stop().await.unwrap();
}
