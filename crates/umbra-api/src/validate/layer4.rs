//! Rules for connections that are not HTTP.

use std::net::IpAddr;

use super::problem::Field;
use super::{names, numbers, route};
use crate::{Labels, RouteDestination, TlsMatchAttributes, VirtualServiceSpec, covers};

pub(super) fn check(spec: &VirtualServiceSpec, field: &mut Field<'_>) {
    for (index, rule) in spec.tls.iter().enumerate() {
        let mut field = field.item("tls", index);
        if rule.matches.is_empty() {
            field.at("match").error("TLS route must have at least one match condition; name sniHosts");
        }
        for (index, block) in rule.matches.iter().enumerate() {
            let mut field = field.item("match", index);
            sni_hosts(block, &spec.hosts, &mut field);
            common(&Common::from(block), &mut field);
        }
        destinations(&rule.route, "TLS", &mut field);
    }
    for (index, rule) in spec.tcp.iter().enumerate() {
        let mut field = field.item("tcp", index);
        for (index, block) in rule.matches.iter().enumerate() {
            let mut field = field.item("match", index);
            if let Some(source) = &block.source_subnet {
                subnet(source, &mut field.at("sourceSubnet"));
            }
            let common = Common {
                subnets: &block.destination_subnets,
                port: block.port,
                labels: &block.source_labels,
                gateways: &block.gateways,
                namespace: block.source_namespace.as_ref(),
            };
            self::common(&common, &mut field);
        }
        destinations(&rule.route, "TCP", &mut field);
    }
}

/// What both kinds of conditions have.
struct Common<'a> {
    subnets: &'a [String],
    port: Option<u32>,
    labels: &'a Labels,
    gateways: &'a [String],
    namespace: Option<&'a String>,
}

impl<'a> From<&'a TlsMatchAttributes> for Common<'a> {
    fn from(block: &'a TlsMatchAttributes) -> Self {
        Self {
            subnets: &block.destination_subnets,
            port: block.port,
            labels: &block.source_labels,
            gateways: &block.gateways,
            namespace: block.source_namespace.as_ref(),
        }
    }
}

fn common(block: &Common<'_>, field: &mut Field<'_>) {
    for (index, subnet) in block.subnets.iter().enumerate() {
        self::subnet(subnet, &mut field.item("destinationSubnets", index));
    }
    if let Some(port) = block.port {
        numbers::port(port, &mut field.at("port"));
    }
    names::labels(block.labels, "sourceLabels", field);
    for (index, gateway) in block.gateways.iter().enumerate() {
        names::gateway(gateway, &mut field.item("gateways", index));
    }
    names::namespace_if_any(block.namespace, "sourceNamespace", field);
}

/// Each is among the object's hosts, or covered by a wildcard there.
fn sni_hosts(block: &TlsMatchAttributes, hosts: &[String], field: &mut Field<'_>) {
    if block.sni_hosts.is_empty() {
        field.at("sniHosts").error("TLS match must have at least one SNI host; name one");
    }
    for (index, sni) in block.sni_hosts.iter().enumerate() {
        let mut field = field.item("sniHosts", index);
        names::host(sni, &mut field);
        if !hosts.iter().any(|host| host == sni || covers(host, sni)) {
            field.error(format!(
                "SNI host {sni:?} is not a compatible subset of the virtual service hosts; add it to hosts"
            ));
        }
    }
}

fn subnet(text: &str, field: &mut Field<'_>) {
    let (address, length) =
        text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let bits = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
    let fine = address.parse::<IpAddr>().is_ok_and(|address| {
        length.is_none_or(|length| length.parse::<u8>().is_ok_and(|length| length <= bits(address)))
    });
    if !fine {
        field.error(format!("{text:?} is not a subnet; write 10.0.0.0/8, or an address"));
    }
}

fn destinations(route: &[RouteDestination], kind: &str, field: &mut Field<'_>) {
    if route.is_empty() {
        field.at("route").error(format!("{kind} route is required; name a destination"));
    }
    for (index, entry) in route.iter().enumerate() {
        route::destination(&entry.destination, &mut field.item("route", index).at("destination"));
    }
    route::weights(route.iter().map(|entry| entry.weight), field);
}
