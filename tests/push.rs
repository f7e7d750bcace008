//! The push path: a real API server, the controller and proxies without interception.

#![allow(clippy::print_stdout, reason = "measurements are printed")]

mod push_system;

mod push_explain;
mod push_hold;
mod push_lead;
mod push_policies;
mod push_programmed;
mod push_refused;
mod push_restart;
mod push_scale;
mod push_status;
mod push_undecodable;
