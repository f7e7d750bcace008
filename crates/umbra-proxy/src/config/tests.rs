use std::sync::Mutex;

use serde_json::json;

use tokio::sync::oneshot;
use umbra_routing::{ConfigError, Put};

use super::shown::HELD_BYTES;
use super::*;
use crate::arm::Reach;

pub(crate) fn put_of(resources: &[(&str, serde_json::Value)]) -> Put {
    let body: BTreeMap<_, _> = resources.iter().map(|(key, value)| (*key, value)).collect();
    serde_json::from_str(&json!({ "resources": body }).to_string()).unwrap()
}

pub(crate) fn config_of(resources: &[(&str, serde_json::Value)]) -> Config {
    let mut config = Config::default();
    config.put(&put_of(resources)).unwrap();
    config
}

/// A table in namespace `default` with one rule to subset `v1`, defined or not.
pub(crate) fn service_of(name: &str, addresses: &[&str], ports: &[u16], resolved: bool) -> serde_json::Value {
    let service = json!({ "namespace": "default", "name": name });
    let port = |number: &u16| {
        let mut backend = json!({ "service": service, "port": number, "subset": "v1" });
        if resolved {
            backend["selector"] = json!({ "version": "v1" });
        }
        let rule = json!({ "name": "http[0]", "destinations": [{ "weight": 100, "backend": backend }] });
        json!({ "number": number, "protocol": "http", "variants": [{ "rules": [rule] }] })
    };
    json!({ "service": service, "addresses": addresses, "ports": ports.iter().map(port).collect::<Vec<_>>() })
}

/// Notes what it was asked to do, and whether the workers knew the service then.
#[derive(Clone)]
struct Fake {
    tables: Arc<Tables>,
    seen: Arc<Mutex<Vec<String>>>,
    fails: Arc<Mutex<bool>>,
    /// What the next look at the node's network will find.
    network: Arc<Mutex<Reach>>,
    reach: Reach,
    blocked: watch::Receiver<bool>,
}

const EVERYWHERE: Reach = Reach::Intercepted { v4: true, v6: true };

impl Intercept for Fake {
    async fn set(&self, wanted: Interception) -> Result<(), InterceptError> {
        if *self.fails.lock().unwrap() {
            return Err(InterceptError::Busy);
        }
        let known = |target: &std::net::SocketAddr| match self.tables.by_address(*target) {
            Some(_) => format!("{target} known"),
            None => format!("{target} unknown"),
        };
        let all: Vec<String> = wanted.targets.iter().map(known).collect();
        self.seen.lock().unwrap().push(all.join(", "));
        Ok(())
    }

    fn reach(&self) -> &Reach {
        &self.reach
    }

    fn look(&mut self) {
        self.reach = self.network.lock().unwrap().clone();
    }

    fn lapse(&self) -> Option<&'static str> {
        self.blocked.borrow().then_some("not armed: blocked")
    }

    async fn changed(&mut self) {
        self.blocked.changed().await.unwrap();
    }
}

struct Node {
    owner: Owner<Fake>,
    fake: Fake,
    ready: watch::Receiver<bool>,
    unprompted: watch::Receiver<u64>,
    block: watch::Sender<bool>,
}

impl Node {
    fn new() -> Self {
        let metrics = Metrics::new();
        let tables = Tables::new(Arc::clone(&metrics));
        let (block, blocked) = watch::channel(false);
        let network = Arc::new(Mutex::new(EVERYWHERE));
        let (seen, fails) = Default::default();
        let fake = Fake { tables: Arc::clone(&tables), seen, fails, network, reach: EVERYWHERE, blocked };
        let (says_ready, ready) = watch::channel(false);
        let (says_more, unprompted) = watch::channel(0);
        let signals = Signals { ready: says_ready, unprompted: says_more };
        let owner = Owner::new(tables, metrics, fake.clone(), None, signals);
        Self { owner, fake, ready, unprompted, block }
    }

    /// The owner's tick, so long after its last change.
    async fn tick_after(&mut self, seconds: u64) {
        self.owner.tick(Instant::now() + Duration::from_secs(seconds)).await.unwrap();
    }

    async fn put(
        &mut self,
        epoch: u128,
        resources: &[(&str, serde_json::Value)],
    ) -> Result<Reply, ApplyError> {
        let body = Body::Put(put_of(resources));
        self.owner.push(Push { epoch, version: 7, body }).await.unwrap()
    }

    async fn patch(&mut self, patch: serde_json::Value) -> Result<Reply, ApplyError> {
        let body = Body::Patch(serde_json::from_str(&patch.to_string()).unwrap());
        self.owner.push(Push { epoch: 1, version: 8, body }).await.unwrap()
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut *self.fake.seen.lock().unwrap())
    }
}

fn one(name: &str, ip: &str) -> (&'static str, serde_json::Value) {
    let key = if name == "a" { "service/default/a" } else { "service/default/b" };
    (key, service_of(name, &[ip], &[80], true))
}

#[tokio::test]
async fn tables_come_before_interception_and_go_after_it() {
    let mut node = Node::new();
    assert!(!*node.ready.borrow());
    let reply = node.put(1, &[one("a", "10.0.0.1")]).await.unwrap();
    assert_eq!(reply.armed, ["service/default/a".parse().unwrap()]);
    assert_eq!((reply.epoch.as_str(), reply.version.as_str()), ("1", "7"));
    assert_eq!(node.seen(), ["10.0.0.1:80 known"]);
    assert!(*node.ready.borrow());

    // a moves and b comes: first the kernel forgets what was a's, then the tables change, then it learns the new.
    node.put(1, &[one("a", "10.0.0.9"), one("b", "10.0.0.2")]).await.unwrap();
    assert_eq!(node.seen(), ["", "10.0.0.2:80 known, 10.0.0.9:80 known"]);

    let reply = node.put(1, &[one("b", "10.0.0.2")]).await.unwrap();
    assert_eq!(reply.armed, ["service/default/b".parse().unwrap()]);
    assert_eq!(node.seen(), ["10.0.0.2:80 known", "10.0.0.2:80 known"]);
}

#[tokio::test]
async fn a_refused_push_changes_nothing() {
    let mut node = Node::new();
    let first = node.put(5, &[one("a", "10.0.0.1")]).await.unwrap();
    node.seen();
    let older = node.put(4, &[]).await.unwrap_err();
    assert_eq!(older.to_string(), "epoch 4 is older than 5, which this node has seen");
    let malformed = node.put(6, &[("service/default/a", json!({ "addresses": 3 }))]).await.unwrap_err();
    assert!(matches!(malformed, ApplyError::Config(ConfigError::Malformed { .. })), "{malformed}");
    assert_eq!(node.owner.state(), first);
    assert_eq!(node.seen(), [""; 0]);
}

#[tokio::test]
async fn a_patch_of_another_base_is_refused() {
    let mut node = Node::new();
    node.put(1, &[one("a", "10.0.0.1")]).await.unwrap();
    let wrong =
        node.patch(json!({ "base": "0".repeat(32), "remove": ["service/default/a"] })).await.unwrap_err();
    assert!(matches!(wrong, ApplyError::Config(ConfigError::Base { .. })), "{wrong}");
    let digest = node.owner.state().digest;
    let reply = node.patch(json!({ "base": digest, "remove": ["service/default/a"] })).await.unwrap();
    assert_eq!(reply.armed, []);
}

#[tokio::test]
async fn what_the_kernel_refuses_is_not_armed_and_is_tried_again() {
    let mut node = Node::new();
    *node.fake.fails.lock().unwrap() = true;
    let reply = node.put(1, &[one("a", "10.0.0.1")]).await.unwrap();
    assert_eq!(reply.armed, []);
    assert_eq!(reply.refused[0].reason, "not armed: interception is busy");
    *node.fake.fails.lock().unwrap() = false;
    let reply = node.put(1, &[one("a", "10.0.0.1")]).await.unwrap();
    assert_eq!(reply.armed, ["service/default/a".parse().unwrap()]);
    assert_eq!(reply.refused, []);
}

fn left_alone(name: &str, ip: &str) -> (&'static str, serde_json::Value) {
    let (key, mut table) = one(name, ip);
    table["leaveAlone"] = "networkpolicy default/deny selects pods".into();
    (key, table)
}

#[tokio::test]
async fn what_is_to_be_left_alone_is_disarmed_and_armed_again_when_it_may_be() {
    let mut node = Node::new();
    node.put(1, &[one("a", "10.0.0.1"), one("b", "10.0.0.2")]).await.unwrap();
    node.seen();
    let open = node.fake.tables.by_address("10.0.0.1:80".parse().unwrap()).expect("it is governed");
    let reply = node.put(1, &[left_alone("a", "10.0.0.1"), one("b", "10.0.0.2")]).await.unwrap();
    assert_eq!(node.seen()[0], "10.0.0.2:80 known", "first the kernel stops giving its connections");
    assert_eq!(reply.armed, ["service/default/b".parse().unwrap()]);
    assert_eq!(reply.refused[0].reason, "not armed: networkpolicy default/deny selects pods");
    assert!(!open.is_in_force(), "open connections are told to close");

    // Endpoints alone ask the kernel nothing: what is left alone is nothing to try again.
    node.seen();
    let v1 = json!({"service": {"namespace": "default", "name": "a"}, "port": 80, "selector": {"version": "v1"},
        "endpoints": []});
    let set = umbra_routing::BackendRef {
        selector: Some([("version".to_owned(), "v1".to_owned())].into()),
        ..umbra_routing::BackendRef::all(umbra_routing::ServiceName::new("default", "a"), 80)
    };
    let key = set.key().expect("it has a selector").to_string();
    node.patch(json!({"base": reply.digest, "upsert": {key: v1}})).await.unwrap();
    assert_eq!(node.seen(), [""; 0]);

    let reply = node.put(1, &[one("a", "10.0.0.1"), one("b", "10.0.0.2")]).await.unwrap();
    assert_eq!((reply.armed.len(), reply.refused.len()), (2, 0));
    assert!(open.is_in_force());
}

#[tokio::test]
async fn what_is_left_alone_from_the_start_gets_no_copies_by_other_ways() {
    let mut node = Node::new();
    node.put(1, &[left_alone("a", "10.0.0.1")]).await.unwrap();
    assert_eq!(node.seen(), [""]);
    let a = node.fake.tables.by_host("a").expect("a table of it is here");
    assert!(!a.is_in_force(), "without interception clients come by themselves");
}

#[tokio::test]
async fn what_the_kernel_refused_is_tried_again_without_a_push() {
    let mut node = Node::new();
    *node.fake.fails.lock().unwrap() = true;
    node.put(1, &[one("a", "10.0.0.1")]).await.unwrap();
    let told = node.owner.state();
    node.tick_after(0).await;
    assert_eq!(node.seen(), [""; 0], "not at once");
    node.tick_after(1).await;
    assert_eq!(node.owner.retry.pause, Duration::from_secs(4), "tried in vain, ever more rarely");
    assert_eq!((node.owner.state(), *node.unprompted.borrow()), (told, 0), "nothing to tell");
    *node.fake.fails.lock().unwrap() = false;
    node.tick_after(5).await;
    assert_eq!(node.owner.state().armed, ["service/default/a".parse().unwrap()]);
    assert_eq!(node.owner.state().refused, []);
    assert_eq!(*node.unprompted.borrow(), 1, "the controller is made to ask");
}

#[tokio::test]
async fn while_connections_do_not_arrive_nothing_is_armed_and_each_service_says_why() {
    let mut node = Node::new();
    node.put(1, &[one("a", "10.0.0.1")]).await.unwrap();
    node.seen();
    let Node { owner, fake, block, mut unprompted, .. } = node;
    let (commands, inbox) = mpsc::channel(1);
    let run = tokio::spawn(owner.run(inbox));
    let state = async || {
        let (reply, answer) = oneshot::channel();
        assert!(commands.send(Command::State(reply)).await.is_ok());
        answer.await.unwrap()
    };
    block.send_replace(true);
    unprompted.changed().await.unwrap();
    let told = state().await;
    assert_eq!((told.armed, told.refused[0].reason.as_str()), (vec![], "not armed: blocked"));
    assert!(
        fake.tables.by_address("10.0.0.1:80".parse().unwrap()).unwrap().is_in_force(),
        "what is open stays"
    );
    block.send_replace(false);
    unprompted.changed().await.unwrap();
    let told = state().await;
    assert_eq!((told.armed.len(), told.refused.len()), (1, 0));
    assert_eq!(*fake.seen.lock().unwrap(), [""; 0], "the thread does this by itself");
    drop(commands);
    run.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_network_that_hides_cluster_ips_is_noticed_within_a_minute() {
    let mut node = Node::new();
    node.put(1, &[one("a", "10.0.0.1")]).await.unwrap();
    node.seen();
    let network = Arc::clone(&node.fake.network);
    *network.lock().unwrap() = Reach::Nowhere { reason: "not armed: cilium_host".into() };
    node.tick_after(30).await;
    assert_eq!(node.owner.state().armed.len(), 1);
    node.tick_after(61).await;
    let state = node.owner.state();
    assert_eq!((state.armed, state.refused[0].reason.as_str()), (vec![], "not armed: cilium_host"));
    assert_eq!(node.seen(), ["", ""], "the kernel has forgotten it");
    *network.lock().unwrap() = EVERYWHERE;
    node.tick_after(200).await;
    assert_eq!(node.owner.state().armed.len(), 1);
    assert_eq!(*node.unprompted.borrow(), 2);
}

#[tokio::test]
async fn failing_to_leave_ends_the_owner() {
    let mut node = Node::new();
    node.put(1, &[one("a", "10.0.0.1")]).await.unwrap();
    *node.fake.fails.lock().unwrap() = true;
    let push = Push { epoch: 1, version: 8, body: Body::Put(put_of(&[])) };
    assert!(node.owner.push(push).await.is_err());
}

#[tokio::test]
async fn shadows_stop_when_the_controller_is_silent_and_go_on_when_it_is_back() {
    let mut node = Node::new();
    node.put(1, &[one("a", "10.0.0.1")]).await.unwrap();
    let heard = node.owner.heard;
    node.owner.look_at_age(heard + SHADOWS_STOP_AFTER);
    assert!(!node.fake.tables.shadows_stopped());
    node.owner.look_at_age(heard + SHADOWS_STOP_AFTER + TICK);
    assert!(node.fake.tables.shadows_stopped());
    node.owner.heard_of_controller();
    assert!(!node.fake.tables.shadows_stopped());
}

/// A table whose rules are those of the object with uid `u`.
fn held_table(ip: &str) -> serde_json::Value {
    let mut table = service_of("a", &[ip], &[80], true);
    table["rulesOf"] = json!(["u"]);
    table
}

#[tokio::test]
async fn a_held_service_stays_armed_and_is_shown_until_it_is_let_go() {
    let key: Key = "service/default/a".parse().unwrap();
    let mut node = Node::new();
    let first =
        node.put(1, &[("service/default/a", held_table("10.0.0.1")), one("b", "10.0.0.2")]).await.unwrap();
    assert_eq!((first.armed.len(), first.held.len()), (2, 0));
    node.seen();
    // A new controller does not have the rules of a.
    let b = one("b", "10.0.0.2").1;
    let body = json!({ "resources": { "service/default/b": b }, "hold": { "service/default/a": ["u"] } });
    let body = Body::Put(serde_json::from_str(&body.to_string()).unwrap());
    let reply = node.owner.push(Push { epoch: 2, version: 1, body }).await.unwrap().unwrap();
    assert_eq!(reply.armed, first.armed, "its users notice nothing");
    assert_eq!(node.seen(), [""; 0], "nothing is asked of the kernel");
    assert_eq!(reply.digest, config_of(&[one("b", "10.0.0.2")]).digest());
    let shown: umbra_routing::ServiceTable = serde_json::from_value(reply.held[&key].clone()).unwrap();
    assert_eq!(
        (shown.addresses, shown.rules_of),
        (vec!["10.0.0.1".parse().unwrap()], ["u".to_owned()].into())
    );
    // Others' changes leave it as it is.
    let base = reply.digest;
    let remove = json!(["service/default/b"]);
    let hold = json!({ "service/default/a": ["u"] });
    let body =
        Body::Patch(serde_json::from_value(json!({ "base": base, "remove": remove, "hold": hold })).unwrap());
    let reply = node.owner.push(Push { epoch: 2, version: 2, body }).await.unwrap().unwrap();
    assert_eq!(reply.armed, std::slice::from_ref(&key));
    // The object has been deleted.
    let body = Body::Patch(serde_json::from_value(json!({ "base": reply.digest })).unwrap());
    let reply = node.owner.push(Push { epoch: 2, version: 3, body }).await.unwrap().unwrap();
    assert_eq!((reply.armed.len(), reply.held.len()), (0, 0));
    assert_eq!(node.seen().last().unwrap(), "");
}

#[tokio::test]
async fn held_tables_fill_an_answer_up_to_its_bound() {
    let table = |name: usize| {
        let mut table = held_table("10.0.0.1");
        table["service"]["name"] = json!(format!("s{name}"));
        // A third of what there is room for.
        table["ports"][0]["variants"][0]["rules"][0]["name"] = json!("x".repeat(HELD_BYTES / 3));
        (format!("service/default/s{name}"), table)
    };
    let mut config = Config::default();
    let sent: BTreeMap<_, _> = (0..4).map(table).collect();
    config.put(&serde_json::from_str(&json!({ "resources": sent }).to_string()).unwrap()).unwrap();
    let hold: BTreeMap<_, _> = sent.keys().map(|key| (key, ["u"])).collect();
    config
        .put(&serde_json::from_str(&json!({ "resources": {}, "hold": hold }).to_string()).unwrap())
        .unwrap();
    assert_eq!((config.held().count(), held(&config).len()), (4, 2));
}

/// A new leader that finds the node as it should be pushes nothing.
#[tokio::test]
async fn the_question_of_a_new_leader_shuts_the_old_one_out() {
    let mut node = Node::new();
    node.put(5, &[]).await.unwrap();
    assert_eq!(node.owner.heartbeat(Some(9)).unwrap().epoch, "9");
    for old in [node.owner.heartbeat(Some(5)).unwrap_err(), node.put(5, &[]).await.unwrap_err()] {
        assert_eq!(old.to_string(), "epoch 5 is older than 9, which this node has seen");
    }
    assert_eq!(node.owner.heartbeat(None).unwrap().epoch, "9", "a person's look changes nothing");
}

impl Node {
    /// With a fallback that notes what it is told among the rest, and whether the workers knew the service then.
    fn with_fallback(kernel_refuses: bool) -> Self {
        let mut node = Self::new();
        let (tables, seen) = (Arc::clone(&node.fake.tables), Arc::clone(&node.fake.seen));
        let note = move |change: Option<&keep::Change>| {
            let known = |target: &std::net::SocketAddr| match tables.by_address(*target) {
                Some(_) => format!("{target} known"),
                None => format!("{target} unknown"),
            };
            let text = change.map_or("renewed".into(), |change| {
                let led = change.set.keys().map(|target| format!("led: {}", known(target)));
                let left = change.gone.iter().map(|target| format!("left: {}", known(target)));
                led.chain(left).collect::<Vec<_>>().join(", ")
            });
            seen.lock().unwrap().push(text);
            if kernel_refuses { Err(crate::fallback::FallbackError::Ended) } else { Ok(()) }
        };
        node.owner.fallback = Some((Plan::new("n1".into(), None), Fallback::faked(note)));
        node
    }
}

#[tokio::test]
async fn the_fallback_is_there_before_interception_and_goes_before_the_table() {
    for kernel_refuses in [false, true] {
        let mut node = Node::with_fallback(kernel_refuses);
        let reply = node.put(1, &[one("a", "10.0.0.1")]).await.unwrap();
        assert_eq!(reply.armed, ["service/default/a".parse().unwrap()]);
        assert_eq!(node.seen(), ["led: 10.0.0.1:80 known", "10.0.0.1:80 known"]);
        node.put(1, &[]).await.unwrap();
        assert_eq!(node.seen(), ["", "left: 10.0.0.1:80 known", ""]);

        node.put(1, &[one("a", "10.0.0.1")]).await.unwrap();
        node.seen();
        let (reply, disarmed) = oneshot::channel();
        node.owner.serve(Command::Disarm(reply)).await.unwrap();
        disarmed.await.unwrap();
        assert_eq!(node.seen(), ["renewed", ""]);
    }
}

#[tokio::test]
async fn the_fallback_follows_endpoints_of_services_that_use_them() {
    let mut node = Node::with_fallback(false);
    let reference: umbra_routing::BackendRef = serde_json::from_value(json!({
        "service": { "namespace": "default", "name": "a" }, "port": 80, "subset": "v1", "selector": { "version": "v1" }
    }))
    .unwrap();
    let key = reference.key().unwrap().to_string();
    let set =
        json!({ "service": reference.service, "port": 80, "selector": { "version": "v1" }, "endpoints": [] });
    let reply = node.put(1, &[one("a", "10.0.0.1"), one("b", "10.0.0.2"), (&key, set)]).await.unwrap();
    node.seen();
    let endpoint = json!({
        "address": "10.244.1.1:8080", "namespace": "default", "workload": "w", "app": "a", "version": "v1",
        "canonicalName": "a", "canonicalRevision": "v1"
    });
    node.patch(json!({ "base": reply.digest, "patch": { key: { "add": [endpoint] } } })).await.unwrap();
    assert_eq!(node.seen(), ["led: 10.0.0.1:80 known"], "nothing is said of b");
}
