//! HTTP/1.1 as strictly as RFC 9112 has it, on bytes: what a peer must understand and nothing that it may overlook.
//!
//! Takes: a stream. Gives: messages as they were framed, or what is wrong with them.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{ErrorKind, Read as _};
use std::net::TcpStream;

use anyhow::{Context as _, Result, bail, ensure};

use crate::proxy_system::CEILING;

/// Fields by name in lower case; values in the order in which they came.
pub(crate) type Fields = BTreeMap<String, Vec<Vec<u8>>>;

/// Who asks, so that a peer knows which answer is meant.
pub(crate) const ID: &str = "x-id";

/// How a body was framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// No body, which a length of 0 says too.
    None,
    Length,
    Chunked,
    /// By the connection's end.
    End,
}

/// A request or an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// The first line.
    pub(crate) start: String,
    /// With Content-Length and Transfer-Encoding.
    pub(crate) fields: Fields,
    pub(crate) framing: Framing,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
}

/// Reads messages.
pub(crate) struct Reader {
    stream: TcpStream,
    buffer: Vec<u8>,
    at: usize,
}

impl Reader {
    pub(crate) fn new(stream: TcpStream) -> Result<Self> {
        stream.set_read_timeout(Some(CEILING))?;
        Ok(Self { stream, buffer: Vec::new(), at: 0 })
    }

    /// The next request; `None` at the end.
    pub(crate) fn request(&mut self) -> Result<Option<Message>> {
        let Some(start) = self.line()? else { return Ok(None) };
        let start = String::from_utf8(start)?;
        let parts: Vec<_> = start.split(' ').collect();
        ensure!(
            parts.len() == 3
                && is_token(parts[0].as_bytes())
                && !parts[1].is_empty()
                && parts[2] == "HTTP/1.1",
            "not a request line: {start:?}"
        );
        let fields = self.fields()?;
        ensure!(fields.get("host").is_some_and(|hosts| hosts.len() == 1), "not one host: {fields:?}");
        let framing = framing(&fields)?.unwrap_or(Framing::None);
        self.rest(start, fields, framing).map(Some)
    }

    /// The next answer to a request with this method, less those that announce it (1xx).
    pub(crate) fn answer(&mut self, method: &str) -> Result<Message> {
        loop {
            let start = String::from_utf8(self.line()?.context("the end instead of an answer")?)?;
            let status = start.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
            let status: u16 = status.with_context(|| format!("not a status line: {start:?}"))?.parse()?;
            let fields = self.fields()?;
            let framing = match (status, framing(&fields)?) {
                (100..200, _) => {
                    ensure!(framing(&fields)?.is_none(), "a body in {start:?}");
                    continue;
                }
                (204 | 304, _) => Framing::None,
                _ if method == "HEAD" => Framing::None,
                (_, framing) => framing.unwrap_or(Framing::End),
            };
            return self.rest(start, fields, framing);
        }
    }

    /// All that comes until the end.
    pub(crate) fn remaining(&mut self) -> Result<Vec<u8>> {
        while self.fill()? {}
        Ok(self.buffer.split_off(std::mem::take(&mut self.at)))
    }

    fn rest(&mut self, start: String, fields: Fields, framing: Framing) -> Result<Message> {
        let mut message = Message { start, fields, framing, body: Vec::new(), trailers: Fields::default() };
        match framing {
            Framing::None => {}
            Framing::Length => {
                let length = length(&message.fields)?.context("a length")?;
                message.body = self.take(length)?;
            }
            Framing::Chunked => (message.body, message.trailers) = self.chunks()?,
            Framing::End => message.body = self.remaining()?,
        }
        Ok(message)
    }

    fn chunks(&mut self) -> Result<(Vec<u8>, Fields)> {
        let mut body = Vec::new();
        loop {
            let line = String::from_utf8(self.line()?.context("cut off within chunks")?)?;
            let digits = !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_hexdigit());
            // Extensions are for one hop: they are allowed, and no proxy has a reason to send some.
            ensure!(digits, "not a chunk's size: {line:?}");
            let size = usize::from_str_radix(&line, 16)?;
            if size == 0 {
                return Ok((body, self.fields()?));
            }
            body.extend(self.take(size)?);
            ensure!(self.take(2)? == b"\r\n", "no line end after a chunk");
        }
    }

    fn fields(&mut self) -> Result<Fields> {
        let mut fields = Fields::new();
        loop {
            let line = self.line()?.context("cut off within fields")?;
            if line.is_empty() {
                return Ok(fields);
            }
            let colon = line.iter().position(|byte| *byte == b':');
            let (name, value) = line.split_at(colon.with_context(|| format!("no field: {line:?}"))?);
            let value = value[1..].trim_ascii();
            ensure!(is_token(name), "not a name: {:?}", String::from_utf8_lossy(name));
            let is_text = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
            ensure!(value.iter().all(is_text), "not a value: {:?}", String::from_utf8_lossy(value));
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            fields.entry(name).or_default().push(value.to_vec());
        }
    }

    /// A line without its end; `None` when there is none any more.
    fn line(&mut self) -> Result<Option<Vec<u8>>> {
        let mut looked = 0;
        loop {
            let unread = &self.buffer[self.at..];
            if let Some(end) = unread[looked..].iter().position(|byte| *byte == b'\n') {
                let line = unread[..looked + end].to_vec();
                self.at += line.len() + 1;
                let Some((b'\r', line)) = line.split_last() else { bail!("a bare LF after {line:?}") };
                ensure!(!line.contains(&b'\r'), "a bare CR in {:?}", String::from_utf8_lossy(line));
                return Ok(Some(line.to_vec()));
            }
            looked = unread.len();
            if !self.fill()? {
                ensure!(
                    looked == 0,
                    "cut off within a line: {:?}",
                    String::from_utf8_lossy(&self.buffer[self.at..])
                );
                return Ok(None);
            }
        }
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.buffer.len() - self.at < length {
            ensure!(self.fill()?, "cut off within a body");
        }
        let taken = self.buffer[self.at..self.at + length].to_vec();
        self.at += length;
        Ok(taken)
    }

    fn fill(&mut self) -> Result<bool> {
        self.buffer.drain(..std::mem::take(&mut self.at));
        let mut part = vec![0; 64 * 1024];
        let read = match self.stream.read(&mut part) {
            // A message that was given up ends like this, too.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            read => read?,
        };
        self.buffer.extend_from_slice(&part[..read]);
        Ok(read > 0)
    }
}

/// RFC 9110 section 5.6.2.
pub(crate) fn is_token(text: &[u8]) -> bool {
    let is_symbol = |byte: u8| b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || is_symbol(*byte))
}

fn framing(fields: &Fields) -> Result<Option<Framing>> {
    let coding = fields.get("transfer-encoding");
    match (length(fields)?, coding) {
        (None, None) => Ok(None),
        (Some(0), None) => Ok(Some(Framing::None)),
        (Some(_), None) => Ok(Some(Framing::Length)),
        (None, Some(coding)) => {
            let [coding] = coding.as_slice() else { bail!("coded on {} lines", coding.len()) };
            ensure!(coding.eq_ignore_ascii_case(b"chunked"), "coded as {}", coding.escape_ascii());
            Ok(Some(Framing::Chunked))
        }
        (Some(_), Some(_)) => bail!("framed twice: {fields:?}"),
    }
}

fn length(fields: &Fields) -> Result<Option<usize>> {
    let Some(lengths) = fields.get("content-length") else { return Ok(None) };
    let [length] = lengths.as_slice() else { bail!("lengths: {lengths:?}") };
    ensure!(length.iter().all(u8::is_ascii_digit), "not a length: {length:?}");
    Ok(Some(std::str::from_utf8(length)?.parse()?))
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {:?}, {} bytes", self.start, self.framing, self.body.len())?;
        for (name, value) in self.fields.iter().chain(&self.trailers) {
            let values: Vec<_> = value.iter().map(|value| String::from_utf8_lossy(value)).collect();
            write!(f, "; {name}: {values:?}")?;
        }
        Ok(())
    }
}

impl Message {
    /// Which request it is.
    pub(crate) fn id(&self) -> Option<String> {
        Some(String::from_utf8_lossy(self.fields.get(ID)?.first()?).into_owned())
    }
}
