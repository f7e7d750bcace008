//! What a person sees.

use std::fmt::Display;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::{Args, Ledger, SHADOW_TIMEOUT, SLEEP_SECONDS};

pub(super) fn opening(args: &Args) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "The article: sa-web-app asks sa-logic. v1 answers the users, v2 gets a copy of every request."
    )?;
    writeln!(out, "Of 101 equally likely copies v2 fails 33 at once, and 32 after a long sleep.")?;
    writeln!(
        out,
        "Shortened here: the sleep is {SLEEP_SECONDS} s (the article: 30 s), and a copy may take {SHADOW_TIMEOUT} \
         (umbra: 10s); so a hanging copy times out, as it would in a cluster."
    )?;
    writeln!(out, "Manifests and logs: {}", args.folder.display())
}

pub(super) fn ready(traffic: &SocketAddr, metrics: &SocketAddr) -> io::Result<()> {
    writeln!(io::stdout(), "umbra serves sa-logic on {traffic}; counters: http://{metrics}/metrics")
}

/// Drawn only on a terminal.
pub(super) fn bar(requests: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} requests, {eta} to go");
    ProgressBar::new(requests).with_style(style.expect("a static template"))
}

/// Drawn only on a terminal.
pub(super) fn waiting() -> ProgressBar {
    let spinner = ProgressBar::new_spinner();
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

pub(super) fn result(ledger: &Ledger, file: &Path) -> io::Result<()> {
    let (users, shadow) = (&ledger.users, &ledger.shadow);
    let mut out = io::stdout().lock();
    let mut row = |what: &str, users: &dyn Display, shadow: &dyn Display| {
        writeln!(out, "  {what:<16} {:>22}   {:>22}", users.to_string(), shadow.to_string())
    };
    row("", &"users (v1)", &"shadow (v2)")?;
    row("requests", &users.requests, &format!("{} of {} copied", shadow.sent, shadow.eligible))?;
    row("right", &(users.requests - users.failed), &(shadow.sent - shadow.worse().min(shadow.sent)))?;
    row("answered 5xx", &"-", &shadow.answered_5xx)?;
    row("timed out", &"-", &shadow.timed_out)?;
    row("not connected", &"-", &shadow.failed)?;
    row("failed", &share(users.failed, users.requests), &share(shadow.worse(), shadow.sent))?;
    row("p50, p99", &format!("{:.1} ms, {:.1} ms", users.p50_ms, users.p99_ms), &"-")?;
    for (reason, count) in &shadow.dropped {
        row("dropped", &"-", &format!("{count} ({reason})"))?;
    }
    for complaint in ledger.complaints() {
        writeln!(out, "WRONG: {complaint}")?;
    }
    if ledger.complaints().is_empty() {
        writeln!(out, "No user was affected, and every copy is accounted for. As JSON: {}", file.display())?;
    }
    Ok(())
}

fn share(part: u64, whole: u64) -> String {
    let percent = if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 };
    format!("{part} ({percent:.1} %)")
}
