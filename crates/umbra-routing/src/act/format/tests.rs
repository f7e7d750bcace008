use std::time::{Duration, UNIX_EPOCH};

use super::*;

fn exchange() -> Exchange<'static> {
    Exchange {
        method: "GET",
        scheme: "http",
        authority: "sa-logic:80",
        target: "/a?b=c",
        version: Version::HTTP_11,
        client: IpAddr::from([10, 0, 0, 7]),
        started: UNIX_EPOCH + Duration::from_millis(1_772_323_199_123),
        upstream: Some(SocketAddr::from(([10, 0, 1, 2], 5000))),
        status: Some(StatusCode::IM_A_TEAPOT),
    }
}

fn headers(of: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in of {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

/// Of a request with `x-a: one`, `x-a: two` and an empty `x-e`, answered with `x-r: res`.
fn value(format: &str, exchange: &Exchange<'_>) -> Option<String> {
    let (request, response) =
        (headers(&[("x-a", "one"), ("x-a", "two"), ("x-e", "")]), headers(&[("x-r", "res")]));
    let seen = Seen { request: &request, response: Some(&response), exchange };
    let value = Format::new(format).expect("a format").value(&seen)?;
    Some(String::from_utf8(value.as_bytes().to_vec()).expect("text"))
}

#[test]
fn operators_tell_of_the_request_and_its_answer() {
    for (format, expected) in [
        ("plain", "plain"),
        ("100%%", "100%"),
        ("%%REQ(x-a)%%", "%REQ(x-a)%"),
        ("%REQ(x-a)%", "one"),
        ("%REQ(X-A)%", "one"),
        ("a-%REQ(x-missing)%-b", "a--b"),
        ("%REQ(x-missing?x-a)%", "one"),
        ("%REQ(x-a?:path)%", "one"),
        ("[%REQ(x-e?x-a)%]", "[]"),
        ("%REQ(x-a):2%!", "on!"),
        ("%REQ(x-a):9%", "one"),
        ("%REQ(:path)%", "/a?b=c"),
        ("%REQ(:path):2%", "/a"),
        ("%REQ(:method)% %REQ(:scheme)% %REQ(:authority)% %REQ(Host)%", "GET http sa-logic:80 sa-logic:80"),
        ("%RESP(x-r)%", "res"),
        ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "10.0.0.7"),
        ("%START_TIME%", "2026-02-28T23:59:59.123Z"),
        ("%PROTOCOL%", "HTTP/1.1"),
        ("%UPSTREAM_HOST%", "10.0.1.2:5000"),
        ("%RESPONSE_CODE%", "418"),
        ("é", "é"),
    ] {
        assert_eq!(value(format, &exchange()).as_deref(), Some(expected), "{format}");
    }
}

#[test]
fn what_is_not_known_yet_is_empty_but_for_the_status() {
    let early = Exchange { upstream: None, status: None, version: Version::HTTP_2, ..exchange() };
    assert_eq!(value("%UPSTREAM_HOST%", &early), None);
    assert_eq!(value("%RESPONSE_CODE%", &early).as_deref(), Some("0"));
    assert_eq!(value("%PROTOCOL%", &early).as_deref(), Some("HTTP/2"));
    let request = HeaderMap::new();
    let seen = Seen { request: &request, response: None, exchange: &early };
    assert_eq!(Format::new("%RESP(x-r)%").expect("a format").value(&seen), None);
}

#[test]
fn a_value_that_is_empty_as_a_whole_is_none() {
    for format in ["", "%REQ(x-missing)%", "%REQ(x-e)%", "%RESP(x-missing)%", "%REQ(x-a):0%"] {
        assert_eq!(value(format, &exchange()), None, "{format}");
    }
}

#[test]
fn a_client_on_a_dual_stack_listener_has_its_own_address() {
    let mapped = Exchange { client: "::ffff:10.0.0.7".parse().expect("an address"), ..exchange() };
    assert_eq!(value("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", &mapped).as_deref(), Some("10.0.0.7"));
}

#[test]
fn unknown_operators_are_named() {
    for (format, name) in [
        ("%UPSTREAM_CLUSTER%", "UPSTREAM_CLUSTER"),
        ("a %START_TIME(%s)% b", "START_TIME(%s)"),
        ("%REQ%", "REQ"),
        ("%REQ()%", "REQ()"),
        ("%REQ(a b)%", "REQ(a b)"),
        ("%REQ(x):y%", "REQ(x):y"),
        ("%REQ(x)y%", "REQ(x)y"),
        ("%PROTOCOL:2%", "PROTOCOL:2"),
        ("%RESP(:status)%", "RESP(:status)"),
        ("%req(x)%", "req(x)"),
        ("50% of all, 50%", " of all, 50"),
    ] {
        let error = check_format(format).expect_err(format);
        assert_eq!(error, FormatError::Unknown(name.into()), "{format}");
    }
}

#[test]
fn a_lone_percent_sign_and_control_characters_are_refused() {
    for format in ["100%", "%REQ(x", "%REQ(x)", "a%b"] {
        assert!(matches!(check_format(format), Err(FormatError::Unclosed(_))), "{format}");
    }
    for format in ["a\nb", "a\0b", "a\x7fb"] {
        assert!(matches!(check_format(format), Err(FormatError::Value(_))), "{format:?}");
    }
    assert_eq!(check_format("tab\tand é"), Ok(()));
}
