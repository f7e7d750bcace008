//! What runs on a node: listen, intercept, forward, shadow.
//!
//! Takes: the controller's pushes, and connections of local pods. Gives: answers of the primary to users, copies to
//! mirrors, counters to Prometheus. Never asks Kubernetes anything, never takes configuration from anybody but the
//! controller, never lets a mirror touch its primary.
//!
//! `run` starts and ends it all; `config` owns what was pushed and decides with `arm` what `intercept` takes over;
//! `worker` serves connections from `tables`.

mod acked;
mod admin;
pub mod args;
mod arm;
mod balance;
mod body;
mod config;
mod connection;
mod deadman;
mod descriptors;
mod forward;
mod framing;
mod headers;
pub mod intercept;
pub mod listen;
pub mod metrics;
mod options;
mod passthrough;
mod pool;
mod push;
mod run;
mod serve;
mod shadow;
mod sniff;
mod socket;
pub mod tables;
mod tls;
mod upgrade;
pub mod worker;

pub use options::{Intercept, LogFilter, Options};
pub use run::{Proxy, ProxyError, StartError};
