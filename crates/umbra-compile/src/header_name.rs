//! Names of headers (RFC 9110, 5.6.2), and those that stand for another part of a request.

/// Characters of a header's name beside letters and digits.
const TOKEN_MARKS: &str = "!#$%&'*+-.^_`|~";
/// Parts of a request that conditions may ask for as if they were headers.
const PSEUDO: [&str; 5] = [":method", ":scheme", ":authority", ":path", ":status"];

/// It can be the name of a header.
pub(crate) fn is_token(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || TOKEN_MARKS.contains(c))
}

/// A condition may be about it.
pub(crate) fn can_be_matched(name: &str) -> bool {
    is_token(name) || PSEUDO.contains(&name.to_ascii_lowercase().as_str())
}

/// It stands for the authority, in any letter case (spec/istio.md 4.2).
pub(crate) fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}
