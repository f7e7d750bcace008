//! What a proxy is told when it starts.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::intercept::Adopt;
use crate::intercept::cni::Cni;
use crate::listen::Mode;
use crate::worker::{self, Limits};

/// The thread that renews looks each second.
const LEAST_FALLBACK: Duration = Duration::from_secs(3);

/// Changes what is logged; an error says what is wrong with the filter.
pub type LogFilter = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Everything that a proxy is told when it starts.
#[derive(Clone)]
pub struct Options {
    /// The node's name; for logs.
    pub node: String,
    /// Whose connections come, and how.
    pub intercept: Intercept,
    /// Where the controller pushes. Without `tls_dir` it must be on loopback.
    pub push_listen: SocketAddr,
    /// Where metrics and health are.
    pub metrics_listen: SocketAddr,
    /// Where administration is; must be on loopback.
    pub admin_listen: SocketAddr,
    /// Where `ca.crt`, `proxy.crt`, `proxy.key` are or will be.
    pub tls_dir: Option<PathBuf>,
    /// Worker threads.
    pub workers: usize,
    /// Bounds of the data path.
    pub limits: Limits,
    /// Header that is added to copies and to nothing else ([`worker::Options::shadow_mark`]).
    pub shadow_mark: Option<HeaderName>,
    /// Lets the admin port change the log level.
    pub log_filter: Option<LogFilter>,
}

/// How connections come to the proxy.
#[derive(Clone, Debug)]
pub enum Intercept {
    /// The kernel gives it connections of local pods, at these addresses of the node (one for each IP family).
    On {
        /// The node's own addresses.
        node_addresses: Vec<IpAddr>,
        /// The listener's port; 0 takes a free one.
        port: u16,
        /// How long the kernel leads users to primaries when this process is gone.
        fallback_timeout: Duration,
        /// What becomes of connections opened before their service was armed.
        adopt: Adopt,
        /// Whether pod networks that hide ClusterIPs are looked for.
        cni: Cni,
        /// A ClusterIP and port that connections are begun to, to see whether they leave as they are.
        canary: Option<SocketAddr>,
    },
    /// Clients come by themselves, and the Host header chooses the service.
    Off {
        /// Where they come.
        listen: SocketAddr,
    },
}

impl Options {
    /// A proxy for a laptop: no interception, no TLS, everything on loopback and on free ports but `listen`.
    pub fn laptop(listen: SocketAddr) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            node: "laptop".into(),
            intercept: Intercept::Off { listen },
            push_listen: free,
            metrics_listen: free,
            admin_listen: free,
            tls_dir: None,
            workers: std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
            limits: Limits::default(),
            shadow_mark: None,
            log_filter: None,
        }
    }

    /// Whether they go together; an error names the flag to mend.
    pub(crate) fn check(&self) -> Result<(), String> {
        let wrong = |text: &str| Err(text.into());
        if self.tls_dir.is_none() && !self.push_listen.ip().is_loopback() {
            return wrong(
                "--push-listen: without --tls-dir it must be on loopback: whoever pushes decides where requests go",
            );
        }
        if !self.admin_listen.ip().is_loopback() {
            return wrong("--admin-listen: must be on loopback");
        }
        let Intercept::On { node_addresses, fallback_timeout, .. } = &self.intercept else { return Ok(()) };
        if *fallback_timeout < LEAST_FALLBACK {
            return wrong("--fallback-timeout: at least 3s: a third of it goes by between two renewals");
        }
        let v4 = node_addresses.iter().filter(|ip| ip.is_ipv4()).count();
        if node_addresses.is_empty() || v4 > 1 || node_addresses.len() - v4 > 1 {
            return wrong(
                "--node-address: one address of the node is needed, or one IPv4 and one IPv6 address",
            );
        }
        if node_addresses.iter().any(IpAddr::is_unspecified) {
            return wrong("--node-address: must be an address that pods of this node can reach");
        }
        Ok(())
    }

    /// The data path's part.
    pub(crate) fn worker_options(&self) -> worker::Options {
        let (listen, mode) = match &self.intercept {
            Intercept::Off { listen } => (*listen, Mode::ByHost),
            Intercept::On { node_addresses, port, .. } => {
                let listen = match node_addresses.as_slice() {
                    [one] => SocketAddr::new(*one, *port),
                    // Both families: one dual-stack listener, guarded by the table like any.
                    _ => SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port)),
                };
                (listen, Mode::intercepted())
            }
        };
        let Self { workers, limits, shadow_mark, .. } = self.clone();
        worker::Options { listen, workers, mode, limits, shadow_mark, seed: None }
    }
}
