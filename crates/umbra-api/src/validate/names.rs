//! Names: of hosts, subsets, gateways, namespaces, labels, headers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::problem::Field;
use crate::{Labels, covers};

/// RFC 1035 2.3.4.
const MAX_NAME: usize = 255;
/// RFC 1123 2.1, and Kubernetes' bound of a label's name and value.
const MAX_LABEL: usize = 63;

/// A DNS name, also one that begins with `*.`; labels as Istio reads them (RFC 1123, letters of either case).
pub(super) fn host(host: &str, field: &mut Field<'_>) {
    let name = host.strip_prefix("*.").unwrap_or(host);
    if host != "*" && (host.len() > MAX_NAME || !is_dns_name(name)) {
        field.error(format!(
            "{host:?} is not the name of a service; use the form sa-logic or sa-logic.default.svc.cluster.local"
        ));
    }
}

/// As above, or an address.
pub(super) fn host_or_address(name: &str, field: &mut Field<'_>) {
    if name.parse::<IpAddr>().is_err() {
        host(name, field);
    }
}

/// Where rules lead to: no wildcard.
pub(super) fn destination_host(name: &str, field: &mut Field<'_>) {
    if name == "*" {
        field.error("\"*\" is no destination; name a service");
    } else {
        host(name, field);
    }
}

/// An empty one is none, as in Istio.
pub(super) fn subset_if_any(name: Option<&String>, field: &mut Field<'_>) {
    if let Some(name) = name.filter(|name| !name.is_empty()) {
        subset(name, &mut field.at("subset"));
    }
}

pub(super) fn subset(name: &str, field: &mut Field<'_>) {
    if !is_label(name) {
        field.error(format!("{name:?} is not a DNS label; use letters, digits and \"-\", at most 63"));
    }
}

/// An empty one is none, as in Istio.
pub(super) fn namespace_if_any(namespace: Option<&String>, name: &str, field: &mut Field<'_>) {
    if let Some(namespace) = namespace.filter(|namespace| !namespace.is_empty()) {
        self::namespace(namespace, &mut field.at(name));
    }
}

pub(super) fn namespace(name: &str, field: &mut Field<'_>) {
    if !is_label(name) {
        field.error(format!(
            "{name:?} is not the name of a namespace; use letters, digits and \"-\", at most 63"
        ));
    }
}

/// `mesh`, a name, or `namespace/name`; the old form with dots is on its way out.
pub(super) fn gateway(name: &str, field: &mut Field<'_>) {
    match name.split_once('/') {
        Some((namespace, gateway)) if is_label(namespace) && is_dns_name(gateway) => {}
        None if is_label(name) => {}
        None if is_dns_name(name) => {
            field.warn(format!("using legacy gateway name format {name:?}; prefer the form namespace/name"))
        }
        _ => {
            field.error(format!("{name:?} is not the name of a gateway; write mesh, name or namespace/name"))
        }
    }
}

/// `.`, `*`, `~`, or namespaces, each once; `own` is the object's namespace.
pub(super) fn export_to(export_to: &[String], own: &str, field: &mut Field<'_>) {
    let mut seen = BTreeSet::new();
    for (index, to) in export_to.iter().enumerate() {
        let mut entry = field.item("exportTo", index);
        if ["*", "~"].contains(&to.as_str()) {
            if export_to.len() > 1 {
                entry.error(format!("{to:?} stands alone; remove it or the others"));
            }
        } else if to != "." {
            namespace(to, &mut entry);
        }
        // `.` is the own namespace by another name.
        if !seen.insert(if to == "." { own } else { to.as_str() }) {
            entry.error(format!("duplicate entries in exportTo: {to:?}; remove one"));
        }
    }
}

/// Labels as Kubernetes takes them; pods without such names could not be selected.
pub(super) fn labels(labels: &Labels, name: &str, field: &mut Field<'_>) {
    for (key, value) in labels {
        let mut entry = field.entry(name, key);
        if !is_label_key(key) {
            entry.error(format!(
                "invalid label key {key:?}; use name or prefix/name of letters, digits, \"-\", \"_\", \".\""
            ));
        }
        if !value.is_empty() && !is_label_part(value) {
            entry.error(format!(
                "invalid label value {value:?}; use letters, digits, \"-\", \"_\", \".\", at most 63"
            ));
        }
    }
}

fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_dns_name(prefix) && is_label_part(name),
        None => is_label_part(key),
    }
}

fn is_label_part(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= MAX_LABEL
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

/// Labels with dots between, and perhaps one at the end.
pub(super) fn is_dns_name(name: &str) -> bool {
    name.len() <= MAX_NAME && name.strip_suffix('.').unwrap_or(name).split('.').all(is_label)
}

/// RFC 1123 2.1, letters of either case.
pub(super) fn is_label(text: &str) -> bool {
    (1..=MAX_LABEL).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Whether one of two hosts of a list takes requests of the other. As written: a short name is no full one here.
pub(super) fn overlap(a: &str, b: &str) -> bool {
    covers(a, b) || covers(b, a)
}
