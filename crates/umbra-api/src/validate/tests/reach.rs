//! Rules behind others.

use super::*;

fn rules(matches: Value) -> Vec<Problem> {
    let rules = matches.as_array().unwrap().iter().map(|blocks| json!({"match": blocks, "route": to("a")}));
    virtual_service(json!({"hosts": ["a"], "http": rules.collect::<Vec<_>>()}))
}

#[test]
fn rules_behind_one_that_takes_everything_are_not_reached() {
    for all in [
        "[]",
        "[{}]",
        "[{name: x}]",
        "[{uri: {prefix: /}}]",
        "[{uri: {regex: '.*'}}]",
        "[{uri: {prefix: ''}}]",
        "[{uri: {}, method: {}, sourceNamespace: ''}]",
    ] {
        let two: Value = serde_saphyr::from_str(&format!("[{all}, [{{uri: {{exact: /a}}}}]]")).unwrap();
        told(
            &rules(two),
            &[
                "warning IST0130 http[1]: virtualService rule #1 not used (only the last rule can have no matches)",
            ],
        );
    }
    for some in
        ["[{uri: {prefix: /a}}]", "[{port: 80}]", "[{sourceLabels: {a: b}}]", "[{method: {regex: '.*'}}]"]
    {
        let two: Value = serde_saphyr::from_str(&format!("[{some}, [{{uri: {{exact: /b}}}}]]")).unwrap();
        told(&rules(two), &[]);
    }
}

#[test]
fn a_delegate_may_leave_requests_over() {
    let rules = json!([{"delegate": {"name": "x"}}, {"route": to("a")}]);
    told(&virtual_service(json!({"hosts": ["a"], "http": rules})), &[]);
    let block = json!([{"uri": {"prefix": "/a"}}]);
    let rules = json!([{"match": block, "delegate": {"name": "x"}}, {"match": block, "route": to("a")}]);
    told(&virtual_service(json!({"hosts": ["a"], "http": rules})), &[]);
}

#[test]
fn blocks_that_earlier_ones_cover_make_no_difference() {
    each(
        rules,
        &[
            (
                "[[{uri: {prefix: /a}}], [{uri: {prefix: /ab}}]]",
                "warning IST0130 http[1]: virtualService rule #1 not used (all matches are covered",
            ),
            ("[[{uri: {prefix: /a}}], [{uri: {exact: /a}}]]", "warning IST0130 http[1]: "),
            (
                "[[{uri: {prefix: /a}}], [{uri: {exact: /ab}}, {uri: {exact: /b}}]]",
                "info IST0131 http[1].match[0]: ",
            ),
            ("[[{uri: {exact: /a}}, {uri: {exact: /a}, name: x}]]", "info IST0131 match[1]: "),
            (
                "[[{method: {exact: GET}}], [{method: {exact: GET}, uri: {exact: /a}}]]",
                "warning IST0130 http[1]: ",
            ),
            (
                "[[{headers: {x-a: {exact: b}}}], [{headers: {x-a: {exact: b}, x-c: {}}}]]",
                "warning IST0130 http[1]: ",
            ),
            ("[[{uri: {prefix: /ab}}], [{uri: {prefix: /a}}]]", ""),
            ("[[{uri: {prefix: /a}, ignoreUriCase: true}], [{uri: {prefix: /ab}}]]", ""),
            ("[[{uri: {prefix: /a}, port: 80}], [{uri: {prefix: /ab}}]]", ""),
            ("[[{uri: {prefix: /a}, sourceLabels: {a: b}}], [{uri: {prefix: /ab}}]]", ""),
            ("[[{uri: {regex: /a.*}}], [{uri: {prefix: /ab}}]]", ""),
            ("[[{headers: {x-a: {}}}], [{headers: {x-a: {exact: b}}}]]", ""),
        ],
    );
}
