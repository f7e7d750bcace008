//! A node with the case's pods, a real proxy that takes connections over, and no controller: what a case's objects
//! compile to is pushed as one.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::value::to_raw_value;
use umbra_cli::files::{Texts, World};
use umbra_compile::Options;
use umbra_index::Index;
use umbra_index::api::ObjectKey;
use umbra_routing::{CONFIG_PATH, EPOCH_HEADER, Key, Put, Reply, ServiceName, VERSION_HEADER};
use umbra_testkit::{Netns, Node, Pod, Process, Samples, http, program, wait_for};

use crate::cases_table::Ask;
use crate::cases_world::{CaseWorld, group_of};
use crate::istio_backends::{self, Records, Seen};

/// For what takes milliseconds to seconds on an idle machine.
const CEILING: Duration = Duration::from_secs(60);
/// On the node's loopback, where pushes need no certificates.
const PUSH: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15002);

/// As `world.yaml` has it.
const POD_CIDR: &str = "10.0.0.0/24";

/// All of it. What is dropped ends.
pub(crate) struct CaseNode {
    // In the order in which they are dropped.
    proxy: Process,
    pods: BTreeMap<String, Pod>,
    node: Node,
    world: CaseWorld,
    records: Records,
    version: u64,
    /// The node takes over connections to sa-logic.
    takes_over: bool,
    asked: AtomicU64,
}

/// What came of one request.
pub(crate) struct Outcome {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, Vec<String>>,
    pub(crate) body: String,
    pub(crate) took: Duration,
    /// Its name in the records.
    id: String,
}

impl CaseNode {
    pub(crate) fn start() -> Result<Self> {
        let mut world = CaseWorld::read()?;
        let (node, records) = (Node::new()?, Records::default());
        let mut pods = BTreeMap::new();
        world.give(POD_CIDR, &node.pod_cidrs()[0]);
        for number in 0..world.pods().len() {
            let pod = node.pod()?;
            let written = &world.pods()[number];
            let (name, address) = (written.name.clone(), written.address.clone());
            world.give(&address, &pod.ipv4.to_string());
            if !name.starts_with("client-") {
                istio_backends::serve(&pod, &name, &group_of(&name), &records)?;
            }
            pods.insert(name, pod);
        }
        stand_in_for_kube_proxy(&node, &world, &pods)?;
        let proxy = start_proxy(&node)?;
        let node = Self {
            proxy,
            pods,
            node,
            world,
            records,
            version: 0,
            takes_over: false,
            asked: AtomicU64::new(0),
        };
        wait_for("the proxy answers", CEILING, || node.metrics().map(drop))?;
        Ok(node)
    }

    pub(crate) fn world(&self) -> &CaseWorld {
        &self.world
    }

    pub(crate) fn last_lines(&self) -> String {
        self.proxy.last_lines()
    }

    /// Pushes what these objects compile to, and nothing else; gives the services that the node takes over.
    pub(crate) fn configure(&mut self, texts: &Texts) -> Result<Reply> {
        let mut index = Index::new();
        for event in World::default().look(texts).events {
            index.apply(event);
        }
        self.version += 1;
        let version = self.version.to_string();
        let body = serde_json::to_string(&put(&index)?)?;
        let stream = self.node.netns().within(|| http::connect(PUSH))??;
        let headers = [(EPOCH_HEADER, "1"), (VERSION_HEADER, &version)];
        let answer = http::exchange(stream, "PUT", CONFIG_PATH, &headers, &body)?;
        ensure!(answer.status == 200, "{}\n{}", answer.head, answer.body);
        self.records.clear();
        let reply: Reply = serde_json::from_str(&answer.body)?;
        self.takes_over = reply.armed.contains(&Key::Service(ServiceName::new("default", "sa-logic")));
        Ok(reply)
    }

    /// Whether the node takes over connections to sa-logic, the service of most cases and of the bystander.
    pub(crate) fn takes_over(&self) -> bool {
        self.takes_over
    }

    /// Asks once, on a new connection of the client's pod.
    pub(crate) fn ask(&self, ask: &Ask) -> Result<Outcome> {
        let (service, port) = ask.service_and_port()?;
        let to = SocketAddr::new(self.world.service(service)?.cluster_ip.parse()?, port);
        let client = self.pods.get(&ask.client()).context("a client")?;
        let id = format!("case-{}", self.asked.fetch_add(1, Ordering::Relaxed));
        let began = Instant::now();
        let stream = client.netns().within(|| http::connect(to))??;
        let mut headers = ask.headers()?;
        headers.push(("x-case", &id));
        let answer = http::exchange(stream, ask.method(), ask.path(), &headers, &ask.body())?;
        let mut named: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in answer.head.lines().skip(1).filter_map(|line| line.split_once(':')) {
            named.entry(name.to_ascii_lowercase()).or_default().push(value.trim().to_owned());
        }
        Ok(Outcome { status: answer.status, headers: named, body: answer.body, took: began.elapsed(), id })
    }

    /// What every pod saw of a request; complete once [`Self::settle`] has returned.
    pub(crate) fn seen(&self, outcome: &Outcome) -> Vec<Seen> {
        self.records.of(&outcome.id)
    }

    /// Waits until every copy has come to its end: eligible = sent + dropped, sent = answered + timed_out + failed.
    pub(crate) fn settle(&self) -> Result<()> {
        wait_for("copies have ended", CEILING, || self.metrics()?.no_copy_in_flight())
    }

    fn metrics(&self) -> Result<Samples> {
        Samples::of((self.node.ipv4(), 15020).into())
    }
}

/// Every service's ClusterIP leads to all its pods when nobody takes it over.
fn stand_in_for_kube_proxy(node: &Node, world: &CaseWorld, pods: &BTreeMap<String, Pod>) -> Result<()> {
    for service in world.services() {
        let behind = pods.iter().filter(|(name, _)| service.groups.contains(&group_of(name)));
        let endpoints: Vec<SocketAddr> = behind.map(|(_, pod)| (pod.ipv4, 5000).into()).collect();
        for port in &service.ports {
            node.kube_proxy(SocketAddr::new(service.cluster_ip.parse()?, *port), &endpoints)?;
        }
    }
    Ok(())
}

/// As the DaemonSet would run it, but for the push port.
fn start_proxy(node: &Node) -> Result<Process> {
    let mut command = Netns::command(node.netns(), "setpriv");
    command.args(["--bounding-set=-all,+net_admin", "--inh-caps=-all,+net_admin", "--no-new-privs"]);
    command.arg(program("umbra-proxy")?).args(["--node=n1", "--workers=2", "--push-listen"]);
    // Copies are counted, however late the machine makes a worker.
    command.env("UMBRA_SHADOW_MAX_LAG", "60m");
    command.arg(PUSH.to_string());
    command.arg(format!("--node-address={},{}", node.ipv4(), node.ipv6()));
    let log: PathBuf = std::env::temp_dir().join(format!("umbra-cases-{}.log", std::process::id()));
    Process::start("proxy", &command, &log)
}

/// What the node has to know, as a controller would say it. A held service has no rules yet, so it is left out.
fn put(index: &Index) -> Result<Put> {
    let (view, options) = (index.view(), Options::default());
    let mut put = Put::default();
    for service in view.services() {
        let key = ObjectKey::new(&service.metadata.namespace, &service.metadata.name);
        let umbra_compile::Outcome::Table(table) = umbra_compile::service(view, &key, &options).outcome
        else {
            continue;
        };
        for reference in umbra_compile::backend_refs(&table) {
            let key = reference.key().context("a defined set has a key")?;
            put.resources.insert(key, to_raw_value(&umbra_compile::backends(view, &reference))?);
        }
        let name = ServiceName::new(key.namespace, key.name);
        put.resources.insert(Key::Service(name), to_raw_value(&table)?);
    }
    for (ip, client) in umbra_compile::clients(view, "n1", &options) {
        put.resources.insert(Key::Client(ip), to_raw_value(&client)?);
    }
    put.resources.insert(Key::Node, to_raw_value(&umbra_compile::node_settings(view, "n1", &options))?);
    Ok(put)
}
