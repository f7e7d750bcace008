//! Connections: from accept to the protocol's own server.
//!
//! Takes: an accepted connection. Gives: HTTP to `serve`, anything else to `passthrough`; refuses what did not come
//! through interception or is not governed. The original destination alone selects the service.

use std::cell::{Cell, RefCell, RefMut};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::HeaderName;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::task::TaskTracker;
use umbra_routing::{Client, Protocol};

use crate::balance::Family;
use crate::body::RequestBody;
use crate::descriptors::{Open, Sockets};
use crate::held::{AtHand, Held};
use crate::listen::{Mode, OriginalDestination};
use crate::metrics::{Exchange, Metrics, Series, SeriesCache};
use crate::pool::{Carries, Pool};
use crate::recycle::Recycled;
use crate::shadow::budget::{Budgets, Used};
use crate::shadow::lag::Lag;
use crate::shadow::tap::CopyBody;
use crate::sniff::{self, Spoken};
use crate::tables::{Governed, Mirror, Tables};
use crate::version::HttpVersion;
use crate::worker::{Limits, Options, Phase};
use crate::{passthrough, serve};

/// For a client that is about to use its connection while the process ends: a request on its way, and a client that
/// sends some each second, arrive within this.
const LAST_REQUEST: Duration = Duration::from_secs(1);

/// What the connections of one worker share. Lives on that worker's thread.
pub(crate) struct Worker {
    pub(crate) mode: Mode,
    pub(crate) limits: Limits,
    pub(crate) tables: Arc<Tables>,
    pub(crate) metrics: Arc<Metrics>,
    phase: RefCell<watch::Receiver<Phase>>,
    /// The process ends, as far as this worker has noticed.
    draining: Cell<bool>,
    /// Every connection's task.
    pub(crate) connections: TaskTracker,
    /// Every copy's task.
    pub(crate) shadows: TaskTracker,
    /// Connections to primaries.
    pub(crate) primaries: Pool<RequestBody>,
    /// Connections to mirrors: a slow mirror holds up none but its own.
    pub(crate) mirrors: Pool<CopyBody>,
    /// This process's connections.
    pub(crate) sockets: Sockets,
    /// What requests leave behind for the next ones.
    pub(crate) recycled: Rc<Recycled>,
    /// What its requests hold of what all workers share.
    pub(crate) at_hand: AtHand,
    /// Bytes of bodies that its copies hold.
    queued: Used,
    lag: Cell<Lag>,
    /// See [`Options::shadow_mark`].
    pub(crate) shadow_mark: Option<HeaderName>,
    series: RefCell<SeriesCache>,
    rng: RefCell<fastrand::Rng>,
}

/// An intercepted connection, with all that is known about it.
pub(crate) struct Arrived {
    pub(crate) governed: Held<Governed>,
    /// The Service's port that it was headed to.
    pub(crate) port: u16,
    /// Of the address that it was headed to.
    pub(crate) family: Family,
    pub(crate) client: Option<Held<Client>>,
    peer: IpAddr,
    tables: Arc<Tables>,
}

impl Arrived {
    /// Its connection is wanted here. When not (the table went, or lost this port; the pod is to be skipped now), it
    /// goes on with its last routes for a while: without mirroring, and told to close.
    pub(crate) fn is_in_force(&self) -> bool {
        self.governed.is_in_force()
            && self.governed.routes.load().port(self.port).is_some()
            && !self.tables.skips(self.peer)
    }

    pub(crate) fn namespace(&self) -> Option<&str> {
        self.client.as_ref().map(|client| client.namespace.as_str())
    }
}

impl Worker {
    pub(crate) fn new(
        options: Options,
        tables: Arc<Tables>,
        metrics: Arc<Metrics>,
        sockets: Sockets,
        phase: watch::Receiver<Phase>,
        seed: u64,
    ) -> Rc<Self> {
        let Options { mode, limits, shadow_mark, .. } = options;
        let recycled = Rc::default();
        Rc::new(Self {
            mode,
            tables,
            phase: RefCell::new(phase),
            draining: Cell::new(false),
            connections: TaskTracker::new(),
            shadows: TaskTracker::new(),
            primaries: Pool::new(&limits, Carries::Requests, &recycled),
            mirrors: Pool::new(&limits, Carries::Copies, &recycled),
            sockets,
            recycled,
            at_hand: AtHand::default(),
            queued: Used::default(),
            lag: Cell::default(),
            shadow_mark,
            series: RefCell::new(SeriesCache::new(&metrics)),
            metrics,
            limits,
            rng: RefCell::new(fastrand::Rng::with_seed(seed)),
        })
    }

    /// The local pod at `ip`.
    fn client(&self, ip: IpAddr) -> Option<Held<Client>> {
        self.tables.client(ip).map(|client| self.at_hand.clients.get(&client))
    }

    /// This worker's random numbers. Do not hold over a call into this worker.
    pub(crate) fn rng(&self) -> RefMut<'_, fastrand::Rng> {
        self.rng.borrow_mut()
    }

    /// Budgets for one more copy.
    pub(crate) fn budgets(&self, mirror: &Mirror) -> Budgets {
        let limits = &self.limits.shadow;
        let of_mirror = mirror.queued.up_to(limits.mirror.queued_bytes);
        Budgets::new(limits.body_bytes, [of_mirror, self.queued.up_to(limits.worker_bytes)])
    }

    pub(crate) fn series(&self, exchange: &Exchange<'_>) -> Rc<Series> {
        self.series.borrow_mut().get(exchange)
    }

    /// Regular housekeeping, late by `lag`; takes no lock that a push may hold.
    pub(crate) fn tick(&self, lag: Duration) {
        let mut known = self.lag.get();
        match known.ticked(lag, self.limits.shadow.lag) {
            true if known.sheds() => tracing::warn!(?lag, "users wait for this worker: it makes no copies"),
            true => tracing::info!("this worker is in time again, and makes copies"),
            false => {}
        }
        self.lag.set(known);
        self.primaries.sweep();
        self.mirrors.sweep();
        self.at_hand.sweep();
    }

    /// Users wait, so that no copies are made.
    pub(crate) fn sheds_copies(&self) -> bool {
        self.lag.get().sheds()
    }

    /// Clients are told to close, because the process ends.
    pub(crate) fn is_draining(&self) -> bool {
        // Looked at without its lock as long as nothing has changed: each worker would write that for each request.
        if self.phase.borrow().has_changed().unwrap_or(true) {
            let draining = matches!(*self.phase.borrow_mut().borrow_and_update(), Phase::Draining(_));
            self.draining.set(draining);
        }
        self.draining.get()
    }

    /// Ends when the process does not want new requests any more.
    pub(crate) async fn drains(&self) {
        let mut phase = self.phase.borrow().clone();
        // An error: the sender is gone, and the process ends without draining.
        let _ = phase.wait_for(|phase| matches!(phase, Phase::Draining(_))).await;
    }

    /// Ends when a connection that says nothing while the process ends is to be closed: its client has had the time
    /// for a request, whose answer would have told it so without a race.
    pub(crate) async fn silence_ends(&self) {
        let mut phase = self.phase.borrow().clone();
        let draining = phase.wait_for(|phase| matches!(phase, Phase::Draining(_))).await.map(|phase| *phase);
        // The sender is gone: the process ends without draining.
        let Ok(Phase::Draining(until)) = draining else { return };
        let half = until.saturating_duration_since(Instant::now()) / 2;
        tokio::time::sleep(half.min(LAST_REQUEST)).await;
    }

    /// Ends when `wanted` has been false for a whole interval of housekeeping.
    pub(crate) async fn unwanted(&self, wanted: impl Fn() -> bool) {
        let mut interval = tokio::time::interval(self.limits.check_every());
        // Nobody may have asked for a while: what was missed then is no interval of silence.
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unwanted = false;
        loop {
            interval.tick().await;
            match (unwanted, !wanted()) {
                (true, true) => return,
                (_, now) => unwanted = now,
            }
        }
    }

    /// Waits for connections, then copies, to end, until then. Returns how many connections have not.
    pub(crate) async fn drained(&self, until: Instant) -> usize {
        self.connections.close();
        self.shadows.close();
        let all = async {
            self.connections.wait().await;
            self.shadows.wait().await;
        };
        // What is left is cut: the caller learns how much.
        let _ = tokio::time::timeout_at(until.into(), all).await;
        self.connections.len()
    }
}

/// Serves one accepted connection to its end.
pub(crate) async fn serve(worker: Rc<Worker>, mut stream: TcpStream, open: Open, peer: SocketAddr) {
    let Mode::Intercepted(original) = &worker.mode else {
        let sniffed = tokio::select! {
            biased;
            sniffed = sniff(&worker, &mut stream, Protocol::Http) => sniffed,
            () = worker.silence_ends() => return,
        };
        let Some((spoken, first)) = sniffed else { return };
        let version = match spoken {
            Spoken::Http(version) => version,
            // Nobody else takes it: the parser says what is wrong with it.
            Spoken::Bytes => HttpVersion::Http1,
        };
        let asked = serve::Asked::ByHost { client: worker.client(peer.ip()) };
        return serve::http(worker, asked, (stream, open), (version, first)).await;
    };
    let arrived = match arrive(&worker, original, &stream, peer).await {
        Ok(arrived) => arrived,
        Err(reason) => return worker.metrics.refused(reason),
    };
    let protocol = {
        let routes = arrived.governed.routes.load();
        routes.port(arrived.port).map_or(Protocol::Http, |port| port.protocol)
    };
    let sniffed = tokio::select! {
        // First: what the client has said is served.
        biased;
        sniffed = sniff(&worker, &mut stream, protocol) => sniffed,
        () = worker.silence_ends() => return,
        // Later its endpoints may be somebody else's.
        () = worker.unwanted(|| arrived.is_in_force()) => return,
    };
    match sniffed {
        Some((Spoken::Bytes, first)) => passthrough::serve(&worker, &arrived, (stream, open), first).await,
        Some((Spoken::Http(version), first)) => {
            serve::http(worker, serve::Asked::Intercepted(arrived), (stream, open), (version, first)).await
        }
        None => {}
    }
}

async fn arrive(
    worker: &Worker,
    original: &OriginalDestination,
    stream: &TcpStream,
    peer: SocketAddr,
) -> Result<Arrived, &'static str> {
    let to = original(stream).map_err(|_| "not_intercepted")?;
    if stream.local_addr().is_ok_and(|local| local == to) {
        return Err("not_intercepted");
    }
    let governed = worker.tables.by_address(to).ok_or("not_governed")?;
    let governed = worker.at_hand.governed.get(&governed);
    let matters = {
        let routes = governed.routes.load();
        // An address that the service has left still leads here for a while; a port that it has left does not.
        routes.port(to.port()).ok_or("not_governed")?.depends_on_client()
    };
    let client = client(worker, peer, matters).await;
    let (family, tables) = (Family::of(to.ip()), Arc::clone(&worker.tables));
    Ok(Arrived { governed, port: to.port(), family, client, peer: peer.ip(), tables })
}

/// The pod behind `peer`. Waited for only where it makes a difference.
async fn client(worker: &Worker, peer: SocketAddr, matters: bool) -> Option<Held<Client>> {
    let mut client = worker.client(peer.ip());
    if client.is_none() && matters {
        let come = worker.tables.client_to_come(peer.ip());
        let come = tokio::time::timeout(worker.limits.client_wait, come).await;
        client = come.ok().map(|client| worker.at_hand.clients.get(&client));
    }
    if client.is_none() {
        worker.metrics.unknown_sources.inc();
    }
    client
}

/// Reads until the protocol is clear. `None`: the client left without a word, or said none for too long.
async fn sniff(worker: &Worker, stream: &mut TcpStream, port: Protocol) -> Option<(Spoken, Bytes)> {
    let (limits, mut first) = (&worker.limits, BytesMut::with_capacity(sniff::ENOUGH));
    let spoken = match port {
        Protocol::Http => {
            // An idle HTTP client is little trouble; the time limit of its head begins with the first byte. Read, and not
            // waited for: tokio takes an accepted socket to be readable until a read has said otherwise.
            tokio::time::timeout(limits.client_idle_timeout, more(stream, &mut first)).await.ok()??;
            match tokio::time::timeout(limits.header_timeout, decide(stream, &mut first, port)).await {
                Ok(spoken) => spoken?,
                // What it speaks is not known, and nobody can be answered.
                Err(_) => {
                    worker.metrics.bad_request("stalled");
                    return None;
                }
            }
        }
        Protocol::Unknown => {
            match tokio::time::timeout(limits.sniff_timeout, decide(stream, &mut first, port)).await {
                Ok(spoken) => spoken?,
                Err(_) => Spoken::Bytes,
            }
        }
    };
    Some((spoken, first.freeze()))
}

/// `None`: the client left before.
async fn decide(stream: &mut TcpStream, first: &mut BytesMut, port: Protocol) -> Option<Spoken> {
    loop {
        if let Some(spoken) = sniff::spoken(first, port) {
            return Some(spoken);
        }
        more(stream, first).await?;
    }
}

/// Reads what the client says next, up to what is enough to decide. `None`: it left before. Cancel safe.
async fn more(stream: &mut TcpStream, first: &mut BytesMut) -> Option<()> {
    let room = sniff::ENOUGH - first.len();
    let mut part = [0; sniff::ENOUGH];
    match stream.read(&mut part[..room]).await {
        Ok(0) | Err(_) => None,
        Ok(count) => {
            first.extend_from_slice(&part[..count]);
            Some(())
        }
    }
}
