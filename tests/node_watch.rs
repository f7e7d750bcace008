//! What the proxy cannot see itself: connections that do not arrive, that were opened before it was there, and the time
//! in which it, or a part of it, stood still. Users are served all the same, and it is counted.
//!
//! The stand-in for kube-proxy sends new connections to v2 here: nobody should ever get there.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use umbra_testkit::{stop_thread, wait_for};

use crate::node_system::{CEILING, System, cluster_ips, who, with_system, with_unstarted_system};

/// A client gives up on a connection that says nothing for so long.
const SOON: Duration = Duration::from_secs(1);

#[test]
fn a_firewall_that_eats_connections_leaves_users_to_others_and_programmed_says_why() -> Result<()> {
    with_system(|system| {
        system.kube_proxy(&[&system.v2])?;
        system.wait_intercepted("before")?;
        wait_for("Programmed", CEILING, || programmed_is(system, "True").map(drop))?;
        let mut open = KeepAlive::open(system, cluster_ips()[0])?;
        ensure!(open.ask()? == "v1", "taken over");

        firewall(system, "drop")?;
        let began = Instant::now();
        // The one that finds it out: its SYN is sent again, and then it is left to the fallback.
        system.fallback_serves("blocked", 1)?;
        println!("measured: served {} ms after the firewall was closed", began.elapsed().as_millis());
        wait_for("the proxy says why", CEILING, || is_blocked(&system.admin("/state")?))?;
        let told = wait_for("Programmed says why", CEILING, || {
            let found = programmed_is(system, "False")?;
            let message = found["message"].as_str().unwrap_or_default();
            ensure!(message.contains("blocked: ") && message.contains("accept TCP port 15001"), "{found}");
            Ok(began.elapsed())
        })?;
        println!("measured: Programmed False {} ms after the firewall was closed", told.as_millis());
        // It arrives, so it stays.
        ensure!(open.ask()? == "v1", "an open connection goes on");
        system.proxy.as_mut().context("it runs")?.alive()?;

        system.node.netns().run("nft delete table inet firewall")?;
        let began = Instant::now();
        wait_for("armed again", CEILING, || {
            who(&system.ask(cluster_ips()[0], "mended")?)?;
            let state = system.admin("/state")?;
            ensure!(state["armed"] == json!(["service/default/sa-logic"]), "{state}");
            Ok(())
        })?;
        println!("measured: armed {} ms after the firewall was opened", began.elapsed().as_millis());
        system.wait_intercepted("after")?;
        wait_for("Programmed", CEILING, || programmed_is(system, "True").map(drop))?;
        ensure!(lapses(system, "blocked")? == (1, true), "{}", system.samples()?.text());
        Ok(())
    })
}

/// A refusal costs each client its connection at once, and nothing is sent again.
#[test]
fn a_firewall_that_refuses_connections_is_found_out_as_well() -> Result<()> {
    with_system(|system| {
        system.kube_proxy(&[&system.v2])?;
        system.wait_intercepted("before")?;
        firewall(system, "reject with tcp reset")?;
        let began = Instant::now();
        for ip in cluster_ips() {
            wait_for("served", CEILING, || system.ask_within(SOON, ip, "refused"))?;
        }
        println!("measured: served {} ms after the firewall refused", began.elapsed().as_millis());
        wait_for("the proxy says why", CEILING, || is_blocked(&system.admin("/state")?))
    })
}

#[test]
fn a_stopped_process_is_one_lapse() -> Result<()> {
    with_system(|system| {
        system.kube_proxy(&[&system.v2])?;
        system.wait_intercepted("before")?;
        let proxy = system.proxy.as_ref().context("it runs")?;
        proxy.freeze()?;
        let began = Instant::now();
        wait_for("somebody answers", CEILING, || system.ask_within(SOON, cluster_ips()[0], "stopped"))?;
        println!("measured: served {} ms after SIGSTOP", began.elapsed().as_millis());
        system.fallback_serves("stopped", 10)?;
        proxy.thaw()?;
        system.wait_intercepted("after")?;
        wait_for("the lapse is counted", CEILING, || {
            ensure!(lapses(system, "hung")? == (1, true), "{}", system.samples()?.text());
            Ok(())
        })
    })
}

#[test]
fn one_blocked_worker_is_a_lapse_as_well() -> Result<()> {
    with_system(|system| {
        system.kube_proxy(&[&system.v2])?;
        system.wait_intercepted("before")?;
        let proxy = system.proxy.as_ref().context("it runs")?.id();
        let blocked = stop_thread(proxy, "worker-0")?;
        let began = Instant::now();
        wait_for("a proxy that has lost a worker takes over nobody", CEILING, || {
            system.fallback_serves_within(SOON, "one-worker", 10)
        })?;
        println!(
            "measured: all left to the fallback {} ms after a worker stopped",
            began.elapsed().as_millis()
        );
        // The rest of the process lives, and counts while it lasts.
        wait_for("the lapse is counted", CEILING, || {
            ensure!(lapses(system, "hung")? == (1, true), "{}", system.samples()?.text());
            Ok(())
        })?;
        drop(blocked);
        system.wait_intercepted("after")?;
        ensure!(lapses(system, "hung")?.0 == 1, "one lapse");
        Ok(())
    })
}

#[test]
fn connections_opened_before_are_left_alone_and_counted_once() -> Result<()> {
    with_unstarted_system(|system| {
        system.kube_proxy(&[&system.v1])?;
        let mut before =
            cluster_ips().map(|ip| KeepAlive::open(system, ip)).into_iter().collect::<Result<Vec<_>>>()?;
        let ask_all = |open: &mut Vec<KeepAlive>| -> Result<()> {
            for one in open {
                ensure!(one.ask()? == "v1", "served as before");
            }
            Ok(())
        };
        ask_all(&mut before)?;
        system.start_proxy()?;
        system.wait_intercepted("armed")?;
        for _ in 0..5 {
            ask_all(&mut before)?;
        }
        wait_for("both are counted", CEILING, || unseen_is(system, 2.0))?;
        for _ in 0..5 {
            ask_all(&mut before)?;
        }
        // Had one been counted twice, the next proxy's kernel would not make it right: so it is asked for one more.
        unseen_is(system, 2.0)?;
        system.proxy.take().context("it runs")?.kill()?;
        before.push(KeepAlive::open(system, cluster_ips()[0])?);
        system.start_proxy()?;
        ask_all(&mut before)?;
        wait_for("all three are counted by the next proxy", CEILING, || unseen_is(system, 3.0))?;
        Ok(())
    })
}

#[test]
fn connections_opened_before_are_reset_when_told_so() -> Result<()> {
    with_unstarted_system(|system| {
        system.kube_proxy(&[&system.v2])?;
        for ip in cluster_ips() {
            let mut open = KeepAlive::open(system, ip)?;
            ensure!(open.ask()? == "v2", "kube-proxy serves");
            system.start_proxy_with(&["--adopt=reset"])?;
            // What begins now is taken over; what is on its way as it begins may still be answered.
            let error = (0..1_000).find_map(|_| open.ask().err()).context("the connection goes on")?;
            let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            ensure!(kind == Some(ErrorKind::ConnectionReset), "{error:#}");
            let mut again = KeepAlive::open(system, ip)?;
            ensure!(again.ask()? == "v1", "taken over");
            wait_for("it is counted", CEILING, || unseen_is(system, 1.0))?;
            ensure!(again.ask()? == "v1", "and stays");
            system.proxy.take().context("it runs")?.kill()?;
            // For the next one to find kube-proxy again.
            system.node.netns().run("nft delete table inet umbra-fallback")?;
        }
        Ok(())
    })
}

fn firewall(system: &System, verdict: &str) -> Result<()> {
    // New connections only: what is established goes on.
    system.node.netns().nft(&format!(
        "table inet firewall {{
            chain input {{
                type filter hook input priority filter; policy accept;
                tcp dport 15001 ct state new {verdict};
            }}
        }}"
    ))
}

fn is_blocked(state: &Value) -> Result<()> {
    let reason = state["refused"][0]["reason"].as_str().unwrap_or_default();
    ensure!(state["armed"] == json!([]) && reason.starts_with("not armed: blocked: "), "{state}");
    Ok(())
}

fn programmed_is(system: &System, status: &str) -> Result<Value> {
    let found = system.programmed()?;
    ensure!(found["status"] == status, "{found}");
    Ok(found)
}

/// How many, and whether they lasted for some time.
fn lapses(system: &System, reason: &str) -> Result<(u64, bool)> {
    let samples = system.samples()?;
    let of = |name| samples.sum(name, &[("reason", reason)]);
    let count = of("umbra_interception_lapses_total");
    Ok((count as u64, of("umbra_interception_disarmed_seconds_total") > 0.0))
}

fn unseen_is(system: &System, wanted: f64) -> Result<()> {
    let samples = system.samples()?;
    let unseen = samples.sum("umbra_unseen_connections_total", &[]);
    ensure!((unseen - wanted).abs() < f64::EPSILON, "{unseen} connections were not seen");
    let unlisted = samples.sum("umbra_unseen_unlisted_packets_total", &[]);
    ensure!(unlisted == 0.0, "{unlisted} packets were not listed");
    Ok(())
}

/// A client pod's connection that asks again and again.
struct KeepAlive(TcpStream);

impl KeepAlive {
    fn open(system: &System, ip: IpAddr) -> Result<Self> {
        Ok(Self(system.connect((ip, 80).into())??))
    }

    /// Who answers.
    fn ask(&mut self) -> Result<String> {
        let body = "{\"sentence\": \"I love patience\"}";
        let request = format!(
            "POST /analyse/sentiment HTTP/1.1\r\nhost: sa-logic\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.write_all(request.as_bytes())?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte)?;
            head.extend(byte);
        }
        let head = String::from_utf8(head)?.to_ascii_lowercase();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).context("a length")?;
        let mut answer = vec![0; length.trim().parse()?];
        self.0.read_exact(&mut answer)?;
        let answer: Value = serde_json::from_slice(&answer)?;
        Ok(answer["version"].as_str().with_context(|| answer.to_string())?.to_owned())
    }
}
