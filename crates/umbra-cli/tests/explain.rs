//! `umbra explain` as a person uses it: the program, manifests in files, text and JSON.

#![allow(clippy::unwrap_used, reason = "a test that cannot set its stage fails")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use umbra_routing::Rule;
use umbra_testkit::table::{Copies, Shadowed, put};

const OBJECTS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: sa-logic, namespace: default}
spec: {clusterIP: 10.96.0.7, clusterIPs: [10.96.0.7], selector: {app: sa-logic}, ports: [{name: http, port: 80, targetPort: 5000}]}
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: default, labels: {app: sa-logic, version: v1}}
status: {phase: Running, podIPs: [{ip: 10.0.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: b, namespace: default, labels: {app: sa-logic, version: v2}}
status: {phase: Running, podIPs: [{ip: 10.0.0.2}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: sa-logic-1, namespace: default, labels: {kubernetes.io/service-name: sa-logic}}
addressType: IPv4
ports: [{name: http, port: 5000}]
endpoints:
- {addresses: [10.0.0.1], conditions: {ready: true}, targetRef: {kind: Pod, name: a, namespace: default}}
- {addresses: [10.0.0.2], conditions: {ready: true}, targetRef: {kind: Pod, name: b, namespace: default}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: sa-logic, namespace: default}
spec: {host: sa-logic, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: sa-logic, namespace: default}
spec:
  hosts: [sa-logic]
  http:
  - {match: [{uri: {prefix: /admin}, headers: {x-user: {exact: root}}}], route: [{destination: {host: sa-logic, subset: v2}}]}
  - {route: [{destination: {host: sa-logic, subset: v1}}], mirror: {host: sa-logic, subset: v2}, mirrorPercentage: {value: 25}}
"#;

struct File(PathBuf);

impl File {
    fn new(name: &str) -> Self {
        Self::with(name, "")
    }

    fn with(name: &str, more: &str) -> Self {
        let path = std::env::temp_dir().join(format!("umbra-explain-{}-{name}.yaml", std::process::id()));
        std::fs::write(&path, format!("{OBJECTS}{more}")).unwrap();
        Self(path)
    }

    fn explain(&self, arguments: &[&str]) -> (String, String, bool) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_umbra"));
        let out = command.args(["explain", "-f"]).arg(&self.0).args(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (text(out.stdout), text(out.stderr), out.status.success())
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let (out, error, success) = self.explain(&[arguments, &["--output", "json"]].concat());
        assert!(success, "{error}");
        serde_json::from_str(&out).unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.0);
    }
}

#[test]
fn the_rule_its_destinations_and_its_mirrors_are_named() {
    let file = File::new("named");
    let answer = file.json(&["--from", "default/POD", "http://sa-logic/path"]);
    assert_eq!(answer["virtualService"], "default/sa-logic");
    assert_eq!(answer["rule"], 1);
    let to = &answer["destinations"][0];
    assert_eq!((&to["subset"], &to["weight"], &to["port"]), (&json!("v1"), &json!(100), &json!(80)));
    assert_eq!(to["host"], "sa-logic.default.svc.cluster.local");
    assert_eq!(to["endpoints"], json!(["10.0.0.1:5000"]));
    let copies = &answer["mirrors"][0];
    assert_eq!((&copies["subset"], &copies["percent"]), (&json!("v2"), &json!(25.0)));
    assert_eq!(answer["status"], Value::Null);
}

#[test]
fn one_flag_takes_several_files_and_the_url_may_follow_them() {
    let file = File::new("several");
    let more = File::new("more");
    let other = "apiVersion: v1\nkind: Service\nmetadata: {name: other, namespace: default}\n\
                 spec: {clusterIP: 10.96.0.8, ports: [{name: http, port: 80}]}\n";
    std::fs::write(&more.0, other).unwrap();
    let path = more.0.to_str().unwrap();
    for arguments in [
        ["-f", path, "--from", "default/a", "http://other/"].as_slice(),
        &[path, "http://other/", "--from", "default/a"],
        &[path, "--from", "default/a", "http://other/"],
    ] {
        let answer = file.json(arguments);
        assert_eq!(answer["service"], "other.default.svc.cluster.local", "{arguments:?}");
    }
}

#[test]
fn a_rule_that_does_not_serve_says_which_condition_does_not_hold() {
    let file = File::new("because");
    let (out, ..) = file.explain(&["http://sa-logic/admin/x"]);
    assert!(out.contains("spec.http[0]") && out.contains("header x-user is not \"root\""), "{out}");
    assert!(!out.contains("the path is not"), "the path does hold: {out}");
    let (out, ..) = file.explain(&["-H", "x-user: root", "http://10.96.0.7/admin"]);
    assert!(out.contains("spec.http[0] (http[0]): yes"), "{out}");
    assert!(out.contains("spec.http[1] (http[1]): no: an earlier rule takes the request"), "{out}");
}

#[test]
fn names_are_completed_as_dns_does_it() {
    let file = File::new("dns");
    for url in [
        "http://sa-logic.default/",
        "http://sa-logic.default.svc:80/",
        "http://SA-LOGIC.default.svc.cluster.local/",
    ] {
        assert_eq!(file.json(&["--from", "other/client", url])["rule"], 1, "{url}");
    }
    let (_, error, success) = file.explain(&["--from", "other/client", "http://sa-logic/"]);
    assert!(!success && error.contains("no Service has the name"), "{error}");
}

#[test]
fn what_makes_no_sense_is_said() {
    let file = File::new("nonsense");
    for (arguments, wanted) in [
        (["http://sa-logic/%zz"].as_slice(), "answers 400"),
        (&["https://sa-logic/"], "plain HTTP only"),
        (&["-H", "nothing", "http://sa-logic/"], "is not NAME: VALUE"),
        (&["--from", "pod", "http://sa-logic/"], "is not NAMESPACE/POD"),
    ] {
        let (_, error, success) = file.explain(arguments);
        assert!(!success && error.contains(wanted), "{arguments:?}: {error}");
    }
}

#[test]
fn what_nodes_leave_alone_is_not_copied() {
    let policy = "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: default}
spec: {podSelector: {matchLabels: {version: v2}}, policyTypes: [Ingress]}
";
    let file = File::with("policy", policy);
    let answer = file.json(&["http://sa-logic/path"]);
    assert_eq!((&answer["rule"], &answer["mirrors"]), (&json!(1), &json!([])));
    let (out, ..) = file.explain(&["http://sa-logic/path"]);
    assert!(out.contains("nodes leave it alone: ") && !out.contains("a copy of"), "{out}");
}

#[test]
fn what_the_controller_was_told_is_told_by_its_flags() {
    let file = File::with(
        "flags",
        "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: foreign, namespace: other}
spec: {hosts: [plain.default.svc.cluster.local], http: [{directResponse: {status: 418}}]}
---
apiVersion: v1
kind: Service
metadata: {name: plain, namespace: default}
spec: {clusterIP: 10.96.0.9, ports: [{name: http, port: 80}]}
",
    );
    let asked = ["--from", "default/a", "http://plain/"];
    assert_eq!(file.json(&asked)["virtualService"], Value::Null);
    let as_istio = file.json(&[asked.as_slice(), &["--foreign-virtualservices", "istio"]].concat());
    assert_eq!((&as_istio["virtualService"], &as_istio["status"]), (&json!("other/foreign"), &json!(418)));
}

#[test]
fn one_source_is_asked_for() {
    let run = |arguments: &[&str]| {
        let out = Command::new(env!("CARGO_BIN_EXE_umbra"))
            .env_clear()
            .arg("explain")
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8(out.stderr).unwrap()
    };
    let none = run(&["http://sa-logic/"]);
    assert!(none.contains("--filename") && none.contains("--node"), "{none}");
    let two = run(&["-f", "x.yaml", "--node", "127.0.0.1:1", "http://sa-logic/"]);
    assert!(two.contains("cannot be used with"), "{two}");
    let nothing_to_explain = run(&["--node", "127.0.0.1:1"]);
    assert!(nothing_to_explain.contains("URL"), "{nothing_to_explain}");
}

#[test]
fn what_a_proxy_answers_itself_has_its_status_and_no_copies() {
    let rules = "---
apiVersion: v1
kind: Service
metadata: {name: own, namespace: default}
spec: {clusterIP: 10.96.0.8, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: own, namespace: default}
spec:
  hosts: [own]
  http:
  - {match: [{uri: {exact: /old}}], redirect: {uri: /new}}
  - {match: [{uri: {exact: /aborted}}], fault: {abort: {httpStatus: 418, percentage: {value: 100}}},
     route: [{destination: {host: sa-logic}}], mirror: {host: sa-logic}}
  - {match: [{uri: {exact: /sometimes}}], fault: {abort: {httpStatus: 418, percentage: {value: 99}}},
     route: [{destination: {host: sa-logic}}], mirror: {host: sa-logic}}
  - {match: [{scheme: {exact: https}}], directResponse: {status: 200}}
  - {corsPolicy: {allowOrigins: [{exact: 'http://a'}]}, route: [{destination: {host: sa-logic}}]}
";
    let file = File::with("own", rules);
    let preflight = ["-X", "OPTIONS", "-H", "origin: http://a", "-H", "access-control-request-method: GET"];
    for (arguments, status, location) in [
        (["http://own/old?q"].as_slice(), json!(301), json!("http://own/new?q")),
        (&["http://own/aborted"], json!(418), Value::Null),
        (&["-H", "x-forwarded-proto: https", "http://own/"], json!(200), Value::Null),
        (&[&preflight[..], &["http://own/"]].concat(), json!(200), Value::Null),
        (&["http://own/"], Value::Null, Value::Null),
    ] {
        let answer = file.json(arguments);
        let found = (&answer["status"], &answer["location"], &answer["mirrors"]);
        assert_eq!(found, (&status, &location, &json!([])), "{arguments:?}");
    }
    let sometimes = file.json(&["http://own/sometimes"]);
    assert_eq!((&sometimes["status"], &sometimes["mirrors"][0]["percent"]), (&Value::Null, &json!(100.0)));
}

/// The admin port of a node that has these resources, until the test ends.
fn node(resources: Value) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(&stream).lines().map(Result::unwrap);
            let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
            assert_eq!(head[0], "GET /config HTTP/1.0");
            write!(stream, "HTTP/1.0 200 OK\r\n\r\n{resources}").unwrap();
        }
    });
    address
}

/// This object with one field more, unless that is null.
fn with(object: &Value, name: &str, value: &Value) -> Value {
    let mut object = object.clone();
    if !value.is_null() {
        object[name] = value.clone();
    }
    object
}

/// No object says this yet: it is what a node has that counts.
#[test]
fn a_mirror_says_what_chooses_its_requests() {
    let (v1, v2) = (SocketAddr::from(([10, 0, 0, 1], 80)), SocketAddr::from(([10, 0, 0, 2], 80)));
    let copies = Copies { endpoint: Some(v2), per_million: 250_000 };
    let web = Shadowed { name: "web", v1, v2: Some(copies), rule: Rule::default() };
    let put = serde_json::to_string(&put(&[web]).unwrap().resources).unwrap();
    let mut resources: Value = serde_json::from_str(&put).unwrap();
    let mirrors = &mut resources["service/default/web"]["ports"][0]["variants"][0]["rules"][0]["mirrors"];
    let by = |by, name| json!({"by": by, "name": name});
    let keys = [Value::Null, by("header", "x-user"), by("cookie", "session"), json!({"by": "source"})];
    let chance = mirrors[0].clone();
    *mirrors = keys.iter().map(|key| with(&chance, "sample", key)).collect();
    let address = node(resources).to_string();
    let explain = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_umbra"));
        let out = command.args(["explain", "--node", &address, "http://web/"]).args(more).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let text = explain(&[]);
    let to = " to subset v2 of web.default.svc.cluster.local port 80: 10.0.0.2:80";
    let said: Vec<_> = text.lines().filter_map(|line| line.trim().strip_suffix(to)).collect();
    let all = [
        "a copy of 25 %",
        "a copy of 25 %, chosen by header x-user,",
        "a copy of 25 %, chosen by cookie session,",
        "a copy of 25 %, chosen by the client's address,",
    ];
    assert_eq!(said, all, "{text}");
    let answer: Value = serde_json::from_str(&explain(&["--output", "json"])).unwrap();
    let samples: Vec<_> = (0..4).map(|at| answer["mirrors"][at]["sample"].clone()).collect();
    assert_eq!(samples, keys);
}
