//! Labels of Istio's standard metrics (spec/shadowing.md 3.3), in Istio's order, and one of our own.

use std::fmt;

use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};
use umbra_routing::{Client, Endpoint};

use super::exchange::Exchange;
use crate::metrics::Labels;

const UNKNOWN: &str = "unknown";
/// Istio's name for the cluster when nothing else was configured.
const CLUSTER: &str = "Kubernetes";

/// The end that an exchange is told from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reporter {
    Destination,
    Source,
}

impl Reporter {
    fn name(self) -> &'static str {
        match self {
            Self::Destination => "destination",
            Self::Source => "source",
        }
    }

    /// What is known of the connection: endpoints are spoken to in plain text, and Istio's sources never know.
    fn security(self) -> &'static str {
        match self {
            Self::Destination => "none",
            Self::Source => UNKNOWN,
        }
    }
}

/// What is told of exchanges that are told alike, and by whom.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Told {
    /// All but the reporter's own.
    labels: Labels,
    by_destination: bool,
    by_source: bool,
}

/// Labels as one end reports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reported<'a> {
    labels: &'a Labels,
    reporter: Reporter,
}

impl Told {
    /// A user's request is told by both ends, or by its source alone when nobody was asked; a shadow by its destination.
    pub(super) fn new(exchange: &Exchange<'_>) -> Self {
        Self {
            labels: labels(exchange),
            by_destination: exchange.upstream.is_some(),
            by_source: !exchange.shadow,
        }
    }

    pub(super) fn reported(&self) -> impl Iterator<Item = Reported<'_>> {
        let by = |told: bool, reporter| told.then_some(Reported { labels: &self.labels, reporter });
        by(self.by_destination, Reporter::Destination).into_iter().chain(by(self.by_source, Reporter::Source))
    }
}

impl Reported<'_> {
    fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let (role, others) = self.labels.split_last().expect("labels are never empty");
        std::iter::once(("reporter", self.reporter.name()))
            .chain(others.iter().map(|(name, value)| (*name, value.as_str())))
            .chain([("connection_security_policy", self.reporter.security()), (role.0, role.1.as_str())])
    }
}

impl EncodeLabelSet for Reported<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.pairs().try_for_each(|pair| pair.encode(encoder.encode_label()))
    }
}

fn labels(exchange: &Exchange<'_>) -> Labels {
    let source =
        |field: fn(&Client) -> &String| exchange.client.map_or(UNKNOWN, |client| field(client).as_str());
    let to = |field: fn(&Endpoint) -> &String| {
        exchange.upstream.map_or(UNKNOWN, |upstream| field(&upstream.endpoint).as_str())
    };
    let fqdn = exchange.service.fqdn();
    let code = exchange.code.to_string();
    let (grpc_status, flags) = (exchange.spoken.grpc_status(), exchange.flags.to_string());
    let pairs: [(&'static str, &str); 24] = [
        ("source_workload", source(|c| &c.workload)),
        ("source_canonical_service", source(|c| &c.canonical_name)),
        ("source_canonical_revision", source(|c| &c.canonical_revision)),
        ("source_workload_namespace", source(|c| &c.namespace)),
        ("source_principal", UNKNOWN),
        ("source_app", source(|c| &c.app)),
        ("source_version", source(|c| &c.version)),
        ("source_cluster", if exchange.client.is_some() { CLUSTER } else { UNKNOWN }),
        ("destination_workload", to(|e| &e.workload)),
        ("destination_workload_namespace", to(|e| &e.namespace)),
        ("destination_principal", UNKNOWN),
        ("destination_app", to(|e| &e.app)),
        ("destination_version", to(|e| &e.version)),
        ("destination_service", &fqdn),
        ("destination_canonical_service", to(|e| &e.canonical_name)),
        ("destination_canonical_revision", to(|e| &e.canonical_revision)),
        ("destination_service_name", &exchange.service.name),
        ("destination_service_namespace", &exchange.service.namespace),
        ("destination_cluster", CLUSTER),
        ("request_protocol", exchange.spoken.name()),
        ("response_code", &code),
        ("grpc_response_status", &grpc_status),
        ("response_flags", &flags),
        // What the reporter says of the connection's security stands before this.
        ("request_role", if exchange.shadow { "shadow" } else { "primary" }),
    ];
    pairs.into_iter().map(|(name, value)| (name, value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use umbra_routing::ServiceName;

    use super::super::exchange::{Flags, Spoken};
    use super::*;

    /// Istio's order (istio/proxy testdata/metric/server_request_total.yaml.tmpl), and our one label.
    const NAMES: &str = "reporter source_workload source_canonical_service source_canonical_revision \
        source_workload_namespace source_principal source_app source_version source_cluster destination_workload \
        destination_workload_namespace destination_principal destination_app destination_version destination_service \
        destination_canonical_service destination_canonical_revision destination_service_name \
        destination_service_namespace destination_cluster request_protocol response_code grpc_response_status \
        response_flags connection_security_policy request_role";

    #[test]
    fn names_are_istios() {
        let service = Arc::new(ServiceName::new("shop", "pay"));
        let (client, upstream, flags) = (None, None, Flags::NoRoute.into());
        let (spoken, shadow) = (Spoken::Http, false);
        let told =
            Told::new(&Exchange { client, service: &service, upstream, code: 404, spoken, flags, shadow });
        let reported: Vec<_> = told.reported().collect();
        let [only] = reported.as_slice() else { panic!("nobody was asked: {reported:?}") };
        let names: Vec<_> = only.pairs().map(|(name, _)| name).collect();
        assert_eq!(names, NAMES.split_whitespace().collect::<Vec<_>>());
    }
}
