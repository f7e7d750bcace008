//! `load`: the users. Sends questions at a steady rate, checks every answer, and says how long they took.
//!
//! Open loop: a request is due at its time whatever became of those before, and its latency counts from then, so a
//! pause shows in every request that it delayed. `--at-most` bounds what is under way.

mod report;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::{Client, ClientError};
use crate::resolver::{ResolvConf, Resolver};
use crate::sa_web_app::REQUEST_ID;
pub use report::Report;

/// What the users say, in turn.
const SENTENCES: [&str; 4] =
    ["I love yoga", "I hate mondays", "a good and a bad thing", "it rains in Bergen"];

/// Flags of `load`.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "load", about = "Sends questions to sa-web-app and checks the answers")]
pub struct Args {
    /// Where to ask.
    #[arg(long, env = "LOAD_URL", default_value = "http://sa-web-app/sentiment")]
    pub url: Uri,
    /// Connect to this address instead of what the URL's name resolves to.
    #[arg(long)]
    pub address: Option<SocketAddr>,
    /// How many requests.
    #[arg(long, default_value_t = 1000)]
    pub requests: u32,
    /// How many a second.
    #[arg(long, default_value_t = 50.0)]
    pub rate: f64,
    /// How many may be under way at once; a request that must wait counts its waiting as latency.
    #[arg(long, default_value_t = 512)]
    pub at_most: usize,
    /// Seconds after which an answer is missing.
    #[arg(long, default_value_t = 30.0)]
    pub timeout_seconds: f64,
    /// The version that every answer must come from; absent takes any.
    #[arg(long)]
    pub expect_version: Option<String>,
    /// Requests carry `x-request-id: PREFIX-NUMBER`; absent makes a random prefix.
    #[arg(long)]
    pub request_id_prefix: Option<String>,
    /// Whom to ask for names.
    #[arg(long, default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,
}

/// Why nothing can be sent.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// `--url` is of no use.
    #[error(transparent)]
    Url(#[from] ClientError),
    /// `--rate` must be above 0.
    #[error("--rate {0}: must be above 0")]
    Rate(f64),
    /// A file could not be read, or standard output not be written.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Sends all, prints the [`Report`] as one line of JSON; success when nothing failed.
///
/// # Errors
/// See [`LoadError`]: nothing was sent, or the report could not be printed.
pub async fn run(args: &Args) -> Result<ExitCode, LoadError> {
    let report = send(args, |_| {}).await?;
    writeln!(std::io::stdout(), "{}", json!(report))?;
    Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Sends all requests and waits for their answers; `progress` hears each time how many are done.
///
/// # Errors
/// When the flags are of no use; a failed request is no error but counted.
pub async fn send(args: &Args, mut progress: impl FnMut(u64)) -> Result<Report, LoadError> {
    if args.rate.is_nan() || args.rate <= 0.0 {
        return Err(LoadError::Rate(args.rate));
    }
    let users = Arc::new(Users::new(args)?);
    let slots = Arc::new(Semaphore::new(args.at_most.max(1)));
    let (mut report, mut under_way) = (Report::default(), JoinSet::new());
    let start = Instant::now();
    for number in 0..args.requests {
        let due = start + Duration::from_secs_f64(f64::from(number) / args.rate);
        let ready = async {
            tokio::time::sleep_until(due).await;
            Arc::clone(&slots).acquire_owned().await.expect("never closed")
        };
        let mut ready = std::pin::pin!(ready);
        let slot = loop {
            tokio::select! {
                slot = &mut ready => break slot,
                Some(done) = under_way.join_next() => progress(report.add(done)),
            }
        };
        let users = Arc::clone(&users);
        under_way.spawn(async move {
            let answered = users.ask(number).await;
            drop(slot);
            (due.elapsed(), answered)
        });
    }
    while let Some(done) = under_way.join_next().await {
        progress(report.add(done));
    }
    Ok(report.closed())
}

/// Who asks, and what they expect.
struct Users {
    client: Client,
    path: Uri,
    prefix: String,
    version: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    sentence: String,
    version: String,
}

impl Users {
    fn new(args: &Args) -> Result<Self, LoadError> {
        let resolver = Resolver::new(ResolvConf::read(&args.resolv_conf)?);
        let limit = Duration::from_secs_f64(args.timeout_seconds);
        let path = args.url.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            client: Client::new(&args.url, args.address, resolver, limit)?,
            path: path.parse().expect("a URL's path is a URI"),
            prefix: args
                .request_id_prefix
                .clone()
                .unwrap_or_else(|| format!("load-{:08x}", fastrand::u32(..))),
            version: args.expect_version.clone(),
        })
    }

    async fn ask(&self, number: u32) -> Result<(), String> {
        let sentence = SENTENCES[number as usize % SENTENCES.len()];
        let request = Request::post(self.path.clone())
            .header("host", self.client.authority().as_str())
            .header("content-type", "application/json")
            .header(REQUEST_ID, format!("{}-{number}", self.prefix))
            .body(Full::new(Bytes::from(json!({"sentence": sentence}).to_string())))
            .map_err(|error| error.to_string())?;
        let answer = self.client.request(request).await.map_err(|error| error.to_string())?;
        check(&answer, sentence, self.version.as_deref())
    }
}

/// Status 200, the sentence that was asked about, and the version that was expected.
fn check(answer: &Response<Bytes>, sentence: &str, version: Option<&str>) -> Result<(), String> {
    if answer.status() != StatusCode::OK {
        return Err(format!("status {}: {}", answer.status(), String::from_utf8_lossy(answer.body())));
    }
    let body: Answer = serde_json::from_slice(answer.body()).map_err(|error| format!("body: {error}"))?;
    if body.sentence != sentence {
        return Err(format!("an answer to {:?} instead of {sentence:?}", body.sentence));
    }
    match version {
        Some(version) if body.version != version => {
            Err(format!("answered by {} instead of {version}", body.version))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &'static str) -> Response<Bytes> {
        Response::builder().status(status).body(Bytes::from_static(body.as_bytes())).unwrap()
    }

    #[test]
    fn an_answer_must_be_right_in_status_sentence_and_version() {
        let right = answer(200, r#"{"sentence":"x","polarity":0,"version":"v1"}"#);
        assert_eq!(check(&right, "x", Some("v1")), Ok(()));
        assert_eq!(check(&right, "x", None), Ok(()));
        assert!(check(&right, "x", Some("v2")).unwrap_err().contains("answered by v1"));
        assert!(check(&right, "y", None).unwrap_err().contains("instead of \"y\""));
        assert!(check(&answer(503, "no endpoint"), "x", None).unwrap_err().contains("503"));
        assert!(check(&answer(200, "<html>"), "x", None).unwrap_err().starts_with("body"));
    }
}
