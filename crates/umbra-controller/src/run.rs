//! Puts the stops together for a cluster, and takes them apart in order.

use std::sync::Arc;
use std::time::SystemTime;

use k8s_openapi::api::core::v1::Secret;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tokio::sync::{mpsc, watch as value};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::args::{Args, Foreign};
use crate::metrics::Metrics;
use crate::push::{self, IdentityError, client_config};
use crate::trust::{self, TrustError, Trusted};
use crate::watch::{self, KINDS, Sink};
use crate::{Controller, Failure, INPUT_QUEUE, Options, admin, lead, status};

/// Where umbra's Secrets are.
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
    /// A flag that asks for what is not there.
    #[error("--leader-elect is not there yet: run one replica, with --leader-elect=false")]
    LeaderElect,
}

/// Runs until `stop`, then stops in order: watches and status, pushes in flight (at most 5 s), the rest.
///
/// # Errors
/// What it needs is not there, or one of its tasks has died.
pub async fn run(args: Args, stop: CancellationToken) -> Result<(), RunError> {
    if args.leader_elect {
        return Err(RunError::LeaderElect);
    }
    let metrics = Arc::new(Metrics::default());
    let (missing, missing_kinds) = value::channel(KINDS.into_iter().collect());
    let listener = admin::bind(args.metrics_listen).await.map_err(RunError::Admin)?;
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "metrics and health");
    }
    let served = CancellationToken::new();
    let mut admin = tokio::spawn(admin::serve(listener, Arc::clone(&metrics), missing_kinds, served.clone()));
    let begin = Begin::new(&args, &metrics);
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
    push: push::Options,
}

impl Begin {
    async fn new(args: &Args, metrics: &Metrics) -> Result<Self, RunError> {
        let client = client(args).await?;
        let epoch = lead::alone::epoch(&client).await?;
        let trusted = trusted(args, &client).await?;
        if let Some(Trusted { identity, proxy }) = &trusted {
            trust::record_expiry(metrics, "ca", &identity.ca);
            trust::record_expiry(metrics, "controller", &identity.certificate);
            trust::record_expiry(metrics, "proxy", proxy);
        }
        let tls = trusted.map(|trusted| client_config(&trusted.identity)).transpose()?;
        tracing::info!(epoch, "started");
        Ok(Self { client, push: push::Options { epoch, tls } })
    }

    async fn run(
        self,
        args: &Args,
        missing: Arc<value::Sender<watch::Missing>>,
        metrics: &Arc<Metrics>,
        stop: &CancellationToken,
        admin: &mut tokio::task::JoinHandle<std::io::Result<()>>,
    ) -> Result<(), RunError> {
        let (inputs, taken) = mpsc::channel(INPUT_QUEUE);
        let given = args.nodes();
        let (nodes, live) = value::channel((!given.is_empty()).then_some(given));
        let edge = CancellationToken::new();
        let mut tasks = JoinSet::new();
        watch::start(&self.client, &Sink { inputs, missing, stop: edge.clone() }, &mut tasks);
        if args.proxy.is_empty() {
            tasks.spawn(watch::proxies(self.client.clone(), nodes, edge.clone()));
        }
        let foreign_virtual_services = args.foreign_virtualservices == Foreign::Istio;
        let compile = umbra_compile::Options { foreign_virtual_services };
        let options = Options { compile, push: self.push, ..Options::default() };
        let mut controller = Controller::start(options, Arc::clone(metrics), taken, live.clone());
        let sources = status::write::Sources {
            published: controller.published.clone(),
            nodes: live,
            acks: controller.acks.clone(),
        };
        let mut status =
            tokio::spawn(status::write::run(self.client, sources, Arc::clone(metrics), edge.clone()));
        let mut status_ended = false;
        let ended = tokio::select! {
            () = stop.cancelled() => Ok(()),
            failure = controller.failed() => Err(failure.into()),
            Some(task) = tasks.join_next() => Err(task.map_or_else(Failure::Died, |()| Failure::Ended).into()),
            ended = &mut status => {
                status_ended = true;
                Err(ended.and_then(|ended| ended).map_or_else(Failure::Died, |()| Failure::Ended).into())
            }
            ended = admin => Err(admin_ended(ended)),
        };
        tracing::info!("stopping");
        edge.cancel();
        controller.stop().await?;
        while let Some(task) = tasks.join_next().await {
            task.map_err(Failure::Died)?;
        }
        if !status_ended {
            status.await.and_then(|ended| ended).map_err(Failure::Died)?;
        }
        ended
    }
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

/// `None`: by hand and without certificates, good for loopback only.
async fn trusted(args: &Args, client: &Client) -> Result<Option<Trusted>, RunError> {
    let now = SystemTime::now();
    if let Some(dir) = &args.tls_dir {
        return Ok(Some(trust::files::complete(dir, now)?));
    }
    if !args.proxy.is_empty() {
        return Ok(None);
    }
    let secrets = Api::<Secret>::namespaced(client.clone(), NAMESPACE);
    Ok(Some(trust::secrets::complete(&secrets, now).await?))
}
