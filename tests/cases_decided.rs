//! What the objects alone say: `umbra lint`'s findings, and `umbra explain`'s decision for each request. No draws: shares
//! are compared as they are written.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde_json::Value;
use umbra_cli::explain::{Answer, Place, RequestError, Source, Wanted, explain};
use umbra_cli::files::{Object, Texts, decode};
use umbra_cli::lint::lint;
use umbra_compile::Options;

use crate::cases_table::{Ask, Case};
use crate::cases_world::CaseWorld;

/// What is otherwise than written.
pub(crate) fn differences(world: &CaseWorld, case: &Case) -> Result<Vec<String>> {
    let texts = world.with(&case.objects, false);
    let mut found = said(case, &texts);
    let objects =
        texts.iter().flat_map(|(file, text)| decode(file, text.as_deref().unwrap_or_default()).objects);
    let objects: Vec<Object> = objects.map(|(_, object, _)| object).collect();
    let source = Source::of_objects(objects.iter());
    for (number, ask) in case.asks.iter().enumerate() {
        let differences = match wanted(world, ask)? {
            Ok(wanted) => compare(world, ask, &explain(&source, &wanted)?),
            Err(RequestError::Path(_)) if ask.status == Some(400) => Vec::new(),
            Err(error) => vec![error.to_string()],
        };
        let named = |difference| format!("request {number} ({}): {difference}", ask.path());
        found.extend(differences.into_iter().map(named));
    }
    Ok(found)
}

/// Findings that are missing, and errors that nobody has announced.
fn said(case: &Case, texts: &Texts) -> Vec<String> {
    let report = lint(texts, &Options::default());
    let mut lines: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    lines.extend(report.unread);
    let missing = case.says.iter().filter(|text| !lines.iter().any(|line| line.contains(*text)));
    let mut found: Vec<String> =
        missing.map(|text| format!("nobody says {text:?}, but {lines:#?}")).collect();
    let announced = |line: &&String| case.says.iter().any(|text| line.contains(text));
    let errors = lines.iter().filter(|line| line.contains(" error ")).filter(|line| !announced(line));
    found.extend(errors.map(|line| format!("says {line}")));
    found
}

/// The request as `umbra explain` takes it, or what it has against it.
fn wanted(world: &CaseWorld, ask: &Ask) -> Result<Result<Wanted, RequestError>> {
    let (service, port) = ask.service_and_port()?;
    let url = format!("http://{}:{port}{}", world.service(service)?.cluster_ip, ask.path());
    let pod = world.pod(&ask.client())?;
    let headers = ask.headers()?.into_iter().map(|(name, value)| format!("{name}: {value}"));
    let from = format!("{}/{}", pod.namespace, pod.name);
    Ok(Wanted::of(ask.method(), &url, &headers.collect::<Vec<_>>(), &from))
}

fn compare(world: &CaseWorld, ask: &Ask, answer: &Answer) -> Vec<String> {
    let mut found = Vec::new();
    let mut check = |what: &str, is: String, wanted: String| {
        if is != wanted {
            found.push(format!("{what}: {is}, not {wanted}"));
        }
    };
    if let Some(rule) = &ask.rule {
        let (of, index) = (answer.virtual_service.as_deref(), answer.rule);
        let is = of.zip(index).map(|(of, index)| format!("{of}[{index}]"));
        check("rule", is.unwrap_or_default(), rule.clone());
    }
    match &ask.by {
        Some(by) if by == "plain" => check("decides", decides(answer).to_string(), false.to_string()),
        Some(by) => check("by", groups(world, answer).join(" "), by.clone()),
        None if ask.shares.is_empty() => {
            // A preflight or an abort is answered in place of a destination: the rule says so.
            let status = answer.status.map(|status| status.to_string());
            let wanted = ask.status.map(|status| status.to_string());
            if ask.decides.is_null() || status.is_some() {
                check("status", status.unwrap_or_default(), wanted.unwrap_or_default());
            }
        }
        // Who is aborted is not a destination: the rule says how many.
        None if ask.shares.keys().any(|group| group != "503" && group.parse::<u16>().is_ok()) => {}
        None => check("shares", format!("{:?}", shares(world, answer)), format!("{:?}", ask.shares)),
    }
    if !ask.uncopied && (ask.by.is_some() || !ask.shares.is_empty()) {
        let of_100 = ask.copies.iter().map(|group| (group.clone(), 100.0));
        let mut wanted: Vec<_> = ask.percent.clone().into_iter().chain(of_100).collect();
        wanted.sort_by(|one, other| one.0.cmp(&other.0));
        check("copies", format!("{:?}", copies(world, answer)), format!("{wanted:?}"));
    }
    if !is_part(&ask.decides, &answer.policies) {
        found.push(format!("decides {}, not {}", answer.policies, ask.decides));
    }
    found
}

/// Whether some VirtualService has a part in it.
fn decides(answer: &Answer) -> bool {
    answer.not_governed.is_none() && answer.virtual_service.is_some()
}

fn groups(world: &CaseWorld, answer: &Answer) -> Vec<String> {
    let all = answer.destinations.iter().filter(|share| share.weight > 0);
    all.map(|share| group(world, &share.place)).collect::<BTreeSet<_>>().into_iter().collect()
}

fn shares(world: &CaseWorld, answer: &Answer) -> BTreeMap<String, u32> {
    let mut shares = BTreeMap::new();
    let total: u32 = answer.destinations.iter().map(|share| share.weight).sum();
    for share in answer.destinations.iter().filter(|share| share.weight > 0) {
        *shares.entry(group(world, &share.place)).or_default() += share.weight * 100 / total;
    }
    shares
}

/// Without those that nobody gets.
fn copies(world: &CaseWorld, answer: &Answer) -> Vec<(String, f64)> {
    let of = answer.mirrors.iter().map(|copies| (group(world, &copies.place), copies.percent));
    let mut copies: Vec<_> = of.filter(|(group, percent)| group != "503" && *percent > 0.0).collect();
    copies.sort_by(|one, other| one.0.cmp(&other.0));
    copies
}

/// `v1`, or `v1|v2` where both may answer; `503` for nobody.
fn group(world: &CaseWorld, place: &Place) -> String {
    let endpoints = place.endpoints.iter().flatten();
    let groups: BTreeSet<String> = endpoints.filter_map(|at| world.group_at(&at.ip().to_string())).collect();
    if place.unresolved || groups.is_empty() {
        return "503".to_owned();
    }
    groups.into_iter().collect::<Vec<_>>().join("|")
}

/// Whether `all` has everything that `part` has.
fn is_part(part: &Value, all: &Value) -> bool {
    match part {
        Value::Null => true,
        Value::Object(fields) => fields.iter().all(|(name, value)| match value {
            Value::Null => all[name].is_null(),
            value => is_part(value, &all[name]),
        }),
        other => other == all,
    }
}
