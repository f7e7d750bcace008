//! The codec beside hyper, which knows HTTP/1 as well: the same bytes, near to valid, to both. Whatever both take for a
//! message is the same message to both. What one of them alone takes is one of the differences that are listed here, each
//! with its reason.
//!
//! The same cases each time; `HYPER_CASES=1000000` goes on behind them.

mod peer;

use std::collections::{BTreeMap, BTreeSet};

use http::{HeaderMap, header};

use self::peer::Peer;
use super::fuzz::{End, Message, Reader, Side, changed, hold, samples, smaller};

/// Some seconds in a debug build.
const CASES: usize = 20_000;
/// hyper's own limit is larger: limits are no part of this.
const LIMIT: usize = 64 * 1024;

/// What one of both has not taken for a message, and why it does not.
#[derive(Debug)]
struct Difference {
    /// What the one that refuses says.
    says: &'static str,
    why: &'static str,
}

const fn because(says: &'static str, why: &'static str) -> Difference {
    Difference { says, why }
}

/// Refused here, and taken by hyper.
const STRICTER: &[Difference] = &[
    because("it has a length and a transfer coding", "RFC 9112 6.1: such a request may be smuggling another"),
    because(
        "transfer codings other than chunked",
        "nobody here can decode them; hyper looks at the last one alone",
    ),
    because("the line before a chunk is too long", "nobody needs 1 KiB of extensions for a chunk"),
    because(
        "a chunk's size",
        "RFC 9112 7.1.1: no control characters in extensions; and 16 digits are enough",
    ),
    because("its trailers", "lines that end with LF alone may end the trailers elsewhere for others"),
    because("it has two lengths", "RFC 9112 6.3; hyper does not look where it would not count"),
    because("its lines", "RFC 9112 2.2: there are no empty lines before an answer"),
    because("its target", "RFC 9112 3.2: an authority is for CONNECT alone, and CONNECT has nothing else"),
    because(
        "its Content-Length",
        "RFC 9112 6.3: a list of lengths, or one that is not looked at beside a coding",
    ),
];

/// Taken here, and refused by hyper.
const MORE_LENIENT: &[Difference] = &[because(
    "TooManyHeaders",
    "hyper counts trailers by CRLF, and more fields that end with LF alone are too many",
)];

#[test]
fn what_both_take_is_the_same_to_both() {
    let requests = all(Side::Requests, &["requests", "chunks", "trailers"]);
    let answers = all(Side::Answers { to_head: false }, &["answers", "chunks", "trailers"]);
    let to_head = all(Side::Answers { to_head: true }, &["answers"]);
    for difference in STRICTER.iter().chain(MORE_LENIENT) {
        let seen = [&requests, &answers, &to_head].iter().any(|seen| seen.contains(difference.says));
        assert!(seen, "{}: no input shows it", difference.says);
    }
}

/// What both have said differently.
fn all(side: Side, corpora: &[&str]) -> BTreeSet<&'static str> {
    let peer = Peer::new(side);
    let samples: Vec<Vec<u8>> = corpora.iter().flat_map(|name| whole_samples(name, side)).collect();
    let mut rng = fastrand::Rng::with_seed(1);
    let cases = std::env::var("HYPER_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let (mut messages, mut differences) = (0, BTreeMap::new());
    for case in 0..samples.len() + cases {
        let bytes = samples.get(case).cloned().unwrap_or_else(|| changed(&mut rng, &samples));
        let (read, difference) = compared(&peer, side, &bytes).unwrap_or_else(|_| fails(&peer, side, bytes));
        messages += read;
        if let Some(Difference { says, why }) = difference {
            *differences.entry((*says, *why)).or_insert(0) += 1;
        }
    }
    eprintln!("measured: against hyper: {side:?}: {cases} connections, {messages} messages read alike");
    for ((says, why), count) in &differences {
        eprintln!("measured: against hyper: {side:?}: {count} x {says}: {why}");
    }
    differences.into_keys().map(|(says, _)| says).collect()
}

fn fails(peer: &Peer, side: Side, bytes: Vec<u8>) -> ! {
    let smallest = smaller(bytes, |bytes| compared(peer, side, bytes).is_err());
    let wrong = compared(peer, side, &smallest).expect_err("it failed before");
    panic!("{side:?} b\"{}\": {wrong}", smallest.escape_ascii());
}

/// Bodies need a head.
fn whole_samples(corpus: &str, side: Side) -> Vec<Vec<u8>> {
    let start: &[u8] = match side {
        Side::Requests => b"POST / HTTP/1.1\r\n",
        Side::Answers { .. } => b"HTTP/1.1 200 OK\r\n",
    };
    let coding = b"transfer-encoding: chunked\r\n\r\n";
    let before: Vec<u8> = match corpus {
        "chunks" => [start, coding].concat(),
        "trailers" => [start, coding, b"0\r\n"].concat(),
        _ => Vec::new(),
    };
    samples(corpus).into_iter().map(|sample| [&before[..], &sample].concat()).collect()
}

/// How many messages both have read, and what one of them alone has read then.
fn compared(peer: &Peer, side: Side, bytes: &[u8]) -> Result<(usize, Option<&'static Difference>), String> {
    let mut ours = Reader::whole(side, LIMIT, bytes);
    ours.close();
    let (theirs, their_end) = peer.read(bytes);
    // hyper's client gives no interim answers.
    let mut own = ours.messages.iter().filter(|message| message.is_whole && !message.is_interim());
    for other in &theirs {
        let Some(own) = own.next() else {
            return stricter(&ours.end, other).map(|difference| (0, Some(difference)));
        };
        same(own, other)?;
    }
    // hyper's client takes one answer for one request.
    let own = own.next().filter(|_| side == Side::Requests || theirs.is_empty());
    match own {
        None => Ok((theirs.len(), None)),
        Some(own) => lenient(&their_end, own).map(|difference| (theirs.len(), Some(difference))),
    }
}

fn same(own: &Message, other: &Message) -> Result<(), String> {
    let fields = |headers: &HeaderMap| {
        let mut headers = headers.clone();
        // hyper's client leaves a length beside a coding, and one said twice.
        let length = headers.remove(header::CONTENT_LENGTH);
        if let (Some(length), false) = (length, headers.contains_key(header::TRANSFER_ENCODING)) {
            headers.insert(header::CONTENT_LENGTH, length);
        }
        headers
    };
    let trailers = |headers: &HeaderMap| {
        let mut headers = headers.clone();
        // Never taken here, RFC 9110 section 6.5.1.
        for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::HOST] {
            headers.remove(name);
        }
        headers
    };
    let alike = own.start == other.start
        && fields(&own.headers) == fields(&other.headers)
        && own.body == other.body
        && trailers(&own.trailers) == trailers(&other.trailers);
    hold(alike, || format!("{own:?}, and hyper reads {other:?}"))
}

fn stricter(end: &End, other: &Message) -> Result<&'static Difference, String> {
    let End::Refused(said) = end else { return Err(format!("{end:?}, and hyper reads {other:?}")) };
    known(STRICTER, said).ok_or_else(|| format!("{said}, and hyper reads {other:?}"))
}

fn lenient(said: &str, own: &Message) -> Result<&'static Difference, String> {
    known(MORE_LENIENT, said).ok_or_else(|| format!("hyper says {said:?} to {own:?}"))
}

fn known(differences: &'static [Difference], said: &str) -> Option<&'static Difference> {
    differences.iter().find(|difference| said.contains(difference.says))
}
