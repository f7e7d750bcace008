//! What a worker has at hand of the book, by who and what, so that a request builds and hashes no strings.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use umbra_routing::{Client, ServiceName};

use super::block::Series;
use super::book::Page;
use super::exchange::Exchange;
use crate::balance::Upstream;
use crate::held;
use crate::metrics::Metrics;

/// A worker keeps this many kinds of exchanges at hand; past it the cache starts anew. Each is some 100 bytes, so that is
/// below 1 MiB a worker.
const CACHE_LIMIT: usize = 4096;

/// What is gone is looked for when there are twice as many as were left the last time, and from here on: pods come and go,
/// and a look at each of them for each new kind would cost more than they take.
const LEAST_SWEPT: usize = 64;

/// Kinds that are found without a look into the map, in 10 KiB a worker.
const SLOTS: usize = 256;

/// Who and what. Objects are told apart by where they are.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    client: usize,
    service: usize,
    upstream: usize,
    kind: u64,
}

impl Key {
    fn new(exchange: &Exchange<'_>) -> Self {
        Self {
            client: exchange.client.map_or(0, |client| Arc::as_ptr(client) as usize),
            service: Arc::as_ptr(exchange.service) as usize,
            upstream: exchange.upstream.map_or(0, |upstream| Arc::as_ptr(upstream) as usize),
            kind: exchange.kind(),
        }
    }

    /// Where it is looked for first: keys are ours, and nobody else's choice.
    fn slot(&self) -> usize {
        let words = [self.client as u64, self.service as u64, self.upstream as u64, self.kind];
        held::place::<SLOTS>(words)
    }
}

/// What a key points to: its place is kept, so that no other object can get the same address, but nothing in it.
struct Cached {
    series: Rc<Series>,
    client: Option<Weak<Client>>,
    service: Weak<ServiceName>,
    upstream: Option<Weak<Upstream>>,
}

impl Cached {
    fn new(series: Series, exchange: &Exchange<'_>) -> Self {
        Self {
            series: Rc::new(series),
            client: exchange.client.map(Arc::downgrade),
            service: Arc::downgrade(exchange.service),
            upstream: exchange.upstream.map(Arc::downgrade),
        }
    }

    /// No exchange can be like that any more.
    fn is_gone(&self) -> bool {
        self.service.strong_count() == 0
            || self.client.as_ref().is_some_and(|client| client.strong_count() == 0)
            || self.upstream.as_ref().is_some_and(|upstream| upstream.strong_count() == 0)
    }
}

type Recent = Option<(Key, Rc<Series>)>;

/// One worker's. Does not leave its thread.
pub(crate) struct SeriesCache {
    page: Page,
    /// Each key at its slot, the last one asked for: all are in `kept`.
    recent: Box<[Recent; SLOTS]>,
    kept: HashMap<Key, Cached>,
    /// How many there may be before what is gone is looked for.
    swept_at: usize,
}

impl SeriesCache {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            page: Page::new(metrics.istio()),
            recent: Box::new([const { None }; SLOTS]),
            kept: HashMap::new(),
            swept_at: LEAST_SWEPT,
        }
    }

    pub(crate) fn get(&mut self, exchange: &Exchange<'_>) -> Rc<Series> {
        let key = Key::new(exchange);
        match &self.recent[key.slot()] {
            Some((recent, series)) if *recent == key => Rc::clone(series),
            _ => self.find(key, exchange),
        }
    }

    /// How many it has at hand.
    #[cfg(test)]
    pub(super) fn kinds(&self) -> usize {
        self.kept.len()
    }

    #[cold]
    fn find(&mut self, key: Key, exchange: &Exchange<'_>) -> Rc<Series> {
        if self.kept.len() >= self.swept_at {
            self.sweep();
        }
        let series = || Series::new(self.page.block(exchange));
        let cached = self.kept.entry(key).or_insert_with(|| Cached::new(series(), exchange));
        let series = Rc::clone(&cached.series);
        self.recent[key.slot()] = Some((key, Rc::clone(&series)));
        series
    }

    /// Lets go of what is gone, and of everything when even so there is too much.
    fn sweep(&mut self) {
        self.kept.retain(|_, cached| !cached.is_gone());
        if self.kept.len() >= CACHE_LIMIT {
            self.kept.clear();
        }
        for slot in self.recent.iter_mut() {
            slot.take_if(|(key, _)| !self.kept.contains_key(key));
        }
        self.swept_at = (2 * self.kept.len()).clamp(LEAST_SWEPT, CACHE_LIMIT);
    }
}
