//! The workspace keeps its shape: which crate may use which, what the plain builds must not contain, and what
//! licences come in. Read from `cargo metadata` and `cargo tree`, so nobody has to remember it.

#![allow(clippy::print_stdout, reason = "what tests count is read by people")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// The arrows of the design, and no other: crate, and the crates of ours it may use in a normal build.
/// `umbra-index` hands on the Kubernetes types (`umbra_index::api`), so `umbra-compile` needs no arrow to them.
const ARROWS: &[(&str, &[&str])] = &[
    ("umbra-api", &[]),
    ("umbra-routing", &[]),
    ("umbra-index", &["umbra-api"]),
    ("umbra-compile", &["umbra-index", "umbra-routing"]),
    ("umbra-controller", &["umbra-api", "umbra-index", "umbra-compile", "umbra-routing"]),
    ("umbra-proxy", &["umbra-routing"]),
    (
        "umbra-cli",
        &["umbra-api", "umbra-index", "umbra-compile", "umbra-controller", "umbra-proxy", "umbra-routing"],
    ),
    ("umbra-testkit", &["umbra-api", "umbra-routing"]),
    ("umbra-tests", &["umbra-testkit"]),
    ("umbra-bench", &["umbra-testkit", "umbra-routing"]),
    ("sentiment-example", &[]),
];

/// Builds without the feature `kubernetes` carry none of these.
const KUBERNETES: &[&str] = &["kube", "kube-client", "kube-core", "kube-runtime", "k8s-openapi"];

/// Pure crates: no runtime, no sockets, no clock.
const IMPURE: &[&str] =
    &["tokio", "mio", "hyper", "socket2", "rustls", "fastrand", "rand", "getrandom", "tracing"];

/// Licences that may come in. Each is permissive; a new one is a decision, made here.
const LICENCES: &[&str] = &[
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "0BSD",
];

/// Crates that must not come in, and why.
const BANNED: &[(&str, &str)] = &[
    ("openssl", "rustls with ring is the one TLS"),
    ("native-tls", "rustls with ring is the one TLS"),
    ("aws-lc-rs", "needs a C build; ring everywhere"),
    ("tonic", "the push API is HTTP and JSON"),
    ("prost", "the push API is HTTP and JSON"),
    ("rustables", "GPL-3.0"),
    ("nftables", "spawns the nft binary: an owned table would vanish with it"),
    ("serde_yaml", "no longer kept; serde-saphyr"),
    ("opentelemetry-prometheus", "no longer kept; prometheus-client"),
    ("kubert", "pinned to an old kube"),
];

/// What a person has to build for `make demo`: the command and the example's programs together.
const DEMO_CRATES: usize = 150;

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

fn packages() -> Vec<Value> {
    let text = cargo(&["metadata", "--format-version", "1", "--locked"]);
    let metadata: Value = serde_json::from_str(&text).expect("cargo metadata is JSON");
    metadata["packages"].as_array().expect("packages").clone()
}

/// Names of the crates in a normal build of `package` without its default features.
fn closure(package: &str) -> BTreeSet<String> {
    let tree =
        ["tree", "-p", package, "-e", "normal", "--no-default-features", "--prefix", "none", "--locked"];
    cargo(&tree).lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

fn is_ours(package: &Value) -> bool {
    package["source"].is_null()
}

#[test]
fn arrows_point_as_designed() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        ARROWS.iter().map(|(from, to)| (*from, to.iter().copied().collect())).collect();
    let packages = packages();
    let ours: BTreeSet<&str> =
        packages.iter().filter(|p| is_ours(p)).map(|p| p["name"].as_str().expect("name")).collect();
    assert_eq!(
        ours,
        allowed.keys().copied().collect(),
        "every crate of the workspace has its line in ARROWS"
    );
    for package in packages.iter().filter(|package| is_ours(package)) {
        let name = package["name"].as_str().expect("name");
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let to = dependency["name"].as_str().expect("name");
            let normal = dependency["kind"].is_null();
            assert!(
                !normal || !ours.contains(to) || allowed[name].contains(to),
                "{name} uses {to}: the design has no such arrow"
            );
        }
    }
}

#[test]
fn plain_builds_carry_no_kubernetes_client() {
    for package in
        ["umbra-api", "umbra-index", "umbra-compile", "umbra-controller", "umbra-cli", "umbra-testkit"]
    {
        let closure = closure(package);
        let found: Vec<_> = KUBERNETES.iter().filter(|name| closure.contains(**name)).collect();
        assert!(found.is_empty(), "{package} without its features carries {found:?}");
    }
}

#[test]
fn the_proxy_knows_neither_kubernetes_nor_its_objects() {
    let closure = closure("umbra-proxy");
    for name in KUBERNETES.iter().chain(&["umbra-api", "umbra-index", "umbra-compile", "schemars"]) {
        assert!(!closure.contains(*name), "umbra-proxy carries {name}");
    }
}

#[test]
fn pure_crates_do_no_io() {
    for package in ["umbra-api", "umbra-routing", "umbra-index", "umbra-compile"] {
        let closure = closure(package);
        let found: Vec<_> = IMPURE.iter().filter(|name| closure.contains(**name)).collect();
        assert!(found.is_empty(), "{package} carries {found:?}");
    }
}

#[test]
fn the_demo_stays_small() {
    let all: BTreeSet<String> = closure("umbra-cli").union(&closure("sentiment-example")).cloned().collect();
    println!("the demo builds {} crates", all.len());
    assert!(
        all.len() <= DEMO_CRATES,
        "the demo builds {} crates, at most {DEMO_CRATES} are allowed",
        all.len()
    );
}

#[test]
fn licences_are_permissive_and_banned_crates_stay_out() {
    for package in packages() {
        let name = package["name"].as_str().expect("name");
        if let Some((_, why)) = BANNED.iter().find(|(banned, _)| *banned == name) {
            panic!("{name} came in; it must not: {why}");
        }
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(is_permissive(licence), "{name}: licence {licence:?} is not on the list");
    }
}

/// Every part joined by AND must offer an alternative (OR, or the old `/`) that is on the list.
fn is_permissive(expression: &str) -> bool {
    let plain = expression.replace(['(', ')'], "").replace('/', " OR ");
    plain.split(" AND ").all(|part| part.split(" OR ").any(|licence| LICENCES.contains(&licence.trim())))
}

#[test]
fn the_licence_reader_is_not_fooled() {
    assert!(is_permissive("MIT/Apache-2.0"));
    assert!(is_permissive("(MIT OR Apache-2.0) AND Unicode-3.0"));
    assert!(!is_permissive("MIT AND GPL-3.0-or-later"));
    assert!(!is_permissive("GPL-3.0"));
    assert!(!is_permissive(""));
}
