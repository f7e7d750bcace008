//! A DestinationRule's policy; in a subset and in a port it is checked by the same lines.

use super::*;

fn policy(policy: Value) -> Vec<Problem> {
    let strip = |mut problem: Problem| {
        problem.path = problem.path.strip_prefix("spec.trafficPolicy.").unwrap_or(&problem.path).to_owned();
        problem
    };
    destination_rule(json!({"trafficPolicy": policy})).into_iter().map(strip).collect()
}

#[test]
fn the_policy_as_a_whole() {
    each(
        policy,
        &[
            ("{}", "trafficPolicy: traffic policy must have at least one field"),
            ("{outlierDetection: {}}", ""),
            ("{portLevelSettings: [{port: {number: 80}, tls: {mode: SIMPLE}}]}", ""),
            (
                "{portLevelSettings: [{port: {number: 80}}]}",
                "portLevelSettings[0]: portLevel traffic policy must have",
            ),
            ("{portLevelSettings: [{tls: {mode: SIMPLE}}]}", "portLevelSettings[0].port: is missing"),
            (
                "{portLevelSettings: [{port: {number: 0}, tls: {mode: SIMPLE}}]}",
                "portLevelSettings[0].port.number: 0 is no port",
            ),
            (
                "{portLevelSettings: [{port: {number: 80}, connectionPool: {}}]}",
                "portLevelSettings[0].connectionPool: connection pool must",
            ),
            (
                "{tunnel: {targetHost: a, targetPort: 1}, proxyProtocol: {}}",
                "proxyProtocol: tunnel and proxyProtocol must not be set together",
            ),
            (
                "{tunnel: {protocol: PUT, targetHost: a, targetPort: 1}}",
                "tunnel.protocol: \"PUT\" is not known",
            ),
            ("{tunnel: {targetHost: '*.a', targetPort: 1}}", "tunnel.targetHost: has a wildcard"),
            ("{tunnel: {targetHost: a}}", "tunnel.targetPort: 0 is no port"),
            ("{proxyProtocol: {version: V3}}", "proxyProtocol.version: \"V3\" is not known"),
            ("{retryBudget: {percent: 101}}", "retryBudget.percent: 101 is not a percentage"),
            ("{retryBudget: {budgetInterval: 0s}}", ""),
        ],
    );
}

#[test]
fn connection_pools() {
    let pool = |pool: Value| policy(json!({"connectionPool": pool}));
    each(
        pool,
        &[
            ("{tcp: {maxConnections: 0, idleTimeout: 0s}, http: {maxRetries: 1}}", ""),
            ("{}", "connectionPool: connection pool must have at least one field"),
            ("{tcp: {maxConnections: -1}}", "connectionPool.tcp.maxConnections: -1 is negative"),
            ("{tcp: {connectTimeout: 0s}}", "connectionPool.tcp.connectTimeout: \"0s\" is too short"),
            ("{tcp: {idleTimeout: 1us}}", "connectionPool.tcp.idleTimeout: \"1us\" is too short"),
            (
                "{tcp: {tcpKeepalive: {time: x}}}",
                "connectionPool.tcp.tcpKeepalive.time: \"x\" is not a duration",
            ),
            ("{http: {http2MaxRequests: -1}}", "connectionPool.http.http2MaxRequests: -1 is negative"),
            (
                "{http: {h2UpgradePolicy: MAYBE}}",
                "connectionPool.http.h2UpgradePolicy: \"MAYBE\" is not known",
            ),
            (
                "{http: {h2UpgradePolicy: UPGRADE, useClientProtocol: true}}",
                "connectionPool.http.useClientProtocol: use client protocol must",
            ),
            ("{http: {h2UpgradePolicy: UPGRADE, useClientProtocol: false}}", ""),
            (
                "{http: {http2KeepAlive: {interval: 1s}}}",
                "connectionPool.http.http2KeepAlive.timeout: is missing",
            ),
        ],
    );
}

#[test]
fn load_balancers() {
    let balancer = |balancer: Value| policy(json!({"loadBalancer": balancer}));
    each(
        balancer,
        &[
            ("{simple: ROUND_ROBIN, warmup: {duration: 30s}}", ""),
            ("{simple: BEST}", "loadBalancer.simple: \"BEST\" is not known"),
            ("{simple: LEAST_CONN}", "warning IST0002 loadBalancer.simple: "),
            (
                "{simple: RANDOM, consistentHash: {useSourceIp: true}}",
                "loadBalancer.consistentHash: simple and consistentHash exclude",
            ),
            ("{warmupDurationSecs: 30s}", "warning IST0002 loadBalancer.warmupDurationSecs: "),
            ("{warmup: {}}", "loadBalancer.warmup.duration: is missing"),
            (
                "{warmup: {duration: 1s, minimumPercent: 101}}",
                "loadBalancer.warmup.minimumPercent: 101 is not a percentage",
            ),
            (
                "{warmup: {duration: 1s, aggression: 0}}",
                "loadBalancer.warmup.aggression: aggression must be above 0",
            ),
        ],
    );
}

#[test]
fn hashes() {
    let hash = |hash: Value| {
        let strip = |mut problem: Problem| {
            problem.path = problem.path.replace("loadBalancer.consistentHash", "hash");
            problem
        };
        policy(json!({"loadBalancer": {"consistentHash": hash}})).into_iter().map(strip).collect()
    };
    each(
        hash,
        &[
            (
                "{httpCookie: {name: a, ttl: 0s, attributes: [{name: SameSite, value: Lax}]}, maglev: {tableSize: 65537}}",
                "",
            ),
            ("{}", "warning IST0133 hash: names nothing that requests are alike in"),
            (
                "{useSourceIp: true, httpHeaderName: a}",
                "hash.useSourceIp: httpHeaderName and useSourceIp exclude each other",
            ),
            ("{httpHeaderName: ''}", "hash.httpHeaderName: is empty"),
            ("{httpCookie: {ttl: 1s}}", "hash.httpCookie.name: name required for HttpCookie"),
            (
                "{httpCookie: {name: a, attributes: [{name: b}, {name: B}]}}",
                "hash.httpCookie.attributes[1].name: duplicate cookie attribute",
            ),
            ("{httpCookie: {name: a, attributes: [{value: b}]}}", "hash.httpCookie.attributes[0].name: "),
            (
                "{useSourceIp: true, ringHash: {}, maglev: {tableSize: 7}}",
                "hash.maglev: ringHash and maglev exclude each other",
            ),
            ("{useSourceIp: true, maglev: {}}", "hash.maglev.tableSize: tableSize must be set"),
            (
                "{useSourceIp: true, maglev: {tableSize: 65536}}",
                "hash.maglev.tableSize: tableSize must be a prime number",
            ),
            (
                "{useSourceIp: true, maglev: {tableSize: 5000011}}",
                "hash.maglev.tableSize: tableSize must be less than 5000011",
            ),
            ("{useSourceIp: true, minimumRingSize: 1}", "warning IST0002 hash.minimumRingSize: "),
        ],
    );
    told(
        &hash(json!({"useSourceIp": true, "minimumRingSize": 1, "ringHash": {}})),
        &["warning IST0002 hash.minimumRingSize: ", "hash.minimumRingSize: only one of"],
    );
}

#[test]
fn localities() {
    let balancer = |balancer: Value| policy(json!({"loadBalancer": balancer, "outlierDetection": {}}));
    each(
        balancer,
        &[
            ("{localityLbSetting: {distribute: [{from: a/*, to: {a/*: 80, b: 20}}]}}", ""),
            ("{localityLbSetting: {failover: [{from: a, to: b}]}}", ""),
            (
                "{localityLbSetting: {distribute: [{from: a, to: {a: 90}}]}}",
                "loadBalancer.localityLbSetting.distribute[0].to: total locality weight 90 != 100",
            ),
            (
                "{localityLbSetting: {distribute: [{from: a, to: {a: 100, b: 0}}]}}",
                "loadBalancer.localityLbSetting.distribute[0].to[b]: locality weight must be in range",
            ),
            (
                "{localityLbSetting: {distribute: [{from: a/*/b, to: {a: 100}}]}}",
                "loadBalancer.localityLbSetting.distribute[0].from: locality",
            ),
            (
                "{localityLbSetting: {failover: [{from: a, to: a}]}}",
                "loadBalancer.localityLbSetting.failover[0]: locality lb failover settings must specify different",
            ),
            (
                "{localityLbSetting: {failover: [{from: a/b, to: c}]}}",
                "loadBalancer.localityLbSetting.failover[0].from: locality lb failover only specify region",
            ),
            (
                "{localityLbSetting: {distribute: [{from: a, to: {a: 100}}], failover: [{from: a, to: b}]}}",
                "loadBalancer.localityLbSetting.failover: can not simultaneously",
            ),
            (
                "{localityLbSetting: {}, zoneAwareLbSetting: {}}",
                "loadBalancer.zoneAwareLbSetting: localityLbSetting and zoneAwareLbSetting exclude",
            ),
        ],
    );
    told(
        &policy(json!({"loadBalancer": {"localityLbSetting": {"failover": [{"from": "a", "to": "b"}]}}})),
        &[
            "warning IST0133 loadBalancer.localityLbSetting.failover: outlier detection policy must be provided",
        ],
    );
}

#[test]
fn outliers() {
    each(
        policy,
        &[
            (
                "{outlierDetection: {splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 1}}",
                "",
            ),
            (
                "{outlierDetection: {consecutiveLocalOriginFailures: 1}}",
                "outlierDetection.consecutiveLocalOriginFailures: outlier detection consecutive",
            ),
            (
                "{outlierDetection: {consecutiveErrors: 1}}",
                "warning IST0002 outlierDetection.consecutiveErrors: ",
            ),
            ("{outlierDetection: {interval: 0s}}", "outlierDetection.interval: \"0s\" is too short"),
            (
                "{outlierDetection: {maxEjectionPercent: 101}}",
                "outlierDetection.maxEjectionPercent: 101 is not a percentage",
            ),
            (
                "{outlierDetection: {minHealthPercent: -1}}",
                "outlierDetection.minHealthPercent: -1 is not a percentage",
            ),
            (
                "{outlierDetection: {outlierDetectionHttpErrorCodes: [600]}}",
                "outlierDetection.outlierDetectionHttpErrorCodes[0]: 600 is no",
            ),
        ],
    );
}

#[test]
fn tls_modes() {
    each(
        policy,
        &[
            ("{tls: {mode: MUTUAL, clientCertificate: a, privateKey: b}}", ""),
            (
                "{tls: {mode: MUTUAL, clientCertificate: a}}",
                "tls.privateKey: is missing; required for mutual tls",
            ),
            (
                "{tls: {mode: MUTUAL, credentialName: a}}",
                "warning IST0133 tls.credentialName: is used only with a workloadSelector",
            ),
            ("{tls: {mode: ISTIO_MUTUAL, sni: a}}", ""),
            ("{tls: {mode: ISTIO_MUTUAL, privateKey: a}}", "tls.privateKey: cannot be set with ISTIO_MUTUAL"),
            ("{tls: {mode: DISABLE, sni: a}}", "warning IST0133 tls.sni: has no effect with mode DISABLE"),
            ("{tls: {mode: PLAIN}}", "tls.mode: \"PLAIN\" is not known"),
            (
                "{tls: {mode: SIMPLE, insecureSkipVerify: true, subjectAltNames: [a]}}",
                "tls.insecureSkipVerify: cannot be true beside",
            ),
        ],
    );
    told(
        &destination_rule(json!({"workloadSelector": {"matchLabels": {"a": "b"}},
            "trafficPolicy": {"tls": {"mode": "SIMPLE", "credentialName": "c", "caCertificates": "d"}}})),
        &["trafficPolicy.tls.caCertificates: cannot be set with credentialName"],
    );
}
