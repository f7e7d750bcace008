//! The proxy as a node's program: real interception between network namespaces, its death and its end.
//!
//! A client pod and two backend pods hang on a node namespace by veth pairs; an nft table plays kube-proxy, which sends
//! the Service to `b2`. The proxy's configuration sends it to `b1`, and so does the kernel's fallback, but only by IPv4.
//!
//! Needs root, `ip`, `nft`, `curl` and `setpriv`; says so and skips without them, and fails when `CI` is set.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails; children talk by standard output"
)]

mod connect_time;
mod namespaces;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv6Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use namespaces::{Namespace, available, run};
use serde_json::{Value, json};

const VIPS: [&str; 2] = ["10.96.0.50", "fd00:96::50"];

/// The tables when no proxy runs.
const WITHOUT_UMBRA: &str = "table inet kube-proxy\ntable inet umbra-fallback\n";

/// Node, client, backends.
struct Bed {
    node: Namespace,
    client: Namespace,
    backends: [Namespace; 2],
    /// Everything that runs in them.
    programs: Vec<Program>,
}

/// A child that does not outlive the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

impl Bed {
    fn new(name: &str) -> Self {
        let node = Namespace::new(&format!("{name}-n"));
        node.run("sysctl", &["-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]);
        // There is no uplink here; which interface holds the node's address makes no difference.
        node.ip(&["addr", "add", "172.31.99.1/32", "dev", "lo"]);
        node.ip(&["addr", "add", "fd00:31::1/128", "dev", "lo", "nodad"]);
        let client = pod(&node, name, 10);
        let backends = [pod(&node, name, 21), pod(&node, name, 22)];
        let programs = vec![backend(&backends[0], "b1"), backend(&backends[1], "b2")];
        let bed = Self { node, client, backends, programs };
        bed.kube_proxy();
        bed
    }

    /// What kube-proxy does, with one of its endpoints.
    fn kube_proxy(&self) {
        let rules = "table inet kube-proxy {
            chain services {
            type nat hook prerouting priority dstnat;
            ip daddr 10.96.0.50 tcp dport 80 dnat ip to 10.244.1.22:8080
            ip6 daddr fd00:96::50 tcp dport 80 dnat ip6 to [fd00:244:1::22]:8080
            }
            }
";
        self.node.run("nft", &[rules]);
    }

    /// The proxy, with no capability but `NET_ADMIN`, as the DaemonSet runs it. Returns when it answers.
    fn proxy(&self) -> Program {
        self.proxy_with(&[])
    }

    /// The same, with more flags.
    fn proxy_with(&self, flags: &[&str]) -> Program {
        self.proxy_in("/dev/null", flags)
    }

    /// The same, in the control group of this list of processes.
    fn proxy_in(&self, procs: &str, flags: &[&str]) -> Program {
        // First into the group: inside the namespace `ip` shows another /sys.
        let proxy = Command::new("sh")
            .args(["-c", "echo $$ >\"$0\" && exec ip netns exec \"$@\"", procs, self.node.name(), "setpriv"])
            .args(["--bounding-set=-all,+net_admin", "--inh-caps=-all,+net_admin", "--no-new-privs"])
            .arg(env!("CARGO_BIN_EXE_umbra-proxy"))
            .args(["--node=n1", "--node-address=172.31.99.1,fd00:31::1", "--push-listen=127.0.0.1:15002"])
            .args(["--workers=2"])
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut proxy = Program(proxy);
        let mut log = BufReader::new(proxy.0.stderr.take().unwrap()).lines();
        let started = log
            .by_ref()
            .map_while(Result::ok)
            .inspect(|line| eprintln!("{line}"))
            .any(|line| line.contains("started"));
        assert!(started, "the proxy ended: its messages are above");
        std::thread::spawn(move || log.map_while(Result::ok).for_each(|line| eprintln!("{line}")));
        proxy
    }

    fn push(&self, method: &str, body: &Value) -> Value {
        let out = self.node.run(
            "curl",
            &[
                "-sS",
                "--fail-with-body",
                "-X",
                method,
                "-H",
                "umbra-epoch: 1",
                "-H",
                "umbra-version: 1",
                "-d",
                &body.to_string(),
                "http://127.0.0.1:15002/v1/config",
            ],
        );
        serde_json::from_str(&out).unwrap()
    }

    /// Who answers a pod that calls the Service; each call is a new connection.
    fn ask(&self, vip: &str) -> String {
        self.client.run("curl", &["-sS", "-g", "--max-time", "10", &url(vip)])
    }

    fn ruleset(&self) -> String {
        self.node.run("nft", &["list", "tables"])
    }

    /// Whether the kernel gives connections to the first ClusterIP to the proxy.
    fn takes_over(&self) -> bool {
        self.node.run("nft", &["list", "table", "inet", "umbra"]).contains(VIPS[0])
    }

    /// Connections that the kernel has given to the proxy.
    fn intercepted(&self) -> u64 {
        let counters = self.node.run("curl", &["-sS", "http://127.0.0.1:15000/counters"]);
        serde_json::from_str::<Value>(&counters).unwrap()["intercepted"].as_u64().unwrap()
    }
}

/// Asks again and again, up to a ceiling far above what it takes.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    assert!((0..1_000).any(|_| holds()), "never came true: {what}");
}

fn url(vip: &str) -> String {
    if vip.contains(':') { format!("http://[{vip}]/") } else { format!("http://{vip}/") }
}

/// A namespace that hangs on the node, with addresses that end in `number`.
fn pod(node: &Namespace, name: &str, number: u8) -> Namespace {
    let pod = Namespace::new(&format!("{name}-p{number}"));
    let host = format!("v{number}");
    node.ip(&["link", "add", &host, "type", "veth", "peer", "name", "eth0", "netns", pod.name()]);
    node.ip(&["addr", "add", "10.244.1.1/32", "dev", &host]);
    node.ip(&["-6", "addr", "add", "fd00:244:1::1/128", "dev", &host, "nodad"]);
    node.ip(&["link", "set", &host, "up"]);
    let (v4, v6) = (format!("10.244.1.{number}"), format!("fd00:244:1::{number}"));
    pod.ip(&["addr", "add", &format!("{v4}/32"), "dev", "eth0"]);
    pod.ip(&["-6", "addr", "add", &format!("{v6}/128"), "dev", "eth0", "nodad"]);
    pod.ip(&["link", "set", "eth0", "up"]);
    pod.ip(&["route", "add", "10.244.1.1", "dev", "eth0"]);
    pod.ip(&["route", "add", "default", "via", "10.244.1.1"]);
    pod.ip(&["-6", "route", "add", "fd00:244:1::1", "dev", "eth0"]);
    pod.ip(&["-6", "route", "add", "default", "via", "fd00:244:1::1"]);
    node.ip(&["route", "add", &v4, "dev", &host]);
    node.ip(&["-6", "route", "add", &v6, "dev", &host]);
    pod
}

/// This test program again, as a server that says its name.
fn backend(pod: &Namespace, name: &str) -> Program {
    let child = pod
        .command(std::env::current_exe().unwrap().to_str().unwrap())
        .args(["--ignored", "--exact", "backend_in_a_namespace", "--nocapture"])
        .env("UMBRA_TEST_NAME", name)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut program = Program(child);
    let mut lines = BufReader::new(program.0.stdout.take().unwrap()).lines();
    assert!(lines.by_ref().map_while(Result::ok).any(|line| line.contains("listening")), "the backend ended");
    program
}

#[test]
#[ignore = "run by the other tests, inside a namespace"]
fn backend_in_a_namespace() {
    let name = std::env::var("UMBRA_TEST_NAME").expect("run by the other tests");
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 8080)).unwrap();
    println!("listening");
    let released = Arc::new((Mutex::new(false), Condvar::new()));
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let (name, released) = (name.clone(), Arc::clone(&released));
        std::thread::spawn(move || {
            let mut seen: Vec<u8> = Vec::new();
            let mut some = [0; 1024];
            while !seen.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut some) {
                    Ok(0) | Err(_) => return,
                    Ok(read) => seen.extend(&some[..read]),
                }
            }
            let (is_released, changed) = &*released;
            if seen.starts_with(b"GET /release") {
                *is_released.lock().unwrap() = true;
                changed.notify_all();
            } else if seen.starts_with(b"GET /hold") {
                drop(changed.wait_while(is_released.lock().unwrap(), |released| !*released).unwrap());
            }
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{name}",
                name.len()
            );
            // A client that went away needs no answer.
            let _gone = stream.write_all(answer.as_bytes());
        });
    }
}

/// The Service, at both addresses, with one rule to `b1`.
fn configuration() -> Value {
    let service = json!({ "namespace": "default", "name": "a" });
    let backend = json!({ "service": service, "port": 80, "subset": "v1", "selector": { "version": "v1" } });
    let rule = json!({ "name": "http[0]", "destinations": [{ "weight": 1, "backend": backend }] });
    let port = json!({ "number": 80, "protocol": "http", "variants": [{ "rules": [rule] }] });
    let table = json!({ "service": service, "addresses": VIPS, "ports": [port] });
    let endpoint = json!({
        "address": "10.244.1.21:8080", "pod": "b1", "namespace": "default", "workload": "b1", "app": "a",
        "version": "v1", "canonicalName": "a", "canonicalRevision": "v1"
    });
    let set =
        json!({ "service": service, "port": 80, "selector": { "version": "v1" }, "endpoints": [endpoint] });
    let reference: umbra_routing::BackendRef = serde_json::from_value(backend).unwrap();
    let set_key = reference.key().unwrap().to_string();
    let node = json!({ "podCidrs": ["10.244.1.0/24", "fd00:244:1::/64"] });
    json!({ "resources": { "service/default/a": table, set_key: set, "node": node } })
}

#[test]
fn pods_are_served_by_the_proxy_while_it_lives_and_by_the_kernel_when_it_was_killed() {
    let Some(()) = available(&["nft", "curl", "setpriv", "sysctl"]) else { return };
    let bed = Bed::new("kill");
    for vip in VIPS {
        assert_eq!(bed.ask(vip), "b2", "kube-proxy's place is taken by nobody yet");
    }
    let mut proxy = bed.proxy();
    assert_eq!(bed.ask(VIPS[0]), "b2", "nothing is armed yet");
    let reply = bed.push("PUT", &configuration());
    assert_eq!(reply["armed"], json!(["service/default/a"]), "{reply}");
    for vip in VIPS {
        assert_eq!(bed.ask(vip), "b1", "served by the proxy as soon as the push is answered");
    }
    let counters = bed.node.run("curl", &["-sS", "http://127.0.0.1:15000/counters"]);
    assert_eq!(counters, r#"{"intercepted":2}"#);

    for direct in ["http://172.31.99.1:15001/", "http://[fd00:31::1]:15001/"] {
        let out =
            bed.client.command("curl").args(["-sS", "-g", "--max-time", "10", direct]).output().unwrap();
        assert_eq!(out.status.code(), Some(7), "refused: {}", String::from_utf8_lossy(&out.stderr));
    }

    let reply = bed.push("PATCH", &json!({ "base": reply["digest"], "remove": ["service/default/a"] }));
    assert_eq!(reply["armed"], json!([]));
    assert_eq!(bed.ask(VIPS[0]), "b2", "left to kube-proxy as soon as the push is answered");
    bed.push("PUT", &configuration());
    assert_eq!(bed.ask(VIPS[0]), "b1");

    proxy.0.kill().unwrap();
    proxy.0.wait().unwrap();
    assert_eq!(bed.ruleset(), WITHOUT_UMBRA, "the kernel has dropped the table");
    assert_eq!(bed.ask(VIPS[0]), "b1");
    // The primary has no endpoint of this family: nobody answers in its place.
    let out =
        bed.client.command("curl").args(["-sS", "-g", "--max-time", "10", &url(VIPS[1])]).output().unwrap();
    assert_eq!(out.status.code(), Some(7), "refused: {}", String::from_utf8_lossy(&out.stderr));
    let _again = bed.proxy();
    bed.push("PUT", &configuration());
    assert_eq!(bed.ask(VIPS[0]), "b1");
    drop(bed.backends);
    drop(bed.programs);
}

#[test]
fn sigterm_leaves_new_connections_to_others_and_exits_well() {
    let Some(()) = available(&["nft", "curl", "setpriv", "sysctl", "kill"]) else { return };
    let bed = Bed::new("term");
    let mut proxy = bed.proxy();
    bed.push("PUT", &configuration());
    assert_eq!(bed.ask(VIPS[0]), "b1");
    let hold = format!("{}hold", url(VIPS[0]));
    let in_flight =
        bed.client.command("curl").args(["-sS", "-i", &hold]).stdout(Stdio::piped()).spawn().unwrap();
    until("the request has arrived", || {
        let text = bed.node.run("curl", &["-sS", "http://172.31.99.1:15020/metrics"]);
        text.contains("umbra_connections_total 2")
    });
    run("kill", &["-TERM", &proxy.0.id().to_string()]);
    until("new connections are left to others", || !bed.takes_over());
    assert_eq!(bed.ask(VIPS[0]), "b1", "by the kernel");
    assert!(proxy.0.try_wait().unwrap().is_none(), "it waits for what is in flight");
    bed.node.run("curl", &["-sS", "http://10.244.1.21:8080/release"]);
    let answer = in_flight.wait_with_output().unwrap();
    let answer = String::from_utf8(answer.stdout).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("b1"), "{answer}");
    let status = proxy.0.wait().unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(bed.ruleset(), WITHOUT_UMBRA);
    assert_eq!(bed.ask(VIPS[0]), "b1");
}

#[test]
fn a_stopped_proxy_loses_its_connections_to_others_within_seconds() {
    let Some(()) = available(&["nft", "curl", "setpriv", "sysctl", "kill"]) else { return };
    let bed = Bed::new("hang");
    let proxy = bed.proxy();
    bed.push("PUT", &configuration());
    assert_eq!(bed.ask(VIPS[0]), "b1");
    let pid = proxy.0.id().to_string();
    run("kill", &["-STOP", &pid]);
    // Connections that came before the element expired hang; each is given up after a second.
    let by_the_kernel = (0..30).any(|_| {
        let out = bed.client.command("curl").args(["-s", "--max-time", "1", &url(VIPS[0])]).output().unwrap();
        out.stdout == b"b1"
    });
    assert!(by_the_kernel, "the dead-man element has expired");
    run("kill", &["-CONT", &pid]);
    let intercepted = bed.intercepted();
    until("it beats again", || bed.ask(VIPS[0]) == "b1" && bed.intercepted() > intercepted);
}

#[test]
fn beside_a_network_that_hides_cluster_ips_nothing_is_armed_unless_told_so() {
    let Some(()) = available(&["nft", "curl", "setpriv", "sysctl"]) else { return };
    let bed = Bed::new("cni");
    bed.node.ip(&["link", "add", "cilium_host", "type", "veth", "peer", "name", "cilium_net"]);
    let proxy = bed.proxy();
    let reply = bed.push("PUT", &configuration());
    assert_eq!(reply["armed"], json!([]), "{reply}");
    let reason = reply["refused"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("interface cilium_host") && reason.contains("--cni=trust"), "{reason}");
    // Such a network shows the kernel no ClusterIP; this one does, and the fallback, which needs no proxy, keeps to b1.
    assert_eq!(bed.ask(VIPS[0]), "b1", "led by the fallback");
    assert_eq!(bed.intercepted(), 0, "and not taken over");
    let ready = bed.node.run("curl", &["-sS", "http://172.31.99.1:15020/readyz"]);
    assert_eq!(ready, "ok\n");
    drop(proxy);
    let _trusting = bed.proxy_with(&["--cni=trust"]);
    let reply = bed.push("PUT", &configuration());
    assert_eq!(reply["armed"], json!(["service/default/a"]), "{reply}");
    assert_eq!(bed.ask(VIPS[0]), "b1");
}

/// The canary is the Service itself: what becomes of the connection after the hook makes no difference.
#[test]
fn where_connect_itself_translates_cluster_ips_nothing_is_armed() {
    let Some(()) = available(&["nft", "curl", "setpriv", "sysctl"]) else { return };
    let bed = Bed::new("canary");
    let canary = "--canary=10.96.0.50:80";
    let armed = |flags: &[&str], procs: &str| {
        let _proxy = bed.proxy_in(procs, flags);
        bed.push("PUT", &configuration())
    };
    let reply = armed(&[canary], "/dev/null");
    assert_eq!(reply["armed"], json!(["service/default/a"]), "no way there, so nothing is known: {reply}");
    bed.node.ip(&["route", "add", "10.96.0.0/16", "dev", "lo"]);
    let reply = armed(&[canary], "/dev/null");
    assert_eq!(reply["armed"], json!(["service/default/a"]), "it leaves as it is: {reply}");

    let Some(group) = connect_time::translated("canary", "172.31.99.1".parse().unwrap()) else {
        println!("skipped: no control groups of version 2 are mounted");
        assert!(std::env::var_os("CI").is_none(), "CI has them");
        return;
    };
    let reply = armed(&[canary], &group.procs());
    let reason = reply["refused"][0]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("a connection to 10.96.0.50:80 left under another address"), "{reply}");
    assert_eq!(reply["armed"], json!([]), "{reply}");
    let reply = armed(&[canary, "--cni=trust"], &group.procs());
    assert_eq!(reply["armed"], json!(["service/default/a"]), "{reply}");
}

#[test]
fn arming_and_disarming_fail_no_request() {
    let Some(()) = available(&["nft", "curl", "setpriv", "sysctl"]) else { return };
    let bed = Bed::new("load");
    let _proxy = bed.proxy();
    let done = AtomicBool::new(false);
    let served: Vec<String> = std::thread::scope(|scope| {
        let clients: Vec<_> = VIPS
            .iter()
            .map(|vip| {
                scope.spawn(|| {
                    std::iter::from_fn(|| (!done.load(Ordering::Relaxed)).then(|| bed.ask(vip)))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        for _ in 0..20 {
            let reply = bed.push("PUT", &configuration());
            bed.push("PATCH", &json!({ "base": reply["digest"], "remove": ["service/default/a"] }));
        }
        done.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    assert!(served.iter().all(|name| name == "b1" || name == "b2"), "{served:?}");
    eprintln!(
        "{} requests, {} by the proxy",
        served.len(),
        served.iter().filter(|name| *name == "b1").count()
    );
}
