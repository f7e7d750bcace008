//! Snapshots to nodes.
//!
//! Takes: the newest snapshot and the live nodes. Gives: what each node has acknowledged, and the tables that it holds
//! although the snapshot does not have them. One task per node;
//! a node that is slow, dead or wrong holds up no other, but for one thing: each request takes one of 32 places (bodies
//! are held in memory while they are sent), and a node that takes a request and never answers keeps its place until
//! the request is given up, 5 s and one more for each megabyte, after which it pauses. With 32 such nodes at once, the
//! others wait that long. Never decides what a node should have.

mod ack;
mod backoff;
mod connection;
mod node;
#[cfg(test)]
pub(crate) mod tests;
mod tls;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use umbra_routing::ServiceTable;

pub use ack::{Ack, Acks};
pub use connection::{ConnectionError, PROXY_NAME};
pub use node::PushError;
pub use tls::{Identity, IdentityError, client_config};

use crate::lead::Term;
use crate::metrics::Metrics;
use crate::publish::Published;

/// Requests in flight to all nodes together: bodies are held in memory while they are sent.
const IN_FLIGHT: usize = 32;
/// How long a stopping controller waits for requests in flight.
const FINISH: Duration = Duration::from_secs(5);

/// Live nodes by name; `None` until they are known.
pub type Nodes = Option<BTreeMap<String, Node>>;

/// A live proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The node's name.
    pub name: String,
    /// Its push API: `host:port`.
    pub address: String,
    /// Tells a proxy from an older one of the same node; the Pod's uid, or empty.
    pub uid: String,
}

/// What all nodes' tasks share.
struct Shared {
    term: Term,
    tls: Option<Arc<ClientConfig>>,
    metrics: Arc<Metrics>,
    acks: watch::Sender<Acks>,
    recovered: mpsc::Sender<ServiceTable>,
    permits: Semaphore,
}

/// How to reach nodes.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// By whose leave: nothing is sent when it is over, and a node refuses an epoch older than it has seen.
    pub term: Term,
    /// The controller's certificate and the CA; without it only loopback is spoken to.
    pub tls: Option<Arc<ClientConfig>>,
}

struct Running {
    node: Node,
    stop: CancellationToken,
}

/// Runs until `stop`, then finishes what is in flight, for at most 5 s. Tables that nodes hold go to `recovered`.
///
/// # Errors
/// A node's task has panicked.
pub async fn run(
    published: watch::Receiver<Option<Arc<Published>>>,
    mut nodes: watch::Receiver<Nodes>,
    acks: watch::Sender<Acks>,
    recovered: mpsc::Sender<ServiceTable>,
    metrics: Arc<Metrics>,
    options: Options,
    stop: CancellationToken,
) -> Result<(), JoinError> {
    let permits = Semaphore::new(IN_FLIGHT);
    let shared = Arc::new(Shared { term: options.term, tls: options.tls, metrics, acks, recovered, permits });
    let mut running = BTreeMap::new();
    let mut tasks = JoinSet::new();
    let mut nodes_open = true;
    loop {
        let live = nodes.borrow_and_update().clone().unwrap_or_default();
        follow(&live, &mut running, &mut tasks, &shared, &published, &stop);
        tokio::select! {
            () = stop.cancelled() => break,
            changed = nodes.changed(), if nodes_open => nodes_open = changed.is_ok(),
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                let name = ended?;
                // Here, since its last request has counted until now.
                if !running.contains_key(&name) {
                    shared.metrics.forget_node(&name);
                }
            }
        }
    }
    let finish = async {
        while let Some(ended) = tasks.join_next().await {
            ended?;
        }
        Ok(())
    };
    // What is not finished by then is cut: a push is applied as one or not at all.
    tokio::time::timeout(FINISH, finish).await.unwrap_or(Ok(()))
}

/// Ends the tasks of nodes that went or changed, and starts those of new ones.
fn follow(
    live: &BTreeMap<String, Node>,
    running: &mut BTreeMap<String, Running>,
    tasks: &mut JoinSet<String>,
    shared: &Arc<Shared>,
    published: &watch::Receiver<Option<Arc<Published>>>,
    stop: &CancellationToken,
) {
    running.retain(|name, task| {
        let keep = live.get(name) == Some(&task.node);
        if !keep {
            task.stop.cancel();
            shared.acks.send_modify(|acks| drop(acks.remove(name)));
        }
        keep
    });
    for (name, node) in live {
        if running.contains_key(name) {
            continue;
        }
        tracing::info!(node = %name, address = %node.address, "pushing to node");
        shared.acks.send_modify(|acks| drop(acks.insert(name.clone(), Ack::new(Instant::now()))));
        let stop = stop.child_token();
        let task = node::NodeTask::new(node.clone(), Arc::clone(shared), published.clone(), stop.clone());
        tasks.spawn(task.run());
        running.insert(name.clone(), Running { node: node.clone(), stop });
    }
}
