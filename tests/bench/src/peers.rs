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
use umbra_testkit::{Process, http, wait_for};

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
    /// The backend that gets copies.
    pub(crate) mirror: SocketAddr,
}

/// A running one. Dropping it kills it.
pub(crate) struct Peer {
    /// Which.
    pub(crate) kind: Kind,
    process: Process,
    plain: SocketAddr,
    mirrored: SocketAddr,
}

impl Kind {
    /// All of them, in the order of the table.
    pub(crate) const ALL: [Self; 5] = [Self::Umbra, Self::Raw, Self::Envoy, Self::Nginx, Self::Haproxy];

    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Umbra => "umbra",
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
            Mode::Unsampled => self == Self::Umbra,
        }
    }

    /// Its program.
    ///
    /// # Errors
    /// It is not there; the message says how it comes.
    pub(crate) fn program(self) -> Result<PathBuf> {
        let own = std::env::current_exe()?;
        let (path, comes) = match self {
            Self::Umbra => (own.with_file_name("umbra-proxy"), "cargo build --release -p umbra-proxy"),
            Self::Raw => (own, "it is this program"),
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
            Self::Raw => return Ok("the floor, of this bench".into()),
            Self::Umbra | Self::Envoy => "--version",
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
        let (plain, mirrored, metrics) = (free()?, free()?, free()?);
        let push = free()?;
        let program = kind.program()?;
        let config = |template: &str| wiring.write(template, plain, mirrored);
        let mut arguments: Vec<String> = wrapper.to_vec();
        arguments.push(program.display().to_string());
        arguments.extend(match kind {
            Kind::Umbra => umbra(plain, push, metrics),
            Kind::Raw => raw(plain, mirrored, wiring),
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
            http::connect(if kind == Kind::Umbra { push } else { plain }).map(|_| Ok(()))
        })??;
        if kind == Kind::Umbra {
            table::push(push, 1, &services(wiring))?;
        }
        Ok(Self { kind, process, plain, mirrored })
    }

    /// Where it does that; `None`: it cannot.
    pub(crate) fn target(&self, mode: Mode) -> Option<Target> {
        let host = match mode {
            Mode::Plain => "plain",
            Mode::Mirrored => "mirrored",
            Mode::Unsampled => "unsampled",
        };
        // umbra has one listener and goes by the host; the others have one for each.
        let apart = self.kind != Kind::Umbra && mode == Mode::Mirrored;
        let address = if apart { self.mirrored } else { self.plain };
        self.kind.can(mode).then_some(Target { address, host })
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
    fn write(&self, template: &str, plain: SocketAddr, mirrored: SocketAddr) -> Result<String> {
        let from = self.configs.join(template);
        let mut text = fs::read_to_string(&from).with_context(|| from.display().to_string())?;
        let places =
            [("plain", plain), ("mirrored", mirrored), ("primary", self.primary), ("mirror", self.mirror)];
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

fn free() -> Result<SocketAddr> {
    Ok(SocketAddr::from(([127, 0, 0, 1], http::free_port()?)))
}

fn umbra(traffic: SocketAddr, push: SocketAddr, metrics: SocketAddr) -> Vec<String> {
    let flags = "--node bench --intercept=off --workers=1 --admin-listen 127.0.0.1:0 --log error";
    let places = [("--listen", traffic), ("--push-listen", push), ("--metrics-listen", metrics)];
    let places = places.map(|(flag, address)| [flag.to_owned(), address.to_string()]);
    flags.split(' ').map(str::to_owned).chain(places.into_iter().flatten()).collect()
}

fn raw(plain: SocketAddr, mirrored: SocketAddr, wiring: &Wiring) -> Vec<String> {
    let places = [
        ("--plain", plain),
        ("--mirrored", mirrored),
        ("--primary", wiring.primary),
        ("--mirror", wiring.mirror),
    ];
    let places = places.map(|(flag, address)| [flag.to_owned(), address.to_string()]);
    ["raw".to_owned()].into_iter().chain(places.into_iter().flatten()).collect()
}

/// The three services, each with what a VirtualService has by default in Istio, and a timeout.
fn services(wiring: &Wiring) -> [Shadowed<'static>; 3] {
    let on = vec![RetryOn::ConnectFailure, RetryOn::RefusedStream, RetryOn::Unavailable, RetryOn::Cancelled];
    let retries = Some(Retries { attempts: 2, on, ..Retries::default() });
    let rule = Rule { retries, timeout_ms: Some(TIMEOUT_MS), ..Rule::default() };
    let service = |name, per_million| {
        let v2 = (per_million > 0).then_some(Copies { endpoint: Some(wiring.mirror), per_million });
        Shadowed { name, v1: wiring.primary, v2, rule: rule.clone() }
    };
    [service("plain", 0), service("mirrored", 1_000_000), service("unsampled", 1)]
}

/// `tests/bench`, where the peers' configurations are.
pub(crate) fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
