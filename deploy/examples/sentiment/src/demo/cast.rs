//! The programs that play. Each ends with its [`Player`], also when the demo fails.

use std::ffi::OsStr;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use super::{Args, CEILING, SHADOW_TIMEOUT, SLEEP_SECONDS};

/// Why a program does not play.
#[derive(Debug, thiserror::Error)]
pub enum CastError {
    /// It is not there or may not run; `make demo` builds it.
    #[error("{0}: {1} (build it first: `make demo` does)")]
    Start(PathBuf, std::io::Error),
    /// Its log cannot be written.
    #[error("{0}: {1}")]
    Log(PathBuf, std::io::Error),
    /// It ended, or closed its output.
    #[error("{name} has ended; its last words, from {log}:\n{last}")]
    Ended {
        /// Which program.
        name: String,
        /// Where all its words are.
        log: PathBuf,
        /// The end of it.
        last: String,
    },
    /// It runs and says nothing.
    #[error("{0} printed nothing within {1:?}; its log is {2}")]
    Silent(String, Duration, PathBuf),
    /// Its first line does not say where it listens.
    #[error("{0} printed {1:?} instead of its address")]
    NoAddress(String, String),
}

/// Where the programs and their logs are.
pub(super) struct Cast {
    programs: PathBuf,
    folder: PathBuf,
}

impl Cast {
    pub(super) fn new(args: &Args) -> std::io::Result<Self> {
        let beside = || {
            let own = std::env::current_exe()?;
            Ok::<_, std::io::Error>(own.parent().unwrap_or(Path::new(".")).to_owned())
        };
        let programs = args.programs.clone().map_or_else(beside, Ok)?;
        Ok(Self { programs, folder: args.folder.clone() })
    }

    pub(super) async fn sa_logic(&self, version: &str, number: u32) -> Result<Player, CastError> {
        let name = format!("sa-logic-{version}-{number}");
        let args = ["--listen", "127.0.0.1:0", "--version", version, "--sleep-seconds", SLEEP_SECONDS];
        self.start(&name, "sa-logic", args)?.listening().await
    }

    pub(super) async fn sa_web_app(&self, traffic: SocketAddr) -> Result<Player, CastError> {
        let traffic = traffic.to_string();
        let args = ["--listen", "127.0.0.1:0", "--sa-logic-address", &traffic];
        self.start("sa-web-app", "sa-web-app", args)?.listening().await
    }

    pub(super) fn umbra(&self, manifests: &Path) -> Result<Player, CastError> {
        let any = "127.0.0.1:0";
        let args = ["up", "--listen", any, "--metrics-listen", any, "--shadow-timeout", SHADOW_TIMEOUT];
        let args = args.map(OsStr::new).into_iter();
        let files = [OsStr::new("--output"), OsStr::new("json"), OsStr::new("-f"), manifests.as_os_str()];
        self.start("umbra", "umbra", args.chain(files))
    }

    fn start(
        &self,
        name: &str,
        program: &str,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<Player, CastError> {
        let log = self.folder.join(format!("{name}.log"));
        let stderr = File::create(&log).map_err(|error| CastError::Log(log.clone(), error))?;
        let path = self.programs.join(program);
        let mut child = Command::new(&path)
            .args(args)
            // What a person's shell happens to export must not change the play.
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| CastError::Start(path, error))?;
        let stdout = child.stdout.take().expect("piped");
        let lines = Some(BufReader::new(stdout).lines());
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        Ok(Player { name: name.to_owned(), address, log, lines, _child: child })
    }
}

/// A running program; dropping it kills it.
pub(super) struct Player {
    pub(super) name: String,
    /// Where it listens, once it has said so.
    pub(super) address: SocketAddr,
    log: PathBuf,
    lines: Option<Lines<BufReader<ChildStdout>>>,
    _child: Child,
}

impl Player {
    /// The next line it prints.
    pub(super) async fn line(&mut self) -> Result<String, CastError> {
        let Some(lines) = &mut self.lines else { return Err(self.ended()) };
        match timeout(CEILING, lines.next_line()).await {
            Ok(Ok(Some(line))) => Ok(line),
            Ok(_) => Err(self.ended()),
            Err(_) => Err(CastError::Silent(self.name.clone(), CEILING, self.log.clone())),
        }
    }

    /// Reads on and forgets, so that it never blocks on a full pipe.
    pub(super) fn keep_reading(&mut self) {
        if let Some(mut lines) = self.lines.take() {
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        }
    }

    async fn listening(mut self) -> Result<Self, CastError> {
        let line = self.line().await?;
        match super::address(&line, "listening") {
            Ok(address) => self.address = address,
            Err(_) => return Err(CastError::NoAddress(self.name.clone(), line)),
        }
        self.keep_reading();
        Ok(self)
    }

    fn ended(&self) -> CastError {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(10)..].join("\n");
        CastError::Ended { name: self.name.clone(), log: self.log.clone(), last }
    }
}
