//! What real Istio answered, asked of umbra: every recorded case with objects from a real API server, a real controller and
//! proxy, and clients and backends in network namespaces.
//!
//! `UMBRA_TEST_CASES=text` runs the cases whose file or name contains the text.

#![allow(clippy::print_stdout, reason = "what differs on purpose is said with its reason")]

mod istio_backends;
mod istio_cases;
mod istio_client;
mod istio_compare;
mod istio_http2;
mod istio_reasons;
mod istio_system;
mod node_programs;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::istio_cases::{Case, Expected, Request};
use crate::istio_client::Outcome;
use crate::istio_system::{System, with_system};

/// Pods that answer within this get equal shares, as Istio's do; later ones are left for a while (umbra-proxy's
/// `balance/load.rs`).
const SOON: Duration = Duration::from_millis(100);
/// How often a case is asked whose pods were late by this machine's fault.
const LATE: usize = 5;
/// How often one is asked whose outcome is chance, or a matter of time. Istio's shares were drawn once for all: in some case
/// ours are four standard deviations off once in 500 runs. And what takes 0.7 s may take over 0.9 here.
const CHANCE: usize = 2;
/// A request that takes longer waits: for a timeout, a delay, another attempt.
const WAITS: Duration = Duration::from_millis(500);

#[test]
fn umbra_answers_as_istio_did() -> Result<()> {
    with_system(|system| {
        let wanted = std::env::var("UMBRA_TEST_CASES").unwrap_or_default();
        let mut cases = istio_cases::all()?;
        cases.retain(|case| case.file.contains(&wanted) || case.name.contains(&wanted));
        let (began, mut alike, mut listed, mut wrong) = (Instant::now(), 0, 0, Vec::new());
        for case in &cases {
            let differences = match differences(system, case) {
                Ok(differences) => differences,
                Err(error) => {
                    system.remove(case).with_context(|| case.name.clone())?;
                    vec![format!("{error:#}")]
                }
            };
            match (istio_reasons::of(&case.name), differences.is_empty()) {
                (None, true) => alike += 1,
                (Some(reason), false) => {
                    listed += 1;
                    println!("differs: {}: {}: {reason}", case.file, case.name);
                }
                (None, false) => {
                    wrong.push(format!("{}: {}\n    {}", case.file, case.name, differences.join("\n    ")))
                }
                (Some(_), true) => {
                    wrong.push(format!(
                        "{}: {}\n    is as Istio's, so take it off istio_reasons.rs",
                        case.file, case.name
                    ));
                }
            }
        }
        println!(
            "measured: {} cases in {:.0?}: {alike} as Istio, {listed} listed with a reason, {} wrong",
            cases.len(),
            began.elapsed(),
            wrong.len()
        );
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    })
}

/// What umbra does otherwise in a case; its objects are gone afterwards. A difference that this machine or chance explains
/// proves nothing: then the case is asked again from its objects on, to which its pods are new.
fn differences(system: &mut System, case: &Case) -> Result<Vec<String>> {
    let mut times = 1;
    loop {
        let (found, enough) = asked(system, case)?;
        // That a case differs on purpose is listed, and needs no second look.
        if found.is_empty() || times >= enough || istio_reasons::of(&case.name).is_some() {
            return Ok(found);
        }
        times += 1;
        println!("measured: {}: {}: asked again: {found:?}", case.file, case.name);
    }
}

/// What differs, and how often the case is to be asked in all before that is believed.
fn asked(system: &mut System, case: &Case) -> Result<(Vec<String>, usize)> {
    let refused = system.apply(case)?;
    let mut found = istio_compare::refused(case, &refused);
    let (mut late, mut enough) = (false, if found.is_empty() { LATE } else { 1 });
    for (number, (request, expected)) in case.requests.iter().zip(&case.expected).enumerate() {
        let outcomes = system.ask(request, draws(request, expected))?;
        let differences = match request.repeats() {
            1 => istio_compare::one(expected, &outcomes[0]),
            _ => istio_compare::many(expected, &outcomes),
        };
        late |= is_late(request, &outcomes);
        if !differences.is_empty() {
            enough = enough.min(believed_after(expected, &outcomes, late));
        }
        found.extend(differences.into_iter().map(|difference| format!("request {number}: {difference}")));
    }
    system.remove(case)?;
    Ok((found, enough))
}

/// How often a difference in these has to be seen. `late`: a pod was, and umbra rightly leaves it then.
fn believed_after(expected: &Expected, outcomes: &[Outcome], late: bool) -> usize {
    match outcomes {
        [one] if one.took > WAITS => CHANCE,
        [_] => 1,
        _ if late => LATE,
        _ if expected.draws() >= istio_compare::FEW => CHANCE,
        _ => 1,
    }
}

/// How often it is asked.
fn draws(request: &Request, expected: &Expected) -> u64 {
    match request.repeats() {
        1 => 1,
        n => expected.draws().max(n),
    }
}

/// Whether a pod was late of itself.
fn is_late(request: &Request, outcomes: &[Outcome]) -> bool {
    let told = request.headers().iter().any(|(name, _)| name == "x-sleep-ms");
    !told && outcomes.iter().any(|outcome| outcome.took > SOON)
}
