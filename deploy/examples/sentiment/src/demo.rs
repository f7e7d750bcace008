//! The demo: the article on one machine, in processes on loopback.
//!
//! Takes: the programs beside its own, and an empty folder. Gives: what users saw beside what the shadow did, on
//! screen and as JSON; failure when a user was affected or the sums do not add up. Knows umbra only as a person
//! does: by its command, what it prints, and `/metrics`.

mod cast;
mod ledger;
mod metrics;
mod scene;
mod screen;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::client::{Client, ClientError};
use crate::load::{self, LoadError, Report};
use crate::resolver::{ResolvConf, Resolver};
use cast::{CastError, Player};
pub use ledger::{Ledger, Shadow, Users};

/// The article's 30 s and umbra's 10 s, each a tenth: a hanging copy is given up as it would be, only sooner.
const SLEEP_SECONDS: &str = "3";
const SHADOW_TIMEOUT: &str = "1s";
/// Programs on loopback answer in milliseconds; this only ends a wait for one that never will.
const CEILING: Duration = Duration::from_secs(60);
/// Between two looks at counters.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Flags of the demo.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "sentiment-demo", about = "Plays the article on this machine and prints what became of it")]
pub struct Args {
    /// How many requests the users send.
    #[arg(long, default_value_t = 404)]
    pub requests: u32,
    /// How many a second.
    #[arg(long, default_value_t = 100.0)]
    pub rate: f64,
    /// How many at once.
    #[arg(long, default_value_t = 16)]
    pub at_most: usize,
    /// Where the programs are; absent means beside this one.
    #[arg(long)]
    pub programs: Option<PathBuf>,
    /// A folder for manifests and logs; it is emptied first.
    #[arg(long, default_value = "target/demo")]
    pub folder: PathBuf,
    /// Where to write the result.
    #[arg(long, default_value = "target/demo.json")]
    pub result: PathBuf,
}

/// Why the demo could not be played to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A program of the demo cannot be started or ended too soon; its log says more.
    #[error(transparent)]
    Cast(#[from] CastError),
    /// The users could not send.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A program does not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The scratch folder or the result cannot be written.
    #[error("{0}: {1}")]
    File(PathBuf, std::io::Error),
    /// Standard output cannot be written.
    #[error("cannot print: {0}")]
    Print(#[from] std::io::Error),
    /// What should have come did not; the log in the folder says more.
    #[error("waited {CEILING:?} for {0}")]
    Waited(&'static str),
    /// What a program prints or serves is not what was agreed.
    #[error("{0} is not understood: {1}")]
    Unexpected(&'static str, String),
    /// A person pressed Ctrl-C.
    #[error("stopped")]
    Stopped,
}

/// Plays the demo; all its programs have ended when this returns, whatever became of it.
///
/// # Errors
/// See [`DemoError`]. An affected user is no error but [`ExitCode::FAILURE`].
pub async fn run(args: &Args) -> Result<ExitCode, DemoError> {
    let stop = crate::server::stop_signal()?;
    let ledger = tokio::select! {
        played = play(args) => played?,
        () = stop => return Err(DemoError::Stopped),
    };
    let json = serde_json::to_string(&ledger).expect("numbers and strings");
    std::fs::write(&args.result, json + "\n").map_err(|error| DemoError::File(args.result.clone(), error))?;
    screen::result(&ledger, &args.result)?;
    Ok(if ledger.complaints().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Dropping it (or returning from it) ends the programs: see [`Player`].
async fn play(args: &Args) -> Result<Ledger, DemoError> {
    screen::opening(args)?;
    scene::empty(&args.folder)?;
    let stage = Stage::set(args).await?;
    screen::ready(&stage.traffic, &stage.metrics)?;
    let bar = screen::bar(args.requests.into());
    let users = load::send(&stage.load(args), |done| bar.set_position(done)).await?;
    bar.finish_and_clear();
    let shadow = stage.settled(&users).await?;
    let seen = Seen { v1: stage.seen(&stage.v1).await?, v2: stage.seen(&stage.v2).await? };
    Ok(Ledger::new(&users, shadow, seen))
}

/// How many requests reached each version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// All pods of v1 together.
    pub v1: u64,
    /// All pods of v2 together.
    pub v2: u64,
}

/// Everything that runs.
struct Stage {
    v1: Vec<Player>,
    v2: Vec<Player>,
    /// Kept for as long as the stage is.
    _umbra: Player,
    web_app: Player,
    traffic: SocketAddr,
    metrics: SocketAddr,
}

impl Stage {
    /// Starts the pods, writes their manifests, starts umbra, and the caller when umbra says it serves.
    async fn set(args: &Args) -> Result<Self, DemoError> {
        let cast = cast::Cast::new(args)?;
        let v1 = vec![cast.sa_logic("v1", 1).await?, cast.sa_logic("v1", 2).await?];
        let v2 = vec![cast.sa_logic("v2-buggy", 1).await?, cast.sa_logic("v2-buggy", 2).await?];
        scene::write(&args.folder, &v1, &v2)?;
        let mut umbra = cast.umbra(&args.folder)?;
        let bound = umbra.line().await?;
        let (traffic, metrics) = (address(&bound, "traffic")?, address(&bound, "metrics")?);
        timeout(CEILING, programmed(&mut umbra))
            .await
            .map_err(|_| DemoError::Waited("virtualservice default/sa-logic to be Programmed"))??;
        umbra.keep_reading();
        let web_app = cast.sa_web_app(traffic).await?;
        Ok(Self { v1, v2, _umbra: umbra, web_app, traffic, metrics })
    }

    fn load(&self, args: &Args) -> load::Args {
        load::Args {
            url: Uri::from_static("http://sa-web-app/sentiment"),
            address: Some(self.web_app.address),
            requests: args.requests,
            rate: args.rate,
            at_most: args.at_most,
            timeout_seconds: 30.0,
            expect_version: Some("v1".to_owned()),
            request_id_prefix: None,
            resolv_conf: "/etc/resolv.conf".into(),
        }
    }

    /// Waits until nothing is in flight. Sums that never come out right are the ledger's to complain of.
    async fn settled(&self, users: &Report) -> Result<Shadow, DemoError> {
        let waiting = screen::waiting();
        let settled = async {
            loop {
                let shadow = self.shadow().await?;
                waiting.set_message(format!("{} copies in flight", shadow.in_flight()));
                if shadow.eligible >= users.requests && shadow.in_flight() == 0 {
                    return Ok::<_, DemoError>(shadow);
                }
                sleep(LOOK_AGAIN).await;
            }
        };
        match timeout(CEILING, settled).await {
            Ok(shadow) => shadow,
            Err(_) => self.shadow().await,
        }
    }

    async fn shadow(&self) -> Result<Shadow, DemoError> {
        let text = get(self.metrics, "/metrics").await?;
        Ok(Shadow::read(&metrics::parse(&String::from_utf8_lossy(&text))))
    }

    /// A pod that does not answer has seen nothing that anybody could vouch for: then the sums say so.
    async fn seen(&self, pods: &[Player]) -> Result<u64, DemoError> {
        let mut seen = 0;
        for pod in pods {
            let Ok(text) = get(pod.address, "/stats").await else { continue };
            let stats: Value = serde_json::from_slice(&text)
                .map_err(|error| DemoError::Unexpected("/stats", error.to_string()))?;
            seen += stats["requests"]["/analyse/sentiment"].as_u64().unwrap_or(0);
        }
        Ok(seen)
    }
}

/// Reads umbra's lines until the VirtualService is in force.
async fn programmed(umbra: &mut Player) -> Result<(), DemoError> {
    loop {
        let line: Value = json_line(&umbra.line().await?)?;
        let conditions = line["conditions"].as_array().into_iter().flatten();
        let is_true = |condition: &Value| condition["type"] == "Programmed" && condition["status"] == "True";
        if line["object"] == "virtualservice default/sa-logic" && conditions.into_iter().any(is_true) {
            return Ok(());
        }
    }
}

fn json_line(line: &str) -> Result<Value, DemoError> {
    serde_json::from_str(line).map_err(|_| DemoError::Unexpected("a line of output", line.to_owned()))
}

fn address(line: &str, field: &str) -> Result<SocketAddr, DemoError> {
    let address = json_line(line)?[field].as_str().and_then(|text| text.parse().ok());
    address.ok_or_else(|| DemoError::Unexpected("the first line of output", line.to_owned()))
}

async fn get(address: SocketAddr, path: &'static str) -> Result<Bytes, DemoError> {
    let origin = Uri::from_static("http://localhost");
    let resolver = Resolver::new(ResolvConf::default());
    let client = Client::new(&origin, Some(address), resolver, Duration::from_secs(10))?;
    let request = Request::get(path).header("host", "localhost").body(Full::default());
    Ok(client.request(request.expect("a static path")).await?.into_body())
}
