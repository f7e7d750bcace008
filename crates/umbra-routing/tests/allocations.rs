//! Selecting allocates nothing: memory would be asked for with every request.

#[path = "routing/asked.rs"]
#[allow(dead_code, reason = "the other tests use the rest")]
mod asked;

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};

use asked::Asked;
use umbra_routing::{
    BackendRef, HeaderMatch, Mirror, QueryMatch, RequestMatch, RouteTable, Rule, SampleBy, ServiceName,
    StringMatch, WeightedBackend, normalise,
};
use umbra_testkit::{CountingAllocator, allocations};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// So many rules of a kind stand before the one that takes everything.
const RULES: usize = 100;

fn any() -> RequestMatch {
    RequestMatch::default()
}

fn header(name: &str, value: StringMatch) -> Vec<HeaderMatch> {
    vec![HeaderMatch { name: name.into(), value }]
}

/// A kind of condition, by the number of its rule; and the request that the last of them takes.
type Kind = (&'static str, fn(String) -> RequestMatch, Asked);

/// Every kind but regexes, in all places where a text is asked for.
fn kinds() -> Vec<Kind> {
    use StringMatch::{Exact, Prefix, Present};
    let get = |target: &str| Asked::get(target).header("accept", "*/*").header("cookie", "a=b");
    let last = RULES - 1;
    vec![
        (
            "exact path",
            |n| RequestMatch { uri: Some(Exact(format!("/p/{n}"))), ..any() },
            get(&format!("/p/{last}?q")),
        ),
        (
            "exact path in any case",
            |n| RequestMatch { uri: Some(Exact(format!("/p/{n}"))), ignore_uri_case: true, ..any() },
            get(&format!("/P/{last}")),
        ),
        (
            "prefix",
            |n| RequestMatch { uri: Some(Prefix(format!("/p/{n}/"))), ..any() },
            get(&format!("/p/{last}/x")),
        ),
        (
            "prefix in any case",
            |n| RequestMatch { uri: Some(Prefix(format!("/p/{n}/"))), ignore_uri_case: true, ..any() },
            get(&format!("/P/{last}/x")),
        ),
        (
            "method",
            |n| RequestMatch { method: Some(Exact(format!("M{n}"))), ..any() },
            Asked::new(&format!("M{last}"), "/"),
        ),
        (
            "scheme",
            |n| RequestMatch {
                scheme: Some(Exact(if n == (RULES - 1).to_string() { "https".into() } else { n })),
                ..any()
            },
            get("/").scheme("https"),
        ),
        (
            "authority",
            |n| RequestMatch { authority: Some(Prefix(format!("h{n}."))), ..any() },
            get("/").host(&format!("h{last}.default")),
        ),
        (
            "exact header",
            |n| RequestMatch { headers: header("x-a", Exact(n)), ..any() },
            get("/").header("x-a", "other").header("x-a", &last.to_string()),
        ),
        (
            "header names",
            |n| RequestMatch { headers: header(&format!("x-{n}"), Exact("1".into())), ..any() },
            get("/").header(&format!("x-{last}"), "1"),
        ),
        (
            "header prefix",
            |n| RequestMatch { headers: header("x-a", Prefix(format!("{n}-"))), ..any() },
            get("/").header("x-a", &format!("{last}-")),
        ),
        (
            "a header that is there",
            |n| RequestMatch { headers: header(&format!("x-{n}"), Present), ..any() },
            get("/").header(&format!("x-{last}"), ""),
        ),
        (
            "headers without a name of their own",
            |n| RequestMatch { headers: header(":path", Exact(format!("/{n}?q"))), ..any() },
            get(&format!("/{last}?q")),
        ),
        (
            "without a header",
            |n| RequestMatch {
                without_headers: header(
                    "x-a",
                    if n == (RULES - 1).to_string() { Exact(n) } else { Prefix(String::new()) },
                ),
                ..any()
            },
            get("/"),
        ),
        (
            "query parameter",
            |n| RequestMatch { query: vec![QueryMatch { name: "q".into(), value: Exact(n) }], ..any() },
            get(&format!("/?p=1&q={last}")),
        ),
        (
            "labels of the client",
            |n| RequestMatch { source_labels: [("app".to_owned(), n)].into(), ..any() },
            get("/").labelled(&[("app", &last.to_string())]),
        ),
        (
            "a condition that is not known",
            |n| RequestMatch { never: n != (RULES - 1).to_string(), ..any() },
            get("/"),
        ),
    ]
}

const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));

/// Half of the requests each: by chance, and by every key there is.
fn mirrors(backend: BackendRef) -> Vec<Mirror> {
    let named = |name: &str| name.to_owned();
    let keys = [
        None,
        Some(SampleBy::Header { name: named("accept") }),
        Some(SampleBy::Cookie { name: named("a") }),
        Some(SampleBy::Source),
    ];
    keys.map(|sample| Mirror { sample, ..Mirror::new(500_000, backend.clone()) }).into()
}

/// The rules of a kind, then one that takes everything. Each has two destinations and mirrors of half the requests.
fn table(block: fn(String) -> RequestMatch) -> RouteTable<()> {
    let backend = |port| BackendRef::all(ServiceName::new("default", "a"), port);
    let rule = |matches| Rule {
        matches,
        destinations: vec![WeightedBackend::new(30, backend(80)), WeightedBackend::new(70, backend(81))],
        mirrors: mirrors(backend(82)),
        ..Rule::default()
    };
    let all = (0..RULES).map(|number| rule(vec![block(number.to_string())])).chain([rule(Vec::new())]);
    RouteTable::new(&all.collect::<Vec<_>>(), |_| ()).expect("rules that a node can use")
}

/// Selects and draws. The rule's place, and how often memory was asked for.
fn selected(table: &RouteTable<()>, asked: &Asked) -> (usize, u64) {
    let head = asked.head();
    let draw = &mut |bound: u64| bound / 2;
    let (route, count) = allocations(|| {
        let found = table.select(&head, draw).expect("one takes everything");
        assert_eq!(found.destination, 1);
        let [by_chance, by_key @ ..] = found.route.mirrors.as_slice() else { panic!("mirrors") };
        assert!(!by_chance.samples(head.headers, SOURCE, draw));
        for mirror in by_key {
            std::hint::black_box(mirror.samples(head.headers, SOURCE, draw));
        }
        found.route
    });
    let place = table.routes().iter().position(|of| std::sync::Arc::ptr_eq(of, route));
    (place.expect("a rule of the table"), count)
}

#[test]
fn selecting_allocates_nothing_whatever_is_asked_for() {
    let (_, counted) = allocations(|| std::hint::black_box(vec![1]));
    assert_eq!(counted, 1, "what is allocated is counted");
    let missed = Asked::new("PUT", "/x/y?z").header("x-a", "x").host("x");
    for (kind, block, asked) in kinds() {
        let table = table(block);
        assert_eq!(selected(&table, &asked), (RULES - 1, 0), "{kind}: the last of its rules");
        assert_eq!(selected(&table, &missed).1, 0, "{kind}: a request of other words");
    }
}

#[test]
fn a_path_that_is_normal_is_not_copied() {
    for path in ["/", "/a/b/c.d?q=%2F&x", "/a-b/_~;x"] {
        let (normal, count) = allocations(|| normalise(path));
        assert!(matches!(normal, Ok(Cow::Borrowed(_))), "{path}");
        assert_eq!(count, 0, "{path}");
    }
}
