//! Which case proves which row of the specification, and that none is without one.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::cases_table::{Case, text};

/// A row of spec/istio.md 1A and 1B, or a rule of its section 2.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    row: String,
    /// In a few words.
    means: String,
    /// Recorded cases that ask it.
    #[serde(default)]
    recorded: Vec<String>,
    /// Part of what a user reads, where umbra has no part in it.
    finding: Option<String>,
}

/// The cases of a row: those that show it at work, and those that show it where it must not be.
#[derive(Default)]
struct Proofs<'a> {
    works: Vec<&'a Case>,
    does_not: Vec<&'a Case>,
}

/// One line a row.
///
/// # Errors
/// A row without proof, a proof of no row, or one that proves nothing.
pub(crate) fn table(cases: &[Case]) -> Result<Vec<String>> {
    let rows: Vec<Row> = serde_saphyr::from_str(&text("rows")?)?;
    let names: BTreeSet<&str> = rows.iter().map(|row| &*row.row).collect();
    ensure!(names.len() == rows.len(), "a row is listed twice");
    let mut proofs: BTreeMap<&str, Proofs<'_>> = BTreeMap::new();
    for case in cases {
        for (row, works) in &case.rows {
            ensure!(names.contains(&**row), "{}: {:?} proves {row}, which is no row", case.file, case.name);
            let of_row = proofs.entry(row).or_default();
            if *works { of_row.works.push(case) } else { of_row.does_not.push(case) }
        }
    }
    let alike = cases.iter().filter(|case| !tells_apart(case));
    let mut unproved: Vec<String> =
        alike.map(|case| format!("{}: {:?} shows one outcome for both", case.file, case.name)).collect();
    let recorded = recorded()?;
    let mut lines = Vec::new();
    for row in &rows {
        let of_row = proofs.remove(&*row.row).unwrap_or_default();
        unproved.extend(missing(row, &of_row, &recorded));
        lines.push(line(row, &of_row));
    }
    ensure!(unproved.is_empty(), "{}", unproved.join("\n"));
    Ok(lines)
}

/// A case that shows a row at work and where it must not be has two outcomes, or a finding and an outcome.
fn tells_apart(case: &Case) -> bool {
    let both = case.rows.iter().any(|(row, works)| *works && case.rows.contains(&(row.clone(), false)));
    let outcomes: BTreeSet<String> = case.asks.iter().map(|ask| ask.outcome()).collect();
    !both || outcomes.len() + usize::from(!case.says.is_empty()) > 1
}

fn missing(row: &Row, proofs: &Proofs<'_>, recorded: &BTreeSet<String>) -> Vec<String> {
    let unknown = row.recorded.iter().filter(|name| !recorded.contains(*name));
    let mut missing: Vec<String> =
        unknown.map(|name| format!("{}: no recorded case {name:?}", row.row)).collect();
    let both = !proofs.works.is_empty() && !proofs.does_not.is_empty();
    match &row.finding {
        Some(finding) => {
            let mut of_row = proofs.works.iter().chain(&proofs.does_not);
            if !of_row.any(|case| case.says.iter().any(|said| said.contains(finding))) {
                missing.push(format!("{}: no case of it says {finding:?}", row.row));
            }
        }
        None if both || !row.recorded.is_empty() => {}
        None => missing.push(format!(
            "{}: {} cases show it at work, {} where it must not be",
            row.row,
            proofs.works.len(),
            proofs.does_not.len()
        )),
    }
    missing
}

fn line(row: &Row, proofs: &Proofs<'_>) -> String {
    let named = |cases: &[&Case]| {
        let first = cases.first().map(|case| format!(" ({}: {:?})", case.file, case.name));
        format!("{}{}", cases.len(), first.unwrap_or_default())
    };
    let mut line = format!("{} | {} | ", row.row, row.means);
    line += &format!("yes {} | no {}", named(&proofs.works), named(&proofs.does_not));
    if !row.recorded.is_empty() {
        line += &format!(" | recorded {} ({:?})", row.recorded.len(), row.recorded[0]);
    }
    if let Some(finding) = &row.finding {
        let said = proofs.works.iter().flat_map(|case| &case.says).find(|said| said.contains(finding));
        line += &format!(" | finding {:?}", said.unwrap_or(finding));
    }
    line
}

/// The names of all recorded cases.
fn recorded() -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(format!("{}/istio-cases", env!("CARGO_MANIFEST_DIR")))? {
        let path = entry?.path();
        if path.file_stem().is_some_and(|stem| stem == "base") {
            continue;
        }
        let cases: Vec<Value> = serde_saphyr::from_str(&std::fs::read_to_string(path)?)?;
        names.extend(cases.iter().filter_map(|case| case["name"].as_str().map(str::to_owned)));
    }
    Ok(names)
}
