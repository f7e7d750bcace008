//! What a real proxy does with a case's requests: who answers, what everybody saw, and where copies went. Clients of one
//! more namespace, which has rules of its own, ask the same service meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};

use crate::cases_node::{CaseNode, Outcome};
use crate::cases_table::{Ask, Case, unlike};
use crate::cases_world::group_of;
use crate::istio_backends::Seen;

/// A case whose clients are of so many namespaces is asked by all of them at the same time, so often each.
const AT_ONCE: (usize, usize) = (3, 10);
/// Shares within so many standard deviations: one run of a million is further off.
const DEVIATIONS: f64 = 5.0;

/// What is otherwise than written.
pub(crate) fn differences(node: &mut CaseNode, case: &Case) -> Result<Vec<String>> {
    if case.asks.is_empty() {
        return Ok(Vec::new());
    }
    if !case.held && !node.takes_over() {
        // What has a destination that nothing defines is not taken over for the first time (design.md): the bystander's
        // rules take it over before.
        let before = node.world().with(&[], true);
        node.configure(&before)?;
    }
    let texts = node.world().with(&case.objects, !case.held);
    let reply = node.configure(&texts)?;
    ensure!(node.takes_over() != case.held, "taken over: {:?}", reply.armed);
    let node: &CaseNode = node;
    let outcomes = std::thread::scope(|scope| {
        let bystander = scope.spawn(|| if case.held { Ok(()) } else { stands_by(node, case.asks.len()) });
        let outcomes = ask_all(node, case);
        bystander.join().expect("it does not panic")?;
        outcomes
    })?;
    node.settle()?;
    let mut found: Vec<String> =
        reply.refused.iter().map(|refused| format!("refused: {}: {}", refused.key, refused.reason)).collect();
    for (number, (ask, outcomes)) in case.asks.iter().zip(&outcomes).enumerate() {
        let mut differences = if ask.n.is_some() { drawn(node, ask, outcomes) } else { Vec::new() };
        for outcome in outcomes.iter().filter(|_| ask.n.is_none()) {
            differences.extend(one(node, ask, outcome));
        }
        differences.dedup();
        found
            .extend(differences.into_iter().map(|what| format!("request {number} ({}): {what}", ask.path())));
    }
    Ok(found)
}

fn ask_all(node: &CaseNode, case: &Case) -> Result<Vec<Vec<Outcome>>> {
    let clients: BTreeSet<String> = case.asks.iter().map(Ask::client).collect();
    let many = |ask: &Ask, times: usize| (0..times).map(|_| node.ask(ask)).collect::<Result<Vec<_>>>();
    if clients.len() < AT_ONCE.0 {
        return case.asks.iter().map(|ask| many(ask, ask.n.unwrap_or(1) as usize)).collect();
    }
    std::thread::scope(|scope| {
        let asking = |ask| scope.spawn(move || many(ask, AT_ONCE.1));
        let threads: Vec<_> = case.asks.iter().map(asking).collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
    })
}

/// Another namespace's client, whose namespace has rules of its own for the service.
fn stands_by(node: &CaseNode, times: usize) -> Result<()> {
    let ask = Ask { from: Some("bystander".into()), by: Some("reviews-v3".into()), ..Ask::default() };
    for _ in 0..times {
        let outcome = node.ask(&ask)?;
        ensure!(by(&outcome).as_deref() == Some("reviews-v3"), "the bystander got {}", outcome.status);
    }
    Ok(())
}

/// One request: everything.
fn one(node: &CaseNode, ask: &Ask, outcome: &Outcome) -> Vec<String> {
    let mut found = Vec::new();
    let mut check = |what: &str, is: String, wanted: String| {
        if is != wanted {
            found.push(format!("{what}: {is}, not {wanted}"));
        }
    };
    let seen = node.seen(outcome);
    let group = by(outcome);
    check("status", outcome.status.to_string(), ask.status.unwrap_or(200).to_string());
    let service = ask.service_and_port().map(|(service, _)| service).unwrap_or_default();
    let may = |by: &str| match by {
        "plain" => node.world().service(service).map(|service| service.groups.clone()).unwrap_or_default(),
        by => by.split('|').map(str::to_owned).collect(),
    };
    match (&ask.by, &group) {
        (Some(by), Some(group)) if may(by).contains(group) => {}
        (by, group) => check("by", format!("{group:?}"), format!("{by:?}")),
    }
    let mine = seen.iter().filter(|seen| Some(&seen.group) == group.as_ref()).count();
    if let Some(tries) = ask.tries {
        check("tries", mine.to_string(), tries.to_string());
    }
    let got = copies(&seen, group.as_deref());
    check("copies", format!("{got:?}"), format!("{:?}", wanted_copies(ask, &got)));
    if let Some(body) = &ask.body_is {
        check("body", outcome.body.clone(), body.clone());
    }
    if let Some(least) = ask.at_least_ms.filter(|least| outcome.took.as_millis() < u128::from(*least)) {
        found.push(format!("took {:?}, not {least} ms", outcome.took));
    }
    found.extend(unlike(&ask.gets, &outcome.headers));
    found.extend(seen.iter().flat_map(|seen| unseen(ask, seen)));
    found
}

/// The group that answered.
fn by(outcome: &Outcome) -> Option<String> {
    outcome.headers.get("x-pod").map(|pod| group_of(&pod[0]))
}

/// Who got the request beside the one that answered, as often as each did.
fn copies(seen: &[Seen], by: Option<&str>) -> Vec<String> {
    let mut copies: Vec<String> =
        seen.iter().map(|seen| seen.group.clone()).filter(|group| Some(&**group) != by).collect();
    copies.sort();
    copies
}

/// With the one of several groups that got it, where any may.
fn wanted_copies(ask: &Ask, got: &[String]) -> Vec<String> {
    let one = |groups: &String| {
        let found = groups.split('|').find(|group| got.iter().any(|got| got == group));
        found.map_or_else(|| groups.clone(), str::to_owned)
    };
    let mut wanted: Vec<String> = ask.copies.iter().map(one).collect();
    wanted.sort();
    wanted
}

fn unseen(ask: &Ask, seen: &Seen) -> Vec<String> {
    let sees = &ask.sees;
    let texts = [
        ("path", &sees.path, &seen.path),
        ("host", &sees.host, &seen.host),
        ("method", &sees.method, &seen.method),
    ];
    let differing =
        texts.into_iter().filter(|(_, wanted, is)| wanted.as_ref().is_some_and(|wanted| wanted != *is));
    let mut found: Vec<String> = differing
        .map(|(what, wanted, is)| format!("{what}: {is}, not {}", wanted.as_deref().unwrap_or_default()))
        .collect();
    if sees.len.is_some_and(|len| len != seen.len) {
        found.push(format!("a body of {} bytes", seen.len));
    }
    found.extend(unlike(&sees.headers, &seen.headers));
    found.into_iter().map(|what| format!("{} sees {what}", seen.group)).collect()
}

/// Many requests: how often who answered, and who got copies.
fn drawn(node: &CaseNode, ask: &Ask, outcomes: &[Outcome]) -> Vec<String> {
    let (mut answered, mut copied) = (BTreeMap::new(), BTreeMap::new());
    for outcome in outcomes {
        let group = by(outcome);
        let got = copies(&node.seen(outcome), group.as_deref());
        if ask.together.is_some() && ask.percent.keys().all(|group| got.contains(group)) {
            *copied.entry("all of them".to_owned()).or_insert(0) += 1;
        }
        for copy in got {
            *copied.entry(copy).or_insert(0) += 1;
        }
        *answered.entry(group.unwrap_or_else(|| outcome.status.to_string())).or_insert(0) += 1;
    }
    let total = outcomes.len() as f64;
    let shares = ask.shares.iter().map(|(group, share)| (group.clone(), f64::from(*share))).collect();
    let mut percent = ask.percent.clone();
    percent.extend(ask.copies.iter().map(|group| (group.clone(), 100.0)));
    percent.extend(ask.together.map(|together| ("all of them".to_owned(), together)));
    let off = [off("shares", &answered, &shares, total), off("copies", &copied, &percent, total)];
    off.into_iter().flatten().collect()
}

/// Counts that cannot be draws of these shares in 100.
fn off(
    what: &str,
    counts: &BTreeMap<String, u32>,
    shares: &BTreeMap<String, f64>,
    total: f64,
) -> Option<String> {
    let is_off = |group: &String| {
        let share = shares.get(group).copied().unwrap_or_default() / 100.0;
        let count = f64::from(counts.get(group).copied().unwrap_or_default());
        (count - share * total).abs() > DEVIATIONS * (total * share * (1.0 - share)).sqrt()
    };
    let off = counts.keys().chain(shares.keys()).any(is_off);
    off.then(|| format!("{what}: {counts:?} of {total}, not {shares:?} of 100"))
}
