//! What became of each object: the same conditions that a cluster's objects get in their status, printed when they
//! change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use umbra_controller::publish::Published;
use umbra_controller::push::{Acks, Nodes};
use umbra_controller::status::{self, Wanted};
use umbra_index::ObjectName;

use super::UpError;
use super::screen::Screen;
use super::task::Task;

/// Conditions that time alone may change (a node's silence) are computed again this often.
const PASSING: Duration = Duration::from_secs(1);

type Shown = BTreeMap<ObjectName, [Wanted; 3]>;

struct Sources {
    published: watch::Receiver<Option<Arc<Published>>>,
    acks: watch::Receiver<Acks>,
    nodes: watch::Receiver<Nodes>,
    started: Instant,
}

/// The task that prints conditions.
pub(super) fn start(
    published: watch::Receiver<Option<Arc<Published>>>,
    acks: watch::Receiver<Acks>,
    nodes: watch::Receiver<Nodes>,
    screen: Screen,
) -> Task {
    Task::start(run(Sources { published, acks, nodes, started: Instant::now() }, screen))
}

/// Ends when the controller has stopped.
async fn run(mut sources: Sources, screen: Screen) -> Result<(), UpError> {
    let mut shown = Shown::new();
    loop {
        let now = sources.conditions();
        for (object, conditions) in now.iter().filter(|(object, is)| shown.get(*object) != Some(*is)) {
            screen.object(object, conditions)?;
        }
        for object in shown.keys().filter(|object| !now.contains_key(*object)) {
            screen.gone(object)?;
        }
        let passing = now.values().flatten().any(Wanted::is_passing);
        shown = now;
        let alive = tokio::select! {
            changed = sources.published.changed() => changed.is_ok(),
            changed = sources.acks.changed() => changed.is_ok(),
            () = sleep(PASSING), if passing => true,
        };
        if !alive {
            return Ok(());
        }
    }
}

impl Sources {
    fn conditions(&mut self) -> Shown {
        let acks = self.acks.borrow_and_update();
        let nodes = self.nodes.borrow_and_update();
        let published = self.published.borrow_and_update();
        let world = status::World { nodes: &nodes, acks: &acks, started: self.started, now: Instant::now() };
        let objects = published.iter().flat_map(|published| published.objects.iter());
        objects.map(|(name, state)| (name.clone(), status::conditions(state, &world))).collect()
    }
}
