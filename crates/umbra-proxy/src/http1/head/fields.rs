//! The fields of a head: names and values as the `http` crate has them, and what they say about their connection and their
//! body.

use std::ops::Range;

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::HeadError;
use crate::http1::Framing;

/// Where a field is in its head.
pub(super) struct Place {
    name: Range<usize>,
    value: Range<usize>,
}

/// The fields of a head, and what those say that concern its connection.
pub(super) struct Fields {
    pub(super) headers: HeaderMap,
    length: Option<u64>,
    coding: Coding,
    close: bool,
    keep_alive: bool,
    pub(super) expects_continue: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Coding {
    None,
    Chunked,
    Unknown,
}

impl Place {
    /// Of a field that the parser has found in `head`.
    pub(super) fn of(field: &httparse::Header<'_>, head: &[u8]) -> Self {
        Self { name: range(field.name.as_bytes(), head), value: range(field.value, head) }
    }
}

/// Where a part that was borrowed from `whole` is in it.
pub(super) fn range(part: &[u8], whole: &[u8]) -> Range<usize> {
    if part.is_empty() {
        return 0..0;
    }
    let from = part.as_ptr().addr() - whole.as_ptr().addr();
    from..from + part.len()
}

/// A field's name. Those that most messages have are told by their bytes as most peers send them, which is a fraction of
/// what it takes to make out any name.
fn name_of(name: &[u8]) -> Result<HeaderName, HeadError> {
    Ok(match name {
        b"host" | b"Host" => header::HOST,
        b"date" | b"Date" => header::DATE,
        b"accept" | b"Accept" => header::ACCEPT,
        b"cookie" | b"Cookie" => header::COOKIE,
        b"server" | b"Server" => header::SERVER,
        b"connection" | b"Connection" => header::CONNECTION,
        b"user-agent" | b"User-Agent" => header::USER_AGENT,
        b"content-type" | b"Content-Type" => header::CONTENT_TYPE,
        b"authorization" | b"Authorization" => header::AUTHORIZATION,
        b"content-length" | b"Content-Length" => header::CONTENT_LENGTH,
        b"accept-encoding" | b"Accept-Encoding" => header::ACCEPT_ENCODING,
        b"transfer-encoding" | b"Transfer-Encoding" => header::TRANSFER_ENCODING,
        other => HeaderName::from_bytes(other).map_err(|_| HeadError::Malformed("the name of a field"))?,
    })
}

pub(super) fn field_of(
    head: &Bytes,
    Place { name, value }: Place,
) -> Result<(HeaderName, HeaderValue), HeadError> {
    let name = name_of(&head[name])?;
    let value = HeaderValue::from_maybe_shared(head.slice(value))
        .map_err(|_| HeadError::Malformed("the value of a field"))?;
    Ok((name, value))
}

impl Fields {
    /// Of the head in `bytes`. `headers` is empty, and filled.
    pub(super) fn read(
        bytes: &Bytes,
        places: &mut Vec<Place>,
        headers: HeaderMap,
    ) -> Result<Self, HeadError> {
        let mut read = Self {
            headers,
            length: None,
            coding: Coding::None,
            close: false,
            keep_alive: false,
            expects_continue: false,
        };
        read.headers.reserve(places.len());
        for place in places.drain(..) {
            let (name, value) = field_of(bytes, place)?;
            if read.look(&name, value.as_bytes())? {
                read.headers.append(name, value);
            }
        }
        Ok(read)
    }

    /// False: the field says what another one has said, and only that one is sent on (RFC 9110 section 8.6).
    fn look(&mut self, name: &HeaderName, value: &[u8]) -> Result<bool, HeadError> {
        if name == header::CONTENT_LENGTH {
            let length = number(value).ok_or(HeadError::Malformed("its Content-Length"))?;
            return match self.length.replace(length) {
                Some(other) if other != length => Err(HeadError::Malformed("it has two lengths")),
                other => Ok(other.is_none()),
            };
        }
        if name == header::TRANSFER_ENCODING {
            let chunked = self.coding == Coding::None && value.eq_ignore_ascii_case(b"chunked");
            self.coding = if chunked { Coding::Chunked } else { Coding::Unknown };
        } else if name == header::CONNECTION {
            for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                self.close |= option.eq_ignore_ascii_case(b"close");
                self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if name == header::EXPECT {
            self.expects_continue = value.eq_ignore_ascii_case(b"100-continue");
        }
        Ok(true)
    }

    pub(super) fn keeps_alive(&self, minor: u8) -> bool {
        !self.close && (minor == 1 || self.keep_alive)
    }

    /// RFC 9112 section 6.3, without its leniencies: what two recipients may frame differently is refused.
    pub(super) fn of_request(&self, minor: u8) -> Result<Framing, HeadError> {
        match (self.coding, self.length) {
            (Coding::None, None | Some(0)) => Ok(Framing::None),
            (Coding::None, Some(length)) => Ok(Framing::Length(length)),
            (_, Some(_)) => Err(HeadError::Malformed("it has a length and a transfer coding")),
            (_, None) if minor == 0 => Err(HeadError::Malformed("HTTP/1.0 has no transfer codings")),
            (Coding::Chunked, None) => Ok(Framing::Chunked),
            (Coding::Unknown, None) => Err(HeadError::UnknownCoding),
        }
    }

    pub(super) fn of_answer(
        &mut self,
        minor: u8,
        status: StatusCode,
        is_head: bool,
    ) -> Result<Framing, HeadError> {
        if self.coding != Coding::None {
            // The coding counts, and the length may not be sent on (RFC 9112 section 6.3).
            self.headers.remove(header::CONTENT_LENGTH);
        }
        let bodiless =
            status.is_informational() || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
        if is_head || bodiless {
            return Ok(Framing::None);
        }
        match (self.coding, self.length) {
            (Coding::None, Some(0)) => Ok(Framing::None),
            (Coding::None, Some(length)) => Ok(Framing::Length(length)),
            (Coding::None, None) => Ok(Framing::UntilClose),
            (_, _) if minor == 0 => Err(HeadError::Malformed("HTTP/1.0 has no transfer codings")),
            (Coding::Chunked, _) => Ok(Framing::Chunked),
            (Coding::Unknown, _) => Err(HeadError::UnknownCoding),
        }
    }
}

/// Digits alone: no sign, no list, no space.
fn number(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_told_by_their_bytes_are_what_they_say() {
        for name in [
            "Host",
            "Date",
            "Accept",
            "Cookie",
            "Server",
            "Connection",
            "User-Agent",
            "Content-Type",
            "Authorization",
            "Content-Length",
            "Accept-Encoding",
            "Transfer-Encoding",
            "X-Other",
        ] {
            let small = name.to_lowercase();
            for spelled in [name, &small, &name.to_uppercase()] {
                assert_eq!(name_of(spelled.as_bytes()).map(|name| name.to_string()), Ok(small.clone()));
            }
        }
        assert!(name_of(b"x y").is_err());
    }
}
