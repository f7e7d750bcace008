//! The push path: a real API server, the controller and proxies without interception.
