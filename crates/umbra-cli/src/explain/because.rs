//! Why a rule does not get a request: of each of its blocks, the conditions that do not hold.

use umbra_routing::{BackendRef, RequestHead, RequestMatch, RouteTable, Rule, RuleError, StringMatch};

/// One line for each block.
pub(super) fn none_holds(rule: &Rule, head: &RequestHead<'_>) -> Result<Vec<String>, RuleError> {
    let blocks = rule.matches.iter().enumerate();
    blocks
        .map(|(number, block)| {
            let failing = failing(block, head)?;
            Ok(format!("match[{number}]: {}", failing.join(", ")))
        })
        .collect()
}

/// The conditions of a block that do not hold by themselves, in words.
fn failing(block: &RequestMatch, head: &RequestHead<'_>) -> Result<Vec<String>, RuleError> {
    let mut failing = Vec::new();
    for (words, alone) in conditions(block) {
        if !holds(alone, head)? {
            failing.push(words);
        }
    }
    Ok(failing)
}

fn holds(block: RequestMatch, head: &RequestHead<'_>) -> Result<bool, RuleError> {
    let rule = Rule { matches: vec![block], ..Rule::default() };
    let table = RouteTable::new(&[rule], BackendRef::clone)?;
    Ok(table.select(head, &mut |_| 0).is_some())
}

/// Each condition in words, and as a block of its own.
fn conditions(block: &RequestMatch) -> Vec<(String, RequestMatch)> {
    let none = RequestMatch::default;
    let mut all = Vec::new();
    if block.never {
        all.push((
            "it has a condition that umbra does not know".to_owned(),
            RequestMatch { never: true, ..none() },
        ));
    }
    if let Some(uri) = &block.uri {
        let alone = RequestMatch { uri: Some(uri.clone()), ignore_uri_case: block.ignore_uri_case, ..none() };
        let case = if block.ignore_uri_case { " in any case" } else { "" };
        all.push((format!("the path is not {}{case}", words(uri)), alone));
    }
    if let Some(method) = &block.method {
        let alone = RequestMatch { method: Some(method.clone()), ..none() };
        all.push((format!("the method is not {}", words(method)), alone));
    }
    if let Some(scheme) = &block.scheme {
        let alone = RequestMatch { scheme: Some(scheme.clone()), ..none() };
        all.push((format!("the scheme is not {}", words(scheme)), alone));
    }
    if let Some(authority) = &block.authority {
        let alone = RequestMatch { authority: Some(authority.clone()), ..none() };
        all.push((format!("the authority is not {}", words(authority)), alone));
    }
    for header in &block.headers {
        let alone = RequestMatch { headers: vec![header.clone()], ..none() };
        all.push((format!("header {} is not {}", header.name, words(&header.value)), alone));
    }
    for header in &block.without_headers {
        let alone = RequestMatch { without_headers: vec![header.clone()], ..none() };
        all.push((format!("header {} must not be {}", header.name, words(&header.value)), alone));
    }
    for query in &block.query {
        let alone = RequestMatch { query: vec![query.clone()], ..none() };
        all.push((format!("query parameter {} is not {}", query.name, words(&query.value)), alone));
    }
    if !block.source_labels.is_empty() {
        let labels: Vec<String> =
            block.source_labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let alone = RequestMatch { source_labels: block.source_labels.clone(), ..none() };
        all.push((format!("the client's pod has not the labels {}", labels.join(",")), alone));
    }
    all
}

fn words(condition: &StringMatch) -> String {
    match condition {
        StringMatch::Exact(text) => format!("{text:?}"),
        StringMatch::Prefix(text) => format!("{text:?}..."),
        StringMatch::Regex(text) => format!("of the form {text:?}"),
        StringMatch::Present => "there".to_owned(),
    }
}
