//! One block of conditions, ready to use.

use std::collections::BTreeMap;

use http::HeaderName;

use super::subject::HeaderCondition;
use super::text::Text;
use super::{MatchError, QueryMatch, RequestMatch};
use crate::head::Split;

/// Conditions that must all hold. Testing them allocates nothing but what a regex needs.
pub(crate) struct Block {
    never: bool,
    uri: Option<Uri>,
    method: Option<Text>,
    scheme: Option<Text>,
    authority: Option<Text>,
    headers: Vec<HeaderCondition>,
    without_headers: Vec<HeaderCondition>,
    query: Vec<(String, Text)>,
    source_labels: BTreeMap<String, String>,
}

struct Uri {
    text: Text,
    ignore_case: bool,
}

/// What a block's uri condition took of the path: a prefix of so many bytes, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Prefix(usize),
    Whole,
}

impl Taken {
    /// Without a uri condition the prefix is `/` (spec/istio.md 1A).
    pub(crate) const NOTHING_ASKED: Self = Self::Prefix("/".len());
}

impl Block {
    /// It is for clients whose pods have certain labels.
    pub(crate) fn asks_for_labels(&self) -> bool {
        !self.source_labels.is_empty()
    }

    pub(crate) fn new(block: &RequestMatch) -> Result<Self, MatchError> {
        let text = |condition: &Option<_>| condition.as_ref().map(Text::new).transpose();
        let headers =
            |conditions: &[_]| conditions.iter().map(HeaderCondition::new).collect::<Result<_, _>>();
        let query = |to: &QueryMatch| Ok((to.name.clone(), Text::new(&to.value)?));
        Ok(Self {
            never: block.never,
            uri: text(&block.uri)?.map(|text| Uri { text, ignore_case: block.ignore_uri_case }),
            method: text(&block.method)?,
            scheme: text(&block.scheme)?,
            authority: text(&block.authority)?,
            headers: headers(&block.headers)?,
            without_headers: headers(&block.without_headers)?,
            query: block.query.iter().map(query).collect::<Result<_, MatchError>>()?,
            source_labels: block.source_labels.clone(),
        })
    }

    pub(crate) fn holds(&self, request: &Split<'_>) -> bool {
        let fits = |condition: &Option<Text>, text| condition.as_ref().is_none_or(|it| it.holds(text));
        !self.never
            && self.uri.as_ref().is_none_or(|uri| uri.holds(request.path))
            && fits(&self.method, request.head.method)
            && fits(&self.scheme, request.head.scheme)
            && fits(&self.authority, request.head.authority)
            && self.headers.iter().all(|condition| condition.holds(request))
            && self.without_headers.iter().all(|condition| condition.holds_not(request))
            && self
                .query
                .iter()
                .all(|(name, value)| first(request.query, name).is_some_and(|raw| value.holds(raw)))
            && self.source_labels.iter().all(|wanted| has(request.head.labels, wanted))
    }

    /// What the uri condition took of a path that it holds for.
    pub(crate) fn taken(&self) -> Taken {
        match self.uri.as_ref().map(|uri| &uri.text) {
            None | Some(Text::Present) => Taken::NOTHING_ASKED,
            Some(Text::Prefix(prefix)) => Taken::Prefix(prefix.len()),
            Some(Text::Exact(_) | Text::Regex(_)) => Taken::Whole,
        }
    }

    /// The path that a request must have, letter case aside.
    pub(crate) fn exact_path(&self) -> Option<&str> {
        match &self.uri.as_ref()?.text {
            Text::Exact(path) => Some(path),
            _ => None,
        }
    }

    /// Headers of which a request must have a copy that is exactly so.
    pub(crate) fn exact_headers(&self) -> impl Iterator<Item = (&HeaderName, &str)> {
        self.headers.iter().filter_map(HeaderCondition::exact_header)
    }
}

impl Uri {
    fn holds(&self, path: &str) -> bool {
        if self.ignore_case { self.text.holds_in_any_case(path) } else { self.text.holds(path) }
    }
}

/// The raw value of the first parameter of that name; one without `=` is empty (spec/istio.md 4.1).
fn first<'q>(query: Option<&'q str>, name: &str) -> Option<&'q str> {
    let parameters = query?.split('&').map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")));
    parameters.into_iter().find_map(|(key, value)| (key == name).then_some(value))
}

fn has(labels: Option<&BTreeMap<String, String>>, (key, value): (&String, &String)) -> bool {
    labels.and_then(|labels| labels.get(key)) == Some(value)
}
