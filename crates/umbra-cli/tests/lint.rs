//! `umbra lint` as a person and a pipeline use it: lines, JSON, and how it ends.

#![allow(clippy::unwrap_used, reason = "a test that cannot set its stage fails")]

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

const FAULTY: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: sa-logic}
spec: {hosts: [sa-logic], http: [{timeout: 0s, route: [{destination: {host: sa-logic}}]}]}
";

const FINE: &str = "apiVersion: v1
kind: Service
metadata: {name: sa-logic}
spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: sa-logic}
spec: {hosts: [sa-logic], http: [{route: [{destination: {host: sa-logic}}], mirror: {host: sa-logic}}]}
";

/// A file of its own folder; `umbra lint` of it.
fn lint(name: &str, text: &str, flags: &[&str]) -> Output {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("lint-{name}"));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("x.yaml"), text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_umbra"));
    command.env_clear().args(["lint", "-f"]).arg(&folder).args(flags).output().unwrap()
}

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn an_error_ends_it_with_1_and_is_a_line() {
    let output = lint("faulty", FAULTY, &[]);
    assert_eq!(output.status.code(), Some(1));
    let lines = lines(&output);
    let timeout = "IST0106 error virtualservice default/sa-logic spec.http[0].timeout: \"0s\" is too short";
    assert!(lines.iter().any(|line| line.starts_with(timeout)), "{lines:#?}");
}

#[test]
fn warnings_end_it_with_0() {
    let output = lint("fine", FINE, &[]);
    let lines = lines(&output);
    assert_eq!(output.status.code(), Some(0), "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("UMB0002 warning ")), "{lines:#?}");
}

#[test]
fn json_has_the_same_in_fields() {
    let output = lint("json", FAULTY, &["--output", "json"]);
    let findings: Vec<Value> =
        lines(&output).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let timeout = findings.iter().find(|finding| finding["field"] == "spec.http[0].timeout").unwrap();
    for (key, value) in [
        ("code", "IST0106"),
        ("level", "error"),
        ("kind", "virtualservice"),
        ("namespace", "default"),
        ("name", "sa-logic"),
    ] {
        assert_eq!(timeout[key], value, "{timeout}");
    }
    assert!(timeout["file"].as_str().unwrap().ends_with("x.yaml"), "{timeout}");
}

#[test]
fn what_cannot_be_read_ends_it_with_2() {
    let missing = Command::new(env!("CARGO_BIN_EXE_umbra"))
        .env_clear()
        .args(["lint", "-f", "/nonexistent/manifests.yaml"])
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(2));
    let said = String::from_utf8_lossy(&missing.stderr);
    assert!(said.contains("/nonexistent/manifests.yaml: "), "{said}");
    let broken = lint("broken", &format!("{FAULTY}---\na: [\n"), &[]);
    assert_eq!(broken.status.code(), Some(2), "{:?}", lines(&broken));
    assert!(!lines(&broken).is_empty(), "what can be read is looked at all the same");
}
