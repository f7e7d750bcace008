//! Listen, route, forward, shadow.
