//! Who leads: what a Lease that was read means, and what to write into it.
//!
//! Takes: the Lease as last read, the outcome of writes, and the time. Gives: what to write next, and until when this
//! replica leads. Never does I/O, and never compares clocks of two machines: that somebody else's Lease has run out is
//! judged by how long *we* have not seen it change.

use std::time::Duration;

use tokio::time::Instant;

/// So long a Lease that nobody renews is its holder's.
pub const DURATION: Duration = Duration::from_secs(15);
/// So long a leader leads after the start of its last renewal. The third part of [`DURATION`] between the two is for
/// clocks that run at different speeds and for what is in flight.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks or renewals: five fit into the deadline.
pub const RETRY: Duration = Duration::from_secs(2);

/// What a Lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Nobody's when empty.
    pub holder: String,
    /// The holder's clock at its last renewal: compared for being different, never read.
    pub renewed: String,
    /// How often the holder has changed.
    pub transitions: i32,
}

/// What to do with the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is somebody else's.
    StandBy,
    /// There is none: make it.
    Create,
    /// It is nobody's, has run out, or is ours from before: take it.
    Take,
    /// It is ours, and we lead.
    Renew,
}

/// Why a term has ended.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Lost {
    /// No renewal in time. The API server's fault, the network's, or this process stood still.
    #[error("the Lease could not be renewed for 10 s")]
    Late,
    /// Another replica holds it: it has not seen our renewals.
    #[error("the Lease is held by {0}")]
    Held(String),
    /// Somebody has emptied it.
    #[error("the Lease has no holder any more")]
    Emptied,
    /// Somebody has deleted it.
    #[error("the Lease has been deleted")]
    Deleted,
    /// This replica is stopping.
    #[error("stopping")]
    Released,
}

/// One replica's part in the election.
#[derive(Debug)]
pub struct Election {
    identity: String,
    seen: Option<Seen>,
    /// The start of the last renewal, while this replica leads.
    renewed: Option<Instant>,
}

#[derive(Debug)]
struct Seen {
    record: Record,
    /// When we saw it change last.
    changed: Instant,
}

impl Election {
    /// Nothing seen yet. No two replicas may have the same `identity`.
    pub fn new(identity: String) -> Self {
        Self { identity, seen: None, renewed: None }
    }

    /// This replica's name in the Lease.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The Lease as it has been read, `None` when there is none; `now` is not before the answer came. Says why a term
    /// has ended by it.
    pub fn observe(&mut self, record: Option<Record>, now: Instant) -> Option<Lost> {
        let Some(record) = record else {
            self.seen = None;
            return self.lose(Lost::Deleted);
        };
        let holder = record.holder.clone();
        if self.seen.as_ref().is_none_or(|seen| seen.record != record) {
            self.seen = Some(Seen { record, changed: now });
        }
        match holder {
            ours if ours == self.identity => None,
            nobody if nobody.is_empty() => self.lose(Lost::Emptied),
            other => self.lose(Lost::Held(other)),
        }
    }

    /// What to do with the Lease as it was last seen. Whoever writes by it must name the version it has read: that a
    /// Lease has run out is a guess that only compare-and-swap makes safe.
    pub fn step(&self, now: Instant) -> Step {
        let Some(Seen { record, changed }) = &self.seen else { return Step::Create };
        let free = record.holder.is_empty() || record.holder == self.identity;
        let run_out = now.saturating_duration_since(*changed) > DURATION;
        match self.renewed {
            Some(_) => Step::Renew,
            None if free || run_out => Step::Take,
            None => Step::StandBy,
        }
    }

    /// A write of ours that began at `started` is in the Lease, which now says `record`.
    pub fn wrote(&mut self, record: Record, started: Instant) {
        self.seen = Some(Seen { record, changed: started });
        self.renewed = Some(started);
    }

    /// Until when this replica leads, as long as it does.
    pub fn until(&self) -> Option<Instant> {
        self.renewed.map(|renewed| renewed + RENEW_DEADLINE)
    }

    /// Leaves leadership if its time is over.
    pub fn look_at_age(&mut self, now: Instant) -> Option<Lost> {
        let over = self.until().is_some_and(|until| now >= until);
        if over { self.lose(Lost::Late) } else { None }
    }

    /// `why`, if this replica led until now.
    pub fn lose(&mut self, why: Lost) -> Option<Lost> {
        self.renewed.take().map(|_| why)
    }

    /// How often the holder has changed, once our next write is in.
    pub fn transitions(&self) -> i32 {
        match &self.seen {
            None => 0,
            Some(seen) if seen.record.holder == self.identity => seen.record.transitions,
            Some(seen) => seen.record.transitions.saturating_add(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(holder: &str, renewed: &str) -> Record {
        Record { holder: holder.into(), renewed: renewed.into(), transitions: 3 }
    }

    fn after(from: Instant, seconds: u64) -> Instant {
        from + Duration::from_secs(seconds)
    }

    #[test]
    fn no_lease_is_made_and_nobodys_is_taken() {
        let now = Instant::now();
        let mut election = Election::new("a".into());
        assert_eq!(election.observe(None, now), None);
        assert_eq!((election.step(now), election.transitions()), (Step::Create, 0));
        assert_eq!(election.observe(Some(record("", "1")), now), None);
        assert_eq!((election.step(now), election.transitions()), (Step::Take, 4));
    }

    #[test]
    fn anothers_runs_out_when_it_has_not_been_seen_to_change() {
        let start = Instant::now();
        let mut election = Election::new("a".into());
        // What the other's clock says is long ago, or far ahead, is nothing to us.
        for (at, renewed) in [(0, "1970"), (14, "2970"), (14, "2970"), (20, "2970")] {
            election.observe(Some(record("b", renewed)), after(start, at));
            assert_eq!(election.step(after(start, at)), Step::StandBy, "at {at} s");
        }
        election.observe(Some(record("b", "2970")), after(start, 29));
        assert_eq!(election.step(after(start, 29)), Step::StandBy, "15 s after the change, not more");
        election.observe(Some(record("b", "2970")), after(start, 30));
        assert_eq!(election.step(after(start, 30)), Step::Take);
    }

    /// Its last look was a minute ago; what it reads now has changed meanwhile.
    #[test]
    fn a_standby_that_stood_still_does_not_take_what_is_renewed() {
        let start = Instant::now();
        let mut election = Election::new("a".into());
        election.observe(Some(record("b", "1")), start);
        election.observe(Some(record("b", "2")), after(start, 60));
        assert_eq!(election.step(after(start, 60)), Step::StandBy);
    }

    #[test]
    fn a_leader_leads_ten_seconds_after_the_start_of_its_last_renewal() {
        let start = Instant::now();
        let mut election = Election::new("a".into());
        election.wrote(record("a", "1"), start);
        election.wrote(record("a", "2"), after(start, 8));
        assert_eq!((election.step(after(start, 10)), election.transitions()), (Step::Renew, 3));
        assert_eq!(election.look_at_age(after(start, 17)), None);
        assert_eq!(election.look_at_age(after(start, 18)), Some(Lost::Late));
        assert_eq!(election.until(), None);
        // Nobody else wants it: it is taken again, which is another term.
        assert_eq!(election.step(after(start, 19)), Step::Take);
        assert_eq!(election.look_at_age(after(start, 99)), None, "it is lost once");
    }

    #[test]
    fn a_leader_goes_when_it_sees_another_or_none() {
        let now = Instant::now();
        let lost = |read: Option<Record>| {
            let mut election = Election::new("a".into());
            election.wrote(record("a", "1"), now);
            (election.observe(read, now), election.until())
        };
        assert_eq!(lost(Some(record("b", "2"))), (Some(Lost::Held("b".into())), None));
        assert_eq!(lost(Some(record("", "2"))), (Some(Lost::Emptied), None));
        assert_eq!(lost(None), (Some(Lost::Deleted), None));
        assert_eq!(lost(Some(record("a", "2"))), (None, Some(now + RENEW_DEADLINE)));
    }
}
