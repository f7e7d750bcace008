//! The load that every fault meets: fresh connections at a steady rate from every client's pod, and clients that keep
//! theirs. Each failure is kept with the moment its request began, so that a test can tell what was in flight when the
//! fault came from what came after it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use umbra_testkit::{CEILING, wait_for};

use crate::cluster_system::{Example, ExamplePod};
use crate::cluster_users::{Answer, Client, Connections};

/// Fresh connections a second, all pods together, and clients that keep theirs: the figures of the promise.
const FRESH_A_SECOND: u32 = 200;
const KEPT: usize = 20;
/// Each of them asks so often.
const PACE: Duration = Duration::from_millis(100);
/// Users give up after so long: longer than the dead-man's time, so that who hung is served at the next try.
const PATIENCE: Duration = Duration::from_secs(6);
/// Linux sends a SYN again after this; the kernel counts it as a connection each time.
const SENT_AGAIN: Duration = Duration::from_secs(1);
/// Failures kept in words.
const NAMED: usize = 20;

/// Users that ask until they are told to stop.
pub(crate) struct Load {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    users: Vec<JoinHandle<()>>,
}

/// What all users saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) requests: u64,
    /// Connections that were made, by node.
    pub(crate) connections: BTreeMap<String, u64>,
    /// Answers with status 200, by the version that gave them.
    pub(crate) answered: BTreeMap<String, u64>,
    pub(crate) failures: Vec<Failure>,
    pub(crate) slowest: Duration,
    /// Requests on a new connection that took so long that its first packet may have been sent again.
    slow: u64,
    /// By node: when the newest fresh connection began that was answered.
    served: BTreeMap<String, Instant>,
}

/// A request without a right answer.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) node: String,
    pub(crate) kind: Kind,
    pub(crate) began: Instant,
    pub(crate) took: Duration,
    what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, kind, began, took, what } = self;
        write!(f, "{node}: {kind:?}, begun {:.3?} ago, after {took:.2?}: {what}", began.elapsed())
    }
}

/// How it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nobody took the connection.
    Refused,
    /// The connection was there, and ended or fell silent without a whole answer.
    Cut,
    /// Another status than 200.
    Status,
}

impl Load {
    /// Starts all of it in the example's clients' pods.
    pub(crate) fn start(example: &Example) -> Result<Self> {
        let pods = example.clients()?;
        let fresh = (f64::from(FRESH_A_SECOND) * PACE.as_secs_f64()).round() as usize;
        let (seen, stop) = (Arc::default(), Arc::default());
        let mut load = Self { seen, stop, users: Vec::new() };
        for (connections, count) in [(Connections::Fresh, fresh), (Connections::Kept, KEPT)] {
            for (number, pod) in (0..count).zip(pods.iter().cycle()) {
                // Spread over one pace, so that they do not march in step.
                let wait = PACE.mul_f64(number as f64 / count as f64);
                load.add(example, pod, connections, wait)?;
            }
        }
        load.wait_for_more(200)?;
        Ok(load)
    }

    fn add(
        &mut self,
        example: &Example,
        pod: &ExamplePod,
        connections: Connections,
        wait: Duration,
    ) -> Result<()> {
        let client = Client::new(example, pod)?.with_patience(PATIENCE);
        let mut user = User {
            client,
            connections,
            node: pod.node.clone(),
            name: format!("{}-{connections:?}-{}", pod.node, self.users.len()),
            seen: Arc::clone(&self.seen),
        };
        let stop = Arc::clone(&self.stop);
        self.users.push(std::thread::spawn(move || {
            // The pace of the load: nothing is awaited by these sleeps.
            std::thread::sleep(wait);
            for number in 0_u64.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let began = Instant::now();
                user.ask(number);
                std::thread::sleep(PACE.saturating_sub(began.elapsed()));
            }
        }));
        Ok(())
    }

    /// What they have seen so far.
    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().expect("no panic while counting").clone()
    }

    /// Waits until `more` further requests have been answered.
    pub(crate) fn wait_for_more(&self, more: u64) -> Result<()> {
        let before = self.seen().answers();
        wait_for(&format!("{more} more answers"), CEILING, || {
            let seen = self.seen();
            ensure!(seen.answers() >= before + more, "{seen}");
            Ok(())
        })
    }

    /// Waits until a fresh connection from this node that was begun after now has been answered.
    pub(crate) fn wait_for_node(&self, node: &str, more: u64) -> Result<()> {
        let before = self.seen().connections.get(node).copied().unwrap_or_default();
        wait_for(&format!("{more} more connections from {node}"), CEILING, || {
            let seen = self.seen();
            let now = seen.connections.get(node).copied().unwrap_or_default();
            ensure!(now >= before + more, "{seen}");
            Ok(())
        })
    }

    /// Waits until a fresh connection from this node that was begun after `since` has been answered; gives when.
    pub(crate) fn wait_served(&self, node: &str, since: Instant) -> Result<Instant> {
        wait_for(&format!("a fresh connection from {node} is served"), CEILING, || {
            let seen = self.seen();
            ensure!(seen.served.get(node).is_some_and(|began| *began > since), "{seen}");
            Ok(Instant::now())
        })
    }

    /// Stops them and gives what they saw.
    pub(crate) fn finish(mut self) -> Seen {
        self.end();
        self.seen()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for user in self.users.drain(..) {
            user.join().expect("a user does not panic");
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

struct User {
    client: Client,
    connections: Connections,
    node: String,
    name: String,
    seen: Arc<Mutex<Seen>>,
}

impl User {
    fn ask(&mut self, number: u64) {
        let began = Instant::now();
        let (connected, asked) = self.attempt(&format!("{}-{number}", self.name));
        let took = began.elapsed();
        let mut seen = self.seen.lock().expect("no panic while counting");
        seen.requests += 1;
        seen.slowest = seen.slowest.max(took);
        seen.slow += u64::from(connected && took >= SENT_AGAIN);
        if connected {
            *seen.connections.entry(self.node.clone()).or_default() += 1;
        }
        let (kind, what) = match asked {
            Ok(answer) if answer.status == 200 => {
                *seen.answered.entry(answer.version).or_default() += 1;
                if connected {
                    seen.served.insert(self.node.clone(), began);
                }
                return;
            }
            Ok(answer) => (Kind::Status, format!("status {}", answer.status)),
            Err((kind, error)) => {
                let connection = if connected { "new" } else { "kept" };
                (kind, format!("{connection} connection: {error:#}"))
            }
        };
        seen.failures.push(Failure { node: self.node.clone(), kind, began, took, what });
    }

    /// Whether a connection was made, and what came of the request.
    fn attempt(&mut self, id: &str) -> (bool, Result<Answer, (Kind, anyhow::Error)>) {
        let mut connected = false;
        let asked = (|| {
            let cut = |error| (Kind::Cut, error);
            self.client.drop_if_closed().map_err(cut)?;
            if !self.client.is_connected() {
                self.client.connect().map_err(|error| (Kind::Refused, error))?;
                connected = true;
            }
            self.client.exchange(id, self.connections).map_err(cut)
        })();
        (connected, asked)
    }
}

impl Seen {
    /// Right answers, whoever gave them.
    pub(crate) fn answers(&self) -> u64 {
        self.answered.values().sum()
    }

    /// Connections that were made, from all nodes.
    pub(crate) fn connected(&self) -> u64 {
        self.connections.values().sum()
    }

    /// Every answer is v1's.
    pub(crate) fn only_v1(&self) -> Result<()> {
        ensure!(self.answered.keys().eq(["v1"]), "others than v1 answered: {self}");
        Ok(())
    }

    /// Every answer is v1's, and no request failed.
    pub(crate) fn unharmed(&self) -> Result<()> {
        self.only_v1()?;
        ensure!(self.failures.is_empty(), "{self}");
        Ok(())
    }

    /// Every answer is v1's, and no request failed but those that were in flight on a node when a fault came there.
    pub(crate) fn harmed_only_by(&self, faults: &[Fault]) -> Result<()> {
        self.only_v1()?;
        let unexcused: Vec<_> = self
            .failures
            .iter()
            .filter(|failure| !faults.iter().any(|fault| fault.excuses(failure)))
            .collect();
        let named: Vec<_> = unexcused.iter().take(NAMED).map(ToString::to_string).collect();
        let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
        ensure!(
            unexcused.is_empty(),
            "{} not in flight at any fault:\n  {}\nfaults:\n  {}\n{self}",
            unexcused.len(),
            named.join("\n  "),
            faults.join("\n  ")
        );
        Ok(())
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} requests, {} connections, answered {:?}, {} failed, slowest {:.1?}",
            self.requests,
            self.connected(),
            self.answered,
            self.failures.len(),
            self.slowest
        )?;
        self.failures.iter().take(NAMED).try_for_each(|failure| write!(f, "\n  {failure}"))
    }
}

/// A moment at which what was in flight on one node may be lost.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) node: String,
    pub(crate) from: Instant,
    /// When it was over: the process is gone.
    pub(crate) to: Instant,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:.3?} to {:.3?} ago", self.node, self.from.elapsed(), self.to.elapsed())
    }
}

impl Fault {
    /// Its request had begun when the fault was over, and was not over when it came. A connection that nobody took is
    /// excused by no fault: the kernel serves it.
    fn excuses(&self, failure: &Failure) -> bool {
        let ended = failure.began + failure.took;
        failure.kind == Kind::Cut
            && failure.node == self.node
            && failure.began <= self.to
            && ended >= self.from
    }
}

/// What the kernels of all nodes counted, by the way connections took: `umbra`, `fallback`, `kube-proxy`.
pub(crate) fn paths(example: &Example) -> Result<BTreeMap<String, u64>> {
    let mut all = BTreeMap::new();
    for (node, samples) in example.cluster().nodes().iter().zip(example.samples()?) {
        for path in ["umbra", "fallback", "kube-proxy"] {
            // Counters of some thousand connections: whole numbers far below 2^53.
            let count = samples.sum("umbra_node_connections_total", &[("path", path)]) as u64;
            *all.entry(path.to_owned()).or_default() += count;
        }
        ensure!(
            samples.text().contains("umbra_node_connections_total"),
            "{} counts no connections",
            node.name
        );
    }
    Ok(all)
}

/// What was counted since `before`, once it is as many as `seen` says that clients made.
pub(crate) fn adds_up(
    example: &Example,
    before: &BTreeMap<String, u64>,
    seen: &Seen,
) -> Result<BTreeMap<String, u64>> {
    wait_for("connections made = by umbra + by fallback + by kube-proxy", CEILING, || {
        let now = paths(example)?;
        let since: BTreeMap<String, u64> = now
            .iter()
            .map(|(path, count)| {
                Ok((path.clone(), count.checked_sub(before[path]).context("a counter went back")?))
            })
            .collect::<Result<_>>()?;
        let sum: u64 = since.values().sum();
        let (made, slow) = (seen.connected(), seen.slow);
        // Within the time that users wait, a SYN is sent three times at most. Exact where nobody waited.
        let fits = (made..=made + 2 * slow).contains(&sum);
        ensure!(fits, "clients made {made}, {slow} of them slow, counted are {since:?}");
        Ok(since)
    })
}
