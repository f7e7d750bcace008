//! Which endpoint of a backend set gets a request: of two drawn at random, the one with fewer in flight.
//!
//! In-flight counts are shared by all workers; they are hints, so relaxed ordering is enough.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwap;
use umbra_routing::{Draw, Endpoint, ServiceName};

/// One endpoint, with what is going on there. Its identity outlives pushes as long as the endpoint does not change.
pub(crate) struct Upstream {
    pub(crate) endpoint: Endpoint,
    in_flight: AtomicU32,
}

/// The endpoints of one destination, shared by all workers and followed by pushes.
pub(crate) struct Backends {
    pub(crate) service: Arc<ServiceName>,
    endpoints: ArcSwap<Vec<Arc<Upstream>>>,
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
    fn new(endpoint: Endpoint) -> Arc<Self> {
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
    pub(crate) fn replace(&self, endpoints: &[Endpoint]) {
        let old = self.endpoints.load();
        let kept = |new: &Endpoint| old.iter().find(|upstream| upstream.endpoint == *new).cloned();
        let new =
            endpoints.iter().map(|new| kept(new).unwrap_or_else(|| Upstream::new(new.clone()))).collect();
        self.endpoints.store(Arc::new(new));
    }

    /// The better of two random endpoints that are not in `tried`; `None` when all were tried or there are none.
    pub(crate) fn choose(&self, tried: &[Arc<Upstream>], draw: &mut impl Draw) -> Option<Lease> {
        let endpoints = self.endpoints.load();
        if tried.is_empty() {
            return two_choices(&endpoints, draw).map(Upstream::lease);
        }
        let left: Vec<_> = endpoints
            .iter()
            .filter(|upstream| !tried.iter().any(|t| Arc::ptr_eq(t, upstream)))
            .cloned()
            .collect();
        two_choices(&left, draw).map(Upstream::lease)
    }
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
        set.replace(&[endpoint(1), endpoint(2)]);
        let mut draw = |_| 0;
        let busy = set.choose(&[], &mut draw).expect("two endpoints");
        let other = set.choose(&[], &mut draw).expect("two endpoints");
        assert_ne!(busy.upstream().endpoint.address, other.upstream().endpoint.address);
        let tried = [Arc::clone(busy.upstream()), Arc::clone(other.upstream())];
        assert!(set.choose(&tried, &mut draw).is_none());
    }

    #[test]
    fn a_push_keeps_the_counts_of_endpoints_that_stay() {
        let set = Backends::new(ServiceName::new("default", "w"));
        set.replace(&[endpoint(1)]);
        let lease = set.choose(&[], &mut |_| 0).expect("one endpoint");
        set.replace(&[endpoint(1), endpoint(2)]);
        let next = set.choose(&[], &mut |_| 0).expect("two endpoints");
        assert_eq!(next.upstream().endpoint.address.port(), 2, "the first is busy");
        drop(lease);
    }
}
