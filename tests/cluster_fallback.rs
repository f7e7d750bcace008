//! The kernel's way to v1 while no proxy runs: how long it lasts, what is counted, what ends it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use umbra_testkit::{CEILING, wait_for};

use crate::cluster_load::{Load, adds_up, paths};
use crate::cluster_proxies::{
    CONTROLLER, NoProxies, Setting, kill_proxy, on_node, wait_mirrored_everywhere, wait_rolled_out,
};
use crate::cluster_status::wait_for_copies;
use crate::cluster_system::{Example, Second, UMBRA, with_example};
use crate::cluster_users::{Client, Connections, User, Users};

/// A fallback that ends soon.
const SHORT: &str = "6s";
const FALLBACK_TIMEOUT: &str = "UMBRA_FALLBACK_TIMEOUT";
const PACE: Duration = Duration::from_millis(50);

#[test]
fn past_its_expiry_kube_proxy_serves_and_that_is_counted() {
    with_example("expired", Second::Right, |example| {
        let _short = Setting::new(example, FALLBACK_TIMEOUT, SHORT)?;
        example.route()?;
        // Before anybody asks: proxies read the kernel's counters each second.
        let before = paths(example)?;
        let load = Load::start(example)?;
        wait_for_copies(example)?;
        let away = NoProxies::new(example)?;
        let from = Instant::now();
        wait_for("kube-proxy serves", CEILING, || {
            ensure!(load.seen().answered.contains_key("v2"), "{}", load.seen());
            Ok(())
        })?;
        println!(
            "measured: no proxy, fallback of {SHORT}: kube-proxy served after {:.1?} at the latest",
            from.elapsed()
        );
        load.wait_for_more(400)?;
        away.end()?;
        wait_mirrored_everywhere(example, &load)?;
        let seen = load.finish();
        ensure!(seen.failures.is_empty(), "{seen}");
        let since = adds_up(example, &before, &seen)?;
        println!("measured: fault: expired: {seen}, connections {since:?}");
        ensure!(since["fallback"] > 0 && since["kube-proxy"] > 0, "{since:?}");
        Ok(())
    });
}

#[test]
fn it_is_renewed_without_a_controller_by_a_proxy_that_was_killed() {
    with_example("alone", Second::Right, |example| {
        // Longer than a kubelet takes to start a killed proxy again.
        const TIMEOUT: Duration = Duration::from_secs(15);
        let _short = Setting::new(example, FALLBACK_TIMEOUT, &format!("{}s", TIMEOUT.as_secs()))?;
        example.route()?;
        wait_for_copies_of(example)?;
        let load = Load::start(example)?;
        let away = NoController::new(example)?;
        let mut faults = Vec::new();
        for node in example.cluster().nodes() {
            faults.push(kill_proxy(example, &node.name)?);
        }
        let killed = Instant::now();
        // Two timeouts go by: what was there at the kill is long gone if nobody renews it.
        wait_for("two timeouts have passed under load", CEILING, || {
            ensure!(killed.elapsed() > 2 * TIMEOUT + Duration::from_secs(2), "{}", load.seen());
            Ok(())
        })?;
        load.wait_for_more(200)?;
        drop(away);
        wait_mirrored_everywhere(example, &load)?;
        let seen = load.finish();
        println!("measured: fault: proxies killed, no controller for {:.1?}: {seen}", killed.elapsed());
        seen.harmed_only_by(&faults)
    });
}

/// No controller until dropped.
struct NoController<'a>(&'a Example, String);

impl<'a> NoController<'a> {
    fn new(example: &'a Example) -> Result<Self> {
        let guard = Self(example, example.controllers("spec.replicas")?);
        guard.scale("0")?;
        wait_for("no controller is left", CEILING, || {
            let pods = example.cluster().pods(UMBRA, CONTROLLER)?;
            ensure!(pods.is_empty(), "{} pods", pods.len());
            Ok(())
        })?;
        Ok(guard)
    }

    fn scale(&self, replicas: &str) -> Result<()> {
        let replicas = format!("--replicas={replicas}");
        self.0
            .cluster()
            .kubectl()
            .run(&["-n", UMBRA, "scale", "deploy/umbra-controller", &replicas])
            .map(drop)
    }
}

impl Drop for NoController<'_> {
    fn drop(&mut self) {
        let ceiling = format!("--timeout={}s", CEILING.as_secs());
        let command = ["-n", UMBRA, "rollout", "status", "deploy/umbra-controller", &ceiling];
        let back = self.scale(&self.1).and_then(|()| self.0.cluster().kubectl().run(&command).map(drop));
        if let Err(error) = back {
            eprintln!("the controller stays away: {error:#}");
        }
    }
}

#[test]
fn v1_rolled_out_while_no_proxy_runs_is_found_again_when_the_entries_end() {
    with_example("stale", Second::Right, |example| {
        let _short = Setting::new(example, FALLBACK_TIMEOUT, "15s")?;
        example.route()?;
        wait_for_copies_of(example)?;
        let away = NoProxies::new(example)?;
        let began = Instant::now();
        example.kubectl(&["rollout", "restart", "deployment/sa-logic"])?;
        let ceiling = format!("--timeout={}s", CEILING.as_secs());
        example.kubectl(&["rollout", "status", "deployment/sa-logic", &ceiling])?;
        // README says so: until the entries end they may lead to pods that are gone.
        for pod in example.clients()? {
            let mut client = Client::new(example, &pod)?.with_patience(Duration::from_secs(3));
            wait_for(&format!("{} is served again", pod.node), CEILING, || {
                client.ask("stale", Connections::Fresh)
            })?;
        }
        println!("measured: v1 rolled out without a proxy: served again {:.1?} later", began.elapsed());
        away.end()?;
        wait_only_v1(example)
    });
}

#[test]
fn a_virtualservice_deleted_while_no_proxy_ran_governs_nobody_after() {
    with_example("deleted-vs", Second::Right, |example| {
        example.route()?;
        wait_for_copies_of(example)?;
        let away = NoProxies::new(example)?;
        let clients = example.clients()?;
        let client = clients.first().context("a client")?;
        for number in 0..20 {
            let answer = Client::new(example, client)?.ask(&format!("away-{number}"), Connections::Fresh)?;
            ensure!(answer.version == "v1", "{answer:?}");
        }
        example.kubectl(&["delete", "vs/sa-logic"])?;
        away.end()?;
        let mut asker = Client::new(example, client)?;
        wait_for("kube-proxy serves both versions", CEILING, || {
            let answer = asker.ask("deleted", Connections::Fresh)?;
            ensure!(answer.version == "v2", "{answer:?}");
            Ok(())
        })
    });
}

#[test]
fn a_clusterip_that_another_service_got_leads_there_once_proxies_are_back() {
    with_example("reused", Second::Right, |example| {
        let _short = Setting::new(example, FALLBACK_TIMEOUT, "15s")?;
        example.route()?;
        wait_for_copies_of(example)?;
        let address = example.sa_logic()?;
        let clients = example.clients()?;
        let mut client = Client::new(example, clients.first().context("a client")?)?;
        let away = NoProxies::new(example)?;
        example.kubectl(&["delete", "service/sa-logic"])?;
        example.apply(&format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: other}}, spec: {{clusterIP: {}, \
             selector: {{app: sa-logic, version: v2}}, ports: [{{name: http, port: 80, targetPort: 5000}}]}}}}",
            address.ip()
        ))?;
        away.end()?;
        // At the first push, or when the entries end: the address belongs to somebody else now.
        wait_for("the new service's pods answer", CEILING, || {
            let answer = client.ask("reused", Connections::Fresh)?;
            ensure!(answer.version == "v2", "{answer:?}");
            Ok(())
        })?;
        for number in 0..20 {
            let answer = client.ask(&format!("reused-{number}"), Connections::Fresh)?;
            ensure!(answer.version == "v2", "{answer:?}");
        }
        Ok(())
    });
}

#[test]
fn a_pod_of_v1_that_calls_its_own_service_is_answered_without_a_proxy() {
    with_example("hairpin", Second::Right, |example| {
        let v1 = example.one_v1()?;
        example.route()?;
        wait_for_copies_of(example)?;
        wait_for_slots(example, &v1.node, &v1.address.to_string())?;
        let away = NoProxies::new(example)?;
        let mut client = Client::new(example, &v1)?.with_patience(Duration::from_secs(3));
        for number in 0..20 {
            let answer = client.ask(&format!("hairpin-{number}"), Connections::Fresh)?;
            ensure!(answer.version == "v1", "{answer:?}");
        }
        away.end()
    });
}

/// Waits until all slots of the service on a node lead to this address alone.
fn wait_for_slots(example: &Example, node: &str, to: &str) -> Result<()> {
    let address = example.sa_logic()?.ip().to_string();
    wait_for(&format!("all slots on {node} lead to {to}"), CEILING, || {
        let text = on_node(example, node, "nft", &["-j", "list", "map", "inet", "umbra-fallback", "eps4"])?;
        let map: Value = serde_json::from_str(&text)?;
        let lead = leads_to(&map, &address);
        ensure!(lead.len() == 16 && lead.iter().all(|target| *target == to), "{lead:?} in {text}");
        Ok(())
    })
}

/// Where the elements of one ClusterIP lead. Those of other services do not count: a namespace that is being deleted still
/// has its own.
fn leads_to<'m>(map: &'m Value, cluster_ip: &str) -> Vec<&'m str> {
    let parts = map["nftables"].as_array().into_iter().flatten();
    let pairs = parts.filter_map(|part| part["map"]["elem"].as_array()).flatten();
    let of_service = pairs.filter(|pair| pair[0]["elem"]["val"]["concat"][0] == cluster_ip);
    of_service.filter_map(|pair| pair[1]["concat"][0].as_str()).collect()
}

/// Copies arrive from every node, with some users to be copied.
fn wait_for_copies_of(example: &Example) -> Result<()> {
    let users = Users::start(example, PACE)?;
    let done = wait_for_copies(example);
    users.finish_unharmed()?;
    done
}

fn wait_only_v1(example: &Example) -> Result<()> {
    for pod in example.clients()? {
        let mut client = Client::new(example, &pod)?;
        wait_for("20 answers in a row are v1's", CEILING, || {
            (0..20).try_for_each(|number| {
                let answer = client.ask(&format!("v1-{number}"), Connections::Fresh)?;
                ensure!(answer.version == "v1", "{answer:?}");
                Ok(())
            })
        })?;
    }
    Ok(())
}

#[test]
fn a_new_pods_first_request_is_copied() {
    with_example("first-request", Second::Right, |example| {
        example.route()?;
        wait_for_copies_of(example)?;
        example.settled_shadows()?;
        let old: Vec<_> = example.clients()?.into_iter().map(|pod| pod.name).collect();
        example.kubectl(&["scale", "deployment/sa-web-app", "--replicas=4"])?;
        // As soon as its network is there, ready or not.
        let new = wait_for("a new client runs", CEILING, || {
            let new = example.clients()?.into_iter().find(|pod| !old.contains(&pod.name));
            let new = new.context("none yet")?;
            example.network(&new).map(|_| new)
        })?;
        let before = example.shadows()?.eligible;
        let answer = Client::new(example, &new)?.ask("first", Connections::Fresh)?;
        ensure!(answer.status == 200 && answer.version == "v1", "{answer:?}");
        let after = example.settled_shadows()?;
        ensure!(after.eligible == before + 1 && after.dropped == 0, "{before} before, now {after:?}");
        Ok(())
    });
}

#[test]
fn a_user_of_a_service_whose_v1_is_gone_is_refused_and_never_meets_v2() {
    with_example("nowhere", Second::Right, |example| {
        example.route()?;
        wait_for_copies_of(example)?;
        example.kubectl(&["scale", "deployment/sa-logic", "--replicas=0"])?;
        let clients = example.clients()?;
        let client = clients.first().context("a client")?;
        let mut asker = Client::new(example, client)?;
        wait_for("503 while v1 has no endpoint", CEILING, || {
            let answer = asker.ask("none", Connections::Fresh)?;
            ensure!(answer.status == 503, "{answer:?}");
            Ok(())
        })?;
        // Until the last ending pod has left the slices they lead there.
        for node in example.cluster().nodes() {
            wait_for_slots(example, &node.name, &node.address)?;
        }
        let away = NoProxies::new(example)?;
        let user = User::start(example, client, Connections::Fresh, PACE)?;
        wait_for("50 refusals", CEILING, || {
            let log = user.log();
            ensure!(log.failed >= 50, "{log:?}");
            Ok(())
        })?;
        let log = user.finish();
        ensure!(log.versions.is_empty(), "answered although v1 is gone: {log:?}");
        away.end()?;
        wait_rolled_out(example)
    });
}
