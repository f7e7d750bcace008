//! Checks of one object that need no other object: what Istio's webhook asks (spec/istio.md 3.1), and what the CRDs'
//! schema asks, since a file never meets an API server.
//!
//! Takes: a plain object. Gives: every problem, with the field's path, how grave it is and Istio's code where it has
//! one; Istio's wording where it has one. The index asks once for each version of an object, and the compiler takes
//! the answer over: an error is what makes an object `Accepted=False`. Says nothing of fields umbra does not know, and
//! never whether a regex compiles, or a node can do what is asked: the compiler says that.

mod actions;
mod connection_pool;
mod cors;
mod destination_rule;
mod fault;
mod headers;
mod http_rule;
mod layer4;
mod load_balancer;
mod locality;
mod matching;
mod mirrors;
mod names;
mod numbers;
mod outlier_detection;
mod problem;
mod reach;
mod retries;
mod route;
mod tls;
mod traffic_policy;
mod virtual_service;

pub use problem::{Code, Problem, Severity};

#[cfg(test)]
mod tests;
