//! The proxy dies, hangs, or ends well: its node's pods are served all the same, and by umbra when it is back.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use umbra_testkit::{Process, Signal, http, wait_for};

use crate::node_system::{CEILING, System, cluster_ips, connect_from_port, who, with_system};

#[test]
fn a_killed_proxy_leaves_new_connections_to_v1() -> Result<()> {
    with_system(|system| {
        system.wait_intercepted("before")?;
        let began = Instant::now();
        system.proxy.take().context("it runs")?.kill()?;
        wait_for("the table is gone", CEILING, || {
            ensure!(!system.has_table()?, "it is there");
            Ok(())
        })?;
        system.fallback_serves("killed", 10)?;
        println!("measured: 10 new connections served {} ms after kill -9", began.elapsed().as_millis());
        let began = Instant::now();
        system.start_proxy()?;
        println!("measured: armed again {} ms after the proxy's new start", began.elapsed().as_millis());
        system.wait_intercepted("after")
    })
}

/// Connection tracking remembers a connection that the dying proxy has reset, for 10 s. A client that picks the same port
/// again meanwhile opens a new connection all the same.
#[test]
fn a_port_whose_connection_a_killed_proxy_has_reset_is_served_at_once() -> Result<()> {
    with_system(|system| {
        system.wait_intercepted("before")?;
        let connect = |port, ip| connect_from_port(&system.client, port, (ip, 80).into());
        let mut proxy = system.proxy.take().context("it runs")?;
        // Another one each time: who closes first keeps its port for a minute.
        let mut port = 40_000;
        let unread = wait_for("a frozen proxy gets both connections", CEILING, || {
            let [before, passed_by, _] = system.counted()?;
            port += 1;
            proxy.freeze()?;
            let ips = cluster_ips().into_iter();
            let connected: Vec<_> = ips.map(|ip| connect(port, ip)).collect::<Result<_>>()?;
            let mut connected: Vec<_> = connected.into_iter().collect::<Result<_, _>>()?;
            let [now, still, _] = system.counted()?;
            if (now, still) != (before + 2, passed_by) {
                // So slow that the kernel passes a hung proxy by.
                proxy.thaw()?;
                bail!("the fallback got one");
            }
            connected.iter_mut().try_for_each(|stream| stream.write_all(b"POST"))?;
            Ok(connected)
        })?;
        proxy.kill()?;
        for mut stream in unread {
            let cut = stream.read(&mut [0]).map_err(|error| error.kind());
            ensure!(cut == Err(ErrorKind::ConnectionReset), "{cut:?}");
        }
        for ip in cluster_ips() {
            let stream = connect(port, ip)?.with_context(|| format!("{ip} from the same port"))?;
            let headers = [("host", "sa-logic"), ("content-type", "application/json")];
            let answer = http::exchange(stream, "POST", "/analyse/sentiment", &headers, SENTENCE)?;
            ensure!(answer.status == 200 && who(&answer)? == "v1", "{ip}: {}\n{}", answer.head, answer.body);
        }
        Ok(())
    })
}

#[test]
fn a_hanging_proxy_is_let_go_and_taken_back() -> Result<()> {
    with_system(|system| {
        system.wait_intercepted("before")?;
        let proxy = system.proxy.as_ref().context("it runs")?;
        proxy.freeze()?;
        let began = Instant::now();
        // What comes before the dead-man element has expired gets no answer, and gives up.
        let soon = Duration::from_secs(1);
        wait_for("somebody answers", CEILING, || system.ask_within(soon, cluster_ips()[0], "hanging"))?;
        println!("measured: served {} ms after SIGSTOP (aim: 3000)", began.elapsed().as_millis());
        ensure!(system.has_table()?, "a hang is no death: the table should be there");
        system.fallback_serves("hanging", 10)?;
        proxy.thaw()?;
        system.wait_intercepted("after")
    })
}

#[test]
fn sigterm_under_load_fails_no_request_and_leaves_new_connections_first() -> Result<()> {
    with_system(|system| {
        let mut load = system.load(1000, 100)?;
        wait_for("the load is under way", CEILING, || {
            ensure!(system.v1.asked()? > 100, "not yet");
            Ok(())
        })?;
        let mut slow = SlowRequest::start(system)?;
        let mut proxy = system.proxy.take().context("it runs")?;
        let began = Instant::now();
        ensure!(system.takes_over()?, "the ClusterIPs are not in the ruleset");
        proxy.signal(Signal::SIGTERM)?;
        wait_for("the kernel gives it no more connections", CEILING, || {
            ensure!(!system.takes_over()?, "it does");
            Ok(())
        })?;
        // It cannot have ended: a request is in flight, which it now finishes.
        proxy.alive()?;
        slow.finish()?;
        let ended = proxy.wait(CEILING)?;
        ensure!(ended.success(), "{ended}: {}", proxy.last_lines());
        println!("measured: the proxy ended {} ms after SIGTERM", began.elapsed().as_millis());
        nobody_noticed(system, &mut load)
    })
}

fn nobody_noticed(system: &System, load: &mut Process) -> Result<()> {
    let ended = load.wait(CEILING)?;
    let log = load.log()?;
    let report: Value = serde_json::from_str(log.lines().last().context("a report")?)?;
    let ms = |name: &str| report[name].as_f64().unwrap_or_default();
    println!("measured: users around SIGTERM: p50 {:.1} ms, p99 {:.1} ms", ms("p50_ms"), ms("p99_ms"));
    ensure!(ended.success() && report["failed"] == 0 && report["requests"] == 1000, "{report}");
    // The slow one, too; nothing was repeated.
    let asked = system.v1.asked()?;
    ensure!(asked == 1001, "v1 was asked {asked} times");
    Ok(())
}

/// A request whose head has reached v1, and whose body is still to come.
struct SlowRequest(TcpStream);

const SENTENCE: &str = "{\"sentence\": \"I love patience\"}";

impl SlowRequest {
    fn start(system: &System) -> Result<Self> {
        let mut stream = system.connect((cluster_ips()[0], 80).into())??;
        let head = format!(
            "POST /analyse/sentiment HTTP/1.1\r\nhost: sa-logic\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
            SENTENCE.len()
        );
        stream.write_all(head.as_bytes())?;
        // v1 says so when it begins to read the body.
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).with_context(|| String::from_utf8_lossy(&seen).into_owned())?;
            seen.extend(byte);
        }
        let seen = String::from_utf8(seen)?;
        ensure!(seen.starts_with("HTTP/1.1 100"), "{seen}");
        Ok(Self(stream))
    }

    fn finish(&mut self) -> Result<()> {
        self.0.write_all(SENTENCE.as_bytes())?;
        let answer = http::read_answer(&mut self.0)?;
        let closes = answer.head.to_lowercase().contains("connection: close");
        ensure!(answer.status == 200 && who(&answer)? == "v1" && closes, "{}\n{}", answer.head, answer.body);
        Ok(())
    }
}
