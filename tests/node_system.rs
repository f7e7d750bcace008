//! What the tests of a node run: the article with real interception. A controller started by hand against a real API
//! server, whose Pods and EndpointSlices are written by hand; a node and its pods out of network namespaces, with an
//! nft stand-in for kube-proxy that knows of no subset; one proxy as the DaemonSet would run it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use umbra_testkit::{ApiServer, Node, Pod, Process, Samples, http, objects, program, wait_for};

use crate::node_programs;

/// For what takes milliseconds to seconds on an idle machine.
pub(crate) const CEILING: Duration = Duration::from_secs(120);
/// For one answer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Free in every API server that a test starts.
const CLUSTER_IPS: [&str; 2] = ["10.96.200.1", "fd00:96::c801"];

/// All of it. What is dropped ends.
pub(crate) struct System {
    // In the order in which they are dropped: programs, pods, node, API server.
    pub(crate) proxy: Option<Process>,
    pub(crate) controller: Option<Process>,
    pub(crate) v1: Logic,
    pub(crate) v2: Logic,
    pub(crate) client: Pod,
    pub(crate) node: Node,
    pub(crate) server: ApiServer,
}

/// `sa-logic` in a pod.
pub(crate) struct Logic {
    process: Process,
    pub(crate) pod: Pod,
}

/// Runs a test on a system whose proxy has armed the service, or says why it cannot; a failed test is told with the
/// programs' last lines.
pub(crate) fn with_system(test: impl FnOnce(&mut System) -> Result<()>) -> Result<()> {
    with_unstarted_system(|system| system.start_proxy().and_then(|()| test(system)))
}

/// The same, before the proxy has been started.
pub(crate) fn with_unstarted_system(test: impl FnOnce(&mut System) -> Result<()>) -> Result<()> {
    if !node_programs::available() {
        return Ok(());
    }
    let mut system = System::new()?;
    let result = test(&mut system);
    if result.is_err() {
        eprintln!("{}", system.describe());
    }
    result
}

impl System {
    fn new() -> Result<Self> {
        let (server, node) = node_programs::api_server_and_node()?;
        let v1 = Logic::start(&server, &node, "v1", &["--version", "v1"])?;
        // It sleeps as the article's does, only shorter.
        let v2 = Logic::start(&server, &node, "v2", &["--version", "v2-buggy", "--sleep-seconds", "0.2"])?;
        let client = node.pod()?;
        let mut system = Self { proxy: None, controller: None, v1, v2, client, node, server };
        system.start_controller()?;
        system.kube_proxy(&[&system.v1, &system.v2])?;
        system.apply_article()?;
        Ok(system)
    }

    /// Starts a controller; it has not begun to watch when this returns.
    pub(crate) fn start_controller(&mut self) -> Result<()> {
        self.controller = Some(node_programs::start_controller(&self.server, &self.node, &[])?);
        Ok(())
    }

    /// The stand-in for kube-proxy sends both ClusterIPs to these, in turn.
    pub(crate) fn kube_proxy(&self, to: &[&Logic]) -> Result<()> {
        for cluster_ip in cluster_ips() {
            let endpoints: Vec<SocketAddr> =
                to.iter().map(|logic| (logic.address_like(cluster_ip), 5000).into()).collect();
            self.node.kube_proxy((cluster_ip, 80).into(), &endpoints)?;
        }
        Ok(())
    }

    fn apply_article(&self) -> Result<()> {
        let addresses = |pod: &Pod| [IpAddr::from(pod.ipv4), IpAddr::from(pod.ipv6)];
        let pods = [
            objects::pod("sa-logic", "v1", "sa-logic-1", "n1", &addresses(&self.v1.pod)),
            objects::pod("sa-logic", "v2", "sa-logic-2", "n1", &addresses(&self.v2.pod)),
            objects::pod("sa-web-app", "v1", "sa-web-app-1", "n1", &addresses(&self.client)),
        ];
        let slice = |name, v1, v2| {
            objects::endpoint_slice("sa-logic", name, &[("sa-logic-1", v1), ("sa-logic-2", v2)])
        };
        let rest = [
            objects::node("n1", &self.node.pod_cidrs()),
            objects::service("sa-logic", &cluster_ips()),
            slice("sa-logic-4", self.v1.pod.ipv4.into(), self.v2.pod.ipv4.into()),
            slice("sa-logic-6", self.v1.pod.ipv6.into(), self.v2.pod.ipv6.into()),
            objects::destination_rule("sa-logic"),
            objects::virtual_service("sa-logic"),
        ];
        let kubectl = self.server.kubectl();
        kubectl.apply(&objects::list(pods.iter().cloned().chain(rest)))?;
        kubectl.apply_status(&objects::list(pods))
    }

    /// Starts the proxy with the capabilities that the DaemonSet gives it; returns when it has armed the service with a
    /// primary that has endpoints.
    pub(crate) fn start_proxy(&mut self) -> Result<()> {
        self.start_proxy_with(&[])
    }

    /// A proxy that nobody has to push to; returns when it answers.
    pub(crate) fn start_proxy_alone(&mut self, flags: &[&str]) -> Result<()> {
        let mut process = node_programs::start_proxy(&self.server, &self.node, flags)?;
        let answers = wait_for("the proxy answers", CEILING, || {
            if let Err(dead) = process.alive() {
                return Ok(Err(dead));
            }
            self.admin("/state").map(|_| Ok(()))
        })?;
        self.proxy = Some(process);
        answers
    }

    /// The same as [`Self::start_proxy`], with more flags.
    pub(crate) fn start_proxy_with(&mut self, flags: &[&str]) -> Result<()> {
        let mut process = node_programs::start_proxy(&self.server, &self.node, flags)?;
        let armed = wait_for("sa-logic is armed, its endpoints and the client are known", CEILING, || {
            if let Err(dead) = process.alive() {
                return Ok(Err(dead));
            }
            let state = self.admin("/state")?;
            ensure!(state["armed"] == serde_json::json!(["service/default/sa-logic"]), "{state}");
            let config = self.admin("/config")?;
            let resources = config.as_object().context("resources by key")?;
            let endpoints = resources.values().filter_map(|resource| resource["endpoints"].as_array());
            let (clients, endpoints) = (
                resources.keys().filter(|key| key.starts_with("client/")).count(),
                endpoints.map(Vec::len).sum::<usize>(),
            );
            // Both families of three pods, and of one endpoint of each subset.
            ensure!(clients == 6 && endpoints == 4, "{clients} clients, {endpoints} endpoints: {config}");
            Ok(Ok(()))
        })?;
        self.proxy = Some(process);
        armed
    }

    /// An answer of the proxy's admin port, on its node's loopback.
    pub(crate) fn admin(&self, path: &str) -> Result<Value> {
        node_programs::admin(&self.node, path)
    }

    /// Connections that the kernel has given to the proxy since it made its table.
    pub(crate) fn intercepted(&self) -> Result<u64> {
        self.admin("/counters")?["intercepted"].as_u64().context("intercepted")
    }

    pub(crate) fn samples(&self) -> Result<Samples> {
        node_programs::samples(&self.node)
    }

    /// Whether the proxy's table is there.
    pub(crate) fn has_table(&self) -> Result<bool> {
        Ok(self.node.netns().run("nft list tables")?.lines().any(|line| line == "table inet umbra"))
    }

    /// Whether the table, where there is one, gives connections to the proxy.
    pub(crate) fn takes_over(&self) -> Result<bool> {
        if !self.has_table()? {
            return Ok(false);
        }
        let table = self.node.netns().run("nft list table inet umbra")?;
        Ok(CLUSTER_IPS.iter().any(|ip| table.contains(ip)))
    }

    /// A new connection of the client pod.
    pub(crate) fn connect(&self, to: SocketAddr) -> Result<std::io::Result<TcpStream>> {
        connect_from(&self.client, to)
    }

    /// The connections of this node's pods that the kernel counted: all, by its fallback, by kube-proxy. Asked of the
    /// kernel: also while no proxy runs.
    pub(crate) fn counted(&self) -> Result<[u64; 3]> {
        let text = self.node.netns().run("nft -j list counters table inet umbra-fallback")?;
        let all: Value = serde_json::from_str(&text)?;
        let counters = all["nftables"].as_array().context("objects")?;
        let packets = |name: &str| {
            let found = counters.iter().find(|object| object["counter"]["name"] == name);
            found.and_then(|object| object["counter"]["packets"].as_u64()).with_context(|| text.clone())
        };
        Ok([packets("connections")?, packets("fallback")?, packets("kube-proxy")?])
    }
    /// What the client pod gets on a new connection.
    pub(crate) fn ask(&self, cluster_ip: IpAddr, id: &str) -> Result<http::Answer> {
        self.ask_within(PATIENCE, cluster_ip, id)
    }

    /// The same; it gives up when it hears nothing for so long.
    pub(crate) fn ask_within(
        &self,
        patience: Duration,
        cluster_ip: IpAddr,
        id: &str,
    ) -> Result<http::Answer> {
        let stream = self.connect((cluster_ip, 80).into())??;
        stream.set_read_timeout(Some(patience))?;
        let headers = [
            ("host", "sa-logic"),
            ("content-type", "application/json"),
            ("x-request-id", id),
            ("X-Other", "Ab c"),
        ];
        let body = format!("{{\"sentence\": \"I love {id}\"}}");
        http::exchange(stream, "POST", &format!("/analyse/sentiment?id={id}"), &headers, &body)
    }

    /// Asks `times` times on new connections, both families in turn; gives who answered each.
    pub(crate) fn who_answers(&self, id: &str, times: usize) -> Result<Vec<String>> {
        let ips = cluster_ips().into_iter().cycle().take(times).enumerate();
        ips.map(|(index, ip)| who(&self.ask(ip, &format!("{id}-{index}"))?)).collect()
    }

    /// New connections, both families in turn, are answered by v1 alone, past the proxy: the kernel's fallback takes each.
    pub(crate) fn fallback_serves(&self, id: &str, times: u8) -> Result<()> {
        self.fallback_serves_within(PATIENCE, id, times)
    }

    /// The same, for a client that gives up when it hears nothing for so long.
    pub(crate) fn fallback_serves_within(&self, patience: Duration, id: &str, times: u8) -> Result<()> {
        let [_, before, _] = self.counted()?;
        for ip in cluster_ips().into_iter().cycle().take(times.into()) {
            let by = who(&self.ask_within(patience, ip, id)?)?;
            ensure!(by == "v1", "{id}: {by} answered");
        }
        let [_, now, _] = self.counted()?;
        ensure!(now == before + u64::from(times), "{id}: the fallback took {before} connections, then {now}");
        Ok(())
    }

    /// Waits until the proxy serves new connections, then checks that it serves all.
    pub(crate) fn wait_intercepted(&self, id: &str) -> Result<()> {
        wait_for("connections are intercepted", CEILING, || {
            let before = self.intercepted()?;
            self.who_answers(id, 2)?;
            let now = self.intercepted()?;
            ensure!(now == before + 2, "{before} connections were, {now} are");
            Ok(())
        })?;
        let who = self.who_answers(id, 20)?;
        ensure!(who.iter().all(|version| version == "v1"), "{id}: {who:?}");
        Ok(())
    }

    /// `load` in the client pod, with the first ClusterIP: it ends by itself and prints its report.
    pub(crate) fn load(&self, requests: u32, rate: u32) -> Result<Process> {
        let resolv_conf = self.server.dir().join("resolv.conf");
        std::fs::write(&resolv_conf, "nameserver 127.0.0.1\n")?;
        let mut command = self.client.netns().command(program("load")?);
        command.args(["--url", "http://sa-logic/analyse/sentiment", "--expect-version", "v1"]);
        command.args(["--address", &SocketAddr::from((cluster_ips()[0], 80)).to_string()]);
        command.args(["--requests", &requests.to_string(), "--rate", &rate.to_string()]);
        command.arg("--resolv-conf").arg(resolv_conf);
        Process::start("load", &command, &self.server.dir().join("load.log"))
    }

    /// The condition `Programmed` of the VirtualService.
    pub(crate) fn programmed(&self) -> Result<Value> {
        let object = self.server.kubectl().get(&["vs", "sa-logic"])?;
        let conditions = object["status"]["conditions"].as_array().context("no conditions yet")?;
        let found = conditions.iter().find(|condition| condition["type"] == "Programmed");
        Ok(found.context("no condition Programmed yet")?.clone())
    }

    fn describe(&self) -> String {
        let mut text = String::new();
        let mut add = |what: &str, said: Result<String>| {
            let said = said.unwrap_or_else(|error| format!("{error:#}"));
            text += &format!("--- {what}\n{said}\n");
        };
        add("nft list ruleset", self.node.netns().run("nft list ruleset"));
        add("proxy /state", self.admin("/state").map(|state| state.to_string()));
        add("proxy /metrics", self.samples().map(|samples| samples.text().to_owned()));
        add("kubectl get vs", self.server.kubectl().run(&["get", "vs,dr", "-o", "wide"]));
        add("controller", Ok(self.controller.as_ref().map(Process::last_lines).unwrap_or_default()));
        add("proxy", Ok(self.proxy.as_ref().map(Process::last_lines).unwrap_or_default()));
        text
    }
}

/// A new connection of a pod.
pub(crate) fn connect_from(pod: &Pod, to: SocketAddr) -> Result<std::io::Result<TcpStream>> {
    let stream = pod.netns().within(|| TcpStream::connect_timeout(&to, PATIENCE))?;
    if let Ok(stream) = &stream {
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    Ok(stream)
}

/// A connection that `pod` makes from this port of its own.
pub(crate) fn connect_from_port(pod: &Pod, port: u16, to: SocketAddr) -> Result<std::io::Result<TcpStream>> {
    let connected = || {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        // The port may have been used a moment ago.
        socket.set_reuse_address(true)?;
        let here =
            if to.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
        socket.bind(&SocketAddr::new(here, port).into())?;
        socket.connect_timeout(&to.into(), PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket.into())
    };
    pod.netns().within(connected)
}

/// The Service's addresses, one of each family.
pub(crate) fn cluster_ips() -> [IpAddr; 2] {
    CLUSTER_IPS.map(|ip| ip.parse().expect("an address"))
}

/// The version that an answer of sa-logic names, whether it is right or the bug's.
pub(crate) fn who(answer: &http::Answer) -> Result<String> {
    let body: Value = serde_json::from_str(&answer.body).with_context(|| answer.head.clone())?;
    Ok(body["version"].as_str().with_context(|| answer.body.clone())?.to_owned())
}

impl Logic {
    fn start(server: &ApiServer, node: &Node, name: &str, arguments: &[&str]) -> Result<Self> {
        let pod = node.pod()?;
        let process = pod.serve(name, ("sa-logic", arguments), server.dir(), CEILING)?;
        Ok(Self { process, pod })
    }

    /// Its address of the same family.
    fn address_like(&self, ip: IpAddr) -> IpAddr {
        if ip.is_ipv4() { self.pod.ipv4.into() } else { self.pod.ipv6.into() }
    }

    /// What it has seen, and answered: `/stats`.
    pub(crate) fn stats(&self) -> Result<Value> {
        Ok(serde_json::from_str(&http::get((self.pod.ipv4, 5000).into(), "/stats")?)?)
    }

    /// How many questions it has been asked.
    pub(crate) fn asked(&self) -> Result<u64> {
        Ok(self.stats()?["requests"]["/analyse/sentiment"].as_u64().unwrap_or(0))
    }

    pub(crate) fn alive(&mut self) -> Result<()> {
        self.process.alive()
    }
}
