//! Puts the stops together for a cluster, and takes them apart in order.

mod leading;

use std::sync::Arc;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::{mpsc, watch as value};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::args::Args;
use crate::lead::{Term, elect};
use crate::metrics::Metrics;
use crate::publish::{self, Published, Windows};
use crate::push::IdentityError;
use crate::trust::TrustError;
use crate::watch::{self, KINDS, Sink};
use crate::{Failure, INPUT_QUEUE, RECOVERED_QUEUE, admin, lead};
use leading::{Leading, Observed};

/// Where umbra's Secrets and its Lease are.
const NAMESPACE: &str = "umbra-system";

/// Why the controller has ended, or has not begun.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The file of `--kubeconfig`.
    #[error("kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// Not in a Pod, and no `--kubeconfig`.
    #[error("not in a Pod with a service account, and no --kubeconfig: {0}")]
    InCluster(#[from] kube::config::InClusterError),
    /// The kubeconfig's certificates.
    #[error("the API server's client: {0}")]
    Client(kube::Error),
    /// No epoch.
    #[error(transparent)]
    Epoch(#[from] lead::EpochError),
    /// No certificates.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Certificates that cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The port for metrics and health.
    #[error("metrics and health: {0}")]
    Admin(std::io::Error),
    /// A task has died.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// Runs until `stop`, then stops in order: watches and status, pushes in flight (at most 5 s), the rest.
///
/// # Errors
/// What it needs is not there, or one of its tasks has died.
pub async fn run(args: Args, stop: CancellationToken) -> Result<(), RunError> {
    let metrics = Arc::new(Metrics::default());
    let (missing, missing_kinds) = value::channel(KINDS.into_iter().collect());
    let listener = admin::bind(args.metrics_listen).await.map_err(RunError::Admin)?;
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "metrics and health");
    }
    let served = CancellationToken::new();
    let mut admin = tokio::spawn(admin::serve(listener, Arc::clone(&metrics), missing_kinds, served.clone()));
    let begin = Begin::new(&args);
    let ended = tokio::select! {
        () = stop.cancelled() => Ok(()),
        admin = &mut admin => return Err(admin_ended(admin)),
        begin = begin => match begin {
            Ok(begin) => begin.run(&args, Arc::new(missing), &metrics, &stop, &mut admin).await,
            Err(error) => Err(error),
        },
    };
    served.cancel();
    if !admin.is_finished() {
        admin.await.map_err(Failure::Died)?.map_err(RunError::Admin)?;
    }
    ended
}

fn admin_ended(ended: Result<std::io::Result<()>, tokio::task::JoinError>) -> RunError {
    match ended {
        Ok(Ok(())) => Failure::Ended.into(),
        Ok(Err(error)) => RunError::Admin(error),
        Err(error) => Failure::Died(error).into(),
    }
}

/// What has to be there before the first task starts.
struct Begin {
    client: Client,
    /// Of a controller that runs alone; with a Lease, terms come later.
    alone: Option<Term>,
}

impl Begin {
    async fn new(args: &Args) -> Result<Self, RunError> {
        let client = client(args).await?;
        let alone = match args.leader_elect {
            true => None,
            false => Some(Term::endless(lead::alone::epoch(&client).await?)),
        };
        tracing::info!(epoch = alone.as_ref().map(Term::epoch), "started");
        Ok(Self { client, alone })
    }

    async fn run(
        self,
        args: &Args,
        missing: Arc<value::Sender<watch::Missing>>,
        metrics: &Arc<Metrics>,
        stop: &CancellationToken,
        admin: &mut tokio::task::JoinHandle<std::io::Result<()>>,
    ) -> Result<(), RunError> {
        let edge = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let observed = self.observe(args, missing, metrics, &edge, &mut tasks);
        // Not before what is done by the term has ended is the Lease given back.
        let release = CancellationToken::new();
        let (given, terms) = value::channel(self.alone.clone());
        let ready = observed.published.clone();
        let elect = self.elect(given, ready, Arc::clone(metrics), release.clone());
        let leading =
            Leading { client: self.client, args: args.clone(), metrics: Arc::clone(metrics), observed };
        let work = leading.run(terms, edge.clone());
        tokio::pin!(elect, work);
        let mut running = Running { elect: true, work: true };
        let ended = tokio::select! {
            () = stop.cancelled() => Ok(()),
            ended = &mut elect => {
                running.elect = false;
                ended.and(Err(Failure::Ended.into()))
            }
            ended = &mut work => {
                running.work = false;
                ended.and(Err(Failure::Ended.into()))
            }
            Some(task) = tasks.join_next() => Err(task.map_or_else(Failure::Died, |()| Failure::Ended).into()),
            ended = admin => Err(admin_ended(ended)),
        };
        tracing::info!("stopping");
        edge.cancel();
        // The Lease is renewed meanwhile.
        while running.work {
            tokio::select! {
                finished = &mut work => {
                    finished?;
                    running.work = false;
                }
                _ = &mut elect, if running.elect => running.elect = false,
            }
        }
        release.cancel();
        if running.elect {
            elect.await?;
        }
        while let Some(task) = tasks.join_next().await {
            task.map_err(Failure::Died)?;
        }
        ended
    }

    /// What every replica does, leading or not: watch, index, compile, publish.
    fn observe(
        &self,
        args: &Args,
        missing: Arc<value::Sender<watch::Missing>>,
        metrics: &Arc<Metrics>,
        stop: &CancellationToken,
        tasks: &mut JoinSet<()>,
    ) -> Observed {
        let (inputs, taken) = mpsc::channel(INPUT_QUEUE);
        let given = args.nodes();
        let (nodes, live) = value::channel((!given.is_empty()).then_some(given));
        watch::start(&self.client, &Sink { inputs, missing, stop: stop.clone() }, tasks);
        if args.proxy.is_empty() {
            tasks.spawn(watch::proxies(self.client.clone(), nodes, stop.clone()));
        } else {
            // Kept: a source that ends says that the controller is stopping.
            let stop = stop.clone();
            tasks.spawn(async move {
                stop.cancelled().await;
                drop(nodes);
            });
        }
        let (publish, published) = value::channel(None);
        let (recover, recovered) = mpsc::channel(RECOVERED_QUEUE);
        let windows = Windows::default();
        let metrics = Arc::clone(metrics);
        tasks.spawn(publish::run(
            taken,
            recovered,
            publish,
            args.compile.options(),
            windows,
            metrics,
            stop.clone(),
        ));
        Observed { published, nodes: live, recover }
    }

    /// Gives terms until `release`. Alone, there is one without end.
    fn elect(
        &self,
        terms: value::Sender<Option<Term>>,
        mut ready: value::Receiver<Option<Arc<Published>>>,
        metrics: Arc<Metrics>,
        release: CancellationToken,
    ) -> impl Future<Output = Result<(), RunError>> + use<> {
        let (client, alone) = (self.client.clone(), self.alone.is_some());
        if alone {
            metrics.leader.set(1);
            metrics.terms.inc();
        }
        async move {
            if alone {
                release.cancelled().await;
                drop(terms);
                return Ok(());
            }
            // One that cannot list everything has nothing to push: it must not keep the Lease from one that can.
            let listed = ready.wait_for(Option::is_some);
            if release.run_until_cancelled(listed).await.is_none() {
                return Ok(());
            }
            Ok(elect::run(client, NAMESPACE, terms, metrics, release).await?)
        }
    }
}

/// What has not ended by itself.
struct Running {
    elect: bool,
    work: bool,
}

async fn client(args: &Args) -> Result<Client, RunError> {
    let config = match &args.kubeconfig {
        Some(file) => {
            let file = Kubeconfig::read_from(file)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        }
        None => Config::incluster()?,
    };
    Client::try_from(config).map_err(RunError::Client)
}
