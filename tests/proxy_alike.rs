//! What a backend gets is what its client sent, and what the client gets is what the backend answered: drawn heads,
//! bodies, framings, pipelines and pieces, at the primary and at the mirror, which both take nothing that RFC 9112 does
//! not allow. Only what belongs to one hop may differ (RFC 9110 section 7.6.1).
//!
//! The same cases each time; `PROPTEST_CASES=5000` draws as many new ones. What fails is kept in
//! `proxy_alike_regressions.txt`, which each run begins with.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use proptest::test_runner::TestCaseError;
use umbra_testkit::generated::runner;
use umbra_testkit::http;

use crate::proxy_drawn::{Answered, Answering, Body, Connection, Field, Hop, Request, connection};
use crate::proxy_system::Proxy;
use crate::proxy_wire::{Answer, Fields, Framing, ID, Message, Reader, Recorder, Records};

/// Some seconds in a debug build.
const CASES: u32 = 128;
const KEPT: &str = "proxy_alike_regressions.txt";
/// Writes for a connection's requests; what is left then goes at once.
const PIECES: usize = 64;
const PAUSE: Duration = Duration::from_millis(2);

#[test]
fn backends_get_what_clients_send_and_clients_what_backends_answer() -> Result<()> {
    let mut proxy = Proxy::start()?;
    let (primary, mirror) = (Recorder::start()?, Recorder::start()?);
    proxy.route(primary.address(), Some(mirror.address()))?;
    let done = AtomicU64::new(0);
    let ran = runner(CASES, KEPT).run(&connection(), |connection| {
        let asked = ask(&proxy, (&primary, &mirror), &connection, &done);
        asked.map_err(|error| TestCaseError::fail(format!("{error:#}")))
    });
    ran.map_err(|error| anyhow::anyhow!("{error}"))?;
    let shadows = proxy.settled(done.load(Ordering::Relaxed))?;
    ensure!(shadows.answered == shadows.eligible, "{shadows:?}");
    println!("measured: alike: {} drawn requests, their copies and their answers as sent", shadows.eligible);
    Ok(())
}

/// Sends all requests of a connection, and compares what everybody got.
fn ask(
    proxy: &Proxy,
    (primary, mirror): (&Recorder, &Recorder),
    connection: &Connection,
    done: &AtomicU64,
) -> Result<()> {
    let first = done.fetch_add(connection.requests.len() as u64, Ordering::Relaxed);
    for recorder in [primary, mirror] {
        // What an earlier case left says nothing about this one.
        *recorder.records() = Records::default();
    }
    let ids: Vec<String> = (first..).take(connection.requests.len()).map(|id| id.to_string()).collect();
    for (id, request) in ids.iter().zip(&connection.requests) {
        primary.records().answers.insert(id.clone(), request.answer.bytes(&request.method));
    }
    let stream = http::connect(proxy.traffic())?;
    stream.set_nodelay(true)?;
    let answers = exchange(&stream, connection, &ids)?;
    for ((id, request), answer) in ids.iter().zip(&connection.requests).zip(answers) {
        request.answer.arrived(request, &answer).with_context(|| format!("answer {id}: {answer}"))?;
    }
    for (who, recorder) in [("primary", primary), ("mirror", mirror)] {
        // What was no request explains why another does not come.
        let all =
            |records: &Records| !records.wrong.is_empty() || ids.iter().all(|id| !records.of(id).is_empty());
        let records = recorder.wait(all).with_context(|| format!("requests at the {who}"))?;
        ensure!(records.wrong.is_empty(), "the {who} got {:?}", records.wrong);
        for (id, request) in ids.iter().zip(&connection.requests) {
            let got = records.of(id);
            let [got] = got.as_slice() else { anyhow::bail!("{} times at the {who}", got.len()) };
            request.arrived(id, got).with_context(|| format!("request {id} at the {who}: {got}"))?;
        }
    }
    Ok(())
}

fn exchange(stream: &TcpStream, connection: &Connection, ids: &[String]) -> Result<Vec<Message>> {
    let mut reader = Reader::new(stream.try_clone()?)?;
    let mut pieces = connection.pieces.iter().copied().cycle().take(PIECES);
    let mut writer = stream.try_clone()?;
    let wire: Vec<Vec<u8>> =
        ids.iter().zip(&connection.requests).map(|(id, request)| request.bytes(id)).collect();
    if !connection.pipelined {
        let asked = wire.iter().zip(&connection.requests).map(|(bytes, request)| {
            write(&mut writer, bytes, &mut pieces)?;
            reader.answer(&request.method)
        });
        return asked.collect();
    }
    std::thread::scope(|scope| {
        // Beside reading: neither end may have to wait for the other.
        let written = scope.spawn(move || write(&mut writer, &wire.concat(), &mut pieces));
        let answers = connection.requests.iter().map(|request| reader.answer(&request.method));
        let answers = answers.collect::<Result<_>>();
        written.join().expect("a writer does not panic").context("writing")?;
        answers
    })
}

fn write(
    to: &mut TcpStream,
    mut bytes: &[u8],
    pieces: &mut impl Iterator<Item = (usize, bool)>,
) -> Result<()> {
    for (length, pause) in pieces {
        let Some((piece, rest)) = bytes.split_at_checked(length) else { break };
        to.write_all(piece)?;
        // So that the next one is read by itself, most times: that is what is tried, and nothing waits for it.
        if pause {
            std::thread::sleep(PAUSE);
        }
        bytes = rest;
    }
    Ok(to.write_all(bytes)?)
}

impl Request {
    fn bytes(&self, id: &str) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\nHost: web\r\nX-ID: {id}\r\n", self.method, self.target);
        bytes += match self.hop {
            Hop::None => "",
            Hop::Named => "Connection: X-Hop\r\nX-Hop: 1\r\nProxy-Connection: x\r\n",
            Hop::KeepAlive => "Connection: Keep-Alive\r\nKeep-Alive: timeout=5\r\n",
            Hop::TeTrailers => "TE: trailers\r\nConnection: TE\r\n",
        };
        let mut bytes = bytes.into_bytes();
        put_fields(&mut bytes, &self.fields);
        self.body.put(&mut bytes);
        bytes
    }

    /// It came as it was sent.
    fn arrived(&self, id: &str, got: &Message) -> Result<()> {
        ensure!(got.start == format!("{} {} HTTP/1.1", self.method, self.target), "the first line");
        let mut fields = by_name(&self.fields);
        fields.extend([("host".into(), vec![b"web".to_vec()]), (ID.into(), vec![id.into()])]);
        let te = matches!(self.hop, Hop::TeTrailers).then(|| ("te".into(), vec![b"trailers".to_vec()]));
        let mut allowed = fields.clone();
        allowed.extend(te);
        let seen = unframed(&got.fields);
        ensure!(seen == fields || seen == allowed, "the fields: {allowed:?}");
        self.body.arrived(got, true)
    }
}

impl Answering {
    fn bytes(&self, method: &str) -> Answer {
        let version = match &self.body {
            Answered::UntilTheEnd(version, _) => version,
            Answered::Framed(_) => "HTTP/1.1",
        };
        let mut bytes = Vec::new();
        if self.announced {
            bytes.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n");
        }
        bytes.extend_from_slice(format!("{version} {} Because\r\n", self.status).as_bytes());
        put_fields(&mut bytes, &self.fields);
        let bodiless = self.is_bodiless(method);
        match &self.body {
            Answered::UntilTheEnd(_, body) => {
                bytes.extend_from_slice(b"Connection: close\r\n\r\n");
                if !bodiless {
                    bytes.extend_from_slice(&body.0);
                }
                Answer { bytes, closes: true }
            }
            Answered::Framed(Body::Length(body)) if bodiless && self.status != 204 => {
                bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.0.len()).as_bytes());
                Answer { bytes, closes: false }
            }
            Answered::Framed(body) => {
                if bodiless {
                    Body::None.put(&mut bytes)
                } else {
                    body.put(&mut bytes)
                }
                Answer { bytes, closes: false }
            }
        }
    }

    fn is_bodiless(&self, method: &str) -> bool {
        method == "HEAD" || matches!(self.status, 204 | 304)
    }

    /// It came as it was sent.
    fn arrived(&self, request: &Request, got: &Message) -> Result<()> {
        ensure!(got.start.starts_with(&format!("HTTP/1.1 {}", self.status)), "the status");
        let mut fields = unframed(&got.fields);
        // Of this hop.
        fields.remove("connection");
        ensure!(fields == by_name(&self.fields), "the fields: {:?}", by_name(&self.fields));
        match &self.body {
            Answered::Framed(Body::Length(body)) if self.is_bodiless(&request.method) => {
                let length = got.fields.get("content-length");
                let said = length.is_some_and(|all| *all == [body.0.len().to_string().into_bytes()]);
                // RFC 9110 section 15.4.5: in a 304 it may be left out.
                let right = if self.status == 204 { length.is_none() } else { said };
                ensure!(right || (self.status == 304 && length.is_none()), "the length");
                Ok(())
            }
            Answered::UntilTheEnd(_, body) if !self.is_bodiless(&request.method) => {
                ensure!(got.body == body.0 && got.trailers.is_empty(), "the body");
                Ok(())
            }
            Answered::Framed(body) if !self.is_bodiless(&request.method) => {
                body.arrived(got, request.hop == Hop::TeTrailers)
            }
            _ => Ok(()),
        }
    }
}

impl Body {
    /// The end of a head, and the body.
    fn put(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::None => bytes.extend_from_slice(b"\r\n"),
            Self::Length(body) => {
                bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.0.len()).as_bytes());
                bytes.extend_from_slice(&body.0);
            }
            Self::Chunked { chunks, trailers } => {
                let names: Vec<&str> = trailers.iter().map(|(name, _)| name.as_str()).collect();
                if !names.is_empty() {
                    bytes.extend_from_slice(format!("Trailer: {}\r\n", names.join(", ")).as_bytes());
                }
                bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                for (chunk, extension) in chunks.iter().filter(|(chunk, _)| !chunk.0.is_empty()) {
                    bytes.extend_from_slice(format!("{:X}{extension}\r\n", chunk.0.len()).as_bytes());
                    bytes.extend_from_slice(&chunk.0);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n");
                put_fields(bytes, trailers);
                bytes.extend_from_slice(b"\r\n");
            }
        }
    }

    /// `trailers`: those who take trailers get all of them; others may get them or not.
    fn arrived(&self, got: &Message, trailers: bool) -> Result<()> {
        let (framing, body, sent) = match self {
            Self::None => (Framing::None, Vec::new(), Fields::new()),
            Self::Length(body) => {
                let framing = if body.0.is_empty() { Framing::None } else { Framing::Length };
                (framing, body.0.clone(), Fields::new())
            }
            Self::Chunked { chunks, trailers } => {
                let whole = chunks.iter().flat_map(|(chunk, _)| &chunk.0).copied().collect();
                (Framing::Chunked, whole, by_name(trailers))
            }
        };
        // No chunk at all is no body.
        let nothing = got.framing == Framing::None && body.is_empty() && sent.is_empty();
        ensure!(got.framing == framing || nothing, "framed as {:?}, not {framing:?}", got.framing);
        ensure!(got.body == body, "the body: {} bytes, not {}", got.body.len(), body.len());
        ensure!(got.trailers == sent || (!trailers && got.trailers.is_empty()), "the trailers: {sent:?}");
        Ok(())
    }
}

fn put_fields(bytes: &mut Vec<u8>, fields: &[Field]) {
    for (name, value) in fields {
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(&value.0);
        bytes.extend_from_slice(b"\r\n");
    }
}

fn by_name(fields: &[Field]) -> Fields {
    let mut all = Fields::new();
    for (name, value) in fields {
        all.entry(name.to_ascii_lowercase()).or_default().push(value.0.trim_ascii().to_vec());
    }
    all
}

/// Less what says how the body is framed, which is compared by itself.
fn unframed(fields: &Fields) -> Fields {
    let framing = ["content-length", "transfer-encoding", "trailer"];
    let others = fields.iter().filter(|(name, _)| !framing.contains(&name.as_str()));
    others.map(|(name, values)| (name.clone(), values.clone())).collect()
}
