//! Heads of HTTP/2, encoded (RFC 7541): said once, and referred to from then on.
//!
//! Takes: a method or a status, and fields. Gives: their bytes. Of what comes back it reads whether a status is 200.

/// An encoded head (RFC 7541): what is sent first leaves its fields in the peer's table, what comes next names them there.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) first: Vec<u8>,
    pub(super) next: Vec<u8>,
}

impl Block {
    pub(super) fn request(method: &str, fields: &[(&str, &str)]) -> Self {
        // The static table's :method, :scheme http and :path /.
        Self::new(&[if method == "GET" { 0x82 } else { 0x83 }, 0x86, 0x84], fields)
    }

    pub(super) fn answer(status: u16, fields: &[(&str, &str)]) -> Self {
        let start = if status == 200 { vec![0x88] } else { literal(8, &status.to_string()) };
        Self::new(&start, fields)
    }

    fn new(start: &[u8], fields: &[(&str, &str)]) -> Self {
        let (mut first, mut next) = (start.to_vec(), start.to_vec());
        for (at, (name, value)) in fields.iter().enumerate() {
            // Places in the static table.
            let place = match *name {
                "host" => 1,
                "accept-encoding" => 16,
                "accept" => 19,
                "content-length" => 28,
                "content-type" => 31,
                "user-agent" => 58,
                other => unreachable!("the harness sends no {other}"),
            };
            // 01: a literal that is added to the table, whose latest entry is number 62.
            first.extend(literal(0x40 | place, value));
            next.push(0x80 | (61 + fields.len() - at) as u8);
        }
        Self { first, next }
    }
}

/// A value of under 127 bytes, not compressed.
fn literal(start: u8, value: &str) -> Vec<u8> {
    [&[start, value.len() as u8], value.as_bytes()].concat()
}

/// 200, or 0 for any other: pseudo-headers come first, and all peers name 200 by its place in the static table.
pub(super) fn status(block: &[u8]) -> u16 {
    let is_resize = |byte: &u8| byte & 0xe0 == 0x20;
    let mut rest = block;
    // A change of the table's size may come before (RFC 7541 section 6.3): a number of one byte or of several.
    while let Some((first, after)) = rest.split_first().filter(|(first, _)| is_resize(first)) {
        let more = after.iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
        rest = if first & 0x1f == 0x1f { after.get(more..).unwrap_or_default() } else { after };
    }
    if rest.first() == Some(&0x88) { 200 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_heads_refer_to_the_first() {
        let fields = [("host", "a"), ("user-agent", "b"), ("accept", "c")];
        let block = Block::request("GET", &fields);
        assert_eq!(block.first, b"\x82\x86\x84\x41\x01a\x7a\x01b\x53\x01c");
        // The latest is 62.
        assert_eq!(block.next, [0x82, 0x86, 0x84, 0x80 | 64, 0x80 | 63, 0x80 | 62]);
    }

    #[test]
    fn a_status_is_read_behind_changes_of_the_table() {
        assert_eq!(status(&[0x20, 0x3f, 0xe1, 0x1f, 0x88]), 200);
        assert_eq!(status(&[0x8d]), 0);
    }
}
