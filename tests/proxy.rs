//! One proxy as a process of its own, with the test as its clients and backends.
#![allow(clippy::print_stdout, reason = "what tests measure is read by people")]

mod proxy_bodies;
mod proxy_system;
