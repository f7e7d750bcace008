//! Listen, route, forward, shadow.

mod balance;
mod connection;
mod framing;
pub mod intercept;
pub mod listen;
pub mod metrics;

mod passthrough;
mod shadow;
mod sniff;
mod socket;
pub mod tables;
pub mod worker;
