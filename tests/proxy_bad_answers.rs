//! Answers that are none, or that two readers may take for different ones: a client gets an error, an answer that breaks
//! off, or what RFC 9112 says that it is; never anything else, and never another's. From a mirror nobody notices them.

use std::io::Write as _;

use anyhow::{Result, ensure};
use umbra_testkit::http;

use crate::proxy_recorder::{Answer, Recorder};
use crate::proxy_system::Proxy;
use crate::proxy_wire::{ID, Message, Reader};

/// What a client may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// An error of the proxy, or an answer that breaks off.
    Refused,
    /// That, or this body.
    RefusedOr(&'static str),
}

use Expected::{Refused, RefusedOr};

#[test]
fn what_is_no_answer_reaches_nobody_as_one() -> Result<()> {
    let mut proxy = Proxy::start()?;
    let (primary, mirror) = (Recorder::start()?, Recorder::start()?);
    proxy.route(primary.address(), Some(mirror.address()))?;
    let mut wrong = Vec::new();
    let all = answers();
    for (number, (what, bytes, expected)) in all.iter().enumerate() {
        let ids = [format!("bad-{number}"), format!("copied-{number}"), format!("next-{number}")];
        let answer = Answer::Bytes { bytes: bytes.clone(), closes: !what.starts_with("kept: ") };
        primary.records().answers.insert(ids[0].clone(), answer.clone());
        mirror.records().answers.insert(ids[1].clone(), answer);
        if let Err(error) = right(&proxy, &ids[0], *expected) {
            wrong.push(format!("{what}: {error:#}"));
        }
        for id in &ids[1..] {
            let own = ask(&proxy, id).and_then(|answer| {
                ensure!(answer.start.starts_with("HTTP/1.1 200") && answer.body == b"ok", "{answer}");
                Ok(())
            });
            wrong.extend(own.err().map(|error| format!("{what}: {id} gets {error:#}")));
        }
    }
    proxy.settled(3 * all.len() as u64)?;
    proxy.alive()?;
    println!("measured: bad answers: {} kinds, {} wrong", all.len(), wrong.len());
    ensure!(wrong.is_empty(), "{} wrong:\n  {}", wrong.len(), wrong.join("\n  "));
    Ok(())
}

fn ask(proxy: &Proxy, id: &str) -> Result<Message> {
    let mut stream = http::connect(proxy.traffic())?;
    write!(stream, "GET / HTTP/1.1\r\nhost: web\r\n{ID}: {id}\r\nconnection: close\r\n\r\n")?;
    Reader::new(stream)?.answer("GET")
}

fn right(proxy: &Proxy, id: &str, expected: Expected) -> Result<()> {
    let answer = match ask(proxy, id) {
        Ok(answer) => answer,
        Err(error) => {
            let text = error.to_string();
            ensure!(text.starts_with("cut off") || text.starts_with("the end"), "{text}");
            return Ok(());
        }
    };
    if answer.start.starts_with("HTTP/1.1 50") {
        return Ok(());
    }
    let RefusedOr(body) = expected else { anyhow::bail!("{answer}") };
    ensure!(answer.body == body.as_bytes(), "{answer}: {:?}", String::from_utf8_lossy(&answer.body));
    Ok(())
}

type Case = (&'static str, Vec<u8>, Expected);

/// A 200 with these lines and this body.
fn with(what: &'static str, lines: &str, body: &str, expected: Expected) -> Case {
    (what, format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n{body}").into_bytes(), expected)
}

fn starts(what: &'static str, start: &str) -> Case {
    (what, format!("{start}\r\ncontent-length: 3\r\n\r\nabc").into_bytes(), Refused)
}

fn answers() -> Vec<Case> {
    let (chunked, chunks) = ("transfer-encoding: chunked", "3\r\nabc\r\n0\r\n\r\n");
    let long = "y".repeat(1 << 20);
    vec![
        with("two lengths", "content-length: 3\r\ncontent-length: 4", "abcd", Refused),
        with("a list of lengths", "content-length: 3, 4", "abcd", Refused),
        with("a length with a sign", "content-length: +3", "abc", Refused),
        with("a length with a base", "content-length: 0x3", "abc", Refused),
        with("a length past 64 bits", "content-length: 18446744073709551619", "abc", Refused),
        with("a length and chunks", &format!("content-length: 99\r\n{chunked}"), chunks, RefusedOr("abc")),
        with("chunks and a length", &format!("{chunked}\r\ncontent-length: 1"), chunks, RefusedOr("abc")),
        with("obs-fold", "x: a\r\n b\r\ncontent-length: 3", "abc", RefusedOr("abc")),
        with("a space before the colon", "x : a\r\ncontent-length: 3", "abc", RefusedOr("abc")),
        with("a bare CR", "x: a\rb\r\ncontent-length: 3", "abc", RefusedOr("abc")),
        with("NUL in a value", "x: a\0b\r\ncontent-length: 3", "abc", Refused),
        with("no colon", "x\r\ncontent-length: 3", "abc", Refused),
        with("a body that ends early", "content-length: 9", "abc", Refused),
        with("chunks that end early", chunked, "3\r\nabc\r\n", Refused),
        with("a chunk's size of 65 bits", chunked, "10000000000000003\r\nabc\r\n0\r\n\r\n", Refused),
        with("a chunk's size with a sign", chunked, "+3\r\nabc\r\n0\r\n\r\n", Refused),
        with("a chunk longer than its size", chunked, "3\r\nabcd\r\n0\r\n\r\n", Refused),
        with("a trailer of no name", chunked, "3\r\nabc\r\n0\r\nno colon\r\n\r\n", Refused),
        with("a long value", &format!("x: {long}\r\ncontent-length: 3"), "abc", Refused),
        starts("a long reason", &format!("HTTP/1.1 200 {long}")),
        starts("no HTTP", "220 hello"),
        starts("HTTP/2.0 as text", "HTTP/2.0 200 OK"),
        starts("a status of two digits", "HTTP/1.1 20 OK"),
        starts("a status of four digits", "HTTP/1.1 2000 OK"),
        starts("a status of letters", "HTTP/1.1 abc OK"),
        // A kept connection may have ended before the request: it is asked again, and answered then.
        ("nothing", Vec::new(), RefusedOr("ok")),
        ("a head that ends early", b"HTTP/1.1 200 OK\r\ncontent-le".to_vec(), Refused),
        (
            "a switch that nobody wanted",
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nabc".to_vec(),
            Refused,
        ),
        with(
            "kept: an answer that nobody asked for",
            "content-length: 3",
            "abcHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
            RefusedOr("abc"),
        ),
        with("kept: bytes behind the body", "content-length: 3", "abcdef", RefusedOr("abc")),
        (
            "kept: a body of a 204",
            b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil".to_vec(),
            RefusedOr(""),
        ),
    ]
}
