use super::*;
use std::path::PathBuf;

/// sa-logic with pods of v1 and v2, and subsets v1, v2 and, without pods, v9.
const WORLD: &str = "
apiVersion: v1
kind: Service
metadata: {name: sa-logic}
spec: {clusterIP: 10.96.0.1, selector: {app: sa-logic}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: v1-a, labels: {app: sa-logic, version: v1}}
---
apiVersion: v1
kind: Pod
metadata: {name: v2-a, labels: {app: sa-logic, version: v2}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: sa-logic}
spec:
  host: sa-logic
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
";

fn virtual_service(name: &str, spec: &str) -> String {
    format!(
        "\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

fn said(text: &str) -> Vec<String> {
    let texts = Texts::from([(PathBuf::from("x.yaml"), Ok(text.to_owned()))]);
    let report = lint(&texts, &Options::default());
    assert_eq!(report.unread, [""; 0], "{text}");
    report.findings.iter().map(ToString::to_string).collect()
}

/// What is said of a VirtualService of this spec beside [`WORLD`].
fn said_of(spec: &str) -> Vec<String> {
    said(&(WORLD.to_owned() + &virtual_service("vs", spec)))
}

/// What is said of one rule of sa-logic, without what every example has.
fn of_rule(rule: &str) -> Vec<String> {
    let mut said = said_of(&format!("{{hosts: [sa-logic], http: [{rule}]}}"));
    said.retain(|line| !line.contains("no rule takes every request"));
    said
}

#[track_caller]
fn begins(said: &[String], beginnings: &[&str]) {
    let fine = said.len() == beginnings.len()
        && said.iter().zip(beginnings).all(|(line, beginning)| line.starts_with(beginning));
    assert!(fine, "said {said:#?}, not {beginnings:#?}");
}

const TO_V1: &str = "route: [{destination: {host: sa-logic, subset: v1}}]";
const MIRROR_V2: &str = "mirror: {host: sa-logic, subset: v2}";
const SAFE: &str = "match: [{method: {exact: GET}}]";

#[test]
fn the_article_is_told_only_that_posts_are_copied() {
    begins(
        &of_rule(&format!("{{{TO_V1}, {MIRROR_V2}}}")),
        &[
            "UMB0004 info virtualservice default/vs spec.http[0].mirror: requests that change things are copied",
        ],
    );
    begins(&of_rule(&format!("{{{SAFE}, {TO_V1}, {MIRROR_V2}}}")), &[]);
    begins(&of_rule(&format!("{{{TO_V1}}}")), &[]);
}

#[test]
fn methods_that_change_things_are_those_a_rule_can_match() {
    let told = |method: &str| {
        let rule = format!("{{match: [{{method: {method}}}], {TO_V1}, {MIRROR_V2}}}");
        of_rule(&rule).iter().any(|line| line.starts_with("UMB0004 info"))
    };
    for open in ["{exact: POST}", "{prefix: P}", "{regex: 'GET|PUT'}", "{regex: '.*'}", "{}"] {
        assert!(told(open), "{open}");
    }
    for safe in ["{exact: GET}", "{prefix: G}", "{regex: '^(GET|HEAD)$'}"] {
        assert!(!told(safe), "{safe}");
    }
}

#[test]
fn what_a_rule_names_and_nothing_defines() {
    let vs = "IST0101 error virtualservice default/vs";
    let cases = [
        (
            format!("{{{SAFE}, {TO_V1}, mirror: {{host: sa-logic, subset: v3}}}}"),
            "spec.http[0].mirror: subset \"v3\" is not defined",
        ),
        (
            format!("{{{SAFE}, {TO_V1}, mirror: {{host: other}}}}"),
            "spec.http[0].mirror: Service other.default.svc",
        ),
        (
            "{route: [{destination: {host: sa-logic, port: {number: 81}}}]}".to_owned(),
            "spec.http[0].route[0].destination: Service",
        ),
    ];
    for (rule, beginning) in cases {
        begins(&of_rule(&rule), &[&format!("{vs} {beginning}")]);
    }
}

#[test]
fn what_is_not_compiled_is_looked_up_all_the_same() {
    let vs = "virtualservice default/vs";
    // Held, because a mirror's share is no share.
    let held = format!(
        "{{{SAFE}, {TO_V1}, mirrors: [{{destination: {{host: other}}, percentage: {{value: 101}}}}], timeout: x}}"
    );
    let lines = of_rule(&held);
    for field in ["spec.http[0].mirrors[0].percentage.value", "spec.http[0].timeout"] {
        assert!(
            lines.iter().any(|line| line.starts_with(&format!("IST0106 error {vs} {field}: "))),
            "{lines:#?}"
        );
    }
    assert!(
        lines
            .iter()
            .any(|line| line.contains("spec.http[0].mirrors[0].destination") && line.starts_with("IST0101")),
        "{lines:#?}"
    );
    // Of a gateway, whose hosts are no Services.
    let gateway = said_of(
        "{hosts: [example.org], gateways: [public], http: [{route: [{destination: {host: sa-logic, subset: v3}}]}]}",
    );
    begins(
        &gateway,
        &[
            &format!("UMB0104 info {vs} spec.gateways: only for gateways"),
            &format!(
                "IST0101 error {vs} spec.http[0].route[0].destination.subset: Referenced subset not found"
            ),
        ],
    );
}

#[test]
fn regexes_are_compiled_also_where_no_service_asks() {
    let spec = "{hosts: [nowhere], http: [{match: [{uri: {regex: '('}}], route: [{destination: {host: sa-logic}}]}]}";
    begins(
        &said_of(spec),
        &[
            "IST0101 error virtualservice default/vs spec.hosts[0]: Service nowhere.default.svc.cluster.local does not",
            "IST0106 error virtualservice default/vs spec.http[0].match[0].uri.regex: regex \"(\" does not compile",
        ],
    );
}

#[test]
fn a_problem_is_said_once() {
    begins(
        &of_rule(
            "{route: [{destination: {host: sa-logic}, weight: -1}, {destination: {host: sa-logic}, weight: 1}]}",
        ),
        &["IST0106 error virtualservice default/vs spec.http[0].route[0].weight: -1 is negative"],
    );
    begins(
        &said_of(
            "{hosts: [sa-logic], http: [{route: [{destination: {host: sa-logic}}]}, {match: [{uri: {exact: /a}}], route: [{destination: {host: sa-logic}}]}]}",
        ),
        &["IST0130 warning virtualservice default/vs spec.http[1]: virtualService rule #1 not used"],
    );
}

#[test]
fn two_virtual_services_on_one_host() {
    let spec = "{hosts: [HOST], http: [{route: [{destination: {host: sa-logic}}]}]}";
    let both = |host: &str, b: &str| {
        let a = virtual_service("a", &spec.replace("HOST", host));
        let mut said = said(&(WORLD.to_owned() + &a + &virtual_service("b", &b.replace("HOST", host))));
        said.retain(|line| line.starts_with("IST0109"));
        said
    };
    begins(&both("sa-logic", spec), &["IST0109 error virtualservice default/b spec.hosts[0]: "]);
    begins(
        &both("nowhere", spec),
        &["IST0109 error virtualservice default/b spec.hosts[0]: virtualservice default/a has"],
    );
    begins(&both("nowhere", &spec.replace("{hosts", "{gateways: [public], hosts")), &[]);
    begins(&both("nowhere", &spec.replace("{hosts", "{exportTo: ['~'], hosts")), &[]);
    begins(&both("nowhere", &spec.replace("HOST", "elsewhere")), &[]);
}

#[test]
fn subsets_that_select_no_pod_and_mirrors_to_them() {
    let world = WORLD.replace("{version: v2}}]", "{version: v9}}]");
    let vs = virtual_service(
        "vs",
        &format!("{{hosts: [sa-logic], http: [{{{SAFE}, {TO_V1}, {MIRROR_V2}}}, {{{TO_V1}}}]}}"),
    );
    begins(
        &said(&(world.clone() + &vs)),
        &[
            "IST0173 error destinationrule default/sa-logic spec.subsets[1]: the subset \"v2\" selects no pod of Service default/sa-logic: none has version=v9",
            "UMB0001 warning virtualservice default/vs spec.http[0].mirror: copies go nowhere",
        ],
    );
    // Without any pod of the service nothing is known.
    let without_pods = world.replace("app: sa-logic, version", "app: other, version");
    begins(&said(&(without_pods + &vs)), &[]);
}

#[test]
fn mirrors_that_are_hardly_meant() {
    let vs = "warning virtualservice default/vs";
    begins(
        &of_rule(&format!(
            "{{{SAFE}, {TO_V1}, mirror: {{host: sa-logic.default.svc.cluster.local, subset: v1}}}}"
        )),
        &[&format!("UMB0002 {vs} spec.http[0].mirror: the mirror is where users' answers come from")],
    );
    begins(
        &of_rule(&format!("{{{TO_V1}, {MIRROR_V2}, mirrorPercentage: {{value: 0}}}}")),
        &[&format!("UMB0003 {vs} spec.http[0].mirrorPercentage: a share of 0 %")],
    );
    begins(
        &of_rule(&format!(
            "{{{TO_V1}, mirrors: [{{destination: {{host: sa-logic, subset: v2}}, percentage: {{}}}}]}}"
        )),
        &[&format!("UMB0003 {vs} spec.http[0].mirrors[0].percentage: a share of 0 %")],
    );
    begins(&of_rule(&format!("{{{SAFE}, {TO_V1}, {MIRROR_V2}, mirrorPercentage: {{value: 0.1}}}}")), &[]);
}

#[test]
fn a_rule_for_a_host_that_is_not_there() {
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: d}\nspec: {host: nowhere}\n";
    begins(
        &said(rule),
        &["IST0174 warning destinationrule default/d spec.host: Service nowhere.default.svc"],
    );
}

#[test]
fn what_no_api_server_takes_and_what_is_there_twice() {
    let broken = virtual_service("vs", "{hosts: sa-logic}");
    begins(&said(&broken), &["IST0106 error virtualservice default/vs spec.hosts: invalid type"]);
    let twice = WORLD.to_owned() + "---\napiVersion: v1\nkind: Service\nmetadata: {name: sa-logic}\n";
    begins(&said(&twice), &["UMB0005 warning service default/sa-logic metadata.name: is in x.yaml too"]);
}

#[test]
fn what_cannot_be_read_is_no_finding() {
    let texts = Texts::from([
        (PathBuf::from("a.yaml"), Err("permission denied".to_owned())),
        (PathBuf::from("b.yaml"), Ok("a: [".to_owned())),
    ]);
    let report = lint(&texts, &Options::default());
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!(report.unread.len(), 2, "{:?}", report.unread);
    assert_eq!(report.unread[0], "a.yaml: permission denied");
}
