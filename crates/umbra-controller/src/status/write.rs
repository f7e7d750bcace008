//! Conditions to the API server.
//!
//! Takes: snapshots, live nodes and acknowledgements. Gives: `.status` of every VirtualService and DestinationRule,
//! written only when it differs, and an Event for each change to False. Istio's list of conditions is atomic, so each
//! write reads first and names the resourceVersion it was made against. One write per object at a time, the latest
//! wins; at most one entry waits per object. Never touches anything but `.status`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, PostParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use umbra_api::Status;
use umbra_compile::ObjectRef;
use umbra_index::{Kind, ObjectName};

use super::{Truth, Wanted, World, conditions, merge};
use crate::lead::{ANSWER_LIMIT, Term};
use crate::metrics::{Metrics, Outcome, ResultLabels};
use crate::publish::Published;
use crate::push::{Acks, Nodes};

/// Conditions are looked at this long after a change: acknowledgements of the same change arrive meanwhile, and one
/// write says it all.
const SETTLE: Duration = Duration::from_millis(100);
/// And again this often while time alone may change one.
const AGAIN: Duration = Duration::from_secs(1);
/// After a write that failed.
const RETRY: Duration = Duration::from_secs(5);
/// Writes at a time: a thousand objects at 5 ms each are written within two seconds, and the API server is spared.
const WRITERS: usize = 4;
/// Reads again after a conflict; more than that means another writer that never rests.
const CONFLICTS: usize = 5;
/// `note` of an Event may have 1,024 bytes.
const NOTE_LIMIT: usize = 1024;

/// What status is made of.
pub struct Sources {
    /// Snapshots.
    pub published: watch::Receiver<Option<Arc<Published>>>,
    /// Live nodes.
    pub nodes: watch::Receiver<Nodes>,
    /// What they have acknowledged.
    pub acks: watch::Receiver<Acks>,
}

/// Conditions of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Desired {
    object: ObjectRef,
    conditions: [Wanted; 3],
}

/// Why a status was not written; it is tried again.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    /// The API server's answer, or none. Look at the controller's ClusterRole if it is a refusal.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// No answer in time. The API server's fault, or the network's.
    #[error("the API server has not answered within 10 s")]
    Timeout,
}

type Written = (ObjectName, Result<(), WriteError>);

struct Writer {
    client: Client,
    recorder: Recorder,
    metrics: Arc<Metrics>,
    term: Term,
    started: Instant,
    /// What was last handed to a write.
    told: BTreeMap<ObjectName, Desired>,
    waiting: BTreeMap<ObjectName, Desired>,
    busy: BTreeSet<ObjectName>,
    writes: JoinSet<Written>,
}

/// Runs until `stop`; a write in flight then is finished.
///
/// # Errors
/// A write has panicked.
pub async fn run(
    client: Client,
    mut sources: Sources,
    metrics: Arc<Metrics>,
    term: Term,
    stop: CancellationToken,
) -> Result<(), JoinError> {
    let mut writer = Writer::new(client, metrics, term);
    let mut due: Option<Instant> = None;
    loop {
        let now = Instant::now();
        let timer = tokio::time::sleep_until(due.unwrap_or(now));
        let changed = tokio::select! {
            () = stop.cancelled() => break,
            changed = sources.published.changed() => changed,
            changed = sources.nodes.changed() => changed,
            changed = sources.acks.changed() => changed,
            () = timer, if due.is_some() => {
                due = writer.look(&mut sources).then(|| Instant::now() + AGAIN);
                writer.start();
                continue;
            }
            Some(written) = writer.writes.join_next(), if !writer.writes.is_empty() => {
                if writer.finished(written?) == Outcome::failed {
                    due = Some(due.unwrap_or_else(|| Instant::now() + RETRY));
                }
                writer.start();
                continue;
            }
        };
        if changed.is_err() {
            // The controller is stopping, and so shall we be.
            stop.cancelled().await;
            break;
        }
        let soon = Instant::now() + SETTLE;
        due = Some(due.map_or(soon, |due| due.min(soon)));
    }
    while let Some(written) = writer.writes.join_next().await {
        writer.finished(written?);
    }
    Ok(())
}

impl Writer {
    fn new(client: Client, metrics: Arc<Metrics>, term: Term) -> Self {
        let recorder = Recorder::new(client.clone(), Reporter::from("umbra-controller"));
        Self {
            client,
            recorder,
            metrics,
            term,
            started: Instant::now(),
            told: BTreeMap::new(),
            waiting: BTreeMap::new(),
            busy: BTreeSet::new(),
            writes: JoinSet::new(),
        }
    }

    /// Computes all conditions; says whether time alone may change one.
    fn look(&mut self, sources: &mut Sources) -> bool {
        let Some(published) = sources.published.borrow_and_update().clone() else { return false };
        let nodes = sources.nodes.borrow_and_update().clone();
        let acks = sources.acks.borrow_and_update().clone();
        let world = World { nodes: &nodes, acks: &acks, started: self.started, now: Instant::now() };
        let mut passing = false;
        for (name, state) in published.objects.iter() {
            let conditions = conditions(state, &world);
            passing |= conditions.iter().any(Wanted::is_passing);
            let desired = Desired { object: state.object.clone(), conditions };
            if self.told.get(name) != Some(&desired) {
                self.told.insert(name.clone(), desired.clone());
                self.waiting.insert(name.clone(), desired);
            }
        }
        let exists = |name: &ObjectName| published.objects.contains_key(name);
        self.told.retain(|name, _| exists(name));
        self.waiting.retain(|name, _| exists(name));
        passing
    }

    fn start(&mut self) {
        while self.writes.len() < WRITERS {
            let Some(name) = self.waiting.keys().find(|name| !self.busy.contains(*name)).cloned() else {
                return;
            };
            let Some(desired) = self.waiting.remove(&name) else { return };
            self.busy.insert(name.clone());
            let (client, recorder) = (self.client.clone(), self.recorder.clone());
            let (metrics, term) = (Arc::clone(&self.metrics), self.term.clone());
            self.writes.spawn(async move {
                let written =
                    tokio::time::timeout(ANSWER_LIMIT, write(client, &recorder, &metrics, &term, &desired));
                let result = written.await.map_err(|_| WriteError::Timeout);
                (name, result.and_then(|written| written.map_err(WriteError::Api)))
            });
        }
    }

    fn finished(&mut self, (name, result): Written) -> Outcome {
        self.busy.remove(&name);
        match result {
            Ok(()) => Outcome::ok,
            Err(error) => {
                tracing::warn!(object = %name, %error, "status not written");
                // Looked at again: it is not told any more.
                self.told.remove(&name);
                count(&self.metrics, Outcome::failed);
                Outcome::failed
            }
        }
    }
}

fn count(metrics: &Metrics, result: Outcome) {
    metrics.status_writes.get_or_create(&ResultLabels { result }).inc();
}

async fn write(
    client: Client,
    recorder: &Recorder,
    metrics: &Metrics,
    term: &Term,
    desired: &Desired,
) -> Result<(), kube::Error> {
    let key = &desired.object.key;
    let api: Api<DynamicObject> =
        Api::namespaced_with(client, &key.namespace, &resource(desired.object.kind));
    let mut last = None;
    for _ in 0..CONFLICTS {
        let Some(mut object) = api.get_opt(&key.name).await? else { return Ok(()) };
        let (uid, generation) = (object.metadata.uid.as_deref(), object.metadata.generation);
        if uid != Some(&desired.object.uid) || generation > Some(desired.object.generation) {
            // A newer object; its own status follows.
            return Ok(());
        }
        let present = object.data.get("status").cloned().unwrap_or_default();
        let current: Option<Status> = serde_json::from_value(present).map_err(kube::Error::SerdeError)?;
        let current = current.unwrap_or_default();
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let Some(merged) = merge(&current, &desired.conditions, desired.object.generation, &now) else {
            return Ok(());
        };
        object.data["status"] = serde_json::to_value(&merged).map_err(kube::Error::SerdeError)?;
        if !term.is_valid(Instant::now()) {
            // Another one leads, and writes what is so now.
            return Ok(());
        }
        match api.replace_status(&key.name, &PostParams::default(), &object).await {
            Ok(_) => {
                count(metrics, Outcome::ok);
                return tell(recorder, desired, &current).await;
            }
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
            Err(kube::Error::Api(status)) if status.is_conflict() => last = Some(kube::Error::Api(status)),
            Err(error) => return Err(error),
        }
    }
    last.map_or(Ok(()), Err)
}

/// An Event for each condition that has become False, or False for another reason.
async fn tell(recorder: &Recorder, desired: &Desired, before: &Status) -> Result<(), kube::Error> {
    let object = &desired.object;
    let resource = resource(object.kind);
    let reference = ObjectReference {
        api_version: Some(resource.api_version),
        kind: Some(resource.kind),
        name: Some(object.key.name.clone()),
        namespace: Some(object.key.namespace.clone()),
        uid: Some(object.uid.clone()),
        ..ObjectReference::default()
    };
    for wanted in desired.conditions.iter().filter(|wanted| is_news(wanted, before)) {
        let note = format!("{}: {}", wanted.kind, wanted.message);
        let event = Event {
            type_: EventType::Warning,
            reason: wanted.reason.into(),
            note: Some(cut(note)),
            action: wanted.kind.into(),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, &reference).await {
            // The status says it as well; an Event that is lost is not worth a second write.
            tracing::warn!(object = %object.name(), %error, "event not written");
        }
    }
    Ok(())
}

/// At most so many bytes, and whole characters.
fn cut(mut note: String) -> String {
    if note.len() > NOTE_LIMIT {
        let end = (0..=NOTE_LIMIT).rev().find(|at| note.is_char_boundary(*at)).unwrap_or_default();
        note.truncate(end);
    }
    note
}

fn is_news(wanted: &Wanted, before: &Status) -> bool {
    // To wait for nodes for some seconds, and not to be referred to, are no troubles.
    // Nor is a VirtualService that is for gateways, which others serve.
    let ordinary = wanted.message == "waiting for nodes"
        || [umbra_compile::Reason::NotForMesh.as_str(), "NoGovernedService"].contains(&wanted.reason);
    let old = before.conditions.iter().find(|condition| condition.kind == wanted.kind);
    let same = old.is_some_and(|old| {
        old.status == Truth::False.as_str() && old.reason == wanted.reason && old.message == wanted.message
    });
    wanted.truth == Truth::False && !ordinary && !same
}

fn resource(kind: Kind) -> ApiResource {
    let (kind, plural) = match kind {
        Kind::VirtualService => ("VirtualService", "virtualservices"),
        Kind::DestinationRule => ("DestinationRule", "destinationrules"),
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("networking.istio.io", "v1", kind), plural)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;
    use umbra_index::api::ObjectKey;

    use super::*;

    fn wanted(kind: &'static str, reason: &'static str) -> Wanted {
        Wanted { kind, truth: Truth::False, reason, message: "m".into() }
    }

    #[test]
    fn what_is_no_trouble_makes_no_event() {
        let news = |reason| is_news(&wanted("Accepted", reason), &Status::default());
        assert!(news("Invalid"));
        assert!(!news("NotForMesh") && !news("NoGovernedService"));
    }

    /// The first request hangs for ever, as behind a network that swallows packets; the next are answered.
    #[tokio::test(start_paused = true)]
    async fn a_write_that_hangs_is_given_up_counted_and_tried_again() {
        let (asked, mut requests) = tokio::sync::mpsc::unbounded_channel();
        let first = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let service = tower::service_fn(move |request: Request<Body>| {
            let (asked, first) = (asked.clone(), Arc::clone(&first));
            async move {
                asked.send(request.method().clone()).unwrap();
                if first.swap(false, std::sync::atomic::Ordering::SeqCst) {
                    std::future::pending::<()>().await;
                }
                let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404,
                    "reason": "NotFound", "message": "gone"});
                let response =
                    Response::builder().status(404).body(Body::from(body.to_string().into_bytes()));
                Ok::<_, Infallible>(response.unwrap())
            }
        });
        let metrics = Arc::new(Metrics::default());
        let mut writer = Writer::new(Client::new(service, "default"), Arc::clone(&metrics), Term::endless(1));
        let key = ObjectKey::new("default", "a");
        let object = ObjectRef { kind: Kind::VirtualService, key, uid: "u".into(), generation: 1 };
        let desired = Desired {
            conditions: ["Accepted", "ResolvedRefs", "Programmed"].map(|kind| wanted(kind, "R")),
            object,
        };
        let name = desired.object.name();
        for expected in [Outcome::failed, Outcome::ok] {
            writer.told.insert(name.clone(), desired.clone());
            writer.waiting.insert(name.clone(), desired.clone());
            writer.start();
            assert!(requests.recv().await.is_some());
            let written = writer.writes.join_next().await.unwrap().unwrap();
            assert_eq!(writer.finished(written), expected);
            assert_eq!(writer.told.contains_key(&name), expected == Outcome::ok, "else it is tried again");
        }
        let failed = ResultLabels { result: Outcome::failed };
        assert_eq!(metrics.status_writes.get_or_create(&failed).get(), 1);
    }
}
