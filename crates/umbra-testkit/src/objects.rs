//! Kubernetes objects as JSON, for an API server without controllers: what those would have written.

use std::net::IpAddr;

use serde_json::{Value, json};

/// All of them as one document for kubectl.
pub fn list(items: impl IntoIterator<Item = Value>) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": items.into_iter().collect::<Vec<_>>()}).to_string()
}

/// A Service in `default` with the port 80 named `http`; `cluster_ips` are given to it (none: the API server chooses).
pub fn service(name: &str, cluster_ips: &[IpAddr]) -> Value {
    let mut spec = json!({
        "selector": {"app": name},
        "ports": [{"name": "http", "port": 80, "targetPort": 5000}],
    });
    if let Some(first) = cluster_ips.first() {
        spec["clusterIP"] = json!(first);
        spec["clusterIPs"] = json!(cluster_ips);
        spec["ipFamilyPolicy"] =
            json!(if cluster_ips.len() > 1 { "RequireDualStack" } else { "SingleStack" });
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": spec})
}

/// A pod in `default`, labelled `app` and `version`. Its addresses are in its status: apply it once as it is, and once
/// with `--subresource=status`.
pub fn pod(app: &str, version: &str, name: &str, node: &str, addresses: &[IpAddr]) -> Value {
    let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": app, "version": version}},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "none"}]},
        "status": {"phase": "Running", "podIP": addresses.first(), "podIPs": ips},
    })
}

/// An EndpointSlice of `service`, with the port 5000 of pods given by name and address; all of one family.
pub fn endpoint_slice(service: &str, name: &str, pods: &[(&str, IpAddr)]) -> Value {
    let endpoints: Vec<Value> = pods
        .iter()
        .map(|(pod, address)| {
            json!({
                "addresses": [address],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "targetRef": {"kind": "Pod", "namespace": "default", "name": pod},
            })
        })
        .collect();
    let v6 = pods.iter().any(|(_, address)| address.is_ipv6());
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": service}},
        "addressType": if v6 { "IPv6" } else { "IPv4" },
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": 5000, "protocol": "TCP"}],
    })
}

/// A node with these pod networks.
pub fn node(name: &str, pod_cidrs: &[String]) -> Value {
    let spec = json!({"podCIDR": pod_cidrs.first(), "podCIDRs": pod_cidrs});
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec})
}

/// The article's DestinationRule for `service`: subsets v1 and v2 by the label `version`.
pub fn destination_rule(service: &str) -> Value {
    let subset = |name: &str| json!({"name": name, "labels": {"version": name}});
    json!({
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "DestinationRule",
        "metadata": {"name": service, "namespace": "default"},
        "spec": {"host": service, "subsets": [subset("v1"), subset("v2")]},
    })
}

/// The article's VirtualService for `service`: users to v1, a copy to v2.
pub fn virtual_service(service: &str) -> Value {
    let rule = json!({
        "route": [{"destination": {"host": service, "subset": "v1"}}],
        "mirror": {"host": service, "subset": "v2"},
    });
    virtual_service_with(service, &json!({"hosts": [service], "http": [rule]}))
}

/// A VirtualService in `default` with this spec.
pub fn virtual_service_with(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    })
}
