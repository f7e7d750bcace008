//! What runs on a node: listen, intercept, forward, shadow.
//!
//! Takes: the controller's pushes, and connections of local pods. Gives: answers of the primary to users, copies to
//! mirrors, counters to Prometheus. Never asks Kubernetes anything, never takes configuration from anybody but the
//! controller, never lets a mirror touch its primary.
//!
//! The path of one request, in order:
//! 1. `intercept`: the kernel gives a pod's connection to the listener (`arm` has decided which);
//! 2. `listen` accepts it on one of `worker`'s threads and asks the kernel where it was headed;
//! 3. `connection` finds its service in `tables`, its pod, and by its first bytes (`sniff`) its protocol; what is not
//!    HTTP goes to `passthrough`;
//! 4. `serve` reads requests of HTTP/1 (`http1`, a codec of our own) or HTTP/2 (`http2`, on the `h2` crate) and answers what
//!    is not one;
//! 5. `forward` selects the rule, draws destination and mirrors, cleans `headers`, chooses an endpoint that takes
//!    connections (`breaker`) and is expected to answer soon (`balance`), takes a connection (`pool`) that speaks what the
//!    endpoint does (`version`) and streams the `body`; `upgrade` joins what switched protocols;
//! 6. `shadow` sends the copies, once the primary has its request;
//! 7. the answer is streamed back, and `metrics` has counted it all.
//!
//! When this process cannot serve, `fallback` has left the kernel a way to the primary.
//!
//! Beside it: `run` starts and ends everything; `push` takes what the controller sends, and `config` owns it and brings it
//! into force, by `reach`, which knows what this node lets us take over; `admin` shows it; `deadman` says whether the workers live;
//! `descriptors` keeps sockets for users; `freed` gives memory back; `recycle` keeps what requests leave behind for the next
//! ones, `held` what a worker has in hand of what all share, and `alarm` what hardly ever has anything to say.

mod acked;
mod admin;
mod alarm;
pub mod args;
mod arm;
mod balance;
mod body;
mod breaker;
mod clock;
mod config;
mod connection;
mod deadman;
mod descriptors;
pub mod fallback;
mod forward;
mod freed;
mod headers;
mod held;
mod http1;
mod http2;
pub mod intercept;
pub mod listen;
pub mod metrics;
mod nft;
mod options;
mod passthrough;
mod pool;
mod push;
mod reach;
mod recycle;
mod run;
mod serve;
mod shadow;
mod sniff;
mod socket;
pub mod tables;
mod tls;
mod upgrade;
mod version;
pub mod worker;

#[cfg(test)]
#[global_allocator]
static ALLOCATOR: umbra_testkit::CountingAllocator = umbra_testkit::CountingAllocator;

pub use options::{Intercept, LogFilter, Options};
pub use run::{Proxy, ProxyError, StartError};
