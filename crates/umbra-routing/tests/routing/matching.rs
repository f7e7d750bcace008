//! Each condition of a match block, for and against (spec/istio.md 1A and 4.1).

use http::{HeaderMap, HeaderValue, Version};
use umbra_routing::{
    BackendRef, HeaderMatch, QueryMatch, RequestMatch, RouteTable, Rule, ServiceName, StringMatch,
    WeightedBackend, scheme,
};

use crate::asked::Asked;

fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.into())
}

fn prefix(text: &str) -> StringMatch {
    StringMatch::Prefix(text.into())
}

fn regex(text: &str) -> StringMatch {
    StringMatch::Regex(text.into())
}

fn present() -> StringMatch {
    StringMatch::Present
}

fn any() -> RequestMatch {
    RequestMatch::default()
}

fn uri_in_any_case(uri: StringMatch) -> RequestMatch {
    RequestMatch { uri: Some(uri), ignore_uri_case: true, ..any() }
}

fn authority(authority: StringMatch) -> RequestMatch {
    RequestMatch { authority: Some(authority), ..any() }
}

fn of_scheme(scheme: StringMatch) -> RequestMatch {
    RequestMatch { scheme: Some(scheme), ..any() }
}

fn with(name: &str, value: StringMatch) -> RequestMatch {
    RequestMatch { headers: vec![HeaderMatch { name: name.into(), value }], ..any() }
}

fn without(name: &str, value: StringMatch) -> RequestMatch {
    RequestMatch { without_headers: vec![HeaderMatch { name: name.into(), value }], ..any() }
}

fn query(name: &str, value: StringMatch) -> RequestMatch {
    RequestMatch { query: vec![QueryMatch { name: name.into(), value }], ..any() }
}

fn labelleds(labels: &[(&str, &str)]) -> RequestMatch {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    RequestMatch { source_labels: labels.collect(), ..any() }
}

fn holds(block: &RequestMatch, asked: &Asked) -> bool {
    let destinations = vec![WeightedBackend::new(1, BackendRef::all(ServiceName::new("default", "a"), 80))];
    let rule = Rule { matches: vec![block.clone()], destinations, ..Rule::default() };
    let table = RouteTable::new(&[rule], |_| ()).expect("rules that a node can use");
    table.select(&asked.head(), &mut |_| 0).is_some()
}

#[track_caller]
fn each(cases: &[(RequestMatch, Asked, bool)]) {
    for (block, asked, expected) in cases {
        assert_eq!(holds(block, asked), *expected, "{block:?}\n{:?}", asked.head());
    }
}

#[test]
fn ignore_uri_case_counts_for_exact_and_prefix_and_not_for_a_regex() {
    each(&[
        (uri_in_any_case(exact("/Exact")), Asked::get("/eXACT?q"), true),
        (uri_in_any_case(exact("/Exact")), Asked::get("/exact/"), false),
        (uri_in_any_case(prefix("/Pre")), Asked::get("/pREfix/x"), true),
        (uri_in_any_case(prefix("/Pre")), Asked::get("/pr"), false),
        (uri_in_any_case(regex("/Re.*")), Asked::get("/Rex"), true),
        (uri_in_any_case(regex("/Re.*")), Asked::get("/rex"), false),
        (RequestMatch { uri: Some(exact("/Exact")), ..any() }, Asked::get("/exact"), false),
        (RequestMatch { uri: Some(prefix("/Pre")), ..any() }, Asked::get("/prefix"), false),
    ]);
}

#[test]
fn the_path_ends_at_the_first_question_mark() {
    let at = |uri| RequestMatch { uri: Some(uri), ..any() };
    each(&[
        (at(exact("/a")), Asked::get("/a?x=1"), true),
        (at(exact("/a")), Asked::get("/a?x?y?z"), true),
        (at(exact("/a?x=1")), Asked::get("/a?x=1"), false),
        (at(prefix("/a?")), Asked::get("/a?x=1"), false),
        (at(prefix("/foo")), Asked::get("/foobar"), true),
        (at(prefix("/foo/")), Asked::get("/foo?x=/"), false),
        (at(prefix("")), Asked::get("/x"), true),
    ]);
}

#[test]
fn the_authority_is_compared_as_sent() {
    each(&[
        (authority(exact("sa-logic")), Asked::get("/").host("sa-logic"), true),
        (authority(exact("sa-logic")), Asked::get("/").host("SA-Logic"), false),
        (authority(exact("sa-logic")), Asked::get("/").host("sa-logic:80"), false),
        (authority(prefix("sa-")), Asked::get("/").host("sa-logic:80"), true),
        (authority(regex("sa-logic(:80)?")), Asked::get("/").host("sa-logic:80"), true),
        (authority(regex("sa-logic")), Asked::get("/").host("sa-logic.default"), false),
    ]);
}

#[test]
fn the_scheme_is_compared_whole() {
    each(&[
        (of_scheme(exact("http")), Asked::get("/"), true),
        (of_scheme(exact("https")), Asked::get("/"), false),
        (of_scheme(exact("http")), Asked::get("/").scheme("https"), false),
        (of_scheme(prefix("http")), Asked::get("/").scheme("https"), true),
    ]);
}

#[test]
fn on_http_1_the_client_says_the_scheme_and_on_http_2_the_pseudo_header() {
    let forwarded = |proto: &'static str| {
        HeaderMap::from_iter([(
            "x-forwarded-proto".parse().expect("a name"),
            HeaderValue::from_static(proto),
        )])
    };
    for (version, pseudo_header, headers, expected) in [
        (Version::HTTP_11, None, HeaderMap::new(), "http"),
        (Version::HTTP_11, None, forwarded("https"), "https"),
        (Version::HTTP_11, None, forwarded("wss"), "http"),
        (Version::HTTP_2, Some("http"), forwarded("https"), "http"),
        (Version::HTTP_2, Some("https"), HeaderMap::new(), "https"),
        (Version::HTTP_2, None, HeaderMap::new(), "http"),
    ] {
        assert_eq!(scheme(version, pseudo_header, &headers), expected, "{version:?} {headers:?}");
    }
}

#[test]
fn the_authority_is_the_targets_own_or_host() {
    let with_host = Asked::get("/").header("host", "H:80").headers;
    for (uri, headers, expected) in
        [("/a", &with_host, "H:80"), ("http://u:81/a", &with_host, "u:81"), ("/a", &HeaderMap::new(), "")]
    {
        assert_eq!(umbra_routing::authority(&uri.parse().expect("an URI"), headers), expected, "{uri}");
    }
}

#[test]
fn header_keys_can_name_what_of_a_request_is_no_header() {
    each(&[
        (with("host", exact("b")), Asked::get("/").host("b"), true),
        (with("host", exact("b")), Asked::get("/").host("b:80"), false),
        (with(":authority", exact("b")), Asked::get("/").host("b"), true),
        (with("host", present()), Asked::get("/"), true),
        (with(":method", exact("PUT")), Asked::new("PUT", "/"), true),
        (with(":method", exact("PUT")), Asked::get("/"), false),
        (with(":scheme", exact("https")), Asked::get("/").scheme("https"), true),
        (with(":path", prefix("/a?")), Asked::get("/a?"), true),
        (with(":path", prefix("/a?")), Asked::get("/a"), false),
        (with(":path", regex("/b/.*=1")), Asked::get("/b/c?x=1"), true),
        (with(":path", regex("/b/.*=1")), Asked::get("/b/c?x=2"), false),
        (with(":status", present()), Asked::get("/"), false),
        (without(":status", present()), Asked::get("/"), true),
        (without(":method", exact("GET")), Asked::get("/"), false),
    ]);
}

#[test]
fn words_without_a_colon_are_plain_headers() {
    for (name, value) in [("method", "GET"), ("uri", "/a"), ("scheme", "http"), ("authority", "a")] {
        each(&[
            (with(name, exact(value)), Asked::get("/a"), false),
            (with(name, exact(value)), Asked::get("/").header(name, value), true),
        ]);
    }
}

#[test]
fn what_envoy_adds_before_it_matches_is_there() {
    let own_id = || Asked::get("/").header("x-request-id", "mine");
    each(&[
        (with("x-request-id", present()), Asked::get("/"), true),
        (with("x-request-id", regex("[0-9a-f-]{36}")), Asked::get("/"), true),
        (with("x-request-id", exact("")), Asked::get("/"), false),
        (with("x-request-id", exact("mine")), own_id(), true),
        (with("x-request-id", regex("[0-9a-f-]{36}")), own_id(), false),
        (without("x-request-id", present()), Asked::get("/"), false),
        (with("x-forwarded-proto", exact("http")), Asked::get("/"), true),
        (
            with("x-forwarded-proto", exact("http")),
            Asked::get("/").header("x-forwarded-proto", "https"),
            false,
        ),
        (with("x-forwarded-for", present()), Asked::get("/"), false),
        (with("x-envoy-attempt-count", present()), Asked::get("/"), false),
        (with("x-envoy-internal", present()), Asked::get("/"), false),
    ]);
}

#[test]
fn without_headers_takes_a_missing_header_as_empty_except_for_presence() {
    let asked = |value| Asked::get("/").header("x-a", value);
    let none = || Asked::get("/");
    each(&[
        (without("x-a", exact("")), none(), false),
        (without("x-a", exact("")), asked(""), false),
        (without("x-a", exact("")), asked("1"), true),
        (without("x-a", exact("1")), none(), true),
        (without("x-a", exact("1")), asked("1"), false),
        (without("x-a", prefix("v")), none(), true),
        (without("x-a", prefix("v")), asked("v1"), false),
        (without("x-a", regex("v\\d+")), none(), true),
        (without("x-a", regex("v\\d+")), asked("v1"), false),
        (without("x-a", regex("v\\d+")), asked("v1.1"), true),
        (without("x-a", regex(".*")), none(), false),
        (without("x-a", regex(".*")), asked("1"), false),
        (without("x-a", present()), none(), true),
        (without("x-a", present()), asked(""), false),
    ]);
}

#[test]
fn without_headers_fails_as_soon_as_one_copy_matches() {
    let twice = |one, two| Asked::get("/").header("x-a", one).header("x-a", two);
    each(&[
        (without("x-a", exact("1")), twice("2", "1"), false),
        (without("x-a", exact("1")), twice("2", "3"), true),
        (without("x-a", regex("1|2")), twice("3", "2"), false),
        (without("x-a", exact("1,2")), twice("1", "2"), true),
        (without("x-a", present()), Asked::get("/").bytes("x-a", b"\xff"), false),
        (without("x-a", regex(".*")), Asked::get("/").bytes("x-a", b"\xff"), true),
    ]);
}

#[test]
fn a_query_parameter_is_its_raw_first_value() {
    let k = |value: StringMatch| query("k", value);
    each(&[
        (k(exact("v")), Asked::get("/x?a=b&k=v&c=d"), true),
        (k(exact("v")), Asked::get("/?K=v"), false),
        (k(exact("v")), Asked::get("/?k=V"), false),
        (k(exact("v")), Asked::get("/?kk=v"), false),
        (k(exact("v")), Asked::get("/?k=w&k=v"), false),
        (k(exact("v")), Asked::get("/k=v"), false),
        (k(exact("a b")), Asked::get("/?k=a%20b"), false),
        (k(exact("a%20b")), Asked::get("/?k=a%20b"), true),
        (k(exact("1=2")), Asked::get("/?k=1=2"), true),
        (k(exact("1")), Asked::get("/?&&k=1&&"), true),
        (k(exact("1")), Asked::get("/?a=b;k=1"), false),
        (k(exact("1")), Asked::get("/??k=1"), false),
        (query("?k", exact("1")), Asked::get("/??k=1"), true),
        (k(prefix("v")), Asked::get("/?k=v2"), true),
        (k(regex("\\d+")), Asked::get("/?k=12"), true),
        (k(regex("\\d+")), Asked::get("/?k=12a"), false),
        (k(regex(".*")), Asked::get("/"), false),
    ]);
}

#[test]
fn a_query_parameter_without_a_value_is_empty_and_a_missing_one_is_not() {
    each(&[
        (query("k", exact("")), Asked::get("/?k"), true),
        (query("k", exact("")), Asked::get("/?k="), true),
        (query("k", exact("")), Asked::get("/?k=1"), false),
        (query("k", exact("")), Asked::get("/?a=1"), false),
        (query("k", exact("")), Asked::get("/"), false),
        (query("k", present()), Asked::get("/?k"), true),
        (query("k", present()), Asked::get("/?a"), false),
        (query("", present()), Asked::get("/"), false),
    ]);
}

#[test]
fn source_labels_are_all_on_the_clients_pod() {
    let pod = |labels: &[(&str, &str)]| Asked::get("/").labelled(labels);
    each(&[
        (labelleds(&[("app", "web")]), pod(&[("app", "web"), ("x", "y")]), true),
        (labelleds(&[("app", "web")]), pod(&[("app", "api")]), false),
        (labelleds(&[("app", "web"), ("version", "v1")]), pod(&[("app", "web")]), false),
        (labelleds(&[("app", "")]), pod(&[]), false),
        (labelleds(&[("app", "web")]), Asked::get("/"), false),
        (labelleds(&[]), Asked::get("/"), true),
    ]);
}

#[test]
fn conditions_of_one_block_add_up() {
    let block = RequestMatch {
        uri: Some(prefix("/a")),
        headers: with("x-a", present()).headers,
        without_headers: without("x-b", exact("1")).without_headers,
        query: query("k", present()).query,
        ..any()
    };
    let asked = || Asked::get("/a?k").header("x-a", "1");
    each(&[
        (block.clone(), asked(), true),
        (block.clone(), asked().header("x-b", "2"), true),
        (block.clone(), asked().header("x-b", "1"), false),
        (block.clone(), Asked::get("/a?k"), false),
        (block.clone(), Asked::get("/a").header("x-a", "1"), false),
        (block, Asked::get("/b?k").header("x-a", "1"), false),
    ]);
}
