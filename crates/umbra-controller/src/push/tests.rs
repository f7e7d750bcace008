use std::sync::Mutex;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State as Extract;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use tokio::net::TcpListener;
use tokio::sync::watch::Receiver;
use tokio::task::JoinHandle;
use umbra_routing::{
    Config, ConfigError, EPOCH_HEADER, Encoded, Holds, Key, NodeSettings, Refusal, RefusedKey, Reply,
    Resources, ServiceName, ServiceTable, Snapshot, VERSION_HEADER,
};

use super::*;
use crate::metrics::PushKind;

/// A node that keeps what it is sent, with the proxy's own configuration code.
#[derive(Default)]
pub(crate) struct FakeNode {
    pub(crate) config: Config,
    boot: u32,
    epoch: u128,
    version: String,
    /// Requests, as `PUT 200`.
    pub(crate) log: Vec<String>,
    /// Bytes of the last PATCH.
    pub(crate) patch_bytes: usize,
    /// Does not arm anything.
    idle: bool,
    refused: Vec<RefusedKey>,
    /// Shows held tables in a form of another version.
    gibberish: bool,
}

pub(crate) type Handle = Arc<Mutex<FakeNode>>;

impl FakeNode {
    fn reply(&self) -> Reply {
        let services = self.config.iter().map(|(key, _)| key).filter(|key| matches!(key, Key::Service(_)));
        Reply {
            boot_id: self.boot.to_string(),
            epoch: self.epoch.to_string(),
            version: self.version.clone(),
            digest: self.config.digest(),
            armed: if self.idle { Vec::new() } else { services.cloned().collect() },
            refused: self.refused.clone(),
            held: self.config.held().map(|(key, table)| (key.clone(), self.shown(table))).collect(),
        }
    }

    fn shown(&self, table: &ServiceTable) -> serde_json::Value {
        if self.gibberish { serde_json::json!({"later": 1}) } else { serde_json::to_value(table).unwrap() }
    }

    fn push(
        &mut self,
        headers: &HeaderMap,
        body: &[u8],
        is_put: bool,
    ) -> Result<(), (StatusCode, &'static str)> {
        let epoch: u128 = headers[EPOCH_HEADER].to_str().unwrap().parse().unwrap();
        if epoch < self.epoch {
            return Err((StatusCode::CONFLICT, "epoch"));
        }
        let result = if is_put {
            self.config.put(&serde_json::from_slice(body).unwrap())
        } else {
            self.patch_bytes = body.len();
            self.config.patch(&serde_json::from_slice(body).unwrap())
        };
        result.map_err(|error| match error {
            ConfigError::Base { .. } => (StatusCode::PRECONDITION_FAILED, "base"),
            _ => (StatusCode::BAD_REQUEST, "malformed"),
        })?;
        self.epoch = epoch;
        self.version = headers[VERSION_HEADER].to_str().unwrap().to_owned();
        Ok(())
    }

    /// As `kill -9` and a new start: nothing is left but the port.
    fn reboot(&mut self) {
        *self = Self { boot: self.boot + 1, log: std::mem::take(&mut self.log), ..Self::default() };
    }
}

fn answer(node: &mut FakeNode, what: &str, result: Result<(), (StatusCode, &'static str)>) -> Response {
    match result {
        Ok(()) => {
            node.log.push(format!("{what} 200"));
            axum::Json(node.reply()).into_response()
        }
        Err((status, reason)) => {
            node.log.push(format!("{what} {}", status.as_u16()));
            let refusal = Refusal { reason: reason.into(), message: "no".into() };
            (status, axum::Json(refusal)).into_response()
        }
    }
}

fn routes(node: Handle) -> Router {
    let state = async |Extract(node): Extract<Handle>| answer(&mut node.lock().unwrap(), "GET", Ok(()));
    let all = async |Extract(node): Extract<Handle>, headers: HeaderMap, body: Bytes| {
        let mut node = node.lock().unwrap();
        let result = node.push(&headers, &body, true);
        answer(&mut node, "PUT", result)
    };
    let delta = async |Extract(node): Extract<Handle>, headers: HeaderMap, body: Bytes| {
        let mut node = node.lock().unwrap();
        let result = node.push(&headers, &body, false);
        answer(&mut node, "PATCH", result)
    };
    Router::new().route("/v1/state", get(state)).route("/v1/config", put(all).patch(delta)).with_state(node)
}

/// Serves a fake node on loopback; aborting the task closes its listener.
pub(crate) async fn serve() -> (Handle, String, JoinHandle<()>) {
    let node = Handle::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let routes = routes(Arc::clone(&node));
    let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    (node, address, task)
}

struct Fixture {
    node: Handle,
    publish: watch::Sender<Option<Arc<Published>>>,
    acks: Receiver<Acks>,
    nodes: watch::Sender<Nodes>,
    recovered: mpsc::Receiver<ServiceTable>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    pusher: JoinHandle<Result<(), JoinError>>,
    version: u64,
}

const NODE: &str = "node1";

impl Fixture {
    async fn start(prepare: impl FnOnce(&mut FakeNode)) -> Self {
        let (node, address, _) = serve().await;
        prepare(&mut node.lock().unwrap());
        Self::push_to(node, &address, 5)
    }

    fn push_to(node: Handle, address: &str, epoch: u128) -> Self {
        Self::push_under(node, address, Term::endless(epoch))
    }

    fn push_under(node: Handle, address: &str, term: Term) -> Self {
        let (publish, published) = watch::channel(None);
        let (acknowledge, acks) = watch::channel(Acks::new());
        let live = Node { name: NODE.into(), address: address.into(), uid: String::new() };
        let (nodes, live) = watch::channel(Some(BTreeMap::from([(NODE.to_owned(), live)])));
        let (metrics, stop) = (Arc::new(Metrics::default()), CancellationToken::new());
        let options = Options { term, tls: None };
        let (recover, recovered) = mpsc::channel(1);
        let shared = Arc::clone(&metrics);
        let pusher = tokio::spawn(run(published, live, acknowledge, recover, shared, options, stop.clone()));
        Self { node, publish, acks, nodes, recovered, metrics, stop, pusher, version: 0 }
    }

    /// Publishes tables of these services.
    fn publish(&mut self, services: &[&str]) {
        self.publish_holding(services, &[]);
    }

    /// And these are held.
    fn publish_holding(&mut self, services: &[&str], held: &[&str]) {
        self.version += 1;
        let mut published = published(self.version, services);
        published.snapshot.hold = Arc::new(holds(held));
        self.publish.send_replace(Some(Arc::new(published)));
    }

    async fn acked(&mut self) {
        let version = Some(self.version);
        self.until(|ack| ack.version == version && ack.failing.is_none()).await;
    }

    async fn until(&mut self, condition: impl Fn(&Ack) -> bool) -> Ack {
        let acks = self.acks.wait_for(|acks| acks.get(NODE).is_some_and(&condition)).await.unwrap();
        acks[NODE].clone()
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.node.lock().unwrap().log)
    }

    async fn finish(self) {
        self.stop.cancel();
        self.pusher.await.unwrap().unwrap();
    }
}

fn table(name: &str) -> ServiceTable {
    ServiceTable {
        service: ServiceName::new("default", name),
        addresses: Vec::new(),
        ports: Vec::new(),
        leave_alone: None,
        rules_of: [format!("{name}-uid")].into(),
    }
}

fn holds(services: &[&str]) -> Holds {
    let key = |name: &&str| Key::Service(ServiceName::new("default", *name));
    services.iter().map(|name| (key(name), [format!("{name}-uid")].into())).collect()
}

fn published(version: u64, services: &[&str]) -> Published {
    let mut shared: Resources = services.iter().map(|name| Encoded::service(&table(name))).collect();
    let (key, settings) = Encoded::node(&NodeSettings::default());
    shared.insert((key, settings));
    let snapshot =
        Snapshot { version, shared: Arc::new(shared), nodes: BTreeMap::new(), hold: Arc::default() };
    Published { snapshot, left_alone: Arc::default(), objects: Arc::default() }
}

#[tokio::test]
async fn all_first_then_what_changes() {
    let mut fixture = Fixture::start(|_| {}).await;
    fixture.publish(&["a"]);
    fixture.acked().await;
    fixture.publish(&["a", "b"]);
    fixture.acked().await;
    assert_eq!(fixture.log(), ["GET 200", "PUT 200", "PATCH 200"]);
    let digest = published(0, &["a", "b"]).snapshot.node(NODE).digest();
    assert_eq!(fixture.node.lock().unwrap().config.digest(), digest);
    let ack = fixture.acks.borrow()[NODE].clone();
    assert_eq!(ack.armed.len(), 2);
    let ok = |kind| fixture.metrics.pushes_ok(NODE, kind);
    assert_eq!((ok(PushKind::put), ok(PushKind::patch), ok(PushKind::state)), (1, 1, 1));
    fixture.finish().await;
}

#[tokio::test]
async fn an_equal_snapshot_is_acknowledged_without_sending() {
    let mut fixture = Fixture::start(|_| {}).await;
    fixture.publish(&["a"]);
    fixture.acked().await;
    fixture.publish(&["a"]);
    fixture.acked().await;
    assert_eq!(fixture.log(), ["GET 200", "PUT 200"]);
    fixture.finish().await;
}

#[tokio::test]
async fn a_node_that_has_it_all_is_adopted_by_its_digest() {
    let mut fixture = Fixture::start(|node| {
        let view = published(1, &["a"]).snapshot.node(NODE);
        node.config.put(&view.put()).unwrap();
        node.epoch = 4;
    })
    .await;
    fixture.publish(&["a"]);
    fixture.acked().await;
    assert_eq!(fixture.log(), ["GET 200"]);
    fixture.finish().await;
}

#[tokio::test]
async fn another_base_gets_everything() {
    let mut fixture = Fixture::start(|_| {}).await;
    fixture.publish(&["a"]);
    fixture.acked().await;
    let other = published(1, &["z"]).snapshot.node(NODE).put();
    drop(fixture.node.lock().unwrap().config.put(&other).unwrap());
    fixture.publish(&["a", "b"]);
    fixture.acked().await;
    assert_eq!(fixture.log(), ["GET 200", "PUT 200", "PATCH 412", "PUT 200"]);
    assert!(fixture.metrics.encode().contains("push_refusals_total{node=\"node1\",reason=\"base\"} 1"));
    fixture.finish().await;
}

#[tokio::test]
async fn a_node_that_does_not_arm_is_looked_at_again_and_a_restart_is_repaired() {
    let mut fixture = Fixture::start(|node| node.idle = true).await;
    fixture.publish(&["a"]);
    fixture.acked().await;
    let before = fixture.acks.borrow()[NODE].clone();
    assert!(before.armed.is_empty());
    // Its looks find the other boot, and arming.
    fixture.node.lock().unwrap().reboot();
    let after = fixture.until(|ack| ack.armed.len() == 1 && ack.version == Some(1)).await;
    assert_eq!(fixture.log().last().unwrap(), "PUT 200");
    assert!(after.since > before.since, "it has its grace again");
    fixture.finish().await;
}

#[tokio::test]
async fn an_older_epoch_is_told_and_changes_nothing() {
    let mut fixture = Fixture::start(|node| node.epoch = 6).await;
    fixture.publish(&["a"]);
    let ack = fixture.until(|ack| ack.failing.is_some()).await;
    assert_eq!(ack.failing.as_deref(), Some("refused: the node follows a newer controller (epoch)"));
    assert_eq!(ack.version, None);
    assert_eq!(fixture.node.lock().unwrap().config.digest(), umbra_routing::Digest::default());
    let log = fixture.log();
    assert!(log.iter().all(|line| line == "GET 200"), "{log:?}");
    fixture.finish().await;
}

#[tokio::test]
async fn refused_resources_reach_the_acknowledgement() {
    let key = Key::Service(ServiceName::new("default", "a"));
    let refused = RefusedKey { key: key.clone(), reason: "a bad regex".into() };
    let mut fixture = Fixture::start(|node| node.refused = vec![refused]).await;
    fixture.publish(&["a"]);
    fixture.acked().await;
    assert_eq!(fixture.acks.borrow()[NODE].refused[&key], "a bad regex");
    // It may pass: the node is looked at again, and nothing has to happen for it.
    fixture.node.lock().unwrap().refused.clear();
    fixture.until(|ack| ack.refused.is_empty()).await;
    fixture.finish().await;
}

#[tokio::test]
async fn a_node_that_is_not_there_is_named_by_its_fault_and_forgotten_when_it_goes() {
    let (node, address, task) = serve().await;
    task.abort();
    drop(task.await);
    let mut fixture = Fixture::push_to(node, &address, 1);
    fixture.publish(&["a"]);
    let ack = fixture.until(|ack| ack.failing.is_some()).await;
    assert_eq!(ack.failing.as_deref(), Some("connection refused"));
    fixture.nodes.send_replace(Some(BTreeMap::new()));
    fixture.acks.wait_for(BTreeMap::is_empty).await.unwrap();
    fixture.finish().await;
}

#[tokio::test]
async fn nothing_but_loopback_is_spoken_to_without_tls() {
    let mut fixture = Fixture::push_to(Handle::default(), "192.0.2.1:15002", 1);
    fixture.publish(&["a"]);
    let ack = fixture.until(|ack| ack.failing.is_some()).await;
    assert!(ack.failing.unwrap().contains("--tls-dir"));
    fixture.finish().await;
}

/// What a node that shows the certificate of `leaf` hears, and what the controller says of it.
#[cfg(feature = "kubernetes")]
async fn over_tls(leaf: crate::trust::Leaf) -> (bool, String) {
    use crate::trust::{Leaf, make_ca, make_leaf};
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

    let now = std::time::SystemTime::now();
    let ca = make_ca(now).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.certificate.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let pair = make_leaf(&ca, leaf, now).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap(),
        )
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let controller = make_leaf(&ca, Leaf::Controller, now).unwrap();
    let identity = Identity { ca: ca.certificate, certificate: controller.certificate, key: controller.key };
    let client = client_config(&identity).unwrap();
    let opened =
        tokio::spawn(async move { connection::Connection::open(&address, Some(&client)).await.map(drop) });
    let (stream, _) = listener.accept().await.unwrap();
    let accepted = tokio_rustls::TlsAcceptor::from(Arc::new(server)).accept(stream).await;
    let shown = accepted.is_ok_and(|stream| stream.get_ref().1.peer_certificates().is_some());
    (shown, opened.await.unwrap().map_or_else(|error| error.to_string(), |()| "open".into()))
}

#[cfg(feature = "kubernetes")]
#[tokio::test]
async fn only_a_proxy_of_our_own_ca_is_spoken_to() {
    use crate::trust::Leaf;

    assert_eq!(over_tls(Leaf::Proxy).await, (true, "open".to_owned()));
    let (shown, error) = over_tls(Leaf::Controller).await;
    assert!(!shown && error.starts_with("TLS: "), "{error}");
}

#[tokio::test]
async fn a_node_that_goes_leaves_no_series() {
    let key = Key::Service(ServiceName::new("default", "a"));
    let refused = RefusedKey { key, reason: "a bad regex".into() };
    let mut fixture = Fixture::start(|node| node.refused = vec![refused]).await;
    fixture.publish(&["a"]);
    fixture.acked().await;
    fixture.metrics.push_refused(NODE, "words of its own");
    assert!(fixture.metrics.encode().contains("reason=\"other\""));
    fixture.nodes.send_replace(Some(BTreeMap::new()));
    while fixture.metrics.encode().contains(NODE) {
        tokio::task::yield_now().await;
    }
    fixture.finish().await;
}

/// A node that has the tables of these services, from another controller.
fn had(services: &[&str]) -> impl FnOnce(&mut FakeNode) {
    let put = published(1, services).snapshot.node(NODE).put();
    move |node| drop(node.config.put(&put).unwrap())
}

#[tokio::test]
async fn what_a_node_holds_is_handed_on_and_the_end_of_a_hold_is_told() {
    let mut fixture = Fixture::start(had(&["a", "b"])).await;
    fixture.publish_holding(&["b"], &["a"]);
    fixture.acked().await;
    assert_eq!(fixture.recovered.recv().await.unwrap(), table("a"));
    assert_eq!(
        fixture.acks.borrow()[NODE].held.iter().map(Key::to_string).collect::<Vec<_>>(),
        ["service/default/a"]
    );
    // The digest is the same; what is held is not.
    fixture.publish(&["b"]);
    fixture.acked().await;
    let log = fixture.log();
    let pushes: Vec<_> = log.iter().filter(|line| *line != "GET 200").collect();
    assert_eq!(pushes, ["PUT 200", "PATCH 200"]);
    assert_eq!(fixture.node.lock().unwrap().config.held().count(), 0);
    assert!(fixture.acks.borrow()[NODE].held.is_empty());
    fixture.finish().await;
}

#[tokio::test]
async fn a_node_that_holds_something_is_not_adopted_by_its_digest() {
    let prepare = |node: &mut FakeNode| {
        had(&["a", "b"])(node);
        let mut all = published(2, &["b"]);
        all.snapshot.hold = Arc::new(holds(&["a"]));
        node.config.put(&all.snapshot.node(NODE).put()).unwrap();
    };
    // The object was deleted while there was no controller.
    let mut fixture = Fixture::start(prepare).await;
    fixture.publish(&["b"]);
    fixture.acked().await;
    assert_eq!(fixture.log(), ["GET 200", "PUT 200"]);
    assert_eq!(fixture.node.lock().unwrap().config.held().count(), 0);
    fixture.finish().await;
}

#[tokio::test]
async fn held_tables_that_find_no_room_are_counted_and_come_again() {
    let mut fixture = Fixture::start(had(&["a", "b"])).await;
    // There is room for one.
    fixture.publish_holding(&[], &["a", "b"]);
    fixture.acked().await;
    assert!(fixture.metrics.held_tables_dropped.get() >= 1);
    assert_eq!(fixture.recovered.recv().await.unwrap(), table("a"));
    fixture.publish_holding(&["a"], &["b"]);
    while fixture.recovered.recv().await.unwrap() != table("b") {}
    fixture.finish().await;
}

#[tokio::test]
async fn a_held_table_that_is_not_understood_stops_no_push() {
    let mut fixture = Fixture::start(|node| {
        had(&["a", "b"])(node);
        node.gibberish = true;
    })
    .await;
    fixture.publish_holding(&["b"], &["a"]);
    fixture.acked().await;
    assert_eq!(fixture.node.lock().unwrap().config.held().count(), 1);
    assert!(fixture.recovered.try_recv().is_err());
    fixture.finish().await;
}

/// As after SIGSTOP: whoever gives terms has not said yet that this one is over.
#[tokio::test]
async fn nothing_is_sent_by_a_term_that_is_over() {
    let (node, address, _) = serve().await;
    let term = Term::new(5, Instant::now());
    let mut fixture = Fixture::push_under(node, &address, term.clone());
    fixture.publish(&["a"]);
    let ack = fixture.until(|ack| ack.failing.is_some()).await;
    assert_eq!(ack.failing.unwrap(), "not sent: this controller does not lead any more");
    assert_eq!(fixture.log(), [""; 0]);
    term.extend(Instant::now() + Duration::from_secs(600));
    fixture.acked().await;
    fixture.finish().await;
}
