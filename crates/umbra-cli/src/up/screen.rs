//! What `umbra up` prints on standard output, for people or for programs.

use std::fmt::Display;
use std::io::{self, Write};

use serde_json::json;
use umbra_controller::status::{Truth, Wanted};
use umbra_index::ObjectName;
use umbra_proxy::Proxy;

use crate::args::Output;
use crate::files::Problem;

/// Prints in one of the two ways.
#[derive(Clone, Copy)]
pub(super) struct Screen {
    output: Output,
}

impl Screen {
    pub(super) fn new(output: Output) -> Self {
        Self { output }
    }

    /// The first line: what is bound.
    pub(super) fn started(self, proxy: &Proxy) -> io::Result<()> {
        let (traffic, push) = (proxy.traffic_addr(), proxy.push_addr());
        let (metrics, admin) = (proxy.metrics_addr(), proxy.admin_addr());
        let json = json!({"traffic": traffic, "push": push, "metrics": metrics, "admin": admin});
        let text = format!(
            "serving on {traffic}; the Host header chooses the service\n\
             metrics: http://{metrics}/metrics; administration: http://{admin}"
        );
        self.print(&json, &text)
    }

    /// Everything that is wrong with the files now; none, after there were some.
    pub(super) fn problems(self, problems: &[Problem]) -> io::Result<()> {
        if problems.is_empty() {
            return self.print(&json!({"problems": 0}), &"every object can be read again");
        }
        for problem in problems {
            let json = json!({
                "problem": problem.message,
                "file": problem.file,
                "line": problem.line,
                "object": problem.object.as_ref().map(ToString::to_string),
            });
            self.print(&json, problem)?;
        }
        Ok(())
    }

    /// Objects that umbra has no use for, in one line.
    pub(super) fn passed_over(self, objects: &[String]) -> io::Result<()> {
        if objects.is_empty() {
            return Ok(());
        }
        self.print(&json!({"passedOver": objects}), &format!("not used: {}", objects.join(", ")))
    }

    /// An object's conditions have changed.
    pub(super) fn object(self, object: &ObjectName, conditions: &[Wanted]) -> io::Result<()> {
        let of = |condition: &Wanted| {
            let (status, reason) = (condition.truth.as_str(), condition.reason);
            json!({"type": condition.kind, "status": status, "reason": reason, "message": condition.message})
        };
        let json = json!({
            "object": object.to_string(),
            "conditions": conditions.iter().map(of).collect::<Vec<_>>(),
        });
        self.print(&json, &format!("{object}: {}", words(conditions)))
    }

    /// An object is in no file any more.
    pub(super) fn gone(self, object: &ObjectName) -> io::Result<()> {
        self.print(&json!({"object": object.to_string(), "gone": true}), &format!("{object}: gone"))
    }

    fn print(self, json: &serde_json::Value, text: &dyn Display) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match self.output {
            Output::Json => writeln!(out, "{json}"),
            Output::Text => writeln!(out, "{text}"),
        }
    }
}

/// `in force` when all is well, else what is not and why.
fn words(conditions: &[Wanted]) -> String {
    let word = |condition: &Wanted| {
        let Wanted { kind, truth, reason, message } = condition;
        let message = if message.is_empty() { String::new() } else { format!(": {message}") };
        match truth {
            Truth::True if message.is_empty() => None,
            Truth::True if *kind == "Programmed" => None,
            Truth::True => Some(format!("{kind}{message}")),
            Truth::False => Some(format!("not {kind} ({reason}){message}")),
            Truth::Unknown => Some(format!("{kind} not known ({reason}){message}")),
        }
    };
    let words: Vec<_> = conditions.iter().filter_map(word).collect();
    if words.is_empty() { "in force".to_owned() } else { words.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(kind: &'static str, truth: Truth, reason: &'static str, message: &str) -> Wanted {
        Wanted { kind, truth, reason, message: message.to_owned() }
    }

    #[test]
    fn only_what_is_not_well_is_worded() {
        let well = [
            wanted("Accepted", Truth::True, "Accepted", ""),
            wanted("Programmed", Truth::True, "Programmed", "every live node serves it"),
        ];
        assert_eq!(words(&well), "in force");
        let unwell = [
            wanted("Accepted", Truth::True, "Accepted", "spec.x: has no effect"),
            wanted("ResolvedRefs", Truth::False, "SubsetNotFound", "spec.http[0].mirror: no subset \"v2\""),
            wanted("Programmed", Truth::Unknown, "NodesUnknown", ""),
        ];
        assert_eq!(
            words(&unwell),
            "Accepted: spec.x: has no effect; not ResolvedRefs (SubsetNotFound): spec.http[0].mirror: no subset \
             \"v2\"; Programmed not known (NodesUnknown)"
        );
    }
}
