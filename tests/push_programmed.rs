//! `Programmed` means every live node: not True while one cannot be reached, and then it says which and why.

use anyhow::{Result, ensure};
use umbra_testkit::{objects, wait_for};

use crate::push_system::{CEILING, System, condition, with_system};

#[test]
fn programmed_waits_for_every_node_and_names_the_one_it_waits_for() -> Result<()> {
    with_system(&["n1", "n2"], test)
}

fn test(system: &mut System) -> Result<()> {
    // n2's proxy is expected, and is not there.
    system.proxies[0].start()?;
    system.start_controller()?;
    let items = [objects::service("a", &[]), objects::destination_rule("a"), objects::virtual_service("a")];
    system.apply(&objects::list(items))?;
    system.proxies[0].wait_armed(1)?;
    wait_for("the missing node is named", CEILING, || {
        let found = condition(&system.server.kubectl().get(&["vs", "a"])?, "Programmed");
        ensure!(found["status"] != "True", "n2 has nothing: {found}");
        let message = found["message"].as_str().unwrap_or_default();
        let named = message.contains("node n2: push failing: ") && !message.contains("n1");
        ensure!(found["status"] == "False" && found["reason"] == "NodesPending" && named, "{found}");
        Ok(())
    })?;
    system.proxies[1].start()?;
    system.wait_condition(&["vs", "a"], "Programmed", "True")?;
    let served = system.proxies[1].state()?;
    ensure!(served["armed"] == serde_json::json!(["service/default/a"]), "Programmed too early: {served}");
    // Hung is not gone: a change is not in force there.
    let frozen = system.proxies[1].process.as_ref().map(umbra_testkit::Process::freeze);
    ensure!(matches!(frozen, Some(Ok(()))), "n2 runs");
    let weight = serde_json::json!([{"op": "remove", "path": "/spec/http/0/mirror"}]).to_string();
    system.server.kubectl().run(&["patch", "vs", "a", "--type=json", "-p", &weight])?;
    let pending = system.wait_condition(&["vs", "a"], "Programmed", "False")?;
    ensure!(pending["reason"] == "NodesPending", "{pending}");
    system.proxies[1].process.as_ref().map_or(Ok(()), umbra_testkit::Process::thaw)?;
    system.wait_condition(&["vs", "a"], "Programmed", "True").map(drop)
}
