//! Shadows: copies of requests that go to mirrors and whose answers nobody gets.
//!
//! Takes: a request that the primary has been given, and the mirrors that sampling chose. Gives: a task per copy, on its
//! own connection, within its own bounds, and exactly one outcome per eligible request. Never waited for by a primary.

pub(crate) mod budget;
pub(crate) mod copy;
pub(crate) mod hang_ups;
pub(crate) mod head;
pub(crate) mod lag;
pub(crate) mod limits;
pub(crate) mod rate;
pub(crate) mod tap;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, Method, Uri};
use umbra_routing::{Client, Route, is_grpc};

use crate::balance::{Backends, CopyLease, Family};
use crate::body::Bodies;
use crate::clock;
use crate::connection::Worker;
use crate::held::Held;
use crate::metrics::{DropReason, Outcome};
use crate::recycle::Recycled;
use crate::tables::{Mirror, Slot, Target};
use crate::version::{HttpVersion, RequestHead};

/// One eligible request at one mirror: counted when drawn, and once more when this is dropped.
pub(crate) struct Ledger {
    mirror: Arc<Mirror>,
    outcome: Outcome,
}

impl Ledger {
    fn new(mirror: &Arc<Mirror>) -> Self {
        mirror.counters.eligible.inc();
        Self { mirror: Arc::clone(mirror), outcome: Outcome::Dropped(DropReason::PrimaryFailed) }
    }

    fn close(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.mirror.counters.record(self.outcome);
    }
}

/// Copies that were drawn for a request and wait for its primary to be written. Dropped before that, they count as
/// `primary_failed`.
pub(crate) struct Drawn {
    copies: Vec<(Ledger, Option<Held<Backends>>)>,
    /// Why none of them goes out.
    held_back: Option<DropReason>,
}

/// What of a request decides whether it is copied.
pub(crate) struct Asked<'a> {
    pub(crate) headers: &'a HeaderMap,
    /// The client's address.
    pub(crate) source: IpAddr,
    /// The client is a pod of this node: nobody else's mark is believed, since it would keep requests from being copied.
    pub(crate) is_local: bool,
    /// The service is being released: the connection is not wanted here.
    pub(crate) disarmed: bool,
}

/// What a copy repeats.
pub(crate) struct Original {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) client: Option<Held<Client>>,
    /// Of the address that the client asked for, where it is known.
    pub(crate) family: Option<Family>,
    /// `http` or `https`, as rules saw it.
    pub(crate) scheme: &'static str,
    /// What the client speaks.
    pub(crate) version: HttpVersion,
    /// The client wants to go on in another protocol, and may.
    pub(crate) switches: bool,
    pub(crate) recycled: Rc<Recycled>,
}

impl Drop for Original {
    fn drop(&mut self) {
        self.recycled.put_map(std::mem::take(&mut self.headers));
    }
}

impl Original {
    /// What of it any version of HTTP says.
    pub(crate) fn head(&self) -> RequestHead<'_> {
        let Self { method, scheme, uri, headers, switches, .. } = self;
        RequestHead { method, scheme, uri, headers, switches: *switches, mark: None }
    }
}

impl Drawn {
    /// No copies at all.
    pub(crate) fn none() -> Self {
        Self { copies: Vec::new(), held_back: None }
    }

    /// Asks each mirror of `route` whether it wants the request.
    pub(crate) fn new(worker: &Worker, route: &Route<Target>, asked: &Asked<'_>) -> Self {
        let draw = &mut |bound| worker.rng().u64(0..bound);
        let chosen = route.mirrors.iter().filter(|to| to.samples(asked.headers, asked.source, draw));
        let sets = &worker.at_hand.sets;
        let copies = chosen.filter_map(|to| {
            Some((Ledger::new(to.backend.mirror()?), to.backend.set.as_ref().map(|set| sets.get(set))))
        });
        let is_marked = |mark: &http::HeaderName| asked.is_local && asked.headers.contains_key(mark);
        let held_back = match asked.disarmed {
            true => Some(DropReason::Stopped),
            false => worker.shadow_mark.as_ref().filter(|mark| is_marked(mark)).map(|_| DropReason::Marked),
        };
        Self { copies: copies.collect(), held_back }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.copies.is_empty()
    }

    /// The request turned out to be one that is not copied.
    pub(crate) fn drop_all(self, reason: DropReason) {
        for (mut ledger, _) in self.copies {
            ledger.close(Outcome::Dropped(reason));
        }
    }

    /// Starts the copies: the primary has been given its request.
    pub(crate) fn start(self, worker: &Rc<Worker>, original: &Original, body: &Bodies) {
        if let Some(reason) = self.held_back.or_else(|| stopped(worker)) {
            return self.drop_all(reason);
        }
        let now = clock::now();
        for (mut ledger, set) in self.copies {
            match admit(worker, &ledger.mirror, (set, original.family), now) {
                Ok(admitted) => {
                    let copy = admitted.copy(worker, ledger, (original, body), now);
                    worker.shadows.spawn_local(copy.run(Rc::clone(worker)));
                }
                Err(reason) => ledger.close(Outcome::Dropped(reason)),
            }
        }
    }
}

/// Why no copies at all go out now.
fn stopped(worker: &Worker) -> Option<DropReason> {
    match () {
        () if worker.tables.shadows_stopped() => Some(DropReason::Stopped),
        () if worker.sheds_copies() => Some(DropReason::Busy),
        () => None,
    }
}

struct Admitted {
    slot: Slot,
    lease: CopyLease,
    set: Held<Backends>,
}

impl Admitted {
    fn copy(
        self,
        worker: &Worker,
        mut ledger: Ledger,
        (original, body): (&Original, &Bodies),
        started: Instant,
    ) -> copy::Copy {
        let Self { slot, lease, set } = self;
        let (tap, copy_body, end) = tap::tap(|| worker.budgets(&ledger.mirror), body.hint());
        body.attach(tap);
        ledger.close(Outcome::Dropped(DropReason::Shutdown));
        let version = original.version.towards(set.spoken_to());
        let mark = worker.shadow_mark.as_ref();
        let head =
            head::Head::new(&RequestHead { mark, ..original.head() }, version, &copy_body, &worker.recycled);
        copy::Copy {
            ledger,
            _slot: slot,
            set,
            lease,
            head,
            is_grpc: is_grpc(&original.headers),
            body: copy_body,
            end,
            client: original.client.clone(),
            started,
        }
    }
}

/// Whether a copy may go out now, and where.
fn admit(
    worker: &Worker,
    mirror: &Arc<Mirror>,
    (set, family): (Option<Held<Backends>>, Option<Family>),
    now: Instant,
) -> Result<Admitted, DropReason> {
    let limits = &worker.limits.shadow;
    let set = set.ok_or(DropReason::Unresolved)?;
    let draw = &mut |bound| worker.rng().u64(0..bound);
    let lease = set.choose_for_copy(&worker.at_hand.upstreams, family, draw).ok_or(DropReason::NoEndpoint)?;
    if worker.sockets.count() > limits.open_sockets {
        return Err(DropReason::Connections);
    }
    let slot = mirror.slot(limits.mirror.in_flight).ok_or(DropReason::Overflow)?;
    if !mirror.breaker.allows(now) {
        return Err(DropReason::Breaker);
    }
    if !mirror.hang_ups.allows(limits.mirror.in_flight, now) {
        return Err(DropReason::HungUp);
    }
    if limits.mirror.per_second.is_some_and(|rate| !mirror.rate.takes(rate, now)) {
        return Err(DropReason::Rate);
    }
    Ok(Admitted { slot, lease, set })
}
