//! `umbra lint`: what is wrong with manifests, before a cluster meets them.
//!
//! Takes: files, or a cluster's objects. Gives: one line a finding, `CODE level kind ns/name field: text`, or a JSON object; and whether any
//! is an error. Each object is validated on its own, all together are indexed and compiled as in a cluster, and then
//! looked at side by side. Never serves anybody, never writes to a cluster.

mod codes;
mod compiled;
mod conflicts;
mod finding;
mod manifests;
mod mirrors;
mod references;
mod subsets;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::process::ExitCode;

use umbra_api::Severity;
use umbra_compile::Options;

use crate::args::{LintArgs, Output};
#[cfg(feature = "kubernetes")]
use crate::cluster;
use crate::files::{self, Texts};
pub use finding::Finding;
use manifests::Manifests;

/// Some finding is an error.
const FAULTY: u8 = 1;
/// Some file, or a document in one, or the cluster, cannot be read: what is in it was not looked at.
const UNREAD: u8 = 2;

/// Prints the findings; says with what the command ends.
///
/// # Errors
/// When nobody reads what is printed.
pub fn run(args: &LintArgs) -> io::Result<ExitCode> {
    let report = report(args);
    let mut out = io::stdout().lock();
    for finding in &report.findings {
        match args.output {
            Output::Text => writeln!(out, "{finding}")?,
            Output::Json => writeln!(out, "{}", finding.to_json())?,
        }
    }
    for why in &report.unread {
        writeln!(io::stderr(), "umbra lint: {why}")?;
    }
    let faulty = report.findings.iter().any(|finding| finding.level == Severity::Error);
    Ok(match (report.unread.is_empty(), faulty) {
        (false, _) => ExitCode::from(UNREAD),
        (true, true) => ExitCode::from(FAULTY),
        (true, false) => ExitCode::SUCCESS,
    })
}

/// Looks where the flags say.
fn report(args: &LintArgs) -> Report {
    #[cfg(feature = "kubernetes")]
    if args.cluster.kubeconfig.is_some() {
        return match cluster::read(&args.cluster) {
            Ok(listed) => looked_at(Manifests::listed(listed), &args.compile.options()),
            Err(why) => Report { unread: vec![why.to_string()], ..Report::default() },
        };
    }
    let texts = files::read(&args.filename);
    let mut report = lint(&texts, &args.compile.options());
    if texts.is_empty() {
        let paths: Vec<_> = args.filename.iter().map(|path| path.display().to_string()).collect();
        report.unread.push(format!("-f {}: no *.yaml, *.yml or *.json there", paths.join(",")));
    }
    report
}

/// What there is to say about some objects.
#[derive(Debug, Default)]
pub struct Report {
    /// By object and field.
    pub findings: BTreeSet<Finding>,
    /// Which files or documents, or what of a cluster, could not be read, and why.
    pub unread: Vec<String>,
}

/// Looks at the files' texts. Pure.
pub fn lint(texts: &Texts, options: &Options) -> Report {
    looked_at(Manifests::read(texts), options)
}

fn looked_at((manifests, mut report): (Manifests, Report), options: &Options) -> Report {
    report.findings.extend(manifests.problems());
    let compiled = compiled::findings(&manifests, options, &report.findings);
    report.findings.extend(compiled);
    let references = references::findings(&manifests, &report.findings);
    report.findings.extend(references);
    let conflicts = conflicts::findings(&manifests, &report.findings);
    report.findings.extend(conflicts);
    report.findings.extend(subsets::findings(&manifests));
    report.findings.extend(mirrors::findings(&manifests));
    report
}

#[cfg(test)]
mod tests;
