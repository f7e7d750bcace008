//! Plays of `umbra up`: a folder, backends that say their name, and the program itself. Each ends with its value.

pub(crate) mod protocols;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Ends waits for what never comes; loopback needs milliseconds.
const CEILING: Duration = Duration::from_secs(60);

pub(crate) const VIRTUAL_SERVICE: &str = "apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata:
  name: sa-logic
spec:
  hosts: [sa-logic]
  http:
    - route:
        - destination:
            host: sa-logic
            subset: SUBSET
";

const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: sa-logic}
spec:
  selector: {app: sa-logic}
  ports:
    - PORT
---
apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata: {name: sa-logic}
spec:
  host: sa-logic
  subsets:
    - {name: v1, labels: {version: v1}}
    - {name: v2, labels: {version: v2}}
";

pub(crate) fn umbra() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_umbra"));
    command.env_clear();
    command
}

/// An HTTP server whose answers are its name. Its thread ends with the test program.
pub(crate) struct Backend {
    pub(crate) port: u16,
}

impl Backend {
    pub(crate) fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || answer(stream, name));
            }
        });
        Self { port }
    }
}

/// Requests here have no body; the connection ends with the answer.
fn answer(stream: TcpStream, name: &str) {
    let mut lines = BufReader::new(&stream).lines();
    while let Some(Ok(line)) = lines.next() {
        if line.is_empty() {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close", name.len());
            let _ = (&stream).write_all(format!("{head}\r\n\r\n{name}").as_bytes());
            return;
        }
    }
}

/// Name and `appProtocol` of the Service's port.
pub(crate) type Port = (&'static str, Option<&'static str>);

/// A folder of manifests, gone with the value.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// With a Service, a DestinationRule, and a pod for each backend.
    pub(crate) fn new(name: &str, pods: &[(&str, u16)]) -> Self {
        Self::with_port(name, pods, ("http", None))
    }

    /// The same, with this port.
    pub(crate) fn with_port(name: &str, pods: &[(&str, u16)], port: Port) -> Self {
        let path =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("up-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let folder = Self(path);
        let (port_name, protocol) = port;
        let protocol = protocol.map(|protocol| format!(", appProtocol: {protocol}")).unwrap_or_default();
        let port = format!("{{name: {port_name}, port: 80, protocol: TCP{protocol}}}");
        folder.write("service.yaml", &SERVICE.replace("PORT", &port));
        folder.write("pods.json", &pods_as_list(pods, port_name).to_string());
        folder
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        std::fs::write(self.0.join(file), text).unwrap();
    }

    pub(crate) fn remove(&self, file: &str) {
        std::fs::remove_file(self.0.join(file)).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// As `kubectl get pods,endpointslices -o json` prints them.
fn pods_as_list(pods: &[(&str, u16)], port_name: &str) -> Value {
    let items = pods.iter().flat_map(|(version, port)| {
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": version, "namespace": "default", "uid": version,
                "labels": {"app": "sa-logic", "version": version}},
            "spec": {"nodeName": "laptop"}, "status": {"phase": "Running"},
        });
        let slice = serde_json::json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": version, "namespace": "default",
                "labels": {"kubernetes.io/service-name": "sa-logic"}},
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true},
                "targetRef": {"kind": "Pod", "namespace": "default", "name": version, "uid": version}}],
            "ports": [{"name": port_name, "port": port, "protocol": "TCP"}],
        });
        [pod, slice]
    });
    serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items.collect::<Vec<_>>()})
}

/// One line of output.
#[derive(Debug)]
pub(crate) struct Line(pub(crate) Value);

impl Line {
    pub(crate) fn is_condition(&self, object: &str, kind: &str, status: &str) -> bool {
        let conditions = self.0["conditions"].as_array().into_iter().flatten();
        let is = |condition: &Value| condition["type"] == kind && condition["status"] == status;
        self.0["object"] == object && conditions.into_iter().any(is)
    }
}

/// The running program, killed with the value.
pub(crate) struct Up {
    child: Child,
    lines: Receiver<Line>,
    traffic: SocketAddr,
    metrics: SocketAddr,
}

impl Up {
    pub(crate) fn start(folder: &Folder) -> Self {
        let any = "127.0.0.1:0";
        let mut child = umbra()
            .args(["up", "--output", "json", "--listen", any, "--metrics-listen", any, "-f"])
            .arg(&folder.0)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let line =
                    serde_json::from_str(&line).map(Line).unwrap_or_else(|_| panic!("not JSON: {line}"));
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let Line(bound) = lines.recv_timeout(CEILING).expect("umbra up says where it listens");
        let address = |what: &str| bound[what].as_str().unwrap().parse().unwrap();
        Self { child, lines, traffic: address("traffic"), metrics: address("metrics") }
    }

    /// Reads lines until `wanted` comes.
    pub(crate) fn wait_for(&self, what: &str, wanted: impl Fn(&Line) -> bool) {
        let (end, mut seen) = (Instant::now() + CEILING, Vec::new());
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if wanted(&line) => return,
                Ok(line) => seen.push(line),
                Err(error) => panic!("waited for {what}: {error}; printed: {seen:#?}"),
            }
        }
    }

    pub(crate) fn wait_until(&self, what: &str, holds: impl Fn() -> bool) {
        let end = Instant::now() + CEILING;
        while !holds() {
            assert!(Instant::now() < end, "waited for {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Status and body, by a connection of its own.
    pub(crate) fn get(&self, host: &str, path: &str) -> (u16, String) {
        get(self.traffic, host, path)
    }

    /// Where clients come.
    pub(crate) fn traffic(&self) -> SocketAddr {
        self.traffic
    }

    /// Pushes of this kind that the proxy has taken, by its own count.
    pub(crate) fn pushes(&self, kind: &str) -> u64 {
        let (_, text) = get(self.metrics, "localhost", "/metrics");
        let labels = [format!("kind=\"{kind}\""), "result=\"ok\"".to_owned()];
        let ours = text.lines().filter(|line| {
            line.starts_with("umbra_pushes_total{") && labels.iter().all(|label| line.contains(label))
        });
        ours.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        // The shell's own `kill`: no other program, and no unsafe code, is needed.
        let kill = format!("kill -TERM {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        self.child.wait().unwrap()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get(address: SocketAddr, host: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(CEILING)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    // A refused connection is reset; whatever came before that counts.
    let _ = stream.read_to_string(&mut answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, body.to_owned())
}
