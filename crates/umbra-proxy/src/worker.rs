//! Workers: one current-thread runtime per core, each with its own listener, connections and upstream pools.
//!
//! Takes: options, tables, metrics. Gives: served connections, and a tick that says a worker is alive. A connection
//! stays on the worker that accepted it; nothing is handed between workers but counters.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http::HeaderName;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{oneshot, watch};

use crate::clock;
use crate::connection::{self, Worker};
use crate::descriptors::Sockets;
use crate::listen::{self, Mode};
use crate::metrics::Metrics;
pub use crate::shadow::limits::{MirrorLimits, ShadowLimits};
use crate::tables::Tables;

/// How often a worker says that it is alive, and looks after its pools and what it has at hand.
const TICK: Duration = Duration::from_millis(100);

/// What workers need to know. `Default` has the published bounds.
#[derive(Clone)]
pub struct Options {
    /// Where pods' connections arrive. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// How many threads, at least 1.
    pub workers: usize,
    /// How a connection's service is known.
    pub mode: Mode,
    /// Bounds in time and number.
    pub limits: Limits,
    /// Header that is added to copies and to nothing else. Requests of local pods that have it are not copied again.
    pub shadow_mark: Option<HeaderName>,
    /// Start of the workers' random numbers, for tests; `None` takes a random one.
    pub seed: Option<u64>,
}

/// Bounds of the data path.
#[derive(Clone, Debug)]
pub struct Limits {
    /// On a port of unknown protocol a client silent for this long is passed through as bytes.
    pub sniff_timeout: Duration,
    /// A request's head has to be whole this long after its first byte, else 408; HTTP/2's preface, too, without an answer. The
    /// first of a connection has it twice: until its protocol is known, and then.
    pub header_timeout: Duration,
    /// How long the pod behind a connection may be unknown, where that makes a difference.
    pub client_wait: Duration,
    /// For one endpoint to accept a connection.
    pub connect_timeout: Duration,
    /// Longest age of an idle upstream connection that is used again.
    pub idle_timeout: Duration,
    /// A client's connection without a request is closed after this long, at the latest after twice as long. A client of
    /// HTTP/2 is told so; one that does not leave has as long again.
    pub client_idle_timeout: Duration,
    /// Connections of all clients to this process; more are closed at once. `Proxy::start` lowers it to half of what the
    /// process may open.
    pub connections: usize,
    /// Connections of one client, which is a pod: its address. `Proxy::start` lowers it to a quarter.
    pub connections_per_client: usize,
    /// Largest head of a request or an answer, in bytes; more gets 431.
    pub head_bytes: usize,
    /// Body bytes kept so that a request can be repeated on another connection.
    pub replay_bytes: usize,
    /// Bounds of shadows.
    pub shadow: ShadowLimits,
}

impl Limits {
    /// How often a connection is looked at for what nobody tells it: a stalled head, a service that is gone.
    pub(crate) fn check_every(&self) -> Duration {
        (self.header_timeout / 4).max(Duration::from_millis(1))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sniff_timeout: Duration::from_secs(1),
            header_timeout: Duration::from_secs(10),
            client_wait: Duration::from_millis(500),
            // One lost SYN is sent again after 1 s, so that a single loss is not a failure.
            connect_timeout: Duration::from_millis(2_500),
            idle_timeout: Duration::from_secs(4),
            // Envoy's default.
            client_idle_timeout: Duration::from_secs(3600),
            connections: usize::MAX,
            connections_per_client: usize::MAX,
            // Envoy's default is 60 KiB.
            head_bytes: 64 * 1024,
            replay_bytes: 64 * 1024,
            shadow: ShadowLimits::default(),
        }
    }
}

/// Workers could not be started. The operator's to mend: the address is taken, or threads are refused.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The listener could not be bound.
    #[error("cannot listen on {address}: {source}; is another proxy running on this node?")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A thread or its runtime could not be made.
    #[error("cannot start a worker: {0}")]
    Thread(io::Error),
}

/// How far a worker has to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Accept and serve.
    Serving,
    /// Serve what was accepted.
    Closed,
    /// Finish what is in flight, until then.
    Draining(Instant),
}

/// All workers of this process.
pub struct Workers {
    local_addr: SocketAddr,
    phase: watch::Sender<Phase>,
    threads: Vec<Thread>,
    started: Instant,
    accepted: Arc<AtomicU64>,
}

struct Thread {
    handle: JoinHandle<()>,
    /// Connections that were cut, when it has ended.
    ended: oneshot::Receiver<usize>,
    /// Milliseconds from `Workers::started` to its last tick.
    tick: Arc<AtomicU64>,
}

impl Workers {
    /// Binds the listeners and starts the threads; listeners are bound when this returns.
    ///
    /// # Errors
    /// The address cannot be bound or a thread cannot be started.
    pub fn start(options: Options, tables: &Arc<Tables>, metrics: &Arc<Metrics>) -> Result<Self, StartError> {
        let started = Instant::now();
        let accepted = Arc::new(AtomicU64::new(0));
        let (phase, _) = watch::channel(Phase::Serving);
        let mut address = options.listen;
        let mut threads = Vec::new();
        let sockets = Sockets::default();
        for number in 0..options.workers.max(1) {
            let bind = |source| StartError::Bind { address, source };
            let listener = listen::bind(address).map_err(bind)?;
            // With port 0 the first listener's port is everybody's.
            address = listener.local_addr().map_err(bind)?;
            let seed =
                options.seed.map_or_else(|| fastrand::u64(..), |seed| seed.wrapping_add(number as u64));
            let start = Start {
                listener,
                options: options.clone(),
                seed,
                tables: Arc::clone(tables),
                metrics: Arc::clone(metrics),
                phase: phase.subscribe(),
                sockets: sockets.clone(),
                accepted: Arc::clone(&accepted),
                tick: Arc::new(AtomicU64::new(0)),
                started,
            };
            threads.push(start.spawn(number).map_err(StartError::Thread)?);
        }
        Ok(Self { local_addr: address, phase, threads, started, accepted })
    }

    /// Where the listeners are bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// When each worker last ticked (every 100 ms while it is alive). The dead-man element beats only while all are
    /// younger than 1 s.
    pub fn ticks(&self) -> Vec<Instant> {
        let at = |thread: &Thread| self.started + Duration::from_millis(thread.tick.load(Ordering::Acquire));
        self.threads.iter().map(at).collect()
    }

    /// Connections accepted since the start.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Closes the listeners; what was accepted goes on.
    pub fn stop_accepting(&self) {
        self.phase.send_if_modified(|phase| {
            let modified = *phase == Phase::Serving;
            if modified {
                *phase = Phase::Closed;
            }
            modified
        });
    }

    /// Tells clients `Connection: close`, finishes what is in flight within `limit`, ends the threads. Returns how many
    /// connections were cut. Not cancel safe: the threads go on without anybody waiting.
    ///
    /// # Panics
    /// When a worker panicked.
    pub async fn drain(self, limit: Duration) -> usize {
        self.phase.send_replace(Phase::Draining(Instant::now() + limit));
        let mut cut = 0;
        for thread in self.threads {
            cut += thread.ended.await.unwrap_or_default();
            thread.handle.join().expect("a worker does not panic");
        }
        cut
    }
}

struct Start {
    listener: std::net::TcpListener,
    options: Options,
    seed: u64,
    tables: Arc<Tables>,
    metrics: Arc<Metrics>,
    phase: watch::Receiver<Phase>,
    sockets: Sockets,
    accepted: Arc<AtomicU64>,
    tick: Arc<AtomicU64>,
    started: Instant,
}

impl Start {
    fn spawn(self, number: usize) -> io::Result<Thread> {
        let tick = Arc::clone(&self.tick);
        let (made, is_made) = std::sync::mpsc::sync_channel(1);
        let (end, ended) = oneshot::channel();
        let run = move || {
            // Made here, because it does not leave its thread.
            let mut runtime = Builder::new_current_thread();
            let runtime = runtime.enable_all().on_thread_unpark(clock::waited);
            let runtime = match runtime.build_local(LocalOptions::default()) {
                Ok(runtime) => runtime,
                Err(error) => return made.send(Err(error)).expect("it is waited for"),
            };
            made.send(Ok(())).expect("it is waited for");
            let cut = runtime.block_on(self.run());
            drop(runtime);
            // Nobody waits when the process ends without draining.
            let _ = end.send(cut);
        };
        let handle = std::thread::Builder::new().name(format!("worker-{number}")).spawn(run)?;
        is_made.recv().expect("the thread says how it began")?;
        Ok(Thread { handle, ended, tick })
    }

    async fn run(self) -> usize {
        let listener = match TcpListener::from_std(self.listener) {
            Ok(listener) => listener,
            Err(error) => panic!("a bound listener cannot be registered: {error}"),
        };
        let Self { options, tables, metrics, sockets, seed, .. } = self;
        let worker = Worker::new(options, tables, metrics, sockets, self.phase.clone(), seed);
        let ticking = tokio::task::spawn_local(tick(Rc::clone(&worker), self.tick, self.started));
        let mut phase = self.phase;
        tokio::select! {
            biased;
            // First, so that what waits in the listener's queue is not reset when it closes.
            () = accept(&worker, listener, &self.accepted) => {}
            _ = phase.wait_for(|phase| *phase != Phase::Serving) => {}
        }
        let draining = phase.wait_for(|phase| matches!(phase, Phase::Draining(_))).await.map(|phase| *phase);
        // The sender is gone: the process ends without draining.
        let until = if let Ok(Phase::Draining(until)) = draining { until } else { Instant::now() };
        let cut = worker.drained(until).await;
        ticking.abort();
        cut
    }
}

async fn accept(worker: &Rc<Worker>, listener: TcpListener, accepted: &AtomicU64) {
    loop {
        let (stream, peer) = listen::accept(&listener).await;
        accepted.fetch_add(1, Ordering::Relaxed);
        worker.metrics.connections.inc();
        match worker.sockets.open_for(peer.ip(), &worker.limits) {
            Ok(open) => {
                worker.connections.spawn_local(connection::serve(Rc::clone(worker), stream, open, peer));
            }
            // Only the kernel could lead it to its primary, and it has given it to us.
            Err(too_many) => worker.metrics.refused(too_many.as_str()),
        }
    }
}

/// Also while draining: a worker that finishes its work is alive.
async fn tick(worker: Rc<Worker>, tick: Arc<AtomicU64>, started: Instant) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let due = interval.tick().await;
        tick.store(started.elapsed().as_millis().try_into().unwrap_or(u64::MAX), Ordering::Release);
        worker.tick(due.elapsed());
    }
}
