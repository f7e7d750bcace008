//! Bodies: chunks out of what a socket gave (RFC 9112 sections 6 and 7).

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;

use super::{Framing, find, find_empty_line, head};

/// Of the line before a chunk; extensions are read over, and nobody needs long ones.
const LONGEST_SIZE_LINE: usize = 1024;
/// Of all extensions of a body, in bytes: more are there to keep a proxy busy that counts data alone.
const MOST_EXTENSIONS: usize = 16 * 1024;

/// A body is not what its head says. Its sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is not framed as its head says: {0}")]
pub(crate) struct BodyError(&'static str);

/// What comes next of a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decoded {
    /// Never empty.
    Data(Bytes),
    /// The last thing.
    Trailers(HeaderMap),
    End,
    /// Nothing, before more bytes have come.
    More,
}

/// Follows one body.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    /// Largest block of trailers, in bytes.
    limit: usize,
    /// Bytes of extensions so far.
    extensions: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Ended,
    Length(u64),
    UntilClose,
    ChunkSize {
        /// No end of the line before this.
        seen: usize,
    },
    Chunk(u64),
    /// The line end behind a chunk.
    ChunkEnd,
    Trailers {
        /// No end of the block before this.
        seen: usize,
    },
}

impl Decoder {
    pub(crate) fn new(framing: Framing, limit: usize) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Ended,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkSize { seen: 0 },
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, limit, extensions: 0 }
    }

    /// Nothing of the body is left.
    pub(crate) fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// How much is left, where that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        match self.state {
            State::Ended => Some(0),
            State::Length(left) => Some(left),
            _ => None,
        }
    }

    /// The connection has ended. Whether that ends the body.
    pub(crate) fn closed(&mut self) -> bool {
        if self.state == State::UntilClose {
            self.state = State::Ended;
        }
        self.has_ended()
    }

    /// Takes what comes next off the front of `input`.
    ///
    /// # Errors
    /// It is no body like that.
    pub(crate) fn decode(&mut self, input: &mut BytesMut) -> Result<Decoded, BodyError> {
        loop {
            let more = match &mut self.state {
                State::Ended => return Ok(Decoded::End),
                State::UntilClose if input.is_empty() => return Ok(Decoded::More),
                State::UntilClose => return Ok(Decoded::Data(input.split().freeze())),
                State::Length(_) | State::Chunk(_) if input.is_empty() => return Ok(Decoded::More),
                State::Length(left) => {
                    let data = up_to(input, left);
                    self.state = if *left == 0 { State::Ended } else { State::Length(*left) };
                    return Ok(Decoded::Data(data));
                }
                State::Chunk(left) => {
                    let data = up_to(input, left);
                    self.state = if *left == 0 { State::ChunkEnd } else { State::Chunk(*left) };
                    return Ok(Decoded::Data(data));
                }
                State::ChunkSize { .. } => self.size(input)?,
                State::ChunkEnd => self.chunk_end(input)?,
                State::Trailers { .. } => return self.trailers(input),
            };
            if more {
                return Ok(Decoded::More);
            }
        }
    }

    /// True: the line is not whole.
    fn size(&mut self, input: &mut BytesMut) -> Result<bool, BodyError> {
        let State::ChunkSize { seen } = &mut self.state else { return Ok(false) };
        let come = &input[..input.len().min(LONGEST_SIZE_LINE)];
        let Some(at) = find(b'\n', &come[*seen..]) else {
            *seen = come.len();
            let is_too_long = come.len() == LONGEST_SIZE_LINE;
            return if is_too_long {
                Err(BodyError("the line before a chunk is too long"))
            } else {
                Ok(true)
            };
        };
        let end = *seen + at;
        let line = come[..end].strip_suffix(b"\r").ok_or(BodyError("a line ends without CR"))?;
        let (size, extensions) = size(line)?;
        self.extensions += extensions;
        if self.extensions > MOST_EXTENSIONS {
            return Err(BodyError("more extensions than anybody needs"));
        }
        self.state = match size {
            0 => State::Trailers { seen: 0 },
            size => State::Chunk(size),
        };
        input.advance(end + 1);
        Ok(false)
    }

    fn chunk_end(&mut self, input: &mut BytesMut) -> Result<bool, BodyError> {
        match &input[..] {
            [b'\r', b'\n', ..] => {
                input.advance(2);
                self.state = State::ChunkSize { seen: 0 };
                Ok(false)
            }
            [] | [b'\r'] => Ok(true),
            _ => Err(BodyError("a chunk is longer than its size")),
        }
    }

    fn trailers(&mut self, input: &mut BytesMut) -> Result<Decoded, BodyError> {
        let State::Trailers { seen } = &mut self.state else { return Ok(Decoded::More) };
        if input.starts_with(b"\r\n") {
            input.advance(2);
            self.state = State::Ended;
            return Ok(Decoded::End);
        }
        let wrong = BodyError("its trailers");
        let from = seen.saturating_sub(3);
        let Some(at) = find_empty_line(&input[from..]) else {
            *seen = input.len();
            return if input.len() > self.limit { Err(wrong) } else { Ok(Decoded::More) };
        };
        let end = from + at + 4;
        if end > self.limit {
            return Err(wrong);
        }
        let block = input.split_to(end).freeze();
        self.state = State::Ended;
        head::trailers(&block).map(Decoded::Trailers).map_err(|_| wrong)
    }
}

fn up_to(input: &mut BytesMut, left: &mut u64) -> Bytes {
    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    *left -= count as u64;
    input.split_to(count).freeze()
}

/// Hexadecimal digits, then perhaps spaces (some servers pad with them) and extensions, of which only the length counts.
fn size(line: &[u8]) -> Result<(u64, usize), BodyError> {
    let wrong = BodyError("a chunk's size");
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at(digits);
    let rest = &rest[rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count()..];
    let is_text = |byte: &u8| *byte == b'\t' || !byte.is_ascii_control();
    let extensions = rest.is_empty() || rest.starts_with(b";");
    if !extensions || !rest.iter().all(is_text) || digits.len() > 16 {
        return Err(wrong);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| wrong)?;
    let size = u64::from_str_radix(digits, 16).map_err(|_| wrong)?;
    Ok((size, rest.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that a body gives when it comes in such pieces: data, whether it ended, what is left.
    fn decoded(
        framing: Framing,
        bytes: &[u8],
        piece: usize,
    ) -> Result<(Vec<u8>, HeaderMap, bool, Vec<u8>), BodyError> {
        let mut decoder = Decoder::new(framing, 256);
        let (mut data, mut trailers, mut input) = (Vec::new(), HeaderMap::new(), BytesMut::new());
        for piece in bytes.chunks(piece) {
            input.extend_from_slice(piece);
            loop {
                match decoder.decode(&mut input)? {
                    Decoded::Data(chunk) => data.extend_from_slice(&chunk),
                    Decoded::Trailers(came) => trailers = came,
                    Decoded::End | Decoded::More => break,
                }
            }
        }
        Ok((data, trailers, decoder.has_ended(), input.to_vec()))
    }

    #[test]
    fn a_length_ends_where_it_says() {
        for piece in 1..12 {
            let (data, _, ended, left) = decoded(Framing::Length(5), b"helloGET /", piece).expect("a body");
            assert_eq!((&data[..], ended, &left[..]), (&b"hello"[..], true, &b"GET /"[..]));
        }
        assert!(!decoded(Framing::Length(5), b"hell", 4).expect("a part of one").2);
        assert!(Decoder::new(Framing::Length(0), 0).has_ended());
    }

    #[test]
    fn chunks_come_in_any_pieces_with_extensions_and_trailers() {
        let body =
            b"5;a=\"b\"\r\nhello\r\n00a ; x\r\n world\r\n\r\n\r\n0\r\nX-Sum: 1\r\nHost: evil\r\n\r\nGET /";
        for piece in 1..=body.len() {
            let (data, trailers, ended, left) = decoded(Framing::Chunked, body, piece).expect("a body");
            assert_eq!(data, b"hello world\r\n\r\n");
            assert_eq!(trailers.len(), 1, "a host is none");
            assert_eq!(trailers["x-sum"], "1");
            assert!(ended);
            assert_eq!(left, b"GET /");
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused_in_any_pieces() {
        for body in [
            "-5\r\nhello\r\n",
            "+5\r\nhello\r\n",
            "0x5\r\nhello\r\n",
            " 5\r\nhello\r\n",
            "5\r\r\nhello\r\n",
            "5\x0c;x\r\nhello\r\n",
            "\r\nhello",
            "5\nhello\r\n",
            "5\r\nhello!\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "11111111111111111\r\n",
            "10000000000000000\r\n",
            "5;a\rb\r\nhello\r\n",
            "5;\0\r\nhello\r\n",
            "0\r\nno trailer\r\n\r\n",
            "0\r\nx:1\r\n y\r\n\r\n",
            "g\r\n",
            ";x\r\n",
        ] {
            for piece in 1..=body.len() {
                let result = decoded(Framing::Chunked, body.as_bytes(), piece);
                assert!(result.is_err(), "{body:?} in pieces of {piece}: {result:?}");
            }
        }
        let endless = format!("1;{}", "x".repeat(2 * LONGEST_SIZE_LINE));
        assert!(decoded(Framing::Chunked, endless.as_bytes(), 100).is_err());
        let endless = format!("1;{}\r\na\r\n", "x".repeat(100)).repeat(MOST_EXTENSIONS / 100);
        assert!(decoded(Framing::Chunked, endless.as_bytes(), 100).is_err(), "many short ones");
        let flood = format!("0\r\nx: {}", "y".repeat(300));
        assert!(decoded(Framing::Chunked, flood.as_bytes(), 100).is_err(), "trailers have a limit");
    }

    #[test]
    fn without_a_length_the_connections_end_is_the_bodys() {
        let mut decoder = Decoder::new(Framing::UntilClose, 0);
        let mut input = BytesMut::from("hello");
        assert_eq!(decoder.decode(&mut input), Ok(Decoded::Data(Bytes::from_static(b"hello"))));
        assert_eq!(decoder.decode(&mut input), Ok(Decoded::More));
        assert!(decoder.closed());
        assert!(!Decoder::new(Framing::Length(1), 0).closed());
        assert!(!Decoder::new(Framing::Chunked, 0).closed());
    }
}
