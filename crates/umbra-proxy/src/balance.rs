//! Which endpoint of a backend set gets a request: of two drawn at random, the one with the smaller load.
//!
//! A user's request goes where an answer is expected sooner, by how long users' answers took there and how many requests
//! are there (`load`). An endpoint that took no connection is avoided by all workers until one request, at the end of
//! each pause, finds it back (`breaker`); when all are avoided they are tried all the same. A copy goes where fewer
//! requests are, and leaves no trace that users' choices see but its being served: a mirror may be as slow as it likes.
//!
//! A set of a dual-stack service has each pod in both IP families. Endpoints of the family that the client used come
//! first, as with kube-proxy; those of the other only when none of the first takes connections, or all were tried.

mod load;
mod upstream;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use umbra_routing::{BackendSet, Draw, Endpoint, ServiceName, SpokenTo};

use crate::held::{Held, Kind};

pub(crate) use upstream::{Answered, CopyLease, Lease, Upstream};

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

impl Backends {
    pub(crate) fn new(service: ServiceName) -> Arc<Self> {
        Arc::new(Self { service: Arc::new(service), endpoints: ArcSwap::default() })
    }

    /// Follows a push: endpoints that stay keep what is known of them.
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
        let (old, now) = (self.endpoints.load(), Instant::now());
        let kept = |new: &Endpoint| old.all.iter().find(|upstream| upstream.endpoint == *new).cloned();
        let upstream = |new: &Endpoint| kept(new).unwrap_or_else(|| Upstream::new(new.clone(), now));
        let is_v4 = |upstream: &Arc<Upstream>| Family::of(upstream.endpoint.address.ip()) == Family::V4;
        let (mut all, v6): (Vec<_>, Vec<_>) = endpoints.iter().map(upstream).partition(is_v4);
        let v4 = all.len();
        all.extend(v6);
        self.endpoints.store(Arc::new(Endpoints { all, v4, spoken_to }));
    }

    /// Where a user's request goes: never to one in `tried`, and to one of `family` (`None`: of any) as long as one of
    /// it takes connections. `None` when all were tried or there are none.
    pub(crate) fn choose(
        &self,
        at_hand: &Kind<Upstream>,
        tried: &[Held<Upstream>],
        family: Option<Family>,
        now: Instant,
        draw: &mut impl Draw,
    ) -> Option<Lease> {
        let load = |upstream: &Upstream| upstream.load.of_users(now);
        let probes = |upstream: &Upstream| upstream.breaker.allows(now);
        let choice = Choice { tried, load, probes };
        let endpoints = self.endpoints.load();
        choice.of(&endpoints, family, draw).map(|upstream| Lease::new(at_hand.get(upstream), now))
    }

    /// Where a copy goes. It believes users about who takes connections, and probes nobody on their behalf.
    pub(crate) fn choose_for_copy(
        &self,
        at_hand: &Kind<Upstream>,
        family: Option<Family>,
        draw: &mut impl Draw,
    ) -> Option<CopyLease> {
        let load = |upstream: &Upstream| upstream.load.of_all();
        let choice = Choice { tried: &[], load, probes: |_: &Upstream| false };
        let endpoints = self.endpoints.load();
        choice.of(&endpoints, family, draw).map(|upstream| CopyLease::new(at_hand.get(upstream)))
    }
}

/// How one request chooses.
struct Choice<'a, L, P> {
    tried: &'a [Held<Upstream>],
    load: L,
    /// Whether it is to find out if one that is avoided takes connections again.
    probes: P,
}

impl<L: Fn(&Upstream) -> f32, P: Fn(&Upstream) -> bool> Choice<'_, L, P> {
    fn of<'e>(
        &self,
        endpoints: &'e Endpoints,
        family: Option<Family>,
        draw: &mut impl Draw,
    ) -> Option<&'e Arc<Upstream>> {
        let all = endpoints.all.as_slice();
        let near = family.map_or(all, |family| endpoints.of(family));
        let taking = self.taking(near, draw).or_else(|| self.taking(all, draw));
        let any = |of, draw: &mut _| self.better(of, |_| true, draw);
        taking.or_else(|| any(near, draw)).or_else(|| any(all, draw))
    }

    /// The better of two that take connections, or one that this request finds out about.
    fn taking<'e>(&self, of: &'e [Arc<Upstream>], draw: &mut impl Draw) -> Option<&'e Arc<Upstream>> {
        let takes = |upstream: &Upstream| upstream.breaker.is_closed();
        // A request that was tried elsewhere is not risked again.
        if self.tried.is_empty() {
            // Two draws do, nearly always: the set need not be looked through.
            let drawn = two_below(of.len(), draw)?.map(|place| &of[place]);
            if drawn.iter().all(|upstream| takes(upstream)) {
                return Some(self.lighter(drawn));
            }
            if let Some(probed) =
                drawn.into_iter().find(|upstream| !takes(upstream) && (self.probes)(upstream))
            {
                return Some(probed);
            }
        }
        self.better(of, takes, draw)
    }

    /// The better of two among those that were not tried and `may` be chosen.
    fn better<'e>(
        &self,
        of: &'e [Arc<Upstream>],
        may: impl Fn(&Upstream) -> bool,
        draw: &mut impl Draw,
    ) -> Option<&'e Arc<Upstream>> {
        let tried =
            |upstream: &Arc<Upstream>| self.tried.iter().any(|tried| Arc::ptr_eq(tried.shared(), upstream));
        let left: Vec<_> = of.iter().filter(|upstream| may(upstream) && !tried(upstream)).collect();
        two_below(left.len(), draw).map(|places| self.lighter(places.map(|place| left[place])))
    }

    fn lighter<'e>(&self, [a, b]: [&'e Arc<Upstream>; 2]) -> &'e Arc<Upstream> {
        let is_only = Arc::ptr_eq(a, b);
        if !is_only && (self.load)(b) < (self.load)(a) { b } else { a }
    }
}

/// Two different places of so many, or the only one twice.
fn two_below(count: usize, draw: &mut impl Draw) -> Option<[usize; 2]> {
    match count as u64 {
        0 => None,
        1 => Some([0, 0]),
        count => {
            let first = draw.below(count);
            // The second among the others, so that it is never the first again.
            let second = (first + 1 + draw.below(count - 1)) % count;
            Some([first as usize, second as usize])
        }
    }
}

#[cfg(test)]
mod tests;
