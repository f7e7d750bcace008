//! The node: real interception in network namespaces.
