//! Users that ask all the time, each in its own way, and what they saw.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

use crate::proxy_mirrors::Failures;
use crate::proxy_requests::{Ask, User, Version, Wrong};

/// Users of each kind: a version, kept or fresh connections.
const USERS: usize = 6;
/// A user's longest pause between two requests, in milliseconds.
const PAUSE: u64 = 60;
/// Failures kept in words.
const NAMED: usize = 20;
const MIB: usize = 1 << 20;

/// Services that are asked in one version of HTTP.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) version: Version,
    pub(crate) services: Vec<String>,
    /// What their endpoints have failed on purpose.
    pub(crate) failures: Failures,
}

/// Users that ask until they are told to stop.
pub(crate) struct Load {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    users: Option<JoinHandle<Result<()>>>,
}

/// What all users saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) requests: u64,
    /// By their endpoints, on purpose.
    pub(crate) failed_on_purpose: u64,
    pub(crate) failed: u64,
    pub(crate) altered: u64,
    /// The first of both.
    pub(crate) named: Vec<String>,
}

impl Load {
    /// Starts users of each of these.
    pub(crate) fn start(to: SocketAddr, of: &[Asked]) -> Result<Self> {
        let (seen, stop) = (Arc::<Mutex<Seen>>::default(), Arc::<AtomicBool>::default());
        let number = Arc::<AtomicUsize>::default();
        let mut users = Vec::new();
        for asked in of {
            users.extend((0..2 * USERS).map(|kind| Asking {
                user: User::new(asked.version, to),
                keep: kind % 2 == 0,
                asked: asked.clone(),
                number: Arc::clone(&number),
                seen: Arc::clone(&seen),
                stop: Arc::clone(&stop),
            }));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let users = std::thread::spawn(move || {
            runtime.block_on(async {
                let all: Vec<_> = users.into_iter().map(|user| tokio::spawn(user.ask_on())).collect();
                for user in all {
                    user.await?;
                }
                Ok(())
            })
        });
        Ok(Self { seen, stop, users: Some(users) })
    }

    /// What they have seen so far.
    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().expect("no panic while counting").clone()
    }

    /// Stops them, once their last answers are there.
    pub(crate) fn finish(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let users = self.users.take().expect("it is finished once");
        users.join().expect("users do not panic").expect("nor do their tasks");
        self.seen()
    }
}

/// One user.
struct Asking {
    user: User,
    keep: bool,
    asked: Asked,
    /// Each request has one of its own.
    number: Arc<AtomicUsize>,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
}

impl Asking {
    async fn ask_on(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            let service = fastrand::choice(&self.asked.services).cloned().expect("there are some");
            let number = self.number.fetch_add(1, Ordering::Relaxed);
            let ask = Ask { service: &service, number, size: size() };
            let wrong = self.user.ask(ask, self.keep).await.err();
            self.note(ask, wrong);
            // The pace of a user: nothing is awaited.
            tokio::time::sleep(Duration::from_millis(fastrand::u64(..PAUSE))).await;
        }
    }

    fn note(&self, ask: Ask<'_>, wrong: Option<Wrong>) {
        let mut seen = self.seen.lock().expect("no panic while counting");
        seen.requests += 1;
        let (what, error) = match wrong {
            None => return,
            Some(Wrong::Failed(_)) if self.asked.failures.contains(&ask.target()) => {
                seen.failed_on_purpose += 1;
                return;
            }
            Some(Wrong::Failed(error)) => {
                seen.failed += 1;
                ("failed", error)
            }
            Some(Wrong::Altered(error)) => {
                seen.altered += 1;
                ("altered", error)
            }
        };
        if seen.named.len() < NAMED {
            seen.named.push(format!("{ask:?}, connections kept: {}: {what}: {error:#}", self.keep));
        }
    }
}

/// Most bodies are small, and a few larger than what copies may lag behind.
fn size() -> usize {
    match fastrand::u8(..100) {
        0..50 => 0,
        50..80 => fastrand::usize(1..4_096),
        80..94 => fastrand::usize(4_096..128 * 1024),
        94..99 => fastrand::usize(128 * 1024..MIB),
        _ => fastrand::usize(MIB..8 * MIB),
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, failed_on_purpose, failed, altered, .. } = self;
        write!(
            f,
            "{requests} requests, {failed} failed, {altered} altered, {failed_on_purpose} failed by endpoints"
        )
    }
}
