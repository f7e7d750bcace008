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

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::istio_cases::Case;
use crate::istio_system::{System, with_system};

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

/// What umbra does otherwise in a case; its objects are gone afterwards.
fn differences(system: &mut System, case: &Case) -> Result<Vec<String>> {
    let refused = system.apply(case)?;
    let mut found = istio_compare::refused(case, &refused);
    for (number, (request, expected)) in case.requests.iter().zip(&case.expected).enumerate() {
        let differences = match request.repeats() {
            1 => istio_compare::one(expected, &system.ask(request, 1)?[0]),
            n => istio_compare::many(expected, &system.ask(request, expected.draws().max(n))?),
        };
        found.extend(differences.into_iter().map(|difference| format!("request {number}: {difference}")));
    }
    system.remove(case)?;
    Ok(found)
}
