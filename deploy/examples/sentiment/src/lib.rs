//! The article's system as small programs: `sa-web-app` asks `sa-logic` how a sentence feels; the second version of
//! `sa-logic` is broken on purpose. `load` plays the users, `sentiment-demo` plays the whole on a laptop.
//!
//! Takes: HTTP, and flags or environment. Gives: answers, and counts that a test can compare.
//! Never does: anything for umbra. These programs know nothing of it, as a user's own would; the demo only reads
//! what umbra prints and serves under `/metrics`.

pub mod client;
pub mod demo;
pub mod load;
pub mod resolver;
pub mod sa_logic;
pub mod sa_web_app;
pub mod server;
