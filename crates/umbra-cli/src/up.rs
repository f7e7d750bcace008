//! `umbra up`: everything on one machine.
//!
//! Takes: files. Gives: a proxy that serves what they say, and what became of each object, printed. The parts are
//! those of a cluster: the controller pushes to the proxy's push API; only the source of objects ([`feed`](self)) and
//! the way connections come (by Host header) differ. Never hands the proxy anything but its options.

mod feed;
mod report;
mod screen;
mod task;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use umbra_controller::push::Node;
use umbra_controller::{Controller, Failure, INPUT_QUEUE};
use umbra_proxy::{Options, Proxy, ProxyError, StartError};

use crate::args::UpArgs;
use screen::Screen;
use task::Task;

/// Why `umbra up` does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// A path of `-f` is not there; check its spelling.
    #[error("-f {0}: no such file or folder")]
    NoSuchFile(PathBuf),
    /// An address is taken, most likely; choose another.
    #[error("the proxy cannot start: {0}")]
    Start(#[from] StartError),
    /// A fault of ours.
    #[error("the proxy has ended: {0}")]
    Proxy(#[from] ProxyError),
    /// A fault of ours.
    #[error(transparent)]
    Controller(#[from] Failure),
    /// Nobody reads what is printed any more, or signals cannot be caught.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A fault of ours.
    #[error("a task has died: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Serves until SIGTERM or SIGINT, then finishes what is in flight.
///
/// # Errors
/// See [`UpError`].
pub async fn run(args: UpArgs) -> Result<(), UpError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut up = Up::start(&args).await?;
    let ended = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        failed = up.failed() => Err(failed),
    };
    ended?;
    up.stop().await
}

/// All parts, running.
struct Up {
    proxy: Proxy,
    controller: Controller,
    feed: Task,
    report: Task,
    /// The controller's: one proxy, ours. Kept, so that the list stays.
    _nodes: watch::Sender<umbra_controller::push::Nodes>,
}

impl Up {
    async fn start(args: &UpArgs) -> Result<Self, UpError> {
        if let Some(path) = args.filename.iter().find(|path| !path.exists()) {
            return Err(UpError::NoSuchFile(path.clone()));
        }
        let proxy = Proxy::start(options(args)).await?;
        let screen = Screen::new(args.output);
        screen.started(&proxy)?;
        // The one thing the controller is told of the proxy: where to push.
        let node =
            Node { name: args.node.clone(), address: proxy.push_addr().to_string(), uid: String::new() };
        let (nodes, live) = watch::channel(Some(BTreeMap::from([(args.node.clone(), node)])));
        let (inputs, queue) = mpsc::channel(INPUT_QUEUE);
        let controller = Controller::start(controller_options(args), Arc::default(), queue, live.clone());
        let feed = feed::start(args.filename.clone(), inputs, screen);
        let report = report::start(controller.published.clone(), controller.acks.clone(), live, screen);
        Ok(Self { proxy, controller, feed, report, _nodes: nodes })
    }

    /// Returns when a part has died, never otherwise.
    async fn failed(&mut self) -> UpError {
        tokio::select! {
            error = self.proxy.failed() => error.into(),
            error = self.controller.failed() => error.into(),
            error = self.feed.failed() => error,
            error = self.report.failed() => error,
        }
    }

    /// From the source to the sink, each joined.
    async fn stop(self) -> Result<(), UpError> {
        self.feed.stop().await;
        self.report.stop().await;
        self.controller.stop().await?;
        self.proxy.stop().await?;
        Ok(())
    }
}

fn options(args: &UpArgs) -> Options {
    let mut options = Options::laptop(args.listen);
    options.node.clone_from(&args.node);
    options.metrics_listen = args.metrics_listen;
    options.admin_listen = args.admin_listen;
    options.limits.shadow.timeout = args.shadow_timeout;
    options
}

/// The proxy is as old as its controller: any epoch is the newest it has seen.
fn controller_options(args: &UpArgs) -> umbra_controller::Options {
    let compile = args.compile.options();
    umbra_controller::Options { compile, ..umbra_controller::Options::default() }
}
