//! When a run does not count. A proxy that mirrors less than it was told is fast for the wrong reason. Pure.

use std::fmt;

use crate::harness::Counts;
use crate::peers::Mode;

/// Why a run does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Void {
    /// Nothing was answered.
    Nothing,
    /// Answers or requests that are not what they should be.
    Wrong(u64),
    /// The primary was not asked once for each answer.
    Primary { answered: u64, asked: u64 },
    /// Another number of copies than requests that have one.
    Copies { wanted: u64, came: u64 },
}

impl fmt::Display for Void {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => write!(f, "no request was answered"),
            Self::Wrong(count) => write!(f, "{count} requests or answers had another status or length"),
            Self::Primary { answered, asked } => {
                write!(f, "the primary saw {asked} requests, clients {answered} answers")
            }
            Self::Copies { wanted, came } => write!(f, "{came} copies came, {wanted} are configured"),
        }
    }
}

/// How many copies each request has to have. One in a million is left open.
pub(crate) fn copies_each(mode: Mode) -> u64 {
    match mode {
        Mode::Plain | Mode::Unsampled => 0,
        Mode::Mirrored => 1,
    }
}

/// Whether a run counts.
///
/// # Errors
/// Why it does not.
pub(crate) fn judge(mode: Mode, counts: Counts) -> Result<(), Void> {
    let Counts { answered, primary, copies, wrong, met: _ } = counts;
    let wanted = copies_each(mode) * answered;
    if answered == 0 {
        Err(Void::Nothing)
    } else if wrong > 0 {
        Err(Void::Wrong(wrong))
    } else if primary != answered {
        Err(Void::Primary { answered, asked: primary })
    } else if copies != wanted && mode != Mode::Unsampled {
        Err(Void::Copies { wanted, came: copies })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Counts = Counts { answered: 100, primary: 100, copies: 100, wrong: 0, met: 100 };

    #[test]
    fn a_run_counts_with_exactly_the_copies_that_are_configured() {
        assert_eq!(judge(Mode::Mirrored, GOOD), Ok(()));
        assert_eq!(judge(Mode::Plain, Counts { copies: 0, ..GOOD }), Ok(()));
        let missing = judge(Mode::Mirrored, Counts { copies: 99, ..GOOD });
        assert_eq!(missing, Err(Void::Copies { wanted: 100, came: 99 }));
        judge(Mode::Mirrored, Counts { copies: 101, ..GOOD }).unwrap_err();
        judge(Mode::Plain, Counts { copies: 1, ..GOOD }).unwrap_err();
    }

    #[test]
    fn answers_without_the_primary_or_of_another_kind_do_not_count() {
        judge(Mode::Mirrored, Counts { primary: 99, ..GOOD }).unwrap_err();
        judge(Mode::Mirrored, Counts { wrong: 1, ..GOOD }).unwrap_err();
        assert_eq!(judge(Mode::Plain, Counts::default()), Err(Void::Nothing));
    }

    #[test]
    fn one_in_a_million_may_come() {
        assert_eq!(judge(Mode::Unsampled, Counts { copies: 1, ..GOOD }), Ok(()));
    }
}
