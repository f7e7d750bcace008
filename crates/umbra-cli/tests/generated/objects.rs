//! Random VirtualServices and DestinationRules, out of so few words that requests of the same words often meet them.

use proptest::collection::vec;
use proptest::option::weighted as sometimes;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

const S0: &str = "s0.default.svc.cluster.local";

/// Where rules send to: services with and without the port 81, and one that is not there.
const HOSTS: [&str; 8] = [
    "s0",
    "s0",
    "s0.default.svc.cluster.local",
    "s0.default.svc.cluster.local",
    "s1.default.svc.cluster.local",
    "s1.default.svc.cluster.local",
    "s2.other.svc.cluster.local",
    "nowhere",
];

/// Which services a VirtualService is for.
const CLAIMS: [&str; 7] = [
    "s0",
    "s0.default.svc.cluster.local",
    "s0.default.svc.cluster.local",
    "s1.default.svc.cluster.local",
    "s2.other.svc.cluster.local",
    "*.default.svc.cluster.local",
    "*.svc.cluster.local",
];

/// An object of these fields; those that are absent are left out.
fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let there = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(there.collect::<Map<_, _>>())
}

fn one_of(words: &'static [&'static str]) -> impl Strategy<Value = Value> {
    select(words).prop_map(Value::from)
}

/// Of what requests have in headers and queries.
fn text() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => one_of(&["a", "b", "ab"]).prop_map(|word| json!({"exact": word})),
        2 => one_of(&["a", "b"]).prop_map(|word| json!({"prefix": word})),
        1 => one_of(&["a.*", "[ab]", "b?", ".*", "*"]).prop_map(|word| json!({"regex": word})),
        1 => Just(json!({})),
    ]
}

fn uri() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => one_of(&["/", "/a", "/A", "/a/b", "/b"]).prop_map(|path| json!({"exact": path})),
        4 => one_of(&["/", "/a", "/a/", "/b", "/B"]).prop_map(|path| json!({"prefix": path})),
        1 => one_of(&["/a.*", "/(a|b)", ".*", "(?i)/A/.*"]).prop_map(|path| json!({"regex": path})),
    ]
}

fn block() -> impl Strategy<Value = Value> {
    let method = one_of(&["GET", "POST", "OPTIONS"]).prop_map(|method| json!({"exact": method}));
    let scheme = one_of(&["http", "https"]).prop_map(|scheme| json!({"exact": scheme}));
    let authority = one_of(&["s0.default", "S", "s"]).prop_map(|host| json!({"prefix": host}));
    let header = || text().prop_map(|text| json!({"x-a": text}));
    let query = text().prop_map(|text| json!({"q": text}));
    let of_request = (
        sometimes(0.7, uri()),
        sometimes(0.2, any::<bool>()),
        sometimes(0.2, method),
        sometimes(0.1, scheme),
        sometimes(0.1, authority),
        sometimes(0.3, header()),
        sometimes(0.15, header()),
        sometimes(0.15, query),
    );
    let of_client = (
        sometimes(0.1, select(&[80, 81][..])),
        sometimes(0.15, one_of(&["web", "cart"]).prop_map(|app| json!({"app": app}))),
        sometimes(0.1, one_of(&["default", "other"])),
        sometimes(0.05, Just(json!(["mesh"]))),
    );
    (of_request, of_client).prop_map(|(of_request, of_client)| {
        let (uri, any_case, method, scheme, authority, headers, without, query) = of_request;
        let (port, labels, namespace, gateways) = of_client;
        object([
            ("uri", uri),
            ("ignoreUriCase", any_case.map(Value::from)),
            ("method", method),
            ("scheme", scheme),
            ("authority", authority),
            ("headers", headers),
            ("withoutHeaders", without),
            ("queryParams", query),
            ("port", port.map(Value::from)),
            ("sourceLabels", labels),
            ("sourceNamespace", namespace),
            ("gateways", gateways),
        ])
    })
}

fn destination() -> impl Strategy<Value = Value> {
    let subset = sometimes(0.6, one_of(&["v1", "v1", "v1", "v2", "v2", "v2", "v3"]));
    let port = sometimes(0.2, select(&[80, 81][..]).prop_map(|number| json!({"number": number})));
    (one_of(&HOSTS), subset, port)
        .prop_map(|(host, subset, port)| object([("host", Some(host)), ("subset", subset), ("port", port)]))
}

fn headers() -> impl Strategy<Value = Value> {
    let value = one_of(&["v", "%REQ(x-a)%", "%PROTOCOL%-%%", "%REQ(missing)%"]);
    let edits =
        (value, sometimes(0.3, Just(json!(["x-a"]))), any::<bool>()).prop_map(|(value, remove, set)| {
            let edit = Some(json!({"x-edited": value}));
            let (set, add) = if set { (edit, None) } else { (None, edit) };
            object([("set", set), ("add", add), ("remove", remove)])
        });
    (edits, any::<bool>()).prop_map(|(edits, request)| {
        let (request, response) = if request { (Some(edits), None) } else { (None, Some(edits)) };
        object([("request", request), ("response", response)])
    })
}

fn route() -> impl Strategy<Value = Value> {
    let weight = sometimes(0.7, select(&[0, 1, 50, 100][..]).prop_map(Value::from));
    let to = (destination(), weight, sometimes(0.1, headers())).prop_map(|(destination, weight, headers)| {
        object([("destination", Some(destination)), ("weight", weight), ("headers", headers)])
    });
    vec(to, 1..4).prop_map(|mut all| {
        // Some weight must be there; which, the first one tells.
        if all.len() > 1 && all.iter().all(|to| to["weight"].as_u64().unwrap_or_default() == 0) {
            all[0]["weight"] = json!(1);
        }
        json!(all)
    })
}

fn percent() -> impl Strategy<Value = Value> {
    select(vec![json!(0), json!(100), json!(50), json!(0.01)])
}

/// `mirror` with its share in one of the spellings, or `mirrors`.
fn mirroring() -> impl Strategy<Value = Vec<(&'static str, Value)>> {
    let share = prop_oneof![
        3 => Just(None),
        3 => percent().prop_map(|percent| Some(("mirrorPercentage", json!({"value": percent})))),
        1 => select(&[0, 50, 100][..]).prop_map(|percent| Some(("mirrorPercent", json!(percent)))),
        1 => select(&[0, 50, 100][..]).prop_map(|percent| Some(("mirror_percent", json!(percent)))),
    ];
    let single = (destination(), share)
        .prop_map(|(mirror, share)| [("mirror", mirror)].into_iter().chain(share).collect());
    let percentage = sometimes(0.7, percent().prop_map(|percent| json!({"value": percent})));
    let several = (destination(), percentage).prop_map(|(destination, percentage)| {
        object([("destination", Some(destination)), ("percentage", percentage)])
    });
    prop_oneof![single, vec(several, 1..4).prop_map(|all| vec![("mirrors", json!(all))])]
}

fn fault() -> impl Strategy<Value = Value> {
    let share = || percent().prop_map(|percent| json!({"value": percent}));
    let abort = (share(), select(vec![json!({"httpStatus": 418}), json!({"grpcStatus": "UNAVAILABLE"})]))
        .prop_map(|(share, mut abort)| {
            abort["percentage"] = share;
            json!({"abort": abort})
        });
    let delay = share().prop_map(|share| json!({"delay": {"fixedDelay": "1ms", "percentage": share}}));
    prop_oneof![3 => abort, 1 => delay]
}

fn cors() -> impl Strategy<Value = Value> {
    let origin = one_of(&["http://a", "*"]).prop_map(|origin| json!([{"exact": origin}]));
    let unmatched = sometimes(0.4, one_of(&["FORWARD", "IGNORE"]));
    (origin, unmatched).prop_map(|(origins, unmatched)| {
        let methods = Some(json!(["GET", "POST"]));
        object([
            ("allowOrigins", Some(origins)),
            ("allowMethods", methods),
            ("unmatchedPreflights", unmatched),
        ])
    })
}

/// What goes with a route only, and headers.
fn policies() -> impl Strategy<Value = Vec<(&'static str, Value)>> {
    let rewrite = select(vec![
        json!({"uri": "/x"}),
        json!({"uri": "/"}),
        json!({"authority": "elsewhere"}),
        json!({"uriRegexRewrite": {"match": "/a(.*)", "rewrite": "/r\\1"}}),
    ]);
    let retries =
        select(vec![json!({"attempts": 0}), json!({"attempts": 2, "retryOn": "5xx", "perTryTimeout": "9s"})]);
    (
        sometimes(0.15, rewrite),
        sometimes(0.15, fault()),
        sometimes(0.25, cors()),
        sometimes(0.1, retries),
        sometimes(0.1, Just(json!("10s"))),
        sometimes(0.15, headers()),
    )
        .prop_map(|(rewrite, fault, cors, retries, timeout, headers)| {
            let fields = [
                ("rewrite", rewrite),
                ("fault", fault),
                ("corsPolicy", cors),
                ("retries", retries),
                ("timeout", timeout),
                ("headers", headers),
            ];
            fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
        })
}

fn redirect() -> impl Strategy<Value = Value> {
    let to = select(vec![
        json!({"uri": "/new"}),
        json!({"authority": "elsewhere"}),
        json!({"scheme": "https"}),
        json!({"port": 8080}),
        json!({"uri": "/new?x", "derivePort": "FROM_REQUEST_PORT"}),
    ]);
    (to, sometimes(0.5, select(&[302, 303, 307, 308][..]))).prop_map(|(mut to, code)| {
        if let Some(code) = code {
            to["redirectCode"] = json!(code);
        }
        to
    })
}

fn action() -> impl Strategy<Value = Vec<(&'static str, Value)>> {
    let all = |mut first: Vec<_>, more: Vec<_>| {
        first.extend(more);
        first
    };
    let route =
        (route(), sometimes(0.5, mirroring()), policies()).prop_map(move |(route, mirrors, policies)| {
            all(all(vec![("route", route)], mirrors.unwrap_or_default()), policies)
        });
    let with_headers = |own: &'static str, (what, headers): (Value, Option<Value>)| {
        [(own, what)].into_iter().chain(headers.map(|headers| ("headers", headers))).collect::<Vec<_>>()
    };
    let changes = || sometimes(0.15, headers());
    let redirect = (redirect(), changes()).prop_map(move |parts| with_headers("redirect", parts));
    let status =
        select(vec![200, 404, 503]).prop_map(|status| json!({"status": status, "body": {"string": "x"}}));
    let direct = (status, changes()).prop_map(move |parts| with_headers("directResponse", parts));
    let delegate =
        one_of(&["v0", "v1", "v2", "v3"]).prop_map(|name| vec![("delegate", json!({"name": name}))]);
    prop_oneof![10 => route, 2 => redirect, 2 => direct, 1 => delegate]
}

fn rule() -> impl Strategy<Value = Value> {
    (vec(block(), 0..3), sometimes(0.2, one_of(&["first", "second"])), action()).prop_map(
        |(blocks, name, action)| {
            let matches = (!blocks.is_empty()).then(|| json!(blocks));
            let mut rule = object([("match", matches), ("name", name)]);
            rule.as_object_mut()
                .expect("an object")
                .extend(action.into_iter().map(|(k, v)| (k.to_owned(), v)));
            rule
        },
    )
}

/// Which clients an object is for.
fn export_to() -> impl Strategy<Value = Option<Value>> {
    sometimes(0.3, select(vec![json!(["."]), json!(["*"]), json!(["other"]), json!([".", "third"])]))
}

fn virtual_service() -> impl Strategy<Value = Value> {
    let hosts = prop_oneof![9 => one_of(&CLAIMS).prop_map(|host| Some(json!([host]))), 1 => Just(None)];
    let gateways = sometimes(0.1, select(vec![json!(["mesh"]), json!(["g", "mesh"]), json!(["g"])]));
    (hosts, gateways, export_to(), vec(rule(), 1..5)).prop_map(|(hosts, gateways, export_to, http)| {
        let gateways = gateways.filter(|_| hosts.is_some());
        object([
            ("hosts", hosts),
            ("gateways", gateways),
            ("exportTo", export_to),
            ("http", Some(json!(http))),
        ])
    })
}

fn destination_rule() -> impl Strategy<Value = Value> {
    let subset =
        (one_of(&["v1", "v2"]), sometimes(0.9, one_of(&["v1", "v2"]))).prop_map(|(name, version)| {
            object([("name", Some(name)), ("labels", version.map(|version| json!({"version": version})))])
        });
    let subsets = prop_oneof![
        3 => Just(versions()),
        1 => vec(subset, 0..2).prop_map(|all| json!(all)),
    ];
    let selector = sometimes(0.1, Just(json!({"matchLabels": {"app": "web"}})));
    (one_of(&CLAIMS), export_to(), selector, subsets).prop_map(|(host, export_to, selector, subsets)| {
        // One with a selector is never exported.
        let export_to = export_to.filter(|_| selector.is_none());
        let fields = [("host", Some(host)), ("exportTo", export_to), ("workloadSelector", selector)];
        let mut spec = object(fields);
        spec["subsets"] = subsets;
        spec
    })
}

/// Several of a kind, named by their place; their age and namespace are drawn too.
fn several(
    kind: &'static str,
    name: &'static str,
    namespaces: &'static [&'static str],
    specs: impl Strategy<Value = Vec<Value>>,
) -> impl Strategy<Value = Vec<Value>> {
    let whereabouts = vec((select(namespaces), 0..3_u8), 4);
    (specs, whereabouts).prop_map(move |(specs, whereabouts)| {
        let all = specs.into_iter().zip(whereabouts).enumerate();
        all.map(|(number, (spec, (namespace, age)))| {
            json!({
                "apiVersion": "networking.istio.io/v1", "kind": kind, "spec": spec,
                "metadata": {"namespace": namespace, "name": format!("{name}{number}"), "generation": 1,
                    "uid": format!("{name}{number}"), "creationTimestamp": format!("2026-01-01T00:00:0{age}Z")},
            })
        })
        .collect()
    })
}

/// One to four VirtualServices, and up to four DestinationRules. Mostly the first of each is for all clients of `s0`, so
/// that there is something to select from.
pub(crate) fn rules() -> impl Strategy<Value = Vec<Value>> {
    let services = several(
        "VirtualService",
        "v",
        &["default", "default", "default", "other"],
        vec(virtual_service(), 1..5),
    );
    let rules = several(
        "DestinationRule",
        "d",
        &["default", "default", "other", "istio-system"],
        vec(destination_rule(), 0..5),
    );
    (services, rules, prop::bool::weighted(0.8)).prop_map(|(mut services, mut rules, of_all)| {
        if of_all {
            services.iter_mut().take(1).for_each(|first| for_all(first, "hosts", json!([S0])));
            rules.iter_mut().take(1).for_each(|first| {
                for_all(first, "host", json!(S0));
                first["spec"]["subsets"] = versions();
            });
        }
        services.into_iter().chain(rules).collect()
    })
}

/// Makes it one for all clients, about this host.
fn for_all(object: &mut Value, field: &str, host: Value) {
    object["metadata"]["namespace"] = json!("default");
    let spec = object["spec"].as_object_mut().expect("an object");
    spec.retain(|name, _| !["exportTo", "gateways", "workloadSelector"].contains(&name.as_str()));
    spec.insert(field.to_owned(), host);
}

/// The subsets that most destinations name.
fn versions() -> Value {
    json!([{"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "labels": {"version": "v2"}}])
}
