//! The API server's objects to inputs.
//!
//! Takes: one watch per kind. Gives: [`Input`]s, a relist as one; and the live proxies. Each object is reduced to what
//! umbra uses as it is decoded; one that cannot be decoded is reported and skipped, it stops nobody else's. Never
//! acts on half a list, and never decides what objects mean.

mod proxies;

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use umbra_api::{
    DestinationRule, EndpointSlice, Guarded, NetworkPolicy, Node, Pod, Service, Undecodable, VirtualService,
    Watchable, Watched, opened,
};
use umbra_compile::ObjectRef;
use umbra_index::{Change, Event, Kind};

use crate::publish::{self, Input};
pub use proxies::proxies;

/// Kinds that have not been listed yet.
pub type Missing = BTreeSet<&'static str>;

/// The channels all watches share.
#[derive(Clone)]
pub struct Sink {
    /// Where inputs go.
    pub inputs: mpsc::Sender<Input>,
    /// Which kinds are missing; starts with [`KINDS`].
    pub missing: Arc<watch::Sender<Missing>>,
    /// Ends every watch.
    pub stop: CancellationToken,
}

/// Every kind that is watched.
pub const KINDS: [&str; 7] =
    ["VirtualService", "DestinationRule", "Service", "EndpointSlice", "Pod", "Node", "NetworkPolicy"];

/// Starts one task per kind.
pub fn start(client: &Client, sink: &Sink, tasks: &mut JoinSet<()>) {
    let any = watcher::Config::default;
    follow::<VirtualService>(client, any(), sink, Event::VirtualService, tasks);
    follow::<DestinationRule>(client, any(), sink, Event::DestinationRule, tasks);
    follow::<Service>(client, any(), sink, Event::Service, tasks);
    let of_services = any().labels("kubernetes.io/service-name");
    follow::<EndpointSlice>(client, of_services, sink, Event::EndpointSlice, tasks);
    follow::<Pod>(client, any(), sink, Event::Pod, tasks);
    follow::<Node>(client, any(), sink, Event::Node, tasks);
    follow::<NetworkPolicy>(client, any(), sink, Event::NetworkPolicy, tasks);
}

fn follow<T: Watchable + Send>(
    client: &Client,
    config: watcher::Config,
    sink: &Sink,
    event: fn(Change<T>) -> Event,
    tasks: &mut JoinSet<()>,
) where
    Watched<T>: kube::Resource<DynamicType = ()>,
{
    let api = Api::<Guarded<T>>::all(client.clone());
    let sink = sink.clone();
    tasks.spawn(async move {
        let stop = sink.stop.clone();
        let mut feed = Feed { sink, event, listed: Vec::new(), undecodable: Vec::new() };
        let mut events = watcher(api, config).default_backoff().boxed();
        let run = async {
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => feed.take(event).await,
                    Err(error) => tracing::warn!(kind = T::KIND, %error, "watch interrupted"),
                }
            }
        };
        // Nothing is half done when this is cut: the index has whole events only.
        tokio::select! {
            () = stop.cancelled() => {}
            () = run => {}
        }
    });
}

struct Feed<T> {
    sink: Sink,
    event: fn(Change<T>) -> Event,
    /// A list in progress.
    listed: Vec<T>,
    undecodable: Vec<publish::Undecodable>,
}

impl<T: Watchable> Feed<T> {
    async fn take(&mut self, event: watcher::Event<Guarded<T>>) {
        match event {
            watcher::Event::Init => {
                self.listed.clear();
                self.undecodable.clear();
            }
            watcher::Event::InitApply(object) => match opened(object) {
                Ok(object) => self.listed.push(object),
                Err(unread) => self.undecodable.extend(reported(unread)),
            },
            watcher::Event::InitDone => self.relist().await,
            watcher::Event::Apply(object) => match opened(object) {
                Ok(object) => self.send(Change::Apply(object)).await,
                Err(unread) => {
                    if let Some(unread) = reported(unread) {
                        self.input(Input::Undecodable(unread)).await;
                    }
                }
            },
            watcher::Event::Delete(object) => {
                let key = match opened(object) {
                    Ok(object) => object.metadata().key(),
                    Err(unread) => unread.key,
                };
                self.send(Change::Delete(key)).await;
            }
        }
    }

    async fn relist(&mut self) {
        let unread = std::mem::take(&mut self.undecodable);
        if let Some(kind) = rule_kind(T::KIND) {
            self.input(Input::Undecodables(kind, unread)).await;
        }
        let all = std::mem::take(&mut self.listed);
        self.send(Change::Relist(all)).await;
        self.sink.missing.send_if_modified(|missing| missing.remove(T::KIND));
    }

    async fn send(&self, change: Change<T>) {
        self.input(Input::Event((self.event)(change))).await;
    }

    async fn input(&self, input: Input) {
        // The publisher ends only with the process.
        drop(self.sink.inputs.send(input).await);
    }
}

/// The authors of rules are told by their status, the owners of other objects by the log.
fn reported(unread: Undecodable) -> Option<publish::Undecodable> {
    tracing::warn!(error = %unread, "object skipped");
    let kind = rule_kind(unread.kind)?;
    let object = ObjectRef { kind, key: unread.key, uid: unread.uid, generation: unread.generation };
    Some(publish::Undecodable { object, error: unread.error })
}

fn rule_kind(kind: &str) -> Option<Kind> {
    match kind {
        "VirtualService" => Some(Kind::VirtualService),
        "DestinationRule" => Some(Kind::DestinationRule),
        _ => None,
    }
}
