//! Bounds of shadows: what copies may take of this process, and what a mirror may get.

use std::num::NonZeroU32;
use std::time::Duration;

/// Bounds of all shadows of this process.
#[derive(Clone, Debug)]
pub struct ShadowLimits {
    /// From the end of the request's body to the end of the mirror's answer.
    pub timeout: Duration,
    /// What each mirror may get.
    pub mirror: MirrorLimits,
    /// Memory that the body of one copy may hold because it lags behind its primary. The default takes a body of a few
    /// megabytes, which comes faster than a busy mirror reads it.
    pub body_bytes: usize,
    /// The same for all copies of one worker. With what is not counted (sockets, tasks) the default stays below 16 MiB a
    /// worker.
    pub worker_bytes: usize,
    /// Connections that this process may hold, clients' and upstream, while copies go out; beyond, they are given up,
    /// so that users get the last descriptors. `Proxy::start` lowers it to 3/4 of what the process may open.
    pub open_sockets: usize,
    /// Of a mirror's answer that are read for the sake of the connection; beyond, it is closed.
    pub answer_bytes: usize,
    /// A worker that comes so late to what is ready, several times in a row, makes no copies until it is in time again: see
    /// `lag`. At full speed a worker is as late as the others that are ready take; a debug build, with a copy of each
    /// request: 5 ms for 32 busy connections, 35 ms for 250. At the default a user waits a third of a second.
    pub lag: Duration,
}

/// What one mirror of a rule may get from this node. The defaults are for a mirror of one small pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MirrorLimits {
    /// Copies in flight.
    pub in_flight: usize,
    /// Connections, idle ones too. The default is twice the copies in flight: with HTTP/1 each has a connection, and
    /// those that one worker keeps are of no use to another.
    pub connections: usize,
    /// Memory that copies' bodies may hold. The default leaves some of each worker's to other mirrors.
    pub queued_bytes: usize,
    /// Copies a second, and so many at once. The default has no such bound: what is in flight is one already, and slows
    /// down with the mirror.
    pub per_second: Option<NonZeroU32>,
}

impl Default for ShadowLimits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            mirror: MirrorLimits::default(),
            body_bytes: 4 * 1024 * 1024,
            worker_bytes: 14 * 1024 * 1024,
            open_sockets: usize::MAX,
            answer_bytes: 64 * 1024,
            lag: Duration::from_millis(100),
        }
    }
}

impl Default for MirrorLimits {
    fn default() -> Self {
        Self { in_flight: 256, connections: 512, queued_bytes: 10 * 1024 * 1024, per_second: None }
    }
}
