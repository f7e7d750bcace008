//! Finding the first block that holds without trying them all.
//!
//! A block with an exact path or an exact header is tried only for requests that have it. Which of them it is found by
//! is the one that fewest other blocks of the table have. All others are tried in order.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use http::HeaderName;
use xxhash_rust::xxh3::xxh3_64;

use crate::head::Split;
use crate::matcher::Block;

/// A block of a table: rule, and block in it. The order is the table's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BlockId {
    pub(crate) rule: usize,
    pub(crate) block: usize,
}

/// Where to look for blocks. Two texts with one hash cost a try, never a wrong answer: what is found is tested whole.
#[derive(Default)]
pub(crate) struct Index {
    by_path: ByHash,
    by_header: HashMap<HeaderName, ByHash>,
    others: Vec<BlockId>,
}

/// Keys are hashes, and of texts that the table has: no request chooses what collides.
type ByHash = HashMap<u64, Vec<BlockId>, BuildHasherDefault<AsItIs>>;

/// What is a hash is not hashed again.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are numbers")
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What a request must have for a block to hold.
#[derive(PartialEq, Eq, Hash)]
enum Trait {
    Path(u64),
    Header(HeaderName, u64),
}

impl Index {
    /// `blocks` come in the table's order.
    pub(crate) fn new<'b>(blocks: impl Iterator<Item = (BlockId, &'b Block)> + Clone) -> Self {
        let mut counts: HashMap<Trait, usize> = HashMap::new();
        for (_, block) in blocks.clone() {
            traits(block).for_each(|of| *counts.entry(of).or_default() += 1);
        }
        let mut index = Self::default();
        for (id, block) in blocks {
            match traits(block).min_by_key(|of| counts[of]) {
                Some(Trait::Path(hash)) => index.by_path.entry(hash).or_default().push(id),
                Some(Trait::Header(name, hash)) => {
                    index.by_header.entry(name).or_default().entry(hash).or_default().push(id);
                }
                None => index.others.push(id),
            }
        }
        index
    }

    /// The first block in the table's order that `holds`.
    pub(crate) fn first(&self, request: &Split<'_>, holds: impl Fn(BlockId) -> bool) -> Option<BlockId> {
        let mut first = None;
        let mut look = |ids: &[BlockId]| {
            let before = ids.iter().take_while(|id| first.is_none_or(|first| **id < first));
            if let Some(found) = before.copied().find(|id| holds(*id)) {
                first = Some(found);
            }
        };
        if !self.by_path.is_empty() {
            self.by_path.get(&in_any_case(request.path)).into_iter().for_each(|ids| look(ids));
        }
        self.each_by_header(request, &mut look);
        look(&self.others);
        first
    }

    /// Goes through the names of the table or through those of the request, whichever are fewer.
    fn each_by_header(&self, request: &Split<'_>, mut look: impl FnMut(&[BlockId])) {
        let headers = request.head.headers;
        let mut look_up = |by_value: &ByHash, value: &http::HeaderValue| {
            by_value.get(&xxh3_64(value.as_bytes())).into_iter().for_each(|ids| look(ids));
        };
        if self.by_header.len() <= headers.len() {
            for (name, by_value) in &self.by_header {
                headers.get_all(name).iter().for_each(|value| look_up(by_value, value));
            }
        } else {
            for (name, value) in headers {
                self.by_header.get(name).into_iter().for_each(|by_value| look_up(by_value, value));
            }
        }
    }
}

fn traits(block: &Block) -> impl Iterator<Item = Trait> {
    let path = block.exact_path().map(|path| Trait::Path(in_any_case(path)));
    let header = |(name, value): (&HeaderName, &str)| Trait::Header(name.clone(), xxh3_64(value.as_bytes()));
    path.into_iter().chain(block.exact_headers().map(header))
}

/// One hash for all spellings of a path that differ in the case of ASCII letters, so that blocks with and without
/// ignoreUriCase are found alike (FNV-1a, since nothing may be allocated for a lower-case copy).
fn in_any_case(path: &str) -> u64 {
    path.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use http::HeaderMap;

    use super::*;
    use crate::head::RequestHead;
    use crate::matcher::{HeaderMatch, RequestMatch, StringMatch};

    fn exact_path(at: usize) -> RequestMatch {
        let uri = Some(StringMatch::Exact(format!("/path/{at}")));
        RequestMatch { uri, ignore_uri_case: at.is_multiple_of(2), ..RequestMatch::default() }
    }

    fn exact_header(name: String, at: usize) -> RequestMatch {
        let value = StringMatch::Exact(format!("value-{at}"));
        RequestMatch { headers: vec![HeaderMatch { name, value }], ..RequestMatch::default() }
    }

    /// How many of so many blocks are tried before the one that is asked for, the last, is found.
    fn tries(count: usize, block: impl Fn(usize) -> RequestMatch) -> usize {
        let last = count - 1;
        let blocks: Vec<Block> =
            (0..count).map(|at| Block::new(&block(at)).expect("a block that a node can use")).collect();
        let with_ids = || blocks.iter().enumerate().map(|(rule, of)| (BlockId { rule, block: 0 }, of));
        let index = Index::new(with_ids().collect::<Vec<_>>().into_iter());
        let mut headers = HeaderMap::new();
        for name in ["accept", "host", "h", &format!("h-{last}"), "user-agent"] {
            let name: HeaderName = name.parse().expect("a name");
            headers.insert(name, format!("value-{last}").parse().expect("a value"));
        }
        let target = format!("/path/{last}?query");
        let head = RequestHead {
            method: "GET",
            scheme: "http",
            authority: "a",
            target: &target,
            headers: &headers,
            labels: None,
        };
        let (request, tries) = (Split::new(&head), Cell::new(0));
        let found = index.first(&request, |id| {
            tries.set(tries.get() + 1);
            blocks[id.rule].holds(&request)
        });
        assert_eq!(found.map(|id| id.rule), Some(last));
        tries.get()
    }

    /// What many rules cost a request, in tries over those of a few: a ratio that no machine's load moves. Instructions
    /// are what `benches/select` is run for.
    fn ratio(block: impl Fn(usize) -> RequestMatch) -> f64 {
        tries(1000, &block) as f64 / tries(10, &block) as f64
    }

    #[test]
    fn a_thousand_exact_paths_or_headers_cost_no_more_tries_than_ten() {
        let of_one_name = |at| exact_header("h".into(), at);
        let of_many_names = |at| exact_header(format!("h-{at}"), at);
        assert_eq!((tries(1000, exact_path), ratio(exact_path)), (1, 1.0));
        assert_eq!((tries(1000, of_one_name), ratio(of_one_name)), (1, 1.0));
        assert_eq!((tries(1000, of_many_names), ratio(of_many_names)), (1, 1.0));
        let present = |at: usize| RequestMatch {
            headers: vec![HeaderMatch { name: format!("h-{at}"), value: StringMatch::Present }],
            ..RequestMatch::default()
        };
        assert!(ratio(present) > 5.0, "what is not found by its words is tried in order, and counted here");
    }

    #[test]
    fn what_fewest_blocks_share_finds_a_block() {
        let path_of_all = |at| RequestMatch { uri: exact_path(999).uri, ..exact_header("h".into(), at) };
        let header_of_all =
            |at| RequestMatch { headers: exact_header("h".into(), 999).headers, ..exact_path(at) };
        assert_eq!(tries(1000, path_of_all), 1);
        assert_eq!(tries(1000, header_of_all), 1);
    }
}
