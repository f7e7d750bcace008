//! Closed lists of words, each for the schema and for `validate()`.

/// Methods that a CORS policy may allow; `*` is the one asked for.
pub const CORS_METHODS: [&str; 10] =
    ["*", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE"];
/// `retryOn`'s words (spec/istio.md 1A); a number is a status.
pub const RETRY_ON: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "envoy-ratelimited",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];
/// gRPC's statuses by name, each at the place of its number.
pub const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
/// `redirect.derivePort`.
pub const DERIVE_PORT: [&str; 2] = ["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"];
/// `corsPolicy.unmatchedPreflights`.
pub const UNMATCHED_PREFLIGHTS: [&str; 3] = ["UNSPECIFIED", "FORWARD", "IGNORE"];
/// `loadBalancer.simple`.
pub const LOAD_BALANCERS: [&str; 6] =
    ["UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"];
/// `connectionPool.http.h2UpgradePolicy`.
pub const H2_UPGRADE_POLICIES: [&str; 3] = ["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"];
/// `tls.mode`.
pub const TLS_MODES: [&str; 4] = ["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"];
/// `proxyProtocol.version`.
pub const PROXY_PROTOCOL_VERSIONS: [&str; 2] = ["V1", "V2"];
