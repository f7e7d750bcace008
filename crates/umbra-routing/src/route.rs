//! One rule, ready to use.

use std::net::IpAddr;

use http::HeaderMap;

use crate::act::{Actions, RuleError};
use crate::action::Answer;
use crate::backends::BackendRef;
use crate::head::Split;
use crate::matcher::{Block, MatchError, RequestMatch};
use crate::sample::Sampling;
use crate::select::Draw;
use crate::table::{Mirror, Rule, WeightedBackend};

/// Shares of mirrors and faults are in millionths.
pub const MIRROR_DENOMINATOR: u32 = 1_000_000;

/// One rule, ready to use.
pub struct Route<B> {
    /// The rule's name: a metric label.
    pub name: String,
    /// Destinations in the order written, with the caller's handle.
    pub destinations: Vec<(WeightedBackend, B)>,
    /// Mirrors in the order written.
    pub mirrors: Vec<RouteMirror<B>>,
    /// At least one: a rule without conditions has one block that holds for all.
    pub(crate) blocks: Vec<Block>,
    pub(crate) actions: Actions,
    /// Requests that come here get no rule.
    pub(crate) is_end: bool,
    total_weight: u64,
}

/// A mirror, ready to use.
pub struct RouteMirror<B> {
    /// Where copies go.
    pub reference: BackendRef,
    /// The caller's handle.
    pub backend: B,
    sampling: Sampling,
}

impl<B> RouteMirror<B> {
    fn new(mirror: &Mirror, backend: &mut impl FnMut(&BackendRef) -> B) -> Result<Self, MatchError> {
        Ok(Self {
            reference: mirror.backend.clone(),
            backend: backend(&mirror.backend),
            sampling: Sampling::new(mirror.per_million, mirror.sample.as_ref())?,
        })
    }

    /// Whether the request with these headers, which came from the pod at `source`, is copied. By chance that is one draw per mirror and
    /// request; see [`SampleBy`](crate::SampleBy) for the rest.
    pub fn samples(&self, headers: &HeaderMap, source: IpAddr, draw: &mut impl Draw) -> bool {
        self.sampling.takes(headers, source, draw)
    }
}

/// Whether what happens to so many of a million requests happens to this one.
pub(crate) fn happens(per_million: u32, draw: &mut impl Draw) -> bool {
    per_million >= MIRROR_DENOMINATOR
        || (per_million > 0 && draw.below(u64::from(MIRROR_DENOMINATOR)) < u64::from(per_million))
}

impl<B> Route<B> {
    pub(crate) fn new(rule: &Rule, backend: &mut impl FnMut(&BackendRef) -> B) -> Result<Self, RuleError> {
        // A rule that answers itself sends nothing anywhere, and nothing is copied.
        let mirrors: &[Mirror] = if rule.answer.is_some() { &[] } else { &rule.mirrors };
        Ok(Self {
            name: rule.name.clone(),
            blocks: blocks(&rule.matches)?,
            actions: Actions::new(rule)?,
            is_end: matches!(rule.answer, Some(Answer::NoRoute)),
            total_weight: rule.destinations.iter().map(|to| u64::from(to.weight)).sum(),
            destinations: rule.destinations.iter().map(|to| (to.clone(), backend(&to.backend))).collect(),
            mirrors: mirrors
                .iter()
                .map(|mirror| RouteMirror::new(mirror, backend))
                .collect::<Result<_, _>>()?,
        })
    }

    pub(crate) fn holds(&self, block: usize, request: &Split<'_>) -> bool {
        self.blocks[block].holds(request)
    }

    pub(crate) fn draw_destination(&self, draw: &mut impl Draw) -> usize {
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

fn blocks(matches: &[RequestMatch]) -> Result<Vec<Block>, MatchError> {
    match matches {
        [] => Ok(vec![Block::new(&RequestMatch::default())?]),
        blocks => blocks.iter().map(Block::new).collect(),
    }
}
