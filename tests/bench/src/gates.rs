//! What a request may cost, checked by `make test`: counts that do not depend on how busy the machine is.
//!
//! Takes: umbra-proxy, valgrind and strace. Gives: each count beside its limit, and an error when one is exceeded. A tool that
//! is missing is said, and is an error when `CI` is set.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::exact::{self, Count};
use crate::harness::{Harness, Shape};
use crate::peers::{Kind, Mode, Wiring};

/// What a request may cost: lower these with each gain, so that it is not lost again. Each is what was counted, and what
/// that varies by: epoll_wait by how many requests are there at once, instructions by the compiler's version.
const LIMITS: &[(Count, Mode, Shape, f64)] = &[
    (Count::Allocations, Mode::Plain, Shape::Small, 0.2),
    (Count::Allocations, Mode::Mirrored, Shape::Small, 5.2),
    (Count::Syscalls, Mode::Plain, Shape::Small, 4.3),
    (Count::Syscalls, Mode::Mirrored, Shape::Small, 6.5),
    // Of an optimised build alone.
    (Count::Instructions, Mode::Plain, Shape::Small, 20_300.0),
    (Count::Instructions, Mode::Mirrored, Shape::Small, 30_800.0),
    // By how many requests come at once.
    (Count::Syscalls, Mode::Plain, Shape::ManyStreams, 0.4),
    (Count::Syscalls, Mode::Plain, Shape::OneStream, 4.3),
    (Count::Instructions, Mode::Plain, Shape::ManyStreams, 46_000.0),
    (Count::Instructions, Mode::Plain, Shape::OneStream, 51_000.0),
];

/// What is checked.
#[derive(Debug, Args)]
pub(crate) struct Gates {
    /// An optimised umbra-proxy, for all but allocations [default: the one beside this program, built as this is].
    #[arg(long)]
    release: Option<PathBuf>,
    /// These alone. In a static program memcheck sees no allocations.
    #[arg(long, value_enum)]
    only: Vec<Count>,
}

impl Gates {
    /// What is checked, and against what.
    fn limits(&self) -> impl Iterator<Item = (Count, Mode, Shape, f64)> {
        let is_optimised = !cfg!(debug_assertions) || self.release.is_some();
        LIMITS.iter().copied().filter(move |(count, ..)| {
            let is_asked = self.only.is_empty() || self.only.contains(count);
            is_asked && (is_optimised || *count != Count::Instructions)
        })
    }
}

/// Counts, and compares.
///
/// # Errors
/// A limit is exceeded, a run is void, or on CI a tool is missing.
pub(crate) fn check(gates: &Gates, folder: PathBuf) -> Result<()> {
    let mut harness = Harness::new()?;
    let (primary, mirror) = harness.backends()?;
    let umbra = gates.release.clone();
    let wiring = Wiring { configs: PathBuf::new(), folder, primary, mirror: Some(mirror), umbra };
    let (mut all, mut exceeded) = (0, Vec::new());
    for (count, mode, shape, limit) in gates.limits() {
        all += 1;
        let what = format!("{} of a {} request{}", count.name(), mode.name(), shape.spoken());
        if !is_here(count.tool()) {
            println!("skipped: {what}: {} is not here: tests/bench/packages.sh", count.tool());
            ensure!(std::env::var_os("CI").is_none(), "on CI nothing may be skipped");
            continue;
        }
        let found =
            exact::count(&mut harness, &wiring, count, (Kind::Umbra, mode, shape)).context(what.clone())?;
        let verdict = verdict(found, limit);
        println!(
            "measured: {what}: {found:.2} of at most {limit}: {}",
            verdict.as_deref().unwrap_or("holds")
        );
        exceeded.extend(verdict.map(|verdict| format!("{what}: {verdict}")));
    }
    // As cargo's tests end, for who adds them up: what was skipped is among the passed there, too.
    let (passed, failed) = (all - exceeded.len(), exceeded.len());
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {result}. {passed} passed; {failed} failed; 0 ignored");
    ensure!(exceeded.is_empty(), "{}", exceeded.join("\n"));
    Ok(())
}

/// Why it does not hold.
fn verdict(found: f64, limit: f64) -> Option<String> {
    // Less than nothing: a run was not what it should be. Nothing is fine, give or take what starting varies by.
    if found < -0.5 {
        Some(format!("{found:.2} is no count"))
    } else if found > limit {
        Some(format!("{found:.2} exceeds {limit}"))
    } else {
        None
    }
}

fn is_here(tool: &str) -> bool {
    let mut asked = Command::new(tool);
    asked.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    asked.status().is_ok_and(|status| status.success())
}

/// Where runs leave what the tools write.
///
/// # Errors
/// It cannot be made.
pub(crate) fn folder() -> Result<PathBuf> {
    let folder = std::path::absolute(Path::new("target/bench/gates"))?;
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_holds_up_to_its_limit() {
        assert_eq!(verdict(17.0, 17.0), None);
        assert_eq!(verdict(17.2, 17.1).unwrap(), "17.20 exceeds 17.1");
        assert!(verdict(-1.0, 17.0).is_some(), "less than nothing was counted");
    }

    #[test]
    fn everything_that_is_counted_has_a_limit_plain_and_mirrored() {
        let asked = |only| Gates { release: Some(PathBuf::new()), only }.limits().collect::<Vec<_>>();
        for count in [Count::Instructions, Count::Allocations, Count::Syscalls] {
            let all = asked(vec![count]).into_iter();
            let modes: Vec<_> = all.filter(|(_, _, shape, _)| !shape.is_http2()).map(|it| it.1).collect();
            assert_eq!(modes, [Mode::Plain, Mode::Mirrored], "{count:?}");
        }
        assert_eq!(asked(vec![]).len(), LIMITS.len());
    }

    #[test]
    fn a_build_without_optimisation_is_not_held_to_instructions() {
        let own = Gates { release: None, only: vec![Count::Instructions] };
        assert_eq!(own.limits().count(), if cfg!(debug_assertions) { 0 } else { 4 });
    }
}
