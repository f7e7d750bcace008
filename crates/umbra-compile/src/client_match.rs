//! Conditions on the client and on the port it used: decided before a node sees them, all but labels.

use umbra_index::api::{HttpMatchRequest, Labels};

use crate::finding::Reason;
use crate::report::Report;

/// Of a label's value, of its name, and of a DNS label (Kubernetes).
const NAME_MAX_BYTES: usize = 63;

/// `port` of the block at `path`; 0 is as good as absent.
pub(crate) fn port(report: &mut Report, path: &str, block: &HttpMatchRequest) -> Option<u16> {
    let port = block.port.filter(|port| *port != 0)?;
    let usable = u16::try_from(port).ok();
    if usable.is_none() {
        let message = format!("{port} is not a port; use 1 to 65535");
        report.reject(Reason::Invalid, format!("{path}.port"), message);
    }
    usable
}

/// `sourceNamespace` of the block at `path`.
pub(crate) fn namespace(report: &mut Report, path: &str, block: &HttpMatchRequest) -> Option<String> {
    let namespace = block.source_namespace.clone().filter(|namespace| !namespace.is_empty())?;
    if !is_dns_label(&namespace) {
        let message = format!("{namespace:?} cannot be a namespace; write the name of one");
        report.reject(Reason::Invalid, format!("{path}.sourceNamespace"), message);
    }
    Some(namespace)
}

/// `sourceLabels` of the block at `path`.
pub(crate) fn labels(report: &mut Report, path: &str, block: &HttpMatchRequest) -> Labels {
    for (name, value) in &block.source_labels {
        if !is_label_name(name) || !(value.is_empty() || is_name(value)) {
            let message = format!("no pod can have the label {name}={value}");
            report.reject(Reason::Invalid, format!("{path}.sourceLabels[{name:?}]"), message);
        }
    }
    block.source_labels.clone()
}

/// A namespace's name, or that of a subset.
pub(crate) fn is_dns_label(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=NAME_MAX_BYTES).contains(&text.len())
        && text.chars().all(plain)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_label_name(name: &str) -> bool {
    let (prefix, name) = name.split_once('/').unwrap_or(("x", name));
    !prefix.is_empty() && !prefix.contains('/') && is_name(name)
}

fn is_name(text: &str) -> bool {
    let at_ends = |c: char| c.is_ascii_alphanumeric();
    let inside = |c: char| at_ends(c) || matches!(c, '-' | '_' | '.');
    text.len() <= NAME_MAX_BYTES
        && text.chars().all(inside)
        && text.starts_with(at_ends)
        && text.ends_with(at_ends)
}
