//! Two controllers with a Lease: one leads, and whoever does not lead any more changes nothing.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use umbra_testkit::{Process, Samples, claim_address, http, objects, program, wait_for};

use crate::push_system::{CEILING, System, epoch, with_system};

const UMBRA: &str = "umbra-system";
/// What the failover is to take, beside what is measured.
const AIM: &str = "aim 15 s";

/// A controller that competes; its name is in the Lease when it leads.
struct Replica {
    name: &'static str,
    process: Process,
    metrics: SocketAddr,
}

impl Replica {
    /// `arguments`: how it finds certificates and proxies.
    fn start(system: &System, name: &'static str, arguments: &[String]) -> Result<Self> {
        let metrics = claim_address()?;
        let mut command = Command::new(program("umbra-controller")?);
        command.arg("--kubeconfig").arg(system.server.kubeconfig());
        command.args(["--leader-elect=true", "--metrics-listen", &metrics.to_string()]).args(arguments);
        command.env("UMBRA_POD_NAME", name);
        let log = system.server.dir().join(format!("controller-{name}.log"));
        Ok(Self { name, process: Process::start("umbra-controller", &command, &log)?, metrics })
    }

    fn sum(&self, metric: &str, labels: &[(&str, &str)]) -> Result<f64> {
        Ok(Samples::of(self.metrics)?.sum(metric, labels))
    }

    fn leads(&self) -> Result<bool> {
        Ok(self.sum("umbra_controller_leader", &[])? > 0.5)
    }

    /// Requests of it that the node has answered with 200.
    fn answered(&self) -> Result<f64> {
        self.sum("umbra_controller_pushes_total", &[("result", "ok")])
    }

    fn wait_ready(&mut self) -> Result<()> {
        wait_for(&format!("{} is ready", self.name), CEILING, || {
            if let Err(dead) = self.process.alive() {
                return Ok(Err(dead));
            }
            let ready = http::get(self.metrics, "/readyz")?;
            ensure!(ready.trim() == "ok", "{ready}");
            Ok(Ok(()))
        })?
    }

    fn wait_leads(&self) -> Result<()> {
        wait_for(&format!("{} leads", self.name), CEILING, || {
            ensure!(self.leads()?, "it stands by");
            Ok(())
        })
    }
}

#[test]
fn one_leads_and_the_other_follows_whatever_ends_the_first() -> Result<()> {
    with_system(&["n1"], |system| {
        let mut replicas = Vec::new();
        let result = test(system, &mut replicas);
        if result.is_err() {
            for replica in &replicas {
                eprintln!("--- {}\n{}", replica.name, replica.process.last_lines());
            }
        }
        result
    })
}

fn test(system: &mut System, replicas: &mut Vec<Replica>) -> Result<()> {
    let items = [objects::service("a", &[]), objects::destination_rule("a"), objects::virtual_service("a")];
    system.apply(&namespace())?;
    system.apply(&objects::list(items))?;
    let by_hand = vec![
        "--tls-dir".to_owned(),
        system.tls_dir().display().to_string(),
        format!("--proxy=n1={}", system.proxies[0].push),
    ];
    replicas.push(Replica::start(system, "first", &by_hand)?);
    replicas[0].wait_leads()?;
    replicas.push(Replica::start(system, "second", &by_hand)?);
    system.proxies[0].start()?;
    system.proxies[0].wait_armed(1)?;
    replicas.iter_mut().try_for_each(Replica::wait_ready)?;
    ensure!(holder(system)?.starts_with("first_"), "{}", holder(system)?);
    ensure!(!replicas[1].leads()? && replicas[1].answered()? < 0.5, "the standby has asked the node");
    changed(system, "first")?;

    killed(system, replicas, &by_hand)?;
    stopped(system, replicas, &by_hand)?;
    frozen(system, replicas)
}

/// `kill -9`: the standby takes over when the Lease has run out, with a question alone.
fn killed(system: &System, replicas: &mut Vec<Replica>, by_hand: &[String]) -> Result<()> {
    let before = epoch(&system.proxies[0].state()?)?;
    replicas.remove(0).process.kill()?;
    let since = Instant::now();
    raised(system, before)?;
    println!("measured: leader killed: the node hears the next one after {:.1?} ({AIM})", since.elapsed());
    let sent = replicas[0].sum("umbra_controller_pushes_total", &[("kind", "put"), ("result", "ok")])?;
    ensure!(sent < 0.5, "{sent} PUTs of a leader that has nothing to tell");
    changed(system, "second")?;
    replicas.push(Replica::start(system, "third", by_hand)?);
    replicas[1].wait_ready()
}

/// SIGTERM: the Lease is given back.
fn stopped(system: &System, replicas: &mut Vec<Replica>, by_hand: &[String]) -> Result<()> {
    let before = epoch(&system.proxies[0].state()?)?;
    let mut old = replicas.remove(0);
    let since = Instant::now();
    let status = old.process.terminate(CEILING)?;
    ensure!(status.success(), "{status}\n{}", old.process.last_lines());
    let lease = lease(system)?;
    let now = holder(system)?;
    ensure!(now.is_empty() || now.starts_with("third_"), "not given back: {lease}");
    replicas[0].wait_leads()?;
    raised(system, before)?;
    println!("measured: leader stopped: the node hears the next one after {:.1?} ({AIM})", since.elapsed());
    changed(system, "third")?;
    replicas.push(Replica::start(system, "fourth", by_hand)?);
    replicas[1].wait_ready()
}

/// SIGSTOP and SIGCONT: what wakes up does not lead, says nothing and stands by.
fn frozen(system: &System, replicas: &mut [Replica]) -> Result<()> {
    let before = epoch(&system.proxies[0].state()?)?;
    let answered = replicas[0].answered()?;
    replicas[0].process.freeze()?;
    let since = Instant::now();
    let new = raised(system, before)?;
    println!("measured: leader frozen: the node hears the next one after {:.1?} ({AIM})", since.elapsed());
    changed(system, "while frozen")?;
    replicas[0].process.thaw()?;
    wait_for("the one that was frozen stands by", CEILING, || {
        ensure!(!replicas[0].leads()?, "it believes to lead");
        Ok(())
    })?;
    // It sees what changes, as a standby does, and tells nobody.
    changed(system, "after it woke up")?;
    let snapshots = |replica: &Replica| replica.sum("umbra_controller_snapshots_total", &[]);
    let seen = snapshots(&replicas[0])?;
    changed(system, "once more")?;
    wait_for("it has compiled the change", CEILING, || {
        ensure!(snapshots(&replicas[0])? > seen);
        Ok(())
    })?;
    // One request may have been in flight.
    let now = replicas[0].answered()?;
    ensure!(now - answered < 1.5, "it went on pushing: {answered} before, {now} now");
    let state = system.proxies[0].state()?;
    ensure!(epoch(&state)? == new && holder(system)?.starts_with("fourth_"), "{state}");
    let (terms, ours) = ("umbra_controller_terms_total", &replicas[0]);
    ensure!((ours.sum(terms, &[])? - 1.0).abs() < 0.5 && replicas[1].leads()?);
    replicas.iter_mut().try_for_each(|replica| replica.process.alive())
}

#[test]
fn two_at_once_on_empty_secrets_make_one_authority() -> Result<()> {
    with_system(&[], |system| {
        system.apply(&namespace())?;
        let names = ["umbra-ca", "umbra-controller-tls", "umbra-proxy-tls"];
        let secret = |name: &&str| {
            json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
                "metadata": {"name": name, "namespace": UMBRA}})
        };
        system.apply(&objects::list(names.iter().map(secret)))?;
        let replicas = [Replica::start(system, "first", &[])?, Replica::start(system, "second", &[])?];
        let filled = wait_for("the Secrets are filled", CEILING, || {
            let of = |name: &&str| system.server.kubectl().get(&["secret", name, "-n", UMBRA]);
            let all: Vec<Value> = names.iter().map(of).collect::<Result<_>>()?;
            // Not with the values in the message: they stand beside keys.
            ensure!(all.iter().all(|secret| secret["data"]["ca.crt"].is_string()), "not yet");
            Ok(all)
        })?;
        ensure!(filled.iter().all(|secret| secret["data"]["ca.crt"] == filled[0]["data"]["ca.crt"]));
        wait_for("one leads", CEILING, || {
            let leaders: Vec<bool> = replicas.iter().map(Replica::leads).collect::<Result<_>>()?;
            ensure!(leaders.iter().filter(|leads| **leads).count() == 1, "{leaders:?}");
            Ok(())
        })?;
        verified(system)
    })
}

/// Both leaves verify under the CA, by openssl's word.
fn verified(system: &System) -> Result<()> {
    let write = |secret: &str, key: &str| {
        let template = format!("go-template={{{{index .data \"{key}\" | base64decode}}}}");
        let text = system.server.kubectl().run(&["get", "secret", secret, "-n", UMBRA, "-o", &template])?;
        let file = system.server.dir().join(key);
        std::fs::write(&file, text)?;
        Ok::<_, anyhow::Error>(file)
    };
    let ca = write("umbra-ca", "ca.crt")?;
    for (secret, key) in [("umbra-controller-tls", "controller.crt"), ("umbra-proxy-tls", "proxy.crt")] {
        let leaf = write(secret, key)?;
        let output = Command::new("openssl").arg("verify").arg("-CAfile").arg(&ca).arg(&leaf).output()?;
        ensure!(output.status.success(), "{key}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// The node hears another leader; gives its epoch.
fn raised(system: &System, before: u128) -> Result<u128> {
    wait_for("the node hears a new leader", CEILING, || {
        let now = epoch(&system.proxies[0].state()?)?;
        ensure!(now > before, "the epoch is still {now}");
        Ok(now)
    })
}

/// A change arrives at the node, and the object says so.
fn changed(system: &System, what: &str) -> Result<()> {
    let spec = json!({"spec": {"http": [{"name": what, "route": [
        {"destination": {"host": "a", "subset": "v1"}}]}]}});
    system.server.kubectl().run(&["patch", "vs", "a", "--type=merge", "-p", &spec.to_string()])?;
    wait_for(&format!("the node has {what:?}"), CEILING, || {
        let config = system.proxies[0].config()?;
        ensure!(config.to_string().contains(&format!("\"{what}\"")), "{config}");
        Ok(())
    })?;
    system.wait_condition(&["vs", "a"], "Programmed", "True").map(drop)
}

fn lease(system: &System) -> Result<Value> {
    system.server.kubectl().get(&["lease", "umbra-controller", "-n", UMBRA])
}

fn holder(system: &System) -> Result<String> {
    Ok(lease(system)?["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
}

fn namespace() -> String {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": UMBRA}}).to_string()
}
