//! What authors are told: conditions with reason and field, Events when something goes wrong, and silence when
//! nothing changed.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use umbra_testkit::{objects, wait_for};

use crate::push_system::{CEILING, System, condition, with_system};

/// An object, and what its author has to read.
struct Told {
    object: &'static str,
    /// Type, status, reason, and a part of the message.
    conditions: &'static [(&'static str, &'static str, &'static str, &'static str)],
}

/// No pod runs in this world: what is defined is resolved, and its author is told that nobody is there.
const NOBODY_RUNS: &str = "subset \"v1\" of fine.default.svc.cluster.local, port 80, has no ready endpoint";

/// Every Service here is defined by `services`, every object by `rules`.
const TOLD: [Told; 11] = [
    Told {
        object: "vs/fine",
        conditions: &[
            ("Accepted", "True", "Accepted", ""),
            ("ResolvedRefs", "True", "NoEndpoints", NOBODY_RUNS),
            ("Programmed", "True", "Programmed", "every live node serves it"),
        ],
    },
    Told {
        object: "vs/no-subset",
        conditions: &[
            ("Accepted", "True", "Accepted", ""),
            ("ResolvedRefs", "False", "SubsetNotFound", "spec.http[0].mirror: subset \"v3\""),
            ("Programmed", "True", "Programmed", ""),
        ],
    },
    Told {
        object: "vs/no-mirror",
        conditions: &[
            ("Accepted", "True", "Accepted", ""),
            ("ResolvedRefs", "False", "HostNotFound", "spec.http[0].mirror: Service nobody"),
            ("Programmed", "True", "Programmed", ""),
        ],
    },
    Told {
        object: "vs/bad-regex",
        conditions: &[
            ("Accepted", "False", "Invalid", "spec.http[0].match[0].uri.regex: "),
            ("Programmed", "False", "Invalid", "has no rules of an earlier generation to keep"),
        ],
    },
    Told {
        object: "vs/rewrites",
        conditions: &[
            ("Accepted", "False", "Invalid", "spec.http[0].rewrite: "),
            ("Programmed", "False", "Invalid", "has no rules of an earlier generation to keep"),
        ],
    },
    Told {
        object: "vs/exports",
        conditions: &[
            ("Accepted", "False", "Invalid", "spec.exportTo[1]: "),
            ("Programmed", "False", "Invalid", "has no rules of an earlier generation to keep"),
        ],
    },
    Told {
        object: "vs/second",
        conditions: &[
            (
                "Accepted",
                "False",
                "Conflicted",
                "spec.hosts[0]: fine.default.svc.cluster.local: the older virtualservice default/fine",
            ),
            ("Programmed", "False", "NoGovernedService", ""),
        ],
    },
    Told {
        object: "vs/at-the-gate",
        conditions: &[
            ("Accepted", "False", "NotForMesh", "spec.gateways: "),
            ("Programmed", "False", "NoGovernedService", ""),
        ],
    },
    Told {
        object: "vs/nobody-there",
        conditions: &[
            ("ResolvedRefs", "False", "HostNotFound", "spec.hosts[0]: Service nobody-there"),
            ("Programmed", "False", "NoGovernedService", ""),
        ],
    },
    Told {
        object: "dr/fine",
        conditions: &[
            // A policy that is left out is told, and takes nothing away.
            ("Accepted", "True", "Accepted", "spec.trafficPolicy: umbra does not support trafficPolicy"),
            ("ResolvedRefs", "True", "NoEndpoints", NOBODY_RUNS),
            ("Programmed", "True", "Programmed", ""),
        ],
    },
    Told {
        object: "dr/of-nobody",
        conditions: &[("ResolvedRefs", "False", "HostNotFound", "spec.host: Service nobody")],
    },
];

#[test]
fn authors_are_told_what_became_of_their_objects() -> Result<()> {
    with_system(&["n1"], test)
}

fn test(system: &mut System) -> Result<()> {
    system.start_all()?;
    system.apply(&objects::list(services()))?;
    system.apply(&objects::list([objects::virtual_service("fine"), policed_rule()]))?;
    // The older of two has the host; creation times are whole seconds, so it is older by name, too: fine < second.
    system.wait_condition(&["vs", "fine"], "Programmed", "True")?;
    system.apply(&objects::list(rules()))?;
    let mut wrong = Vec::new();
    for told in &TOLD {
        if let Err(error) = is_told(system, told) {
            wrong.push(format!("{error:#}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    refusals_have_events(system)?;
    nothing_changed_writes_nothing(system)?;
    others_conditions_stay(system)?;
    mending_is_told(system)
}

fn is_told(system: &System, told: &Told) -> Result<()> {
    wait_for(told.object, CEILING / 4, || {
        let object = system.server.kubectl().get(&[told.object])?;
        let generation = &object["metadata"]["generation"];
        ensure!(&object["status"]["observedGeneration"] == generation, "{}", object["status"]);
        for (kind, status, reason, part) in told.conditions {
            let found = condition(&object, kind);
            let message = found["message"].as_str().unwrap_or_default();
            let right = found["status"] == *status && found["reason"] == *reason && message.contains(part);
            ensure!(right, "not {kind}={status} {reason} {part:?}: {found}");
            ensure!(
                found["observedGeneration"].is_i64() && &found["observedGeneration"] == generation,
                "{found}"
            );
        }
        Ok(())
    })
}

/// One Warning for each condition that became False, about the right object and with its words.
fn refusals_have_events(system: &System) -> Result<()> {
    for (name, reason, part) in [
        ("bad-regex", "Invalid", "Accepted: spec.http[0].match[0].uri.regex"),
        ("rewrites", "Invalid", "Accepted: spec.http[0].rewrite"),
        ("no-subset", "SubsetNotFound", "ResolvedRefs: spec.http[0].mirror"),
        ("second", "Conflicted", "Accepted: spec.hosts[0]"),
    ] {
        wait_for(&format!("an Event about {name}"), CEILING / 4, || {
            let events = events(system, name)?;
            let told = events.iter().any(|event| {
                let message = event["message"].as_str().unwrap_or_default();
                event["reason"] == reason && event["type"] == "Warning" && message.contains(part)
            });
            ensure!(told, "{reason} is not among {}", json!(events));
            Ok(())
        })?;
    }
    let quiet = events(system, "fine")?;
    ensure!(quiet.iter().all(|event| event["type"] != "Warning"), "fine: {}", json!(quiet));
    Ok(())
}

fn events(system: &System, name: &str) -> Result<Vec<Value>> {
    let about = format!("involvedObject.kind=VirtualService,involvedObject.name={name}");
    let list = system.server.kubectl().get(&["events", "--field-selector", &about])?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

/// A change that is nobody's concern goes through the whole pipe: no object is written on its account.
fn nothing_changed_writes_nothing(system: &System) -> Result<()> {
    let before = versions(system)?;
    let written = writes(system)?;
    // A new service comes, is governed and programmed: by then all conditions have been computed again.
    system.apply(&objects::list([
        objects::service("late", &[]),
        objects::destination_rule("late"),
        objects::virtual_service("late"),
    ]))?;
    system.wait_condition(&["vs", "late"], "ResolvedRefs", "True")?;
    system.wait_condition(&["vs", "late"], "Programmed", "True")?;
    let after = versions(system)?;
    for (name, version) in before.as_object().context("versions by name")? {
        ensure!(after[name] == *version, "{name} was written without need: {version}, now {}", after[name]);
    }
    ensure!(writes(system)? > written, "the new objects' status was not counted");
    Ok(())
}

/// Another writer's condition and fields in the same status, as Istio's own controllers write them.
fn others_conditions_stay(system: &System) -> Result<()> {
    let kubectl = system.server.kubectl();
    let theirs = json!({
        "type": "Reconciled", "status": "True", "observedGeneration": "1", "ofIstio": {"kept": true},
        "lastTransitionTime": "2026-01-01T00:00:00Z"
    });
    let add = json!([
        {"op": "add", "path": "/status/conditions/0", "value": theirs},
        {"op": "add", "path": "/status/validationMessages", "value": [{"level": "INFO"}]},
    ]);
    let patch = add.to_string();
    kubectl.run(&["patch", "vs", "fine", "--subresource=status", "--type=json", "-p", &patch])?;
    let mirror = json!([{"op": "replace", "path": "/spec/http/0/mirror/subset", "value": "v9"}]).to_string();
    kubectl.run(&["patch", "vs", "fine", "--type=json", "-p", &mirror])?;
    system.wait_condition(&["vs", "fine"], "ResolvedRefs", "False")?;
    let object = kubectl.get(&["vs", "fine"])?;
    ensure!(condition(&object, "Reconciled") == theirs, "changed: {}", object["status"]);
    ensure!(object["status"]["validationMessages"] == json!([{"level": "INFO"}]), "{}", object["status"]);
    let count = object["status"]["conditions"].as_array().map_or(0, Vec::len);
    ensure!(count == 4, "{count} conditions: {}", object["status"]);
    Ok(())
}

fn mending_is_told(system: &System) -> Result<()> {
    let kubectl = system.server.kubectl();
    let right =
        json!([{"op": "replace", "path": "/spec/http/0/match/0/uri/regex", "value": "/a.*"}]).to_string();
    kubectl.run(&["patch", "vs", "bad-regex", "--type=json", "-p", &right])?;
    system.wait_condition(&["vs", "bad-regex"], "Accepted", "True")?;
    system.wait_condition(&["vs", "bad-regex"], "Programmed", "True")?;
    // The older one goes: the younger one has the host.
    kubectl.run(&["delete", "vs", "fine"])?;
    system.wait_condition(&["vs", "second"], "Accepted", "True")?;
    system.wait_condition(&["vs", "second"], "Programmed", "True").map(drop)
}

/// resourceVersions of every VirtualService and DestinationRule.
fn versions(system: &System) -> Result<Value> {
    let list = system.server.kubectl().get(&["vs,dr"])?;
    let all = list["items"].as_array().context("items")?;
    let named = all.iter().map(|object| {
        let name = format!("{}/{}", object["kind"], object["metadata"]["name"]);
        (name, object["metadata"]["resourceVersion"].clone())
    });
    Ok(Value::Object(named.collect()))
}

fn writes(system: &System) -> Result<f64> {
    Ok(system.controller_samples()?.sum("umbra_controller_status_writes_total", &[("result", "ok")]))
}

fn services() -> Vec<Value> {
    let names = ["fine", "no-subset", "no-mirror", "bad-regex", "rewrites", "exports", "gated"];
    names.iter().map(|name| objects::service(name, &[])).collect()
}

fn policed_rule() -> Value {
    let mut rule = objects::destination_rule("fine");
    rule["spec"]["trafficPolicy"] = json!({"connectionPool": {"tcp": {"maxConnections": 7}}});
    rule
}

fn rules() -> Vec<Value> {
    let to = |host: &str| json!([{"destination": {"host": host}}]);
    let vs = |name: &str, http: Value| {
        objects::virtual_service_with(name, &json!({"hosts": [name], "http": [http]}))
    };
    let gate = json!({"hosts": ["gated"], "gateways": ["public"], "http": [{"route": to("gated")}]});
    let exports = json!({"hosts": ["exports"], "exportTo": [".", "*"], "http": [{"route": to("exports")}]});
    let nobody = json!({"hosts": ["nobody-there"], "http": [{"route": to("fine")}]});
    let second = json!({"hosts": ["fine"], "http": [{"route": to("fine")}]});
    let mut of_nobody = objects::destination_rule("nobody");
    of_nobody["metadata"]["name"] = json!("of-nobody");
    vec![
        objects::destination_rule("no-subset"),
        vs("no-subset", json!({"route": to("no-subset"), "mirror": {"host": "no-subset", "subset": "v3"}})),
        vs("no-mirror", json!({"route": to("no-mirror"), "mirror": {"host": "nobody"}})),
        vs("bad-regex", json!({"match": [{"uri": {"regex": "/a("}}], "route": to("bad-regex")})),
        vs("rewrites", json!({"rewrite": {}, "route": to("rewrites")})),
        objects::virtual_service_with("exports", &exports),
        objects::virtual_service_with("at-the-gate", &gate),
        objects::virtual_service_with("nobody-there", &nobody),
        objects::virtual_service_with("second", &second),
        of_nobody,
    ]
}
