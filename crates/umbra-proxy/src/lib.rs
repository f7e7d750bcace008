//! Listen, route, forward, shadow.

pub mod intercept;
