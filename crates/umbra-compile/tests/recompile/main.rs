//! A change of one service costs the same among ten and among many, counted by how often memory is asked for: whatever
//! looked at other services would have to name them. Times are what `cargo bench -p umbra-compile` prints.

#![allow(clippy::print_stdout, reason = "what is counted is read by people")]

mod cluster;

use umbra_testkit::{CountingAllocator, allocations};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// More than any size of map node has room for, few enough for a debug build.
const MANY: usize = 2000;
/// Maps are deeper with many, and split elsewhere.
const ALLOWANCE: f64 = 1.2;

#[test]
fn one_service_of_many_costs_what_one_of_ten_does() {
    let (mut few, mut many) = (cluster::of(10), cluster::of(MANY));
    for (kind, change) in cluster::CHANGES {
        let count = |index: &mut umbra_index::Index| {
            let event = change("s00007", true);
            let (touched, count) = allocations(|| cluster::recompute(index, event));
            assert_eq!(touched, 1, "{kind}: only its own service");
            count
        };
        let (few, many) = (count(&mut few), count(&mut many));
        println!("measured: {kind} of 10 services: {few} allocations, of {MANY}: {many}");
        assert!(
            few > 0 && many as f64 <= few as f64 * ALLOWANCE,
            "{kind}: {few} for 10 services, {many} for {MANY}"
        );
    }
}
