//! Flags that bound the data path. Defaults are those of [`Limits`], which say where they come from.

use std::num::NonZeroU32;
use std::time::Duration;

use http::{HeaderName, header};

use super::duration;
use crate::worker::{Limits, MirrorLimits, ShadowLimits};

/// Bounds of clients' connections and of copies.
#[derive(Debug, clap::Args)]
pub struct LimitArgs {
    /// On a port of unknown protocol, a client silent for so long is passed through as bytes.
    #[arg(long, env = "UMBRA_SNIFF_TIMEOUT", value_parser = duration, default_value = "1s")]
    pub sniff_timeout: Duration,
    /// A client's connection without a request is closed after so long, at the latest after twice as long.
    #[arg(long, env = "UMBRA_CLIENT_IDLE_TIMEOUT", value_parser = duration, default_value = "60m")]
    pub client_idle_timeout: Duration,
    /// Connections of all clients; more are closed at once and counted [default: half of the files that may be open].
    #[arg(long, env = "UMBRA_MAX_CONNECTIONS")]
    pub max_connections: Option<usize>,
    /// Connections of one pod [default: a quarter of the files that may be open].
    #[arg(long, env = "UMBRA_MAX_CONNECTIONS_PER_POD")]
    pub max_connections_per_pod: Option<usize>,
    /// How long a copy may take.
    #[arg(long, env = "UMBRA_SHADOW_TIMEOUT", value_parser = duration, default_value = "10s")]
    pub shadow_timeout: Duration,
    /// Copies in flight to one mirror, from this node.
    #[arg(long, env = "UMBRA_SHADOW_MAX_IN_FLIGHT", default_value_t = MirrorLimits::default().in_flight)]
    pub shadow_max_in_flight: usize,
    /// Connections to one mirror, from this node.
    #[arg(long, env = "UMBRA_SHADOW_MAX_CONNECTIONS", default_value_t = MirrorLimits::default().connections)]
    pub shadow_max_connections: usize,
    /// Bytes of bodies that wait here for one mirror.
    #[arg(long, env = "UMBRA_SHADOW_MAX_QUEUED_BYTES", default_value_t = MirrorLimits::default().queued_bytes)]
    pub shadow_max_queued_bytes: usize,
    /// Copies to one mirror in a second, from this node, and so many at once [default: any number].
    #[arg(long, env = "UMBRA_SHADOW_MAX_PER_SECOND")]
    pub shadow_max_per_second: Option<NonZeroU32>,
    /// A worker thread that comes so late to what is ready, three times in a row, makes no copies until it is in time.
    #[arg(long, env = "UMBRA_SHADOW_MAX_LAG", value_parser = duration, default_value = "100ms")]
    pub shadow_max_lag: Duration,
    /// Header that is added to copies, with the value 1, and to nothing else. Requests of this node's pods that have it are
    /// not copied again [default: copies are not marked].
    #[arg(long, env = "UMBRA_SHADOW_MARK", value_parser = mark)]
    pub shadow_mark: Option<HeaderName>,
}

impl LimitArgs {
    pub(super) fn limits(&self) -> Limits {
        let all = Limits::default();
        let mirror = MirrorLimits {
            in_flight: self.shadow_max_in_flight,
            connections: self.shadow_max_connections,
            queued_bytes: self.shadow_max_queued_bytes,
            per_second: self.shadow_max_per_second,
        };
        let shadow =
            ShadowLimits { timeout: self.shadow_timeout, mirror, lag: self.shadow_max_lag, ..all.shadow };
        Limits {
            sniff_timeout: self.sniff_timeout,
            client_idle_timeout: self.client_idle_timeout,
            connections: self.max_connections.unwrap_or(all.connections),
            connections_per_client: self.max_connections_per_pod.unwrap_or(all.connections_per_client),
            shadow,
            ..all
        }
    }
}

/// A header that means nothing yet: a copy is to be the same request.
fn mark(text: &str) -> Result<HeaderName, String> {
    const TAKEN: [HeaderName; 11] = [
        header::HOST,
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::TRANSFER_ENCODING,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
        header::EXPECT,
        header::COOKIE,
        header::AUTHORIZATION,
    ];
    let name: HeaderName = text.parse().map_err(|_| format!("{text:?} is not a header name"))?;
    match TAKEN.contains(&name) {
        true => Err(format!("{text:?} has a meaning of its own; choose another, such as x-umbra-shadow")),
        false => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        limits: LimitArgs,
    }

    fn parsed(arguments: &[&str]) -> Result<LimitArgs, clap::Error> {
        Only::try_parse_from(["umbra-proxy"].iter().chain(arguments)).map(|only| only.limits)
    }

    #[test]
    fn without_flags_the_limits_are_the_published_ones() {
        let limits = parsed(&[]).expect("none is needed").limits();
        assert_eq!(format!("{limits:?}"), format!("{:?}", Limits::default()));
    }

    #[test]
    fn each_flag_is_its_limit() {
        let limits = parsed(&[
            "--client-idle-timeout=2m",
            "--max-connections=5",
            "--max-connections-per-pod=4",
            "--shadow-max-in-flight=3",
            "--shadow-max-connections=6",
            "--shadow-max-queued-bytes=7",
            "--shadow-max-per-second=8",
            "--shadow-max-lag=9ms",
        ]);
        let limits = limits.expect("flags").limits();
        assert_eq!((limits.connections, limits.connections_per_client), (5, 4));
        assert_eq!(limits.client_idle_timeout, Duration::from_secs(120));
        let mirror =
            MirrorLimits { in_flight: 3, connections: 6, queued_bytes: 7, per_second: NonZeroU32::new(8) };
        assert_eq!((limits.shadow.mirror, limits.shadow.lag), (mirror, Duration::from_millis(9)));
        parsed(&["--shadow-max-per-second=0"]).expect_err("no rate of none: a share of 0 says that");
    }

    #[test]
    fn a_mark_means_nothing_else() {
        let mark = |name: &str| parsed(&["--shadow-mark", name]).map(|args| args.shadow_mark);
        assert_eq!(mark("X-Umbra-Shadow").ok().flatten(), Some(HeaderName::from_static("x-umbra-shadow")));
        for wrong in ["Host", "content-length", "x shadow", ""] {
            mark(wrong).expect_err(wrong);
        }
    }
}
