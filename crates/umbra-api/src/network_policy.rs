//! NetworkPolicy, slim: whom it selects and which way it looks. What it allows is the network's business.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::meta::{Labels, Meta, null_is_default};

/// What umbra uses of a networking.k8s.io/v1 NetworkPolicy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NetworkPolicy {
    /// Name and namespace.
    pub metadata: Meta,
    /// Whom it is about.
    pub spec: NetworkPolicySpec,
}

/// `spec` of a NetworkPolicy, with `policyTypes` as Kubernetes completes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "Written")]
pub struct NetworkPolicySpec {
    /// The pods of its namespace that it is for.
    pub pod_selector: LabelSelector,
    /// It says who may connect to them.
    pub ingress: bool,
    /// It says where they may connect to.
    pub egress: bool,
}

/// Labels that an object must have. Empty: all objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Each label with this value.
    #[serde(deserialize_with = "null_is_default")]
    pub match_labels: Labels,
    /// And each of these.
    #[serde(deserialize_with = "null_is_default")]
    pub match_expressions: Vec<LabelExpression>,
}

/// One condition on a label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LabelExpression {
    /// The label's name.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`. The API server takes no other; from a file, another one selects: who
    /// guards what a policy selects guards rather too much.
    pub operator: String,
    /// For `In` and `NotIn`.
    #[serde(deserialize_with = "null_is_default")]
    pub values: Vec<String>,
}

impl LabelSelector {
    /// Whether an object with exactly these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        let labelled = self.match_labels.iter().all(|(name, value)| labels.get(name) == Some(value));
        labelled && self.match_expressions.iter().all(|condition| condition.matches(labels))
    }

    /// Whether objects that have these labels, and others that are not known, are selected; `None`: that depends on
    /// the others.
    pub fn matches_part(&self, known: &Labels) -> Option<bool> {
        let labelled = self.match_labels.iter().map(|(name, value)| known.get(name).map(|has| has == value));
        let conditions =
            self.match_expressions.iter().map(|condition| condition.matches_part(known.get(&condition.key)));
        let mut all = Some(true);
        for one in labelled.chain(conditions) {
            match one {
                Some(false) => return Some(false),
                Some(true) => {}
                None => all = None,
            }
        }
        all
    }
}

impl LabelExpression {
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        // Whether an absent label is asked for.
        value.map_or(matches!(self.operator.as_str(), "NotIn" | "DoesNotExist"), |value| self.allows(value))
    }

    /// With the label's value, if it is known to be there.
    fn matches_part(&self, value: Option<&String>) -> Option<bool> {
        value.map(|value| self.allows(value))
    }

    fn allows(&self, value: &String) -> bool {
        match self.operator.as_str() {
            "In" => self.values.contains(value),
            "NotIn" => !self.values.contains(value),
            "DoesNotExist" => false,
            _ => true,
        }
    }
}

impl Default for NetworkPolicySpec {
    fn default() -> Self {
        Written::default().into()
    }
}

/// As people write it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Written {
    #[serde(deserialize_with = "null_is_default")]
    pod_selector: LabelSelector,
    #[serde(deserialize_with = "null_is_default")]
    policy_types: Vec<String>,
    /// Of the rules only whether there are any.
    #[serde(deserialize_with = "null_is_default")]
    egress: Vec<IgnoredAny>,
}

impl From<Written> for NetworkPolicySpec {
    /// Without `policyTypes`: ingress always, egress where there are rules for it.
    fn from(written: Written) -> Self {
        let Written { pod_selector, policy_types, egress } = written;
        let names = |direction: &str| policy_types.iter().any(|name| name == direction);
        let said = !policy_types.is_empty();
        Self {
            pod_selector,
            ingress: !said || names("Ingress"),
            egress: if said { names("Egress") } else { !egress.is_empty() },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(spec: &Value) -> NetworkPolicySpec {
        let policy: NetworkPolicy = serde_json::from_value(json!({"spec": spec})).unwrap();
        policy.spec
    }

    #[test]
    fn directions_are_those_that_kubernetes_fills_in() {
        let cases = [
            (json!({}), (true, false)),
            (json!({"policyTypes": null, "egress": null}), (true, false)),
            (json!({"egress": []}), (true, false)),
            (json!({"egress": [{}]}), (true, true)),
            (json!({"policyTypes": ["Egress"]}), (false, true)),
            (json!({"policyTypes": ["Ingress"], "egress": [{"ports": [{"port": 53}]}]}), (true, false)),
            (json!({"policyTypes": ["Ingress", "Egress"], "ingress": [{"from": []}]}), (true, true)),
        ];
        for (written, expected) in cases {
            let read = spec(&written);
            assert_eq!((read.ingress, read.egress), expected, "{written}");
        }
        assert!(NetworkPolicySpec::default().ingress, "a policy without a spec shuts its namespace");
    }

    fn labels(labels: &Value) -> Labels {
        serde_json::from_value(labels.clone()).unwrap()
    }

    #[test]
    fn labels_that_are_known_decide_when_they_can() {
        let one = |operator: &str, values: Value| json!({"matchExpressions": [{"key": "v", "operator": operator, "values": values}]});
        let v1 = json!({"v": "v1"});
        // Selector, labels, whether exactly these are selected, and whether these and unknown others are.
        let cases = [
            (json!({}), json!({}), true, Some(true)),
            (json!({"matchLabels": {"v": "v1"}}), v1.clone(), true, Some(true)),
            (json!({"matchLabels": {"v": "v2"}}), v1.clone(), false, Some(false)),
            (json!({"matchLabels": {"v": "v1"}}), json!({}), false, None),
            (one("In", json!(["v1", "v2"])), v1.clone(), true, Some(true)),
            (one("In", json!(["v2"])), v1.clone(), false, Some(false)),
            (one("In", json!(["v2"])), json!({}), false, None),
            (one("NotIn", json!(["v2"])), v1.clone(), true, Some(true)),
            (one("NotIn", json!(["v1"])), v1.clone(), false, Some(false)),
            (one("NotIn", json!(["v1"])), json!({}), true, None),
            (one("Exists", json!(null)), v1.clone(), true, Some(true)),
            (one("Exists", json!([])), json!({}), false, None),
            (one("DoesNotExist", json!([])), v1.clone(), false, Some(false)),
            (one("DoesNotExist", json!([])), json!({}), true, None),
            (
                json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "v", "operator": "Exists"}]}),
                v1,
                false,
                None,
            ),
        ];
        for (selector, of, exactly, partly) in cases {
            let selector = spec(&json!({"podSelector": selector})).pod_selector;
            assert_eq!(selector.matches(&labels(&of)), exactly, "{selector:?} {of}");
            assert_eq!(selector.matches_part(&labels(&of)), partly, "{selector:?} {of}");
        }
    }
}
