//! What rules do beside choosing destinations (spec/istio.md 1A, 4.3 to 4.5).

use serde_json::{Value, json};
use umbra_routing::{
    Abort, AbortWith, Answer, Cors, Delay, DirectResponse, Fault, PathRewrite, Redirect, RedirectPath,
    RedirectPort, Retries, RetryOn, Rewrite, Rule, StringMatch,
};

use crate::world::{World, assert_has, to};

/// A rule to v1 with these fields.
fn routed(fields: Value) -> World {
    let mut rule = json!({"route": [to("v1")]});
    rule.as_object_mut().expect("a rule").extend(fields.as_object().expect("fields").clone());
    World::with_rules(json!([rule]))
}

fn rule(fields: Value) -> Rule {
    routed(fields).rules().remove(0)
}

fn answer(fields: Value) -> Answer {
    World::with_rules(json!([fields])).rules().remove(0).answer.expect("an answer")
}

#[track_caller]
fn assert_invalid(world: &World, field: &str) {
    assert!(world.is_held(), "{field}");
    assert_has(&world.findings(), &format!("Accepted=False Invalid spec.http[0].{field}: "));
}

#[test]
fn redirects() {
    let redirect = |redirect: Value| match answer(json!({"redirect": redirect})) {
        Answer::Redirect(redirect) => redirect,
        other => panic!("{other:?}"),
    };
    let whole = |path: &str| Some(RedirectPath::Whole(path.into()));
    let plain = || Redirect { code: 301, ..Redirect::default() };
    assert_eq!(redirect(json!({"uri": "/a"})), Redirect { path: whole("/a"), ..plain() });
    let all = json!({"uri": "/b", "authority": "example.com", "scheme": "https", "port": 8443, "redirectCode": 308});
    let expected = Redirect {
        code: 308,
        path: whole("/b"),
        authority: Some("example.com".into()),
        scheme: Some("https".into()),
        port: Some(RedirectPort::Number(8443)),
    };
    assert_eq!(redirect(all), expected);
    let prefix = redirect(json!({"prefixRewrite": "/p"}));
    assert_eq!(prefix, Redirect { path: Some(RedirectPath::Prefix("/p".into())), ..plain() });
    for (word, port) in
        [("FROM_PROTOCOL_DEFAULT", RedirectPort::OfScheme), ("FROM_REQUEST_PORT", RedirectPort::OfService)]
    {
        assert_eq!(redirect(json!({"uri": "/a", "derivePort": word})).port, Some(port), "{word}");
    }
    let port_alone = redirect(json!({"derivePort": "FROM_REQUEST_PORT"}));
    assert_eq!(port_alone, Redirect { port: Some(RedirectPort::OfService), ..plain() });
    for code in [301, 302, 303, 307, 308] {
        assert_eq!(u32::from(redirect(json!({"uri": "/a", "redirectCode": code})).code), code);
    }
}

#[test]
fn redirects_that_make_no_sense() {
    let world = |redirect: Value| World::with_rules(json!([{"redirect": redirect}]));
    for (redirect, field) in [
        (json!({}), "redirect"),
        (json!({"uri": "/a", "prefixRewrite": "/b"}), "redirect.prefixRewrite"),
        (json!({"uri": "/a", "redirectCode": 304}), "redirect.redirectCode"),
        (json!({"uri": "/a", "port": 0}), "redirect.port"),
        (json!({"uri": "/a", "port": 80, "derivePort": "FROM_REQUEST_PORT"}), "redirect.derivePort"),
        (json!({"uri": "/a", "derivePort": "FROM_MOON"}), "redirect.derivePort"),
        (json!({"scheme": "ftp"}), "redirect.scheme"),
    ] {
        assert_invalid(&world(redirect), field);
    }
    let under = |uri: Value| {
        World::with_rules(json!([{"match": [{"uri": uri}], "redirect": {"prefixRewrite": "/b"}}]))
    };
    assert_invalid(&under(json!({"exact": "/a"})), "redirect.prefixRewrite");
    assert!(!under(json!({"prefix": "/a"})).is_held());
}

#[test]
fn direct_responses() {
    let direct = |direct: Value| match answer(json!({"directResponse": direct})) {
        Answer::Direct(direct) => direct,
        other => panic!("{other:?}"),
    };
    let expected = |status, body: &[u8]| DirectResponse { status, body: body.to_vec() };
    assert_eq!(direct(json!({"status": 418, "body": {"string": "short"}})), expected(418, b"short"));
    assert_eq!(direct(json!({"status": 200, "body": {"bytes": "aGVsbG8="}})), expected(200, b"hello"));
    assert_eq!(direct(json!({"status": 204})), expected(204, b""));
    assert_eq!(direct(json!({"status": 600})), expected(600, b""));
    let world = |direct: Value| World::with_rules(json!([{"directResponse": direct}]));
    for (direct, field) in [
        (json!({"status": 99}), "directResponse.status"),
        (json!({"status": 601}), "directResponse.status"),
        (json!({"status": 9999}), "directResponse.status"),
        (json!({"status": 200, "body": {"string": "a", "bytes": "AA=="}}), "directResponse.body"),
        (json!({"status": 200, "body": {"bytes": "%%%"}}), "directResponse.body.bytes"),
        (
            json!({"status": 200, "body": {"string": "a".repeat(1024 * 1024 + 1)}}),
            "directResponse.body.string",
        ),
    ] {
        assert_invalid(&world(direct), field);
    }
    let large = world(json!({"status": 200, "body": {"string": "a".repeat(100 * 1024 + 1)}}));
    assert!(!large.is_held());
    assert_has(&large.findings(), "PartiallyInvalid spec.http[0].directResponse.body.string: large");
}

#[test]
fn a_rule_answers_in_one_way() {
    for (rule, field) in [
        (json!({}), "route"),
        (json!({"route": [to("v1")], "redirect": {"uri": "/a"}}), "redirect"),
        (json!({"route": [to("v1")], "directResponse": {"status": 200}}), "directResponse"),
        (json!({"redirect": {"uri": "/a"}, "directResponse": {"status": 200}}), "directResponse"),
        (json!({"redirect": {"uri": "/a"}, "rewrite": {"uri": "/b"}}), "rewrite"),
        (json!({"directResponse": {"status": 200}, "fault": {"abort": {"httpStatus": 500}}}), "fault"),
    ] {
        assert_invalid(&World::with_rules(json!([rule])), field);
    }
    let world = World::with_rules(
        json!([{"redirect": {"uri": "/a"}, "mirror": {"host": "sa-logic"}, "timeout": "1s"}]),
    );
    let rule = &world.rules()[0];
    assert_eq!(
        (rule.destinations.len(), rule.mirrors.len(), rule.timeout_ms, &rule.retries),
        (0, 0, None, &None)
    );
    assert_has(&world.findings(), "PartiallyInvalid spec.http[0].mirror: nothing is copied");
}

#[test]
fn rewrites() {
    let matched = |path: &str| Some(PathRewrite::Matched(path.into()));
    let rewrite = |fields: Value| rule(json!({"rewrite": fields})).rewrite.expect("a rewrite");
    assert_eq!(rewrite(json!({"uri": "/n"})), Rewrite { path: matched("/n"), authority: None });
    assert_eq!(
        rewrite(json!({"uri": "/n", "authority": "Example.COM"})),
        Rewrite { path: matched("/n"), authority: Some("Example.COM".into()) }
    );
    let by_regex = rewrite(json!({"uriRegexRewrite": {"match": "^/(.)/", "rewrite": r"/\1\0\\/"}}));
    let expected = PathRewrite::Regex { pattern: "^/(.)/".into(), substitution: r"/\1\0\\/".into() };
    assert_eq!(by_regex.path, Some(expected));
    for (fields, field) in [
        (json!({}), "rewrite"),
        (json!({"uri": "/a", "uriRegexRewrite": {"match": "a", "rewrite": "b"}}), "rewrite.uriRegexRewrite"),
        (json!({"uriRegexRewrite": {"match": "a("}}), "rewrite.uriRegexRewrite.match"),
        (json!({"uriRegexRewrite": {"match": "a"}}), "rewrite.uriRegexRewrite.rewrite"),
        (json!({"uriRegexRewrite": {"rewrite": "a"}}), "rewrite.uriRegexRewrite.match"),
        (json!({"uriRegexRewrite": {"match": "a", "rewrite": r"\x"}}), "rewrite.uriRegexRewrite.rewrite"),
    ] {
        assert_invalid(&routed(json!({"rewrite": fields})), field);
    }
}

#[test]
fn timeouts() {
    assert_eq!(rule(json!({})).timeout_ms, None);
    assert_eq!(rule(json!({"timeout": "1.5s"})).timeout_ms, Some(1500));
    for bad in ["0s", "0.5ms", "5", "1s500us", "-1s", ""] {
        assert_invalid(&routed(json!({"timeout": bad})), "timeout");
    }
}

#[test]
fn retries() {
    use RetryOn::{Cancelled, ConnectFailure, FiveXx, RefusedStream, RetriableStatusCodes, Unavailable};
    let retries = |fields: Value| rule(fields).retries;
    let default_on = vec![ConnectFailure, RefusedStream, Unavailable, Cancelled];
    let default = Retries { attempts: 2, on: default_on.clone(), ..Retries::default() };
    assert_eq!(retries(json!({})), Some(default), "Istio's own when nothing is said");
    assert_eq!(retries(json!({"retries": {}})), None);
    assert_eq!(retries(json!({"retries": {"attempts": 0}})), None);
    let three = retries(json!({"retries": {"attempts": 3}}));
    assert_eq!(three, Some(Retries { attempts: 3, on: default_on, ..Retries::default() }));
    let all =
        retries(json!({"retries": {"attempts": 1, "retryOn": " 5xx , 503,409", "perTryTimeout": "300ms",
        "backoff": "10ms", "retryIgnorePreviousHosts": false, "retryRemoteLocalities": true}}));
    let expected = Retries {
        attempts: 1,
        on: vec![FiveXx, RetriableStatusCodes],
        codes: vec![503, 409],
        per_try_timeout_ms: Some(300),
        backoff_ms: Some(10),
        previous_hosts: true,
    };
    assert_eq!(all, Some(expected));
}

#[test]
fn retry_words() {
    let world = |on: &str| routed(json!({"retries": {"attempts": 1, "retryOn": on}}));
    for word in [
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
    ] {
        let on = world(word).rules()[0].retries.clone().expect("retries").on;
        assert_eq!(serde_json::to_value(&on).unwrap(), json!([word]));
    }
    for word in ["envoy-ratelimited", "http3-post-connect-failure"] {
        let world = world(&format!("reset,{word}"));
        assert_eq!(world.rules()[0].retries.clone().expect("retries").on, [RetryOn::Reset], "{word}");
        assert_has(&world.findings(), "PartiallyInvalid spec.http[0].retries.retryOn: ");
    }
    for bad in ["sometimes", "5xx,sometimes", "99", "1000"] {
        assert_invalid(&world(bad), "retries.retryOn");
    }
}

#[test]
fn retries_that_make_no_sense() {
    for (retries, field) in [
        (json!({"attempts": -1}), "retries.attempts"),
        (json!({"attempts": 0, "retryOn": "5xx"}), "retries.retryOn"),
        (json!({"retryOn": "5xx"}), "retries.retryOn"),
        (json!({"attempts": 0, "perTryTimeout": "1s"}), "retries.perTryTimeout"),
        (json!({"attempts": 0, "retryRemoteLocalities": true}), "retries.retryRemoteLocalities"),
        (json!({"attempts": 1, "perTryTimeout": "0s"}), "retries.perTryTimeout"),
        (json!({"attempts": 1, "backoff": "0.1ms"}), "retries.backoff"),
    ] {
        assert_invalid(&routed(json!({"retries": retries})), field);
    }
}

#[test]
fn faults() {
    let fault = |fields: Value| rule(json!({"fault": fields})).fault;
    let abort = |with, per_million| Some(Fault { delay: None, abort: Some(Abort { with, per_million }) });
    let half = json!({"value": 50.0});
    assert_eq!(
        fault(json!({"abort": {"httpStatus": 418, "percentage": half}})),
        abort(AbortWith::Http(418), 500_000)
    );
    for (name, number) in [("OK", 0), ("CANCELLED", 1), ("UNAVAILABLE", 14), ("UNAUTHENTICATED", 16)] {
        let expected = abort(AbortWith::Grpc(number), 1);
        assert_eq!(fault(json!({"abort": {"grpcStatus": name, "percentage": {"value": 0.0001}}})), expected);
    }
    assert_eq!(fault(json!({"abort": {"httpStatus": 418}})), None, "nobody without a percentage");
    assert_eq!(fault(json!({"abort": {"httpStatus": 418, "percentage": {}}})), None);
    let delay = |per_million| Some(Fault { delay: Some(Delay { ms: 1500, per_million }), abort: None });
    assert_eq!(fault(json!({"delay": {"fixedDelay": "1.5s", "percentage": half}})), delay(500_000));
    assert_eq!(fault(json!({"delay": {"fixedDelay": "1.5s", "percent": 20}})), delay(200_000));
    assert_eq!(
        fault(json!({"delay": {"fixedDelay": "1.5s", "percentage": half, "percent": 20}})),
        delay(500_000)
    );
    assert_eq!(fault(json!({"delay": {"fixedDelay": "1.5s"}})), None);
}

#[test]
fn faults_that_make_no_sense() {
    for (fault, field) in [
        (json!({}), "fault"),
        (json!({"abort": {"percentage": {"value": 1}}}), "fault.abort"),
        (json!({"abort": {"httpStatus": 500, "grpcStatus": "OK"}}), "fault.abort"),
        (json!({"abort": {"httpStatus": 99}}), "fault.abort.httpStatus"),
        (json!({"abort": {"httpStatus": 601}}), "fault.abort.httpStatus"),
        (json!({"abort": {"grpcStatus": "SAD"}}), "fault.abort.grpcStatus"),
        (json!({"abort": {"http2Error": "x"}}), "fault.abort.http2Error"),
        (json!({"abort": {"httpStatus": 500, "percentage": {"value": 150}}}), "fault.abort.percentage.value"),
        (
            json!({"abort": {"httpStatus": 500, "percentage": {"value": 0.00001}}}),
            "fault.abort.percentage.value",
        ),
        (json!({"delay": {"exponentialDelay": "1s"}}), "fault.delay.exponentialDelay"),
        (json!({"delay": {"percentage": {"value": 1}}}), "fault.delay.fixedDelay"),
        (json!({"delay": {"fixedDelay": "0s"}}), "fault.delay.fixedDelay"),
        (json!({"delay": {"fixedDelay": "1s", "percent": 101}}), "fault.delay.percent"),
    ] {
        assert_invalid(&routed(json!({"fault": fault})), field);
    }
}

#[test]
fn cors() {
    let cors = |fields: Value| rule(json!({"corsPolicy": fields})).cors;
    assert_eq!(cors(json!({})), None, "an empty policy does nothing");
    let all = cors(
        json!({"allowOrigins": [{"exact": "http://a.example.com"}, {"regex": "http://.*"}, {"prefix": "https:"}],
        "allowMethods": ["GET", "*"], "allowHeaders": ["X-A"], "exposeHeaders": ["*"], "maxAge": "1m",
        "allowCredentials": true, "unmatchedPreflights": "IGNORE"}),
    );
    let expected = Cors {
        origins: vec![
            StringMatch::Exact("http://a.example.com".into()),
            StringMatch::Regex("http://.*".into()),
            StringMatch::Prefix("https:".into()),
        ],
        methods: vec!["GET".into(), "*".into()],
        headers: vec!["X-A".into()],
        expose: vec!["*".into()],
        max_age: Some(60),
        credentials: true,
        ignore_unmatched: true,
    };
    assert_eq!(all, Some(expected));
    let origins = |fields: Value| cors(fields).expect("a policy").origins;
    let exact = |text: &str| StringMatch::Exact(text.into());
    assert_eq!(origins(json!({"allowOrigin": ["http://a", "*"]})), [exact("http://a"), StringMatch::Present]);
    assert_eq!(origins(json!({"allowOrigins": [{"exact": "*"}]})), [StringMatch::Present]);
    assert_eq!(
        origins(json!({"allowOrigins": [{"exact": "http://b"}], "allowOrigin": ["*"]})),
        [exact("http://b")]
    );
}

#[test]
fn an_unknown_form_of_origin_is_left_out_and_nonsense_is_invalid() {
    let world = routed(json!({"corsPolicy": {"allowOrigins": [{"suffix": ".com"}, {"exact": "http://a"}]}}));
    assert_eq!(
        world.rules()[0].cors.clone().expect("a policy").origins,
        [StringMatch::Exact("http://a".into())]
    );
    assert_has(&world.findings(), "PartiallyInvalid spec.http[0].corsPolicy.allowOrigins[0].suffix: ");
    for (cors, field) in [
        (json!({"allowOrigins": [{}]}), "corsPolicy.allowOrigins[0]"),
        (json!({"allowOrigins": [{"regex": "("}]}), "corsPolicy.allowOrigins[0].regex"),
        (json!({"allowMethods": ["FETCH"]}), "corsPolicy.allowMethods[0]"),
        (json!({"allowHeaders": ["a b"]}), "corsPolicy.allowHeaders[0]"),
        (json!({"maxAge": "500ms"}), "corsPolicy.maxAge"),
        (json!({"maxAge": "0s"}), "corsPolicy.maxAge"),
        (json!({"unmatchedPreflights": "DROP"}), "corsPolicy.unmatchedPreflights"),
    ] {
        assert_invalid(&routed(json!({"corsPolicy": cors})), field);
    }
}

#[test]
fn every_destination_and_its_mirrors_stay_beside_actions() {
    let world = routed(
        json!({"mirror": {"host": "sa-logic", "subset": "v2"}, "timeout": "1s", "rewrite": {"uri": "/"}}),
    );
    let rule = &world.rules()[0];
    assert_eq!((rule.destinations.len(), rule.mirrors.len(), rule.answer.is_none()), (1, 1, true));
}
