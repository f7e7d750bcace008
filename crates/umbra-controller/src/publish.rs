//! Events to snapshots.
//!
//! Takes: what the watches (or files) say. Gives: immutable snapshots of what nodes should have, and what is known of
//! each object, for its status. Owns the index; nothing is compiled before every kind has been listed once, and then
//! only services that an event touched. Never talks to a node.

mod gather;
mod objects;
mod publisher;
mod served;
mod sought;
#[cfg(test)]
mod tests;
mod told;
mod unreadable;

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use umbra_index::{Event, Kind};
use umbra_routing::{Key, ServiceTable, Snapshot};

pub use gather::{Window, Windows};
pub use objects::{ObjectState, Objects, Part, Undecodable};

use crate::metrics::Metrics;
use gather::Gather;
use publisher::{Change, Publisher};

/// What a source of objects says.
#[derive(Clone, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly every input is an event; a box would only cost an allocation"
)]
pub enum Input {
    /// Objects changed.
    Event(Event),
    /// An object came or changed that cannot be read; its last readable value stays in force. Its deletion is an
    /// [`Event`] as any other.
    Undecodable(Undecodable),
    /// All unreadable objects of this kind; comes before a relist of it.
    Undecodables(Kind, Vec<Undecodable>),
    /// A node holds this table: its rules are known again, if they are those of an object that is invalid now.
    Recovered(ServiceTable),
}

/// What everybody should have, and what is known of each object. Immutable.
#[derive(Clone, Debug)]
pub struct Published {
    /// For the nodes.
    pub snapshot: Snapshot,
    /// Governed services whose tables no node takes over: none of them is waited for.
    pub left_alone: Arc<BTreeSet<Key>>,
    /// For the status of each VirtualService and DestinationRule.
    pub objects: Arc<Objects>,
}

impl Published {
    /// The keys of all governed services that are published.
    pub fn services(&self) -> impl Iterator<Item = &Key> {
        self.snapshot.shared.keys().filter(|key| matches!(key, Key::Service(_)))
    }
}

/// Runs until `stop`, or until the source ends. `recovered` are tables that nodes hold.
pub async fn run(
    mut inputs: mpsc::Receiver<Input>,
    mut recovered: mpsc::Receiver<ServiceTable>,
    published: watch::Sender<Option<Arc<Published>>>,
    options: umbra_compile::Options,
    windows: Windows,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let mut pacer = Pacer {
        publisher: Publisher::new(options, windows.config.longest, metrics),
        config: Gather::new(windows.config),
        endpoints: Gather::new(windows.endpoints),
        begun: false,
    };
    loop {
        let due = pacer.due();
        let timer = tokio::time::sleep_until(due.unwrap_or_else(Instant::now));
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = timer, if due.is_some() => {
                published.send_replace(Some(Arc::new(pacer.publish())));
            }
            input = inputs.recv() => match input {
                Some(input) => pacer.take(input, &mut inputs),
                // The source has ended: what is published stays.
                None => return stop.cancelled().await,
            },
            // When nobody pushes, nobody asks nodes either.
            Some(table) = recovered.recv() => pacer.take(Input::Recovered(table), &mut inputs),
        }
    }
}

/// When to publish, and so when to compile.
struct Pacer {
    publisher: Publisher,
    config: Gather,
    endpoints: Gather,
    /// Something has been published: also nothing at all is something that a node waits for.
    begun: bool,
}

impl Pacer {
    /// Takes in `input` and what else is there already, so that one snapshot holds all of it.
    fn take(&mut self, input: Input, more: &mut mpsc::Receiver<Input>) {
        let now = Instant::now();
        let mut next = Some(input);
        while let Some(input) = next {
            match self.publisher.apply(input) {
                Change::Nothing => {}
                Change::Endpoints => self.endpoints.change(now),
                Change::Config => self.config.change(now),
            }
            next = more.try_recv().ok();
        }
        if !self.begun && self.publisher.is_complete() {
            self.config.change(now);
        }
    }

    fn due(&self) -> Option<Instant> {
        if !self.publisher.is_complete() {
            return None;
        }
        [self.config.due(), self.endpoints.due(), self.publisher.wait_ends()].into_iter().flatten().min()
    }

    fn publish(&mut self) -> Published {
        self.begun = true;
        self.config.published();
        self.endpoints.published();
        self.publisher.publish(Instant::now())
    }
}
