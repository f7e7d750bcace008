//! Which rule a request gets, which destination, which mirrors.

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use umbra_routing::{
    Answer, BackendRef, Draw, HeaderMatch, MatchError, Mirror, RequestMatch, RouteTable, Rule, RuleError,
    ServiceName, StringMatch, WeightedBackend,
};

use crate::asked::Asked;

const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));

fn to(name: &str, weight: u32) -> WeightedBackend {
    WeightedBackend::new(weight, BackendRef::all(ServiceName::new("default", name), 80))
}

fn rule(name: &str, matches: Vec<RequestMatch>) -> Rule {
    Rule { name: name.into(), matches, destinations: vec![to(name, 1)], ..Rule::default() }
}

fn uri(uri: StringMatch) -> RequestMatch {
    RequestMatch { uri: Some(uri), ..RequestMatch::default() }
}

fn header(name: &str, value: StringMatch) -> RequestMatch {
    RequestMatch { headers: vec![HeaderMatch { name: name.into(), value }], ..RequestMatch::default() }
}

fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.into())
}

fn regex(text: &str) -> StringMatch {
    StringMatch::Regex(text.into())
}

/// The name of the rule that serves, with a destination's name as the caller's handle.
fn served(rules: &[Rule], method: &str, path: &str, headers: &[(&'static str, &str)]) -> Option<String> {
    let table =
        RouteTable::new(rules, |backend| backend.service.name.clone()).expect("rules that a node can use");
    let asked =
        headers.iter().fold(Asked::new(method, path), |asked, (name, value)| asked.header(name, value));
    table.select(&asked.head(), &mut |_| 0).map(|selection| selection.route.name.clone())
}

fn matches(block: RequestMatch, method: &str, path: &str, headers: &[(&'static str, &str)]) -> bool {
    served(&[rule("r", vec![block])], method, path, headers).is_some()
}

#[test]
fn the_first_rule_that_matches_serves() {
    let rules = [
        rule("a", vec![uri(StringMatch::Prefix("/a".into()))]),
        rule("ab", vec![uri(StringMatch::Prefix("/ab".into()))]),
        rule("either", vec![uri(exact("/x")), header("h", exact("1"))]),
    ];
    assert_eq!(served(&rules, "GET", "/abc", &[]).as_deref(), Some("a"));
    assert_eq!(served(&rules, "GET", "/x", &[]).as_deref(), Some("either"));
    assert_eq!(served(&rules, "GET", "/y", &[("h", "1")]).as_deref(), Some("either"));
    assert_eq!(served(&rules, "GET", "/y", &[]), None, "no rule: 404, never a default");
    assert_eq!(served(&[rule("all", Vec::new())], "GET", "/", &[]).as_deref(), Some("all"));
}

#[test]
fn where_the_list_ends_for_some_requests_they_get_no_rule() {
    let end = Rule { answer: Some(Answer::NoRoute), ..rule("end", vec![header("h", exact("1"))]) };
    let rules = [rule("a", vec![uri(exact("/a"))]), end, rule("rest", Vec::new())];
    assert_eq!(served(&rules, "GET", "/a", &[("h", "1")]).as_deref(), Some("a"));
    assert_eq!(served(&rules, "GET", "/b", &[("h", "1")]), None);
    assert_eq!(served(&rules, "GET", "/b", &[]).as_deref(), Some("rest"));
}

#[test]
fn all_conditions_of_a_block_must_hold_and_never_never_does() {
    let block = || RequestMatch {
        method: Some(exact("POST")),
        headers: vec![HeaderMatch { name: "h".into(), value: StringMatch::Present }],
        ..uri(exact("/x"))
    };
    assert!(matches(block(), "POST", "/x", &[("h", "")]));
    assert!(!matches(block(), "GET", "/x", &[("h", "")]));
    assert!(!matches(block(), "post", "/x", &[("h", "")]));
    assert!(!matches(block(), "POST", "/x", &[]));
    assert!(!matches(block(), "POST", "/xy", &[("h", "")]));
    assert!(!matches(RequestMatch { never: true, ..block() }, "POST", "/x", &[("h", "")]));
    assert!(!matches(RequestMatch { never: true, ..RequestMatch::default() }, "GET", "/", &[]));
}

#[test]
fn a_regex_matches_the_whole_text() {
    for (pattern, path, holds) in [
        ("/a", "/a", true),
        ("/a", "/ab", false),
        ("a", "/a", false),
        ("/a|/b", "/b", true),
        ("/a|/b", "/ac", false),
        ("/a.*", "/abc", true),
        ("/a.", "/a\n", false),
        ("^/a$", "/a", true),
        ("/a$", "/a\n", false),
        ("(?i)/A", "/a", true),
    ] {
        assert_eq!(matches(uri(regex(pattern)), "GET", path, &[]), holds, "{pattern} {path:?}");
    }
}

#[test]
fn each_copy_of_a_repeated_header_is_tried_alone() {
    let twice = [("x-m", "a"), ("x-m", "b")];
    for (condition, holds) in [
        (exact("a"), true),
        (exact("b"), true),
        (exact("a,b"), false),
        (StringMatch::Prefix("b".into()), true),
        (regex("a|x"), true),
        (regex("a.*b"), false),
        (StringMatch::Present, true),
    ] {
        assert_eq!(matches(header("x-m", condition.clone()), "GET", "/", &twice), holds, "{condition:?}");
    }
    assert!(matches(header("x-m", exact("a,b")), "GET", "/", &[("x-m", "a,b")]), "one line is one value");
    assert!(matches(header("x-m", exact("")), "GET", "/", &[("x-m", "")]));
    assert!(!matches(header("x-m", exact("")), "GET", "/", &[]), "a missing header is not empty");
    assert!(!matches(header("x-m", regex(".*")), "GET", "/", &[]));
    let both = RequestMatch {
        headers: [header("x-m", exact("a")), header("x-n", exact("c"))]
            .into_iter()
            .flat_map(|b| b.headers)
            .collect(),
        ..RequestMatch::default()
    };
    assert!(matches(both, "GET", "/", &[("x-m", "b"), ("x-n", "c"), ("x-m", "a")]));
}

#[test]
fn a_value_that_is_no_text_is_only_present() {
    let table = |value| RouteTable::new(&[rule("r", vec![header("h", value)])], |_| ()).expect("usable");
    let asked = Asked::new("GET", "/").bytes("h", b"\xff");
    let selects = |value| table(value).select(&asked.head(), &mut |_| 0).is_some();
    assert!(selects(StringMatch::Present));
    assert!(!selects(regex(".*")));
}

#[test]
fn what_a_node_cannot_use_is_refused() {
    let error =
        |block: RequestMatch| RouteTable::new(&[rule("r", vec![block])], |_| ()).err().expect("refused");
    assert!(matches!(error(uri(regex("a("))), RuleError::Match(MatchError::Regex { .. })));
    assert!(
        matches!(error(uri(regex("a)(b"))), RuleError::Match(MatchError::Regex { .. })),
        "not made valid by being wrapped"
    );
    assert!(matches!(error(uri(regex(&"a".repeat(1025)))), RuleError::Match(MatchError::Regex { .. })));
    assert!(matches!(error(uri(regex("(a{1000}){1000}"))), RuleError::Match(MatchError::Regex { .. })));
    assert!(matches!(
        error(header(":protocol", StringMatch::Present)),
        RuleError::Match(MatchError::HeaderName(_))
    ));
    assert!(regex(&"a".repeat(1024)).check().is_ok());
}

/// A seeded generator (SplitMix64), so that a share that is off stays off.
struct Seeded(u64);

impl Draw for Seeded {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

const DRAWS: u32 = 100_000;

/// Within three standard deviations of a binomial.
#[track_caller]
fn assert_share(count: u32, share: f64) {
    let expected = f64::from(DRAWS) * share;
    let deviation = (expected * (1.0 - share)).sqrt();
    let off = (f64::from(count) - expected).abs();
    assert!(off <= 3.0 * deviation, "{count} of {DRAWS}, expected {expected} ± {}", 3.0 * deviation);
}

#[test]
fn weights_are_shares() {
    let mut weighted = rule("r", Vec::new());
    weighted.destinations = vec![to("a", 80), to("b", 0), to("c", 15), to("d", 5)];
    let table = RouteTable::new(&[weighted], |_| ()).expect("usable");
    let (mut draw, mut counts) = (Seeded(1), [0_u32; 4]);
    for _ in 0..DRAWS {
        let selection = table.select(&Asked::new("GET", "/").head(), &mut draw).expect("a catch-all");
        counts[selection.destination] += 1;
    }
    assert_eq!(counts[1], 0);
    for (count, share) in [(counts[0], 0.8), (counts[2], 0.15), (counts[3], 0.05)] {
        assert_share(count, share);
    }
}

#[test]
fn mirrors_draw_for_themselves() {
    let mirror = |per_million| Mirror::new(per_million, to("m", 1).backend);
    let mut mirrored = rule("r", Vec::new());
    mirrored.destinations = vec![to("a", 50), to("b", 50)];
    mirrored.mirrors = vec![mirror(500_000), mirror(250_000), mirror(1_000_000), mirror(0)];
    let table = RouteTable::new(&[mirrored], |_| ()).expect("usable");
    let (mut draw, mut counts, mut first_and_b, mut both) = (Seeded(2), [0_u32; 4], 0, 0);
    for _ in 0..DRAWS {
        let asked = Asked::new("GET", "/");
        let selection = table.select(&asked.head(), &mut draw).expect("a catch-all");
        let mirrors = selection.route.mirrors.iter();
        let sampled: Vec<_> =
            mirrors.map(|mirror| mirror.samples(asked.head().headers, SOURCE, &mut draw)).collect();
        sampled.iter().enumerate().filter(|(_, yes)| **yes).for_each(|(index, _)| counts[index] += 1);
        first_and_b += u32::from(sampled[0] && selection.destination == 1);
        both += u32::from(sampled[0] && sampled[1]);
    }
    assert_share(counts[0], 0.5);
    assert_share(counts[1], 0.25);
    assert_eq!((counts[2], counts[3]), (DRAWS, 0));
    assert_share(first_and_b, 0.25);
    assert_share(both, 0.125);
}

#[test]
fn a_single_destination_gets_all_whatever_its_weight() {
    for weight in [0, 1, u32::MAX] {
        let mut single = rule("r", Vec::new());
        single.destinations = vec![to("a", weight)];
        let table = RouteTable::new(&[single], |_| ()).expect("usable");
        let mut no_draw = |_| -> u64 { panic!("nothing to draw") };
        let selection = table.select(&Asked::new("GET", "/").head(), &mut no_draw).expect("a catch-all");
        assert_eq!(selection.destination, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn every_draw_below_the_sum_gives_a_destination_with_weight(
        weights in prop::collection::vec(0..1000_u32, 2..6),
        at in 0.0..1.0_f64,
    ) {
        let sum: u64 = weights.iter().copied().map(u64::from).sum();
        prop_assume!(sum > 0);
        let mut weighted = rule("r", Vec::new());
        weighted.destinations = weights.iter().map(|weight| to("a", *weight)).collect();
        let table = RouteTable::new(&[weighted], |_| ()).expect("usable");
        let drawn = (at * sum as f64) as u64;
        let selection = table.select(&Asked::new("GET", "/").head(), &mut |_| drawn).expect("a catch-all");
        let before: u64 = weights[..selection.destination].iter().copied().map(u64::from).sum();
        let own = u64::from(weights[selection.destination]);
        prop_assert!(before <= drawn && drawn < before + own);
    }
}
