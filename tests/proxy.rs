//! One proxy as a process of its own, with the test as its clients and backends.
#![allow(clippy::print_stdout, reason = "what tests measure is read by people")]

mod proxy_alike;
mod proxy_bad_answers;
mod proxy_bodies;
mod proxy_chatter;
mod proxy_differences;
mod proxy_drawn;
mod proxy_floods;
mod proxy_isolation;
mod proxy_kinds;
mod proxy_mirrors;
mod proxy_recorder;
mod proxy_refused;
mod proxy_refused_cases;
mod proxy_requests;
mod proxy_soak;
mod proxy_streams;
mod proxy_system;
mod proxy_users;
mod proxy_wire;
mod proxy_written;
