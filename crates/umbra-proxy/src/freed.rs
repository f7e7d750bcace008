//! Memory that is free again goes back to the system: what a burst of copies held for a moment is not this process's for ever.
//!
//! glibc keeps freed memory, each thread's apart, until all that lies above it is free, too; and the largest allocation
//! that it ever gave back raises how much more it keeps. So a proxy that holds 5 MiB had 35 MiB after 20 minutes of mirrors
//! that misbehave by chance, and more each time that a burst was larger than all before it: a graph that looks like a leak.
//!
//! Takes: the time. Gives: pages. A worker that allocates at that very moment waits until its part was gone through: the whole
//! took 0.5 to 2.2 ms in the soak, a debug build and all mirrors at their worst, on two cores that had as much else to do.
#![allow(
    unsafe_code,
    reason = "mallopt(3) and malloc_trim(3) have no safe wrapper in the crates that are here already"
)]

use std::time::{Duration, Instant};

/// How often while it is worth it.
const OFTEN: Duration = Duration::from_secs(10);
/// And while it is not, and so how long the first burst in a long time may be kept: each time costs faults of pages, and
/// workers may wait for a part of it.
const SELDOM: Duration = Duration::from_secs(160);
/// What makes it worth it, in bytes: some percent of what a proxy with little to do has.
const WORTH: usize = 2 << 20;
/// From so much on, what is free at the end of a thread's memory goes back at once, all but 128 KiB (M_TOP_PAD): several
/// large blocks, which are freed and taken again all the time, are less. Set, it also keeps allocations of 128 KiB and more
/// apart from all others for good; pushes have such, requests do not.
#[cfg(target_env = "gnu")]
const ENDS: libc::c_int = 1 << 20;

/// Gives back what is free, again and again. Cancel safe; never returns.
pub(crate) async fn give_back() {
    let mut pause = OFTEN;
    loop {
        tokio::time::sleep(pause).await;
        let (began, before) = (Instant::now(), resident());
        trim();
        let freed = before.saturating_sub(resident());
        tracing::debug!(bytes = freed, took = ?began.elapsed(), "gave free memory back");
        pause = next(pause, freed);
    }
}

/// How long until the next time, after a pause that gave so much back.
fn next(pause: Duration, freed: usize) -> Duration {
    if freed >= WORTH { OFTEN } else { (pause * 2).min(SELDOM) }
}

/// Memory that this process has, in bytes (proc(5), status); 0 when the kernel does not say.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    kibibytes.and_then(|number| number.parse::<usize>().ok()).unwrap_or_default() * 1024
}

/// How much is kept does not depend on what was freed before. To be called before there are workers.
#[cfg(target_env = "gnu")]
pub(crate) fn keep_no_more() {
    // SAFETY: takes two numbers. It is not made for threads that allocate meanwhile, and the workers have not begun; where
    // those of another proxy of this process have, it writes the number that is there already.
    let taken = unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, ENDS) };
    debug_assert_eq!(taken, 1, "glibc knows this parameter");
}

/// All whole pages that lie free, between what is held, of all threads.
#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: takes a number, and each thread's lock in turn; what is allocated is not touched.
    unsafe { libc::malloc_trim(0) };
}

/// Other C libraries have no such calls; musl's allocator gives back by itself.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn keep_no_more() {}

#[cfg(not(target_env = "gnu"))]
fn trim() {}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    const PIECE: usize = 32 * 1024;
    const PIECES: usize = 2048;

    /// A worker's memory as a burst leaves it: what lives longer lies behind it.
    #[test]
    fn what_lies_free_before_something_held_goes_back() {
        let worker = std::thread::spawn(|| {
            let burst: Vec<_> = (0..PIECES).map(|_| vec![1_u8; PIECE]).collect();
            let held = vec![1_u8; PIECE];
            drop(burst);
            let before = resident();
            trim();
            let after = resident();
            drop(held);
            (before, after)
        });
        let (before, after) = worker.join().expect("it allocates");
        // Other tests of this process allocate meanwhile: far less than that.
        assert!(before.saturating_sub(after) > PIECES * PIECE / 2, "{before}, {after} afterwards");
    }

    #[test]
    fn what_is_not_worth_it_is_done_seldom() {
        let pauses = |freed| {
            (0..6).scan(OFTEN, move |pause, _| Some(std::mem::replace(pause, next(*pause, freed)).as_secs()))
        };
        assert_eq!(pauses(WORTH - 1).collect::<Vec<_>>(), [10, 20, 40, 80, 160, 160]);
        assert_eq!(pauses(WORTH).collect::<Vec<_>>(), [10; 6]);
        assert_eq!(next(SELDOM, WORTH), OFTEN);
    }
}
