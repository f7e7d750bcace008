//! HTTP/1.1 messages as the harness reads them: a head, and a body of a length that the head says.

use anyhow::{Context as _, Result, bail, ensure};

/// One whole message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// Of an answer; absent in a request.
    pub(crate) status: Option<u16>,
    /// Bytes of its body.
    pub(crate) body: usize,
}

/// What of a connection's next message has come.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    head: Vec<u8>,
    /// The message whose head is whole, and how much of its body has not come.
    body: Option<(Message, usize)>,
}

impl Reader {
    /// Takes what came, and gives each message that is whole now.
    ///
    /// # Errors
    /// A body of unknown length: no peer has a reason to send one to this harness.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut whole: impl FnMut(Message)) -> Result<()> {
        loop {
            if let Some((message, left)) = &mut self.body {
                let taken = (*left).min(bytes.len());
                *left -= taken;
                bytes = &bytes[taken..];
                if *left > 0 {
                    return Ok(());
                }
                whole(*message);
                self.body = None;
            }
            if bytes.is_empty() {
                return Ok(());
            }
            let Some(taken) = self.head(bytes)? else { return Ok(()) };
            bytes = &bytes[taken..];
        }
    }

    /// How many bytes ended a head; `None`: it has not ended.
    fn head(&mut self, bytes: &[u8]) -> Result<Option<usize>> {
        if self.head.is_empty()
            && let Some(end) = end_of_head(bytes)
        {
            let message = parse(&bytes[..end])?;
            self.body = Some((message, message.body));
            return Ok(Some(end));
        }
        let before = self.head.len();
        self.head.extend_from_slice(bytes);
        let Some(end) = end_of_head(&self.head) else { return Ok(None) };
        let message = parse(&self.head[..end])?;
        self.head.clear();
        self.body = Some((message, message.body));
        Ok(Some(end - before))
    }
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

fn parse(head: &[u8]) -> Result<Message> {
    let head = std::str::from_utf8(head).context("a head that is not text")?;
    let mut lines = head.lines();
    let first = lines.next().unwrap_or_default();
    let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).map(str::parse);
    let mut message = Message { status: status.transpose().with_context(|| first.to_owned())?, body: 0 };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            message.body = value.trim().parse().with_context(|| format!("content-length:{value}"))?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            bail!("a chunked body, which the harness does not read: {head}");
        }
    }
    ensure!(message.status != Some(100), "100 Continue, which nobody asked for");
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str =
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 503 No\r\nx: y\r\ncontent-length:0\r\n\r\n";

    fn read(parts: impl Iterator<Item = &'static [u8]>) -> Vec<Message> {
        let (mut reader, mut all) = (Reader::default(), Vec::new());
        for part in parts {
            reader.feed(part, |message| all.push(message)).unwrap();
        }
        all
    }

    #[test]
    fn messages_are_the_same_however_they_are_cut() {
        let want = [Message { status: Some(200), body: 3 }, Message { status: Some(503), body: 0 }];
        for size in 1..=TWO.len() {
            assert_eq!(read(TWO.as_bytes().chunks(size)), want, "cut every {size} bytes");
        }
    }

    #[test]
    fn a_message_counts_when_its_last_byte_is_there() {
        let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxy";
        assert_eq!(read([&request.as_bytes()[..request.len() - 1]].into_iter()), []);
        assert_eq!(read([request.as_bytes()].into_iter()), [Message { status: None, body: 2 }]);
    }

    #[test]
    fn a_body_of_unknown_length_is_refused() {
        let chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(Reader::default().feed(chunked, |_| ()).unwrap_err().to_string().contains("chunked"));
    }
}
