//! Which services are taken over, decided from the configuration. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use umbra_routing::{
    BackendRef, Config, Key, NOT_ARMED_UNRESOLVED, Port, RefusedKey, Resource, ServiceName, ServiceTable,
};

use crate::intercept::Target;

/// Armed services and what of theirs the kernel gives to the listener; nothing, without interception.
pub(crate) type Armed = BTreeMap<ServiceName, BTreeSet<Target>>;

/// How connections come to the listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Clients come by themselves: a service with a table counts as armed.
    Direct,
    /// The kernel takes connections over, for these IP families.
    Intercepted {
        /// There is a listener on an IPv4 address.
        v4: bool,
        /// There is a listener on an IPv6 address.
        v6: bool,
    },
    /// On this node nothing can be taken over; each service is told why, and what to do.
    Nowhere {
        /// Begins with `not armed: `, and holds no moving figures: it ends up in a status.
        reason: String,
    },
}

impl Reach {
    /// By the addresses that the kernel gives connections to.
    pub(crate) fn intercepted(listeners: &[SocketAddr]) -> Self {
        Self::Intercepted {
            v4: listeners.iter().any(SocketAddr::is_ipv4),
            v6: listeners.iter().any(SocketAddr::is_ipv6),
        }
    }
}

/// What is to be armed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    /// Services to take over, with all that is theirs.
    pub(crate) wanted: Armed,
    /// Services with a table that are not, and why.
    pub(crate) not_armed: Vec<RefusedKey>,
}

/// Decides from all that is configured. `unusable` tables were refused by the data path: what they had before stays.
pub(crate) fn decide(
    config: &Config,
    armed: &Armed,
    unusable: &BTreeMap<Key, String>,
    reach: &Reach,
) -> Decision {
    let mut decision = Decision::default();
    for (key, resource) in config.iter() {
        let Resource::Service(table) = resource else { continue };
        let before = armed.get(&table.service);
        // Also one that was armed, and one that cannot be used: a policy is about whatever rules are in force.
        if let Some(why) = &table.leave_alone {
            let reason = format!("not armed: {why}");
            decision.not_armed.push(RefusedKey { key: key.clone(), reason });
            continue;
        }
        if unusable.contains_key(key) {
            // Its reason is told already; its old table goes on.
            if let (Some(before), Reach::Direct | Reach::Intercepted { .. }) = (before, reach) {
                decision.wanted.insert(table.service.clone(), before.clone());
            }
            continue;
        }
        match targets(table, reach, before) {
            Ok(targets) => {
                decision.wanted.insert(table.service.clone(), targets);
            }
            Err(reason) => decision.not_armed.push(RefusedKey { key: key.clone(), reason }),
        }
    }
    decision
}

fn targets(
    table: &ServiceTable,
    reach: &Reach,
    before: Option<&BTreeSet<Target>>,
) -> Result<BTreeSet<Target>, String> {
    let (v4, v6) = match reach {
        Reach::Direct => return Ok(BTreeSet::new()),
        Reach::Nowhere { reason } => return Err(reason.clone()),
        Reach::Intercepted { v4, v6 } => (*v4, *v6),
    };
    if table.addresses.is_empty() {
        return Err("not armed: the Service has no ClusterIP".into());
    }
    if table.ports.is_empty() {
        return Err("not armed: the Service has no HTTP port".into());
    }
    // Once armed a port stays so, and answers 503: as Istio does.
    let was_armed = |port: &Port| before.into_iter().flatten().any(|target| target.port() == port.number);
    let may_be = |port: &&Port| was_armed(port) || port.unresolved_primary(None).is_none();
    let ports: Vec<u16> = table.ports.iter().filter(may_be).map(|port| port.number).collect();
    if let (true, Some(unresolved)) = (ports.is_empty(), table.unresolved_primary()) {
        return Err(format!("{NOT_ARMED_UNRESOLVED}{} is not defined", describe(unresolved)));
    }
    let reachable = table
        .addresses
        .iter()
        .map(std::net::IpAddr::to_canonical)
        .filter(|ip| if ip.is_ipv4() { v4 } else { v6 });
    let targets: BTreeSet<Target> =
        reachable.flat_map(|ip| ports.iter().map(move |port| Target::new(ip, *port))).collect();
    if targets.is_empty() {
        return Err("not armed: the node has no address of the ClusterIP's family; see --node-address".into());
    }
    Ok(targets)
}

fn describe(backend: &BackendRef) -> String {
    let port = backend.port;
    let subset = backend.subset.as_ref().map(|subset| format!(", subset {subset:?}")).unwrap_or_default();
    format!("{} port {port}{subset}", backend.service.fqdn())
}

/// What is armed now and stays so: all that may be given to the listener while tables change.
pub(crate) fn kept(armed: &Armed, wanted: &Armed) -> Armed {
    let common = |(service, targets): (&ServiceName, &BTreeSet<Target>)| {
        let wanted = wanted.get(service)?;
        Some((service.clone(), targets.intersection(wanted).copied().collect()))
    };
    armed.iter().filter_map(common).collect()
}

/// Everything that the kernel gives to the listener for `armed`.
pub(crate) fn all_targets(armed: &Armed) -> BTreeSet<Target> {
    armed.values().flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{config_of, service_of};

    const V4_ONLY: Reach = Reach::Intercepted { v4: true, v6: false };

    fn decide_one(table: serde_json::Value, armed: &Armed, reach: Reach) -> Decision {
        decide(&config_of(&[("service/default/a", table)]), armed, &BTreeMap::new(), &reach)
    }

    fn a() -> ServiceName {
        ServiceName::new("default", "a")
    }

    #[test]
    fn every_address_and_port_of_our_families_is_taken_over() {
        let decision =
            decide_one(service_of("a", &["10.0.0.1", "fd00::1"], &[80, 8080], true), &Armed::new(), V4_ONLY);
        let expected: BTreeSet<Target> =
            ["10.0.0.1:80", "10.0.0.1:8080"].iter().map(|target| target.parse().unwrap()).collect();
        assert_eq!(decision.wanted, Armed::from([(a(), expected)]));
        assert_eq!(decision.not_armed, []);
    }

    #[test]
    fn an_unresolved_primary_is_not_armed_the_first_time_and_stays_armed_later() {
        let table = || service_of("a", &["10.0.0.1"], &[80], false);
        let decision = decide_one(table(), &Armed::new(), V4_ONLY);
        assert_eq!(decision.wanted, Armed::new());
        assert_eq!(
            decision.not_armed[0].reason,
            "not armed: destination a.default.svc.cluster.local port 80, subset \"v1\" is not defined"
        );
        let armed = Armed::from([(a(), BTreeSet::from(["10.0.0.1:80".parse().unwrap()]))]);
        assert_eq!(decide_one(table(), &armed, V4_ONLY).wanted, armed);
    }

    #[test]
    fn each_port_is_armed_by_itself() {
        let with_unresolved = |number: u16| {
            let mut table = service_of("a", &["10.0.0.1"], &[80], true);
            let other = service_of("a", &["10.0.0.1"], &[number], false)["ports"][0].clone();
            table["ports"].as_array_mut().unwrap().push(other);
            table
        };
        let target = |port: u16| SocketAddr::from(([10, 0, 0, 1], port));
        let first = decide_one(with_unresolved(81), &Armed::new(), V4_ONLY);
        assert_eq!(first.wanted, Armed::from([(a(), BTreeSet::from([target(80)]))]));
        let both = Armed::from([(a(), BTreeSet::from([target(80), target(81)]))]);
        assert_eq!(decide_one(with_unresolved(81), &both, V4_ONLY).wanted, both, "an armed port stays");
    }

    #[test]
    fn one_namespaces_variant_keeps_nobody_else_out() {
        let mut table = service_of("a", &["10.0.0.1"], &[80], true);
        let mut theirs = service_of("a", &[], &[80], false)["ports"][0]["variants"][0].clone();
        theirs["clientNamespace"] = "theirs".into();
        table["ports"][0]["variants"].as_array_mut().unwrap().push(theirs);
        let decision = decide_one(table, &Armed::new(), V4_ONLY);
        assert!(decision.wanted.contains_key(&a()), "{decision:?}");
    }

    #[test]
    fn nothing_to_take_over_is_said() {
        for (addresses, ports) in [(&[][..], &[80][..]), (&["10.0.0.1"], &[]), (&["fd00::1"], &[80])] {
            let decision = decide_one(service_of("a", addresses, ports, true), &Armed::new(), V4_ONLY);
            assert_eq!(decision.wanted, Armed::new());
            assert!(decision.not_armed[0].reason.starts_with("not armed: "));
        }
    }

    #[test]
    fn a_table_to_be_left_alone_is_not_armed_any_more_whatever_it_was() {
        let mut table = service_of("a", &["10.0.0.1"], &[80], true);
        table["leaveAlone"] = "networkpolicy default/deny selects pods".into();
        let config = config_of(&[("service/default/a", table)]);
        let armed = Armed::from([(a(), BTreeSet::from(["10.0.0.1:80".parse().unwrap()]))]);
        let unusable = BTreeMap::from([("service/default/a".parse().unwrap(), "bad regex".to_owned())]);
        for (before, unusable, reach) in [
            (Armed::new(), BTreeMap::new(), V4_ONLY),
            (armed.clone(), BTreeMap::new(), V4_ONLY),
            (armed, unusable, V4_ONLY),
            (Armed::new(), BTreeMap::new(), Reach::Direct),
        ] {
            let decision = decide(&config, &before, &unusable, &reach);
            assert_eq!(decision.wanted, Armed::new());
            assert_eq!(decision.not_armed[0].reason, "not armed: networkpolicy default/deny selects pods");
        }
    }

    #[test]
    fn without_interception_a_table_is_enough() {
        let decision = decide_one(service_of("a", &[], &[80], true), &Armed::new(), Reach::Direct);
        assert_eq!(decision.wanted, Armed::from([(a(), BTreeSet::new())]));
    }

    #[test]
    fn where_nothing_can_be_taken_over_each_service_says_why() {
        let nowhere = || Reach::Nowhere { reason: "not armed: the kernel".into() };
        let armed = Armed::from([(a(), BTreeSet::from(["10.0.0.1:80".parse().unwrap()]))]);
        let table = || service_of("a", &["10.0.0.1"], &[80], true);
        let decision = decide_one(table(), &armed, nowhere());
        assert_eq!(decision.wanted, Armed::new(), "not even what was");
        assert_eq!(decision.not_armed[0].reason, "not armed: the kernel");
        let config = config_of(&[("service/default/a", table())]);
        let unusable = BTreeMap::from([("service/default/a".parse().unwrap(), "bad regex".to_owned())]);
        assert_eq!(decide(&config, &armed, &unusable, &nowhere()).wanted, Armed::new());
    }

    #[test]
    fn an_unusable_table_keeps_what_it_had() {
        let key: Key = "service/default/a".parse().unwrap();
        let config = config_of(&[("service/default/a", service_of("a", &["10.0.0.2"], &[80], true))]);
        let before = Armed::from([(a(), BTreeSet::from(["10.0.0.1:80".parse().unwrap()]))]);
        let unusable = BTreeMap::from([(key, "bad regex".to_owned())]);
        assert_eq!(decide(&config, &before, &unusable, &V4_ONLY).wanted, before);
        assert_eq!(decide(&config, &Armed::new(), &unusable, &V4_ONLY).wanted, Armed::new());
    }

    #[test]
    fn what_is_kept_is_armed_before_and_after() {
        let set =
            |all: &[&str]| all.iter().map(|target| target.parse().unwrap()).collect::<BTreeSet<Target>>();
        let b = ServiceName::new("default", "b");
        let before = Armed::from([(a(), set(&["10.0.0.1:80", "10.0.0.1:81"])), (b, set(&["10.0.0.2:80"]))]);
        let after = Armed::from([(a(), set(&["10.0.0.1:80", "10.0.0.1:82"]))]);
        assert_eq!(kept(&before, &after), Armed::from([(a(), set(&["10.0.0.1:80"]))]));
    }
}
