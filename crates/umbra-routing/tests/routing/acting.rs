//! What a rule does to a request that it serves: blocks, levels and precedence. Each action alone is tested beside its
//! code.

use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue, StatusCode, Version};
use umbra_routing::{
    Abort, AbortWith, Answer, BackendRef, Cors, CorsDecision, Delay, DirectResponse, Exchange, Fault,
    HeaderChanges, HeaderEdits, LocalAnswer, Mirror, PathRewrite, Redirect, RedirectPath, RequestMatch,
    Retries, Rewrite, RouteTable, Rule, RuleError, ServiceName, StringMatch, WeightedBackend,
};

use crate::asked::Asked;

const ALL: u32 = 1_000_000;

fn to(name: &str) -> WeightedBackend {
    WeightedBackend::new(1, BackendRef::all(ServiceName::new("default", name), 80))
}

fn uri(uri: StringMatch) -> RequestMatch {
    RequestMatch { uri: Some(uri), ..RequestMatch::default() }
}

fn sets(of: &[(&str, &str)]) -> HeaderEdits {
    let set = of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    HeaderEdits { set, ..HeaderEdits::default() }
}

fn on_requests(request: HeaderEdits) -> Option<HeaderChanges> {
    Some(HeaderChanges { request, ..HeaderChanges::default() })
}

fn on_answers(response: HeaderEdits) -> Option<HeaderChanges> {
    Some(HeaderChanges { response, ..HeaderChanges::default() })
}

fn exchange() -> Exchange<'static> {
    Exchange {
        method: "GET",
        scheme: "http",
        authority: "a",
        target: "/",
        version: Version::HTTP_11,
        client: IpAddr::from([10, 0, 0, 7]),
        started: UNIX_EPOCH,
        upstream: None,
        status: Some(StatusCode::OK),
    }
}

fn table(rule: &Rule) -> RouteTable<()> {
    RouteTable::new(std::slice::from_ref(rule), |_| ()).expect("a rule that a node can use")
}

/// A rule with several kinds of uri conditions.
fn with_blocks(rule: Rule) -> Rule {
    let put = RequestMatch { method: Some(StringMatch::Exact("PUT".into())), ..RequestMatch::default() };
    let in_any_case = RequestMatch { ignore_uri_case: true, ..uri(StringMatch::Prefix("/Case".into())) };
    let matches = vec![
        uri(StringMatch::Prefix("/p".into())),
        uri(StringMatch::Exact("/e".into())),
        uri(StringMatch::Regex("/r.".into())),
        in_any_case,
        put,
    ];
    Rule { matches, ..rule }
}

#[test]
fn a_rewrite_and_a_redirect_replace_what_the_block_that_matched_took() {
    let path = Some(PathRewrite::Matched("/new".into()));
    let rewrite = Some(Rewrite { path, ..Rewrite::default() });
    let rewriting = table(&with_blocks(Rule { rewrite, destinations: vec![to("a")], ..Rule::default() }));
    let path = Some(RedirectPath::Prefix("/new".into()));
    let answer = Some(Answer::Redirect(Redirect { code: 308, path, ..Redirect::default() }));
    let redirecting = table(&with_blocks(Rule { answer, ..Rule::default() }));
    for (asked, expected) in [
        (Asked::get("/p/x?q"), "/new/x?q"),
        (Asked::get("/e?q"), "/new?q"),
        (Asked::get("/r1?q"), "/new?q"),
        (Asked::get("/cASE/x"), "/new/x"),
        (Asked::new("PUT", "/y?q"), "/newy?q"),
    ] {
        let head = asked.head();
        let selection = rewriting.select(&head, &mut |_| 0).expect("a match");
        assert_eq!(selection.route.rewrite(selection.block, head.target).as_deref(), Some(expected));
        let selection = redirecting.select(&head, &mut |_| 0).expect("a match");
        let status = StatusCode::PERMANENT_REDIRECT;
        let redirect = LocalAnswer::Redirect { status, location: format!("http://a{expected}") };
        assert_eq!(selection.route.answer(&head, selection.block, 80), Some(redirect));
    }
}

#[test]
fn a_rule_that_answers_itself_sends_copies_delays_and_allows_nothing() {
    let direct = DirectResponse { status: 418, body: b"short and stout".to_vec() };
    let cors = Cors { origins: vec![StringMatch::Present], ..Cors::default() };
    let delay = Some(Delay { ms: 1, per_million: ALL });
    let abort = Some(Abort { with: AbortWith::Http(500), per_million: ALL });
    let mut rule = Rule {
        answer: Some(Answer::Direct(direct)),
        mirrors: vec![Mirror::new(ALL, to("m").backend)],
        headers: on_answers(sets(&[("x-rule", "d")])),
        cors: Some(cors),
        fault: Some(Fault { delay, abort }),
        ..Rule::default()
    };
    let asked = Asked::get("/").header("origin", "http://b");
    let acts = |rule: &Rule| {
        let table = table(rule);
        let route = &table.routes()[0];
        let cors = route.cors(&asked.head()) != CorsDecision::Pass;
        let fault = route.delay(&mut |_| 0).is_some() && route.abort(false, &mut |_| 0).is_some();
        (route.mirrors.len(), cors, fault)
    };
    assert_eq!(acts(&rule), (0, false, false));
    let (table, mut answer) = (table(&rule), HeaderMap::new());
    let route = &table.routes()[0];
    let expected = LocalAnswer::Direct { status: StatusCode::IM_A_TEAPOT, body: b"short and stout" };
    assert_eq!(route.answer(&asked.head(), 0, 80), Some(expected));
    route.change_answer(None, &mut answer, &asked.headers, &exchange());
    assert_eq!(answer["x-rule"], "d");
    rule.answer = None;
    assert_eq!(acts(&rule), (1, true, true), "the same with a destination");
}

#[test]
fn with_two_destinations_the_block_of_the_destination_comes_first_and_in_full() {
    let edits = |level: &str, gone: &str| HeaderEdits {
        remove: vec![gone.into()],
        set: vec![("x-a".into(), level.into()), ("x-saw".into(), "%REQ(x-a)%".into())],
        add: vec![("x-b".into(), level.into())],
    };
    let changes = |edits: HeaderEdits| Some(HeaderChanges { request: edits.clone(), response: edits });
    let own = WeightedBackend { headers: changes(edits("destination", "x-d")), ..to("a") };
    let rule =
        Rule { destinations: vec![own, to("b")], headers: changes(edits("rule", "x-c")), ..Rule::default() };
    let table = table(&rule);
    let route = &table.routes()[0];
    let fields = |headers: &HeaderMap| {
        let field = |name: &str| {
            headers
                .get_all(name)
                .iter()
                .map(|value| value.to_str().expect("text"))
                .collect::<Vec<_>>()
                .join(",")
        };
        ["x-a", "x-b", "x-c", "x-d", "x-saw"].map(field)
    };
    let before = || {
        Asked::get("/").header("x-a", "c").header("x-b", "c").header("x-c", "c").header("x-d", "c").headers
    };
    let (mut first, mut second) = (before(), before());
    route.change_request(0, &mut first, &exchange());
    route.change_request(1, &mut second, &exchange());
    assert_eq!(fields(&first), ["rule", "c,destination,rule", "", "", "destination"]);
    assert_eq!(fields(&second), ["rule", "c,rule", "", "c", "c"]);
    let (mut answer, mut local) = (before(), before());
    route.change_answer(Some(0), &mut answer, &first, &exchange());
    route.change_answer(None, &mut local, &first, &exchange());
    assert_eq!(fields(&answer), ["rule", "c,destination,rule", "", "", "rule"]);
    assert_eq!(fields(&local), ["rule", "c,rule", "", "c", "rule"]);
}

#[test]
fn the_rewrites_authority_beats_the_rules_host_and_that_the_destinations() {
    let host = |name: &str| on_requests(sets(&[("Host", name)]));
    let rewrite = || Some(Rewrite { authority: Some("Rewrite.Example".into()), ..Rewrite::default() });
    let rule = |rewrite, headers| {
        let own = WeightedBackend { headers: host("destination.example"), ..to("a") };
        Rule { destinations: vec![own, to("b")], rewrite, headers, ..Rule::default() }
    };
    for (rule, of_first, of_second) in [
        (rule(rewrite(), host("rule.example")), Some("Rewrite.Example"), Some("Rewrite.Example")),
        (rule(None, host("rule.example:81")), Some("rule.example:81"), Some("rule.example:81")),
        (rule(None, None), Some("destination.example"), None),
    ] {
        let table = table(&rule);
        let authority = |destination| {
            let authority = table.routes()[0].authority(destination);
            authority.map(|value: &HeaderValue| value.to_str().expect("text").to_owned())
        };
        assert_eq!(authority(0).as_deref(), of_first);
        assert_eq!(authority(1).as_deref(), of_second);
    }
}

#[test]
fn a_rule_without_actions_changes_nothing() {
    let table = table(&Rule { destinations: vec![to("a")], ..Rule::default() });
    let (route, asked) = (&table.routes()[0], Asked::get("/a?b").header("origin", "http://b"));
    assert_eq!(route.answer(&asked.head(), 0, 80), None);
    assert_eq!((route.delay(&mut |_| 0), route.abort(true, &mut |_| 0)), (None, None));
    assert_eq!(route.cors(&asked.head()), CorsDecision::Pass);
    assert_eq!((route.rewrite(0, "/a?b"), route.authority(0), route.timeout()), (None, None, None));
    assert!(route.retries().is_none());
    let (mut request, mut answer) = (asked.headers.clone(), asked.headers.clone());
    route.change_request(0, &mut request, &exchange());
    route.change_answer(Some(0), &mut answer, &asked.headers, &exchange());
    assert_eq!((&request, &answer), (&asked.headers, &asked.headers));
}

#[test]
fn times_are_those_of_the_rule() {
    let retries =
        Retries { attempts: 3, per_try_timeout_ms: Some(600), previous_hosts: true, ..Retries::default() };
    let rule = Rule {
        destinations: vec![to("a")],
        timeout_ms: Some(2400),
        retries: Some(retries),
        ..Rule::default()
    };
    let table = table(&rule);
    let route = &table.routes()[0];
    let retries = route.retries().expect("retries");
    assert_eq!(route.timeout(), Some(Duration::from_millis(2400)));
    assert_eq!((retries.attempts, retries.avoids_tried), (3, false));
    assert_eq!(retries.per_try_timeout, Some(Duration::from_millis(600)));
}

#[test]
fn a_rule_with_an_action_that_cannot_be_used_is_refused() {
    let bad_value = on_answers(sets(&[("x", "%NO%")]));
    let on_destination = WeightedBackend { headers: bad_value.clone(), ..to("a") };
    let redirect = |code| Some(Answer::Redirect(Redirect { code, ..Redirect::default() }));
    let direct = |status| Some(Answer::Direct(DirectResponse { status, ..DirectResponse::default() }));
    let authority = Some(Rewrite { authority: Some("a b".into()), ..Rewrite::default() });
    let abort = Some(Abort { with: AbortWith::Http(601), per_million: 0 });
    for (rule, expected) in [
        (Rule { headers: bad_value, ..Rule::default() }, "umbra does not know the operator %NO%"),
        (
            Rule { destinations: vec![on_destination], ..Rule::default() },
            "umbra does not know the operator %NO%",
        ),
        (Rule { answer: redirect(304), ..Rule::default() }, "the redirect code 304"),
        (Rule { answer: direct(99), ..Rule::default() }, "the status 99"),
        (Rule { rewrite: authority, ..Rule::default() }, "\"a b\" is not a host"),
        (Rule { fault: Some(Fault { delay: None, abort }), ..Rule::default() }, "the status 601"),
    ] {
        let error: RuleError = rule.check().expect_err(expected);
        assert!(error.to_string().starts_with(expected), "{error}");
    }
    assert!(Rule::default().check().is_ok());
}
