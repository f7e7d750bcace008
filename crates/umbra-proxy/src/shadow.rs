//! Shadows: copies of requests that go to mirrors and whose answers nobody gets.
//!
//! Takes: a request that the primary has been given, and the mirrors that sampling chose. Gives: a task per copy, on its
//! own connection, within its own bounds, and exactly one outcome per eligible request. Never waited for by a primary.

pub(crate) mod breaker;
pub(crate) mod copy;
pub(crate) mod tap;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, Method, Uri};
use umbra_routing::{Client, Draw, Route};

use crate::balance::{Backends, Family, Lease};
use crate::body::Bodies;
use crate::connection::Worker;
use crate::metrics::{DropReason, Outcome};
use crate::tables::{Governed, Mirror, Slot, Target};
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
    copies: Vec<(Ledger, Option<Arc<Backends>>)>,
    /// The service is being released.
    disarmed: bool,
}

/// What a copy repeats.
pub(crate) struct Original {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) client: Option<Arc<Client>>,
    /// Of the address that the client asked for, where it is known.
    pub(crate) family: Option<Family>,
    /// `http` or `https`, as rules saw it.
    pub(crate) scheme: &'static str,
    /// What the client speaks.
    pub(crate) version: HttpVersion,
}

impl Original {
    /// What of it any version of HTTP says.
    pub(crate) fn head(&self) -> RequestHead<'_> {
        RequestHead { method: &self.method, scheme: self.scheme, uri: &self.uri, headers: &self.headers }
    }
}

impl Drawn {
    /// Draws once for each mirror. A service that is no longer governed wants no copies, nor one that has lost the port
    /// and goes on with its last routes. `disarmed`: what is drawn will not go out, the connection is not wanted here.
    pub(crate) fn new(
        governed: &Governed,
        (last_routes, disarmed): (bool, bool),
        route: &Route<Target>,
        (head, source): (&umbra_routing::RequestHead<'_>, IpAddr),
        draw: &mut impl Draw,
    ) -> Self {
        let wanted = !last_routes && governed.retired_at().is_none();
        let chosen = route.mirrors.iter().filter(|to| wanted && to.samples(head, source, draw));
        let copies =
            chosen.filter_map(|to| Some((Ledger::new(to.backend.mirror()?), to.backend.set.clone())));
        Self { copies: copies.collect(), disarmed }
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
        let disarmed = self.disarmed;
        for (mut ledger, set) in self.copies {
            match admit(worker, &ledger.mirror, (set.as_ref(), original.family), disarmed) {
                Ok(Admitted { slot, lease, set }) => {
                    let (tap, copy_body, end) =
                        tap::tap(worker.copy_budget(), worker.copies_budget().clone(), body.hint());
                    body.attach(tap);
                    ledger.close(Outcome::Dropped(DropReason::Shutdown));
                    let version = original.version.towards(set.spoken_to());
                    let copy = copy::Copy {
                        ledger,
                        _slot: slot,
                        service: Arc::clone(&set.service),
                        lease,
                        version,
                        request: version.request(&original.head(), copy_body),
                        end,
                        client: original.client.clone(),
                        started: Instant::now(),
                    };
                    worker.shadows.spawn_local(copy.run(Rc::clone(worker)));
                }
                Err(reason) => ledger.close(Outcome::Dropped(reason)),
            }
        }
    }
}

struct Admitted {
    slot: Slot,
    lease: Lease,
    set: Arc<Backends>,
}

/// Whether a copy may go out now, and where.
fn admit(
    worker: &Worker,
    mirror: &Arc<Mirror>,
    (set, family): (Option<&Arc<Backends>>, Option<Family>),
    disarmed: bool,
) -> Result<Admitted, DropReason> {
    if disarmed || worker.tables.shadows_stopped() {
        return Err(DropReason::Stopped);
    }
    let set = set.ok_or(DropReason::Unresolved)?;
    let draw = &mut |bound| worker.rng().u64(0..bound);
    let lease = set.choose(&[], family, draw).ok_or(DropReason::NoEndpoint)?;
    if worker.sockets.count() > worker.limits.shadow.open_sockets {
        return Err(DropReason::Overflow);
    }
    let slot = mirror.slot(worker.limits.shadow.in_flight).ok_or(DropReason::Overflow)?;
    if !mirror.breaker.allows(Instant::now()) {
        return Err(DropReason::Breaker);
    }
    Ok(Admitted { slot, lease, set: Arc::clone(set) })
}
