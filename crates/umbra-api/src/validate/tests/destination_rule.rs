//! Hosts, subsets, and for whom a DestinationRule is.

use super::*;

#[test]
fn hosts_and_subsets() {
    each(
        destination_rule,
        &[
            ("{host: '*.local', subsets: [{name: v1}, {name: v2, labels: {version: v2}}]}", ""),
            ("{host: '*'}", ""),
            ("{host: a b}", "host: \"a b\" is not the name of a service"),
            ("{host: ''}", "host: \"\" is not the name of a service"),
            ("{subsets: [{name: v.1}]}", "subsets[0].name: \"v.1\" is not a DNS label"),
            ("{subsets: [{name: ''}]}", "subsets[0].name: \"\" is not a DNS label"),
            (
                "{subsets: [{name: v1}, {name: v1}]}",
                "subsets[1].name: \"v1\" appears twice; only the first is used",
            ),
            (
                "{subsets: [{name: v1, labels: {version: 'a b'}}]}",
                "subsets[0].labels[version]: invalid label value",
            ),
            (
                "{subsets: [{name: v1, trafficPolicy: {}}]}",
                "subsets[0].trafficPolicy: traffic policy must have at least one field",
            ),
        ],
    );
}

#[test]
fn for_whom_it_is() {
    each(
        destination_rule,
        &[
            ("{exportTo: ['.']}", ""),
            ("{exportTo: ['*', a]}", "exportTo[0]: \"*\" stands alone"),
            ("{workloadSelector: {}}", ""),
            ("{workloadSelector: {matchLabels: {app: a}}, exportTo: ['.']}", ""),
            ("{workloadSelector: {matchLabels: {app: a}}, exportTo: [default]}", ""),
            (
                "{workloadSelector: {matchLabels: {app: a}}, exportTo: ['*']}",
                "exportTo[0]: \"*\": a destination rule with a workload selector",
            ),
            (
                "{workloadSelector: {matchLabels: {app: '*'}}}",
                "workloadSelector.matchLabels[app]: wildcard not allowed",
            ),
            (
                "{workloadSelector: {matchLabels: {'': a}}}",
                "workloadSelector.matchLabels[]: invalid label key",
            ),
        ],
    );
}
