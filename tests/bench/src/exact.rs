//! What a request costs in instructions, allocations and system calls: counted, not timed, so that a busy machine does not
//! change it.
//!
//! Each is the difference of two runs of 500 and 2,500 requests, from the program's start to its end. Only user
//! instructions: valgrind does not see the kernel.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use umbra_testkit::wait_for;

use crate::harness::{Harness, Shape, Until};
use crate::peers::{Kind, Mode, Peer, Wiring};
use crate::ratio::marginal;
use crate::void::{copies_each, judge};

const SHORT: u64 = 500;
const LONG: u64 = 2_500;
/// For the tool to have written its sums, once the program has ended.
const WRITES: Duration = Duration::from_secs(60);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Count {
    /// User instructions, one client of HTTP/1 or all of HTTP/2 (callgrind).
    Instructions,
    /// Calls of malloc and its kin, as many clients (memcheck).
    Allocations,
    /// System calls, 16 clients of HTTP/1 or all of HTTP/2 (strace).
    Syscalls,
}

impl Count {
    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Instructions => "instructions",
            Self::Allocations => "allocations",
            Self::Syscalls => "syscalls",
        }
    }

    /// What counts.
    pub(crate) fn tool(self) -> &'static str {
        match self {
            Self::Instructions | Self::Allocations => "valgrind",
            Self::Syscalls => "strace",
        }
    }

    fn clients(self, shape: Shape) -> usize {
        if shape.is_http2() {
            shape.clients()
        } else if self == Self::Syscalls {
            16
        } else {
            1
        }
    }

    /// The command that runs the program and writes its sums to `output`.
    fn wrapper(self, output: &Path) -> Vec<String> {
        let output = output.display();
        let line = match self {
            Self::Instructions => {
                format!("valgrind --quiet --tool=callgrind --callgrind-out-file={output}")
            }
            Self::Allocations => {
                format!("valgrind --leak-check=no --undef-value-errors=no --log-file={output}")
            }
            // Detached, so that the program keeps its process id, and signals meet it.
            Self::Syscalls => format!("strace -D -f -c -U calls,name -o {output}"),
        };
        line.split(' ').map(str::to_owned).collect()
    }

    /// The sum in what the tool wrote; `None`: it has not ended.
    fn sum(self, written: &str) -> Option<u64> {
        let number = |text: &str| text.trim().replace(',', "").parse().ok();
        match self {
            Self::Instructions => written.lines().find_map(|line| number(line.strip_prefix("totals:")?)),
            Self::Allocations => {
                let (_, rest) = written.split_once("total heap usage: ")?;
                number(rest.split_once(" allocs")?.0)
            }
            Self::Syscalls => written.lines().find_map(|line| number(line.strip_suffix(" total")?)),
        }
    }
}

/// How many of them a request takes.
///
/// # Errors
/// The peer or the tool is missing, or a run is void.
pub(crate) fn count(
    harness: &mut Harness,
    wiring: &Wiring,
    count: Count,
    (kind, mode, shape): (Kind, Mode, Shape),
) -> Result<f64> {
    let mut wiring = wiring.clone();
    if count == Count::Allocations {
        // In the program that is deployed, a static one, memcheck sees none.
        wiring.umbra = None;
    }
    let mut run = |requests| {
        let output = wiring.folder.join(format!("{}-{}.out", kind.name(), count.name()));
        // An old one would be taken for the new one's.
        if output.exists() {
            std::fs::remove_file(&output)?;
        }
        let peer = Peer::start(kind, &wiring, &count.wrapper(&output))?;
        let target = peer.target(mode, shape).context("it cannot do that")?;
        harness.open(&target, shape, count.clients(shape))?;
        let counts = harness.run(Until::Requests(requests), copies_each(mode))?;
        harness.close();
        judge(mode, counts).map_err(|void| anyhow::anyhow!("{void}"))?;
        peer.end()?;
        let sum = wait_for(&format!("the sums in {}", output.display()), WRITES, || {
            count.sum(&std::fs::read_to_string(&output)?).context("they are not there")
        })?;
        Ok::<_, anyhow::Error>((counts.answered, sum))
    };
    marginal(run(SHORT)?, run(LONG)?).context("the long run is not longer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_found_in_what_the_tools_write() {
        let callgrind = "events: Ir\nsummary: 12\nfn=(1)\n1 12\n\ntotals: 1234567\n";
        assert_eq!(Count::Instructions.sum(callgrind), Some(1_234_567));
        let memcheck =
            "==1== HEAP SUMMARY:\n==1==   total heap usage: 1,234 allocs, 1,200 frees, 9 bytes allocated\n";
        assert_eq!(Count::Allocations.sum(memcheck), Some(1_234));
        let strace = "    calls syscall\n--------- ----------------\n     4000 epoll_wait\n       12 read\n     4012 total\n";
        assert_eq!(Count::Syscalls.sum(strace), Some(4_012));
    }

    #[test]
    fn a_file_that_is_not_whole_has_no_sum() {
        for count in [Count::Instructions, Count::Allocations, Count::Syscalls] {
            assert_eq!(count.sum(""), None);
        }
    }
}
