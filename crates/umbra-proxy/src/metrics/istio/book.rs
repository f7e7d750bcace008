//! All label sets of this process, each with a block per worker that has met it.
//!
//! Locked where a worker meets an exchange of a new kind, and at a scrape for as long as handles are copied; never by a
//! request that is like an earlier one. Label sets stay, as Prometheus' counters must: they name workloads, not pods, so
//! there are as many as workloads that were asked, by whom and with what outcome.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::block::{Block, Cells, Totals};
use super::exchange::Exchange;
use super::labels::{Reported, Told};

/// A worker, to the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Number(usize);

type Blocks = Vec<(Number, Arc<Block>)>;

#[derive(Debug, Default)]
pub(crate) struct Book {
    workers: AtomicUsize,
    sets: Mutex<BTreeMap<Arc<Told>, Blocks>>,
}

/// A worker's way into the book: the only one that gives out its blocks.
pub(super) struct Page {
    book: Arc<Book>,
    worker: Number,
}

impl Page {
    pub(super) fn new(book: &Arc<Book>) -> Self {
        let worker = Number(book.workers.fetch_add(1, Ordering::Relaxed));
        Self { book: Arc::clone(book), worker }
    }

    /// This worker's block for exchanges that are told like this one.
    pub(super) fn block(&self, exchange: &Exchange<'_>) -> Arc<Block> {
        let told = Told::new(exchange);
        let mut sets = self.book.sets();
        let blocks = sets.entry(Arc::new(told)).or_default();
        if let Some((_, block)) = blocks.iter().find(|(worker, _)| *worker == self.worker) {
            return Arc::clone(block);
        }
        let block = Arc::<Block>::default();
        blocks.push((self.worker, Arc::clone(&block)));
        block
    }
}

impl Book {
    /// What stands in it now; the numbers go on growing.
    pub(super) fn snapshot(&self) -> Snapshot {
        let set = |(told, blocks): (&Arc<Told>, &Blocks)| {
            (Arc::clone(told), blocks.iter().map(|(_, block)| Arc::clone(block)).collect())
        };
        Snapshot(self.sets().iter().map(set).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sets().is_empty()
    }

    fn sets(&self) -> MutexGuard<'_, BTreeMap<Arc<Told>, Blocks>> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Snapshot(Vec<(Arc<Told>, Vec<Arc<Block>>)>);

impl Snapshot {
    /// Of all workers together, by what each end reports. One end may report two kinds of exchanges alike.
    pub(super) fn totals(&self, of: fn(&Block) -> &Cells) -> BTreeMap<Reported<'_>, Totals> {
        let mut totals: BTreeMap<_, Totals> = BTreeMap::new();
        for (told, blocks) in &self.0 {
            for reported in told.reported() {
                let total = totals.entry(reported).or_default();
                blocks.iter().for_each(|block| total.add(of(block)));
            }
        }
        totals
    }
}
