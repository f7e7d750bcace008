//! Which requests a mirror gets when a key decides.

use std::net::IpAddr;

use umbra_routing::{BackendRef, Mirror, RouteTable, Rule, SampleBy, ServiceName, WeightedBackend};

use crate::asked::Asked;

const USERS: u32 = 10_000;

fn source() -> IpAddr {
    [10, 0, 0, 7].into()
}

fn by_header(name: &str) -> SampleBy {
    SampleBy::Header { name: name.into() }
}

fn by_cookie(name: &str) -> SampleBy {
    SampleBy::Cookie { name: name.into() }
}

fn user(number: u32) -> Asked {
    Asked::get("/").header("x-user", &format!("user-{number}"))
}

/// One rule with a mirror of that share.
fn mirrored(by: &SampleBy, per_million: u32) -> RouteTable<()> {
    let backend = |name| BackendRef::all(ServiceName::new("default", name), 80);
    let mirror = Mirror { sample: Some(by.clone()), ..Mirror::new(per_million, backend("m")) };
    let rule = Rule {
        destinations: vec![WeightedBackend::new(1, backend("a"))],
        mirrors: vec![mirror],
        ..Rule::default()
    };
    RouteTable::new(&[rule], |_| ()).expect("usable")
}

/// Whether the mirror of `table` gets the request.
fn takes(table: &RouteTable<()>, asked: &Asked, source: IpAddr) -> bool {
    let mut draw = |_| panic!("a key decides, and nothing is drawn");
    let selection = table.select(&asked.head(), &mut draw).expect("it takes everything");
    selection.route.mirrors[0].samples(asked.head().headers, source, &mut draw)
}

fn is_in(by: &SampleBy, per_million: u32, asked: &Asked, source: IpAddr) -> bool {
    takes(&mirrored(by, per_million), asked, source)
}

fn users_in(per_million: u32) -> Vec<u32> {
    let table = mirrored(&by_header("X-User"), per_million);
    (0..USERS).filter(|number| takes(&table, &user(*number), source())).collect()
}

#[test]
fn a_smaller_share_is_a_part_of_a_larger_one_and_of_its_size() {
    let (none, tenth, half, all) = (users_in(0), users_in(100_000), users_in(500_000), users_in(1_000_000));
    assert!(none.is_empty());
    assert_eq!(all.len(), USERS as usize);
    assert!(tenth.iter().all(|user| half.contains(user)));
    for (share, count) in [(0.1, tenth.len()), (0.5, half.len())] {
        let (mean, sigma) = (f64::from(USERS) * share, (f64::from(USERS) * share * (1.0_f64 - share)).sqrt());
        assert!((count as f64 - mean).abs() < 4.0 * sigma, "{count} users at {share}");
    }
}

/// Nodes of different versions run side by side during a rollout.
#[test]
fn who_is_in_never_changes() {
    assert_eq!(users_in(1_000), [1114, 2383, 3026, 3772, 6029, 6151, 7517, 9493, 9512, 9525]);
}

#[test]
fn header_and_cookie_of_one_value_have_one_fate_and_a_source_its_own() {
    for number in 0..100 {
        let value = format!("user-{number}");
        let other = format!("a=1; users=x; user={value}; user=second; b");
        let by_header = is_in(&by_header("x-user"), 500_000, &user(number), source());
        let crumbs = Asked::get("/").header("cookie", "a=1").header("cookie", &format!("user={value}"));
        assert_eq!(is_in(&by_cookie("user"), 500_000, &crumbs, source()), by_header, "{value}");
        let among_others = Asked::get("/").header("cookie", &other);
        assert_eq!(is_in(&by_cookie("user"), 500_000, &among_others, source()), by_header, "{value}");
    }
    let pods = |mapped: bool| {
        let source = move |last: u8| match mapped {
            true => std::net::Ipv4Addr::new(10, 0, 0, last).to_ipv6_mapped().into(),
            false => IpAddr::from([10, 0, 0, last]),
        };
        (0..=255).filter(|last| is_in(&SampleBy::Source, 500_000, &user(1), source(*last))).count()
    };
    assert!((100..156).contains(&pods(false)), "{}", pods(false));
    assert_eq!(pods(true), pods(false), "one address, however it is written");
}

#[test]
fn what_has_no_key_is_out_of_every_share_but_all() {
    let nobody = Asked::get("/").header("cookie", "users=1; username=2; user").header("x-users", "1");
    for by in [by_header("x-user"), by_cookie("user")] {
        assert!(!is_in(&by, 999_999, &nobody, source()), "{by:?}");
        assert!(is_in(&by, 1_000_000, &nobody, source()), "{by:?}: every request");
    }
}

#[test]
fn a_mirror_by_chance_is_on_the_wire_as_it_was() {
    let backend = BackendRef::all(ServiceName::new("default", "m"), 80);
    let mirror = Mirror::new(7, backend.clone());
    let text = serde_json::to_string(&mirror).expect("plain data");
    assert!(text.ends_with(r#""perMillion":7}"#), "{text}");
    assert_eq!(serde_json::from_str::<Mirror>(&text).expect("as written"), mirror);
    for (by, written) in [
        (by_header("x-user"), r#"{"by":"header","name":"x-user"}"#),
        (by_cookie("u"), r#"{"by":"cookie","name":"u"}"#),
        (SampleBy::Source, r#"{"by":"source"}"#),
    ] {
        let mirror = Mirror { sample: Some(by), ..mirror.clone() };
        let text = serde_json::to_string(&mirror).expect("plain data");
        assert!(text.ends_with(&format!(r#""perMillion":7,"sample":{written}}}"#)), "{text}");
        assert_eq!(serde_json::from_str::<Mirror>(&text).expect("as written"), mirror);
    }
}

#[test]
fn a_key_that_is_no_header_is_found_before_a_node_meets_it() {
    let backend = BackendRef::all(ServiceName::new("default", "m"), 80);
    let mirror = Mirror { sample: Some(by_header("x user")), ..Mirror::new(1, backend) };
    let rule = Rule { mirrors: vec![mirror], ..Rule::default() };
    let error = rule.check().expect_err("no header has a space in its name");
    assert_eq!(error.to_string(), "\"x user\" is not a header name");
}
