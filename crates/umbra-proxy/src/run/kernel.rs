//! What starts between the kernel and the owner of the configuration: the two nft tables, where this node has what they
//! take, and the owner itself.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::{ProxyError, SharedWorkers, StartError, Tasks, ticked};
use crate::arm::Reach;
use crate::config::{Command, Owner, Signals};
use crate::deadman::BEATS_WITHIN;
use crate::fallback::plan::Plan;
use crate::fallback::{Fallback, Settings, interface};
use crate::intercept::{Adopt, InterceptError, Interceptor, Setup};
use crate::metrics::Metrics;
use crate::options::{Intercept, Options};
use crate::reach::{self, Kernel, Without};
use crate::tables::Tables;

/// What the owner of the configuration shares with others.
pub(super) struct Shared {
    pub(super) tables: Arc<Tables>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) signals: Signals,
}

/// Starts the owner of the configuration; gives what holds the table of interception, where there is one. A kernel that
/// cannot is no reason to end: users are as without umbra, and each service's status says why.
pub(super) fn start(
    options: &Options,
    shared: Shared,
    workers: &SharedWorkers,
    traffic: SocketAddr,
    commands: mpsc::Receiver<Command>,
    tasks: &mut Tasks,
) -> Result<Option<Interceptor>, StartError> {
    let Intercept::On { node_addresses, adopt, cni, canary, fallback_timeout, .. } = &options.intercept
    else {
        run(shared, Without(Reach::Direct), None, commands, tasks);
        return Ok(None);
    };
    let to: Vec<SocketAddr> = node_addresses.iter().map(|ip| SocketAddr::new(*ip, traffic.port())).collect();
    let metrics = Arc::clone(&shared.metrics);
    match start_interceptor(to.clone(), *adopt, *canary, Arc::clone(workers), Arc::clone(&metrics), tasks) {
        Ok(interceptor) => {
            let kernel = Kernel::new(interceptor.clone(), Reach::intercepted(&to), *cni, *canary);
            let interface = interface::of(&to);
            let plan = Plan::new(options.node.clone(), interface.clone());
            let settings = Settings { timeout: *fallback_timeout, listeners: to, interface };
            let fallback = start_fallback(settings, &metrics, tasks).map(|fallback| (plan, fallback));
            run(shared, kernel, fallback, commands, tasks);
            Ok(Some(interceptor))
        }
        Err(error) => {
            let Some(cannot) = error.cannot() else { return Err(error.into()) };
            tracing::error!(%error, "nothing is taken over: {cannot}");
            let nowhere = Reach::Nowhere { reason: format!("not armed: {cannot}") };
            run(shared, Without(nowhere), None, commands, tasks);
            Ok(None)
        }
    }
}

fn run(
    shared: Shared,
    intercept: impl reach::Intercept + Sync,
    fallback: Option<(Plan, Fallback)>,
    commands: mpsc::Receiver<Command>,
    tasks: &mut Tasks,
) {
    let Shared { tables, metrics, signals } = shared;
    let owner = Owner::new(tables, metrics, intercept, fallback, signals);
    tasks.spawn(async move { Ok(owner.run(commands).await.map(|()| "owner")?) });
}

fn start_interceptor(
    listeners: Vec<SocketAddr>,
    adopt: Adopt,
    canary: Option<SocketAddr>,
    workers: SharedWorkers,
    metrics: Arc<Metrics>,
    tasks: &mut Tasks,
) -> Result<Interceptor, InterceptError> {
    let alive = Box::new(move || ticked(&workers, BEATS_WITHIN));
    let (interceptor, thread) = Interceptor::start(Setup { listeners, adopt, canary, alive, metrics })?;
    tasks.spawn_blocking(move || match thread.join() {
        Ok(result) => Ok(result.map(|()| "interception")?),
        Err(_) => Err(ProxyError::Task("interception panicked".into())),
    });
    Ok(interceptor)
}

/// Without one the proxy goes on: users are better off with it.
fn start_fallback(settings: Settings, metrics: &Arc<Metrics>, tasks: &mut Tasks) -> Option<Fallback> {
    match Fallback::start(settings, Arc::clone(metrics)) {
        Ok(started) => {
            if let Some(unheld) = started.unheld {
                metrics.interception().dead(unheld);
            }
            let thread = started.thread;
            tasks.spawn_blocking(move || match thread.join() {
                Ok(()) => Ok("the fallback"),
                Err(_) => Err(ProxyError::Task("the fallback panicked".into())),
            });
            Some(started.fallback)
        }
        Err(error) => {
            tracing::error!(%error, "a crash of this process would leave users to kube-proxy");
            metrics.kernel.failing.set(1);
            None
        }
    }
}
