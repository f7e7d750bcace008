//! What a backend gets is what its client sent, and what the client gets is what the backend answered: drawn heads,
//! bodies, framings, pipelines, streams and pieces, at the primary and at the mirror, which both take nothing that RFC 9112
//! or RFC 9113 does not allow; each of client, primary and mirror in HTTP/1.1 or in HTTP/2. `proxy_differences` lists what
//! may differ.
//!
//! The same cases each time; `PROPTEST_CASES=5000` draws as many new ones. What fails is kept in
//! `proxy_alike_regressions.txt`, which each run begins with.

use std::cell::Cell;
use std::io::Write as _;
use std::net::TcpStream;

use anyhow::{Context as _, Result, ensure};
use http::Request as Head;
use proptest::strategy::{Just, Strategy};
use proptest::test_runner::TestCaseError;
use tokio::runtime::Runtime;
use umbra_routing::SpokenTo;
use umbra_testkit::generated::runner;
use umbra_testkit::http::connect;
use umbra_testkit::table::{self, Copies, Shadowed};

use crate::proxy_differences::Way;
use crate::proxy_drawn::{Connection, Spoken, connection, mixed};
use crate::proxy_recorder::{Answer, Recorder, Records};
use crate::proxy_requests::Version;
use crate::proxy_streams::{self, PAUSE};
use crate::proxy_system::{CEILING, Proxy};
use crate::proxy_wire::{ID, Message, Reader};

/// Some seconds in a debug build.
const CASES: u32 = 128;
const KEPT: &str = "proxy_alike_regressions.txt";
/// There are seven ways in which some speak HTTP/2.
const MIXED_CASES: u32 = 140;
/// Writes for a connection's requests, or frames; what is left then goes at once.
const PIECES: usize = 64;

#[test]
fn backends_get_what_clients_send_and_clients_what_backends_answer() -> Result<()> {
    alike("HTTP/1.1", Just(Spoken::HTTP1), CASES)
}

#[test]
fn the_same_holds_where_some_or_all_speak_http_2() -> Result<()> {
    alike("some or all HTTP/2", mixed(), MIXED_CASES)
}

fn alike(what: &str, spoken: impl Strategy<Value = Spoken>, cases: u32) -> Result<()> {
    let site = Site::start()?;
    let ran = runner(cases, KEPT).run(&(spoken, connection()), |(spoken, connection)| {
        let asked = site.ask(spoken, &connection);
        asked.map_err(|error| TestCaseError::fail(format!("{error:#}")))
    });
    ran.map_err(|error| anyhow::anyhow!("{error}"))?;
    let shadows = site.proxy.settled(site.asked.get())?;
    ensure!(shadows.answered == shadows.eligible, "{shadows:?}");
    println!(
        "measured: alike: {what}: {} requests, their copies and their answers as sent",
        shadows.eligible
    );
    Ok(())
}

/// A proxy, and behind it a primary and a mirror of each version. A service for each pair of them is named by both.
struct Site {
    proxy: Proxy,
    primaries: Both,
    mirrors: Both,
    /// Requests so far.
    asked: Cell<u64>,
    /// For clients of HTTP/2.
    runtime: Runtime,
}

/// A recorder of each version.
struct Both(Recorder, Recorder);

impl Both {
    fn start() -> Result<Self> {
        Ok(Self(Recorder::start()?, Recorder::start_http2()?))
    }

    fn of(&self, version: Version) -> &Recorder {
        match version {
            Version::Http1 => &self.0,
            Version::Http2 => &self.1,
        }
    }
}

/// The name of the service with these backends.
fn host(primary: Version, mirror: Version) -> &'static str {
    match (primary, mirror) {
        (Version::Http1, Version::Http1) => "web-1-1",
        (Version::Http1, Version::Http2) => "web-1-2",
        (Version::Http2, Version::Http1) => "web-2-1",
        (Version::Http2, Version::Http2) => "web-2-2",
    }
}

impl Site {
    fn start() -> Result<Self> {
        let (mut proxy, primaries, mirrors) = (Proxy::start()?, Both::start()?, Both::start()?);
        let versions = [(Version::Http1, SpokenTo::Http1), (Version::Http2, SpokenTo::Http2)];
        let (mut services, mut sets) = (Vec::new(), Vec::new());
        for (primary, to_primary) in versions {
            for (mirror, to_mirror) in versions {
                let name = host(primary, mirror);
                let (v1, v2) = (primaries.of(primary).address(), mirrors.of(mirror).address());
                let copies = Copies { endpoint: Some(v2), per_million: 1_000_000 };
                services.push(Shadowed { name, v1, v2: Some(copies), rule: Default::default() });
                sets.push(table::speaking(name, "v1", &[v1], to_primary)?);
                sets.push(table::speaking(name, "v2", &[v2], to_mirror)?);
            }
        }
        let mut put = table::put(&services)?;
        put.resources.extend(sets);
        proxy.put(&put)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { proxy, primaries, mirrors, asked: Cell::default(), runtime })
    }

    /// Sends all requests of a connection, and compares what everybody got.
    fn ask(&self, spoken: Spoken, connection: &Connection) -> Result<()> {
        let Spoken { client, primary, mirror } = spoken;
        let backends = [("primary", primary, &self.primaries), ("mirror", mirror, &self.mirrors)];
        let backends = backends.map(|(who, version, both)| (who, version, both.of(version)));
        for (_, _, recorder) in backends {
            // What an earlier case left says nothing about this one.
            *recorder.records() = Records::default();
        }
        let first = self.asked.replace(self.asked.get() + connection.requests.len() as u64);
        let ids: Vec<String> = (first..).take(connection.requests.len()).map(|id| id.to_string()).collect();
        for (id, request) in ids.iter().zip(&connection.requests) {
            let (answer, method) = (&request.answer, request.method.as_str());
            let answer: Answer = match primary {
                Version::Http1 => answer.bytes(method),
                Version::Http2 => answer.frames(method),
            };
            self.primaries.of(primary).records().answers.insert(id.clone(), answer);
        }
        let host = host(primary, mirror);
        let answers = self.exchange(client, connection, (host, &ids))?;
        for ((id, request), answer) in ids.iter().zip(&connection.requests).zip(answers) {
            let way = Way { from: primary, to: client };
            request
                .answer
                .arrived(request, way, &answer)
                .with_context(|| format!("answer {id}: {answer}"))?;
        }
        for (who, version, recorder) in backends {
            let way = Way { from: client, to: version };
            arrived(connection, (host, &ids), (recorder, way)).with_context(|| format!("at the {who}"))?;
        }
        Ok(())
    }

    fn exchange(
        &self,
        client: Version,
        connection: &Connection,
        (host, ids): (&str, &[String]),
    ) -> Result<Vec<Message>> {
        let to = self.proxy.traffic();
        let pieces = &mut connection.pieces.iter().copied().cycle().take(PIECES);
        let asked = ids.iter().zip(&connection.requests);
        if client == Version::Http1 {
            let wire: Vec<Vec<u8>> = asked.map(|(id, request)| request.bytes(id, host)).collect();
            let stream = connect(to)?;
            stream.set_nodelay(true)?;
            return exchange(&stream, connection, &wire, pieces);
        }
        let streams = asked.map(|(id, request)| {
            let head = Head::builder().method(request.method.as_str());
            let head = head.uri(format!("http://{host}{}", request.target)).body(())?;
            let mut frames = request.frames(pieces);
            frames.fields.insert(ID, id.parse()?);
            Ok((head, frames))
        });
        let streams = streams.collect::<Result<Vec<_>>>()?;
        let answers = proxy_streams::exchange(to, streams, (connection.pipelined, connection.window));
        self.runtime.block_on(async { tokio::time::timeout(CEILING, answers).await })?
    }
}

/// All requests came as they were sent, each once.
fn arrived(
    connection: &Connection,
    (host, ids): (&str, &[String]),
    (recorder, way): (&Recorder, Way),
) -> Result<()> {
    // What was no request explains why another does not come.
    let all =
        |records: &Records| !records.wrong.is_empty() || ids.iter().all(|id| !records.of(id).is_empty());
    let records = recorder.wait(all).context("requests")?;
    ensure!(records.wrong.is_empty(), "{:?}", records.wrong);
    for (id, request) in ids.iter().zip(&connection.requests) {
        let got = records.of(id);
        let [got] = got.as_slice() else { anyhow::bail!("request {id}: {} times", got.len()) };
        request.arrived((id, host), way, got).with_context(|| format!("request {id}: {got}"))?;
    }
    Ok(())
}

/// Asks in HTTP/1.1.
fn exchange(
    stream: &TcpStream,
    connection: &Connection,
    wire: &[Vec<u8>],
    pieces: &mut (impl Iterator<Item = (usize, bool)> + Send),
) -> Result<Vec<Message>> {
    let mut reader = Reader::new(stream.try_clone()?)?;
    let mut writer = stream.try_clone()?;
    if !connection.pipelined {
        let asked = wire.iter().zip(&connection.requests).map(|(bytes, request)| {
            write(&mut writer, bytes, pieces)?;
            reader.answer(&request.method)
        });
        return asked.collect();
    }
    std::thread::scope(|scope| {
        // Beside reading: neither end may have to wait for the other.
        let written = scope.spawn(move || write(&mut writer, &wire.concat(), pieces));
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
