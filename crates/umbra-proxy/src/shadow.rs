//! Shadows: copies of requests that go to mirrors and whose answers nobody gets.

pub(crate) mod breaker;
