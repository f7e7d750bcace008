use std::net::IpAddr;
use std::time::UNIX_EPOCH;

use http::{StatusCode, Version};

use super::*;

fn exchange() -> Exchange<'static> {
    Exchange {
        method: "GET",
        scheme: "http",
        authority: "sa-logic",
        target: "/a?b=c",
        version: Version::HTTP_11,
        client: IpAddr::from([10, 0, 0, 7]),
        started: UNIX_EPOCH,
        upstream: None,
        status: Some(StatusCode::OK),
    }
}

fn edits(remove: &[&str], set: &[(&str, &str)], add: &[(&str, &str)]) -> HeaderEdits {
    let pairs =
        |of: &[(&str, &str)]| of.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    HeaderEdits {
        remove: remove.iter().map(|name| (*name).into()).collect(),
        set: pairs(set),
        add: pairs(add),
    }
}

fn headers(of: &[(&str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&str, &str)| {
        (name.parse::<HeaderName>().expect("a name"), value.parse::<HeaderValue>().expect("a value"))
    };
    let mut headers = HeaderMap::new();
    for (name, value) in of.iter().map(field) {
        headers.append(name, value);
    }
    headers
}

#[track_caller]
fn request(edits: &HeaderEdits, before: &[(&str, &str)], after: &[(&str, &str)]) {
    let mut changed = headers(before);
    Edits::of_requests(edits).expect("operations").change_request(&mut changed, &exchange());
    assert_eq!(changed, headers(after));
}

#[test]
fn removes_come_first_then_sets_then_adds() {
    let all = edits(&["x-a", "x-never"], &[("x-a", "s"), ("x-n", "n")], &[("x-a", "a")]);
    request(
        &all,
        &[("x-a", "1"), ("x-a", "2"), ("x-b", "b")],
        &[("x-a", "s"), ("x-a", "a"), ("x-n", "n"), ("x-b", "b")],
    );
    request(&edits(&[], &[("x-m", "z")], &[]), &[("x-m", "a"), ("x-m", "b")], &[("x-m", "z")]);
    request(
        &edits(&[], &[], &[("x-m", "z")]),
        &[("x-m", "a"), ("x-m", "")],
        &[("x-m", "a"), ("x-m", ""), ("x-m", "z")],
    );
    request(&edits(&[], &[("x-m", "first"), ("X-M", "last")], &[]), &[], &[("x-m", "last")]);
}

#[test]
fn values_are_made_after_the_removes_and_before_any_set_or_add() {
    let both = edits(&[], &[("x-b", "new"), ("x-c", "%REQ(x-b)%")], &[("x-d", "%REQ(x-b)%")]);
    request(&both, &[("x-b", "old")], &[("x-b", "new"), ("x-c", "old"), ("x-d", "old")]);
    request(&edits(&["x-b"], &[("x-c", "[%REQ(x-b)%]")], &[]), &[("x-b", "old")], &[("x-c", "[]")]);
}

#[test]
fn an_operation_whose_whole_value_is_empty_is_skipped() {
    let gone = edits(&[], &[("x-a", "%REQ(x-gone)%"), ("x-e", "")], &[("x-b", "%REQ(x-gone)%"), ("x-f", "")]);
    request(&gone, &[("x-a", "old"), ("x-e", "old")], &[("x-a", "old"), ("x-e", "old")]);
    request(&edits(&[], &[("x-mix", "a-%REQ(x-gone)%-b")], &[]), &[], &[("x-mix", "a--b")]);
}

#[test]
fn answers_are_changed_by_what_the_request_was_in_the_end() {
    let edits = edits(
        &["server"],
        &[("x-in", "%REQ(x-in)%"), ("x-code", "%RESPONSE_CODE%"), ("x-was", "%RESP(x-is)%"), ("x-is", "set")],
        &[("x-path", "%REQ(:path)%")],
    );
    let mut answer = headers(&[("server", "echo"), ("x-is", "was")]);
    Edits::of_answers(&edits).expect("operations").change_answer(
        &mut answer,
        &headers(&[("x-in", "hello")]),
        &exchange(),
    );
    let expected =
        [("x-in", "hello"), ("x-code", "200"), ("x-was", "was"), ("x-is", "set"), ("x-path", "/a?b=c")];
    assert_eq!(answer, headers(&expected));
}

#[test]
fn host_is_the_authority_and_set_beats_add() {
    let of = |edits: HeaderEdits| {
        let edits = Edits::of_requests(&edits).expect("operations");
        let mut headers = HeaderMap::new();
        edits.change_request(&mut headers, &exchange());
        assert!(headers.is_empty(), "it is no header");
        edits.authority().map(|value| value.to_str().expect("text").to_owned())
    };
    for (edits, expected) in [
        (edits(&[], &[("Host", "set.example")], &[("host", "add.example")]), Some("set.example")),
        (edits(&[], &[], &[(":authority", "add.example:8080")]), Some("add.example:8080")),
        (edits(&[], &[("host", "rule"), ("host", "destination")], &[]), Some("rule")),
        (edits(&[], &[("host", "")], &[]), None),
        (edits(&[], &[], &[]), None),
    ] {
        assert_eq!(of(edits).as_deref(), expected);
    }
}

#[test]
fn what_a_rule_may_not_change_is_refused() {
    let request = |edits: HeaderEdits| Edits::of_requests(&edits).err().expect("refused");
    let answer = |edits: HeaderEdits| Edits::of_answers(&edits).err().expect("refused");
    for name in ["", ":path", "a b", "host", "Host", ":authority"] {
        assert!(matches!(request(edits(&[name], &[], &[])), RuleError::HeaderName(_)), "{name}");
        assert!(matches!(answer(edits(&[name], &[], &[])), RuleError::HeaderName(_)), "{name}");
        assert!(matches!(answer(edits(&[], &[(name, "v")], &[])), RuleError::HeaderName(_)), "{name}");
    }
    assert!(matches!(request(edits(&[], &[(":path", "/")], &[])), RuleError::HeaderName(_)));
    for name in ["content-length", "Transfer-Encoding", "connection"] {
        assert!(matches!(request(edits(&[], &[], &[(name, "1")])), RuleError::Framing(_)), "{name}");
        assert!(matches!(answer(edits(&[name], &[], &[])), RuleError::Framing(_)), "{name}");
    }
    assert!(matches!(request(edits(&[], &[("x", "%NO%")], &[])), RuleError::Format(_)));
    assert!(matches!(request(edits(&[], &[("host", "a b")], &[])), RuleError::Authority(_)));
}
