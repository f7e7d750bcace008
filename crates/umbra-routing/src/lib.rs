//! What a node knows and decides.
//!
//! Takes: tables as the controller computed them (`table`, `backends`), requests (`normalise`, `select`), pushes (`wire`,
//! `config`).
//! Gives: which rule, destination and mirrors a request gets; the node's configuration after a push; and, for the
//! controller, what to send so that a node gets from one snapshot to the next (`snapshot`).
//! Pure: no I/O, no clock, no randomness of its own; the caller passes draws.

mod act;
mod action;
mod backends;
mod config;
mod digest;
mod fallback;
mod head;
mod key;
mod matcher;
mod normalise;
mod route;
mod sample;
mod select;
mod snapshot;
mod table;
mod wire;

pub use act::{
    ABORT_MESSAGE, Aborted, Attempt, CorsDecision, CorsHeaders, Exchange, Failure, FormatError, LocalAnswer,
    RetryPolicy, RuleError, check_format, grpc_message, grpc_status, grpc_status_of, grpc_timeout,
    grpc_timeout_text, is_grpc,
};
pub use action::{
    Abort, AbortWith, Answer, Cors, Delay, DirectResponse, Fault, HeaderChanges, HeaderEdits, PathRewrite,
    Redirect, RedirectPath, RedirectPort, Retries, RetryOn, Rewrite,
};
pub use backends::{BackendRef, BackendSet, Endpoint, SpokenTo};
pub use config::{Applied, Config, ConfigError, Resource};
pub use digest::Digest;
pub use fallback::{SLOTS, Slots, sets_of, slots_of};
pub use head::{RequestHead, authority, scheme};
pub use key::{Key, KeyError};
pub use matcher::{HeaderMatch, MatchError, QueryMatch, RequestMatch, StringMatch};
pub use normalise::{BadPath, normalise};
pub use route::{MIRROR_DENOMINATOR, Route, RouteMirror};
pub use sample::SampleBy;
pub use select::{Draw, RouteTable, Selection};
pub use snapshot::{Encoded, NodeView, Resources, Snapshot};
pub use table::{
    Client, Mirror, NOT_ARMED_UNRESOLVED, NodeSettings, Port, Protocol, Rule, RuleOrigin, ServiceName,
    ServiceTable, Variant, WeightedBackend,
};
pub use wire::{
    CONFIG_PATH, EPOCH_HEADER, Holds, Patch, Put, Refusal, RefusedKey, Reply, STATE_PATH, SetPatch, State,
    VERSION_HEADER,
};
