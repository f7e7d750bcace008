//! Many rules: the first that matches still serves, however rules are found.

use proptest::prelude::*;
use umbra_routing::{
    BackendRef, HeaderMatch, RequestMatch, RouteTable, Rule, ServiceName, StringMatch, WeightedBackend,
};

use crate::asked::Asked;

fn rule(name: usize, matches: Vec<RequestMatch>) -> Rule {
    let destinations = vec![WeightedBackend::new(1, BackendRef::all(ServiceName::new("default", "a"), 80))];
    Rule { name: name.to_string(), matches, destinations, ..Rule::default() }
}

fn table(rules: &[Rule]) -> RouteTable<()> {
    RouteTable::new(rules, |_| ()).expect("rules that a node can use")
}

/// Rule and block.
fn selected(rules: &[Rule], asked: &Asked) -> Option<(String, usize)> {
    let table = table(rules);
    let selection = table.select(&asked.head(), &mut |_| 0)?;
    Some((selection.route.name.clone(), selection.block))
}

/// The same by trying one block after the other, each in a table of its own.
fn first_of(rules: &[Rule], asked: &Asked) -> Option<(String, usize)> {
    rules.iter().find_map(|of| {
        let alone = |block: &RequestMatch| table(&[rule(0, vec![block.clone()])]);
        let holds = |block: &RequestMatch| alone(block).select(&asked.head(), &mut |_| 0).is_some();
        let block = if of.matches.is_empty() { Some(0) } else { of.matches.iter().position(holds) };
        block.map(|block| (of.name.clone(), block))
    })
}

fn text() -> impl Strategy<Value = StringMatch> {
    prop_oneof![
        5 => "[abA]{1,2}".prop_map(StringMatch::Exact),
        1 => "[ab]?".prop_map(StringMatch::Prefix),
        1 => Just(StringMatch::Regex("a.*".into())),
        1 => Just(StringMatch::Present),
    ]
}

fn block() -> impl Strategy<Value = RequestMatch> {
    let uri = text().prop_map(|text| match text {
        StringMatch::Exact(text) => StringMatch::Exact(format!("/{text}")),
        StringMatch::Prefix(text) => StringMatch::Prefix(format!("/{text}")),
        other => other,
    });
    let header = || ("[hi]", text()).prop_map(|(name, value)| HeaderMatch { name, value });
    let headers = || prop::collection::vec(header(), 0..3);
    (prop::option::of(uri), any::<bool>(), headers(), headers(), prop::bool::weighted(0.1)).prop_map(
        |(uri, ignore_uri_case, headers, without, never)| RequestMatch {
            never,
            uri,
            ignore_uri_case,
            headers,
            without_headers: without.into_iter().take(1).collect(),
            ..RequestMatch::default()
        },
    )
}

fn asked() -> impl Strategy<Value = Asked> {
    let headers = prop::collection::vec(("[hij]", "[abA]{0,2}"), 0..4);
    ("/[abA]{0,2}", headers).prop_map(|(target, headers)| {
        headers.iter().fold(Asked::get(&target), |asked, (name, value)| asked.header(name, value))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn the_first_block_that_holds_is_found(
        blocks in prop::collection::vec(prop::collection::vec(block(), 0..3), 0..8),
        asked in asked(),
    ) {
        // Rules without blocks take everything; they come rarely, so that others are asked.
        let kept = blocks.into_iter().enumerate().filter(|(at, blocks)| !blocks.is_empty() || at % 4 == 3);
        let rules: Vec<Rule> = kept.map(|(at, blocks)| rule(at, blocks)).collect();
        prop_assert_eq!(selected(&rules, &asked), first_of(&rules, &asked));
    }
}

#[test]
fn an_earlier_rule_wins_over_one_that_is_found_by_its_path_or_header() {
    let uri = |uri| RequestMatch { uri: Some(uri), ..RequestMatch::default() };
    let header = |value: &str| RequestMatch {
        headers: vec![HeaderMatch { name: "h".into(), value: StringMatch::Exact(value.into()) }],
        ..RequestMatch::default()
    };
    let exact = |path: &str| uri(StringMatch::Exact(path.into()));
    let prefix = |path: &str| uri(StringMatch::Prefix(path.into()));
    let rules = [
        rule(0, vec![exact("/a"), header("1")]),
        rule(1, vec![prefix("/p")]),
        rule(2, vec![exact("/p/a")]),
        rule(3, vec![header("2"), exact("/a")]),
        rule(4, Vec::new()),
        rule(5, vec![exact("/last")]),
    ];
    for (asked, expected) in [
        (Asked::get("/a"), ("0", 0)),
        (Asked::get("/a").header("h", "2"), ("0", 0)),
        (Asked::get("/b").header("h", "2").header("h", "1"), ("0", 1)),
        (Asked::get("/p/a"), ("1", 0)),
        (Asked::get("/b").header("h", "2"), ("3", 0)),
        (Asked::get("/last"), ("4", 0)),
    ] {
        let (rule, block) = selected(&rules, &asked).expect("a catch-all");
        assert_eq!((rule.as_str(), block), expected, "{:?}", asked.head());
    }
}
