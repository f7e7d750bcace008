//! An object that umbra cannot read, under a CRD that takes anything (Istio's own, of another release, perhaps): it is
//! skipped and its author is told; its last readable state stays in force, and everybody else's is followed.

use anyhow::{Result, ensure};
use serde_json::json;
use umbra_testkit::objects;

use crate::push_system::{CEILING, System, with_system};

#[test]
fn what_cannot_be_read_harms_only_itself() -> Result<()> {
    with_system(&["n1"], test)
}

fn test(system: &mut System) -> Result<()> {
    take_anything(system)?;
    let items = [objects::service("a", &[]), objects::virtual_service("a"), objects::destination_rule("a")];
    system.apply(&objects::list(items))?;
    // One that has never been readable, listed at the start beside one that is.
    let never = json!({"hosts": "never", "http": 7});
    system.apply(&objects::list([
        objects::service("never", &[]),
        objects::virtual_service_with("never", &never),
    ]))?;
    system.start_all()?;
    system.wait_condition(&["vs", "a"], "ResolvedRefs", "True")?;
    system.wait_condition(&["vs", "a"], "Programmed", "True")?;
    told(system, "never")?;
    let before = system.proxies[0].wait_armed(1)?;

    let patch = json!({"spec": {"http": "everything"}}).to_string();
    system.server.kubectl().run(&["patch", "vs", "a", "--type=merge", "-p", &patch])?;
    told(system, "a")?;
    // Another author's object, later: by then whatever the unreadable one does is done.
    system.apply(&objects::list([
        objects::service("b", &[]),
        objects::destination_rule("b"),
        objects::virtual_service("b"),
    ]))?;
    system.wait_condition(&["vs", "b"], "Programmed", "True")?;
    let state = system.proxies[0].wait_armed(2)?;
    let config = system.proxies[0].config()?;
    let mirrors = &config["service/default/a"]["ports"][0]["variants"][0]["rules"][0]["mirrors"];
    ensure!(
        mirrors.as_array().is_some_and(|all| all.len() == 1),
        "not in force any more: {config}\n{before}\n{state}"
    );

    // Mended, and gone.
    system.server.kubectl().run(&["delete", "vs", "never"])?;
    system.apply(&objects::virtual_service("a").to_string())?;
    system.wait_condition(&["vs", "a"], "Accepted", "True")?;
    system.wait_condition(&["vs", "a"], "Programmed", "True").map(drop)
}

fn told(system: &System, name: &str) -> Result<()> {
    let accepted = system.wait_condition(&["vs", name], "Accepted", "False")?;
    let message = accepted["message"].as_str().unwrap_or_default();
    ensure!(accepted["reason"] == "Invalid" && message.starts_with("cannot be read: "), "{accepted}");
    let programmed = system.wait_condition(&["vs", name], "Programmed", "False")?;
    ensure!(programmed["reason"] == "Held", "{programmed}");
    Ok(())
}

/// The same names and versions, without a schema.
fn take_anything(system: &System) -> Result<()> {
    let kubectl = system.server.kubectl();
    let name = "crd/virtualservices.networking.istio.io";
    let crd = kubectl.get(&[name])?;
    let versions = crd["spec"]["versions"].as_array().map_or(0, Vec::len);
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let patch: Vec<_> = (0..versions)
        .map(|index| {
            let path = format!("/spec/versions/{index}/schema/openAPIV3Schema");
            json!({"op": "replace", "path": path, "value": schema})
        })
        .collect();
    kubectl.run(&["patch", name, "--type=json", "-p", &json!(patch).to_string()])?;
    // The API server serves the new schema a moment later than it has taken it.
    let probe = objects::virtual_service_with("probe", &json!({"hosts": 7})).to_string();
    umbra_testkit::wait_for("anything is taken", CEILING, || kubectl.apply(&probe).map(drop))?;
    kubectl.delete(&probe).map(drop)
}
