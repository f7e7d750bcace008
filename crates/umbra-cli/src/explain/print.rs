//! The explanation, for people and for programs.

use std::io::{Result, Write, stdout};

use umbra_routing::SampleBy;

use super::answer::{Answer, Place, Skipped};
use crate::args::Output;

/// Prints to standard output.
pub(super) fn print(answer: &Answer, how: Output) -> Result<()> {
    let mut out = stdout().lock();
    match how {
        Output::Json => writeln!(out, "{}", serde_json::to_string(answer)?),
        Output::Text => text(&mut out, answer),
    }
}

fn text(out: &mut impl Write, answer: &Answer) -> Result<()> {
    writeln!(out, "{}", answer.asked)?;
    write!(out, "  service {} port {}", answer.service, answer.port)?;
    if let Some(why) = &answer.not_governed {
        return writeln!(out, ": {why}; any of its ready endpoints may answer, and nothing is copied");
    }
    writeln!(out)?;
    if let Some(why) = &answer.left_alone {
        writeln!(out, "  nodes leave it alone: {why}")?;
    }
    for skipped in &answer.others {
        write!(out, "  {}: no", named(skipped.virtual_service.as_deref(), skipped.rule, &skipped.name))?;
        writeln!(out, ": {}", reasons(skipped))?;
    }
    match &answer.name {
        Some(name) => {
            writeln!(out, "  {}: yes", named(answer.virtual_service.as_deref(), answer.rule, name))?
        }
        None => writeln!(out, "  no rule matches")?,
    }
    for to in &answer.destinations {
        writeln!(out, "    weight {} to {}", to.weight, place(&to.place))?;
    }
    for to in &answer.mirrors {
        let chosen = chosen_by(to.sample.as_ref());
        writeln!(out, "    a copy of {} %{chosen} to {}", to.percent, place(&to.place))?;
    }
    for (field, value) in answer.policies.as_object().into_iter().flatten() {
        writeln!(out, "    {field}: {value}")?;
    }
    match (answer.status, &answer.location) {
        (Some(status), Some(location)) => writeln!(out, "    umbra answers {status} to {location}"),
        (Some(status), None) => match answer.grpc_status {
            Some(grpc) => writeln!(out, "    umbra answers {status} with grpc-status {grpc}"),
            None => writeln!(out, "    umbra answers {status}"),
        },
        (None, _) => Ok(()),
    }
}

fn named(object: Option<&str>, rule: Option<usize>, name: &str) -> String {
    match (object, rule) {
        (Some(object), Some(rule)) => format!("virtualservice {object} spec.http[{rule}] ({name})"),
        _ => format!("rule {name}"),
    }
}

fn reasons(skipped: &Skipped) -> String {
    if skipped.because.is_empty() { "it is not reached".to_owned() } else { skipped.because.join("; ") }
}

fn chosen_by(sample: Option<&SampleBy>) -> String {
    match sample {
        None => String::new(),
        Some(SampleBy::Header { name }) => format!(", chosen by header {name},"),
        Some(SampleBy::Cookie { name }) => format!(", chosen by cookie {name},"),
        Some(SampleBy::Source) => ", chosen by the client's address,".to_owned(),
    }
}

fn place(place: &Place) -> String {
    let subset = place.subset.as_ref().map(|subset| format!("subset {subset} of ")).unwrap_or_default();
    let endpoints = match &place.endpoints {
        _ if place.unresolved => "which nothing defines".to_owned(),
        None => "its endpoints are not among the files".to_owned(),
        Some(none) if none.is_empty() => "no ready endpoint".to_owned(),
        Some(some) => some.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    format!("{subset}{} port {}: {endpoints}", place.host, place.port)
}
