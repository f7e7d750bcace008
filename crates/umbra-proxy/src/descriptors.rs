//! File descriptors: how many this process may have, how many its connections hold, and for whom.
//!
//! Every copy needs a socket that a user could need, so copies are given up first (`ShadowLimits::open_sockets`); and no
//! client gets so many that others have none (`Limits::connections_per_client`).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::worker::Limits;

/// Lets this process have as many descriptors as it may give itself (RLIMIT_NOFILE, soft to hard); returns how many.
/// The soft limit is 1024 in most places, for the sake of programs that use select(2); a busy node needs more.
///
/// # Errors
/// The kernel does not say. One that does not raise it is no error: the limit stays as it is.
pub(crate) fn raise() -> io::Result<usize> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            tracing::warn!(%error, soft, hard, "the limit of open files stays as it is");
            soft
        }
    };
    Ok(usize::try_from(limit).unwrap_or(usize::MAX))
}

impl Limits {
    /// Shares out what this process may open. Where a limit is lower already, it stays.
    ///
    /// Clients get half, since each may need another one to its primary; one pod gets half of that, so that none keeps all
    /// others out; and copies are given up beyond three quarters.
    pub(crate) fn share(&mut self, descriptors: usize) {
        self.connections = self.connections.min(descriptors / 2);
        self.connections_per_client = self.connections_per_client.min(descriptors / 4);
        self.shadow.open_sockets = self.shadow.open_sockets.min(descriptors / 4 * 3);
    }
}

/// Counts the sockets of this process's connections. Clones count together.
#[derive(Clone, Default)]
pub(crate) struct Sockets {
    all: Counter,
    clients: Arc<Clients>,
    /// Where only so many are allowed beside those of others.
    few: Option<(Counter, usize)>,
}

/// How many there are of something. Clones count together.
#[derive(Clone, Default)]
pub(crate) struct Counter(Arc<AtomicUsize>);

/// Who has clients' connections. Locked for a look at one entry, when a connection begins and when it ends.
#[derive(Default)]
struct Clients(Mutex<Held>);

#[derive(Default)]
struct Held {
    all: usize,
    /// Those who have some.
    each: HashMap<IpAddr, usize>,
}

/// One socket, until dropped.
pub(crate) struct Open {
    _all: Counted,
    _few: Option<Counted>,
    _client: Option<Place>,
}

struct Counted(Counter);

/// One of a client's connections.
struct Place {
    of: Arc<Clients>,
    client: IpAddr,
}

/// A client's connection is one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TooMany {
    /// Of all clients'.
    All,
    /// Of this client's.
    OfClient,
}

impl TooMany {
    /// The label `reason` of `umbra_refused_connections_total`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::All => "too_many",
            Self::OfClient => "too_many_of_client",
        }
    }
}

impl Sockets {
    /// The same, for somebody who may have `limit` of them, counted by `of`.
    pub(crate) fn few(&self, of: &Counter, limit: usize) -> Self {
        Self { few: Some((of.clone(), limit)), ..self.clone() }
    }

    /// One more; `None` where that is more than are allowed.
    pub(crate) fn try_open(&self) -> Option<Open> {
        let few = match &self.few {
            None => None,
            Some((of, limit)) => Some(of.one_of(*limit)?),
        };
        Some(Open { _all: self.all.one(), _few: few, _client: None })
    }

    /// One more, for a connection to a primary.
    pub(crate) fn open(&self) -> Open {
        Open { _all: self.all.one(), _few: None, _client: None }
    }

    /// One more, for a connection that `client` has opened.
    ///
    /// # Errors
    /// There are as many as `limits` allow.
    pub(crate) fn open_for(&self, client: IpAddr, limits: &Limits) -> Result<Open, TooMany> {
        let place = Clients::place(&self.clients, client.to_canonical(), limits)?;
        Ok(Open { _all: self.all.one(), _few: None, _client: Some(place) })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.all.0.load(Ordering::Relaxed)
    }
}

impl Counter {
    fn one(&self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }

    fn one_of(&self, limit: usize) -> Option<Counted> {
        let more = |now: usize| (now < limit).then_some(now + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Counted(self.clone()))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Clients {
    fn place(of: &Arc<Self>, client: IpAddr, limits: &Limits) -> Result<Place, TooMany> {
        let mut held = of.held();
        if held.all >= limits.connections {
            return Err(TooMany::All);
        }
        let before = held.each.get(&client).copied().unwrap_or(0);
        if before >= limits.connections_per_client {
            return Err(TooMany::OfClient);
        }
        held.each.insert(client, before + 1);
        held.all += 1;
        Ok(Place { of: Arc::clone(of), client })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.of.held();
        held.all -= 1;
        if let Entry::Occupied(mut entry) = held.each.entry(self.client) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the kernel says");
        // So that there is something to raise, wherever this runs.
        setrlimit(Resource::RLIMIT_NOFILE, soft.min(hard).min(512), hard).expect("lowering is allowed");
        let limit = raise().expect("the kernel says");
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).expect("the kernel says"), (hard, hard));
        assert_eq!(limit as u64, hard);
    }

    #[test]
    fn descriptors_are_shared_out_and_lower_limits_stay() {
        let mut limits = Limits::default();
        limits.share(1024);
        assert_eq!((limits.connections, limits.connections_per_client), (512, 256));
        assert_eq!(limits.shadow.open_sockets, 768);
        limits.connections_per_client = 7;
        limits.share(2048);
        assert_eq!((limits.connections, limits.connections_per_client), (512, 7));
    }

    #[test]
    fn sockets_count_until_they_are_dropped() {
        let sockets = Sockets::default();
        let (one, two) = (sockets.open(), sockets.clone().open());
        assert_eq!(sockets.count(), 2);
        drop((one, two));
        assert_eq!(sockets.count(), 0);
    }

    #[test]
    fn a_mirror_has_its_own_and_they_count_for_the_process() {
        let (sockets, mirror) = (Sockets::default(), Counter::default());
        let few = sockets.few(&mirror, 1);
        let one = few.try_open();
        assert!(one.is_some() && few.try_open().is_none() && sockets.try_open().is_some());
        assert_eq!(sockets.count(), 1);
        drop(one);
        assert!(sockets.few(&mirror, 1).try_open().is_some(), "whoever asks");
    }

    #[test]
    fn a_client_has_its_own_and_all_of_them_theirs() {
        let (sockets, limits) =
            (Sockets::default(), Limits { connections: 3, connections_per_client: 2, ..Limits::default() });
        let open = |client: &str| sockets.open_for(client.parse().expect("an address"), &limits);
        let of_a = [open("10.0.0.1").ok(), open("::ffff:10.0.0.1").ok()];
        assert_eq!(open("10.0.0.1").err(), Some(TooMany::OfClient), "one client, however it is written");
        let of_b = open("10.0.0.2").ok();
        assert!(of_b.is_some());
        assert_eq!(open("10.0.0.3").err(), Some(TooMany::All));
        drop(of_a);
        assert!(open("10.0.0.3").is_ok() && open("10.0.0.1").is_ok());
        drop(of_b);
        assert!(sockets.clients.held().each.is_empty(), "nothing is kept of clients that are gone");
        assert_eq!(sockets.count(), 0);
    }
}
