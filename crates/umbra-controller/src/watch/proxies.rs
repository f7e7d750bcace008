//! The proxy Pods, and the Nodes they run on, to live nodes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use umbra_api::{Guarded, Node, ObjectKey, Pod, Watchable, opened};

use crate::push;

/// Where umbra lives, and its proxies' labels: deploy/ and scripts hold on to these.
const NAMESPACE: &str = "umbra-system";
const LABELS: &str = "app.kubernetes.io/name=umbra,app.kubernetes.io/component=proxy";
/// The proxies' push port.
const PUSH_PORT: u16 = 15002;

/// Follows the proxy Pods and the Nodes they run on until `stop`.
pub async fn proxies(client: Client, live: watch::Sender<push::Nodes>, stop: CancellationToken) {
    let config = || watcher::Config::default();
    let of_pods = Api::<Guarded<Pod>>::namespaced(client.clone(), NAMESPACE);
    let mut of_pods = watcher(of_pods, config().labels(LABELS)).default_backoff().boxed();
    let mut of_nodes = watcher(Api::<Guarded<Node>>::all(client), config()).default_backoff().boxed();
    let mut proxies = Proxies::default();
    let run = async {
        loop {
            tokio::select! {
                Some(event) = of_pods.next() => took(&mut proxies.pods, event),
                Some(event) = of_nodes.next() => took(&mut proxies.nodes, event),
                else => return,
            }
            if let Some(newest) = proxies.live() {
                live.send_if_modified(|live| live.replace(newest.clone()) != Some(newest));
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = run => {}
    }
}

fn took<T: Watchable>(seen: &mut Seen<T>, event: Result<watcher::Event<Guarded<T>>, watcher::Error>) {
    match event {
        Ok(event) => seen.take(event),
        Err(error) => tracing::warn!(kind = T::KIND, %error, "watch of the proxies interrupted"),
    }
}

/// All objects of one kind.
struct Seen<T> {
    /// As last known in full; `None` before the first list has ended.
    objects: Option<BTreeMap<ObjectKey, T>>,
    /// A list in progress: half a list would take nodes away.
    listed: BTreeMap<ObjectKey, T>,
}

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self { objects: None, listed: BTreeMap::new() }
    }
}

impl<T: Watchable> Seen<T> {
    fn take(&mut self, event: watcher::Event<Guarded<T>>) {
        let insert = |objects: &mut BTreeMap<_, _>, object| match opened(object) {
            Ok(object) => drop(objects.insert(T::metadata(&object).key(), object)),
            Err(unread) => tracing::warn!(error = %unread, "object skipped"),
        };
        match event {
            watcher::Event::Init => self.listed.clear(),
            watcher::Event::InitApply(object) => insert(&mut self.listed, object),
            watcher::Event::InitDone => self.objects = Some(std::mem::take(&mut self.listed)),
            watcher::Event::Apply(object) => insert(self.objects.get_or_insert_default(), object),
            watcher::Event::Delete(object) => {
                let key = match opened(object) {
                    Ok(object) => T::metadata(&object).key(),
                    Err(unread) => unread.key,
                };
                self.objects.get_or_insert_default().remove(&key);
            }
        }
    }
}

#[derive(Default)]
struct Proxies {
    pods: Seen<Pod>,
    nodes: Seen<Node>,
}

impl Proxies {
    /// Running and not being deleted, ready or not: being pushed to is what makes a proxy ready. Not on a node that
    /// the control plane has lost, whose Pods stay `Running` for minutes: nothing there is served, by umbra or at all.
    /// A Node that is not known counts as there. `None` until the Pods are known.
    fn live(&self) -> Option<BTreeMap<String, push::Node>> {
        let mut pods: Vec<&Pod> = self.pods.objects.as_ref()?.values().collect();
        // Should a node have two, the younger one counts.
        pods.sort_by_key(|pod| &pod.metadata.creation_timestamp);
        let nodes = pods.into_iter().filter_map(node).filter(|node| !self.is_lost(&node.name));
        Some(nodes.map(|node| (node.name.clone(), node)).collect())
    }

    fn is_lost(&self, node: &str) -> bool {
        let nodes = self.nodes.objects.as_ref();
        nodes.and_then(|nodes| nodes.get(&ObjectKey::new("", node))).is_some_and(Node::is_lost)
    }
}

fn node(pod: &Pod) -> Option<push::Node> {
    let lives = pod.status.phase == "Running" && pod.metadata.deletion_timestamp.is_none();
    let ip: IpAddr = pod.status.pod_ips.first()?.ip.parse().ok()?;
    (lives && !pod.spec.node_name.is_empty()).then(|| push::Node {
        name: pod.spec.node_name.clone(),
        address: SocketAddr::new(ip, PUSH_PORT).to_string(),
        uid: pod.metadata.uid.clone(),
    })
}

#[cfg(test)]
mod tests {
    use kube::core::DeserializeGuard;
    use serde_json::json;

    use super::*;

    fn pod(name: &str, node: &str, phase: &str, ip: &str, created: &str) -> Guarded<Pod> {
        let object = json!({
            "metadata": {"name": name, "namespace": NAMESPACE, "uid": name, "creationTimestamp": created},
            "spec": {"nodeName": node, "hostNetwork": true},
            "status": {"phase": phase, "podIPs": [{"ip": ip}]},
        });
        serde_json::from_value::<DeserializeGuard<_>>(object).unwrap()
    }

    #[test]
    fn nodes_are_those_of_running_pods_once_all_are_listed() {
        let mut proxies = Proxies::default();
        let names = |proxies: &Proxies| proxies.live().map(|live| live.into_keys().collect::<Vec<_>>());
        proxies.pods.take(watcher::Event::Init);
        proxies.pods.take(watcher::Event::InitApply(pod("a", "node1", "Running", "10.0.0.1", "1")));
        proxies.pods.take(watcher::Event::InitApply(pod("b", "node2", "Pending", "10.0.0.2", "1")));
        assert_eq!(names(&proxies), None);
        proxies.pods.take(watcher::Event::InitDone);
        assert_eq!(names(&proxies).unwrap(), ["node1"]);
        proxies.pods.take(watcher::Event::Apply(pod("b", "node2", "Running", "fd00::2", "1")));
        assert_eq!(proxies.live().unwrap()["node2"].address, "[fd00::2]:15002");
        proxies.pods.take(watcher::Event::Apply(pod("c", "node2", "Running", "10.0.0.3", "2")));
        assert_eq!(proxies.live().unwrap()["node2"].uid, "c");
        proxies.pods.take(watcher::Event::Delete(pod("a", "node1", "Running", "10.0.0.1", "1")));
        proxies.pods.take(watcher::Event::Init);
        assert_eq!(names(&proxies).unwrap(), ["node2"], "half a list takes nothing away");
        proxies.pods.take(watcher::Event::InitDone);
        assert_eq!(names(&proxies).unwrap(), [""; 0]);
    }

    #[test]
    fn a_lost_node_is_not_live() {
        let mut proxies = Proxies::default();
        proxies.pods.take(watcher::Event::Apply(pod("a", "node1", "Running", "10.0.0.1", "1")));
        let mut live = |ready: &str| {
            let conditions = [("MemoryPressure", "Unknown"), ("Ready", ready)];
            let conditions = conditions.map(|(kind, status)| json!({"type": kind, "status": status}));
            let object = json!({"metadata": {"name": "node1"}, "status": {"conditions": conditions}});
            proxies.nodes.take(watcher::Event::Apply(serde_json::from_value(object).unwrap()));
            proxies.live().unwrap().len()
        };
        assert_eq!(["True", "Unknown", "False", "True"].map(&mut live), [1, 0, 1, 1]);
    }
}
