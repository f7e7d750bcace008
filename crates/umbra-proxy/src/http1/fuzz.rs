//! Whatever bytes come: parsers of umbra's own never panic, read the same in any pieces, read nothing of the next message,
//! look at each byte a few times at most, hold no more than their limits, and what they accept is the same message when
//! it is written again.
//!
//! Each target replays its corpus (`tests/corpora`), then changes it, the same way each time. `FUZZ_SECONDS=60` goes on
//! for so long with new changes (`make fuzz`), and writes down what fails. There is no coverage to steer by on a stable
//! toolchain: inputs with new outcomes are changed further instead.

mod again;
mod mutate;
mod read;
mod targets;

use std::collections::HashSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub(super) use mutate::changed;
pub(super) use read::{End, Message, Reader, Side, Start};

/// Largest head in these tests: small enough to be met.
pub(super) const LIMIT: usize = 1024;
/// Changed inputs per target where no time is said; a second or so in a debug build.
const CASES: usize = 4000;
/// Inputs that are changed further.
const MOST_SAMPLES: usize = 4000;

/// What came of an input, roughly: inputs with the same outcome are of a kind.
type Outcome = String;

/// One parser, and what it promises.
struct Target {
    /// Its folder of the corpora.
    name: &'static str,
    check: fn(&[u8]) -> Result<Outcome, String>,
}

impl Target {
    fn run(&self) {
        let mut samples = samples(self.name);
        let mut outcomes = HashSet::new();
        for sample in &samples {
            outcomes.insert(self.tried(sample).unwrap_or_else(|wrong| self.fails(sample, &wrong)));
        }
        let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
        let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let mut rng = until.map_or_else(|| fastrand::Rng::with_seed(1), |_| fastrand::Rng::new());
        let mut count = 0_usize;
        while until.map_or(count < CASES, |until| Instant::now() < until) {
            let input = changed(&mut rng, &samples);
            count += 1;
            let outcome = self.tried(&input).unwrap_or_else(|wrong| self.fails(&input, &wrong));
            if samples.len() < MOST_SAMPLES && outcomes.insert(outcome) {
                samples.push(input);
            }
        }
        eprintln!("measured: fuzz: {}: {count} inputs, {} outcomes", self.name, outcomes.len());
    }

    fn tried(&self, input: &[u8]) -> Result<Outcome, String> {
        catch_unwind(AssertUnwindSafe(|| (self.check)(input))).unwrap_or_else(|_| Err("it panics".into()))
    }

    fn fails(&self, input: &[u8], wrong: &str) -> ! {
        let smallest = smaller(input.to_vec(), |input| self.tried(input).is_err());
        let wrong = self.tried(&smallest).err().unwrap_or_else(|| wrong.into());
        if std::env::var_os("FUZZ_SECONDS").is_some() {
            self.write(&smallest);
        }
        panic!("{}: b\"{}\": {wrong}", self.name, smallest.escape_ascii());
    }

    /// For the next run, and for who repairs it.
    fn write(&self, input: &[u8]) {
        let hash = input.iter().fold(5381_u32, |hash, byte| hash.wrapping_mul(33) ^ u32::from(*byte));
        let path = folder(self.name).join(format!("failed-{hash:08x}"));
        fs::write(&path, input).expect("the corpora's folder can be written to");
    }
}

/// The corpus of a target, in the same order each time.
pub(super) fn samples(name: &str) -> Vec<Vec<u8>> {
    let files = fs::read_dir(folder(name)).expect("each target has a corpus");
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("it can be listed").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{name} has no corpus");
    paths.into_iter().map(|path| fs::read(path).expect("it can be read")).collect()
}

fn folder(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "corpora", name].iter().collect()
}

/// Takes away of `input` what is not needed for it to fail.
pub(super) fn smaller(mut input: Vec<u8>, fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut size = input.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at + size <= input.len() {
            let without = [&input[..at], &input[at + size..]].concat();
            if fails(&without) {
                input = without;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    input
}

/// An error that says what does not hold.
pub(super) fn hold(holds: bool, wrong: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(wrong()) }
}
