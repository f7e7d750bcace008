//! Names of headers (RFC 9110 5.6.2).

/// Characters of a header's name beside letters and digits.
const TOKEN_MARKS: &[u8] = b"!#$%&'*+-.^_`|~";

/// It can be the name of a header, or of a method.
pub fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || TOKEN_MARKS.contains(&byte))
}

/// It stands for the authority, in any letter case (spec/istio.md 4.2).
pub fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}
