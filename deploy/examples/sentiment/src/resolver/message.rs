//! DNS messages, RFC 1035 section 4: one question out, the addresses of its answer in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// RFC 1035 4.1.1.
const HEADER: usize = 12;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    A = 1,
    Aaaa = 28,
}

/// What a server said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The name exists; the list is empty when it has no address of this kind.
    Addresses(Vec<IpAddr>),
    /// NXDOMAIN.
    NoSuchName,
}

/// Why a message is of no use.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum MessageError {
    #[error("{0:?} cannot be a DNS name (labels of 1 to 63 bytes, 255 in all)")]
    Name(String),
    #[error("the answer is malformed")]
    Malformed,
    #[error("the server refused: rcode {0}")]
    Refused(u8),
}

/// A query for `name`, with recursion desired.
pub(super) fn query(id: u16, name: &str, kind: Kind) -> Result<Vec<u8>, MessageError> {
    let mut message = Vec::with_capacity(HEADER + name.len() + 6);
    message.extend(id.to_be_bytes());
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length));
        message.push(length.ok_or_else(|| MessageError::Name(name.to_owned()))?);
        message.extend(label.as_bytes());
    }
    if name.len() > 253 {
        return Err(MessageError::Name(name.to_owned()));
    }
    message.push(0);
    message.extend((kind as u16).to_be_bytes());
    message.extend([0, 1]);
    Ok(message)
}

/// Whether `message` is a response to `query`: id, the response bit, and the same question.
pub(super) fn answers(message: &[u8], query: &[u8], id: u16) -> bool {
    let question = &query[HEADER..];
    message.len() >= query.len()
        && message[..2] == id.to_be_bytes()
        && message[2] & 0x80 != 0
        && message[4..6] == [0, 1]
        && message[HEADER..query.len()].eq_ignore_ascii_case(question)
}

/// The addresses in a response; `None` when it was cut (TC). A recursive server sends the whole chain of aliases, so
/// every address record of the answer section counts.
pub(super) fn decode(message: &[u8], kind: Kind) -> Result<Option<Answer>, MessageError> {
    let mut reader = Reader { message, at: 2 };
    let flags = reader.u16()?;
    if flags & 0x0200 != 0 {
        return Ok(None);
    }
    match (flags & 0xf) as u8 {
        0 => {}
        3 => return Ok(Some(Answer::NoSuchName)),
        rcode => return Err(MessageError::Refused(rcode)),
    }
    let (questions, records) = (reader.u16()?, reader.u16()?);
    reader.at = HEADER;
    for _ in 0..questions {
        reader.skip_name()?;
        reader.take(4)?;
    }
    let mut addresses = Vec::new();
    for _ in 0..records {
        reader.skip_name()?;
        let record = reader.u16()?;
        reader.take(6)?;
        let length = reader.u16()?;
        let data = reader.take(length.into())?;
        if record == kind as u16 {
            addresses.push(address(data)?);
        }
    }
    Ok(Some(Answer::Addresses(addresses)))
}

fn address(data: &[u8]) -> Result<IpAddr, MessageError> {
    if let Ok(octets) = <[u8; 4]>::try_from(data) {
        return Ok(Ipv4Addr::from(octets).into());
    }
    let octets = <[u8; 16]>::try_from(data).map_err(|_| MessageError::Malformed)?;
    Ok(Ipv6Addr::from(octets).into())
}

/// Reads forward; every step is checked against the end.
struct Reader<'m> {
    message: &'m [u8],
    at: usize,
}

impl<'m> Reader<'m> {
    fn take(&mut self, length: usize) -> Result<&'m [u8], MessageError> {
        let taken = self.message.get(self.at..self.at + length).ok_or(MessageError::Malformed)?;
        self.at += length;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, MessageError> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A name ends with a zero label or a pointer (4.1.4); the pointer need not be followed.
    fn skip_name(&mut self) -> Result<(), MessageError> {
        loop {
            match self.take(1)?[0] {
                0 => return Ok(()),
                length @ 1..=63 => self.take(length.into())?,
                0xc0.. => return self.take(1).map(|_| ()),
                _ => return Err(MessageError::Malformed),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A response to `query` with an alias and then `data` records under a pointer to the question's name.
    pub(in super::super) fn response(query: &[u8], flags: u16, kind: Kind, data: &[&[u8]]) -> Vec<u8> {
        let mut message = query.to_vec();
        message[2..4].copy_from_slice(&(0x8000 | flags).to_be_bytes());
        message[6..8].copy_from_slice(&(data.len() as u16 + 1).to_be_bytes());
        message.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 5, 0, 3, 1, b'x', 0]);
        for data in data {
            message.extend([0xc0, 12]);
            message.extend((kind as u16).to_be_bytes());
            message.extend([0, 1, 0, 0, 0, 5]);
            message.extend((data.len() as u16).to_be_bytes());
            message.extend(*data);
        }
        message
    }

    #[test]
    fn a_query_by_hand() {
        let expected = b"\x12\x34\x01\x00\x00\x01\0\0\0\0\0\0\x08sa-logic\x03svc\x00\x00\x01\x00\x01";
        assert_eq!(query(0x1234, "sa-logic.svc", Kind::A).unwrap(), expected);
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        for name in ["", "a..b", &"x".repeat(64), &["abcdefg"; 33].join(".")] {
            assert_eq!(query(1, name, Kind::A), Err(MessageError::Name(name.to_owned())));
        }
    }

    #[test]
    fn addresses_come_out_and_aliases_are_passed_over() {
        let query = query(7, "a.b", Kind::A).unwrap();
        let message = response(&query, 0, Kind::A, &[&[10, 0, 0, 1], &[10, 0, 0, 2]]);
        assert!(answers(&message, &query, 7));
        let expected = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().unwrap()).to_vec();
        assert_eq!(decode(&message, Kind::A), Ok(Some(Answer::Addresses(expected))));
    }

    #[test]
    fn refusals_and_cuts() {
        let query = query(7, "a.b", Kind::Aaaa).unwrap();
        let with = |flags| decode(&response(&query, flags, Kind::Aaaa, &[]), Kind::Aaaa);
        assert_eq!(with(3), Ok(Some(Answer::NoSuchName)));
        assert_eq!(with(2), Err(MessageError::Refused(2)));
        assert_eq!(with(0x0200), Ok(None));
        assert_eq!(with(0), Ok(Some(Answer::Addresses(vec![]))));
    }

    #[test]
    fn another_question_or_id_is_not_an_answer() {
        let query = query(7, "a.b", Kind::A).unwrap();
        let message = response(&query, 0, Kind::A, &[]);
        assert!(!answers(&message, &query, 8));
        assert!(!answers(&query, &query, 7), "a query is no answer");
        assert!(!answers(&message, &super::query(7, "a.c", Kind::A).unwrap(), 7));
    }

    #[test]
    fn every_cut_of_a_message_is_an_error_never_a_panic() {
        let query = query(7, "a.b", Kind::A).unwrap();
        let message = response(&query, 0, Kind::A, &[&[10, 0, 0, 1]]);
        for end in 0..message.len() {
            assert!(!answers(&message[..end.min(query.len() - 1)], &query, 7));
            assert!(decode(&message[..end], Kind::A).is_err(), "cut at {end}");
        }
    }
}
