//! Changes of headers: their names, and values with operators.

use std::collections::BTreeMap;

use super::problem::Field;
use crate::Headers;
use crate::header_name::{is_authority, is_token};

pub(super) fn check(headers: &Headers, field: &mut Field<'_>) {
    for (name, operations, of_request) in
        [("request", &headers.request, true), ("response", &headers.response, false)]
    {
        let Some(operations) = operations else { continue };
        let mut field = field.at(name);
        values("set", &operations.set, of_request, &mut field);
        values("add", &operations.add, of_request, &mut field);
        for (index, name) in operations.remove.iter().enumerate() {
            header_name(name, false, &mut field.item("remove", index));
        }
    }
}

fn values(list: &str, values: &BTreeMap<String, String>, of_request: bool, field: &mut Field<'_>) {
    for (name, value) in values {
        let mut field = field.entry(list, name);
        header_name(name, of_request, &mut field);
        if value.chars().any(|c| c.is_control() && c != '\t') {
            field.error("header value has control characters; remove them");
        }
        if let Err(why) = operators(value) {
            field.error(format!("header value {value:?} {why}; write %% for a percent sign"));
        }
    }
}

/// Only a request's set and add may name the host: it makes the authority another one.
fn header_name(name: &str, host_allowed: bool, field: &mut Field<'_>) {
    if name.is_empty() {
        field.error("header name cannot be empty; name a header");
    } else if is_authority(name) {
        if !host_allowed {
            field.error("the host can be set or added in requests only; remove the entry");
        }
    } else if name.starts_with(':') {
        field.error("invalid header: names with \":\" are the protocol's own, only :authority can be changed; remove it");
    } else if !is_token(name) {
        field.error(format!("header name {name:?} is not a valid header name (RFC 9110 5.6.2); correct it"));
    }
}

/// `%%` or `%WORD(argument):length%`. Which words there are is said elsewhere.
fn operators(value: &str) -> Result<(), &'static str> {
    let mut rest = value;
    while let Some(at) = rest.find('%') {
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            rest = after;
            continue;
        }
        let word = rest
            .find(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_')
            .unwrap_or(rest.len());
        if word == 0 {
            return Err("has a % that begins no operator");
        }
        let after = &rest[word..];
        let after = match after.strip_prefix('(') {
            Some(argument) => argument.split_once(')').ok_or("has an operator whose ( is not closed")?.1,
            None => after,
        };
        let length =
            after.strip_prefix(':').map(|length| length.trim_start_matches(|c: char| c.is_ascii_digit()));
        rest = length.unwrap_or(after).strip_prefix('%').ok_or("has an operator that does not end with %")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::operators;

    #[test]
    fn operators_are_closed_and_a_percent_sign_is_doubled() {
        for fine in
            ["", "a", "100%%", "%REQ(x-a)%", "a-%REQ(x-a?b):5%-%PROTOCOL%", "%START_TIME(%s)%", "%%%%"]
        {
            assert_eq!(operators(fine), Ok(()), "{fine}");
        }
        for bad in ["50%", "% a%", "%REQ(x-a%", "%REQ(x-a)", "%req(x)%", "%%%"] {
            assert!(operators(bad).is_err(), "{bad}");
        }
    }
}
