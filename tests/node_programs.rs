//! The programs of one node `n1`, started by hand: a controller on a real API server, and one proxy as the DaemonSet
//! would run it, in a node out of network namespaces.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::Result;
use serde_json::Value;
use umbra_testkit::{ApiServer, Netns, Node, Process, Samples, http, kubernetes_program, program, skip};

/// Whether this machine has what they need; says what is missing.
pub(crate) fn available() -> bool {
    if let Err(missing) = kubernetes_program("kube-apiserver") {
        skip(&missing.to_string());
        return false;
    }
    Netns::available()
}

/// An API server with umbra's CRDs, and a node.
pub(crate) fn api_server_and_node() -> Result<(ApiServer, Node)> {
    let server = ApiServer::start()?;
    server.apply_crds()?;
    Ok((server, Node::new()?))
}

/// A controller; it has not begun to watch when this returns.
pub(crate) fn start_controller(server: &ApiServer, node: &Node, flags: &[&str]) -> Result<Process> {
    let mut command = Command::new(program("umbra-controller")?);
    command.arg("--kubeconfig").arg(server.kubeconfig()).arg("--tls-dir").arg(server.dir().join("tls"));
    command.args(["--proxy", &format!("n1={}:15002", node.ipv4()), "--leader-elect=false"]);
    command.args(["--metrics-listen", "127.0.0.1:0"]).args(flags);
    Process::start("controller", &command, &server.dir().join("controller.log"))
}

/// The proxy with the capabilities that the DaemonSet gives it; it may not answer yet when this returns.
pub(crate) fn start_proxy(server: &ApiServer, node: &Node, flags: &[&str]) -> Result<Process> {
    let mut command = node.netns().command("setpriv");
    command.args(["--bounding-set=-all,+net_admin", "--inh-caps=-all,+net_admin", "--no-new-privs"]);
    command.arg(program("umbra-proxy")?).args(["--node=n1", "--workers=2"]);
    // Copies are counted, however late the machine makes a worker.
    command.env("UMBRA_SHADOW_MAX_LAG", "60m");
    command.arg(format!("--node-address={},{}", node.ipv4(), node.ipv6()));
    command.arg("--tls-dir").arg(server.dir().join("tls")).args(flags);
    Process::start("proxy", &command, &server.dir().join("proxy.log"))
}

/// An answer of the proxy's admin port, on its node's loopback.
pub(crate) fn admin(node: &Node, path: &str) -> Result<Value> {
    let address = SocketAddr::from(([127, 0, 0, 1], 15000));
    let stream = node.netns().within(|| http::connect(address))??;
    Ok(serde_json::from_str(&http::get_on(stream, path)?)?)
}

/// The proxy's metrics.
pub(crate) fn samples(node: &Node) -> Result<Samples> {
    Samples::of((node.ipv4(), 15020).into())
}
