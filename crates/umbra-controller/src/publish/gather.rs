//! When to publish: at once after a quiet time, then gathered.

use std::time::Duration;

use tokio::time::Instant;

/// How long changes of one sort are gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Published when nothing came for this long.
    pub quiet: Duration,
    /// Published after this long at the latest.
    pub longest: Duration,
}

/// The windows of both sorts of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Rules, subsets, services. `longest` is also how long a change waits that would leave an armed primary
    /// unresolved.
    pub config: Window,
    /// Endpoints and clients: a stale endpoint hurts users more than one more small delta hurts nodes.
    pub endpoints: Window,
}

impl Default for Windows {
    fn default() -> Self {
        let window = |quiet, longest| Window {
            quiet: Duration::from_millis(quiet),
            longest: Duration::from_millis(longest),
        };
        Self { config: window(50, 1000), endpoints: window(10, 200) }
    }
}

/// Gathers changes of one sort.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gather {
    window: Window,
    /// When the last change of this sort came, published or not.
    last: Option<Instant>,
    pending: Option<Pending>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    first: Instant,
    /// The first change after a quiet time: it does not wait.
    at_once: bool,
}

impl Gather {
    pub(super) fn new(window: Window) -> Self {
        Self { window, last: None, pending: None }
    }

    pub(super) fn change(&mut self, now: Instant) {
        let at_once = self.last.is_none_or(|last| now >= last + self.window.quiet);
        self.last = Some(now);
        self.pending.get_or_insert(Pending { first: now, at_once });
    }

    /// When to publish; `None` when there is nothing.
    pub(super) fn due(&self) -> Option<Instant> {
        let pending = self.pending?;
        if pending.at_once {
            return Some(pending.first);
        }
        let quiet = self.last.map(|last| last + self.window.quiet)?;
        Some(quiet.min(pending.first + self.window.longest))
    }

    pub(super) fn published(&mut self) {
        self.pending = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window { quiet: Duration::from_millis(50), longest: Duration::from_millis(1000) };

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_first_change_goes_out_at_once_and_what_follows_waits_for_quiet() {
        let (mut gather, start) = (Gather::new(WINDOW), Instant::now());
        assert_eq!(gather.due(), None);
        gather.change(start);
        assert_eq!(gather.due(), Some(start));
        gather.published();
        gather.change(start + ms(10));
        assert_eq!(gather.due(), Some(start + ms(60)));
        gather.change(start + ms(40));
        assert_eq!(gather.due(), Some(start + ms(90)));
        gather.published();
        gather.change(start + ms(90));
        assert_eq!(gather.due(), Some(start + ms(90)), "quiet for 50 ms: at once again");
    }

    #[test]
    fn a_stream_of_changes_waits_no_longer_than_the_longest() {
        let (mut gather, start) = (Gather::new(WINDOW), Instant::now());
        gather.change(start);
        gather.published();
        for step in 1..100 {
            gather.change(start + ms(20 * step));
        }
        assert_eq!(gather.due(), Some(start + ms(20 + 1000)));
    }
}
