//! A policy: of the service, of a subset, or of one port of either.

use super::problem::Field;
use super::{actions, connection_pool, load_balancer, locality, names, numbers, outlier_detection, tls};
use crate::words::PROXY_PROTOCOL_VERSIONS;
use crate::{PortTrafficPolicy, ProxyProtocol, RetryBudget, TrafficPolicy, TunnelSettings};

/// `selected`: the DestinationRule has a workloadSelector.
pub(super) fn check(policy: &TrafficPolicy, selected: bool, field: &mut Field<'_>) {
    if *policy == TrafficPolicy::default() {
        field.error("traffic policy must have at least one field; add one, or remove it");
    }
    let blocks = PortTrafficPolicy {
        port: None,
        load_balancer: policy.load_balancer.clone(),
        connection_pool: policy.connection_pool.clone(),
        outlier_detection: policy.outlier_detection.clone(),
        tls: policy.tls.clone(),
        rest: policy.rest.clone(),
    };
    self::blocks(&blocks, selected, field);
    for (index, port) in policy.port_level_settings.iter().enumerate() {
        port_level(port, selected, &mut field.item("portLevelSettings", index));
    }
    if let Some(tunnel) = &policy.tunnel {
        self::tunnel(tunnel, &mut field.at("tunnel"));
        if policy.proxy_protocol.is_some() {
            field.at("proxyProtocol").error("tunnel and proxyProtocol must not be set together; keep one");
        }
    }
    if let Some(ProxyProtocol { version, .. }) = &policy.proxy_protocol {
        actions::one_of(
            version.as_deref(),
            &PROXY_PROTOCOL_VERSIONS,
            "version",
            &mut field.at("proxyProtocol"),
        );
    }
    if let Some(budget) = &policy.retry_budget {
        retry_budget(budget, &mut field.at("retryBudget"));
    }
}

fn port_level(policy: &PortTrafficPolicy, selected: bool, field: &mut Field<'_>) {
    match &policy.port {
        Some(_) => numbers::port_selector(policy.port.as_ref(), field),
        None => field.at("port").error("is missing; name the port that the settings are for"),
    }
    let nothing = PortTrafficPolicy { port: policy.port.clone(), ..PortTrafficPolicy::default() };
    if *policy == nothing {
        field.error("portLevel traffic policy must have at least one field; add one, or remove the entry");
    }
    blocks(policy, selected, field);
}

/// What every kind of policy has.
fn blocks(policy: &PortTrafficPolicy, selected: bool, field: &mut Field<'_>) {
    if let Some(balancer) = &policy.load_balancer {
        load_balancer::check(balancer, &mut field.at("loadBalancer"));
        locality::check(balancer, policy.outlier_detection.is_some(), &mut field.at("loadBalancer"));
    }
    if let Some(pool) = &policy.connection_pool {
        connection_pool::check(pool, &mut field.at("connectionPool"));
    }
    if let Some(outliers) = &policy.outlier_detection {
        outlier_detection::check(outliers, &mut field.at("outlierDetection"));
    }
    if let Some(settings) = &policy.tls {
        tls::check(settings, selected, &mut field.at("tls"));
    }
}

fn tunnel(tunnel: &TunnelSettings, field: &mut Field<'_>) {
    actions::one_of(tunnel.protocol.as_deref(), &["", "CONNECT", "POST"], "protocol", field);
    if tunnel.target_host.starts_with('*') {
        field.at("targetHost").error("has a wildcard; name one host");
    } else {
        names::host_or_address(&tunnel.target_host, &mut field.at("targetHost"));
    }
    numbers::port(tunnel.target_port, &mut field.at("targetPort"));
}

fn retry_budget(budget: &RetryBudget, field: &mut Field<'_>) {
    if let Some(percent) = budget.percent {
        numbers::percent(percent, &mut field.at("percent"));
    }
    numbers::duration_or_zero(budget.budget_interval.as_ref(), "budgetInterval", field);
}
