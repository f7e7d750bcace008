//! What is compared: how each proxy is started, and where it listens.
//!
//! Each is one process with one worker, in front of the same two backends. Their configurations are in `tests/bench`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use umbra_routing::{Retries, RetryOn, Rule};
use umbra_testkit::table::{self, Copies, Shadowed};
use umbra_testkit::{Process, claim_address, http, wait_for};

use crate::harness::Shape;

/// For a proxy to listen; under valgrind it takes seconds.
const STARTS: Duration = Duration::from_secs(120);
/// For it to end; umbra's own limit for what is in flight is 25 s.
const ENDS: Duration = Duration::from_secs(60);
/// Envoy's default for a route; umbra has none unless told, and is told so here.
const TIMEOUT_MS: u64 = 15_000;

/// A program under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// umbra-proxy of the same build as this bench, without interception.
    Umbra,
    /// The same with two workers: not among those that are compared with it.
    Pair,
    /// The floor with two workers.
    RawPair,
    /// The floor: see `raw`.
    Raw,
    /// From PyPI.
    Envoy,
    /// From Debian.
    Nginx,
    /// From Debian; it has no mirror.
    Haproxy,
}

/// What is done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    /// Forwarded.
    Plain,
    /// Forwarded, and each is copied.
    Mirrored,
    /// Forwarded, with a mirror that gets one in a million (umbra alone).
    Unsampled,
}

impl Mode {
    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Mirrored => "mirrored",
            Self::Unsampled => "mirror at 0.0001 %",
        }
    }
}

/// Where clients connect, and what they call it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// The listener.
    pub(crate) address: SocketAddr,
    /// The Host header; umbra goes by it.
    pub(crate) host: &'static str,
}

/// What all of them are told.
#[derive(Clone, Debug)]
pub(crate) struct Wiring {
    /// `tests/bench`.
    pub(crate) configs: PathBuf,
    /// For logs and written configurations.
    pub(crate) folder: PathBuf,
    /// The backend that answers.
    pub(crate) primary: SocketAddr,
    /// The backend that gets copies; `None`: scaled to zero, which umbra alone can be told.
    pub(crate) mirror: Option<SocketAddr>,
    /// umbra-proxy; `None`: the one beside this program.
    pub(crate) umbra: Option<PathBuf>,
}

/// A running one. Dropping it kills it.
pub(crate) struct Peer {
    /// Which.
    pub(crate) kind: Kind,
    process: Process,
    listens: Listens,
    /// Where umbra is configured.
    push: SocketAddr,
}

/// The listeners of a peer.
#[derive(Clone, Copy, Debug)]
struct Listens {
    plain: SocketAddr,
    mirrored: SocketAddr,
    /// Plain, for clients of HTTP/2.
    http2: SocketAddr,
}

impl Kind {
    /// All that are compared, in the order of the table.
    pub(crate) const ALL: [Self; 5] = [Self::Umbra, Self::Raw, Self::Envoy, Self::Nginx, Self::Haproxy];

    fn is_umbra(self) -> bool {
        matches!(self, Self::Umbra | Self::Pair)
    }

    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Umbra => "umbra",
            Self::Pair => "umbra-2",
            Self::RawPair => "raw-2",
            Self::Raw => "raw",
            Self::Envoy => "Envoy",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
        }
    }

    /// Whether it can do that.
    pub(crate) fn can(self, mode: Mode) -> bool {
        match mode {
            Mode::Plain => true,
            Mode::Mirrored => self != Self::Haproxy,
            Mode::Unsampled => self.is_umbra(),
        }
    }

    /// Whether it is set up for clients and backends of HTTP/2. nginx 1.22 cannot be.
    fn speaks(self, mode: Mode, shape: Shape) -> bool {
        match self {
            Self::Umbra | Self::Pair | Self::Raw | Self::RawPair => true,
            Self::Envoy | Self::Haproxy => !shape.is_http2() || mode == Mode::Plain,
            Self::Nginx => !shape.is_http2(),
        }
    }

    /// Its program.
    ///
    /// # Errors
    /// It is not there; the message says how it comes.
    pub(crate) fn program(self) -> Result<PathBuf> {
        let own = std::env::current_exe()?;
        let (path, comes) = match self {
            Self::Umbra | Self::Pair => {
                (own.with_file_name("umbra-proxy"), "cargo build --release -p umbra-proxy")
            }
            Self::Raw | Self::RawPair => (own, "it is this program"),
            Self::Envoy => ("target/bench/envoy/envoy/_bin/envoy".into(), "tests/bench/packages.sh"),
            Self::Nginx => ("/usr/sbin/nginx".into(), "tests/bench/packages.sh"),
            Self::Haproxy => ("/usr/sbin/haproxy".into(), "tests/bench/packages.sh"),
        };
        ensure!(path.exists(), "{} is not here ({}): {comes}", self.name(), path.display());
        Ok(path)
    }

    /// What it says of itself, on one line.
    pub(crate) fn version(self) -> Result<String> {
        let flag = match self {
            Self::Raw | Self::RawPair => return Ok("the floor, of this bench".into()),
            Self::Umbra | Self::Pair | Self::Envoy => "--version",
            Self::Nginx | Self::Haproxy => "-v",
        };
        let output = Command::new(self.program()?).arg(flag).output()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        Ok(text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned())
    }
}

impl Peer {
    /// Starts it behind `wrapper`, a command that runs another (`taskset`, `valgrind`), and waits until it serves.
    ///
    /// # Errors
    /// It is missing, or it does not come up.
    pub(crate) fn start(kind: Kind, wiring: &Wiring, wrapper: &[String]) -> Result<Self> {
        let listens =
            Listens { plain: claim_address()?, mirrored: claim_address()?, http2: claim_address()? };
        let (push, metrics) = (claim_address()?, claim_address()?);
        let own = wiring.umbra.clone().filter(|_| kind.is_umbra());
        let program = own.map_or_else(|| kind.program(), Ok)?;
        let config = |template: &str| wiring.write(template, listens);
        let mut arguments: Vec<String> = wrapper.to_vec();
        arguments.push(program.display().to_string());
        arguments.extend(match kind {
            // A tool that counts makes it late, and copies would be given up for its users' sake.
            Kind::Umbra if !wrapper.is_empty() => {
                let mut flags = umbra(listens.plain, push, metrics, 1);
                flags.push("--shadow-max-lag=60m".to_owned());
                flags
            }
            Kind::Umbra => umbra(listens.plain, push, metrics, 1),
            Kind::Pair => umbra(listens.plain, push, metrics, 2),
            Kind::Raw => raw(listens, wiring, 1)?,
            Kind::RawPair => raw(listens, wiring, 2)?,
            Kind::Envoy => {
                let flags = "--concurrency 1 --log-level error --disable-hot-restart --config-path";
                flags.split(' ').map(str::to_owned).chain([config("envoy.yaml")?]).collect()
            }
            Kind::Nginx => vec!["-c".into(), config("nginx.conf")?],
            Kind::Haproxy => vec!["-db".into(), "-f".into(), config("haproxy.cfg")?],
        });
        let mut command = Command::new(&arguments[0]);
        command.args(&arguments[1..]);
        let log = wiring.folder.join(format!("{}.log", kind.name()));
        let mut process = Process::start(kind.name(), &command, &log)?;
        wait_for(&format!("{} listens", kind.name()), STARTS, || {
            if let Err(dead) = process.alive() {
                return Ok(Err(dead));
            }
            http::connect(if kind.is_umbra() { push } else { listens.plain }).map(|_| Ok(()))
        })??;
        if kind.is_umbra() {
            table::push(push, 1, &services(wiring))?;
        }
        Ok(Self { kind, process, listens, push })
    }

    /// umbra hears of its controller: without one for ten minutes it makes no copies.
    ///
    /// # Errors
    /// It does not answer.
    pub(crate) fn heartbeat(&self) -> Result<()> {
        if self.kind.is_umbra() { table::ask(self.push) } else { Ok(()) }
    }

    /// Where it does that for clients of this shape; `None`: it cannot.
    pub(crate) fn target(&self, mode: Mode, shape: Shape) -> Option<Target> {
        let host = match mode {
            Mode::Plain => "plain",
            Mode::Mirrored => "mirrored",
            Mode::Unsampled => "unsampled",
        };
        let Listens { plain, mirrored, http2 } = self.listens;
        // umbra has one listener and goes by the host, and bytes are bytes to raw; the others have one for each.
        let address = match (self.kind, mode) {
            (Kind::Umbra | Kind::Pair, _) => plain,
            (Kind::Envoy | Kind::Haproxy, Mode::Plain) if shape.is_http2() => http2,
            (_, Mode::Mirrored) => mirrored,
            _ => plain,
        };
        (self.kind.can(mode) && self.kind.speaks(mode, shape)).then_some(Target { address, host })
    }

    /// Its process, and of umbra, Envoy, nginx and HAProxy as they are started here the only one.
    pub(crate) fn process(&self) -> u32 {
        self.process.id()
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Errors
    /// When it goes on.
    pub(crate) fn end(mut self) -> Result<()> {
        self.process.terminate(ENDS).map(drop)
    }
}

impl Wiring {
    /// A configuration with its names filled in; gives its path.
    fn write(&self, template: &str, listens: Listens) -> Result<String> {
        let from = self.configs.join(template);
        let mut text = fs::read_to_string(&from).with_context(|| from.display().to_string())?;
        let Listens { plain, mirrored, http2 } = listens;
        let places = [
            ("plain", plain),
            ("mirrored", mirrored),
            ("http2", http2),
            ("primary", self.primary),
            ("mirror", self.mirror.context("it needs a mirror's address")?),
        ];
        for (name, address) in places {
            text = text
                .replace(&format!("@{name}@"), &address.to_string())
                .replace(&format!("@{name}.ip@"), &address.ip().to_string())
                .replace(&format!("@{name}.port@"), &address.port().to_string());
        }
        text = text.replace("@dir@", &self.folder.display().to_string());
        let to = self.folder.join(template);
        fs::write(&to, text).with_context(|| to.display().to_string())?;
        Ok(to.display().to_string())
    }
}

fn umbra(traffic: SocketAddr, push: SocketAddr, metrics: SocketAddr, workers: u8) -> Vec<String> {
    let flags =
        format!("--node bench --intercept=off --workers={workers} --admin-listen 127.0.0.1:0 --log error");
    let places = [("--listen", traffic), ("--push-listen", push), ("--metrics-listen", metrics)];
    let places = places.map(|(flag, address)| [flag.to_owned(), address.to_string()]);
    flags.split(' ').map(str::to_owned).chain(places.into_iter().flatten()).collect()
}

fn raw(listens: Listens, wiring: &Wiring, workers: u8) -> Result<Vec<String>> {
    let places = [
        ("--plain", listens.plain),
        ("--mirrored", listens.mirrored),
        ("--primary", wiring.primary),
        ("--mirror", wiring.mirror.context("it needs a mirror's address")?),
    ];
    let places = places.map(|(flag, address)| [flag.to_owned(), address.to_string()]);
    let command = ["raw".to_owned(), format!("--workers={workers}")];
    Ok(command.into_iter().chain(places.into_iter().flatten()).collect())
}

/// The three services, each with what a VirtualService has by default in Istio, and a timeout.
fn services(wiring: &Wiring) -> [Shadowed<'static>; 3] {
    let on = vec![RetryOn::ConnectFailure, RetryOn::RefusedStream, RetryOn::Unavailable, RetryOn::Cancelled];
    let retries = Some(Retries { attempts: 2, on, ..Retries::default() });
    let rule = Rule { retries, timeout_ms: Some(TIMEOUT_MS), ..Rule::default() };
    let service = |name, per_million| {
        let v2 = (per_million > 0).then_some(Copies { endpoint: wiring.mirror, per_million });
        Shadowed { name, v1: wiring.primary, v2, rule: rule.clone() }
    };
    [service("plain", 0), service("mirrored", 1_000_000), service("unsampled", 1)]
}

/// `tests/bench`, where the peers' configurations are.
pub(crate) fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
