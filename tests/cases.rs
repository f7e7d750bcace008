//! Tables of cases written from spec/istio.md, one file of `cases/` per concern, each asked twice: of the objects alone, as
//! `umbra explain` decides, and of a real proxy with real interception and backends in network namespaces. A third test
//! holds that every row of the specification has its cases, and prints the table.
//!
//! `UMBRA_TEST_CASES=text` runs the cases whose file or name contains the text.

#![allow(clippy::print_stdout, reason = "what is counted is read by people")]

mod cases_decided;
mod cases_fields;
mod cases_node;
mod cases_rows;
mod cases_served;
mod cases_table;
mod cases_world;
mod istio_backends;

use std::time::Instant;

use anyhow::{Result, ensure};
use umbra_testkit::Netns;

use crate::cases_node::CaseNode;
use crate::cases_table::Case;
use crate::cases_world::CaseWorld;

#[test]
fn decided_as_written() -> Result<()> {
    let world = CaseWorld::read()?;
    report("decided", |case| cases_decided::differences(&world, case))
}

#[test]
fn served_as_written() -> Result<()> {
    if !Netns::available() {
        return Ok(());
    }
    let mut node = CaseNode::start()?;
    let served = report("served", |case| cases_served::differences(&mut node, case));
    if served.is_err() {
        eprintln!("--- proxy\n{}", node.last_lines());
    }
    served
}

#[test]
fn every_row_is_proved() -> Result<()> {
    let table = cases_rows::table(&cases_table::all()?)?;
    for line in &table {
        println!("row: {line}");
    }
    println!("measured: {} rows", table.len());
    Ok(())
}

#[test]
fn every_field_of_the_schemas_is_written() -> Result<()> {
    let unwritten = cases_fields::unwritten(&cases_table::all()?)?;
    ensure!(unwritten.is_empty(), "no case writes\n{}", unwritten.join("\n"));
    Ok(())
}

/// Asks every case, and tells all that differ.
fn report(what: &str, mut differences: impl FnMut(&Case) -> Result<Vec<String>>) -> Result<()> {
    let wanted = std::env::var("UMBRA_TEST_CASES").unwrap_or_default();
    let mut cases = cases_table::all()?;
    cases.retain(|case| case.file.contains(&wanted) || case.name.contains(&wanted));
    let (began, mut wrong) = (Instant::now(), Vec::new());
    for case in &cases {
        let found = differences(case).unwrap_or_else(|error| vec![format!("{error:#}")]);
        if !found.is_empty() {
            wrong.push(format!("{}: {}\n    {}", case.file, case.name, found.join("\n    ")));
        }
    }
    let asks: usize = cases.iter().map(|case| case.asks.len()).sum();
    println!("measured: {} cases with {asks} requests {what} in {:.0?}", cases.len(), began.elapsed());
    ensure!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    Ok(())
}
