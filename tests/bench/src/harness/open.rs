//! The open loop: requests go out at the times that were planned, whether or not earlier ones were answered, and each is
//! timed from its planned time. So a proxy that stalls is charged for all who would have come meanwhile.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{ANSWERS, Counts, Harness, Role, Until};

/// What is planned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// Requests a second.
    pub(crate) per_second: f64,
    /// For how long.
    pub(crate) seconds: f64,
}

/// Clients that wait for their turn, and what was measured.
#[derive(Debug, Default)]
pub(super) struct Paced {
    /// In the order in which they were answered: each has its turn.
    pub(super) idle: VecDeque<usize>,
    pub(super) latencies: Vec<Duration>,
    /// Users are timed: they come first.
    pub(super) is_timed: bool,
    /// A broken connection is a failed request, and no error.
    pub(super) is_patient: bool,
    pub(super) failed: u64,
}

impl Paced {
    /// The client `at` has its answer.
    pub(super) fn answered(&mut self, at: usize, intended: Instant) {
        self.latencies.push(intended.elapsed());
        self.idle.push_back(at);
    }

    /// It will have none.
    pub(super) fn fail(&mut self, intended: Instant) {
        self.latencies.push(intended.elapsed());
        self.failed += 1;
    }
}

impl Harness {
    /// An open loop over the clients that are connected. Gives the counts, and how long after its planned time each
    /// request was answered, sorted. Spins between requests: sleeping would wake up late.
    pub(crate) fn run_open(&mut self, rate: Rate, copies_each: u64) -> Result<(Counts, Vec<Duration>)> {
        let (gap, planned) = self.plan(rate);
        let began = Instant::now();
        for number in 0..planned {
            let intended = began + gap * number;
            // A request that finds no client idle goes out late, and is timed from when it should have.
            while Instant::now() < intended || self.paced.idle.is_empty() {
                self.turn(0)?;
                ensure!(
                    intended.elapsed() < ANSWERS,
                    "no client has been answered for {} s",
                    ANSWERS.as_secs()
                );
            }
            if let Some(at) = self.paced.idle.pop_front() {
                self.ask_planned(at, intended)?;
            }
        }
        let counts = self.settle(copies_each)?;
        let mut latencies = std::mem::take(&mut self.paced.latencies);
        latencies.sort_unstable();
        Ok((counts, latencies))
    }

    /// Nothing was counted yet and all clients are idle: the time between two requests, and how many there will be.
    pub(super) fn plan(&mut self, rate: Rate) -> (Duration, u32) {
        self.counts = Counts::default();
        self.until = Until::Requests(0);
        self.asked = 0;
        let is_client = |at: &usize| self.connections[*at].as_ref().is_some_and(|it| it.role == Role::Client);
        let idle = (0..self.connections.len()).filter(is_client).collect();
        self.paced = Paced { idle, is_timed: true, ..Paced::default() };
        (Duration::from_secs_f64(1.0 / rate.per_second), (rate.per_second * rate.seconds) as u32)
    }

    /// This client asks what should have been asked then.
    pub(super) fn ask_planned(&mut self, at: usize, intended: Instant) -> Result<()> {
        self.asked += 1;
        self.with(at, |harness, client| {
            client.intended = Some(intended);
            harness.ask(client)?;
            Ok(true)
        })
    }
}
