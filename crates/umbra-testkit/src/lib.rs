//! Builders and stand-ins for tests. Never part of a program.

mod apiserver;
mod cluster;
mod kubectl;
mod netns;
mod node;
mod process;
mod skip;
mod wait;

pub use apiserver::ApiServer;
pub use cluster::{CEILING, Cluster, ClusterNamespace, ClusterNode};
pub use kubectl::{Kubectl, kubernetes_program, repository};
pub use netns::Netns;
pub use nix::sys::signal::Signal;
pub use node::{Node, Pod};
pub use process::Process;
pub use skip::skip;
pub use wait::wait_for;
