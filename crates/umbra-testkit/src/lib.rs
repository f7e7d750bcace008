//! Builders and stand-ins for tests. Never part of a program.

mod allocations;
mod apiserver;
mod cluster;
pub mod frames;
pub mod generated;
pub mod http;
mod kubectl;
mod loopback;
mod netns;
mod node;
pub mod objects;
mod process;
mod program;
mod samples;
mod shadows;
mod skip;
pub mod table;
mod tcp;
mod thread;
mod wait;

pub use allocations::{CountingAllocator, allocations};
pub use apiserver::ApiServer;
pub use cluster::{CEILING, Cluster, ClusterNamespace, ClusterNode, PodNetwork};
pub use kubectl::{Kubectl, kubernetes_program, repository};
pub use loopback::claim_address;
pub use netns::Netns;
pub use nix::sys::signal::Signal;
pub use node::{Node, Pod};
pub use process::Process;
pub use program::program;
pub use samples::Samples;
pub use shadows::Shadows;
pub use skip::skip;
pub use tcp::TcpEnd;
pub use thread::{StoppedThread, stop_thread};
pub use wait::wait_for;
