//! Wanted conditions into a status that others write too.

use umbra_api::{Condition, Generation, Status};

use super::{Truth, Wanted};

/// The status to write, or `None` when the present one says the same. Conditions and fields of others stay as they
/// are; a transition time changes only with its condition's status. `now` is RFC 3339.
pub fn merge(current: &Status, wanted: &[Wanted], generation: i64, now: &str) -> Option<Status> {
    let mut merged = current.clone();
    for wanted in wanted {
        match merged.conditions.iter_mut().find(|condition| condition.kind == wanted.kind) {
            Some(condition) => update(condition, wanted, generation, now),
            None => {
                let mut condition = Condition { kind: wanted.kind.into(), ..Condition::default() };
                update(&mut condition, wanted, generation, now);
                merged.conditions.push(condition);
            }
        }
    }
    if merged.observed_generation.as_ref().and_then(Generation::number) != Some(generation) {
        merged.observed_generation = Some(generation.into());
    }
    (merged != *current).then_some(merged)
}

fn update(condition: &mut Condition, wanted: &Wanted, generation: i64, now: &str) {
    let observed = condition.observed_generation.as_ref().and_then(Generation::number);
    // A controller that has just started knows less than the one before it.
    if wanted.truth == Truth::Unknown && observed == Some(generation) {
        return;
    }
    if condition.status != wanted.truth.as_str() || condition.last_transition_time.is_none() {
        condition.last_transition_time = Some(now.to_owned());
    }
    condition.status = wanted.truth.as_str().into();
    condition.reason = wanted.reason.into();
    condition.message.clone_from(&wanted.message);
    // Also where it was text: umbra writes integers.
    condition.observed_generation = Some(generation.into());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted(truth: Truth) -> Wanted {
        Wanted { kind: "Programmed", truth, reason: "R", message: "m".into() }
    }

    fn status(json: serde_json::Value) -> Status {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn others_are_left_alone_and_nothing_is_written_twice() {
        let before = status(json!({
            "conditions": [{"type": "Reconciled", "status": "True", "lastTransitionTime": "t0"}], "extra": 1,
        }));
        let first = merge(&before, &[wanted(Truth::False)], 2, "t1").unwrap();
        assert_eq!(
            serde_json::to_value(&first).unwrap(),
            json!({
                "conditions": [
                    {"type": "Reconciled", "status": "True", "lastTransitionTime": "t0"},
                    {"type": "Programmed", "status": "False", "reason": "R", "message": "m",
                        "lastTransitionTime": "t1", "observedGeneration": 2},
                ],
                "observedGeneration": 2, "extra": 1,
            })
        );
        assert_eq!(merge(&first, &[wanted(Truth::False)], 2, "t2"), None);
        let newer = merge(&first, &[wanted(Truth::False)], 3, "t2").unwrap();
        assert_eq!(newer.conditions[1].last_transition_time.as_deref(), Some("t1"), "the same status");
        let changed = merge(&first, &[wanted(Truth::True)], 2, "t2").unwrap();
        assert_eq!(changed.conditions[1].last_transition_time.as_deref(), Some("t2"));
    }

    #[test]
    fn unknown_does_not_overwrite_what_is_known_of_the_same_generation() {
        let known = merge(&Status::default(), &[wanted(Truth::True)], 2, "t1").unwrap();
        assert_eq!(merge(&known, &[wanted(Truth::Unknown)], 2, "t2"), None);
        let newer = merge(&known, &[wanted(Truth::Unknown)], 3, "t2").unwrap();
        assert_eq!(newer.conditions[0].status, "Unknown");
    }
}
