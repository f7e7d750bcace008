//! Bytes that are no request, or that two readers may take for different ones: they are refused, or understood as RFC
//! 9112 says, and backends that take nothing else get nothing of them in another shape. Each is followed by a request
//! on the same connection, which must not be served once the connection is lost.
//!
//! Bad heads with their exact statuses are in umbra-proxy's tests; this is about what reaches whom.

use std::io::Write as _;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use umbra_testkit::http;

use crate::proxy_recorder::{Recorder, Records};
use crate::proxy_system::Proxy;
use crate::proxy_wire::{Framing, ID, Message, Reader};

/// What a server may say of a request that it does not take: its client's fault, or more than it can do.
const REFUSALS: [&str; 8] = ["400", "408", "411", "413", "414", "431", "501", "505"];

/// What has to come of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// A status of [`REFUSALS`], or the connection's end; no backend gets a whole request.
    Refused,
    /// That, or a request with this body.
    RefusedOr(&'static str),
    /// A request with this body.
    Served(&'static str),
    /// Refused, or a request with this body that is its connection's last.
    RefusedOrLast(&'static str),
}

use Expected::{Refused, RefusedOr, RefusedOrLast, Served};

struct Case {
    what: &'static str,
    bytes: Vec<u8>,
    expected: Expected,
}

#[test]
fn what_is_no_request_is_refused_and_reaches_nobody_in_another_shape() -> Result<()> {
    let mut proxy = Proxy::start()?;
    let (primary, mirror) = (Recorder::start()?, Recorder::start()?);
    proxy.route(primary.address(), Some(mirror.address()))?;
    let all: Vec<Case> = [heads(), lengths(), codings(), chunks(), floods()].into_iter().flatten().collect();
    let mut wrong = Vec::new();
    for (number, case) in all.iter().enumerate() {
        if let Err(error) = case.try_on(&proxy, number, (&primary, &mirror)) {
            wrong.push(format!("{}: {error:#}", case.what));
        }
    }
    proxy.alive()?;
    println!("measured: refused: {} kinds of bad input, {} of them wrong", all.len(), wrong.len());
    ensure!(wrong.is_empty(), "{} wrong:\n  {}", wrong.len(), wrong.join("\n  "));
    Ok(())
}

#[test]
fn heads_that_do_not_end_cost_their_connections_and_no_others() -> Result<()> {
    let mut proxy = Proxy::start()?;
    let (primary, mirror) = (Recorder::start()?, Recorder::start()?);
    proxy.route(primary.address(), Some(mirror.address()))?;
    let to = proxy.traffic();
    // Whatever letter follows, they may still become requests.
    let begins = ["G", "GET /", "GET / HTTP/1.1\r\nhost: web\r\n", "GET / HTTP/1.1\r\nhost: web\r\nx: "];
    std::thread::scope(|scope| {
        let stalled = begins.map(|begin| scope.spawn(move || slow(to, begin, false)));
        let dripping = begins.map(|begin| scope.spawn(move || slow(to, begin, true)));
        while !stalled.iter().chain(&dripping).all(|one| one.is_finished()) {
            let answer = http::exchange(http::connect(to)?, "GET", "/", &[("host", "web")], "")?;
            ensure!(answer.status == 200, "{}", answer.head);
        }
        let all = stalled.into_iter().chain(dripping);
        all.into_iter().try_for_each(|one| one.join().expect("a client does not panic"))
    })?;
    ensure!(primary.records().wrong.is_empty(), "{:?}", primary.records().wrong);
    Ok(())
}

/// A head that begins so and stalls, or goes on byte by byte, gets 408.
fn slow(to: SocketAddr, begin: &str, drips: bool) -> Result<()> {
    let mut stream = http::connect(to)?;
    stream.write_all(begin.as_bytes())?;
    if drips {
        let mut writer = stream.try_clone()?;
        // The pace of whoever does this; it ends when the proxy does not take it any more.
        std::thread::spawn(move || {
            while writer.write_all(b"a").is_ok() {
                std::thread::sleep(Duration::from_millis(300));
            }
        });
    }
    let answer = Reader::new(stream)?.answer("GET");
    let answer = answer.with_context(|| format!("{begin:?}, drips: {drips}"))?;
    ensure!(answer.start.starts_with("HTTP/1.1 408"), "{begin:?}, drips: {drips}: {answer}");
    Ok(())
}

impl Case {
    fn try_on(&self, proxy: &Proxy, number: usize, (primary, mirror): (&Recorder, &Recorder)) -> Result<()> {
        for recorder in [primary, mirror] {
            *recorder.records() = Records::default();
        }
        let before = proxy.samples()?.sum("umbra_shadow_eligible_total", &[]) as u64;
        let answers = self.send(proxy.traffic(), number)?;
        let served = answers.iter().filter(|answer| answer.start.starts_with("HTTP/1.1 200")).count();
        let shown: Vec<_> = answers.iter().map(|answer| &answer.start).collect();
        // Whatever went out has arrived when its copy has come to its end.
        let now = proxy.samples()?.sum("umbra_shadow_eligible_total", &[]) as u64;
        proxy.settled(now)?;
        ensure!(served as u64 <= now - before, "{served} served, {before} eligible before, {now} now");
        let body = match (self.expected, served) {
            (Refused | RefusedOr(_) | RefusedOrLast(_), 0) => None,
            (Refused, _) => anyhow::bail!("served: {shown:?}"),
            (Served(_), 0) => anyhow::bail!("not served: {shown:?}"),
            (RefusedOr(body) | RefusedOrLast(body) | Served(body), _) => Some(body),
        };
        let is_last = matches!(self.expected, RefusedOrLast(_));
        ensure!(!is_last || served < 2, "the next one was served, too: {shown:?}");
        for (who, recorder) in [("primary", primary), ("mirror", mirror)] {
            let records = recorder.records();
            same_shape(&records, number, body, served).with_context(|| format!("the {who}, {shown:?}"))?;
        }
        if body.is_none() {
            let refused = answers.iter().all(|answer| REFUSALS.contains(&&answer.start[9..12]));
            ensure!(refused && answers.len() < 2, "{shown:?}");
        }
        Ok(())
    }

    /// Sends it with a request behind it, and gives all answers.
    fn send(&self, to: SocketAddr, number: usize) -> Result<Vec<Message>> {
        let mut stream = http::connect(to)?;
        let mut bytes = self.bytes.clone();
        let id = bytes.windows(2).position(|two| two == b"@@");
        if let Some(at) = id {
            bytes.splice(at..at + 2, format!("{ID}: {number}").into_bytes());
        }
        let next = format!("GET /next HTTP/1.1\r\nhost: web\r\n{ID}: next\r\nconnection: close\r\n\r\n");
        bytes.extend(next.into_bytes());
        let reader = Reader::new(stream.try_clone()?)?;
        // The proxy may have left before it had all of it.
        let sent = stream.write_all(&bytes);
        if self.expected == Refused && sent.is_ok() {
            // What waits for more than there is hears that nothing comes.
            let _ = stream.shutdown(Shutdown::Write);
        }
        read_all(reader)
    }
}

fn read_all(mut reader: Reader) -> Result<Vec<Message>> {
    let mut answers = Vec::new();
    loop {
        match reader.answer("POST") {
            Ok(answer) => answers.push(answer),
            Err(error) if error.to_string().starts_with("the end") => return Ok(answers),
            Err(error) => return Err(error.context(format!("after {} answers", answers.len()))),
        }
    }
}

/// What a backend got is what has to come of the case, whole or cut off.
fn same_shape(records: &Records, number: usize, body: Option<&str>, served: usize) -> Result<()> {
    let strange: Vec<_> = records.wrong.iter().filter(|wrong| !wrong.starts_with("cut off")).collect();
    ensure!(strange.is_empty(), "got {strange:?}");
    let got: Vec<_> = records.requests.iter().map(ToString::to_string).collect();
    ensure!(records.requests.len() <= served, "got {got:?}");
    let own = records.of(&number.to_string());
    ensure!(own.len() == usize::from(body.is_some()), "got {got:?}");
    if let (Some(body), [own]) = (body, own.as_slice()) {
        ensure!(own.body == body.as_bytes(), "got the body {:?}", String::from_utf8_lossy(&own.body));
        ensure!(own.framing != Framing::End, "{own}");
    }
    Ok(())
}

fn case(what: &'static str, text: impl Into<Vec<u8>>, expected: Expected) -> Case {
    Case { what, bytes: text.into(), expected }
}

/// A GET with one more line; `@@` becomes the case's id.
fn with_line(what: &'static str, line: &str, expected: Expected) -> Case {
    case(what, format!("GET / HTTP/1.1\r\nhost: web\r\n@@\r\n{line}\r\n\r\n"), expected)
}

fn with_start(what: &'static str, line: &str, expected: Expected) -> Case {
    case(what, format!("{line}\r\nhost: web\r\n@@\r\n\r\n"), expected)
}

fn heads() -> Vec<Case> {
    vec![
        with_line("obs-fold", "x: a\r\n b", RefusedOr("")),
        with_line("obs-fold with a tab", "x: a\r\n\tb", RefusedOr("")),
        with_line("obs-fold of a length", "content-length:\r\n 3", RefusedOr("")),
        case("a folded first line", "GET / HTTP/1.1\r\n host: web\r\n@@\r\n\r\n", Refused),
        with_line("a bare CR in a value", "x: a\rb", RefusedOr("")),
        with_line("a bare CR that hides a line", "x: a\rcontent-length: 40", RefusedOr("")),
        with_line("a bare CR at the end of a value", "x: a\r", RefusedOr("")),
        with_line("a bare CR in a name", "x\ry: a", Refused),
        with_line("a bare LF in a value", "x: a\ny: b", RefusedOr("")),
        with_line("a bare LF that hides a line", "x: a\ncontent-length: 0", RefusedOr("")),
        with_start("a bare CR in the first line", "GET /\r HTTP/1.1", Refused),
        with_start("a bare LF after the first line", "GET / HTTP/1.1\nx: y", RefusedOr("")),
        case("bare LFs alone", "GET / HTTP/1.1\nhost: web\n@@\n\n", RefusedOr("")),
        with_line("NUL in a value", "x: a\0b", Refused),
        with_line("NUL in a name", "x\0y: a", Refused),
        with_start("NUL in a target", "GET /\0 HTTP/1.1", Refused),
        with_start("NUL in a method", "G\0T / HTTP/1.1", Refused),
        with_line("a space before the colon", "x : a", Refused),
        with_line("a tab before the colon", "x\t: a", Refused),
        with_line("a space in a name", "x y: a", Refused),
        with_line("a name of no token", "x@y: a", Refused),
        with_line("a name of other letters", "x\u{e9}: a", Refused),
        with_line("no name", ": a", Refused),
        with_line("no colon", "x", Refused),
        with_line("two hosts", "host: web", Refused),
        with_line("another host", "host: other", Refused),
        with_start("two spaces", "GET  / HTTP/1.1", RefusedOr("")),
        with_start("a tab", "GET\t/ HTTP/1.1", RefusedOr("")),
        with_start("a space in a target", "GET /a b HTTP/1.1", Refused),
        with_start("no target", "GET HTTP/1.1", Refused),
        with_start("no version", "GET /", Refused),
        with_start("a version of another case", "GET / http/1.1", Refused),
        with_start("HTTP/2.0 as text", "GET / HTTP/2.0", Refused),
        with_start("HTTP/0.9", "GET / HTTP/0.9", Refused),
        with_start("HTTP/1.10", "GET / HTTP/1.10", Refused),
        with_start("a method of no token", "G@T / HTTP/1.1", Refused),
        case("an empty line first", "\r\nGET / HTTP/1.1\r\nhost: web\r\n@@\r\n\r\n", RefusedOr("")),
        case("a space first", " GET / HTTP/1.1\r\nhost: web\r\n@@\r\n\r\n", Refused),
        case("no request at all", "\0\x01\x02\r\n\r\n", Refused),
    ]
}

/// A body of `abc` under these lines.
fn with_body(what: &'static str, lines: &str, expected: Expected) -> Case {
    case(what, format!("POST / HTTP/1.1\r\nhost: web\r\n@@\r\n{lines}\r\n\r\nabc"), expected)
}

fn lengths() -> Vec<Case> {
    vec![
        with_body("two lengths", "content-length: 3\r\ncontent-length: 4", Refused),
        with_body("two lengths, the first is right", "content-length: 4\r\ncontent-length: 3", Refused),
        with_body("a length twice", "content-length: 3\r\ncontent-length: 3", RefusedOr("abc")),
        with_body("a list of a length", "content-length: 3, 3", RefusedOr("abc")),
        with_body("a list of lengths", "content-length: 3, 4", Refused),
        with_body("a length with a sign", "content-length: +3", Refused),
        with_body("a length below 0", "content-length: -3", Refused),
        with_body("a length with a base", "content-length: 0x3", Refused),
        with_body("a length with a point", "content-length: 3.0", Refused),
        with_body("a length with a space in it", "content-length: 3 3", Refused),
        with_body("an empty length", "content-length: ", Refused),
        with_body("a length past 64 bits", "content-length: 18446744073709551619", Refused),
        with_body("a length of NUL", "content-length: 3\0", Refused),
        with_body("a length behind a space", "content-length : 3", Refused),
        with_body("a length with leading zeros", "content-length: 0003", RefusedOr("abc")),
        with_body(
            "a length named by Connection",
            "connection: content-length\r\ncontent-length: 3",
            Served("abc"),
        ),
        case(
            "a body that ends early",
            "POST / HTTP/1.1\r\nhost: web\r\n@@\r\ncontent-length: 999\r\n\r\nabc",
            Refused,
        ),
    ]
}

/// A chunked body of `abc` under these lines.
fn with_coding(what: &'static str, lines: &str, expected: Expected) -> Case {
    let body = "3\r\nabc\r\n0\r\n\r\n";
    case(what, format!("POST / HTTP/1.1\r\nhost: web\r\n@@\r\n{lines}\r\n\r\n{body}"), expected)
}

fn codings() -> Vec<Case> {
    let old = "POST / HTTP/1.0\r\nhost: web\r\n@@\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    vec![
        with_coding("chunked", "transfer-encoding: chunked", Served("abc")),
        with_coding("chunked in another case", "Transfer-Encoding: Chunked", RefusedOr("abc")),
        with_coding("chunked behind spaces", "transfer-encoding:   chunked  ", RefusedOr("abc")),
        with_coding("length, then chunked", "content-length: 3\r\ntransfer-encoding: chunked", Refused),
        with_coding("chunked, then length", "transfer-encoding: chunked\r\ncontent-length: 3", Refused),
        with_coding("chunked, then identity", "transfer-encoding: chunked, identity", Refused),
        with_coding("identity, then chunked", "transfer-encoding: identity, chunked", Refused),
        with_coding("identity", "transfer-encoding: identity", Refused),
        with_coding("xchunked", "transfer-encoding: xchunked", Refused),
        with_coding("chunkedx", "transfer-encoding: chunkedx", Refused),
        with_coding("chunked twice", "transfer-encoding: chunked, chunked", Refused),
        with_coding(
            "chunked on two lines",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
            Refused,
        ),
        with_coding(
            "chunked, then another line",
            "transfer-encoding: chunked\r\ntransfer-encoding: x",
            Refused,
        ),
        with_coding(
            "another line, then chunked",
            "transfer-encoding: x\r\ntransfer-encoding: chunked",
            Refused,
        ),
        with_coding("chunked after a comma", "transfer-encoding: , chunked", RefusedOr("abc")),
        with_coding("chunked with a parameter", "transfer-encoding: chunked;q=1", Refused),
        with_coding("chunked in quotes", "transfer-encoding: \"chunked\"", Refused),
        with_coding("chunked behind a vertical tab", "transfer-encoding: \x0bchunked", Refused),
        with_coding("chunked before a NUL", "transfer-encoding: chunked\0", Refused),
        with_coding("no coding", "transfer-encoding: ", Refused),
        with_coding("gzip", "transfer-encoding: gzip", Refused),
        with_coding("chunked behind a space", "transfer-encoding : chunked", Refused),
        with_coding("chunked folded", "transfer-encoding:\r\n chunked", RefusedOr("abc")),
        with_coding(
            "chunked named by Connection",
            "connection: transfer-encoding\r\ntransfer-encoding: chunked",
            Served("abc"),
        ),
        // RFC 9112 section 6.1: its framing is faulty, and the connection ends with it.
        case("chunked in HTTP/1.0", old, RefusedOrLast("abc")),
    ]
}

/// This after a head that says chunked.
fn with_chunks(what: &'static str, chunks: &str, expected: Expected) -> Case {
    case(
        what,
        format!("POST / HTTP/1.1\r\nhost: web\r\n@@\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"),
        expected,
    )
}

fn chunks() -> Vec<Case> {
    vec![
        with_chunks("an extension", "3;a=b\r\nabc\r\n0;c\r\n\r\n", Served("abc")),
        with_chunks("an extension in quotes", "3;a=\"b;c\"\r\nabc\r\n0\r\n\r\n", Served("abc")),
        with_chunks("an extension with a bare LF", "3;a\nb\r\nabc\r\n0\r\n\r\n", Refused),
        with_chunks("an extension with a bare CR", "3;a\rb\r\nabc\r\n0\r\n\r\n", Refused),
        with_chunks("an extension with a NUL", "3;a\0\r\nabc\r\n0\r\n\r\n", RefusedOr("abc")),
        with_chunks("a size with zeros", "0003\r\nabc\r\n0\r\n\r\n", RefusedOr("abc")),
        with_chunks("a size with a sign", "+3\r\nabc\r\n0\r\n\r\n", Refused),
        with_chunks("a size below 0", "-3\r\nabc\r\n0\r\n\r\n", Refused),
        with_chunks("a size with a base", "0x3\r\nabc\r\n0\r\n\r\n", Refused),
        with_chunks("a size behind a space", " 3\r\nabc\r\n0\r\n\r\n", Refused),
        with_chunks("a size before a space", "3 \r\nabc\r\n0\r\n\r\n", RefusedOr("abc")),
        with_chunks("a size with a space in it", "0 3\r\nabc\r\n0\r\n\r\n", Refused),
        with_chunks("a size with an underscore", "0_3\r\nabc\r\n0\r\n\r\n", Refused),
        with_chunks("no size", "\r\nabc\r\n0\r\n\r\n", Refused),
        with_chunks("no size, but an extension", ";a\r\nabc\r\n0\r\n\r\n", Refused),
        with_chunks("a size of no digit", "g\r\nabc\r\n0\r\n\r\n", Refused),
        with_chunks("a size of 65 bits", "10000000000000003\r\nabc\r\n0\r\n\r\n", Refused),
        with_chunks("a size of 64 bits", "ffffffffffffffff\r\nabc\r\n0\r\n\r\n", Refused),
        with_chunks("a size that is negative in 64 bits", "8000000000000003\r\nabc\r\n0\r\n\r\n", Refused),
        with_chunks("a size of 33 bits", "100000003\r\nabc\r\n0\r\n\r\n", Refused),
        with_chunks("a size with a bare LF", "3\nabc\r\n0\r\n\r\n", Refused),
        with_chunks("a size with two CRs", "3\r\r\nabc\r\n0\r\n\r\n", Refused),
        with_chunks("a chunk with a bare LF", "3\r\nabc\n0\r\n\r\n", Refused),
        with_chunks("a chunk longer than its size", "3\r\nabcd\r\n0\r\n\r\n", Refused),
        with_chunks("a chunk shorter than its size", "4\r\nabc\r\n0\r\n\r\n", Refused),
        with_chunks("no last chunk", "3\r\nabc\r\n", Refused),
        with_chunks("a last chunk with a bare LF", "3\r\nabc\r\n0\n\r\n", Refused),
        with_chunks("a last chunk of many zeros", "3\r\nabc\r\n00000\r\n\r\n", RefusedOr("abc")),
        with_chunks("a trailer of framing", "3\r\nabc\r\n0\r\ncontent-length: 9\r\n\r\n", RefusedOr("abc")),
        with_chunks("a trailer that is folded", "3\r\nabc\r\n0\r\nx: a\r\n b\r\n\r\n", RefusedOr("abc")),
        with_chunks("a trailer with a NUL", "3\r\nabc\r\n0\r\nx: a\0b\r\n\r\n", Refused),
        with_chunks("a trailer of no name", "3\r\nabc\r\n0\r\nno colon\r\n\r\n", Refused),
        with_chunks("a trailer with a bare LF", "3\r\nabc\r\n0\r\nx: a\ny: b\r\n\r\n", RefusedOr("abc")),
    ]
}

fn floods() -> Vec<Case> {
    let many = |count| (0..count).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    let long = |length| "y".repeat(length);
    vec![
        case("many fields", format!("GET / HTTP/1.1\r\nhost: web\r\n@@\r\n{}\r\n", many(5_000)), Refused),
        with_line("a long value", &format!("x: {}", long(1 << 20)), Refused),
        with_line("a long name", &format!("{}: x", long(1 << 20)), Refused),
        with_start("a long target", &format!("GET /{} HTTP/1.1", long(1 << 20)), Refused),
        with_start("a long method", &format!("{} / HTTP/1.1", long(1 << 20)), Refused),
        case("empty lines", "\r\n".repeat(1 << 18), Refused),
        with_chunks("a long extension", &format!("3;{}\r\nabc\r\n0\r\n\r\n", long(1 << 20)), Refused),
        with_chunks(
            "many extensions",
            &format!("{}0\r\n\r\n", format!("1;{}\r\na\r\n", long(200)).repeat(5_000)),
            Refused,
        ),
        with_chunks("many trailers", &format!("3\r\nabc\r\n0\r\n{}\r\n", many(5_000)), Refused),
        with_chunks("a long trailer", &format!("3\r\nabc\r\n0\r\nx: {}\r\n\r\n", long(1 << 20)), Refused),
        with_chunks(
            "zeros without end",
            &format!("{}3\r\nabc\r\n0\r\n\r\n", "0".repeat(1 << 20)),
            RefusedOr("abc"),
        ),
    ]
}
