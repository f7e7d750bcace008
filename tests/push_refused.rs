//! A push that is not the controller's, or that is wrong: refused with its status and reason, nothing changed, counted.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use umbra_testkit::objects;

use crate::push_system::{PushProxy, System, with_system};

/// Whose certificate a push comes with.
#[derive(Clone, Copy)]
enum Caller<'a> {
    Nobody,
    /// `STEM.crt` and `STEM.key` of a directory.
    Of(&'a Path, &'a str),
}

#[test]
fn a_push_that_is_not_the_controllers_or_is_wrong_changes_nothing() -> Result<()> {
    with_system(&["n1"], test)
}

fn test(system: &mut System) -> Result<()> {
    // A second system makes certificates of another CA, which are good for its own proxies.
    let mut other = System::new(&["n1"])?;
    system.start_all()?;
    other.start_controller()?;
    let items = [objects::service("a", &[]), objects::virtual_service("a"), objects::destination_rule("a")];
    system.apply(&objects::list(items))?;
    // All is pushed before the controller is stopped.
    system.wait_condition(&["vs", "a"], "ResolvedRefs", "True")?;
    system.wait_condition(&["vs", "a"], "Programmed", "True")?;
    let proxy = &system.proxies[0];
    proxy.wait_armed(1)?;
    // Its pushes go on else: a heartbeat between two questions would be counted.
    system.controller.as_mut().context("runs")?.freeze()?;
    let foreign = other.tls_dir();
    umbra_testkit::wait_for("the other CA has made its certificates", crate::push_system::CEILING, || {
        ensure!(foreign.join("proxy.crt").exists(), "not yet");
        Ok(())
    })?;

    let (ours, before) = (system.tls_dir(), proxy.state()?);
    for (who, caller) in [
        ("no certificate", Caller::Nobody),
        ("another CA's controller", Caller::Of(&foreign, "controller")),
        // It is for servers only; every node has it.
        ("the proxy's own certificate", Caller::Of(&ours, "proxy")),
    ] {
        let answer = push(proxy, &ours, caller, &request("PUT", &before, "{\"resources\":{}}"))?;
        ensure!(answer.is_none(), "{who}: answered {answer:?}");
    }
    counted(proxy, "connection", "handshake", 3.0)?;
    ensure!(proxy.state()? == before, "changed by one who is not the controller");
    wrong_pushes_of_the_controller(proxy, &ours, &before)
}

/// Who steals the controller's certificate, or a controller with a bug.
fn wrong_pushes_of_the_controller(proxy: &PushProxy, tls: &Path, before: &Value) -> Result<()> {
    let controller = Caller::Of(tls, "controller");
    let nothing = json!({"resources": {}}).to_string();
    let wrong_base = json!({"base": "0".repeat(32), "remove": ["service/default/a"]}).to_string();
    let wrong_value = json!({"resources": {"service/default/b": {"ports": 7}}}).to_string();
    let wrong_key = json!({"resources": {"what/ever": {}}}).to_string();
    let old = json!({"epoch": "1", "version": "1"});
    let large = "1".repeat((64 << 20) + 1);
    for (request, status, word) in [
        (request("PUT", &old, &nothing), 409, "epoch"),
        (request("PATCH", before, &wrong_base), 412, "base"),
        (request("PUT", before, &wrong_value), 400, "malformed"),
        (request("PUT", before, &wrong_key), 400, "malformed"),
        (request("PUT", before, "{\"resources\":"), 400, "malformed"),
        (request("PUT", &json!({"epoch": "newest", "version": "1"}), &nothing), 400, "malformed"),
        (request("PUT", before, &large), 413, "too_large"),
    ] {
        let answer = push(proxy, tls, controller, &request)?;
        refused(answer, status, word).with_context(|| format!("{} {status}", request.method))?;
        ensure!(&proxy.state()? == before, "{status} {word}: changed {before} to {}", proxy.state()?);
    }
    for (kind, word, times) in
        [("put", "epoch", 1.0), ("patch", "base", 1.0), ("put", "malformed", 4.0), ("put", "too_large", 1.0)]
    {
        counted(proxy, kind, word, times)?;
    }
    // The means by which it was asked are good: the same caller with a right push is heard.
    let state: Value = serde_json::from_str(
        &push(proxy, tls, controller, &request("GET", before, ""))?.context("an answer")?.1,
    )?;
    ensure!(&state == before, "{state}");
    Ok(())
}

struct Push<'a> {
    method: &'a str,
    epoch: String,
    version: String,
    body: &'a str,
}

fn request<'a>(method: &'a str, at: &Value, body: &'a str) -> Push<'a> {
    let text = |name: &str| at[name].as_str().unwrap_or_default().to_owned();
    Push { method, epoch: text("epoch"), version: text("version"), body }
}

/// Status and body; `None` when TLS let nobody in.
fn push(proxy: &PushProxy, tls: &Path, caller: Caller<'_>, push: &Push<'_>) -> Result<Option<(u16, String)>> {
    let port = proxy.push.port();
    let path = if push.method == "GET" { "state" } else { "config" };
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "60", "-X", push.method, "-w", "\n%{http_code}", "--cacert"]);
    curl.arg(tls.join("ca.crt"));
    if let Caller::Of(dir, stem) = caller {
        curl.arg("--cert").arg(dir.join(stem).with_extension("crt"));
        curl.arg("--key").arg(dir.join(stem).with_extension("key"));
    }
    curl.args(["-H", &format!("umbra-epoch: {}", push.epoch)]);
    curl.args(["-H", &format!("umbra-version: {}", push.version)]);
    // What is large asks first (curl sends `Expect: 100-continue`), and hears no before it is sent.
    curl.args(["--resolve", &format!("umbra-proxy.umbra-system:{port}:127.0.0.1")]);
    if push.method != "GET" {
        let file = tls.join("body");
        std::fs::write(&file, push.body)?;
        curl.arg("--data-binary").arg(format!("@{}", file.display()));
    }
    curl.arg(format!("https://umbra-proxy.umbra-system:{port}/v1/{path}"));
    let done = curl.output().context("curl")?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').context("curl writes a status")?;
    let status: u16 = status.parse()?;
    // A peer may close while a refused body is still being sent; its answer counts.
    Ok((status != 0).then(|| (status, body.to_owned())))
}

fn refused(answer: Option<(u16, String)>, status: u16, reason: &str) -> Result<()> {
    let (found, body) = answer.context("no answer")?;
    let said: Value = serde_json::from_str(&body).with_context(|| body.clone())?;
    ensure!(found == status && said["reason"] == reason, "{found}: {body}");
    ensure!(said["message"].as_str().is_some_and(|text| !text.is_empty()), "no message: {body}");
    Ok(())
}

fn counted(proxy: &PushProxy, kind: &str, result: &str, times: f64) -> Result<()> {
    let samples = proxy.samples()?;
    let found = samples.sum("umbra_pushes_total", &[("kind", kind), ("result", result)]);
    ensure!((found - times).abs() < 0.5, "{kind}/{result} counted {found} times\n{}", samples.text());
    Ok(())
}
