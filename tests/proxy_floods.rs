//! Clients of HTTP/2 that flood (RFC 9113 section 10.5): each costs its own connection's bounds at most, whether it reads
//! what comes back or not, and nobody else's request. How each ends is the proxy's choice.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use anyhow::{Context as _, Result, ensure};
use umbra_testkit::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, PRIORITY, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, fields, frame,
};
use umbra_testkit::http;

use crate::proxy_recorder::Recorder;
use crate::proxy_system::{CEILING, Proxy};

const KIB: usize = 1024;
const MIB: u64 = 1 << 20;
/// What one connection of HTTP/2 may make the proxy hold: 256 heads of 64 KiB, windows of 4 MiB; and what a debug build and
/// its allocator take with it.
const CAP: u64 = 32 * MIB;
/// Requests of others while a client that floods reads nothing.
const OTHERS: usize = 20;
/// What is written at a time.
const BLOCK: usize = 64 * KIB;

/// A flood: what goes first, and what is repeated, by its number.
struct Flood {
    what: &'static str,
    begin: Vec<u8>,
    unit: Box<dyn Fn(u32) -> Vec<u8> + Send + Sync>,
    times: u32,
}

fn flood(
    what: &'static str,
    begin: Vec<u8>,
    times: u32,
    unit: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static,
) -> Flood {
    Flood { what, begin, unit: Box::new(unit), times }
}

#[test]
fn floods_cost_their_connections_and_nobody_else() -> Result<()> {
    let mut proxy = Proxy::start()?;
    let (primary, mirror) = (Recorder::start()?, Recorder::start()?);
    proxy.route(primary.address(), Some(mirror.address()))?;
    others_are_served(&proxy)?;
    for flood in floods() {
        for reads in [true, false] {
            let what = format!("{}, read: {reads}", flood.what);
            let (sent, growth) = endure(&proxy, &flood, reads).with_context(|| what.clone())?;
            let mib = |bytes| bytes as f64 / MIB as f64;
            println!(
                "measured: flood: {what}: {:.1} MiB sent, {:.1} MiB held at most",
                mib(sent),
                mib(growth)
            );
            ensure!(growth <= CAP, "{what}: memory grew by {growth} bytes, {CAP} are allowed");
        }
    }
    proxy.alive()?;
    let eligible = proxy.samples()?.sum("umbra_shadow_eligible_total", &[]) as u64;
    proxy.settled(eligible)?;
    Ok(())
}

/// Lets a client flood until its connection has ended, while others ask. Gives how many bytes it has written, and how much
/// memory the proxy took meanwhile.
fn endure(proxy: &Proxy, flood: &Flood, reads: bool) -> Result<(u64, u64)> {
    let before = proxy.memory()?;
    proxy.forget_peak()?;
    let stream = http::connect(proxy.traffic())?;
    stream.set_read_timeout(Some(CEILING))?;
    let sent = std::thread::scope(|scope| {
        let writer = stream.try_clone()?;
        let writing = scope.spawn(move || flood.write(writer));
        if !reads {
            (0..OTHERS).try_for_each(|_| others_are_served(proxy))?;
        }
        let reading = scope.spawn(|| read_to_the_end(stream));
        while !reading.is_finished() {
            others_are_served(proxy)?;
        }
        reading.join().expect("a reader does not panic")?;
        Ok::<_, anyhow::Error>(writing.join().expect("a writer does not panic"))
    })?;
    Ok((sent, proxy.memory()?.most.saturating_sub(before.now)))
}

fn others_are_served(proxy: &Proxy) -> Result<()> {
    let answer = http::exchange(http::connect(proxy.traffic())?, "GET", "/", &[("host", "web")], "")?;
    ensure!(answer.status == 200, "another client got {}", answer.head);
    Ok(())
}

fn read_to_the_end(mut stream: TcpStream) -> Result<()> {
    let mut buffer = vec![0; BLOCK];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error).context("the connection does not end"),
        }
    }
}

impl Flood {
    /// Until the proxy takes no more, or all of it is written. Gives how many bytes were.
    fn write(&self, mut to: TcpStream) -> u64 {
        let mut block = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &self.begin].concat();
        let mut sent = 0;
        for number in 0..self.times {
            block.extend((self.unit)(number));
            if block.len() >= BLOCK || number + 1 == self.times {
                if to.write_all(&block).is_err() {
                    return sent;
                }
                sent += block.len() as u64;
                block.clear();
            }
        }
        // The reader hears the proxy's end.
        let _ = to.shutdown(Shutdown::Write);
        sent
    }
}

fn head(method: &'static str, more: &[(&str, &str)]) -> Vec<u8> {
    let first = [(":method", method), (":scheme", "http"), (":path", "/"), (":authority", "web")];
    fields(first.iter().chain(more))
}

fn stream(number: u32) -> u32 {
    2 * number + 1
}

fn floods() -> Vec<Flood> {
    let (get, post) = (head("GET", &[]), head("POST", &[]));
    let (asked, reset) = (get.clone(), 8_u32.to_be_bytes());
    let uploads = frame(HEADERS, END_HEADERS, 1, &post);
    let begun = frame(HEADERS, END_STREAM, 1, &get);
    let part = fields(&[("x", &*"y".repeat(16_000))]);
    let (large, more) = (head("GET", &[("x", &"y".repeat(16_000))]), part.clone());
    vec![
        flood("requests", vec![], 10_000, {
            let get = get.clone();
            move |number| frame(HEADERS, END_STREAM | END_HEADERS, stream(number), &get)
        }),
        flood("requests and resets", vec![], 50_000, move |number| {
            let asked = frame(HEADERS, END_STREAM | END_HEADERS, stream(number), &asked);
            [asked, frame(RST_STREAM, 0, stream(number), &reset)].concat()
        }),
        flood("a head without an end", begun.clone(), 4_000, move |_| frame(CONTINUATION, 0, 1, &part)),
        flood("a head in parts of nothing", begun, 500_000, |_| frame(CONTINUATION, 0, 1, &[])),
        flood("heads that are too large", vec![], 500, move |number| {
            let first = frame(HEADERS, END_STREAM, stream(number), &large);
            let rest = (0..4).flat_map(|_| frame(CONTINUATION, 0, stream(number), &more));
            let last = frame(CONTINUATION, END_HEADERS, stream(number), &[]);
            first.into_iter().chain(rest).chain(last).collect()
        }),
        flood("SETTINGS", vec![], 160_000, |_| frame(SETTINGS, 0, 0, &[])),
        flood("PING", vec![], 160_000, |_| frame(PING, 0, 0, &[0; 8])),
        flood("WINDOW_UPDATE", vec![], 160_000, |_| frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())),
        flood("PRIORITY", vec![], 160_000, |number| frame(PRIORITY, 0, stream(number), &[0, 0, 0, 0, 16])),
        flood("data of nothing", uploads.clone(), 500_000, |_| frame(DATA, 0, 1, &[])),
        // As many bytes as the first window allows.
        flood("data of a byte", uploads, 65_000, |_| frame(DATA, 0, 1, b"x")),
    ]
}
