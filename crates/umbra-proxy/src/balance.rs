//! Which endpoint of a backend set gets a request: of two drawn at random, the one with fewer in flight.
//!
//! A set of a dual-stack service has each pod in both IP families. Endpoints of the family that the client used come
//! first, as with kube-proxy; those of the other only when there are none, or all of them were tried.
//!
//! In-flight counts are shared by all workers; they are hints, so relaxed ordering is enough.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwap;
use umbra_routing::{BackendSet, Draw, Endpoint, ServiceName, SpokenTo};

/// One endpoint, with what is going on there. Its identity outlives pushes as long as the endpoint does not change.
pub(crate) struct Upstream {
    pub(crate) endpoint: Endpoint,
    in_flight: AtomicU32,
}

/// The endpoints of one destination, shared by all workers and followed by pushes.
pub(crate) struct Backends {
    pub(crate) service: Arc<ServiceName>,
    endpoints: ArcSwap<Endpoints>,
}

/// An IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn of(ip: IpAddr) -> Self {
        if ip.to_canonical().is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// Those of IPv4 first.
#[derive(Default)]
struct Endpoints {
    all: Vec<Arc<Upstream>>,
    v4: usize,
    spoken_to: SpokenTo,
}

impl Endpoints {
    fn of(&self, family: Family) -> &[Arc<Upstream>] {
        let (v4, v6) = self.all.split_at(self.v4);
        match family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }
}

/// A request is at this endpoint until this is dropped.
pub(crate) struct Lease(Arc<Upstream>);

impl Lease {
    pub(crate) fn upstream(&self) -> &Arc<Upstream> {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Upstream {
    pub(crate) fn new(endpoint: Endpoint) -> Arc<Self> {
        Arc::new(Self { endpoint, in_flight: AtomicU32::new(0) })
    }

    pub(crate) fn lease(self: &Arc<Self>) -> Lease {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Lease(Arc::clone(self))
    }
}

impl Backends {
    pub(crate) fn new(service: ServiceName) -> Arc<Self> {
        Arc::new(Self { service: Arc::new(service), endpoints: ArcSwap::default() })
    }

    /// Follows a push: endpoints that stay keep their counts.
    pub(crate) fn follow(&self, set: &BackendSet) {
        self.replace(&set.endpoints, set.spoken_to);
    }

    /// The set is gone: nobody is in it.
    pub(crate) fn clear(&self) {
        self.replace(&[], self.spoken_to());
    }

    /// Which HTTP its endpoints are spoken to.
    pub(crate) fn spoken_to(&self) -> SpokenTo {
        self.endpoints.load().spoken_to
    }

    fn replace(&self, endpoints: &[Endpoint], spoken_to: SpokenTo) {
        let old = self.endpoints.load();
        let kept = |new: &Endpoint| old.all.iter().find(|upstream| upstream.endpoint == *new).cloned();
        let upstream = |new: &Endpoint| kept(new).unwrap_or_else(|| Upstream::new(new.clone()));
        let is_v4 = |upstream: &Arc<Upstream>| Family::of(upstream.endpoint.address.ip()) == Family::V4;
        let (mut all, v6): (Vec<_>, Vec<_>) = endpoints.iter().map(upstream).partition(is_v4);
        let v4 = all.len();
        all.extend(v6);
        self.endpoints.store(Arc::new(Endpoints { all, v4, spoken_to }));
    }

    /// The better of two random endpoints that are not in `tried`, of `family` (`None`: of any) as long as there are
    /// some; `None` when all were tried or there are none.
    pub(crate) fn choose(
        &self,
        tried: &[Arc<Upstream>],
        family: Option<Family>,
        draw: &mut impl Draw,
    ) -> Option<Lease> {
        let endpoints = self.endpoints.load();
        let near = family.and_then(|family| choose_of(endpoints.of(family), tried, draw));
        near.or_else(|| choose_of(&endpoints.all, tried, draw))
    }
}

fn choose_of(endpoints: &[Arc<Upstream>], tried: &[Arc<Upstream>], draw: &mut impl Draw) -> Option<Lease> {
    if tried.is_empty() {
        return two_choices(endpoints, draw).map(Upstream::lease);
    }
    let left: Vec<_> = endpoints
        .iter()
        .filter(|upstream| !tried.iter().any(|t| Arc::ptr_eq(t, upstream)))
        .cloned()
        .collect();
    two_choices(&left, draw).map(Upstream::lease)
}

fn two_choices<'a>(endpoints: &'a [Arc<Upstream>], draw: &mut impl Draw) -> Option<&'a Arc<Upstream>> {
    let count = endpoints.len() as u64;
    if count < 2 {
        return endpoints.first();
    }
    let first = draw.below(count);
    // The second among the others, so that it is never the first again.
    let second = (first + 1 + draw.below(count - 1)) % count;
    let [a, b] = [&endpoints[first as usize], &endpoints[second as usize]];
    let load = |upstream: &Upstream| upstream.in_flight.load(Ordering::Relaxed);
    Some(if load(b) < load(a) { b } else { a })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint {
            address: ([127, 0, 0, 1], port).into(),
            pod: None,
            namespace: "default".into(),
            workload: "w".into(),
            app: "w".into(),
            version: "v1".into(),
            canonical_name: "w".into(),
            canonical_revision: "v1".into(),
            zone: None,
        }
    }

    #[test]
    fn the_less_busy_of_two_is_chosen_and_tried_ones_are_not() {
        let set = Backends::new(ServiceName::new("default", "w"));
        set.replace(&[endpoint(1), endpoint(2)], SpokenTo::Http1);
        let mut draw = |_| 0;
        let busy = set.choose(&[], None, &mut draw).expect("two endpoints");
        let other = set.choose(&[], None, &mut draw).expect("two endpoints");
        assert_ne!(busy.upstream().endpoint.address, other.upstream().endpoint.address);
        let tried = [Arc::clone(busy.upstream()), Arc::clone(other.upstream())];
        assert!(set.choose(&tried, None, &mut draw).is_none());
    }

    #[test]
    fn the_clients_family_comes_first_and_the_other_one_after_it() {
        let set = Backends::new(ServiceName::new("default", "w"));
        let v6 = Endpoint { address: "[::1]:1".parse().expect("an address"), ..endpoint(9) };
        set.replace(&[v6.clone(), endpoint(1), endpoint(2)], SpokenTo::Http1);
        let family = |lease: &Lease| Family::of(lease.upstream().endpoint.address.ip());
        for first in 0..3 {
            for wanted in [Family::V4, Family::V6] {
                let lease = set.choose(&[], Some(wanted), &mut |bound| first % bound).expect("an endpoint");
                assert_eq!(family(&lease), wanted);
            }
        }
        let mut tried = Vec::new();
        let mut seen = Vec::new();
        while let Some(lease) = set.choose(&tried, Some(Family::V4), &mut |_| 0) {
            seen.push(family(&lease));
            tried.push(Arc::clone(lease.upstream()));
        }
        assert_eq!(seen, [Family::V4, Family::V4, Family::V6]);
        set.replace(&[v6], SpokenTo::Http1);
        assert!(
            set.choose(&[], Some(Family::V4), &mut |_| 0).is_some(),
            "rather the other family than nobody"
        );
    }

    #[test]
    fn a_push_keeps_the_counts_of_endpoints_that_stay() {
        let set = Backends::new(ServiceName::new("default", "w"));
        set.replace(&[endpoint(1)], SpokenTo::Http1);
        let lease = set.choose(&[], None, &mut |_| 0).expect("one endpoint");
        set.replace(&[endpoint(1), endpoint(2)], SpokenTo::Http1);
        let next = set.choose(&[], None, &mut |_| 0).expect("two endpoints");
        assert_eq!(next.upstream().endpoint.address.port(), 2, "the first is busy");
        drop(lease);
    }
}
