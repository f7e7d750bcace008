//! Hosts, gateways, exportTo, tls and tcp.

use super::*;

fn with_hosts(hosts: Value) -> Vec<Problem> {
    virtual_service(json!({"hosts": hosts, "http": [{"route": to("a")}]}))
}

#[test]
fn the_article_has_no_problem() {
    let article = json!({"hosts": ["sa-logic"], "http": [{
        "route": [{"destination": {"host": "sa-logic", "subset": "v1"}}],
        "mirror": {"host": "sa-logic", "subset": "v2"},
    }]});
    told(&virtual_service(article), &[]);
}

#[test]
fn hosts_are_dns_names_or_addresses_and_do_not_overlap() {
    for host in ["", "a_b", "-a", "a..b", "a/b", "*a", "a.*.b", &"a".repeat(64)] {
        told(&with_hosts(json!(["ok", host])), &["hosts[1]: "]);
    }
    for fine in [
        json!(["SA-Logic", "a.b.svc.cluster.local", "a.b.", "*.example.org", "10.0.0.1", "fd00::1"]),
        json!(["sa-logic", "sa-logic.default.svc.cluster.local"]),
        json!(["example.org", "*.example.org"]),
    ] {
        told(&with_hosts(fine), &[]);
    }
    told(&with_hosts(json!(["a", "a"])), &["hosts[1]: duplicate hosts in virtual service"]);
    told(&with_hosts(json!(["*.a.b", "c.a.b"])), &["hosts[1]: duplicate hosts in virtual service"]);
}

#[test]
fn a_wildcard_for_everything_is_for_gateways() {
    let all = |gateways: Value| {
        virtual_service(json!({"hosts": ["*"], "gateways": gateways, "http": [{"route": to("a")}]}))
    };
    told(&all(json!(["public", "mesh"])), &["hosts[0]: wildcard host * is not allowed"]);
    told(&all(json!([])), &["hosts[0]: wildcard host * is not allowed"]);
    told(&all(json!(["public"])), &[]);
}

#[test]
fn there_are_rules_and_a_delegate_has_http_rules_only() {
    let nothing = "http: http, tcp or tls must be provided in virtual service";
    told(&virtual_service(json!({"hosts": ["a"]})), &[nothing]);
    told(&virtual_service(json!({})), &[nothing]);
    told(&virtual_service(json!({"http": [{"route": to("a")}]})), &[]);
    let tcp = json!([{"route": to("a")}]);
    told(
        &virtual_service(json!({"gateways": ["mesh"], "tcp": tcp, "http": [{"delegate": {"name": "x"}}]})),
        &[
            "gateways: virtual service must have at least one host",
            "tcp: virtual service must have at least one host",
            "delegate: a virtual service without hosts is a delegate and cannot delegate",
        ],
    );
}

#[test]
fn gateways_and_namespaces_have_names() {
    let check = |spec: Value| {
        let mut spec = spec;
        spec["hosts"] = json!(["a"]);
        spec["http"] = json!([{"route": to("a")}]);
        virtual_service(spec)
    };
    each(
        check,
        &[
            ("{gateways: [mesh, public, istio-system/public]}", ""),
            (
                "{gateways: [public.istio-system.svc.cluster.local]}",
                "warning IST0133 gateways[0]: using legacy gateway name format",
            ),
            ("{gateways: ['a/b/c']}", "gateways[0]: \"a/b/c\" is not the name of a gateway"),
            ("{gateways: ['']}", "gateways[0]: \"\" is not the name of a gateway"),
            ("{exportTo: ['.', other]}", ""),
            ("{exportTo: ['*']}", ""),
            ("{exportTo: ['~']}", ""),
            ("{exportTo: ['*', other]}", "exportTo[0]: \"*\" stands alone"),
            ("{exportTo: [other, '~']}", "exportTo[1]: \"~\" stands alone"),
            ("{exportTo: [other, other]}", "exportTo[1]: duplicate entries in exportTo"),
            ("{exportTo: ['.', default]}", "exportTo[1]: duplicate entries in exportTo"),
            ("{exportTo: [a_b]}", "exportTo[0]: \"a_b\" is not the name of a namespace"),
        ],
    );
}

fn for_databases(mut spec: Value) -> Vec<Problem> {
    spec["hosts"] = json!(["db.example.org", "*.wild.org"]);
    virtual_service(spec)
}

#[test]
fn tls_rules() {
    each(
        for_databases,
        &[
            (
                "{tls: [{match: [{sniHosts: [db.example.org, a.wild.org, '*.wild.org']}], route: [{destination: {host: db}}]}]}",
                "",
            ),
            (
                "{tls: [{route: [{destination: {host: db}}]}]}",
                "tls[0].match: TLS route must have at least one match condition",
            ),
            (
                "{tls: [{match: [{}], route: [{destination: {host: db}}]}]}",
                "tls[0].match[0].sniHosts: TLS match must have",
            ),
            (
                "{tls: [{match: [{sniHosts: [other.org]}], route: [{destination: {host: db}}]}]}",
                "tls[0].match[0].sniHosts[0]: SNI host",
            ),
            ("{tls: [{match: [{sniHosts: [a.wild.org]}]}]}", "tls[0].route: TLS route is required"),
        ],
    );
}

#[test]
fn tcp_rules() {
    each(
        for_databases,
        &[
            (
                "{tcp: [{match: [{port: 1, destinationSubnets: [10.0.0.0/8, '::1']}], route: [{destination: {host: db}}]}]}",
                "",
            ),
            ("{tcp: [{}]}", "tcp[0].route: TCP route is required"),
            (
                "{tcp: [{match: [{port: 0}], route: [{destination: {host: db}}]}]}",
                "tcp[0].match[0].port: 0 is no port",
            ),
            (
                "{tcp: [{match: [{destinationSubnets: [10.0.0.0/33]}], route: [{destination: {host: db}}]}]}",
                "tcp[0].match[0].destinationSubnets[0]: ",
            ),
            (
                "{tcp: [{match: [{sourceLabels: {a: b c}}], route: [{destination: {host: db}}]}]}",
                "tcp[0].match[0].sourceLabels[a]: invalid label value",
            ),
            (
                "{tcp: [{match: [{sourceNamespace: a.b}], route: [{destination: {host: db}}]}]}",
                "tcp[0].match[0].sourceNamespace: ",
            ),
            (
                "{tcp: [{route: [{destination: {host: a}}, {destination: {host: b}}]}]}",
                "tcp[0].route: total destination weight = 0",
            ),
            (
                "{tcp: [{route: [{destination: {host: '*'}}]}]}",
                "tcp[0].route[0].destination.host: \"*\" is no destination",
            ),
        ],
    );
}
