//! The whole proxy: what starts, in which order, and how it ends.
//!
//! Takes: options. Gives: a running proxy, its addresses and its metrics. It serves from the first push on; whatever
//! part of it dies ends it all, and then the kernel drops the nft table.

mod kernel;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::admin::{Admin, Bounded, CONNECTIONS, Lives};
use crate::config::{Command, OwnerError, Signals};
use crate::deadman::{self, LIVES_WITHIN};
use crate::descriptors;
use crate::freed;
use crate::intercept::InterceptError;
use crate::metrics::Metrics;
use crate::options::{Intercept, Options};
use crate::push::{self, PushListener, PushMetrics, PushServer};
use crate::tables::Tables;
use crate::tls;
use crate::worker::{self, Workers};

/// Commands that wait for the owner of the configuration: one push, and questions.
const COMMANDS: usize = 16;
/// A handshake whose first packet the kernel has given to the listener ends within this (design: SIGTERM).
const BOUND_HANDSHAKES: Duration = Duration::from_secs(1);
/// Kubernetes gives 30 s; 1 s goes before, some after.
const DRAIN: Duration = Duration::from_secs(25);
/// For requests on the metrics and push ports; the sum of all three stays under Kubernetes' 30 s.
const FAREWELLS: Duration = Duration::from_secs(2);
/// How often the certificate's files are looked for.
const LOOK_FOR_TLS: Duration = Duration::from_millis(500);

/// Why the proxy does not start. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener of our own.
    #[error("{what}: cannot listen on {address}: {source}")]
    Bind {
        /// Which.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The kernel does not say how many files may be open.
    #[error("the limit of open files (RLIMIT_NOFILE) cannot be read: {0}")]
    Descriptors(std::io::Error),
    /// Options that do not go together.
    #[error("{0}")]
    Options(String),
    /// The data path.
    #[error(transparent)]
    Workers(#[from] worker::StartError),
    /// The kernel.
    #[error("interception: {0}; to run without it: --intercept=off --listen ADDRESS")]
    Intercept(#[from] InterceptError),
}

/// Why a running proxy ended.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The table cannot be kept right.
    #[error(transparent)]
    Intercept(#[from] InterceptError),
    /// Connections cannot be left to others.
    #[error("{0}")]
    Owner(String),
    /// A listener failed.
    #[error("{0}")]
    Serve(#[from] std::io::Error),
    /// A fault of ours.
    #[error("a task of the proxy ended: {0}")]
    Task(String),
}

impl From<OwnerError> for ProxyError {
    fn from(error: OwnerError) -> Self {
        Self::Owner(error.to_string())
    }
}

type Tasks = JoinSet<Result<&'static str, ProxyError>>;
type SharedWorkers = Arc<Mutex<Option<Workers>>>;

/// A running proxy. Dropping it ends it at once; [`Proxy::stop`] ends it well.
pub struct Proxy {
    traffic: SocketAddr,
    push: SocketAddr,
    metrics_at: SocketAddr,
    admin: SocketAddr,
    metrics: Arc<Metrics>,
    workers: SharedWorkers,
    owner: mpsc::Sender<Command>,
    intercepted: bool,
    stopping: CancellationToken,
    tasks: Tasks,
}

impl Proxy {
    /// Binds everything, makes the nft table, starts all threads and tasks. Needs a tokio runtime with time and I/O.
    /// When it returns, pushes are accepted (with TLS: as soon as the certificates are there).
    ///
    /// # Errors
    /// An address is taken, options do not fit, or the kernel does not let us intercept.
    pub async fn start(mut options: Options) -> Result<Self, StartError> {
        options.check().map_err(StartError::Options)?;
        freed::keep_no_more();
        options.limits.share(descriptors::raise().map_err(StartError::Descriptors)?);
        let push_metrics = PushMetrics::default();
        let metrics = Metrics::with(|registry| push_metrics.register(registry));
        let tables = Tables::new(Arc::clone(&metrics));
        let push_listener = bind("push", options.push_listen).await?;
        let metrics_listener = bind("metrics", options.metrics_listen).await?;
        let admin_listener = bind("admin", options.admin_listen).await?;
        let addresses = [local(&push_listener)?, local(&metrics_listener)?, local(&admin_listener)?];
        // The listener first, then the table: no connection is given to a port that nobody holds.
        let workers = Workers::start(options.worker_options(), &tables, &metrics)?;
        let traffic = workers.local_addr();
        let workers: SharedWorkers = Arc::new(Mutex::new(Some(workers)));

        let mut tasks = Tasks::new();
        let (owner, commands) = mpsc::channel(COMMANDS);
        let (ready_sender, ready) = watch::channel(false);
        let (unprompted_sender, unprompted) = watch::channel(0);
        let shared = kernel::Shared {
            tables,
            metrics: Arc::clone(&metrics),
            signals: Signals { ready: ready_sender, unprompted: unprompted_sender },
        };
        let interceptor = kernel::start(&options, shared, &workers, traffic, commands, &mut tasks)?;
        let admin = Admin {
            metrics: Arc::clone(&metrics),
            lives: lives(Arc::clone(&workers)),
            ready,
            owner: owner.clone(),
            interceptor,
            log_filter: options.log_filter.clone(),
        };
        let stopping = CancellationToken::new();
        tasks.spawn(serve(metrics_listener, admin.clone().public(), stopping.clone()));
        tasks.spawn(serve(admin_listener, admin.local(), stopping.clone()));
        let server = PushServer::new(owner.clone(), push_metrics.clone());
        let pushes =
            Pushes { listener: push_listener, tls_dir: options.tls_dir, metrics: push_metrics, unprompted };
        tasks.spawn(serve_pushes(pushes, server, stopping.clone()));
        tasks.spawn(give_memory_back(stopping.clone()));
        let [push, metrics_at, admin] = addresses;
        tracing::info!(node = options.node, %traffic, %push, metrics = %metrics_at, %admin, "started");
        let intercepted = matches!(options.intercept, Intercept::On { .. });
        Ok(Self { traffic, push, metrics_at, admin, metrics, workers, owner, intercepted, stopping, tasks })
    }

    /// Where pods' connections arrive.
    pub fn traffic_addr(&self) -> SocketAddr {
        self.traffic
    }

    /// Where the controller pushes.
    pub fn push_addr(&self) -> SocketAddr {
        self.push
    }

    /// Where metrics and health are.
    pub fn metrics_addr(&self) -> SocketAddr {
        self.metrics_at
    }

    /// Where administration is.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// What `/metrics` says.
    pub fn metrics_text(&self) -> String {
        self.metrics.encode()
    }

    /// Returns when a part of the proxy has died; the rest should be stopped then. Cancel safe.
    pub async fn failed(&mut self) -> ProxyError {
        match self.tasks.join_next().await {
            Some(ended) => ended_with(ended),
            None => ProxyError::Task("none is left".into()),
        }
    }

    /// Ends well: leaves new connections to others, serves those on their way, finishes what is in flight within
    /// 25 s, joins everything. Returns how many connections were cut. Not cancel safe.
    ///
    /// # Errors
    /// A part of the proxy had died.
    pub async fn stop(mut self) -> Result<usize, ProxyError> {
        let (reply, disarmed) = oneshot::channel();
        // The owner may be dead already; then its error is what we return.
        if self.owner.send(Command::Disarm(reply)).await.is_ok() && disarmed.await.is_ok() && self.intercepted
        {
            tokio::time::sleep(BOUND_HANDSHAKES).await;
        }
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut cut = 0;
        if let Some(workers) = workers {
            workers.stop_accepting();
            cut = workers.drain(DRAIN).await;
        }
        self.stopping.cancel();
        drop(self.owner);
        match tokio::time::timeout(FAREWELLS, joined(&mut self.tasks)).await {
            Ok(result) => result?,
            // Somebody on the metrics or push port is in the midst of a request; they are cut.
            Err(_) => self.tasks.shutdown().await,
        }
        Ok(cut)
    }
}

async fn joined(tasks: &mut Tasks) -> Result<(), ProxyError> {
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(Ok(_)) => {}
            ended => return Err(ended_with(ended)),
        }
    }
    Ok(())
}

fn ended_with(ended: Result<Result<&'static str, ProxyError>, JoinError>) -> ProxyError {
    match ended {
        Ok(Ok(task)) => ProxyError::Task(format!("{task}, without an error")),
        Ok(Err(error)) => error,
        Err(error) => ProxyError::Task(error.to_string()),
    }
}

fn lives(workers: SharedWorkers) -> Lives {
    Arc::new(move || ticked(&workers, LIVES_WITHIN))
}

/// Workers that were taken away to be drained are alive: interception has ended, and draining has its own limit.
fn ticked(workers: &SharedWorkers, limit: Duration) -> bool {
    let workers = workers.lock().unwrap_or_else(PoisonError::into_inner);
    workers.as_ref().is_none_or(|workers| deadman::all_ticked(workers.ticks(), Instant::now(), limit))
}

async fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Bind { what, address, source })
}

fn local(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|error| StartError::Options(error.to_string()))
}

async fn serve(
    listener: TcpListener,
    router: Router,
    stopping: CancellationToken,
) -> Result<&'static str, ProxyError> {
    let listener = Bounded::new(listener, CONNECTIONS);
    axum::serve(listener, router).with_graceful_shutdown(stopping.cancelled_owned()).await?;
    Ok("metrics and administration")
}

async fn give_memory_back(stopping: CancellationToken) -> Result<&'static str, ProxyError> {
    stopping.run_until_cancelled(freed::give_back()).await;
    Ok("memory")
}

/// What the push port is served with.
struct Pushes {
    listener: TcpListener,
    tls_dir: Option<PathBuf>,
    metrics: PushMetrics,
    unprompted: watch::Receiver<u64>,
}

async fn serve_pushes(
    pushes: Pushes,
    server: PushServer,
    stopping: CancellationToken,
) -> Result<&'static str, ProxyError> {
    let tls = match &pushes.tls_dir {
        Some(dir) => match stopping.run_until_cancelled(certificates(dir)).await {
            Some(tls) => Some(tls),
            None => return Ok("push"),
        },
        None => None,
    };
    let listener = PushListener::new(pushes.listener, tls, pushes.metrics);
    push::serve(listener, &server.router(), pushes.unprompted, stopping).await;
    Ok("push")
}

/// Waits for the controller to write the files, saying once for each reason what is missing.
async fn certificates(dir: &Path) -> Arc<ServerConfig> {
    let mut said = String::new();
    loop {
        match tls::load(dir) {
            Ok(tls) => return tls,
            Err(error) => {
                let text = error.to_string();
                if text != said {
                    tracing::warn!(error = text, "no pushes until the certificates are there");
                    said = text;
                }
            }
        }
        tokio::time::sleep(LOOK_FOR_TLS).await;
    }
}
