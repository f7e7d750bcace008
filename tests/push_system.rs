//! What the tests of the push path run: a real API server, the controller, and proxies without interception.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use umbra_testkit::{
    ApiServer, Process, Samples, claim_address, http, kubernetes_program, program, skip, wait_for,
};

/// For what takes milliseconds to seconds on an idle machine.
pub(crate) const CEILING: Duration = Duration::from_secs(120);

/// The API server and the programs. What is dropped ends.
pub(crate) struct System {
    // In the order in which they are dropped.
    pub(crate) controller: Option<Process>,
    pub(crate) proxies: Vec<PushProxy>,
    pub(crate) server: ApiServer,
    metrics: SocketAddr,
    /// More flags for the controller.
    pub(crate) controller_flags: Vec<String>,
}

/// A proxy that clients come to by themselves; restarted, it has the same addresses.
pub(crate) struct PushProxy {
    pub(crate) node: String,
    pub(crate) process: Option<Process>,
    pub(crate) traffic: SocketAddr,
    pub(crate) push: SocketAddr,
    admin: SocketAddr,
    tls_dir: PathBuf,
    log: PathBuf,
}

/// Runs a test on a system of its own, or says why it cannot; a failed one is told with the programs' last lines.
pub(crate) fn with_system(nodes: &[&str], test: impl FnOnce(&mut System) -> Result<()>) -> Result<()> {
    if let Err(missing) = kubernetes_program("kube-apiserver") {
        skip(&missing.to_string());
        return Ok(());
    }
    let mut system = System::new(nodes)?;
    let result = test(&mut system);
    if result.is_err() {
        let proxies = system.proxies.iter().filter_map(|proxy| proxy.process.as_ref());
        for process in proxies.chain(&system.controller) {
            eprintln!("--- process {}\n{}", process.id(), process.last_lines());
        }
    }
    result
}

impl System {
    /// The API server with the CRDs, and proxies for these nodes; no controller yet.
    pub(crate) fn new(nodes: &[&str]) -> Result<Self> {
        let server = ApiServer::start()?;
        server.apply_crds()?;
        let proxies = nodes.iter().map(|node| PushProxy::new(node, &server)).collect::<Result<_>>()?;
        let metrics = claim_address()?;
        Ok(Self { controller: None, proxies, server, metrics, controller_flags: Vec::new() })
    }

    /// Starts the controller, by hand as the README says, with the address of every proxy.
    pub(crate) fn start_controller(&mut self) -> Result<()> {
        let mut command = Command::new(program("umbra-controller")?);
        command.arg("--kubeconfig").arg(self.server.kubeconfig());
        for proxy in &self.proxies {
            command.arg("--proxy").arg(format!("{}={}", proxy.node, proxy.push));
        }
        command.args(["--leader-elect=false", "--metrics-listen", &self.metrics.to_string()]);
        command.arg("--tls-dir").arg(self.tls_dir());
        command.args(&self.controller_flags);
        let log = self.server.dir().join("controller.log");
        self.controller = Some(Process::start("umbra-controller", &command, &log)?);
        Ok(())
    }

    /// The controller and all proxies.
    pub(crate) fn start_all(&mut self) -> Result<()> {
        for proxy in &mut self.proxies {
            proxy.start()?;
        }
        self.start_controller()
    }

    /// `kill -9` of the controller.
    pub(crate) fn kill_controller(&mut self) -> Result<()> {
        self.controller.take().context("the controller runs")?.kill()
    }

    pub(crate) fn tls_dir(&self) -> PathBuf {
        self.server.dir().join("tls")
    }

    pub(crate) fn controller_samples(&self) -> Result<Samples> {
        Samples::of(self.metrics)
    }

    /// Applies objects without what people see of them.
    pub(crate) fn apply(&self, objects: &str) -> Result<()> {
        self.server.kubectl().apply(objects).map(drop)
    }

    /// Waits until a condition of an object has this status, and gives the condition.
    pub(crate) fn wait_condition(&self, object: &[&str], kind: &str, status: &str) -> Result<Value> {
        let kubectl = self.server.kubectl();
        wait_for(&format!("{} has {kind}={status}", object.join(" ")), CEILING, || {
            let found = kubectl.get(object)?;
            let of_now = &found["metadata"]["generation"];
            let condition = condition(&found, kind);
            let is_so = condition["status"] == status && &condition["observedGeneration"] == of_now;
            ensure!(is_so, "{}", found["status"]);
            Ok(condition)
        })
    }
}

/// A condition in an object's status; `null` when there is none.
pub(crate) fn condition(object: &Value, kind: &str) -> Value {
    let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.find(|condition| condition["type"] == kind).cloned().unwrap_or_default()
}

/// The epoch that a node's state tells.
pub(crate) fn epoch(state: &Value) -> Result<u128> {
    let epoch = state["epoch"].as_str().and_then(|epoch| epoch.parse().ok());
    epoch.with_context(|| format!("an epoch in {state}"))
}

impl PushProxy {
    fn new(node: &str, server: &ApiServer) -> Result<Self> {
        Ok(Self {
            node: node.to_owned(),
            process: None,
            traffic: claim_address()?,
            push: claim_address()?,
            admin: claim_address()?,
            tls_dir: server.dir().join("tls"),
            log: server.dir().join(format!("{node}.log")),
        })
    }

    /// Starts it; returns when its admin port answers.
    pub(crate) fn start(&mut self) -> Result<()> {
        let mut command = Command::new(program("umbra-proxy")?);
        // Copies are counted, however late the machine makes a worker.
        command.env("UMBRA_SHADOW_MAX_LAG", "60m");
        command.args(["--node", &self.node, "--intercept=off", "--workers=1"]);
        command.args(["--listen", &self.traffic.to_string(), "--push-listen", &self.push.to_string()]);
        // Its metrics are on the admin port, too.
        command.args(["--metrics-listen", "127.0.0.1:0", "--admin-listen", &self.admin.to_string()]);
        command.arg("--tls-dir").arg(&self.tls_dir);
        let process = self.process.insert(Process::start(&self.node, &command, &self.log)?);
        wait_for("the proxy answers", CEILING, || {
            if let Err(dead) = process.alive() {
                return Ok(Err(dead));
            }
            http::get(self.admin, "/state").map(|_| Ok(()))
        })?
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.take().context("the proxy runs")?.kill()
    }

    /// What it holds: the admin port's `/state`.
    pub(crate) fn state(&self) -> Result<Value> {
        Ok(serde_json::from_str(&http::get(self.admin, "/state")?)?)
    }

    pub(crate) fn config(&self) -> Result<Value> {
        Ok(serde_json::from_str(&http::get(self.admin, "/config")?)?)
    }

    pub(crate) fn samples(&self) -> Result<Samples> {
        Samples::of(self.admin)
    }

    /// Waits until it has armed that many services, and gives its state.
    pub(crate) fn wait_armed(&self, services: usize) -> Result<Value> {
        wait_for(&format!("{} has armed {services} services", self.node), CEILING, || {
            let state = self.state()?;
            let armed = state["armed"].as_array().map_or(0, Vec::len);
            ensure!(armed == services, "{armed} are armed, refused: {}", state["refused"]);
            Ok(state)
        })
    }

    /// What a client gets that asks for `host` here.
    pub(crate) fn ask(&self, host: &str, path: &str) -> Result<http::Answer> {
        let stream = http::connect(self.traffic)?;
        http::exchange(stream, "POST", path, &[("host", host)], "{\"sentence\":\"I love yoga\"}")
    }
}

/// Resident memory of a process, in MB.
pub(crate) fn resident_mb(process: &Process) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kilobytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes / 1024.0)
}
