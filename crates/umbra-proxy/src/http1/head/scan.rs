//! Where a head ends: what has come of it is parsed now and then, and scanned in between, so that a head that comes byte by
//! byte is not looked at again and again.

use super::HeadError;
use super::fields::Place;
use crate::http1::find;

/// How far a head that is not whole has been looked at.
#[derive(Default)]
pub(crate) struct Scan {
    /// No end of a head before this.
    seen: usize,
    /// Bytes of empty lines before it.
    empty: usize,
    /// Parsed when it has this many bytes, whole or not: what is no HTTP is to be told soon.
    parse_at: usize,
    /// Where the fields of the head parsed last are. Kept, for the next one.
    pub(super) places: Vec<Place>,
}

impl Scan {
    /// How many bytes of empty lines are to be read over before a request, which are allowed (RFC 9112 section 2.2).
    ///
    /// # Errors
    /// All of them together are more than `limit`.
    pub(super) fn empty_lines(&mut self, input: &[u8], limit: usize) -> Result<usize, HeadError> {
        if self.seen > 0 {
            return Ok(0);
        }
        let empty = empty_lines(input);
        self.empty += empty;
        if self.empty > limit { Err(HeadError::TooLarge) } else { Ok(empty) }
    }

    /// The length of the head at the start of `input`, once it is there. Then `parse` was asked about it last, and has put
    /// its fields' places where it was told.
    ///
    /// # Errors
    /// It is no head, or more than `limit` bytes long.
    pub(super) fn whole(
        &mut self,
        input: &[u8],
        limit: usize,
        mut parse: impl FnMut(&[u8], &mut Vec<Place>) -> Result<httparse::Status<usize>, HeadError>,
    ) -> Result<Option<usize>, HeadError> {
        self.places.clear();
        // The parser reads over any number of empty lines, and knows no limit.
        let parser_knows = input.len() <= limit && !input.starts_with(b"\r") && !input.starts_with(b"\n");
        if parser_knows && self.is_due(input.len()) {
            let end = match parse(input, &mut self.places)? {
                httparse::Status::Complete(end) => Some(self.found(end)),
                httparse::Status::Partial => None,
            };
            #[cfg(test)]
            crate::http1::looked::at(end.unwrap_or(input.len()));
            return Ok(end);
        }
        let end = self.end(input);
        if end.unwrap_or(input.len()) > limit {
            return Err(HeadError::TooLarge);
        }
        let Some(end) = end else {
            if self.is_due(input.len()) {
                #[cfg(test)]
                crate::http1::looked::at(input.len());
                parse(input, &mut self.places)?;
            }
            return Ok(None);
        };
        // What the parser takes for the end is what the scan took for it.
        match parse(&input[..end], &mut self.places)? {
            httparse::Status::Complete(parsed) if parsed == end => Ok(Some(self.found(end))),
            _ => Err(HeadError::Malformed("its lines")),
        }
    }

    /// The next head is another one.
    fn found(&mut self, end: usize) -> usize {
        (self.seen, self.empty, self.parse_at) = (0, 0, 0);
        end
    }

    /// The length of the head at the start of `bytes`, once it is there.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut from = self.seen;
        while let Some(at) = find(b'\n', &bytes[from..]) {
            let line = from + at + 1;
            match &bytes[line..] {
                [b'\n', ..] => return Some(line + 1),
                [b'\r', b'\n', ..] => return Some(line + 2),
                // The end may be half there.
                [] | [b'\r'] => {
                    self.seen = line - 1;
                    return None;
                }
                _ => from = line,
            }
        }
        self.seen = bytes.len();
        None
    }

    /// A head that is not whole is worth a look: it has doubled since the last one.
    fn is_due(&mut self, length: usize) -> bool {
        let due = length >= self.parse_at;
        if due {
            self.parse_at = length * 2;
        }
        due
    }
}

fn empty_lines(input: &[u8]) -> usize {
    let mut empty = 0;
    loop {
        match &input[empty..] {
            [b'\r', b'\n', ..] => empty += 2,
            [b'\n', ..] => empty += 1,
            _ => return empty,
        }
    }
}
