//! The CRDs and the admission policies on a real API server: what it takes, keeps, refuses, explains and shows.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use umbra_testkit::{ApiServer, CEILING, Kubectl, kubernetes_program, repository, skip, wait_for};

#[test]
fn the_crds_on_an_api_server() -> Result<()> {
    if let Err(missing) = kubernetes_program("kube-apiserver") {
        skip(&missing.to_string());
        return Ok(());
    }
    let server = ApiServer::start()?;
    server.apply_crds()?;
    let kubectl = server.kubectl();
    takes_keeps_and_refuses(kubectl)?;
    changes_of_a_stored_object_are_checked_too(kubectl)?;
    status_is_of_istios_shape_and_shown(kubectl)?;
    fields_are_explained(kubectl)?;
    policies_refuse_with_the_field_named(kubectl)
}

/// The cases are data, so that the types can be asked the same without an API server.
fn cases(file: &str) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(repository().join("crates/umbra-api/tests/data").join(file))?;
    let cases: Vec<Value> = serde_saphyr::from_str(&text)?;
    ensure!(cases.len() > 20, "only {} cases", cases.len());
    Ok(cases)
}

fn takes_keeps_and_refuses(kubectl: &Kubectl) -> Result<()> {
    let cases = cases("crd-cases.yaml")?;
    for case in &cases {
        let name = case["name"].as_str().context("a case has a name")?;
        match case["refused"].as_array() {
            Some(words) => refuses(kubectl, &case["object"], words),
            None => keeps(kubectl, &case["object"]),
        }
        .with_context(|| name.to_owned())?;
    }
    Ok(())
}

fn refuses(kubectl: &Kubectl, object: &Value, words: &[Value]) -> Result<()> {
    let answer = match kubectl.apply(&object.to_string()) {
        Ok(answer) => anyhow::bail!("was taken: {answer}"),
        Err(refusal) => refusal.to_string(),
    };
    for word in words.iter().filter_map(Value::as_str) {
        ensure!(answer.contains(word), "{word:?} is not in {answer}");
    }
    Ok(())
}

/// Applied in one version, read in every other.
fn keeps(kubectl: &Kubectl, object: &Value) -> Result<()> {
    kubectl.apply(&object.to_string())?;
    let kind = object["kind"].as_str().context("kind")?.to_lowercase();
    let name = object["metadata"]["name"].as_str().context("name")?;
    for version in ["v1", "v1beta1", "v1alpha3"] {
        let stored = kubectl.get(&[&format!("{kind}s.{version}.networking.istio.io"), name])?;
        ensure!(
            stored["spec"] == object["spec"],
            "{version}: {} is stored as {}",
            object["spec"],
            stored["spec"]
        );
    }
    Ok(())
}

fn changes_of_a_stored_object_are_checked_too(kubectl: &Kubectl) -> Result<()> {
    let patch = json!([{"op": "add", "path": "/spec/http/0/mirrorPercentage", "value": {"value": 150}}]);
    let refusal = kubectl.run(&["patch", "vs", "sa-logic", "--type=json", "-p", &patch.to_string()]);
    let refusal = refusal.err().context("150 % was taken")?.to_string();
    ensure!(refusal.contains("spec.http[0].mirrorPercentage.value"), "{refusal}");
    Ok(())
}

fn status_is_of_istios_shape_and_shown(kubectl: &Kubectl) -> Result<()> {
    let status = json!({
        "observedGeneration": 1,
        "conditions": [
            {"type": "Programmed", "status": "False", "reason": "NodesPending", "observedGeneration": 1},
            {"type": "Reconciled", "status": "True", "observedGeneration": "1", "ofIstio": true},
        ],
        "validationMessages": [{"level": "WARNING", "type": {"code": "IST0130"}}],
        "ofOthers": {"a": [1]},
    });
    let patch = json!({"status": status}).to_string();
    kubectl.run(&["patch", "vs", "sa-logic", "--subresource=status", "--type=merge", "-p", &patch])?;
    ensure!(kubectl.get(&["vs", "sa-logic"])?["status"] == status, "the status was changed");
    let shown = kubectl.run(&["get", "vs,dr", "-o", "wide"])?;
    for word in [
        "GATEWAYS",
        "HOSTS",
        "PROGRAMMED",
        "AGE",
        "ACCEPTED",
        "RESOLVEDREFS",
        "REASON",
        "HOST",
        "NodesPending",
    ] {
        ensure!(shown.contains(word), "{word} is not shown:\n{shown}");
    }
    let all = kubectl.run(&["get", "istio-io", "-o", "name"])?;
    ensure!(all.contains("virtualservice") && all.contains("destinationrule"), "{all}");
    Ok(())
}

fn fields_are_explained(kubectl: &Kubectl) -> Result<()> {
    let fields = [
        "vs.spec.http.mirrorPercentage.value",
        "vs.spec.http.match.uri",
        "dr.spec.subsets.labels",
        "vs.status.conditions.reason",
    ];
    for field in fields {
        let text = kubectl.run(&["explain", field])?;
        let (_, description) = text.split_once("DESCRIPTION:").with_context(|| format!("{field}: {text}"))?;
        ensure!(!description.trim().is_empty() && !description.contains("<empty>"), "{field}: {text}");
    }
    Ok(())
}

/// Asked by dry runs, which policies see too. Some cases the schema refuses first.
fn policies_refuse_with_the_field_named(kubectl: &Kubectl) -> Result<()> {
    for file in ["virtualservices.yaml", "destinationrules.yaml", "regexes.yaml"] {
        let policy = repository().join("deploy/components/admission").join(file);
        kubectl.apply(&std::fs::read_to_string(policy)?)?;
    }
    let try_out = |object: &Value| {
        kubectl.run_with_input(&["apply", "--dry-run=server", "-f", "-"], &object.to_string())
    };
    let mut by_policy = 0;
    for case in cases("admission-cases.yaml")? {
        let told = case["told"].as_str().context("a case says what is told")?;
        // An API server acts on a policy a moment after it has stored it.
        by_policy += wait_for(told, CEILING, || {
            let refusal = try_out(&case["object"]).err().context("it was taken")?.to_string();
            let by_policy = refusal.contains("ValidatingAdmissionPolicy");
            let field = told
                .split(": ")
                .next()
                .unwrap_or_default()
                .replace("trafficPolicy (of spec or a subset)", "spec");
            let names_it = refusal.replace("[0]", "[]").replace("[1]", "[]").contains(&field);
            ensure!(if by_policy { refusal.contains(told) } else { names_it }, "{told}: {refusal}");
            Ok(u32::from(by_policy))
        })?;
    }
    ensure!(by_policy > 110, "the policies refused {by_policy} only");
    for case in cases("crd-cases.yaml")?.iter_mut().filter(|case| case["refused"].is_null()) {
        // By a new name: of an object that is stored only a changed spec is asked.
        case["object"]["metadata"]["name"] = "tried-out".into();
        try_out(&case["object"]).with_context(|| format!("{}", case["name"]))?;
    }
    Ok(())
}
