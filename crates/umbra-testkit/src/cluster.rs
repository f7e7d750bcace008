//! The throwaway cluster of `tests/cluster`, for tests: found running or started, kubectl, and what happened when a
//! test fails.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::{Kubectl, repository};

/// For what a cluster does in seconds when the machine is idle.
pub const CEILING: Duration = Duration::from_secs(180);

/// A running cluster. It outlives the tests: `make cluster-down` ends it.
#[derive(Debug)]
pub struct Cluster {
    kubectl: Kubectl,
    nodes: Vec<ClusterNode>,
}

/// A node of it: a network namespace of that name.
#[derive(Clone, Debug)]
pub struct ClusterNode {
    /// Of the Node object and of the namespace.
    pub name: String,
    /// Its InternalIP.
    pub address: String,
}

impl Cluster {
    /// The cluster that this test process uses: the running one, else a new one. `None` where there cannot be one, which
    /// is said ([`crate::skip`]).
    ///
    /// # Panics
    /// When it does not start: with the end of the script's output.
    pub fn get() -> Option<&'static Self> {
        static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
        CLUSTER
            .get_or_init(|| {
                if !nix::unistd::geteuid().is_root() {
                    crate::skip("a cluster of network namespaces needs root");
                    return None;
                }
                Some(Self::connect().or_else(|_| Self::start()).unwrap_or_else(|error| panic!("{error:#}")))
            })
            .as_ref()
    }

    /// The running cluster.
    ///
    /// # Errors
    /// When none answers, or a node is not Ready.
    pub fn connect() -> Result<Self> {
        let kubeconfig = repository().join("target/cluster/kubeconfig");
        ensure!(kubeconfig.exists(), "no cluster is up: make cluster-up");
        let kubectl = Kubectl::new(&kubeconfig)?;
        kubectl.run(&[
            "wait",
            "--for=condition=Ready",
            "nodes",
            "--all",
            "--timeout=10s",
            "--request-timeout=15s",
        ])?;
        let list = kubectl.get(&["nodes"])?;
        let nodes = list["items"].as_array().into_iter().flatten().filter_map(ClusterNode::of).collect();
        Ok(Self { kubectl, nodes })
    }

    fn start() -> Result<Self> {
        script("up.sh", &[])?;
        Self::connect()
    }

    /// kubectl as an administrator.
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// Its nodes, by name.
    pub fn nodes(&self) -> &[ClusterNode] {
        &self.nodes
    }

    /// Loads `target/images/NAME.tar` into every node.
    ///
    /// # Errors
    /// When there is no such tar or a node refuses it.
    pub fn load_images(&self, names: &[&str]) -> Result<()> {
        script("load.sh", names)
    }

    /// A namespace of its own for a test; deleted when dropped, and described when the test has failed.
    ///
    /// # Errors
    /// When it is there already.
    pub fn namespace(&self, name: &str) -> Result<ClusterNamespace<'_>> {
        self.kubectl.run(&["create", "namespace", name])?;
        Ok(ClusterNamespace { cluster: self, name: name.to_owned() })
    }

    /// What a pod answers to GET on a port, through the API server: `/metrics` and its like. For programs on their
    /// node's loopback, see [`ClusterNode::command`].
    ///
    /// # Errors
    /// When the pod cannot be reached or its answer is not a success.
    pub fn get_from_pod(&self, namespace: &str, pod: &str, port: u16, path: &str) -> Result<String> {
        self.kubectl.run(&[
            "get",
            "--raw",
            &format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{path}"),
        ])
    }

    /// Names of the pods that a label selector finds.
    ///
    /// # Errors
    /// When the API server refuses.
    pub fn pods(&self, namespace: &str, selector: &str) -> Result<Vec<Value>> {
        let list = self.kubectl.get(&["pods", "-n", namespace, "-l", selector])?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Sends a signal to the processes of a pod's first container, from outside: `kill -9` as the kernel's OOM killer
    /// does it, or SIGSTOP for a hang.
    ///
    /// # Errors
    /// When the container is not running on this machine.
    pub fn signal_container(&self, namespace: &str, pod: &str, signal: Signal) -> Result<()> {
        let processes = self.pod_processes(namespace, pod)?;
        for process in processes {
            kill(Pid::from_raw(process), signal)
                .with_context(|| format!("{signal} to {process} of {namespace}/{pod}"))?;
        }
        Ok(())
    }

    /// The network that a pod lives in, for sockets of a test that must come from there. It stays usable as long as it is
    /// held, also when the pod has gone.
    ///
    /// # Errors
    /// When the pod's first container is not running on this machine.
    pub fn pod_network(&self, namespace: &str, pod: &str) -> Result<PodNetwork> {
        let processes = self.pod_processes(namespace, pod)?;
        let process = processes.first().expect("pod_processes gives at least one");
        let path = format!("/proc/{process}/ns/net");
        Ok(PodNetwork(File::open(&path).with_context(|| format!("{namespace}/{pod}: {path}"))?))
    }

    /// Resident memory of the processes of a pod's first container, in bytes: now (`VmRSS`) and at most (`VmHWM`).
    ///
    /// # Errors
    /// When the container is not running on this machine.
    pub fn pod_memory(&self, namespace: &str, pod: &str) -> Result<(u64, u64)> {
        let (mut now, mut most) = (0, 0);
        for process in self.pod_processes(namespace, pod)? {
            let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
            now += kibibytes(&status, "VmRSS:").context("a process has VmRSS")? * 1024;
            most += kibibytes(&status, "VmHWM:").context("a process has VmHWM")? * 1024;
        }
        Ok((now, most))
    }

    /// Ids of the processes of a pod's first container, as this machine sees them; at least one.
    ///
    /// # Errors
    /// When the container is not running on this machine.
    pub fn pod_processes(&self, namespace: &str, pod: &str) -> Result<Vec<i32>> {
        let object = self.kubectl.get(&["pod", pod, "-n", namespace])?;
        let id = object["status"]["containerStatuses"][0]["containerID"].as_str().unwrap_or_default();
        let id = id
            .strip_prefix("containerd://")
            .with_context(|| format!("{namespace}/{pod} has no running container"))?;
        let processes = container_processes(id)?;
        ensure!(!processes.is_empty(), "{namespace}/{pod}: no process in the cgroup of container {id}");
        Ok(processes)
    }

    /// Pods, events and the last log lines of a namespace, for whoever reads a failed test.
    pub fn describe(&self, namespace: &str) -> String {
        let mut text = String::new();
        let mut add = |arguments: &[&str]| {
            let said = self.kubectl.run(arguments).unwrap_or_else(|error| format!("{error:#}\n"));
            text.push_str(&format!("--- kubectl {}\n{said}", arguments.join(" ")));
        };
        add(&["get", "pods,services,virtualservices,destinationrules", "-n", namespace, "-o", "wide"]);
        add(&["get", "events", "-n", namespace, "--sort-by=.lastTimestamp"]);
        for pod in
            self.kubectl.run(&["get", "pods", "-n", namespace, "-o", "name"]).unwrap_or_default().lines()
        {
            add(&["logs", "-n", namespace, pod, "--all-containers", "--tail=40"]);
        }
        text
    }
}

impl ClusterNode {
    fn of(object: &Value) -> Option<Self> {
        let addresses = object["status"]["addresses"].as_array()?;
        let internal = addresses.iter().find(|address| address["type"] == "InternalIP")?;
        Some(Self {
            name: object["metadata"]["name"].as_str()?.to_owned(),
            address: internal["address"].as_str()?.to_owned(),
        })
    }

    /// `program`, to be run in the node's network: nft, conntrack, or a client of `127.0.0.1`.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg("--").arg(program);
        command
    }
}

/// See [`Cluster::pod_network`].
#[derive(Debug)]
pub struct PodNetwork(File);

impl PodNetwork {
    /// Runs `work` on a thread that lives in it. Sockets made there belong to the pod, wherever they are used afterwards.
    ///
    /// # Errors
    /// Without root.
    ///
    /// # Panics
    /// When `work` does.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        crate::netns::within(self.0.try_clone()?, work)
    }
}

/// A namespace of the cluster that belongs to one test.
#[derive(Debug)]
pub struct ClusterNamespace<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl ClusterNamespace<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// kubectl in this namespace.
    ///
    /// # Errors
    /// When it fails: its command line and error output.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.kubectl.run(&[&["-n", &self.name], arguments].concat())
    }

    /// `kubectl apply -f -` of these documents in this namespace.
    ///
    /// # Errors
    /// When the API server refuses one: its words.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        self.cluster.kubectl.run_with_input(&["-n", &self.name, "apply", "-f", "-"], yaml)
    }
}

impl Drop for ClusterNamespace<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}\n{}", self.cluster.describe(&self.name), self.cluster.describe("umbra-system"));
        }
        // Not awaited: the next test uses another name.
        let _ = self.cluster.kubectl.run(&["delete", "namespace", &self.name, "--wait=false"]);
    }
}

/// Runs a script of `tests/cluster`; its progress is shown.
fn script(name: &str, arguments: &[&str]) -> Result<()> {
    let path = repository().join("tests/cluster").join(name);
    let status =
        Command::new(&path).args(arguments).status().with_context(|| format!("{}", path.display()))?;
    ensure!(status.success(), "{}: {status}", path.display());
    Ok(())
}

/// The processes in the cgroup that is named after the container, looked up in whichever hierarchy has it.
fn container_processes(id: &str) -> Result<Vec<i32>> {
    let roots =
        std::fs::read_dir("/sys/fs/cgroup")?.flatten().map(|entry| entry.path().join("umbra-cluster"));
    let mut found = Vec::new();
    for root in roots.chain([PathBuf::from("/sys/fs/cgroup/umbra-cluster")]) {
        if let Some(dir) = find_directory(&root, id) {
            let text = std::fs::read_to_string(dir.join("cgroup.procs"))?;
            found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// The value of a line of `/proc/PID/status` that is given in kB.
fn kibibytes(status: &str, field: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB")?.parse().ok())
}

fn find_directory(below: &Path, name: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(below).ok()?;
    let directories = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    for path in directories {
        if path.file_name().is_some_and(|file| file == name) {
            return Some(path);
        }
        if let Some(found) = find_directory(&path, name) {
            return Some(found);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_read_from_its_object() {
        let object = serde_json::json!({
            "metadata": {"name": "n1"},
            "status": {"addresses": [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "172.31.77.11"}]}
        });
        let node = ClusterNode::of(&object).unwrap();
        assert_eq!((node.name.as_str(), node.address.as_str()), ("n1", "172.31.77.11"));
        assert_eq!(node.command("nft").get_args().next().unwrap(), "--net=/run/netns/n1");
    }

    #[test]
    fn memory_is_read_from_proc() {
        let status = "Name:\tx\nVmHWM:\t   20480 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(kibibytes(status, "VmRSS:"), Some(1024));
        assert_eq!(kibibytes(status, "VmSwap:"), None);
        assert!(kibibytes(&std::fs::read_to_string("/proc/self/status").unwrap(), "VmHWM:").unwrap() > 0);
    }

    #[test]
    fn a_containers_cgroup_is_found_by_its_name() {
        let root = std::env::temp_dir().join(format!("umbra-cgroup-{}", std::process::id()));
        std::fs::create_dir_all(root.join("node/kubepods/pod1/abc")).unwrap();
        assert_eq!(find_directory(&root, "abc"), Some(root.join("node/kubepods/pod1/abc")));
        assert_eq!(find_directory(&root, "abd"), None);
        std::fs::remove_dir_all(root).unwrap();
    }
}
