//! What many rules cost each request: the time of `select` with 1,000 rules over that with 10, by kind of condition.
//!
//! `cargo bench -p umbra-routing`, or under `valgrind --tool=callgrind --toggle-collect='*RouteTable*select*'` with a
//! kind and a count of rules as arguments, for instructions: what is promised is a ratio of at most 5 for exact paths and
//! headers. What holds it there in every test run are the tries that `select/index.rs` counts.

#![allow(clippy::print_stdout, reason = "it says what it has measured")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use umbra_routing::{
    BackendRef, HeaderMatch, RequestHead, RequestMatch, RouteTable, Rule, ServiceName, StringMatch,
    WeightedBackend,
};

/// The block of the rule at a place.
type BlockAt = fn(usize) -> RequestMatch;

const KINDS: [(&str, BlockAt); 4] = [
    ("exact-path", exact_path),
    ("exact-header", exact_header),
    ("exact-header-names", exact_header_names),
    ("prefix", prefix),
];

fn exact_path(at: usize) -> RequestMatch {
    RequestMatch { uri: Some(StringMatch::Exact(format!("/api/things/{at}"))), ..RequestMatch::default() }
}

fn prefix(at: usize) -> RequestMatch {
    RequestMatch { uri: Some(StringMatch::Prefix(format!("/api/things/{at}/"))), ..RequestMatch::default() }
}

fn exact_header(at: usize) -> RequestMatch {
    let value = StringMatch::Exact(format!("user-{at}"));
    RequestMatch { headers: vec![HeaderMatch { name: "x-user".into(), value }], ..RequestMatch::default() }
}

fn exact_header_names(at: usize) -> RequestMatch {
    let value = StringMatch::Exact("1".into());
    RequestMatch {
        headers: vec![HeaderMatch { name: format!("x-user-{at}"), value }],
        ..RequestMatch::default()
    }
}

/// So many rules of one kind, and a catch-all.
fn table(block: BlockAt, rules: usize) -> RouteTable<()> {
    let rule = |matches| Rule {
        matches,
        destinations: vec![WeightedBackend::new(1, BackendRef::all(ServiceName::new("default", "a"), 80))],
        ..Rule::default()
    };
    let rules: Vec<Rule> = (0..rules).map(|at| rule(vec![block(at)])).chain([rule(Vec::new())]).collect();
    RouteTable::new(&rules, |_| ()).expect("rules that a node can use")
}

/// As a browser sends them, with what the last of so many rules asks for.
fn headers(rules: usize) -> HeaderMap {
    let last = rules - 1;
    let own = [("x-user", format!("user-{last}")), (&*format!("x-user-{last}"), "1".into())].map(
        |(name, value)| {
            (name.parse::<HeaderName>().expect("a name"), value.parse::<HeaderValue>().expect("a value"))
        },
    );
    let common = ["host", "accept", "accept-encoding", "accept-language", "cookie", "referer", "user-agent"];
    let common =
        common.map(|name| (HeaderName::from_static(name), HeaderValue::from_static("something like this")));
    common.into_iter().chain(own).collect()
}

/// Selects the last rule so many times.
fn select(table: &RouteTable<()>, rules: usize, times: u32) -> Duration {
    let (headers, target) = (headers(rules), format!("/api/things/{}?page=2", rules - 1));
    let head = RequestHead {
        method: "GET",
        scheme: "http",
        authority: "a",
        target: &target,
        headers: &headers,
        labels: None,
    };
    let begun = Instant::now();
    for _ in 0..times {
        black_box(table.select(black_box(&head), &mut |_| 0).map(|selection| selection.destination));
    }
    begun.elapsed() / times
}

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if let [kind, rules] = arguments.as_slice() {
        let rules = rules.parse().expect("a count of rules");
        let (_, block) = KINDS.into_iter().find(|(name, _)| name == kind).expect("a kind of condition");
        select(&table(block, rules), rules, 1000);
        return;
    }
    for (kind, block) in KINDS {
        let [few, many] = [10, 1000].map(|rules| select(&table(block, rules), rules, 20_000));
        let ratio = many.as_secs_f64() / few.as_secs_f64();
        println!("{kind}: 10 rules {few:?}, 1000 rules {many:?}, ratio {ratio:.1}");
    }
}
