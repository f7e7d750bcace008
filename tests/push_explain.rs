//! `umbra explain` and `umbra lint` of a cluster say what they say of files with the same objects; and what a cluster does
//! not tell is said with the way out.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Result, ensure};
use serde_json::Value;
use umbra_testkit::{ApiServer, kubernetes_program, program, skip};

/// Enough for two pages of 500.
const PODS: usize = 700;

const OBJECTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: other}
---
apiVersion: v1
kind: Service
metadata: {name: sa-logic, namespace: default}
spec: {clusterIP: 10.96.0.7, selector: {app: sa-logic}, ports: [{name: http, port: 80, targetPort: 5000}]}
---
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: other}
spec: {selector: {app: reviews}, ports: [{name: http, port: 9080}]}
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
  - {match: [{sourceLabels: {app: web}, uri: {prefix: /web}}], redirect: {uri: /}}
  - {match: [{uri: {prefix: /gone}}], route: [{destination: {host: sa-logic, subset: v3}}]}
  - {match: [{uri: {prefix: /analyse}}], route: [{destination: {host: sa-logic, subset: v1}}],
     mirror: {host: sa-logic, subset: v2}, mirrorPercentage: {value: 25}}
"#;

/// The schema lets it through. Of a namespace that is not the service's: for clients of its own.
const INVALID: &str = r#"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: invalid, namespace: other}
spec:
  hosts: [sa-logic.default.svc.cluster.local]
  exportTo: ["."]
  http: [{match: [{uri: {regex: '('}}], route: [{destination: {host: sa-logic.default.svc.cluster.local}}]}]
"#;

/// Pods of both versions, and one slice that names the first of each; one object for each line of kubectl's input.
fn endpoints() -> String {
    let pod = |number: usize| {
        let version = 1 + number % 2;
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p{number}, namespace: default, labels: {{app: sa-logic, \
             version: v{version}}}}}\nspec: {{containers: [{{name: c, image: c}}]}}\n---\n"
        )
    };
    let endpoint = |number: usize| {
        format!(
            "- {{addresses: [10.1.0.{number}], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: p{number}, \
             namespace: default}}}}\n"
        )
    };
    let pods: String = (0..PODS).map(pod).collect();
    let last = endpoint(PODS - 1).replace(&format!("10.1.0.{}", PODS - 1), "10.1.0.9");
    format!(
        "{pods}apiVersion: v1\nkind: Pod\nmetadata: {{name: web, namespace: other, labels: {{app: web}}}}\n\
         spec: {{containers: [{{name: c, image: c}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: sa-logic-1, namespace: default, labels: \
         {{kubernetes.io/service-name: sa-logic}}}}\naddressType: IPv4\nports: [{{name: http, port: 5000}}]\n\
         endpoints:\n{}{}{last}",
        endpoint(0),
        endpoint(1)
    )
}

/// An API server, with or without the CRDs; nobody else uses it.
fn with_server(crds: bool, test: impl FnOnce(&ApiServer) -> Result<()>) -> Result<()> {
    if let Err(missing) = kubernetes_program("kube-apiserver") {
        skip(&missing.to_string());
        return Ok(());
    }
    is_whole()?;
    let server = ApiServer::start()?;
    if crds {
        server.apply_crds()?;
    }
    test(&server)
}

/// `umbra` with nothing of the environment.
fn umbra(arguments: &[&str]) -> Result<Output> {
    Ok(command()?.args(arguments).output()?)
}

fn command() -> Result<Command> {
    let mut command = Command::new(program("umbra")?);
    command.env_clear();
    Ok(command)
}

/// The program is the one that looks at clusters.
fn is_whole() -> Result<()> {
    let help = umbra(&["explain", "--help"])?;
    ensure!(
        String::from_utf8_lossy(&help.stdout).contains("--kubeconfig"),
        "umbra was built without Kubernetes, as `make demo` does: cargo build --workspace --bins"
    );
    Ok(())
}

fn json(arguments: &[&str]) -> Result<Value> {
    let output = umbra(&[arguments, &["--output", "json"]].concat())?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What `umbra` says of its failure.
fn refused(arguments: &[&str]) -> Result<String> {
    let output = umbra(arguments)?;
    ensure!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    Ok(String::from_utf8(output.stderr)?)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary folder's name is text")
}

/// All that matters, as kubectl prints it for `-f`.
fn printed(server: &ApiServer) -> Result<PathBuf> {
    let kinds = "services,endpointslices,pods,networkpolicies,virtualservices,destinationrules";
    let path = server.dir().join("printed.yaml");
    std::fs::write(&path, server.kubectl().run(&["get", kinds, "-A", "-o", "yaml"])?)?;
    Ok(path)
}

const REQUESTS: [&[&str]; 8] = [
    &["--from", "default/POD", "http://sa-logic/analyse/sentiment"],
    &["--from", "other/web", "http://sa-logic.default/web/x"],
    &["--from", "default/p1", "http://sa-logic.default/web/x"],
    &["-H", "x-user: root", "http://10.96.0.7/admin"],
    &["-X", "POST", "-H", "x-user: me", "http://sa-logic/admin"],
    &["http://sa-logic/gone"],
    &["http://sa-logic:81/"],
    &["--from", "other/web", "http://reviews:9080/"],
];

#[test]
fn a_cluster_is_explained_and_linted_as_files_with_its_objects_are() -> Result<()> {
    with_server(true, |server| {
        server.kubectl().apply(OBJECTS)?;
        server.kubectl().create(&endpoints())?;
        let (printed, kubeconfig) = (printed(server)?, text(server.kubeconfig()));
        let (mut rules, mut endpoints) = (Vec::new(), Vec::new());
        for request in REQUESTS {
            let of_cluster = json(&[&["explain", "--kubeconfig", kubeconfig], request].concat())?;
            let of_files = json(&[&["explain", "-f", text(&printed)], request].concat())?;
            ensure!(of_cluster == of_files, "{request:?}: {of_cluster} is not {of_files}");
            rules.push(of_cluster["rule"].clone());
            endpoints.push(of_cluster["destinations"][0]["endpoints"].clone());
        }
        let none = Value::Null;
        ensure!(
            rules == [3.into(), 1.into(), none.clone(), 0.into(), none.clone(), 2.into(), none.clone(), none]
        );
        ensure!(endpoints[0] == serde_json::json!(["10.1.0.0:5000"]), "{endpoints:?}");
        // The last pod is of the second page.
        ensure!(endpoints[3] == serde_json::json!(["10.1.0.1:5000", "10.1.0.9:5000"]), "{endpoints:?}");
        // As kubectl finds it; what follows the flag is the URL then.
        let by_default = command()?
            .env("KUBECONFIG", kubeconfig)
            .args(["explain", "--context", "test", "--kubeconfig", "http://sa-logic/analyse"])
            .output()?;
        ensure!(String::from_utf8_lossy(&by_default.stdout).contains("a copy of 25 % to"), "{by_default:?}");
        let of_cluster = umbra(&["lint", "--kubeconfig", kubeconfig])?;
        let of_files = umbra(&["lint", "-f", text(&printed)])?;
        ensure!((of_cluster.status.code(), &of_cluster.stdout) == (of_files.status.code(), &of_files.stdout));
        ensure!(
            String::from_utf8_lossy(&of_cluster.stdout).contains("IST0101 error"),
            "subset v3 is not defined"
        );
        // What one author gets wrong is held for the clients that it is about; others are told theirs.
        server.kubectl().apply(INVALID)?;
        let theirs = json(&[&["explain", "--kubeconfig", kubeconfig], REQUESTS[0]].concat())?;
        ensure!(theirs["rule"] == 3, "{theirs}");
        let held = json(&[&["explain", "--kubeconfig", kubeconfig], REQUESTS[1]].concat())?;
        ensure!(held["notGoverned"].as_str().is_some_and(|why| why.contains("is invalid")), "{held}");
        Ok(())
    })
}

#[test]
fn what_a_cluster_does_not_tell_is_said_with_the_way_out() -> Result<()> {
    with_server(false, |server| {
        let kubeconfig = text(server.kubeconfig());
        let explain = |kubeconfig: &str, more: &[&str]| {
            refused(&[&["explain", "--kubeconfig", kubeconfig], more, &["http://sa-logic/"]].concat())
        };
        let missing = explain(kubeconfig, &[])?;
        ensure!(missing.contains("does not serve virtualservices in networking.istio.io/v1"), "{missing}");
        ensure!(missing.contains("install the CRDs"), "{missing}");
        let context = explain(kubeconfig, &["--context", "elsewhere"])?;
        ensure!(context.contains("elsewhere"), "{context}");
        let file = explain("/nonexistent/kubeconfig", &[])?;
        ensure!(file.contains("/nonexistent/kubeconfig") && file.contains("--kubeconfig FILE"), "{file}");
        let nobody = server.dir().join("nobody");
        std::fs::write(&nobody, std::fs::read_to_string(kubeconfig)?.replace(server.token(), "wrong"))?;
        let nobody = explain(text(&nobody), &[])?;
        ensure!(nobody.contains("virtualservices.networking.istio.io: Unauthorized"), "{nobody}");

        server.apply_crds()?;
        let someone = someone(server)?;
        let forbidden = explain(text(&someone), &[])?;
        ensure!(
            forbidden.contains("User \"system:serviceaccount:default:someone\" cannot list"),
            "{forbidden}"
        );
        ensure!(forbidden.contains("the verb list on services in all namespaces"), "{forbidden}");
        let lint = umbra(&["lint", "--kubeconfig", text(&someone)])?;
        ensure!(lint.status.code() == Some(2), "{lint:?}");
        Ok(())
    })
}

/// A kubeconfig of somebody who may list no more than rules.
fn someone(server: &ApiServer) -> Result<PathBuf> {
    let kubectl = server.kubectl();
    kubectl.run(&["create", "serviceaccount", "someone"])?;
    let resources = "--resource=virtualservices.networking.istio.io,destinationrules.networking.istio.io";
    kubectl.run(&["create", "clusterrole", "rules", "--verb=list", resources])?;
    kubectl.run(&[
        "create",
        "clusterrolebinding",
        "rules",
        "--clusterrole=rules",
        "--serviceaccount=default:someone",
    ])?;
    let token = kubectl.run(&["create", "token", "someone"])?;
    let path = server.dir().join("someone");
    let own = std::fs::read_to_string(server.kubeconfig())?.replace(server.token(), token.trim());
    std::fs::write(&path, own)?;
    Ok(path)
}
