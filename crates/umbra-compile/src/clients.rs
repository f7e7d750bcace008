//! What one node is told of itself: its pods, and its addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use umbra_index::{PodEntry, View};
use umbra_routing::{Client, NodeSettings};

use crate::identity::Identity;
use crate::options::Options;
use crate::policies;

/// The pods of a node that may call services, by address: not those on the node's own network, and only while they
/// run or start, because addresses of finished pods are given out again.
pub fn clients(view: View<'_>, node: &str, options: &Options) -> BTreeMap<IpAddr, Client> {
    let mut pods: Vec<&PodEntry> = view.pods_on(node).filter(|entry| may_call(entry)).collect();
    // Should two pods claim an address, the younger one has it.
    pods.sort_by_key(|entry| (&entry.pod.metadata.creation_timestamp, entry.pod.metadata.key()));
    let addressed = pods.into_iter().flat_map(|entry| {
        let addresses = entry.pod.status.pod_ips.iter().filter_map(|ip| ip.ip.parse().ok());
        addresses.map(|address| (address, client(view, entry, options)))
    });
    addressed.collect()
}

/// A node's settings; a node that is not known takes over known pods only.
pub fn node_settings(view: View<'_>, node: &str, options: &Options) -> NodeSettings {
    let Some(node) = view.node(node) else { return NodeSettings::default() };
    let known_pods_only = policies::known_pods_only(view, options);
    NodeSettings { pod_cidrs: node.spec.pod_cidrs.clone(), known_pods_only }
}

fn may_call(entry: &PodEntry) -> bool {
    !entry.pod.spec.host_network && matches!(entry.pod.status.phase.as_str(), "Running" | "Pending")
}

fn client(view: View<'_>, entry: &PodEntry, options: &Options) -> Client {
    let identity = Identity::of(entry);
    let meta = &entry.pod.metadata;
    Client {
        pod: meta.name.clone(),
        namespace: meta.namespace.clone(),
        workload: identity.workload,
        app: identity.app,
        version: identity.version,
        canonical_name: identity.canonical_name,
        canonical_revision: identity.canonical_revision,
        labels: entry.labels.as_ref().clone(),
        skip: policies::skips(view, entry, options),
    }
}
