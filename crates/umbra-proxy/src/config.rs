//! The owner of the node's configuration.
//!
//! Takes: pushes that the push server has read. Gives: tables on every worker, then interception, then an
//! acknowledgement; in that order when a service comes, in the reverse when it goes. Never applies half of a push.
//!
//! The order of one push:
//! 1. the kernel stops giving connections of what goes (nft delete);
//! 2. services that go are disarmed: open connections keep their last routes, without mirroring;
//! 3. tables come, change and are dropped, on every worker;
//! 4. the fallback's entries: of what goes they end before its table is dropped, of what comes they are there before it
//!    is taken over;
//! 5. the kernel gives connections of what came (nft add);
//! 6. the push is answered, with what is armed.
//!
//! What is armed also changes without a push: connections do not arrive, the node's network changes, or the kernel takes
//! what it had refused. Then `unprompted` moves, and the push server has the controller ask again.

mod command;
mod shown;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use umbra_routing::{Applied, Config, Key, RefusedKey, Reply, Resource, State};

pub(crate) use command::{ApplyError, Body, Command, Push};
use shown::{dump, held, new_boot_id};

use crate::arm::{self, Armed};
use crate::fallback::Fallback;
use crate::fallback::keep;
use crate::fallback::plan::Plan;
use crate::intercept::{InterceptError, Interception, Sources};
use crate::metrics::Metrics;
use crate::reach::Intercept;
use crate::tables::Tables;

/// A controller asks for `/v1/state` each minute at the latest; after ten silent minutes a mirror's addresses may
/// belong to others (design: Node).
const SHADOWS_STOP_AFTER: Duration = Duration::from_secs(600);
/// How often the age of the configuration is looked at.
const TICK: Duration = Duration::from_secs(1);
/// What the kernel refused is tried again after this; it doubles up to the longest pause.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Between two tries, and between two looks at where the node's network lets us reach.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// Whether there is more to do.
enum Next {
    GoOn,
    End,
}

/// Why the owner ended before its time: interception cannot be kept right.
#[derive(Debug, thiserror::Error)]
#[error("connections cannot be left to others: {0}")]
pub(crate) struct OwnerError(#[from] InterceptError);

/// The owner's possessions.
pub(crate) struct Owner<I> {
    config: Config,
    tables: Arc<Tables>,
    metrics: Arc<Metrics>,
    intercept: I,
    /// The kernel's way to primaries without us, and what it was told; absent on a laptop.
    fallback: Option<(Plan, Fallback)>,
    armed: Armed,
    /// Tables that the data path cannot use.
    unusable: BTreeMap<Key, String>,
    not_armed: Vec<RefusedKey>,
    boot_id: String,
    epoch: u128,
    version: u64,
    heard: Instant,
    retry: Retry,
    signals: Signals,
}

/// What others are told.
pub(crate) struct Signals {
    /// Becomes true with the first push.
    pub(crate) ready: watch::Sender<bool>,
    /// Moves when what is armed or refused has changed without a push: the controller should ask.
    pub(crate) unprompted: watch::Sender<u64>,
}

/// When what the kernel refused is tried again, and when the node's network is looked at again.
struct Retry {
    at: Instant,
    pause: Duration,
}

impl Retry {
    /// Nothing was refused.
    fn idle(now: Instant) -> Self {
        Self { at: now + LONGEST_RETRY, pause: FIRST_RETRY }
    }

    fn refused(&mut self, now: Instant) {
        self.at = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_RETRY);
    }
}

impl<I: Intercept> Owner<I> {
    /// An owner of nothing yet.
    pub(crate) fn new(
        tables: Arc<Tables>,
        metrics: Arc<Metrics>,
        intercept: I,
        fallback: Option<(Plan, Fallback)>,
        signals: Signals,
    ) -> Self {
        Self {
            config: Config::default(),
            tables,
            metrics,
            intercept,
            fallback,
            armed: Armed::new(),
            unusable: BTreeMap::new(),
            not_armed: Vec::new(),
            boot_id: new_boot_id(),
            epoch: 0,
            version: 0,
            heard: Instant::now(),
            retry: Retry::idle(Instant::now()),
            signals,
        }
    }

    /// Serves commands until all senders are gone. A disarm is the last one.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> Result<(), OwnerError> {
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                command = commands.recv() => {
                    let Some(command) = command else { return Ok(()) };
                    if let Next::End = self.serve(command).await? {
                        return Ok(());
                    }
                }
                () = self.intercept.changed() => self.nudge(),
                _ = tick.tick() => self.tick(Instant::now()).await?,
            }
        }
    }

    async fn serve(&mut self, command: Command) -> Result<Next, OwnerError> {
        // A reply that nobody waits for changes nothing about what was done.
        match command {
            Command::Push(push, reply) => {
                let _gone = reply.send(self.push(push).await?);
            }
            Command::Heartbeat(epoch, reply) => {
                let _gone = reply.send(self.heartbeat(epoch));
            }
            Command::State(reply) => {
                let _gone = reply.send(self.state());
            }
            Command::Dump(reply) => {
                let _gone = reply.send(dump(&self.config));
            }
            Command::Disarm(reply) => {
                // Nobody will renew it for a while; what fails is in the fallback's log.
                if let Some((_, fallback)) = &self.fallback {
                    let _ = fallback.renew_all().await;
                }
                self.intercept.set(Interception::default()).await?;
                // Clients of open connections are told to close, so that few are left to be closed under them.
                self.armed.keys().for_each(|service| self.tables.disarm(service));
                let _gone = reply.send(());
                return Ok(Next::End);
            }
        }
        Ok(Next::GoOn)
    }

    /// A new leader that finds everything as it should be pushes nothing: its question alone must shut the old one out.
    fn heartbeat(&mut self, epoch: Option<u128>) -> Result<State, ApplyError> {
        if let Some(epoch) = epoch {
            self.is_not_old(epoch)?;
            self.epoch = epoch;
        }
        self.heard_of_controller();
        Ok(self.state())
    }

    fn is_not_old(&self, epoch: u128) -> Result<(), ApplyError> {
        if epoch < self.epoch {
            return Err(ApplyError::Epoch { epoch, in_force: self.epoch });
        }
        Ok(())
    }

    /// The outer error ends the process, the inner one refuses the push.
    async fn push(&mut self, push: Push) -> Result<Result<Reply, ApplyError>, OwnerError> {
        if let Err(old) = self.is_not_old(push.epoch) {
            return Ok(Err(old));
        }
        let applied = match &push.body {
            Body::Put(put) => self.config.put(put),
            Body::Patch(patch) => self.config.patch(patch),
        };
        let applied = match applied {
            Ok(applied) => applied,
            Err(error) => return Ok(Err(error.into())),
        };
        (self.epoch, self.version) = (push.epoch, push.version);
        self.bring_into_force(&applied).await?;
        self.heard_of_controller();
        self.signals.ready.send_replace(true);
        Ok(Ok(self.state()))
    }

    async fn bring_into_force(&mut self, applied: &Applied) -> Result<(), OwnerError> {
        let endpoints_only = applied.changed.iter().all(|key| matches!(key, Key::Backends(_)));
        // What is to be left alone stays so; what the kernel refused is tried again.
        let settled = self.not_armed.iter().all(|refused| self.is_left_alone(&refused.key));
        if endpoints_only && settled {
            // The most frequent push by far; it changes nothing about what is taken over.
            self.tables.apply(&self.config, applied);
            let change = self.ways(applied);
            self.fall_back(change).await;
            return Ok(());
        }
        self.unusable.retain(|key, _| !applied.changed.contains(key));
        let before = arm::decide(&self.config, &self.armed, &self.unusable, self.intercept.reach()).wanted;
        self.leave(arm::kept(&self.armed, &before)).await?;
        let mut ways = self.ways(applied);
        self.fall_back(ways.take_gone().unwrap_or_default()).await;

        let refused = self.tables.apply(&self.config, applied);
        self.unusable.extend(refused.into_iter().map(|refused| (refused.key, refused.reason)));
        self.fall_back(ways).await;
        self.retry = Retry::idle(Instant::now());
        self.settle().await
    }

    /// Decides, and has the kernel do it. Tables are as the configuration says.
    async fn settle(&mut self) -> Result<(), OwnerError> {
        let decision = arm::decide(&self.config, &self.armed, &self.unusable, self.intercept.reach());
        self.leave(arm::kept(&self.armed, &decision.wanted)).await?;
        self.not_armed = decision.not_armed;
        // Without interception clients come all the same: they are served, without copies.
        for key in self.not_armed.iter().map(|refused| &refused.key).filter(|key| self.is_left_alone(key)) {
            if let Key::Service(service) = key {
                self.tables.disarm(service);
            }
        }
        self.take_over(decision.wanted).await;
        Ok(())
    }

    fn is_left_alone(&self, key: &Key) -> bool {
        matches!(self.config.get(key), Some(Resource::Service(table)) if table.leave_alone.is_some())
    }

    /// What the push changes about the kernel's ways to primaries.
    fn ways(&mut self, applied: &Applied) -> keep::Change {
        let plan = self.fallback.as_mut().map(|(plan, _)| plan);
        plan.map(|plan| plan.change(&self.config, &applied.changed)).unwrap_or_default()
    }

    /// The fallback follows the tables. A kernel that refuses it keeps nothing else from users: the fallback says so in
    /// its log and tries again by itself.
    async fn fall_back(&self, change: keep::Change) {
        let Some((_, fallback)) = &self.fallback else { return };
        if change.is_empty() {
            return;
        }
        if let Err(error) = fallback.change(change).await {
            tracing::debug!(%error, "a push goes on without its fallback");
        }
    }

    /// Housekeeping: the configuration's age, and what can be done now that could not be before.
    async fn tick(&mut self, now: Instant) -> Result<(), OwnerError> {
        self.look_at_age(now);
        if now < self.retry.at {
            return Ok(());
        }
        self.retry.at = now + LONGEST_RETRY;
        self.intercept.look();
        let told = self.state();
        self.settle().await?;
        if self.state() != told {
            self.nudge();
        }
        Ok(())
    }

    fn nudge(&self) {
        self.signals.unprompted.send_modify(|changes| *changes += 1);
    }

    /// Nothing but `kept` is given to the listener from here on.
    async fn leave(&mut self, kept: Armed) -> Result<(), OwnerError> {
        if arm::all_targets(&kept) != arm::all_targets(&self.armed) {
            self.intercept.set(self.interception(&kept)).await?;
        }
        for service in self.armed.keys().filter(|service| !kept.contains_key(*service)) {
            self.tables.disarm(service);
        }
        self.armed = kept;
        Ok(())
    }

    /// What cannot be taken over stays with others, and is said so.
    async fn take_over(&mut self, wanted: Armed) {
        for service in wanted.keys().filter(|service| !self.armed.contains_key(*service)) {
            self.tables.arm(service);
        }
        match self.intercept.set(self.interception(&wanted)).await {
            Ok(()) => {
                self.armed = wanted;
                self.retry.pause = FIRST_RETRY;
            }
            Err(error) => {
                self.retry.refused(Instant::now());
                tracing::error!(%error, again = ?self.retry.pause, "new services are not taken over");
                let missing =
                    wanted.iter().filter(|(service, targets)| self.armed.get(*service) != Some(targets));
                self.not_armed.extend(missing.map(|(service, _)| RefusedKey {
                    key: Key::Service(service.clone()),
                    reason: format!("not armed: {error}"),
                }));
            }
        }
    }

    fn interception(&self, armed: &Armed) -> Interception {
        let (sources, wrong) = Sources::of(&self.config);
        for error in wrong {
            tracing::warn!(%error, "left out");
        }
        Interception { targets: arm::all_targets(armed), sources }
    }

    fn state(&self) -> State {
        let unusable =
            self.unusable.iter().map(|(key, why)| RefusedKey { key: key.clone(), reason: why.clone() });
        let mut not_armed = self.not_armed.clone();
        if let Some(lapse) = self.intercept.lapse() {
            // Wanted, and the kernel knows it: but just now it is left to others.
            let told: BTreeSet<Key> = not_armed.iter().map(|refused| refused.key.clone()).collect();
            let lapsed = self.armed.keys().map(|service| Key::Service(service.clone()));
            let lapsed = lapsed.filter(|key| !told.contains(key));
            not_armed.extend(lapsed.map(|key| RefusedKey { key, reason: lapse.to_owned() }));
        }
        let missing: BTreeSet<&Key> = not_armed.iter().map(|refused| &refused.key).collect();
        let in_force = self.armed.keys().map(|service| Key::Service(service.clone()));
        let armed = in_force.filter(|key| !missing.contains(key)).collect();
        State {
            boot_id: self.boot_id.clone(),
            epoch: self.epoch.to_string(),
            version: self.version.to_string(),
            digest: self.config.digest(),
            armed,
            refused: unusable.chain(not_armed).collect(),
            held: held(&self.config),
        }
    }

    fn heard_of_controller(&mut self) {
        self.heard = Instant::now();
        self.look_at_age(self.heard);
    }

    fn look_at_age(&self, now: Instant) {
        let age = now.saturating_duration_since(self.heard);
        self.metrics.config_age.set(age.as_secs_f64());
        self.tables.stop_shadows(age > SHADOWS_STOP_AFTER);
        self.tables.forget_retired(now);
    }
}

#[cfg(test)]
pub(crate) mod tests;
