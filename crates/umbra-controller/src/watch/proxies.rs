//! The proxy Pods to live nodes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use umbra_api::{Guarded, ObjectKey, Pod, Watchable, opened};

use crate::push::{Node, Nodes};

/// Where umbra lives, and its proxies' labels: deploy/ and scripts hold on to these.
const NAMESPACE: &str = "umbra-system";
const LABELS: &str = "app.kubernetes.io/name=umbra,app.kubernetes.io/component=proxy";
/// The proxies' push port.
const PUSH_PORT: u16 = 15002;

/// Follows the proxy Pods until `stop`.
pub async fn proxies(client: Client, nodes: watch::Sender<Nodes>, stop: CancellationToken) {
    let api = Api::<Guarded<Pod>>::namespaced(client, NAMESPACE);
    let mut events = watcher(api, watcher::Config::default().labels(LABELS)).default_backoff().boxed();
    let mut pods = Pods::default();
    let run = async {
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    if pods.take(event) {
                        let live = pods.live();
                        nodes.send_if_modified(|nodes| nodes.replace(live.clone()) != Some(live));
                    }
                }
                Err(error) => tracing::warn!(%error, "watch of the proxy Pods interrupted"),
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = run => {}
    }
}

#[derive(Default)]
struct Pods {
    pods: BTreeMap<ObjectKey, Pod>,
    /// A list in progress.
    listed: Option<BTreeMap<ObjectKey, Pod>>,
}

impl Pods {
    /// False while a list is in progress: half a list would take nodes away.
    fn take(&mut self, event: watcher::Event<Guarded<Pod>>) -> bool {
        let insert = |pods: &mut BTreeMap<_, _>, object| match opened(object) {
            Ok(pod) => drop(pods.insert(Pod::metadata(&pod).key(), pod)),
            Err(unread) => tracing::warn!(error = %unread, "proxy Pod skipped"),
        };
        match event {
            watcher::Event::Init => self.listed = Some(BTreeMap::new()),
            watcher::Event::InitApply(object) => insert(self.listed.get_or_insert_default(), object),
            watcher::Event::InitDone => self.pods = self.listed.take().unwrap_or_default(),
            watcher::Event::Apply(object) => insert(&mut self.pods, object),
            watcher::Event::Delete(object) => {
                let key = match opened(object) {
                    Ok(pod) => pod.metadata.key(),
                    Err(unread) => unread.key,
                };
                self.pods.remove(&key);
            }
        }
        self.listed.is_none()
    }

    /// Running and not being deleted, ready or not: being pushed to is what makes a proxy ready.
    fn live(&self) -> BTreeMap<String, Node> {
        let mut pods: Vec<&Pod> = self.pods.values().collect();
        // Should a node have two, the younger one counts.
        pods.sort_by_key(|pod| &pod.metadata.creation_timestamp);
        pods.into_iter().filter_map(node).map(|node| (node.name.clone(), node)).collect()
    }
}

fn node(pod: &Pod) -> Option<Node> {
    let lives = pod.status.phase == "Running" && pod.metadata.deletion_timestamp.is_none();
    let ip: IpAddr = pod.status.pod_ips.first()?.ip.parse().ok()?;
    (lives && !pod.spec.node_name.is_empty()).then(|| Node {
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
        let mut pods = Pods::default();
        assert!(!pods.take(watcher::Event::Init));
        assert!(!pods.take(watcher::Event::InitApply(pod("a", "node1", "Running", "10.0.0.1", "1"))));
        assert!(!pods.take(watcher::Event::InitApply(pod("b", "node2", "Pending", "10.0.0.2", "1"))));
        assert!(pods.take(watcher::Event::InitDone));
        assert_eq!(pods.live().keys().collect::<Vec<_>>(), ["node1"]);
        pods.take(watcher::Event::Apply(pod("b", "node2", "Running", "fd00::2", "1")));
        assert_eq!(pods.live()["node2"].address, "[fd00::2]:15002");
        pods.take(watcher::Event::Apply(pod("c", "node2", "Running", "10.0.0.3", "2")));
        assert_eq!(pods.live()["node2"].uid, "c");
        pods.take(watcher::Event::Delete(pod("a", "node1", "Running", "10.0.0.1", "1")));
        assert_eq!(pods.live().keys().collect::<Vec<_>>(), ["node2"]);
        pods.take(watcher::Event::Init);
        pods.take(watcher::Event::InitDone);
        assert_eq!(pods.live(), BTreeMap::new());
    }
}
