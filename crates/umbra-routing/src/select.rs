//! Selecting: which rule a request gets, by which of its blocks, and which destination.

mod index;

use std::sync::Arc;

use index::{BlockId, Index};

use crate::act::RuleError;
use crate::backends::BackendRef;
use crate::head::{RequestHead, Split};
use crate::matcher::Block;
use crate::route::Route;
use crate::table::Rule;

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
    routes: Vec<Arc<Route<B>>>,
    index: Index,
}

/// What a request gets.
pub struct Selection<'t, B> {
    /// The rule. Its mirrors are asked one by one with [`RouteMirror::samples`](crate::RouteMirror::samples). Shared,
    /// for the caller to hold until the answer has its headers.
    pub route: &'t Arc<Route<B>>,
    /// Index into `route.destinations`.
    pub destination: usize,
    /// Which of the rule's blocks matched; 0 for a rule without any.
    pub block: usize,
}

impl<B> RouteTable<B> {
    /// Prepares rules; `backend` gives the caller's handle for a destination or mirror.
    ///
    /// # Errors
    /// A condition or action that cannot be used: the push is refused.
    pub fn new(rules: &[Rule], mut backend: impl FnMut(&BackendRef) -> B) -> Result<Self, RuleError> {
        let routes = rules.iter().map(|rule| Ok(Arc::new(Route::new(rule, &mut backend)?)));
        let routes = routes.collect::<Result<Vec<_>, RuleError>>()?;
        let blocks = routes.iter().enumerate().flat_map(|(rule, route)| {
            route.blocks.iter().enumerate().map(move |(block, of)| (BlockId { rule, block }, of))
        });
        let index = Index::new(blocks);
        Ok(Self { routes, index })
    }

    /// The first rule that matches, and one of its destinations by weight. `None`: no rule matches, or the first that
    /// does is [`Answer::NoRoute`](crate::Answer::NoRoute) (404). Allocates
    /// nothing but what a regex needs, and tries only the rules that the request's path and headers can mean.
    pub fn select(&self, head: &RequestHead<'_>, draw: &mut impl Draw) -> Option<Selection<'_, B>> {
        let request = Split::new(head);
        let BlockId { rule, block } =
            self.index.first(&request, |id| self.routes[id.rule].holds(id.block, &request))?;
        let route = &self.routes[rule];
        (!route.is_end).then(|| Selection { route, destination: route.draw_destination(draw), block })
    }

    /// Some rule asks for labels of the client's pod.
    pub fn asks_for_labels(&self) -> bool {
        self.routes.iter().flat_map(|route| &route.blocks).any(Block::asks_for_labels)
    }

    /// All rules, in order.
    pub fn routes(&self) -> &[Arc<Route<B>>] {
        &self.routes
    }
}
