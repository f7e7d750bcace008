//! Findings of one object on its own, whatever service it is about: so that those that govern nothing learn it too.

use umbra_index::{ObjectName, View};

use crate::finding::Finding;

/// What the author of `object` should know apart from the findings that [`service`](crate::service) gives for each
/// service. Empty for an object that is not there.
pub fn object_findings(_view: View<'_>, _object: &ObjectName) -> Vec<Finding> {
    Vec::new()
}
