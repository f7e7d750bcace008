//! The `umbra` command, as a library so that tests reach its parts.
//!
//! Takes: flags, and manifests in files or a cluster's objects. Gives: `umbra up`, the whole of umbra on a laptop: the controller's index,
//! compile, publish and push, and the node's proxy, talking over loopback HTTP as they do in a cluster. `umbra lint` says
//! what is wrong with manifests before a cluster meets them, `umbra explain` what would become of a request.
//! Never applies a table itself: what the proxy knows, it was pushed.

pub mod args;
#[cfg(feature = "kubernetes")]
pub mod cluster;
pub mod explain;
pub mod files;
pub mod lint;
pub mod up;
