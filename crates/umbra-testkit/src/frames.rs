//! HTTP/2 as bytes that no library sends: of clients that break its rules, flood, or stop in the middle (RFC 9113).

/// What a client says first (section 3.4); SETTINGS follow.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Kinds of frames (section 6).
pub const DATA: u8 = 0;
/// A head, or trailers.
pub const HEADERS: u8 = 1;
/// Advice that nobody heeds any more.
pub const PRIORITY: u8 = 2;
/// The end of a stream before its end.
pub const RST_STREAM: u8 = 3;
/// What a peer takes.
pub const SETTINGS: u8 = 4;
/// To be answered at once.
pub const PING: u8 = 6;
/// The end of a connection.
pub const GOAWAY: u8 = 7;
/// Leave to send more.
pub const WINDOW_UPDATE: u8 = 8;
/// More of a head.
pub const CONTINUATION: u8 = 9;
/// The flag of a stream's last frame.
pub const END_STREAM: u8 = 0x1;
/// The flag of a head's last frame.
pub const END_HEADERS: u8 = 0x4;
/// `:status: 200` in a head, by its place in HPACK's static table (RFC 7541, appendix A).
pub const STATUS_200: u8 = 0x88;
/// Bytes that may be sent on a stream before they are read, as long as nobody has heard of another window (section 6.9.2).
pub const INITIAL_WINDOW: usize = 65_535;

/// A frame.
///
/// # Panics
/// `payload` is longer than 2^32.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame is short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A block of fields, each a literal that is not indexed (RFC 7541 section 6.2.2), whatever is in it.
#[must_use]
pub fn fields<'a>(fields: impl IntoIterator<Item = &'a (&'a str, &'a str)>) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

/// A length of 7 bits and more (section 5.1), and the bytes.
fn text(block: &mut Vec<u8>, text: &str) {
    const PREFIX: usize = 0x7f;
    let mut length = text.len();
    if length < PREFIX {
        block.push(length as u8);
    } else {
        block.push(PREFIX as u8);
        length -= PREFIX;
        while length >= 0x80 {
            block.push((length % 0x80) as u8 | 0x80);
            length /= 0x80;
        }
        block.push(length as u8);
    }
    block.extend_from_slice(text.as_bytes());
}
