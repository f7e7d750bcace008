//! What a rule does beside choosing destinations.

use super::*;

#[test]
fn redirects() {
    each(
        rule,
        &[
            ("{redirect: {}}", "redirect: redirect must specify URI, authority, scheme, or port"),
            ("{redirect: {redirectCode: 308}}", "redirect: redirect must specify"),
            ("{redirect: {port: 8080}}", ""),
            (
                "{redirect: {uri: /, prefixRewrite: /}}",
                "redirect.prefixRewrite: redirect uri and prefixRewrite exclude each other",
            ),
            (
                "{match: [{uri: {exact: /a}}], redirect: {prefixRewrite: /}}",
                "redirect.prefixRewrite: can only be used with prefix",
            ),
            ("{match: [{uri: {prefix: /a}}, {}], redirect: {prefixRewrite: /}}", ""),
            ("{redirect: {port: 0}}", "redirect.port: 0 is no port"),
            (
                "{redirect: {port: 80, derivePort: FROM_REQUEST_PORT}}",
                "redirect.derivePort: port and derivePort exclude",
            ),
            (
                "{redirect: {derivePort: FROM_MOON}}",
                "redirect.derivePort: \"FROM_MOON\" is not known; use one of FROM_PROTOCOL_DEFAULT",
            ),
            ("{redirect: {scheme: ftp}}", "redirect.scheme: \"ftp\" is not known; use one of http, https"),
            (
                "{redirect: {uri: /, redirectCode: 304}}",
                "redirect.redirectCode: 304 redirects nowhere; use 301, 302, 303, 307 or 308",
            ),
            ("{redirect: {uri: /, redirectCode: 200}}", "redirect.redirectCode: 200 redirects nowhere"),
        ],
    );
}

#[test]
fn rewrites() {
    each(
        rule,
        &[
            ("{rewrite: {uri: /a}}", ""),
            ("{rewrite: {}}", "rewrite: rewrite must specify at least one of"),
            (
                "{rewrite: {uri: /a, uriRegexRewrite: {match: a, rewrite: b}}}",
                "rewrite.uriRegexRewrite: rewrite cannot contain both",
            ),
            ("{rewrite: {uriRegexRewrite: {match: a}}}", "rewrite.uriRegexRewrite.rewrite: is empty"),
            ("{rewrite: {uriRegexRewrite: {rewrite: a}}}", "rewrite.uriRegexRewrite.match: is empty"),
            (
                "{rewrite: {authority: b}, route: [{destination: {host: a}, headers: {request: {add: {Host: c}}}}]}",
                "rewrite.authority: the authority is also set by",
            ),
            (
                "{rewrite: {authority: b}, headers: {request: {set: {Host: c}}}}",
                "rewrite.authority: the authority is also set by",
            ),
        ],
    );
}

#[test]
fn direct_responses_delegates_and_timeouts() {
    let body =
        |size: usize| format!("{{directResponse: {{status: 200, body: {{string: {}}}}}}}", "a".repeat(size));
    each(
        rule,
        &[
            ("{directResponse: {status: 600, body: {bytes: YWI=}}}", ""),
            (
                "{directResponse: {status: 99}}",
                "directResponse.status: HTTP status 99 is not in range; use 200 to 600",
            ),
            ("{directResponse: {status: 9999}}", "directResponse.status: "),
            (
                "{directResponse: {status: 200, body: {string: a, bytes: YQ==}}}",
                "directResponse.body: has both string and bytes",
            ),
            (
                "{directResponse: {status: 200, body: {bytes: 'no!'}}}",
                "directResponse.body.bytes: is not base64",
            ),
            (&body(100 * 1024), ""),
            (
                &body(100 * 1024 + 1),
                "warning IST0133 directResponse.body.string: large direct response bodies",
            ),
            (&body(1024 * 1024 + 1), "directResponse.body.string: response body size must be less than 1MB"),
            ("{delegate: {}}", "delegate.name: is empty"),
            ("{delegate: {name: a, namespace: b.c}}", "delegate.namespace: "),
            ("{timeout: 1.5s}", ""),
            ("{timeout: 0s}", "timeout: \"0s\" is too short; must be at least 1ms"),
            ("{timeout: 0.5ms}", "timeout: \"0.5ms\" is too short"),
            ("{timeout: '5'}", "timeout: \"5\" is not a duration"),
            ("{timeout: 1s500us}", "timeout: \"1s500us\" is too fine; only durations to ms precision"),
        ],
    );
}

#[test]
fn header_operations() {
    let request = |operations: Value| rule(json!({"headers": {"request": operations}}));
    each(
        request,
        &[
            ("{set: {x-a: b, Host: c}, add: {':authority': d}, remove: [x-b]}", ""),
            ("{set: {'': b}}", "headers.request.set[]: header name cannot be empty"),
            ("{add: {x a: b}}", "headers.request.add[x a]: header name \"x a\" is not a valid header name"),
            ("{set: {':path': /}}", "headers.request.set[:path]: invalid header"),
            ("{remove: [host]}", "headers.request.remove[0]: the host can be set or added in requests only"),
            ("{remove: [':method']}", "headers.request.remove[0]: invalid header"),
            ("{set: {x-a: \"a\\nb\"}}", "headers.request.set[x-a]: header value has control characters"),
            (
                "{set: {x-a: '100%'}}",
                "headers.request.set[x-a]: header value \"100%\" has a % that begins no operator; write %% for",
            ),
        ],
    );
    told(
        &rule(json!({"headers": {"response": {"set": {"host": "a"}}}})),
        &["headers.response.set[host]: the host can be set or added in requests only"],
    );
    told(
        &rule(
            json!({"route": [{"destination": {"host": "a"}, "headers": {"response": {"add": {":status": "200"}}}}]}),
        ),
        &["route[0].headers.response.add[:status]: invalid header"],
    );
}

#[test]
fn retries() {
    let retries = |retries: Value| rule(json!({"retries": retries}));
    each(
        retries,
        &[
            ("{attempts: 3, perTryTimeout: 1s, retryOn: ' 5xx, 503,unavailable', backoff: 25ms}", ""),
            ("{attempts: 0}", ""),
            ("{}", ""),
            ("{attempts: -1}", "retries.attempts: attempts cannot be negative"),
            (
                "{attempts: 0, perTryTimeout: 1s}",
                "retries.perTryTimeout: http retry policy configured when attempts are set to 0",
            ),
            ("{retryOn: 5xx}", "retries.retryOn: http retry policy configured when attempts are set to 0"),
            ("{retryRemoteLocalities: true}", "retries.retryRemoteLocalities: http retry policy configured"),
            ("{attempts: 1, retryOn: 'often'}", "retries.retryOn: \"often\" is not a valid retryOn policy"),
            ("{attempts: 1, retryOn: '99'}", "retries.retryOn: \"99\" is not a valid retryOn policy"),
            ("{attempts: 1, perTryTimeout: 0s}", "retries.perTryTimeout: \"0s\" is too short"),
            ("{attempts: 1, backoff: x}", "retries.backoff: \"x\" is not a duration"),
        ],
    );
}

#[test]
fn faults() {
    let fault = |fault: Value| rule(json!({"fault": fault}));
    each(
        fault,
        &[
            ("{delay: {fixedDelay: 1s, percentage: {value: 0.0001}}, abort: {grpcStatus: UNAVAILABLE}}", ""),
            ("{abort: {httpStatus: 503, percentage: {value: 0}}}", ""),
            ("{}", "fault: HTTP fault injection must have an abort and/or a delay"),
            ("{delay: {}}", "fault.delay.fixedDelay: is missing"),
            (
                "{delay: {exponentialDelay: 1s}}",
                "fault.delay.exponentialDelay: exponentialDelay not supported yet",
            ),
            ("{delay: {fixedDelay: 0s}}", "fault.delay.fixedDelay: \"0s\" is too short"),
            (
                "{delay: {fixedDelay: 1s, percentage: {value: 0.00001}}}",
                "fault.delay.percentage.value: percentage 0.00001 is too small",
            ),
            (
                "{delay: {fixedDelay: 1s, percentage: {value: 101}}}",
                "fault.delay.percentage.value: 101 is not a percentage",
            ),
            ("{delay: {fixedDelay: 1s, percent: 5}}", "warning IST0002 fault.delay.percent: "),
            ("{abort: {}}", "fault.abort: has no status"),
            ("{abort: {httpStatus: 99}}", "fault.abort.httpStatus: HTTP status 99 is not in range"),
            ("{abort: {grpcStatus: BUSY}}", "fault.abort.grpcStatus: gRPC status \"BUSY\" is not supported"),
            (
                "{abort: {http2Error: CANCEL}}",
                "fault.abort.http2Error: HTTP/2 abort fault injection not supported yet",
            ),
            ("{abort: {httpStatus: 500, grpcStatus: OK}}", "fault.abort: has more than one of"),
        ],
    );
}

#[test]
fn cors() {
    let cors = |policy: Value| rule(json!({"corsPolicy": policy}));
    each(
        cors,
        &[
            ("{}", ""),
            (
                "{allowOrigins: [{exact: 'https://a'}], allowMethods: ['*', GET], allowHeaders: ['*'], maxAge: 24h}",
                "",
            ),
            ("{allowOrigin: ['*']}", "warning IST0002 corsPolicy.allowOrigin: "),
            ("{allowOrigins: [{}]}", "corsPolicy.allowOrigins[0]: names no origin"),
            ("{allowOrigins: [{regex: ''}]}", "corsPolicy.allowOrigins[0].regex: is empty"),
            ("{allowMethods: [BREW]}", "corsPolicy.allowMethods[0]: \"BREW\" is not a supported HTTP method"),
            ("{allowHeaders: ['x a']}", "corsPolicy.allowHeaders[0]: \"x a\" is not the name of a header"),
            ("{exposeHeaders: ['']}", "corsPolicy.exposeHeaders[0]: "),
            (
                "{maxAge: 500ms}",
                "corsPolicy.maxAge: \"500ms\" is too fine; max_age duration is accurate only to seconds",
            ),
            ("{unmatchedPreflights: DROP}", "corsPolicy.unmatchedPreflights: \"DROP\" is not known"),
        ],
    );
}
