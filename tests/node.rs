//! The node: real interception in network namespaces, told by a controller and a real API server.

#![allow(clippy::print_stdout, reason = "measurements are printed")]

mod node_programs;
mod node_system;

mod node_article;
mod node_death;
mod node_fallback;
mod node_watch;
