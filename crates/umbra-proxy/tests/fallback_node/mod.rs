//! A node for one proxy: a namespace with the node's addresses and no pods, and the proxy's pushes written by hand.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::namespaces::{Namespace, available};

/// The least that the proxy takes, for tests that wait for its end.
pub(crate) const TIMEOUT: &str = "3s";
const TIMEOUT_SECONDS: u64 = 3;
/// For what takes milliseconds to seconds on an idle machine.
const CEILING: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(50);

/// The node, and its proxy while one runs.
pub(crate) struct Node {
    namespace: Namespace,
    proxy: Option<Proxy>,
}

/// A proxy that does not outlive the test.
struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// An element of a set or a map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Element {
    /// The key's parts, joined by dots.
    pub(crate) key: String,
    /// Address and port.
    pub(crate) data: String,
    /// In how many seconds it ends.
    pub(crate) expires: u64,
}

/// The ruleset's generation, by changes of the test's own.
pub(crate) struct Generations<'n> {
    node: &'n Node,
    #[expect(dead_code, reason = "ends with this")]
    monitor: Proxy,
    told: Receiver<String>,
    /// It has told something, and tells everything from then on.
    listens: bool,
    probes: u32,
}

impl Generations<'_> {
    /// That of a change made now.
    pub(crate) fn next(&mut self) -> u64 {
        loop {
            self.probes += 1;
            let probe = format!("add table inet probe-{}", self.probes);
            self.node.nft(&probe);
            let mut seen = false;
            // What comes first may be older, and nothing comes before the monitor listens: then there is another probe.
            let patience = if self.listens { CEILING } else { PAUSE };
            while let Ok(line) = self.told.recv_timeout(patience) {
                seen |= line == probe;
                self.listens |= seen;
                if let Some(number) = line.strip_prefix("# new generation ").filter(|_| seen) {
                    return number.split(' ').next().unwrap().parse().unwrap();
                }
            }
        }
    }
}

/// A service as pushed: its table and the backend set of its primary.
#[derive(Clone)]
pub(crate) struct Service {
    name: String,
    pub(crate) table: Value,
    set: (String, Value),
}

/// Makes the node, or says why it cannot.
pub(crate) fn node(name: &str) -> Option<Node> {
    available(&["nft", "curl", "setpriv", "kill"])?;
    let namespace = Namespace::new(name);
    namespace.ip(&["addr", "add", "172.31.99.1/32", "dev", "lo"]);
    namespace.ip(&["addr", "add", "fd00:31::1/128", "dev", "lo", "nodad"]);
    Some(Node { namespace, proxy: None })
}

/// `default/NAME` on port 80, with one rule to subset v1 that has these endpoints.
pub(crate) fn service(name: &str, addresses: &[&str], endpoints: &[&str]) -> Service {
    let service = json!({ "namespace": "default", "name": name });
    let rule = json!({ "name": "http[0]", "destinations": [{ "weight": 1, "backend": backend(name) }] });
    let port = json!({ "number": 80, "protocol": "http", "variants": [{ "rules": [rule] }] });
    let table = json!({ "service": service, "addresses": addresses, "ports": [port] });
    Service { name: name.into(), table, set: set(name, endpoints) }
}

/// The backend set of a service's v1: its key and its value.
pub(crate) fn set(name: &str, endpoints: &[&str]) -> (String, Value) {
    let reference: umbra_routing::BackendRef = serde_json::from_value(backend(name)).unwrap();
    let endpoints: Vec<Value> = endpoints.iter().map(|address| endpoint(address)).collect();
    let service = json!({ "namespace": "default", "name": name });
    let set =
        json!({ "service": service, "port": 80, "selector": { "version": "v1" }, "endpoints": endpoints });
    (reference.key().unwrap().to_string(), set)
}

fn backend(name: &str) -> Value {
    let service = json!({ "namespace": "default", "name": name });
    json!({ "service": service, "port": 80, "subset": "v1", "selector": { "version": "v1" } })
}

/// An endpoint, as pushed.
pub(crate) fn endpoint(address: &str) -> Value {
    json!({
        "address": address, "namespace": "default", "workload": "w", "app": "a", "version": "v1",
        "canonicalName": "a", "canonicalRevision": "v1"
    })
}

/// The body of a PUT.
pub(crate) fn put(services: &[Service], node: Value) -> Value {
    let mut resources = BTreeMap::from([("node".to_owned(), node)]);
    for service in services {
        resources.insert(format!("service/default/{}", service.name), service.table.clone());
        resources.insert(service.set.0.clone(), service.set.1.clone());
    }
    json!({ "resources": resources })
}

impl Node {
    /// Starts the proxy as the DaemonSet does; returns when it answers, with what it said.
    pub(crate) fn start(&mut self, fallback_timeout: &str) -> String {
        let child = self
            .namespace
            .command("setpriv")
            .args(["--bounding-set=-all,+net_admin", "--inh-caps=-all,+net_admin", "--no-new-privs"])
            .arg(env!("CARGO_BIN_EXE_umbra-proxy"))
            .args(["--node=n1", "--node-address=172.31.99.1,fd00:31::1", "--push-listen=127.0.0.1:15002"])
            .args(["--workers=1", "--fallback-timeout", fallback_timeout])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut proxy = Proxy(child);
        let mut log = BufReader::new(proxy.0.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut said = String::new();
        for line in log.by_ref() {
            eprintln!("{line}");
            said += &line;
            said.push('\n');
            if line.contains("started") {
                break;
            }
        }
        assert!(said.contains("started"), "the proxy ended: its messages are above");
        std::thread::spawn(move || log.for_each(|line| eprintln!("{line}")));
        self.proxy = Some(proxy);
        said
    }

    pub(crate) fn id(&self) -> u32 {
        self.proxy.as_ref().unwrap().0.id()
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        drop(self.proxy.take().unwrap());
    }

    pub(crate) fn signal(&self, signal: &str) {
        self.signal_to(&self.proxy.as_ref().unwrap().0, signal);
    }

    /// Waits for its end by itself.
    pub(crate) fn wait(&mut self) {
        let status = self.proxy.as_mut().unwrap().0.wait().unwrap();
        assert!(status.success(), "{status}");
        self.proxy = None;
    }

    pub(crate) fn cleanup(&self) -> Output {
        self.namespace.command(env!("CARGO_BIN_EXE_umbra-proxy")).arg("--cleanup").output().unwrap()
    }

    /// The program that cleans and waits; returns when it has cleaned.
    pub(crate) fn cleaner(&self) -> Child {
        let mut command = self.namespace.command(env!("CARGO_BIN_EXE_umbra-proxy"));
        let mut child = command.args(["--cleanup", "--then-wait"]).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        assert!(said.any(|line| line.contains("no nft table of umbra")));
        child
    }

    pub(crate) fn signal_to(&self, child: &Child, signal: &str) {
        super::namespaces::run("kill", &[&format!("-{signal}"), &child.id().to_string()]);
    }

    pub(crate) fn push(&self, method: &str, body: &Value) -> Value {
        let mut curl = self
            .namespace
            .command("curl")
            .args(["-sS", "--fail-with-body", "-X", method, "-H", "umbra-epoch: 1", "-H", "umbra-version: 1"])
            .args(["--data-binary", "@-", "http://127.0.0.1:15002/v1/config"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        curl.stdin.take().unwrap().write_all(body.to_string().as_bytes()).unwrap();
        let out = curl.wait_with_output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
        serde_json::from_slice(&out.stdout).unwrap()
    }

    /// The program's standard output; it must succeed.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> String {
        self.namespace.run(program, arguments)
    }

    pub(crate) fn nft(&self, command: &str) {
        command.lines().for_each(|line| drop(self.run("nft", &[line])));
    }

    /// The table without elements, as `nft` prints it.
    pub(crate) fn table(&self) -> String {
        let text = self.run("nft", &["-s", "-t", "list", "table", "inet", "umbra-fallback"]);
        text.lines()
            .map(|line| line.replace('\t', "  "))
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// All elements in the order of their keys; none when the set is not there.
    pub(crate) fn elements(&self, set: &str) -> Vec<Element> {
        let kind = if set.starts_with("eps") { "map" } else { "set" };
        let list = ["-j", "list", kind, "inet", "umbra-fallback", set];
        let out = self.namespace.command("nft").args(list).output().unwrap();
        if !out.status.success() {
            return Vec::new();
        }
        let all: Value = serde_json::from_slice(&out.stdout).unwrap();
        let described =
            all["nftables"].as_array().unwrap().iter().find_map(|object| object.get(kind)).unwrap();
        let elements = described["elem"].as_array().cloned().unwrap_or_default();
        let mut elements: Vec<Element> = elements.iter().map(element).collect();
        elements.sort_by_key(|element| (element.key.len(), element.key.clone()));
        elements
    }

    /// A counter without labels; 0 when it is not there.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = self.run("curl", &["-sS", "http://172.31.99.1:15020/metrics"]);
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    /// Asks until it holds.
    pub(crate) fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = Instant::now() + CEILING;
        while !holds(self) {
            assert!(Instant::now() < end, "never came true: {what}\n{}", self.table());
            std::thread::sleep(PAUSE);
        }
    }

    /// Tells the ruleset's generation from now on.
    #[allow(dead_code, reason = "each test program uses its part")]
    pub(crate) fn generations(&self) -> Generations<'_> {
        let mut monitor =
            self.namespace.command("nft").arg("monitor").stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(monitor.stdout.take().unwrap()).lines();
        let (tell, told) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Generations { node: self, monitor: Proxy(monitor), told, listens: false, probes: 0 }
    }

    /// Waits until everything that is there would have ended twice. What is not seen here is a moment without an entry:
    /// a listing beside a batch is no picture of one moment; `tests/node_fallback.rs` sees it by connections.
    pub(crate) fn past_two_timeouts(&self) {
        let began = Instant::now();
        let two = Duration::from_secs(2 * TIMEOUT_SECONDS + 1);
        self.until("two timeouts have gone", |_| began.elapsed() > two);
    }
}

fn element(json: &Value) -> Element {
    let (key, data) = match json.as_array().map(Vec::as_slice) {
        Some([key, data]) => (key, Some(data)),
        _ => (json, None),
    };
    let with_time = key.get("elem");
    let expires = with_time.and_then(|elem| elem["expires"].as_u64()).unwrap_or_default();
    let key = with_time.map_or(key, |elem| &elem["val"]);
    let data = data.map(parts).map_or_else(String::new, |parts| {
        let address: std::net::IpAddr = parts[0].parse().unwrap();
        std::net::SocketAddr::new(address, parts[1].parse().unwrap()).to_string()
    });
    Element { key: parts(key).join("."), data, expires }
}

fn parts(concat: &Value) -> Vec<String> {
    let text = |part: &Value| part.as_str().map_or_else(|| part.to_string(), str::to_owned);
    match concat["concat"].as_array() {
        Some(parts) => parts.iter().map(text).collect(),
        None => vec![text(concat)],
    }
}
