//! What authors should know of their claims on a service.

use std::collections::BTreeSet;

use umbra_index::api::{ObjectKey, Service, VirtualService};
use umbra_index::{Kind, host};

use crate::claims::{Candidate, Claims};
use crate::exported::nearness;
use crate::finding::{Condition, Finding, ObjectRef, Reason};

/// The findings about the claims, of which those of `winners` serve some clients.
pub(crate) fn findings(
    claims: &Claims<'_>,
    service: &Service,
    winners: &BTreeSet<ObjectKey>,
) -> BTreeSet<Finding> {
    let mut findings = BTreeSet::new();
    for candidate in &claims.candidates {
        findings.extend(candidate.findings.iter().cloned());
        if !winners.contains(&candidate.vs.metadata.key()) {
            findings.extend(without_clients(claims, candidate));
            continue;
        }
        let about = |reason, why: &str| about_host(candidate.vs, claims.service, None, reason, why);
        findings.extend(outside_umbra(service).map(|why| about(Reason::ReachableOutsideUmbra, why)));
        findings.extend(not_kept(service).map(|why| about(Reason::NotKept, &why)));
        let namespace = &candidate.vs.metadata.namespace;
        if !claims.foreign && *namespace != claims.service.namespace {
            let why = format!(
                "the Service is in another namespace: the rules apply to clients in namespace {namespace} only"
            );
            findings.insert(about(Reason::OwnNamespaceOnly, &why));
        }
    }
    findings
}

/// The same information for each author whose rules some clients get.
pub(crate) fn of_winners(
    claims: &Claims<'_>,
    winners: &BTreeSet<ObjectKey>,
    reason: Reason,
    why: &str,
) -> Vec<Finding> {
    let winning = claims.candidates.iter().filter(|it| winners.contains(&it.vs.metadata.key()));
    winning.map(|it| about_host(it.vs, claims.service, None, reason, why)).collect()
}

/// Why nobody gets the rules of this one. A wildcard that a more exact host beats is as its author means it.
fn without_clients(claims: &Claims<'_>, candidate: &Candidate<'_>) -> Option<Finding> {
    let rejected = |reason, why: &str| {
        Some(about_host(candidate.vs, claims.service, Some(Condition::Accepted), reason, why))
    };
    let namespaces = claims.namespaces();
    let sees = |client: &&Option<String>| claims.nearness(candidate, client.as_deref()).is_some();
    let Some(client) = namespaces.iter().find(sees) else {
        return rejected(Reason::NotExported, &not_exported(claims, candidate));
    };
    let object = candidate.vs.metadata.key();
    let first = claims.in_order(client.as_deref()).into_iter().next();
    match first.filter(|first| first.vs.metadata.key() != object) {
        Some(first) if first.is_more_exact_than(candidate) => None,
        Some(first) => rejected(Reason::Conflicted, &conflict(claims, first, candidate)),
        None => {
            let why = "no rule is for clients in the mesh on an HTTP port of this Service, which is served as if this \
                       object was not there";
            rejected(Reason::NoHttpRule, why)
        }
    }
}

fn not_exported(claims: &Claims<'_>, candidate: &Candidate<'_>) -> String {
    let namespace = &candidate.vs.metadata.namespace;
    let is_own_only = !claims.foreign && *namespace != claims.service.namespace;
    if is_own_only && nearness(candidate.export_to(), namespace, Some(namespace)).is_none() {
        return format!(
            "the Service is in another namespace, so the rules could be for clients in namespace {namespace} only, and \
             exportTo leaves these out"
        );
    }
    "exportTo makes it for nobody; name the namespaces of the clients, or remove it".to_owned()
}

fn conflict(claims: &Claims<'_>, first: &Candidate<'_>, loser: &Candidate<'_>) -> String {
    let at = |wanted: &Candidate<'_>| {
        claims.candidates.iter().position(|it| it.vs.metadata.key() == wanted.vs.metadata.key())
    };
    let how = if at(first) < at(loser) { "older" } else { "more narrowly exported" };
    format!(
        "the {how} virtualservice {} has this host, and only one can; merge the two, or delete one",
        first.vs.metadata.key()
    )
}

/// A finding about the host in `vs` that names `service`.
pub(crate) fn about_host(
    vs: &VirtualService,
    service: &ObjectKey,
    condition: Option<Condition>,
    reason: Reason,
    why: &str,
) -> Finding {
    let name = host::name_of(service);
    let full = |host: &String| host::claimed_name(host, &vs.metadata.namespace);
    let exact = vs.spec.hosts.iter().position(|host| full(host) == name);
    let covering = || vs.spec.hosts.iter().position(|host| host::covers(&full(host), &name));
    let index = exact.or_else(covering).unwrap_or(0);
    Finding {
        object: ObjectRef::new(Kind::VirtualService, &vs.metadata),
        condition,
        reason,
        path: format!("spec.hosts[{index}]"),
        message: format!("{name}: {why}"),
    }
}

/// Ways past the ClusterIP, or past what it promises.
fn outside_umbra(service: &Service) -> impl Iterator<Item = &'static str> {
    let spec = &service.spec;
    let kind = match spec.kind.as_str() {
        "NodePort" => Some("the Service has node ports, whose callers umbra does not see"),
        "LoadBalancer" => Some("the Service has a load balancer, whose callers umbra does not see"),
        _ => None,
    };
    let sticky = (spec.session_affinity == "ClientIP").then_some(
        "the Service has sessionAffinity ClientIP, which umbra does not keep for the callers it serves",
    );
    let external = (!spec.external_ips.is_empty())
        .then_some("the Service has externalIPs, whose callers umbra does not see");
    kind.into_iter().chain(sticky).chain(external)
}

/// Which endpoints are near, umbra does not ask.
fn not_kept(service: &Service) -> impl Iterator<Item = String> {
    let near = service.spec.traffic_distribution.iter().filter(|near| !near.is_empty());
    near.map(|near| {
        format!("the Service has trafficDistribution {near}, which umbra does not keep: it uses endpoints of all zones")
    })
}
