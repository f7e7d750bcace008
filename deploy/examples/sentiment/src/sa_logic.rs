//! `sa-logic`: says how a sentence feels. Version v2-buggy is the article's: of 101 equally likely cases 33 answer
//! 500 at once, 32 sleep and then answer 500, the rest are right. Counts what it saw, so that copies can be compared.

mod stats;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;
use serde_json::json;

use crate::server::{self, Answer, ServerArgs};
pub use stats::{Seen, Stats};

/// A sentence is short; whatever is longer than this is refused before it costs memory.
const LARGEST_BODY: usize = 1 << 20;

/// Flags of `sa-logic`.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "sa-logic", about = "Says how a sentence feels; v2-buggy often fails to")]
pub struct Args {
    /// Which version to play.
    #[arg(long, env = "VERSION", value_enum, default_value_t = Version::V1)]
    pub version: Version,
    /// Seconds that a hanging case sleeps before it answers 500.
    #[arg(long, env = "SLEEP_SECONDS", default_value_t = 30.0)]
    pub sleep_seconds: f64,
    /// Makes the cases come in the same order each time.
    #[arg(long, env = "SEED")]
    pub seed: Option<u64>,
    /// How many of the last requests `GET /stats` shows in full.
    #[arg(long, env = "RECORD", default_value_t = 2000)]
    pub record: usize,
    /// Where and how to serve.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// A version of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Version {
    /// Always right.
    V1,
    /// The second version as it should have been: always right, for tests of who answers.
    V2,
    /// The article's bug.
    V2Buggy,
}

impl Version {
    /// What the answers call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 | Self::V2Buggy => "v2",
        }
    }
}

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// Answered.
    Right,
    /// 500 at once.
    Fails,
    /// Sleeps, then 500.
    Hangs,
}

impl Case {
    /// The article's dice: `roll` is one of 1..=101.
    pub fn of(roll: u8) -> Self {
        match roll {
            ..34 => Self::Fails,
            34..66 => Self::Hangs,
            66.. => Self::Right,
        }
    }
}

/// The running program.
pub struct SaLogic {
    version: Version,
    sleep: Duration,
    dice: Mutex<fastrand::Rng>,
    stats: Mutex<Stats>,
}

#[derive(Deserialize)]
struct Question {
    sentence: String,
}

impl SaLogic {
    /// The program that `args` describe, with nothing seen yet.
    pub fn new(args: &Args) -> Arc<Self> {
        Arc::new(Self {
            version: args.version,
            sleep: Duration::from_secs_f64(args.sleep_seconds),
            dice: Mutex::new(args.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed)),
            stats: Mutex::new(Stats::new(args.version.name(), args.record)),
        })
    }

    /// Answers one request.
    pub async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/healthz") => {
                server::json(StatusCode::OK, &json!({"version": self.version.name()}))
            }
            (&Method::GET, "/stats") => server::json(StatusCode::OK, &json!(*self.stats())),
            (&Method::DELETE, "/stats") => {
                self.stats().clear();
                server::json(StatusCode::OK, &json!({}))
            }
            _ => self.counted(request).await,
        }
    }

    async fn counted(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, LARGEST_BODY).collect().await.map(http_body_util::Collected::to_bytes);
        self.stats().saw(&head, body.as_deref().unwrap_or_default());
        let answer = match (body, &head.method, head.uri.path()) {
            (Err(_), ..) => {
                self.refused(StatusCode::PAYLOAD_TOO_LARGE, "the body broke off or is over 1 MiB")
            }
            (Ok(body), &Method::POST, "/analyse/sentiment") => self.sentiment(&body).await,
            (Ok(_), _, "/analyse/sentiment") => self.refused(StatusCode::METHOD_NOT_ALLOWED, "POST it"),
            (Ok(_), ..) => self.refused(StatusCode::NOT_FOUND, "only /analyse/sentiment is here"),
        };
        self.stats().answered(answer.status());
        answer
    }

    async fn sentiment(&self, body: &Bytes) -> Answer {
        let question: Question = match serde_json::from_slice(body) {
            Ok(question) => question,
            Err(error) => return self.refused(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        match self.draw() {
            Case::Right => {}
            Case::Fails => return self.refused(StatusCode::INTERNAL_SERVER_ERROR, "the bug"),
            Case::Hangs => {
                tokio::time::sleep(self.sleep).await;
                return self.refused(StatusCode::INTERNAL_SERVER_ERROR, "the slow bug");
            }
        }
        let polarity = polarity(&question.sentence);
        let answer =
            json!({"sentence": question.sentence, "polarity": polarity, "version": self.version.name()});
        server::json(StatusCode::OK, &answer)
    }

    fn draw(&self) -> Case {
        match self.version {
            Version::V1 | Version::V2 => Case::Right,
            Version::V2Buggy => Case::of(self.dice.lock().expect("no panic while rolling").u8(1..=101)),
        }
    }

    fn refused(&self, status: StatusCode, error: &str) -> Answer {
        server::json(status, &json!({"error": error, "version": self.version.name()}))
    }

    fn stats(&self) -> std::sync::MutexGuard<'_, Stats> {
        self.stats.lock().expect("no panic while counting")
    }
}

/// From -1 (bad) to 1 (good): the share of good words less that of bad ones among the words it knows.
pub fn polarity(sentence: &str) -> f64 {
    const GOOD: [&str; 8] = ["love", "like", "good", "great", "happy", "nice", "best", "yay"];
    const BAD: [&str; 8] = ["hate", "bad", "sad", "awful", "angry", "worst", "broken", "ugh"];
    let words = sentence.split(|c: char| !c.is_alphanumeric()).map(str::to_lowercase);
    let (good, bad) = words.fold((0_u32, 0_u32), |(good, bad), word| {
        (good + u32::from(GOOD.contains(&&*word)), bad + u32::from(BAD.contains(&&*word)))
    });
    if good + bad == 0 { 0.0 } else { (f64::from(good) - f64::from(bad)) / f64::from(good + bad) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_101_cases_33_fail_and_32_hang() {
        let cases: Vec<_> = (1..=101).map(Case::of).collect();
        let count = |case| cases.iter().filter(|c| **c == case).count();
        assert_eq!((count(Case::Fails), count(Case::Hangs), count(Case::Right)), (33, 32, 36));
    }

    #[test]
    fn a_seed_repeats_the_draw_and_v1_never_fails() {
        let program = |version, seed| {
            let args = <Args as clap::Parser>::parse_from(["sa-logic", "--listen", "127.0.0.1:0"]);
            SaLogic::new(&Args { version, seed, ..args })
        };
        let draws = |program: &SaLogic| (0..200).map(|_| program.draw()).collect::<Vec<_>>();
        let first = draws(&program(Version::V2Buggy, Some(7)));
        assert_eq!(first, draws(&program(Version::V2Buggy, Some(7))));
        assert!(first.contains(&Case::Fails) && first.contains(&Case::Hangs) && first.contains(&Case::Right));
        assert!(draws(&program(Version::V1, Some(7))).iter().all(|case| *case == Case::Right));
    }

    #[test]
    fn polarity_weighs_good_against_bad() {
        assert!((polarity("I love yoga!") - 1.0).abs() < f64::EPSILON);
        assert!((polarity("Ugh, I hate it") + 1.0).abs() < f64::EPSILON);
        assert!(polarity("good and bad").abs() < f64::EPSILON);
        assert!(polarity("water is wet").abs() < f64::EPSILON);
    }
}
