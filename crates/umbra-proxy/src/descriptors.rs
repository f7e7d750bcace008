//! File descriptors: how many this process may have, and how many its connections hold.
//!
//! Every copy needs a socket that a user could need, so copies are given up first (`ShadowLimits::open_sockets`).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

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

/// How many descriptors connections may hold before copies are given up: the last quarter of `limit` is for users.
pub(crate) fn share_of(limit: usize) -> usize {
    limit / 4 * 3
}

/// Counts the sockets of this process's connections. Clones count together.
#[derive(Clone, Default)]
pub(crate) struct Sockets(Arc<AtomicUsize>);

/// One socket, until dropped.
pub(crate) struct Open(Arc<AtomicUsize>);

impl Sockets {
    /// One more.
    pub(crate) fn open(&self) -> Open {
        self.0.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(&self.0))
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
        assert_eq!(share_of(1024), 768);
    }

    #[test]
    fn sockets_count_until_they_are_dropped() {
        let sockets = Sockets::default();
        let (one, two) = (sockets.open(), sockets.clone().open());
        assert_eq!(sockets.count(), 2);
        drop((one, two));
        assert_eq!(sockets.count(), 0);
    }
}
