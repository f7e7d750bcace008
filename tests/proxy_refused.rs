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
use crate::proxy_refused_cases::Expected::{Refused, RefusedOr, RefusedOrLast, Served};
use crate::proxy_refused_cases::{self, Case};
use crate::proxy_system::Proxy;
use crate::proxy_wire::{Framing, ID, Message, Reader};

/// What a server may say of a request that it does not take: its client's fault, or more than it can do.
const REFUSALS: [&str; 8] = ["400", "408", "411", "413", "414", "431", "501", "505"];

#[test]
fn what_is_no_request_is_refused_and_reaches_nobody_in_another_shape() -> Result<()> {
    let mut proxy = Proxy::start()?;
    let (primary, mirror) = (Recorder::start()?, Recorder::start()?);
    proxy.route(primary.address(), Some(mirror.address()))?;
    let all = proxy_refused_cases::all();
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
