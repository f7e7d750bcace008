//! Rewriting a path (spec/istio.md 1A, HTTPRewrite, and 4.3).
//!
//! Takes: what the matching block's uri condition took of a normalised path. Gives: the new path with the old query.

use regex::{Captures, Regex};

use super::RuleError;
use crate::action;
use crate::head::split_target;
use crate::matcher::{Taken, bounded};

/// A path rewrite, ready to use.
pub(crate) enum PathRewrite {
    Matched(String),
    Regex { regex: Regex, substitution: Vec<Part> },
}

/// A piece of a substitution.
pub(crate) enum Part {
    Text(String),
    Group(usize),
}

impl Part {
    fn text<'p>(&'p self, groups: &'p Captures<'_>) -> &'p str {
        match self {
            Self::Text(text) => text,
            Self::Group(number) => groups.get(*number).map_or("", |group| group.as_str()),
        }
    }
}

impl PathRewrite {
    pub(crate) fn new(rewrite: &action::PathRewrite) -> Result<Self, RuleError> {
        Ok(match rewrite {
            action::PathRewrite::Matched(text) => Self::Matched(target_text(text)?.to_owned()),
            action::PathRewrite::Regex { pattern, substitution } => {
                let regex = bounded(pattern)?;
                let substitution = parts(target_text(substitution)?, regex.captures_len())?;
                Self::Regex { regex, substitution }
            }
        })
    }

    /// The new target; `None`: the path stays.
    pub(crate) fn rewritten(&self, taken: Taken, target: &str) -> Option<String> {
        let (regex, substitution) = match self {
            Self::Matched(text) => return Some(rooted(replaced(taken, target, text))),
            Self::Regex { regex, substitution } => (regex, substitution),
        };
        let (path, _) = split_target(target);
        let query = &target[path.len()..];
        let new = regex
            .is_match(path)
            .then(|| regex.replace_all(path, |groups: &Captures<'_>| filled(substitution, groups)))?;
        Some(rooted(format!("{new}{query}")))
    }
}

/// The target with `text` in place of what was taken of its path. Plain text: `/a` to `/` makes `//x` of `/a/x`.
pub(crate) fn replaced(taken: Taken, target: &str, text: &str) -> String {
    let (path, _) = split_target(target);
    let from = match taken {
        Taken::Prefix(length) => length.min(path.len()),
        Taken::Whole => path.len(),
    };
    format!("{text}{}", target.get(from..).unwrap_or_default())
}

/// A target without its slash is no HTTP.
fn rooted(target: String) -> String {
    if target.starts_with('/') { target } else { format!("/{target}") }
}

fn filled(substitution: &[Part], groups: &Captures<'_>) -> String {
    substitution.iter().map(|part| part.text(groups)).collect()
}

/// RE2's way: `\0` to `\9` are groups, `\\` is a backslash.
fn parts(substitution: &str, groups: usize) -> Result<Vec<Part>, RuleError> {
    let mut parts = Vec::new();
    let mut rest = substitution;
    while let Some((text, escape)) = rest.split_once('\\') {
        parts.push(Part::Text(text.to_owned()));
        let mut after = escape.chars();
        parts.push(match after.next() {
            Some('\\') => Part::Text("\\".into()),
            Some(digit) => match digit.to_digit(10).map(|number| number as usize) {
                Some(number) if number < groups => Part::Group(number),
                _ => return Err(RuleError::Substitution(substitution.to_owned())),
            },
            None => return Err(RuleError::Substitution(substitution.to_owned())),
        });
        rest = after.as_str();
    }
    parts.push(Part::Text(rest.to_owned()));
    Ok(parts)
}

/// Text that may stand in a target wherever it comes to stand.
fn target_text(text: &str) -> Result<&str, RuleError> {
    let fits = |text: &str| format!("/{text}").parse::<http::uri::PathAndQuery>().is_ok();
    if text.contains('#') || !fits(text) { Err(RuleError::Target(text.to_owned())) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(text: &str) -> PathRewrite {
        PathRewrite::new(&action::PathRewrite::Matched(text.into())).expect("a path")
    }

    fn regex(pattern: &str, substitution: &str) -> Result<PathRewrite, RuleError> {
        let (pattern, substitution) = (pattern.into(), substitution.into());
        PathRewrite::new(&action::PathRewrite::Regex { pattern, substitution })
    }

    #[test]
    fn what_was_matched_is_replaced_and_the_query_stays() {
        let prefix = |prefix: &str| Taken::Prefix(prefix.len());
        for (taken, target, text, expected) in [
            (prefix("/old"), "/old", "/new", "/new"),
            (prefix("/old"), "/old/x/y?x=/old", "/new", "/new/x/y?x=/old"),
            (prefix("/old"), "/oldest", "/new", "/newest"),
            (prefix("/old"), "/old/old", "/new", "/new/old"),
            (prefix("/a"), "/a/x", "/", "//x"),
            (prefix("/"), "/a/b?x=1", "/pre", "/prea/b?x=1"),
            (prefix("/"), "/", "/pre", "/pre"),
            (prefix(""), "/a", "/pre", "/pre/a"),
            (prefix("/a/"), "/a/b", "c", "/cb"),
            (prefix("/"), "?q", "/new", "/new?q"),
            (Taken::Whole, "/e?q", "/one", "/one?q"),
            (Taken::Whole, "/v1/x?", "/fixed", "/fixed?"),
            (prefix("/old"), "/old/a%20b?c=%20", "/new", "/new/a%20b?c=%20"),
        ] {
            assert_eq!(matched(text).rewritten(taken, target).as_deref(), Some(expected), "{target} {text}");
        }
    }

    #[test]
    fn each_match_of_a_regex_is_replaced_whatever_the_block_took() {
        for (pattern, substitution, target, expected) in [
            ("/xxx/", "/yyy/", "/aaa/xxx/bbb/xxx/ccc", Some("/aaa/yyy/bbb/yyy/ccc")),
            ("/xxx/", "/yyy/", "/aaa/xxx/xxx/bbb", Some("/aaa/yyy/xxx/bbb")),
            ("/xxx/", "/yyy/", "/aaa/XxX/bbb?q=/xxx/", None),
            ("(?i)/xxx/", "/yyy/", "/aaa/XxX/bbb?q=/xxx/", Some("/aaa/yyy/bbb?q=/xxx/")),
            ("^/(.)/", r"/\1\1/", "/a/b?q", Some("/aa/b?q")),
            ("/(a)(b)?", r"/\2\1", "/a", Some("/a")),
            ("b", r"[\0]", "/abcb", Some("/a[b]c[b]")),
            ("^/", "", "/a", Some("/a")),
            (r"/re/([a-z]+)", r"/got/\1", "/re/abc?x=%20y", Some("/got/abc?x=%20y")),
        ] {
            let rewrite = regex(pattern, substitution).expect("a rewrite");
            assert_eq!(rewrite.rewritten(Taken::Whole, target).as_deref(), expected, "{pattern} {target}");
        }
    }

    #[test]
    fn what_makes_no_path_is_refused() {
        let error = |of: Result<PathRewrite, RuleError>| of.err().expect("refused");
        assert!(matches!(error(regex("(", "/")), RuleError::Match(_)));
        assert!(matches!(error(regex("/(a)", r"/\2")), RuleError::Substitution(_)));
        assert!(matches!(error(regex("/(a)", r"/\x")), RuleError::Substitution(_)));
        assert!(matches!(error(regex("/(a)", r"/\")), RuleError::Substitution(_)));
        for text in ["/a b", "/a#b", "/a\n"] {
            let refused = PathRewrite::new(&action::PathRewrite::Matched(text.into()));
            assert!(matches!(error(refused), RuleError::Target(_)), "{text:?}");
        }
    }
}
