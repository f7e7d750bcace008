//! What an exchange was: who asked whom, and how it ended in Envoy's words.

use std::fmt;
use std::sync::Arc;

use http::StatusCode;
use umbra_routing::{Client, ServiceName, grpc_status_of};

use crate::balance::Upstream;

/// What went wrong, by Envoy's response flags, as far as they can happen here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Flags {
    /// Nothing went wrong.
    #[default]
    None,
    /// No rule matches.
    NoRoute,
    /// The destination is not defined.
    NoCluster,
    /// No ready endpoint.
    NoHealthyUpstream,
    /// Connecting failed.
    UpstreamConnectFailure,
    /// The upstream ended the connection before its answer was whole.
    UpstreamTermination,
    /// The upstream ended this request's stream of HTTP/2, and nothing else.
    UpstreamReset,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// A rule's fault answered.
    FaultInjected,
    /// The client left before the answer was whole.
    DownstreamTermination,
}

impl Flags {
    fn as_str(self) -> &'static str {
        match self {
            Self::None => "",
            Self::NoRoute => "NR",
            Self::NoCluster => "NC",
            Self::NoHealthyUpstream => "UH",
            Self::UpstreamConnectFailure => "UF",
            Self::UpstreamTermination => "UC",
            Self::UpstreamReset => "UR",
            Self::UpstreamTimeout => "UT",
            Self::FaultInjected => "FI",
            Self::DownstreamTermination => "DC",
        }
    }
}

/// All of an exchange's response flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct ResponseFlags {
    pub(crate) cause: Flags,
    /// A rule's fault made it wait.
    pub(crate) delayed: bool,
    /// It would have been sent once more, had its rule allowed that.
    pub(crate) retries_exceeded: bool,
}

impl From<Flags> for ResponseFlags {
    fn from(cause: Flags) -> Self {
        Self { cause, ..Self::default() }
    }
}

impl fmt::Display for ResponseFlags {
    /// In Envoy's order, with `-` for none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after_delay = [Flags::FaultInjected, Flags::DownstreamTermination, Flags::NoCluster];
        let (before, after) = match self.cause {
            late if after_delay.contains(&late) => ("", late.as_str()),
            early => (early.as_str(), ""),
        };
        let delayed = if self.delayed { "DI" } else { "" };
        let exceeded = if self.retries_exceeded { "URX" } else { "" };
        let all = [before, delayed, after, exceeded];
        let mut set = all.into_iter().filter(|flag| !flag.is_empty());
        f.write_str(set.next().unwrap_or("-"))?;
        set.try_for_each(|flag| write!(f, ",{flag}"))
    }
}

/// What was spoken above HTTP, by the request's content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Spoken {
    Http,
    /// With the status that the answer ended with.
    Grpc(Option<u8>),
}

impl Spoken {
    /// `status` said by the answer's head or trailers, or else what stands for its HTTP status as Envoy has it.
    pub(crate) fn new(is_grpc: bool, status: Option<u8>, code: u16) -> Self {
        if !is_grpc {
            return Self::Http;
        }
        let stands_for = StatusCode::from_u16(code).ok().map(grpc_status_of);
        Self::Grpc(status.or(stands_for))
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc(_) => "grpc",
        }
    }

    pub(super) fn grpc_status(self) -> String {
        match self {
            Self::Grpc(Some(status)) => status.to_string(),
            Self::Http | Self::Grpc(None) => String::new(),
        }
    }
}

/// Who asked whom and how it ended: everything that labels are made of.
pub(crate) struct Exchange<'a> {
    pub(crate) client: Option<&'a Arc<Client>>,
    /// The host that was asked for.
    pub(crate) service: &'a Arc<ServiceName>,
    /// Who answered, if anybody was asked.
    pub(crate) upstream: Option<&'a Arc<Upstream>>,
    /// 0 when the client left before there was an answer.
    pub(crate) code: u16,
    pub(crate) spoken: Spoken,
    pub(crate) flags: ResponseFlags,
    pub(crate) shadow: bool,
}

impl Exchange<'_> {
    /// How it ended and what it was, as one number: equal when these are.
    pub(super) fn kind(&self) -> u64 {
        let spoken = match self.spoken {
            Spoken::Http => 0,
            Spoken::Grpc(None) => 1,
            Spoken::Grpc(Some(status)) => 2 + u64::from(status),
        };
        let ResponseFlags { cause, delayed, retries_exceeded } = self.flags;
        let told = u64::from(delayed) | u64::from(retries_exceeded) << 1 | u64::from(self.shadow) << 2;
        u64::from(self.code) | spoken << 16 | (cause as u64) << 32 | told << 40
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_told_together_in_envoys_order() {
        use Flags::{
            DownstreamTermination, FaultInjected, NoCluster, None, UpstreamConnectFailure, UpstreamTimeout,
        };
        for (cause, delayed, retries_exceeded, expected) in [
            (None, false, false, "-"),
            (None, true, false, "DI"),
            (None, false, true, "URX"),
            (UpstreamTimeout, true, false, "UT,DI"),
            (UpstreamConnectFailure, false, true, "UF,URX"),
            (UpstreamConnectFailure, true, true, "UF,DI,URX"),
            (FaultInjected, true, false, "DI,FI"),
            (DownstreamTermination, true, false, "DI,DC"),
            (NoCluster, true, false, "DI,NC"),
        ] {
            assert_eq!(ResponseFlags { cause, delayed, retries_exceeded }.to_string(), expected);
        }
    }

    #[test]
    fn grpc_has_a_status_in_any_case() {
        let told = |spoken: Spoken| (spoken.name(), spoken.grpc_status());
        assert_eq!(told(Spoken::new(false, Some(5), 200)), ("http", String::new()));
        assert_eq!(told(Spoken::new(true, Some(0), 200)), ("grpc", "0".to_owned()));
        assert_eq!(told(Spoken::new(true, None, 503)), ("grpc", "14".to_owned()));
        assert_eq!(told(Spoken::new(true, None, 0)), ("grpc", String::new()), "there was no answer");
    }

    #[test]
    fn kinds_differ_where_exchanges_do() {
        let service = Arc::new(ServiceName::new("shop", "pay"));
        let spoken = [Spoken::Http, Spoken::Grpc(None), Spoken::Grpc(Some(0)), Spoken::Grpc(Some(255))];
        let causes = [Flags::None, Flags::NoRoute, Flags::DownstreamTermination];
        let mut kinds = std::collections::HashSet::new();
        for (code, spoken, cause) in [0, 200, 999, u16::MAX]
            .into_iter()
            .flat_map(|code| spoken.map(|spoken| (code, spoken)))
            .flat_map(|(code, spoken)| causes.map(|cause| (code, spoken, cause)))
        {
            for bits in 0..8 {
                let [delayed, retries_exceeded, shadow] = [1, 2, 4].map(|bit| bits & bit != 0);
                let flags = ResponseFlags { cause, delayed, retries_exceeded };
                let (client, upstream) = (None, None);
                let exchange = Exchange { client, service: &service, upstream, code, spoken, flags, shadow };
                assert!(kinds.insert(exchange.kind()), "{code} {spoken:?} {flags:?} {shadow}");
            }
        }
    }
}
