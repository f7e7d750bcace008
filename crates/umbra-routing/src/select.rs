//! Selecting: which rule a request gets, which destination, and which mirrors.

use http::HeaderMap;

use crate::backends::BackendRef;
use crate::matcher::{MatchError, Matcher};
use crate::table::{Rule, WeightedBackend};

/// Mirror shares are in millionths.
pub const MIRROR_DENOMINATOR: u32 = 1_000_000;

/// Randomness, passed by the caller. Weights and mirrors draw independently (design: "shares are what they say").
pub trait Draw {
    /// A uniform number in `0..bound`; `bound` is at least 1.
    fn below(&mut self, bound: u64) -> u64;
}

impl<F: FnMut(u64) -> u64> Draw for F {
    fn below(&mut self, bound: u64) -> u64 {
        self(bound)
    }
}

/// The rules of one variant, ready to use. `B` is what the caller keeps for a backend set, looked up once here
/// instead of once a request.
pub struct RouteTable<B> {
    routes: Vec<Route<B>>,
}

/// One rule, ready to use.
pub struct Route<B> {
    /// The rule's name: a metric label.
    pub name: String,
    /// Destinations in the order written, with the caller's handle.
    pub destinations: Vec<(WeightedBackend, B)>,
    /// Mirrors in the order written.
    pub mirrors: Vec<RouteMirror<B>>,
    matchers: Vec<Matcher>,
    total_weight: u64,
}

/// A mirror, ready to use.
pub struct RouteMirror<B> {
    /// Where copies go.
    pub reference: BackendRef,
    /// The caller's handle.
    pub backend: B,
    per_million: u32,
}

impl<B> RouteMirror<B> {
    /// Whether this request is copied: one draw per mirror and request.
    pub fn samples(&self, draw: &mut impl Draw) -> bool {
        self.per_million >= MIRROR_DENOMINATOR
            || (self.per_million > 0
                && draw.below(u64::from(MIRROR_DENOMINATOR)) < u64::from(self.per_million))
    }
}

/// What a request gets.
pub struct Selection<'t, B> {
    /// The rule. Its mirrors are asked one by one with [`RouteMirror::samples`].
    pub route: &'t Route<B>,
    /// Index into `route.destinations`.
    pub destination: usize,
}

impl<B> RouteTable<B> {
    /// Prepares rules; `backend` gives the caller's handle for a destination or mirror.
    ///
    /// # Errors
    /// A match that cannot be used, or a rule without a destination that could be drawn: the push is refused.
    pub fn new(rules: &[Rule], mut backend: impl FnMut(&BackendRef) -> B) -> Result<Self, MatchError> {
        let routes = rules.iter().map(|rule| Route::new(rule, &mut backend));
        Ok(Self { routes: routes.collect::<Result<_, _>>()? })
    }

    /// The first rule that matches, and one of its destinations by weight. `None`: no rule matches (404).
    /// `path` is without the query.
    pub fn select(
        &self,
        method: &str,
        path: &str,
        headers: &HeaderMap,
        draw: &mut impl Draw,
    ) -> Option<Selection<'_, B>> {
        let route = self.routes.iter().find(|route| route.matches(method, path, headers))?;
        Some(Selection { route, destination: route.draw_destination(draw) })
    }

    /// All rules, in order.
    pub fn routes(&self) -> &[Route<B>] {
        &self.routes
    }
}

impl<B> Route<B> {
    fn new(rule: &Rule, backend: &mut impl FnMut(&BackendRef) -> B) -> Result<Self, MatchError> {
        Ok(Self {
            name: rule.name.clone(),
            matchers: rule.matches.iter().map(Matcher::new).collect::<Result<_, _>>()?,
            total_weight: rule.destinations.iter().map(|to| u64::from(to.weight)).sum(),
            destinations: rule.destinations.iter().map(|to| (to.clone(), backend(&to.backend))).collect(),
            mirrors: rule
                .mirrors
                .iter()
                .map(|mirror| RouteMirror {
                    reference: mirror.backend.clone(),
                    backend: backend(&mirror.backend),
                    per_million: mirror.per_million,
                })
                .collect(),
        })
    }

    fn matches(&self, method: &str, path: &str, headers: &HeaderMap) -> bool {
        self.matchers.is_empty() || self.matchers.iter().any(|matcher| matcher.holds(method, path, headers))
    }

    fn draw_destination(&self, draw: &mut impl Draw) -> usize {
        if self.destinations.len() < 2 || self.total_weight == 0 {
            return 0;
        }
        let mut left = draw.below(self.total_weight);
        for (index, (to, _)) in self.destinations.iter().enumerate() {
            match left.checked_sub(u64::from(to.weight)) {
                Some(rest) => left = rest,
                None => return index,
            }
        }
        unreachable!("a draw is below the sum of the weights")
    }
}
