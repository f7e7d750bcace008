use std::convert::Infallible;
use std::sync::Mutex;

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::*;
use crate::lead::lease::RENEW_DEADLINE;

/// An API server with one Lease, which writes only what names the version it has.
#[derive(Default)]
struct Fake {
    lease: Option<Value>,
    version: u64,
    hangs: bool,
}

type Shared = Arc<Mutex<Fake>>;

impl Fake {
    fn answer(&mut self, method: &Method, body: &[u8]) -> (StatusCode, Value) {
        let failure = |code: u16, reason: &str| {
            let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                "reason": reason, "message": reason});
            (StatusCode::from_u16(code).unwrap(), body)
        };
        let stored = self.lease.as_ref().map(|lease| lease["metadata"]["resourceVersion"].clone());
        if method == Method::GET {
            return self.lease.clone().map_or(failure(404, "NotFound"), |lease| (StatusCode::OK, lease));
        }
        let mut lease: Value = serde_json::from_slice(body).unwrap();
        let fits = match &stored {
            None => method == Method::POST,
            Some(version) => method == Method::PUT && lease["metadata"]["resourceVersion"] == *version,
        };
        if !fits {
            return failure(409, "Conflict");
        }
        self.version += 1;
        lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.lease = Some(lease.clone());
        (StatusCode::OK, lease)
    }
}

fn client(fake: &Shared) -> Client {
    let fake = Arc::clone(fake);
    let service = tower::service_fn(move |request: Request<Body>| {
        let fake = Arc::clone(&fake);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            if fake.lock().unwrap().hangs {
                std::future::pending::<()>().await;
            }
            let (status, body) = fake.lock().unwrap().answer(&head.method, &body);
            let body = Body::from(body.to_string().into_bytes());
            Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
        }
    });
    Client::new(service, "default")
}

struct Replica {
    terms: watch::Receiver<Option<Term>>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), EpochError>>,
}

impl Replica {
    fn start(fake: &Shared) -> Self {
        let (sender, terms) = watch::channel(None);
        let (metrics, stop) = (Arc::new(Metrics::default()), CancellationToken::new());
        let task =
            tokio::spawn(run(client(fake), "umbra-system", sender, Arc::clone(&metrics), stop.clone()));
        Self { terms, metrics, stop, task }
    }

    async fn leads(&mut self) -> Term {
        self.terms.wait_for(Option::is_some).await.unwrap().clone().unwrap()
    }

    async fn stands_by(&mut self) {
        self.terms.wait_for(Option::is_none).await.unwrap();
    }
}

fn holder(fake: &Shared) -> String {
    let fake = fake.lock().unwrap();
    fake.lease.as_ref().unwrap()["spec"]["holderIdentity"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn one_of_two_leads_and_who_stops_gives_it_to_the_other_at_once() {
    let fake = Shared::default();
    let (mut a, mut b) = (Replica::start(&fake), Replica::start(&fake));
    let a_leads = tokio::select! { _ = a.leads() => true, _ = b.leads() => false };
    let (mut first, mut second) = if a_leads { (a, b) } else { (b, a) };
    let old = first.leads().await;
    assert!(tokio::time::timeout(DURATION * 4, second.leads()).await.is_err(), "two lead");
    assert!(old.is_valid(Instant::now()), "renewed for a minute");
    assert_eq!((first.metrics.leader.get(), first.metrics.terms.get()), (1, 1));

    let stopped = Instant::now();
    first.stop.cancel();
    first.task.await.unwrap().unwrap();
    first.terms.borrow_and_update();
    assert!(first.terms.borrow().is_none() && holder(&fake).is_empty());
    let new = second.leads().await;
    assert!(stopped.elapsed() < RETRY * 2, "it waited for the end of what was given back");
    assert!(new.epoch() > old.epoch());
}

#[tokio::test(start_paused = true)]
async fn who_is_killed_is_followed_when_the_lease_has_run_out() {
    let fake = Shared::default();
    let mut first = Replica::start(&fake);
    let old = first.leads().await;
    let mut second = Replica::start(&fake);
    tokio::time::sleep(RETRY).await;
    first.task.abort();
    let killed = Instant::now();
    let new = second.leads().await;
    assert!(killed.elapsed() > DURATION - RETRY && killed.elapsed() < DURATION + RETRY * 3);
    assert!(!old.is_valid(Instant::now()) && new.epoch() > old.epoch());
}

#[tokio::test(start_paused = true)]
async fn a_leader_without_an_api_server_goes_before_another_may_come() {
    let fake = Shared::default();
    let mut replica = Replica::start(&fake);
    let old = replica.leads().await;
    fake.lock().unwrap().hangs = true;
    let cut = Instant::now();
    replica.stands_by().await;
    assert!(cut.elapsed() <= RENEW_DEADLINE && !old.is_valid(Instant::now()));
    assert_eq!(replica.metrics.leader.get(), 0);
    fake.lock().unwrap().hangs = false;
    let new = replica.leads().await;
    assert!(new.epoch() > old.epoch(), "what comes after is another term");
}

/// Three of its questions hang, and still it leads.
#[tokio::test(start_paused = true)]
async fn the_deadline_has_room_for_answers_that_do_not_come() {
    let fake = Shared::default();
    let mut replica = Replica::start(&fake);
    let term = replica.leads().await;
    fake.lock().unwrap().hangs = true;
    tokio::time::sleep(ANSWER_LIMIT * 3 + RETRY / 2).await;
    fake.lock().unwrap().hangs = false;
    tokio::time::sleep(RENEW_DEADLINE * 2).await;
    assert!(term.is_valid(Instant::now()));
    assert_eq!(replica.metrics.terms.get(), 1);
}

/// As SIGSTOP does: the clock goes on, and nothing else.
#[tokio::test(start_paused = true)]
async fn who_stood_still_has_no_leave_when_it_wakes_up() {
    let fake = Shared::default();
    let mut replica = Replica::start(&fake);
    let old = replica.leads().await;
    {
        // Meanwhile another has come.
        let mut fake = fake.lock().unwrap();
        fake.version += 1;
        let version = fake.version.to_string();
        let lease = fake.lease.as_mut().unwrap();
        lease["spec"]["holderIdentity"] = json!("another");
        lease["metadata"]["resourceVersion"] = json!(version);
    }
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(!old.is_valid(Instant::now()), "before it has heard of anything");
    replica.stands_by().await;
    assert_eq!(holder(&fake), "another");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_somebody_deleted_is_another_term() {
    let fake = Shared::default();
    let mut replica = Replica::start(&fake);
    let old = replica.leads().await;
    fake.lock().unwrap().lease = None;
    let another = |term: &Option<Term>| term.as_ref().is_some_and(|term| term.epoch() > old.epoch());
    replica.terms.wait_for(another).await.unwrap();
    assert_eq!(replica.metrics.terms.get(), 2);
}
