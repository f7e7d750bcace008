//! Random requests of the words that rules are made of.

use proptest::collection::vec;
use proptest::option::weighted as sometimes;
use proptest::prelude::*;
use proptest::sample::select;

/// Namespace, name, labels.
pub(crate) type Client = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// Client pods. Their addresses are [`Asked::source`].
pub(crate) const CLIENTS: [Client; 5] = [
    ("default", "web", &[("app", "web")]),
    ("default", "cart", &[("app", "cart")]),
    ("default", "plain", &[]),
    ("other", "web", &[("app", "web")]),
    ("third", "cart", &[("app", "cart")]),
];

/// Full enough for every client to mean the same by them, in the spellings that DNS takes.
const HOSTS: [&str; 7] = [
    "s0.default",
    "s0.default",
    "S0.Default.svc",
    "s0.default:80",
    "s0.default",
    "s1.default",
    "s2.other.svc",
];

/// Also such as are normalised, and such as a proxy refuses.
const PATHS: [&str; 13] =
    ["/", "/a", "/a", "/A", "/a/b", "/b", "/b", "/a/", "/c", "/c/../a", "/%61", "//a", "/%zz"];

/// One request of one client.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) client: usize,
    pub(crate) method: &'static str,
    pub(crate) host: &'static str,
    pub(crate) target: String,
    /// Without Host.
    pub(crate) headers: Vec<(&'static str, &'static str)>,
}

impl Asked {
    /// The address of a client's pod: of the loopback network, so that requests can come from it.
    pub(crate) fn source(client: usize) -> [u8; 4] {
        [127, 0, 2, u8::try_from(client + 1).expect("a few clients")]
    }
}

pub(crate) fn requests() -> impl Strategy<Value = Vec<Asked>> {
    vec(asked(), 8..16)
}

fn asked() -> impl Strategy<Value = Asked> {
    let query = sometimes(0.3, select(&["q=a", "q=b&q=a", "q", "p=a"][..]));
    let target = (select(&PATHS[..]), query).prop_map(|(path, query)| match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    });
    let method = select(&["GET", "GET", "GET", "POST", "DELETE"][..]);
    let asked = (0..CLIENTS.len(), method, select(&HOSTS[..]), target, headers(), prop::bool::weighted(0.2));
    asked.prop_map(|(client, mut method, host, target, mut headers, preflight)| {
        if preflight {
            method = "OPTIONS";
            headers.push(("access-control-request-method", "GET"));
        }
        Asked { client, method, host, target, headers }
    })
}

fn headers() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let own = vec((Just("x-a"), select(&["a", "b", "ab", ""][..])), 0..3);
    let scheme = sometimes(0.1, Just(("x-forwarded-proto", "https")));
    let grpc = sometimes(0.1, Just(("content-type", "application/grpc")));
    let origin = sometimes(0.5, select(&["http://a", "http://b"][..]).prop_map(|origin| ("origin", origin)));
    (own, scheme, grpc, origin).prop_map(|(own, scheme, grpc, origin)| {
        own.into_iter().chain(scheme).chain(grpc).chain(origin).collect()
    })
}
