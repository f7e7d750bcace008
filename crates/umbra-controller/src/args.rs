//! The command line. Every flag is also an environment variable: `--some-flag` is `UMBRA_SOME_FLAG`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgAction, Parser};

use crate::compile_args::CompileArgs;
use crate::push::Node;

/// Computes what each node has to do and pushes it.
#[derive(Clone, Debug, Parser)]
#[command(name = "umbra-controller", version)]
pub struct Args {
    /// How to reach the API server; without it, as a Pod does
    #[arg(long, env = "UMBRA_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// A proxy to push to, instead of finding proxy Pods; repeatable (in the environment: comma-separated)
    #[arg(long, env = "UMBRA_PROXY", value_name = "NODE=HOST:PORT", value_delimiter = ',')]
    pub proxy: Vec<ProxyAddress>,
    /// Several replicas run: push and write status only while holding the Lease umbra-controller in umbra-system
    #[arg(long, env = "UMBRA_LEADER_ELECT", default_value_t = false, action = ArgAction::Set)]
    pub leader_elect: bool,
    /// Keep the push channel's certificates in this directory, instead of in Secrets; what is missing is written
    #[arg(long, env = "UMBRA_TLS_DIR", value_name = "DIR")]
    pub tls_dir: Option<PathBuf>,
    /// Where to serve metrics and health [default: port 15020 on all addresses]
    #[arg(long, env = "UMBRA_METRICS_LISTEN", value_name = "ADDR")]
    pub metrics_listen: Option<SocketAddr>,
    /// What compiling may do
    #[command(flatten)]
    pub compile: CompileArgs,
    /// What to log, as in RUST_LOG
    #[arg(long, env = "UMBRA_LOG", default_value = "info")]
    pub log: String,
}

/// `NODE=HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyAddress {
    /// The node's name, as `--node` of its proxy says.
    pub node: String,
    /// Its push API.
    pub address: String,
}

impl FromStr for ProxyAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not NODE=HOST:PORT, as in node1=10.0.0.1:15002");
        let (node, address) = text.split_once('=').ok_or_else(wrong)?;
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        let plain = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic());
        if !plain(node) || !plain(host) || port.parse::<u16>().is_err() {
            return Err(wrong());
        }
        Ok(Self { node: node.into(), address: address.into() })
    }
}

impl Args {
    /// The given proxies by node; empty when they are to be found.
    pub fn nodes(&self) -> BTreeMap<String, Node> {
        let node = |proxy: &ProxyAddress| {
            let node = Node { name: proxy.node.clone(), address: proxy.address.clone(), uid: String::new() };
            (proxy.node.clone(), node)
        };
        self.proxy.iter().map(node).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_by_hand() {
        let line = "umbra-controller --kubeconfig k --proxy n1=10.0.0.1:15002 --proxy n2=[fd00::1]:1 \
            --leader-elect=false --tls-dir d --metrics-listen 127.0.0.1:0";
        let args = Args::try_parse_from(line.split_whitespace()).unwrap();
        assert_eq!(args.compile.options().root_namespace, "istio-system");
        let other = ["umbra-controller", "--root-namespace", "mesh"];
        assert_eq!(Args::try_parse_from(other).unwrap().compile.options().root_namespace, "mesh");
        assert_eq!(args.nodes()["n2"].address, "[fd00::1]:1");
        assert_eq!(args.nodes().len(), 2);
        for bad in ["n1", "n1=", "=1.2.3.4:5", "n1=1.2.3.4", "n1=1.2.3.4:x", "n1=a b:1"] {
            let error = bad.parse::<ProxyAddress>().unwrap_err();
            assert!(error.contains("NODE=HOST:PORT"), "{error}");
        }
    }
}
