//! The objects of all files, each once, and what decoding and validating them says.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use umbra_api::{DestinationRule, Labels, ObjectKey, Pod, Service, Severity, VirtualService};
use umbra_index::Index;

use super::Report;
use super::codes;
use super::finding::Finding;
#[cfg(feature = "kubernetes")]
use crate::cluster::Listed;
use crate::files::{Object, ObjectId, ObjectKind, Texts, decode};

/// The objects of all files.
pub(super) struct Manifests {
    objects: BTreeMap<ObjectId, (PathBuf, Object)>,
}

impl Manifests {
    /// Reads them; the report has what cannot be read.
    pub(super) fn read(texts: &Texts) -> (Self, Report) {
        let mut manifests = Self { objects: BTreeMap::new() };
        let mut report = Report::default();
        for (file, text) in texts {
            match text {
                Ok(text) => manifests.take(file, text, &mut report),
                Err(why) => report.unread.push(format!("{}: {why}", file.display())),
            }
        }
        (manifests, report)
    }

    /// A cluster's objects, which are in no file.
    #[cfg(feature = "kubernetes")]
    pub(super) fn listed(listed: Listed) -> (Self, Report) {
        let in_no_file = |(id, object)| (id, (PathBuf::new(), object));
        let manifests = Self { objects: listed.objects.into_iter().map(in_no_file).collect() };
        let unread = listed.undecodable.into_iter();
        let findings = unread.map(|(object, why)| undecodable(&object, &why.error, Path::new("")));
        (manifests, Report { findings: findings.collect(), unread: Vec::new() })
    }

    fn take(&mut self, file: &Path, text: &str, report: &mut Report) {
        let decoded = decode(file, text);
        for problem in decoded.problems {
            match &problem.object {
                Some(object) => report.findings.extend([undecodable(object, &problem.message, file)]),
                None => report.unread.push(problem.to_string()),
            }
        }
        for (id, object, _) in decoded.objects {
            match self.objects.entry(id) {
                Entry::Vacant(entry) => {
                    entry.insert((file.to_owned(), object));
                }
                Entry::Occupied(entry) => {
                    let text = format!(
                        "is in {} too, and only that one was looked at; remove one",
                        entry.get().0.display()
                    );
                    report.findings.insert(Finding {
                        object: entry.key().clone(),
                        field: "metadata.name".to_owned(),
                        code: codes::TWICE,
                        level: Severity::Warning,
                        text,
                        file: file.to_owned(),
                    });
                }
            }
        }
    }

    /// What each object's own checks say.
    pub(super) fn problems(&self) -> impl Iterator<Item = Finding> {
        self.objects.iter().flat_map(|(id, (_, object))| {
            object.validate().into_iter().map(|problem| {
                self.finding(
                    id.clone(),
                    problem.path,
                    problem.code.as_str(),
                    problem.severity,
                    problem.message,
                )
            })
        })
    }

    /// All objects, as the controller would know them.
    pub(super) fn index(&self) -> Index {
        Object::index(self.objects.values().map(|(_, object)| object))
    }

    pub(super) fn finding(
        &self,
        object: ObjectId,
        field: String,
        code: &'static str,
        level: Severity,
        text: String,
    ) -> Finding {
        let file = self.objects.get(&object).map(|(file, _)| file.clone()).unwrap_or_default();
        Finding { object, field, code, level, text, file }
    }

    pub(super) fn virtual_services(&self) -> impl Iterator<Item = (&ObjectId, &VirtualService)> {
        self.objects.iter().filter_map(|(id, (_, object))| match object {
            Object::VirtualService(object) => Some((id, object)),
            _ => None,
        })
    }

    pub(super) fn destination_rules(&self) -> impl Iterator<Item = (&ObjectId, &DestinationRule)> {
        self.objects.iter().filter_map(|(id, (_, object))| match object {
            Object::DestinationRule(object) => Some((id, object)),
            _ => None,
        })
    }

    pub(super) fn service(&self, key: &ObjectKey) -> Option<&Service> {
        match self.objects.get(&ObjectId { kind: ObjectKind::Service, key: key.clone() }) {
            Some((_, Object::Service(service))) => Some(service),
            _ => None,
        }
    }

    /// Whether the pods of a service among the files have these labels, too. `None`: there are no pods of it, so that
    /// nothing is known; in a cluster a Deployment may make them.
    pub(super) fn selects_pods(&self, service: &Service, labels: &Labels) -> Option<bool> {
        let has = |pod: &Pod, labels: &Labels| {
            labels.iter().all(|(name, value)| pod.metadata.labels.get(name) == Some(value))
        };
        let selector = &service.spec.selector;
        let mut pods = self.objects.values().filter_map(|(_, object)| match object {
            Object::Pod(pod) if pod.metadata.namespace == service.metadata.namespace => Some(pod),
            _ => None,
        });
        let mut of_service =
            pods.by_ref().filter(|pod| !selector.is_empty() && has(pod, selector)).peekable();
        of_service.peek()?;
        Some(of_service.any(|pod| has(pod, labels)))
    }
}

/// `spec.hosts: invalid type`: what no API server takes.
fn undecodable(object: &ObjectId, why: &str, file: &Path) -> Finding {
    let field = why.split_once(": ").filter(|(field, _)| !field.contains(' '));
    let (field, text) = field.unwrap_or(("spec", why));
    Finding {
        object: object.clone(),
        field: field.to_owned(),
        code: codes::INVALID,
        level: Severity::Error,
        text: text.to_owned(),
        file: file.to_owned(),
    }
}
