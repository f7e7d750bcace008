//! The open loop in which a user's failure is a figure and no end: a request that is not answered in time, that is answered
//! with something else, or whose connection breaks has failed, and its client connects anew.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{COPIES, Connection, Counts, Harness, Rate};

/// A request not answered so long after it should have gone out has failed. Far above what a proxy takes that is not
/// stuck; below the time that a mirror may keep a copy (umbra 10 s, Envoy 15 s, nginx 60 s).
const PATIENCE: Duration = Duration::from_secs(2);

/// How it went for users.
#[derive(Debug, Default)]
pub(crate) struct Suffered {
    /// Requests that were planned.
    pub(crate) planned: u64,
    /// Of these, those not answered as the primary would.
    pub(crate) failed: u64,
    /// What was seen meanwhile.
    pub(crate) counts: Counts,
    /// From when each should have gone out until its answer, or until it was given up. Sorted.
    pub(crate) latencies: Vec<Duration>,
}

impl Harness {
    /// An open loop over the clients that are connected, each request timed from when it should have gone out.
    ///
    /// # Errors
    /// A client cannot connect.
    pub(crate) fn run_patiently(&mut self, rate: Rate, copies_each: u64) -> Result<Suffered> {
        let (gap, planned) = self.plan(rate);
        self.paced.is_patient = true;
        let mut in_flight = VecDeque::new();
        let began = Instant::now();
        for number in 0..planned {
            let intended = began + gap * number;
            loop {
                let now = Instant::now();
                if now >= intended
                    && let Some(at) = self.paced.idle.pop_front()
                {
                    in_flight.push_back((intended, at));
                    self.ask_planned(at, intended)?;
                    break;
                }
                if now > intended + PATIENCE {
                    self.paced.fail(intended);
                    break;
                }
                self.turn(0)?;
                self.give_up(&mut in_flight)?;
            }
        }
        while !in_flight.is_empty() {
            self.turn(1)?;
            self.give_up(&mut in_flight)?;
        }
        self.turn_while(COPIES, |harness| harness.counts.copies < copies_each * harness.counts.answered)?;
        self.paced.is_patient = false;
        let mut latencies = std::mem::take(&mut self.paced.latencies);
        latencies.sort_unstable();
        Ok(Suffered {
            planned: u64::from(planned),
            failed: self.paced.failed + self.counts.wrong,
            counts: self.counts,
            latencies,
        })
    }

    /// Waits until what is connected has fallen silent: ends are seen, and what they cost is paid.
    ///
    /// # Errors
    /// A listener breaks.
    pub(crate) fn rest(&mut self) -> Result<()> {
        const QUIET_MS: u16 = 50;
        self.turn(QUIET_MS)?;
        while !self.tokens.is_empty() {
            self.turn(QUIET_MS)?;
        }
        Ok(())
    }

    /// Forgets requests that were answered, and ends those that were not in time: the earliest are first.
    fn give_up(&mut self, in_flight: &mut VecDeque<(Instant, usize)>) -> Result<()> {
        while let Some(&(intended, at)) = in_flight.front() {
            let waits = self.connections[at].as_ref().is_some_and(|it| it.intended == Some(intended));
            if waits && intended.elapsed() <= PATIENCE {
                break;
            }
            in_flight.pop_front();
            if waits && let Some(client) = self.connections[at].take() {
                self.replace(at, client)?;
            }
        }
        Ok(())
    }

    /// A client's connection is over; another takes its place, and what was in flight has failed.
    pub(super) fn replace(&mut self, at: usize, client: Connection) -> Result<()> {
        let intended = client.intended;
        drop(client);
        self.connect_at(at)?;
        // Without a request in flight it was idle, and its place is listed as such.
        if let Some(intended) = intended {
            self.paced.fail(intended);
            self.paced.idle.push_back(at);
        }
        Ok(())
    }
}
