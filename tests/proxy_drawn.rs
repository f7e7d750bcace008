//! Drawn requests and answers, as `proxy_alike` sends them.

use std::fmt;

use proptest::prelude::*;

use crate::proxy_requests::Version;
use crate::proxy_wire::ID;

pub(crate) type Field = (String, Bytes);

/// Drawn bytes, of which a failed case shows the beginning.
#[derive(Clone)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 40;
        let shown = self.0[..self.0.len().min(SHOWN)].escape_ascii();
        write!(f, "\"{shown}\" ({} bytes)", self.0.len())
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) fields: Vec<Field>,
    pub(crate) hop: Hop,
    pub(crate) body: Body,
    pub(crate) answer: Answering,
}

/// Fields for the proxy alone, and one that Connection makes such.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hop {
    None,
    Named,
    KeepAlive,
    TeTrailers,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    None,
    Length(Bytes),
    Chunked { chunks: Vec<(Bytes, String)>, trailers: Vec<Field> },
}

#[derive(Clone, Debug)]
pub(crate) struct Answering {
    pub(crate) status: u16,
    pub(crate) fields: Vec<Field>,
    pub(crate) body: Answered,
    /// An interim answer goes before it.
    pub(crate) announced: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Answered {
    Framed(Body),
    /// By the connection's end, by a server of this version.
    UntilTheEnd(&'static str, Bytes),
}

/// One connection of a client.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) requests: Vec<Request>,
    /// Lengths of the pieces that are written, and whether a pause follows: bytes in HTTP/1.1, frames of data in HTTP/2.
    pub(crate) pieces: Vec<(usize, bool)>,
    /// All at once, or each after the answer to the one before.
    pub(crate) pipelined: bool,
    /// What a client of HTTP/2 takes of an answer before it has read some.
    pub(crate) window: u32,
}

/// Who speaks which version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spoken {
    pub(crate) client: Version,
    pub(crate) primary: Version,
    pub(crate) mirror: Version,
}

/// Somebody speaks HTTP/2.
pub(crate) fn mixed() -> impl Strategy<Value = Spoken> {
    let version = || prop::sample::select(vec![Version::Http1, Version::Http2]);
    let spoken = (version(), version(), version());
    let spoken = spoken.prop_map(|(client, primary, mirror)| Spoken { client, primary, mirror });
    spoken.prop_filter("HTTP/2", |spoken| *spoken != Spoken::HTTP1)
}

impl Spoken {
    /// Nobody does.
    pub(crate) const HTTP1: Self =
        Self { client: Version::Http1, primary: Version::Http1, mirror: Version::Http1 };
}

/// What a client may do on one connection.
pub(crate) fn connection() -> impl Strategy<Value = Connection> {
    let length = prop_oneof![1..4_usize, 1..100_usize, 1..20_000_usize];
    let pieces = prop::collection::vec((length, prop::bool::weighted(0.1)), 0..16);
    let requests = prop::collection::vec(request(), 1..6);
    let window = prop_oneof![1_000..65_535_u32, Just(65_535_u32)];
    (requests, pieces, any::<bool>(), window).prop_map(|(requests, pieces, pipelined, window)| Connection {
        requests,
        pieces,
        pipelined,
        window,
    })
}

fn request() -> impl Strategy<Value = Request> {
    let methods = vec!["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];
    // A method is any token; these are no beginning of HTTP/2's preface.
    let method = prop_oneof![
        4 => prop::sample::select(methods).prop_map(str::to_owned),
        1 => "[A-OQ-Z!#$%&'*+.^_`|~-][A-Za-z0-9!#$%&'*+.^_`|~-]{0,20}",
    ];
    let hop = prop::sample::select(vec![Hop::None, Hop::None, Hop::Named, Hop::KeepAlive, Hop::TeTrailers]);
    (method, target(), fields(12), hop, body(), answering()).prop_map(
        |(method, target, fields, hop, body, answer)| Request { method, target, fields, hop, body, answer },
    )
}

/// Spelled as umbra hands paths on, so that they stay as they are; queries stay in any case.
fn target() -> impl Strategy<Value = String> {
    let path = "(/([A-Za-z0-9_~!$&'()*+,;=:@-][A-Za-z0-9._~!$&'()*+,;=:@-]{0,12}|%2F|%C3%A4){0,2}){1,5}";
    let query = prop_oneof![3 => Just(String::new()), 2 => "\\?[A-Za-z0-9._~!$&'()*+,;=:@/?%-]{0,40}"];
    (path, query).prop_map(|(path, query)| path + &query)
}

/// Names of any token, some of them the same in another spelling; values of any text, some long, some empty.
fn fields(most: usize) -> impl Strategy<Value = Vec<Field>> {
    let name = prop_oneof![
        3 => "[Xx]-[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,12}",
        2 => prop::sample::select(vec!["X-Many", "x-many", "X-MANY", "Accept", "Cookie", "Set-Cookie", "Cache-Control"])
            .prop_map(str::to_owned),
        1 => (100..300_usize).prop_map(|length| format!("X-{}", "y".repeat(length))),
    ];
    // Visible, blank and beyond ASCII (RFC 9110 section 5.5).
    let text = |most| {
        filled(0..most, |random| match random.u8(..) {
            0x7f => b'~',
            control @ 0..0x20 => {
                if control % 2 == 0 {
                    b' '
                } else {
                    b'\t'
                }
            }
            visible => visible,
        })
    };
    let value = prop_oneof![6 => text(40_usize), 1 => text(3_000_usize)];
    prop::collection::vec((name, value), 0..most)
        .prop_map(|fields| fields.into_iter().filter(|(name, _)| !is_of_a_hop(name)).collect())
}

/// Drawn by chance: those would not arrive.
fn is_of_a_hop(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == ID || name == "x-hop" || name.starts_with("x-envoy-")
}

fn body() -> impl Strategy<Value = Body> {
    let extension =
        prop_oneof![3 => Just(String::new()), 1 => ";[a-z]{1,8}(=[a-z0-9]{1,8}|=\"[a-z ]{0,8}\")?"];
    let chunks = prop::collection::vec((bytes(), extension), 0..6);
    let trailers = prop::collection::vec(
        ("x-t[0-9a-z]{1,8}", filled(1..20_usize, |random| random.u8(0x21..0x7f))),
        0..3,
    );
    prop_oneof![
        2 => Just(Body::None),
        3 => bytes().prop_map(Body::Length),
        3 => (chunks, trailers).prop_map(|(chunks, trailers)| Body::Chunked { chunks, trailers }),
    ]
}

fn bytes() -> impl Strategy<Value = Bytes> {
    let length = prop_oneof![2 => 0..20_usize, 3 => 0..3_000_usize, 1 => 0..100_000_usize];
    filled(length, |random| random.u8(..))
}

/// So many bytes of a seed: each drawn by itself would take a second a case, and be no better.
fn filled(
    length: impl Strategy<Value = usize>,
    draw: fn(&mut fastrand::Rng) -> u8,
) -> impl Strategy<Value = Bytes> {
    (length, any::<u64>()).prop_map(move |(length, seed)| {
        let mut random = fastrand::Rng::with_seed(seed);
        Bytes((0..length).map(|_| draw(&mut random)).collect())
    })
}

fn answering() -> impl Strategy<Value = Answering> {
    let status = prop_oneof![
        3 => Just(200_u16),
        1 => Just(204),
        1 => Just(304),
        2 => prop_oneof![206..=299_u16, 300..=303_u16, 305..=599_u16],
    ];
    let framed = body().prop_map(|body| match body {
        // Without a length it would last until the connection's end.
        Body::None => Body::Length(Bytes(Vec::new())),
        body => body,
    });
    let answered = prop_oneof![
        4 => framed.prop_map(Answered::Framed),
        1 => (prop::sample::select(vec!["HTTP/1.1", "HTTP/1.0"]), bytes())
            .prop_map(|(version, body)| Answered::UntilTheEnd(version, body)),
    ];
    (status, fields(8), answered, prop::bool::weighted(0.15))
        .prop_map(|(status, fields, body, announced)| Answering { status, fields, body, announced })
}
