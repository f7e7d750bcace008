//! Host names of VirtualServices and DestinationRules, and the services they mean (spec/istio.md 2.1).

use umbra_api::ObjectKey;
pub use umbra_api::covers;

/// What follows `name.namespace` in a service's full name.
pub const SERVICE_SUFFIX: &str = ".svc.cluster.local";

/// The full name that `host` stands for in a resource of `namespace`: a name without a dot is a service of that
/// namespace, everything else is taken as it is.
pub fn full_name(host: &str, namespace: &str) -> String {
    if host.contains('.') || host.contains('*') || host.is_empty() {
        host.to_owned()
    } else {
        format!("{host}.{namespace}{SERVICE_SUFFIX}")
    }
}

/// The full name that one of a VirtualService's `hosts` stands for: these ignore case (spec/istio.md 4.7).
pub fn claimed_name(host: &str, namespace: &str) -> String {
    full_name(&host.to_ascii_lowercase(), namespace)
}

/// The service that `host` names in a resource of `namespace`; `None` for wildcards, addresses and names outside the
/// cluster. Upper case is another name: only a VirtualService's `hosts` ignore case, and their reader lowers them.
pub fn service_of(host: &str, namespace: &str) -> Option<ObjectKey> {
    let full = full_name(host, namespace);
    let (name, namespace) = full.strip_suffix(SERVICE_SUFFIX)?.split_once('.')?;
    let plain = |part: &str| !part.is_empty() && !part.contains(['.', '*']);
    (plain(name) && plain(namespace)).then(|| ObjectKey::new(namespace, name))
}

/// The full name of a service.
pub fn name_of(service: &ObjectKey) -> String {
    format!("{}.{}{SERVICE_SUFFIX}", service.name, service.namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_full_names_mean_services() {
        let service = |host: &str| service_of(host, "default").map(|key| key.to_string());
        assert_eq!(service("sa-logic").as_deref(), Some("default/sa-logic"));
        assert_eq!(service("sa-logic.other.svc.cluster.local").as_deref(), Some("other/sa-logic"));
        let outside =
            ["", "*", "*.default.svc.cluster.local", "sa-logic.other", "sa-logic.other.svc", "10.0.0.1"];
        for host in
            outside.into_iter().chain(["a.b.c.svc.cluster.local", "sa-logic.other.svc.cluster.local."])
        {
            assert_eq!(service(host), None, "{host}");
        }
    }
}
