//! What may differ between a drawn message and how it arrives; all else is as it was sent. The list, with its reasons:
//!
//! - The version, a reason phrase, names' upper case, blanks around values, and the order of fields of different names.
//! - Fields of one hop and what Connection names do not arrive. `TE: trailers` may (RFC 9110 section 7.6.1).
//! - HTTP/2 has `:authority` where HTTP/1.1 has Host (RFC 9113 section 8.3.1).
//! - Cookies that HTTP/2 sends in crumbs are one field (section 8.2.3).
//! - Sizes of chunks and frames; chunks are data of no known length in HTTP/2, and an answer that lasts until its
//!   connection's end is either. What has a length keeps it. A body of nothing and no body are the same.
//! - An answer's trailers, at a client that has not asked for them; interim answers.
//!
//! Nothing is added.

use anyhow::{Result, ensure};

use crate::proxy_drawn::{Answered, Answering, Body, Field, Hop, Request};
use crate::proxy_requests::Version;
use crate::proxy_wire::{Fields, Framing, ID, Message};

/// Who has sent a message, and who got it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) from: Version,
    pub(crate) to: Version,
}

impl Request {
    /// It came as it was sent.
    pub(crate) fn arrived(&self, (id, host): (&str, &str), way: Way, got: &Message) -> Result<()> {
        let start = format!("{} {} {}", self.method, self.target, way.to);
        ensure!(got.start == start, "the first line");
        let mut fields = by_name(&self.fields);
        if way.from == Version::Http2 {
            join_cookies(&mut fields);
        }
        fields.extend([("host".into(), vec![host.into()]), (ID.into(), vec![id.into()])]);
        let te = matches!(self.hop, Hop::TeTrailers).then(|| ("te".into(), vec![b"trailers".to_vec()]));
        let mut allowed = fields.clone();
        allowed.extend(te);
        let seen = unframed(&got.fields);
        ensure!(seen == fields || seen == allowed, "the fields: {allowed:?}");
        self.body.arrived(got, true)
    }
}

impl Answering {
    /// It came as it was sent.
    pub(crate) fn arrived(&self, request: &Request, way: Way, got: &Message) -> Result<()> {
        ensure!(got.start.starts_with(&format!("{} {}", way.to, self.status)), "the status");
        let mut fields = unframed(&got.fields);
        // Of this hop.
        fields.remove("connection");
        ensure!(fields == by_name(&self.fields), "the fields: {:?}", by_name(&self.fields));
        match &self.body {
            Answered::Framed(Body::Length(body)) if self.is_bodiless(&request.method) => {
                let length = got.fields.get("content-length");
                let said = length.is_some_and(|all| *all == [body.0.len().to_string().into_bytes()]);
                // RFC 9110 section 15.4.5: in a 304 it may be left out.
                let right = if self.status == 204 { length.is_none() } else { said };
                ensure!(right || (self.status == 304 && length.is_none()), "the length");
                Ok(())
            }
            Answered::UntilTheEnd(_, body) if !self.is_bodiless(&request.method) => {
                ensure!(got.body == body.0 && got.trailers.is_empty(), "the body");
                Ok(())
            }
            Answered::Framed(body) if !self.is_bodiless(&request.method) => {
                body.arrived(got, request.hop == Hop::TeTrailers)
            }
            _ => Ok(()),
        }
    }
}

impl Body {
    /// `trailers`: those who take trailers get all of them; others may get them or not.
    fn arrived(&self, got: &Message, trailers: bool) -> Result<()> {
        let (framing, body, sent) = match self {
            Self::None => (Framing::None, Vec::new(), Fields::new()),
            Self::Length(body) => {
                let framing = if body.0.is_empty() { Framing::None } else { Framing::Length };
                (framing, body.0.clone(), Fields::new())
            }
            Self::Chunked { chunks, trailers } => {
                let whole = chunks.iter().flat_map(|(chunk, _)| &chunk.0).copied().collect();
                (Framing::Chunked, whole, by_name(trailers))
            }
        };
        // No chunk at all is no body.
        let nothing = got.framing == Framing::None && body.is_empty() && sent.is_empty();
        ensure!(got.framing == framing || nothing, "framed as {:?}, not {framing:?}", got.framing);
        ensure!(got.body == body, "the body: {} bytes, not {}", got.body.len(), body.len());
        ensure!(got.trailers == sent || (!trailers && got.trailers.is_empty()), "the trailers: {sent:?}");
        Ok(())
    }
}

fn by_name(fields: &[Field]) -> Fields {
    let mut all = Fields::new();
    for (name, value) in fields {
        all.entry(name.to_ascii_lowercase()).or_default().push(value.0.trim_ascii().to_vec());
    }
    all
}

fn join_cookies(fields: &mut Fields) {
    if let Some(crumbs) = fields.get_mut("cookie") {
        *crumbs = vec![crumbs.join(b"; ".as_slice())];
    }
}

/// Less what says how the body is framed, which is compared by itself.
fn unframed(fields: &Fields) -> Fields {
    let framing = ["content-length", "transfer-encoding", "trailer"];
    let others = fields.iter().filter(|(name, _)| !framing.contains(&name.as_str()));
    others.map(|(name, values)| (name.clone(), values.clone())).collect()
}
