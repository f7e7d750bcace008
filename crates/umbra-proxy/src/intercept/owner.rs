//! The thread that owns the table: commands and beats.
//!
//! Takes: commands, and each second a look at the workers and at the kernel's counters. Gives: beats, what is counted,
//! and whether connections arrive. Never takes longer over anything than the dead-man's time allows.

use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::mpsc::Receiver;
use tokio::sync::{oneshot, watch};

use super::blocked::{Verdict, Watch};
use super::lapses::{self, Broken, Lapses};
use super::sets::Sets;
use super::{
    Adopt, BeatError, Command, InterceptError, Interception, NetlinkError, Setup, canary, ruleset, unseen,
};
use crate::metrics::{KernelCounts, LapseReason};
use crate::nft::beat::Beats;
use crate::nft::netlink::Netlink;

/// How often the dead-man element is renewed (spec/interception.md 3), by a packet: `nft::beat`.
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// Beats that may fail in a row. The rules work for three seconds after one; from then on connections pass by, and a
/// kernel that still refuses is not one whose table can be kept right.
const FAILED_BEATS: u32 = 3;

/// Looks at the canary every so many beats: a node's network changes its kind when somebody replaces the CNI.
const BEATS_A_CANARY: u32 = 60;

/// What the thread tells.
pub(super) struct Say {
    /// Nothing is taken over, or only on trial.
    pub(super) blocked: watch::Sender<bool>,
    /// The canary leaves under another address.
    pub(super) hidden: watch::Sender<bool>,
}

/// What the thread holds.
pub(super) struct Owner {
    setup: Setup,
    sets: Sets,
    beats: Beats,
    /// What is to be taken over, while nothing stands against it.
    wanted: Interception,
    watch: Watch,
    /// Since when the watch has not been content.
    blocked_since: Option<Instant>,
    say: Say,
    lapses: Lapses,
    counts: KernelCounts,
    last_beat: Instant,
    /// In a row.
    failed_beats: u32,
    /// Beats since the last look at the canary.
    since_canary: u32,
}

impl Owner {
    /// An owner of a table that takes over nothing, and that has been beaten for just now.
    pub(super) fn new((netlink, beats): (Netlink, Beats), setup: Setup, say: Say) -> Self {
        Self {
            setup,
            sets: Sets::new(netlink),
            beats,
            wanted: Interception::default(),
            watch: Watch::new(),
            blocked_since: None,
            say,
            lapses: Lapses::default(),
            counts: KernelCounts::default(),
            last_beat: Instant::now(),
            failed_beats: 0,
            since_canary: 0,
        }
    }

    /// Serves until the last handle is gone.
    pub(super) fn run(mut self, mut inbox: Receiver<Command>, clock: &Runtime) -> Result<(), InterceptError> {
        let mut beat_at = Instant::now() + BEAT_EVERY;
        loop {
            let now = Instant::now();
            // First, so that commands, however many, never keep it from beating.
            if now >= beat_at {
                beat_at = now + BEAT_EVERY;
                self.count_lapses(now);
                self.beat()?;
                self.look(now)?;
                self.look_at_canary();
            }
            let next = async { tokio::time::timeout_at(beat_at.into(), inbox.recv()).await };
            match clock.block_on(next) {
                Ok(Some(Command::Set(wanted, reply))) => self.set_and_reply(wanted, reply)?,
                Ok(Some(Command::Count(reply))) => {
                    // The asker may have gone; that is no fault of the table.
                    let _gone = reply.send(self.sets.netlink.counter(ruleset::TABLE, ruleset::INTERCEPTED));
                }
                Ok(None) => return Ok(()),
                Err(_) => {}
            }
        }
    }

    fn beat(&mut self) -> Result<(), BeatError> {
        if !(self.setup.alive)() {
            tracing::warn!(
                "a worker has not ticked for a second: no beat; after three, the kernel lets connections pass"
            );
            return Ok(());
        }
        let mut beaten = self.beats.beat(&ruleset::LIVING);
        if beaten.is_ok() {
            self.last_beat = Instant::now();
        }
        // Nobody is made to connect anew for a listener that may not be reached.
        if self.setup.adopt == Adopt::Reset && self.watch.is_armed() {
            beaten = beaten.and(self.beats.beat(&ruleset::ADOPTING));
        }
        tolerated(&mut self.failed_beats, beaten)
    }

    fn count_lapses(&mut self, now: Instant) {
        let blocked = self.blocked_since.map(|since| Broken { reason: LapseReason::Blocked, since });
        let broken = blocked.or_else(|| lapses::hung(now, self.last_beat, ruleset::ALIVE_FOR));
        let armed = !self.wanted.targets.is_empty();
        self.lapses.look(now, broken, armed, self.setup.metrics.interception());
    }

    /// Reads the kernel's counters, and leaves connections to others when they do not arrive.
    fn look(&mut self, now: Instant) -> Result<(), InterceptError> {
        let counts = match self.read() {
            Ok(counts) => counts,
            Err(error) => {
                tracing::warn!(%error, "the kernel's counters cannot be read; tried again in a second");
                return Ok(());
            }
        };
        self.setup.metrics.interception().counted(self.counts, counts);
        self.counts = counts;
        match self.watch.look(now, counts.given, counts.arrived) {
            Verdict::GoOn if self.watch.is_armed() && self.blocked_since.is_some() => self.report_armed(),
            Verdict::GoOn => {}
            Verdict::Leave => {
                tracing::error!(
                    "connections given to the listener do not arrive: something on this node drops them (an INPUT \
                     firewall); they are left to others until the next trial"
                );
                self.blocked_since.get_or_insert(now);
                self.sets.bring_to(&self.effective())?;
                self.say.blocked.send_replace(true);
            }
            Verdict::Try => {
                tracing::info!("taking connections over again, to see whether they arrive");
                if let Err(error) = self.sets.bring_to(&self.effective()) {
                    // Nothing arrives this way either, and the next trial is sure to come.
                    tracing::warn!(%error, "not taken over");
                }
            }
            Verdict::Passed => self.report_armed(),
        }
        Ok(())
    }

    fn look_at_canary(&mut self) {
        self.since_canary += 1;
        let Some(canary) = self.setup.canary.filter(|_| self.since_canary >= BEATS_A_CANARY) else { return };
        self.since_canary = 0;
        match canary::is_hidden(&mut self.sets.netlink, canary) {
            Ok(Some(hidden)) => drop(self.say.hidden.send_replace(hidden)),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "the canary's counter cannot be read; tried again in a minute")
            }
        }
    }

    /// Says so once the kernel has all of it, which a trial may have failed to bring about.
    fn report_armed(&mut self) {
        match self.sets.bring_to(&self.effective()) {
            Ok(()) => {
                tracing::info!("connections arrive, or nothing says that they do not: taken over again");
                self.blocked_since = None;
                self.say.blocked.send_replace(false);
            }
            Err(error) => tracing::warn!(%error, "not taken over yet; tried again in a second"),
        }
    }

    /// What arrived first: it never counts a connection that what was given lacks.
    fn read(&mut self) -> Result<KernelCounts, NetlinkError> {
        let mut counter = |name| self.sets.netlink.counter(ruleset::TABLE, name);
        let arrived = counter(ruleset::ARRIVED)?;
        let given = counter(ruleset::INTERCEPTED)?;
        Ok(KernelCounts {
            given,
            arrived,
            unseen: counter(unseen::UNSEEN)?,
            unlisted: counter(unseen::UNLISTED)?,
        })
    }

    /// What the kernel should have now.
    fn effective(&self) -> Interception {
        let mut wanted = self.wanted.clone();
        if self.watch.is_blocked() {
            wanted.targets.clear();
        }
        wanted
    }

    /// A change that only adds may fail: nothing is worse than before. One that takes away must not.
    fn set_and_reply(
        &mut self,
        wanted: Interception,
        reply: oneshot::Sender<Result<(), NetlinkError>>,
    ) -> Result<(), InterceptError> {
        let before = std::mem::replace(&mut self.wanted, wanted);
        let effective = self.effective();
        let only_adds = self.sets.only_gains(&effective);
        match self.sets.bring_to(&effective) {
            Err(error) if !only_adds => Err(error.into()),
            result => {
                if result.is_err() {
                    self.wanted = before;
                }
                // The asker may have gone; what was done stays done.
                let _gone = reply.send(result);
                Ok(())
            }
        }
    }
}

/// A beat that fails is tried again the next second; too many in a row end the thread.
fn tolerated(failed: &mut u32, beaten: Result<(), BeatError>) -> Result<(), BeatError> {
    let Err(error) = beaten else {
        *failed = 0;
        return Ok(());
    };
    *failed += 1;
    if *failed >= FAILED_BEATS {
        return Err(error);
    }
    tracing::warn!(%error, "a beat failed; it is tried again in a second");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_beat_is_tried_again_and_three_in_a_row_are_the_end() {
        let mut failed = 0;
        let mut beat = |result| tolerated(&mut failed, result).is_ok();
        let unheard = || Err(BeatError::Unheard("alive"));
        assert!(beat(unheard()) && beat(unheard()));
        assert!(beat(Ok(())), "and forgotten");
        assert!(beat(unheard()) && beat(unheard()));
        assert!(!beat(unheard()));
    }
}
