//! Users of sa-logic inside its clients' pods: the connections are made in a pod's network and used from here, so that
//! every answer's moment is known on one clock.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use umbra_testkit::{CEILING, PodNetwork, wait_for};

use crate::cluster_system::{Example, ExamplePod};

/// An answer that takes longer than this is missing: far above the slowest of a busy machine.
const MISSING: Duration = Duration::from_secs(30);

/// How a user treats connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connections {
    /// One, as long as the other side lets it live.
    Kept,
    /// A new one for each request.
    Fresh,
}

/// A client in a pod's network with at most one connection.
pub(crate) struct Client {
    network: PodNetwork,
    address: SocketAddr,
    /// How long it waits for a connection, and for an answer.
    patience: Duration,
    stream: Option<BufReader<TcpStream>>,
}

/// What a client was answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The version that answered; empty when sa-logic did not.
    pub(crate) version: String,
    /// The other side said that this was the connection's last.
    pub(crate) closes: bool,
}

impl Client {
    /// Of sa-logic, in this pod; connects when it first asks.
    pub(crate) fn new(example: &Example, pod: &ExamplePod) -> Result<Self> {
        Ok(Self {
            network: example.network(pod)?,
            address: example.sa_logic()?,
            patience: MISSING,
            stream: None,
        })
    }

    /// Gives up after so long.
    pub(crate) fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Asks sa-logic, on the connection that is there if there is one.
    ///
    /// # Errors
    /// When there is no whole answer. Nothing is repeated.
    pub(crate) fn ask(&mut self, id: &str, connections: Connections) -> Result<Answer> {
        if self.stream.is_none() {
            self.connect()?;
        }
        self.exchange(id, connections)
    }

    /// One request on the connection that is there.
    ///
    /// # Errors
    /// When there is no whole answer: the request was cut.
    pub(crate) fn exchange(&mut self, id: &str, connections: Connections) -> Result<Answer> {
        let mut stream = self.stream.take().context("not connected")?;
        let close = if connections == Connections::Fresh { "connection: close\r\n" } else { "" };
        let body = r#"{"sentence":"I love yoga!"}"#;
        let head = "POST /analyse/sentiment HTTP/1.1\r\nhost: sa-logic\r\ncontent-type: application/json\r\n";
        let request =
            format!("{head}x-request-id: {id}\r\n{close}content-length: {}\r\n\r\n{body}", body.len());
        stream.get_mut().write_all(request.as_bytes())?;
        let answer = read_answer(&mut stream)?;
        if !answer.closes && connections == Connections::Kept {
            self.stream = Some(stream);
        }
        Ok(answer)
    }

    /// Whether a connection is kept for the next request.
    pub(crate) fn is_connected(&self) -> bool {
        self.stream.is_some()
    }

    /// A connection that the other side has closed meanwhile is given up, as every pool of connections does.
    ///
    /// # Errors
    /// When the socket cannot be asked.
    pub(crate) fn drop_if_closed(&mut self) -> Result<()> {
        let Some(stream) = &self.stream else { return Ok(()) };
        stream.get_ref().set_nonblocking(true)?;
        let open = match stream.get_ref().peek(&mut [0]) {
            Ok(_) => false,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        };
        if open {
            stream.get_ref().set_nonblocking(false)?;
        } else {
            self.stream = None;
        }
        Ok(())
    }

    /// Makes the connection.
    ///
    /// # Errors
    /// When nobody takes it.
    pub(crate) fn connect(&mut self) -> Result<()> {
        let (address, patience) = (self.address, self.patience);
        let stream = self.network.within(|| TcpStream::connect_timeout(&address, patience))?;
        let stream = stream.with_context(|| format!("connecting to {address}"))?;
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_nodelay(true)?;
        self.stream = Some(BufReader::new(stream));
        Ok(())
    }
}

/// An answer with a Content-Length, which is all that sa-logic and umbra send.
fn read_answer(stream: &mut BufReader<TcpStream>) -> Result<Answer> {
    let (mut head, mut line) = (String::new(), String::new());
    while line != "\r\n" {
        line.clear();
        ensure!(stream.read_line(&mut line)? > 0, "closed before the answer's head was whole: {head:?}");
        head += &line;
    }
    let head = head.to_ascii_lowercase();
    let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("no status: {head:?}"))?;
    let Some(length) = value("content-length:").and_then(|length| length.parse().ok()) else {
        bail!("no content-length: {head:?}")
    };
    let mut body = vec![0; length];
    stream.read_exact(&mut body).context("closed before the answer's body was whole")?;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let version = body["version"].as_str().unwrap_or_default().to_owned();
    Ok(Answer { status, version, closes: value("connection:") == Some("close") })
}

/// A user that asks again and again until told to stop.
pub(crate) struct User {
    /// Where it runs.
    pub(crate) node: String,
    pub(crate) connections: Connections,
    log: Arc<Mutex<Log>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What a user saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) requests: u64,
    /// Every answer but 200, and every request without an answer; the first few in words.
    pub(crate) failed: u64,
    pub(crate) failures: Vec<String>,
    /// How many answers came from each version.
    pub(crate) versions: BTreeMap<String, u64>,
    /// When requests were sent that another version answered than the one before.
    pub(crate) changes: Vec<(Instant, String)>,
}

/// Users in both clients' pods.
pub(crate) struct Users(Vec<User>);

impl Users {
    /// In each client's pod one user that keeps its connection and one that does not, each asking every `pause`.
    pub(crate) fn start(example: &Example, pause: Duration) -> Result<Self> {
        let mut users = Vec::new();
        for pod in example.clients()? {
            for connections in [Connections::Kept, Connections::Fresh] {
                users.push(User::start(example, &pod, connections, pause)?);
            }
        }
        Ok(Self(users))
    }

    pub(crate) fn each(&self) -> impl Iterator<Item = &User> {
        self.0.iter()
    }

    /// Waits until each user has had `more` further answers.
    pub(crate) fn wait_for_more(&self, more: u64) -> Result<()> {
        let before: Vec<u64> = self.each().map(|user| user.log().requests).collect();
        wait_for(&format!("{more} more requests of each user"), CEILING, || {
            let enough = self.each().zip(&before).all(|(user, before)| user.log().requests >= before + more);
            ensure!(enough, "{:?}", self.each().map(User::log).collect::<Vec<_>>());
            Ok(())
        })
    }

    /// Stops them: everything they saw, added up. Fails when a request of theirs did.
    pub(crate) fn finish_unharmed(self) -> Result<Log> {
        let mut all = Log::default();
        for user in self.0 {
            let node = user.node.clone();
            let log = user.finish();
            all.requests += log.requests;
            all.failed += log.failed;
            all.failures.extend(log.failures.into_iter().map(|failure| format!("{node}: {failure}")));
            for (version, count) in log.versions {
                *all.versions.entry(version).or_default() += count;
            }
        }
        ensure!(all.failed == 0, "{} of {} requests failed: {:#?}", all.failed, all.requests, all.failures);
        Ok(all)
    }
}

impl User {
    /// Asks every `pause`, or as fast as answers come if that is slower.
    pub(crate) fn start(
        example: &Example,
        pod: &ExamplePod,
        connections: Connections,
        pause: Duration,
    ) -> Result<Self> {
        let mut client = Client::new(example, pod)?;
        let (log, stop) = (Arc::<Mutex<Log>>::default(), Arc::new(AtomicBool::new(false)));
        let (shared, stopped, node) = (Arc::clone(&log), Arc::clone(&stop), pod.node.clone());
        let began = Instant::now();
        let thread = std::thread::spawn(move || {
            for number in 0_u64.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (sent, at) = (Instant::now(), began.elapsed());
                let answer = client.ask(&format!("{node}-{connections:?}-{number}"), connections);
                let failure = |what: String| format!("{connections:?} request {number} at {at:.3?}: {what}");
                shared.lock().expect("no panic while counting").add(sent, answer, failure);
                // The pace of the load, nothing is awaited by it.
                std::thread::sleep(pause.saturating_sub(sent.elapsed()));
            }
        });
        Ok(Self { node: pod.node.clone(), connections, log, stop, thread: Some(thread) })
    }

    /// What it has seen so far.
    pub(crate) fn log(&self) -> Log {
        self.log.lock().expect("no panic while counting").clone()
    }

    /// When the first request was sent that `version` answered, among those after the first `seen` changes.
    pub(crate) fn wait_for_change(&self, seen: usize, version: &str) -> Result<Instant> {
        wait_for(&format!("{version} answers a user on {}", self.node), CEILING, || {
            let log = self.log();
            let found = log.changes.iter().skip(seen).find(|(_, now)| now == version);
            found.map(|(sent, _)| *sent).with_context(|| format!("{log:?}"))
        })
    }

    /// Stops it.
    pub(crate) fn finish(mut self) -> Log {
        self.end();
        self.log()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a user does not panic");
        }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.end();
    }
}

impl Log {
    fn add(&mut self, sent: Instant, answer: Result<Answer>, failure: impl Fn(String) -> String) {
        self.requests += 1;
        match answer {
            Ok(answer) if answer.status == 200 => {
                if self.changes.last().is_none_or(|(_, last)| *last != answer.version) {
                    self.changes.push((sent, answer.version.clone()));
                }
                *self.versions.entry(answer.version).or_default() += 1;
            }
            Ok(answer) => self.fail(failure(format!("status {}", answer.status))),
            Err(error) => self.fail(failure(format!("{error:#}"))),
        }
    }

    fn fail(&mut self, why: String) {
        self.failed += 1;
        if self.failures.len() < 10 {
            self.failures.push(why);
        }
    }
}
