//! `headers`: changes of a request and its answer (spec/istio.md 1A, 4.2).

use std::collections::BTreeMap;

use umbra_index::api::header_name::is_authority;
use umbra_index::api::{HeaderOperations, Headers};
use umbra_routing::{FormatError, HeaderChanges, HeaderEdits, check_format};

use crate::finding::Reason;
use crate::report::Report;

/// The name under which nodes get the authority.
const AUTHORITY: &str = "host";

/// Changes as one place writes them.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeaderSpec {
    changes: HeaderChanges,
    /// What a Host operation of the request makes the authority; set beats add.
    pub(crate) authority: Option<String>,
}

/// Reads the changes at `path`.
pub(crate) fn headers(report: &mut Report, path: &str, headers: &Headers) -> HeaderSpec {
    report.unsupported(path, &headers.rest);
    let mut spec = HeaderSpec::default();
    if let Some(operations) = &headers.request {
        spec.changes.request = edits(report, &format!("{path}.request"), operations);
        let usable = |(name, value): &(&String, &String)| {
            is_authority(name) && !value.is_empty() && check_format(value).is_ok()
        };
        let find = |map: &BTreeMap<String, String>| map.iter().find(usable).map(|(_, value)| value.clone());
        spec.authority = find(&operations.set).or_else(|| find(&operations.add));
    }
    if let Some(operations) = &headers.response {
        spec.changes.response = edits(report, &format!("{path}.response"), operations);
    }
    spec
}

fn edits(report: &mut Report, path: &str, operations: &HeaderOperations) -> HeaderEdits {
    report.unsupported(path, &operations.rest);
    HeaderEdits {
        remove: operations.remove.iter().map(|name| name.to_ascii_lowercase()).collect(),
        set: values(report, &format!("{path}.set"), &operations.set),
        add: values(report, &format!("{path}.add"), &operations.add),
    }
}

/// Names and values without the authority, and without empty values, which do nothing.
fn values(report: &mut Report, path: &str, map: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let usable = map
        .iter()
        .filter(|(name, value)| has_value(report, &format!("{path}[{name}]"), value) && !is_authority(name));
    usable.map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect()
}

/// Whether a node can make something of the value; an operator that it does not know is said.
fn has_value(report: &mut Report, path: &str, value: &str) -> bool {
    match check_format(value) {
        Ok(()) => !value.is_empty(),
        Err(error @ FormatError::Unknown(_)) => {
            report.note(Reason::PartiallyInvalid, path, format!("{error}, so this header is left as it is"));
            false
        }
        Err(_) => false,
    }
}

/// A rule's changes, and those of each of its destinations.
///
/// With one listed destination there is one block: all removes, then all sets, then all adds, each the rule's before
/// the destination's. With several, a weight of 0 included, each keeps its own, and the rule's come last. The rule's
/// authority wins in any case.
pub(crate) fn combine(
    rule: Option<&HeaderSpec>,
    destinations: &[Option<HeaderSpec>],
) -> (Option<HeaderChanges>, Vec<Option<HeaderChanges>>) {
    if let [one] = destinations {
        let none = HeaderSpec::default();
        let merged = rule.unwrap_or(&none).followed_by(one.as_ref().unwrap_or(&none));
        return (merged.changes(), vec![None]);
    }
    let beaten = rule.is_some_and(|rule| rule.authority.is_some());
    let own = destinations.iter().map(|headers| {
        let mut headers = headers.clone()?;
        headers.authority = headers.authority.filter(|_| !beaten);
        headers.changes()
    });
    (rule.and_then(|rule| rule.clone().changes()), own.collect())
}

impl HeaderSpec {
    fn followed_by(&self, later: &Self) -> Self {
        let (mine, theirs) = (&self.changes, &later.changes);
        Self {
            changes: HeaderChanges {
                request: one_block(&mine.request, &theirs.request),
                response: one_block(&mine.response, &theirs.response),
            },
            authority: self.authority.clone().or_else(|| later.authority.clone()),
        }
    }

    /// As nodes get them; `None` when nothing changes.
    fn changes(self) -> Option<HeaderChanges> {
        let mut changes = self.changes;
        let authority = self.authority.map(|authority| (AUTHORITY.to_owned(), authority));
        changes.request.set.extend(authority);
        (changes != HeaderChanges::default()).then_some(changes)
    }
}

fn one_block(first: &HeaderEdits, second: &HeaderEdits) -> HeaderEdits {
    let both = |a: &[(String, String)], b: &[(String, String)]| [a, b].concat();
    HeaderEdits {
        remove: [first.remove.as_slice(), &second.remove].concat(),
        set: both(&first.set, &second.set),
        add: both(&first.add, &second.add),
    }
}
