//! The kernel's way to v1 while no proxy runs: who answers, until when, and that it is counted. IPv4 and IPv6.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use umbra_testkit::{http, objects, wait_for};

use crate::node_system::{
    CEILING, System, cluster_ips, connect_from, who, with_system, with_unstarted_system,
};

/// A fallback that ends soon. A third of it and a second after it was renewed it is renewed again, so that its proxy may be late,
/// or start, for most of the rest.
const SHORT: Duration = Duration::from_secs(12);
const SHORT_FALLBACK: &str = "--fallback-timeout=12s";

#[test]
fn past_its_expiry_kube_proxy_serves_and_every_connection_is_counted() -> Result<()> {
    with_unstarted_system(|system| {
        system.start_proxy_with(&[SHORT_FALLBACK])?;
        let [before, ..] = system.counted()?;
        ensure!(system.who_answers("umbra", 10)?.iter().all(|by| by == "v1"), "umbra serves");
        system.proxy.take().context("it runs")?.kill()?;
        let began = Instant::now();
        ensure!(system.who_answers("fallback", 10)?.iter().all(|by| by == "v1"), "the kernel serves");
        let mut asked = 20;
        wait_for("kube-proxy serves", CEILING, || {
            asked += 2;
            ensure!(system.who_answers("expiring", 2)?.iter().any(|by| by == "v2"), "v1 alone");
            Ok(())
        })?;
        println!("measured: a fallback of 12 s ended {:.1} s after kill -9", began.elapsed().as_secs_f64());
        system.start_proxy_with(&[SHORT_FALLBACK])?;
        ensure!(system.who_answers("again", 10)?.iter().all(|by| by == "v1"), "umbra serves again");
        asked += 10;
        sums_are_right(system, asked)?;
        let [connections, ..] = system.counted()?;
        ensure!(connections == before + asked, "{asked} asked: {before} before, {connections} after");
        Ok(())
    })
}

/// What the metrics say is what the kernel counted, and its parts are the whole.
fn sums_are_right(system: &System, asked: u64) -> Result<()> {
    wait_for("the metrics tell what the kernel counted", CEILING, || {
        let [connections, fallback, kube_proxy] = system.counted()?;
        let samples = system.samples()?;
        let took = |path| samples.sum("umbra_node_connections_total", &[("path", path)]);
        let told = ["umbra", "fallback", "kube-proxy"].map(took);
        let expected = [connections - fallback - kube_proxy, fallback, kube_proxy];
        ensure!(
            told.iter().zip(expected).all(|(told, expected)| (told - expected as f64).abs() < 0.5),
            "told {told:?}, counted {expected:?}"
        );
        ensure!(fallback >= 10 && kube_proxy >= 1 && expected[0] >= 20, "{expected:?} of {asked}");
        println!("measured: of {asked} connections umbra, fallback and kube-proxy took {expected:?}");
        Ok(())
    })
}

#[test]
fn without_a_controller_a_new_proxy_keeps_users_on_v1_until_it_hears_that_nothing_is_governed() -> Result<()>
{
    with_unstarted_system(|system| {
        system.start_proxy_with(&[SHORT_FALLBACK])?;
        system.proxy.take().context("it runs")?.kill()?;
        system.controller.take().context("it runs")?.kill()?;
        system.start_proxy_alone(&[SHORT_FALLBACK])?;
        let began = Instant::now();
        let mut asked = 0;
        while began.elapsed() < 2 * SHORT + Duration::from_secs(1) {
            let who = system.who_answers("alone", 2)?;
            ensure!(who.iter().all(|by| by == "v1"), "{:.1?} after the start: {who:?}", began.elapsed());
            asked += 2;
        }
        println!(
            "measured: two timeouts without a controller: {asked} of {asked} connections answered by v1"
        );
        // Deleted while nobody was there to hear of it.
        system.server.kubectl().run(&["delete", "virtualservice", "sa-logic"])?;
        system.start_controller()?;
        wait_for("kube-proxy serves what is governed no longer", CEILING, || {
            ensure!(system.who_answers("left", 2)?.iter().any(|by| by == "v2"), "v1 alone");
            Ok(())
        })?;
        let ruleset = system.node.netns().run("nft list ruleset inet")?;
        ensure!(cluster_ips().iter().all(|ip| !ruleset.contains(&ip.to_string())), "{ruleset}");
        Ok(())
    })
}

#[test]
fn a_primary_without_endpoints_is_nobody_s_place() -> Result<()> {
    with_system(|system| {
        let v2 = &system.v2.pod;
        let slices = [("sa-logic-4", v2.ipv4.into()), ("sa-logic-6", v2.ipv6.into())]
            .map(|(name, ip)| objects::endpoint_slice("sa-logic", name, &[("sa-logic-2", ip)]));
        wait_leads_to_v1(system, true)?;
        system.server.kubectl().apply(&objects::list(slices))?;
        wait_for("users get 503", CEILING, || {
            for ip in cluster_ips() {
                let answer = system.ask(ip, "empty")?;
                ensure!(answer.status == 503, "{ip}: {}", answer.head);
            }
            Ok(())
        })?;
        // The kernel's way is changed after the proxy's own.
        wait_leads_to_v1(system, false)?;
        system.proxy.take().context("it runs")?.kill()?;
        for ip in cluster_ips() {
            let refused = system.connect((ip, 80).into())?;
            let kind = refused.as_ref().err().map(std::io::Error::kind);
            ensure!(kind == Some(ErrorKind::ConnectionRefused), "{ip}: {refused:?}");
        }
        Ok(())
    })
}

/// Waits until the kernel's slots of both families lead to v1's pod, or none does.
fn wait_leads_to_v1(system: &System, leads: bool) -> Result<()> {
    let v1 = &system.v1.pod;
    wait_for(&format!("slots lead to v1: {leads}"), CEILING, || {
        for (map, ip) in [("eps4", v1.ipv4.to_string()), ("eps6", v1.ipv6.to_string())] {
            let slots = system.node.netns().run(&format!("nft list map inet umbra-fallback {map}"))?;
            ensure!(slots.contains(&format!(": {ip} . ")) == leads, "{slots}");
        }
        Ok(())
    })
}

#[test]
fn a_pod_that_is_its_own_backend_is_answered_without_a_proxy() -> Result<()> {
    with_system(|system| {
        system.proxy.take().context("it runs")?.kill()?;
        for ip in cluster_ips() {
            let stream = connect_from(&system.v1.pod, SocketAddr::new(ip, 80))?
                .with_context(|| format!("{ip}: the pod cannot call itself"))?;
            let body = "{\"sentence\": \"I love myself\"}";
            let headers = [("host", "sa-logic"), ("content-type", "application/json")];
            let answer = http::exchange(stream, "POST", "/analyse/sentiment", &headers, body)?;
            ensure!(answer.status == 200 && who(&answer)? == "v1", "{ip}: {}\n{}", answer.head, answer.body);
        }
        Ok(())
    })
}
