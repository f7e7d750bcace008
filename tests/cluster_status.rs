//! What umbra says of the example: conditions of its objects, and why copies were dropped.

use anyhow::{Result, ensure};
use serde_json::Value;
use umbra_testkit::{CEILING, wait_for};

use crate::cluster_system::Example;

/// Waits until a condition of the object's newest generation has this status; gives its reason and message.
pub(crate) fn wait_condition(
    example: &Example,
    object: &str,
    kind: &str,
    status: &str,
) -> Result<(String, String)> {
    wait_for(&format!("{object} has {kind}={status}"), CEILING, || {
        let found = example.get(object)?;
        let mut conditions = found["status"]["conditions"].as_array().into_iter().flatten();
        let condition = conditions.rfind(|condition| condition["type"] == kind).unwrap_or(&Value::Null);
        let newest = condition["observedGeneration"] == found["metadata"]["generation"];
        ensure!(newest && condition["status"] == status, "{}", found["status"]);
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        Ok((text("reason"), text("message")))
    })
}

/// `kubectl patch` (a merge) of an object's spec.
pub(crate) fn patch(example: &Example, object: &str, spec: &Value) -> Result<()> {
    let change = serde_json::json!({"spec": spec}).to_string();
    example.kubectl(&["patch", object, "--type=merge", "-p", &change]).map(drop)
}

/// Copies of requests to sa-logic that all proxies dropped for this reason.
pub(crate) fn dropped(example: &Example, reason: &str) -> Result<u64> {
    let host = example.host();
    let labels = [("service", host.as_str()), ("reason", reason)];
    let samples = example.samples()?;
    // Counters of some thousand requests: whole numbers far below 2^53.
    Ok(samples.iter().map(|one| one.sum("umbra_shadow_dropped_total", &labels) as u64).sum())
}

/// Waits until more copies are dropped for this reason than now.
pub(crate) fn wait_for_drops(example: &Example, reason: &str) -> Result<()> {
    let before = dropped(example, reason)?;
    wait_for(&format!("copies dropped: {reason}"), CEILING, || {
        let now = dropped(example, reason)?;
        ensure!(now > before, "{now} are");
        Ok(())
    })
}

/// Waits until more copies have been answered by v2 than now.
pub(crate) fn wait_for_copies(example: &Example) -> Result<()> {
    let before = example.shadows()?.answered;
    wait_for("v2 answers copies", CEILING, || {
        let now = example.shadows()?;
        ensure!(now.answered > before, "{now:?}");
        Ok(())
    })
}
