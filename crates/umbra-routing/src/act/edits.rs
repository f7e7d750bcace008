//! Header operations (spec/istio.md 4.2).
//!
//! Takes: the headers of a request or an answer. Gives: the same, changed: all removes, then all sets, then all adds.
//! Values are made after the removes and before any set or add. `Host` among a request's is no header but the authority,
//! and its text is taken literally, as Istio does.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::RuleError;
use super::format::{Exchange, Format, Seen};
use crate::action::HeaderEdits;

/// Headers that say how a message is framed on its connection: whoever changes one makes two ends disagree on where a
/// message ends.
const FRAMING: [HeaderName; 7] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Operations of one block on requests or on answers, ready to use.
#[derive(Default)]
pub(crate) struct Edits {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, Format)>,
    add: Vec<(HeaderName, Format)>,
    authority: Option<HeaderValue>,
}

impl Edits {
    /// Of requests.
    pub(crate) fn of_requests(edits: &HeaderEdits) -> Result<Self, RuleError> {
        let is_host = |(name, _): &&(String, String)| is_authority(name);
        // The controller puts the rule's before the destination's: the first is the one that counts.
        let host = edits.set.iter().find(is_host).or_else(|| edits.add.iter().find(is_host));
        let authority =
            host.filter(|(_, text)| !text.is_empty()).map(|(_, text)| authority(text)).transpose()?;
        let others = |all: &[(String, String)]| values(all.iter().filter(|of| !is_host(of)));
        Ok(Self {
            remove: names(&edits.remove)?,
            set: others(&edits.set)?,
            add: others(&edits.add)?,
            authority,
        })
    }

    /// Of answers.
    pub(crate) fn of_answers(edits: &HeaderEdits) -> Result<Self, RuleError> {
        let (set, add) = (values(edits.set.iter())?, values(edits.add.iter())?);
        Ok(Self { remove: names(&edits.remove)?, set, add, authority: None })
    }

    /// No header is changed; the authority is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    pub(crate) fn authority(&self) -> Option<&HeaderValue> {
        self.authority.as_ref()
    }

    pub(crate) fn change_request(&self, headers: &mut HeaderMap, exchange: &Exchange<'_>) {
        self.remove_from(headers);
        let (set, add) = self.values(&Seen { request: headers, response: None, exchange });
        put(headers, set, add);
    }

    /// `request` is the request as it was sent to the backend.
    pub(crate) fn change_answer(
        &self,
        headers: &mut HeaderMap,
        request: &HeaderMap,
        exchange: &Exchange<'_>,
    ) {
        self.remove_from(headers);
        let (set, add) = self.values(&Seen { request, response: Some(headers), exchange });
        put(headers, set, add);
    }

    fn remove_from(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
    }

    fn values(&self, seen: &Seen<'_>) -> (Fields, Fields) {
        let made = |(name, format): &(HeaderName, Format)| Some((name.clone(), format.value(seen)?));
        (self.set.iter().filter_map(made).collect(), self.add.iter().filter_map(made).collect())
    }
}

type Fields = Vec<(HeaderName, HeaderValue)>;

fn put(headers: &mut HeaderMap, set: Fields, add: Fields) {
    for (name, value) in set {
        headers.insert(name, value);
    }
    for (name, value) in add {
        headers.append(name, value);
    }
}

/// A text in place of Host.
pub(crate) fn authority(text: &str) -> Result<HeaderValue, RuleError> {
    match text.parse::<http::uri::Authority>() {
        Ok(_) => HeaderValue::from_str(text).map_err(|_| RuleError::Authority(text.to_owned())),
        Err(_) => Err(RuleError::Authority(text.to_owned())),
    }
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

fn names(names: &[String]) -> Result<Vec<HeaderName>, RuleError> {
    names.iter().map(|name| changeable(name)).collect()
}

fn values<'e>(
    edits: impl Iterator<Item = &'e (String, String)>,
) -> Result<Vec<(HeaderName, Format)>, RuleError> {
    edits.map(|(name, value)| Ok((changeable(name)?, Format::new(value)?))).collect()
}

fn changeable(name: &str) -> Result<HeaderName, RuleError> {
    let of = HeaderName::from_bytes(name.as_bytes()).map_err(|_| RuleError::HeaderName(name.to_owned()))?;
    if is_authority(name) {
        return Err(RuleError::HeaderName(name.to_owned()));
    }
    if FRAMING.contains(&of) { Err(RuleError::Framing(name.to_owned())) } else { Ok(of) }
}

#[cfg(test)]
mod tests;
