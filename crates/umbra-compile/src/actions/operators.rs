//! Operators in header values: `%REQ(x-user)%`, `%PROTOCOL%`, `%%` for a percent sign (spec/istio.md 4.2).

/// Those that a node evaluates. `:N` behind one cuts its value.
const KNOWN: [&str; 7] = [
    "REQ",
    "RESP",
    "PROTOCOL",
    "RESPONSE_CODE",
    "START_TIME",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_HOST",
];

/// What a value is made of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Format<'v> {
    /// Text and operators that nodes know.
    Known,
    /// An operator that they do not.
    Unknown(&'v str),
    /// A percent sign that begins nothing.
    Broken,
}

/// Takes a value apart.
pub(crate) fn format_of(value: &str) -> Format<'_> {
    let mut rest = value;
    let mut unknown = None;
    while let Some(start) = rest.find('%') {
        let Some(length) = operator_length(&rest[start..]) else { return Format::Broken };
        let operator = &rest[start..start + length];
        let name = operator.trim_matches('%').split(['(', ':']).next().unwrap_or_default();
        if operator != "%%" && !KNOWN.contains(&name) {
            unknown = unknown.or(Some(operator));
        }
        rest = &rest[start + length..];
    }
    unknown.map_or(Format::Known, Format::Unknown)
}

/// Bytes of the operator that `text` begins with, both percent signs included.
fn operator_length(text: &str) -> Option<usize> {
    let after = &text[1..];
    if after.starts_with('%') {
        return Some(2);
    }
    let name = after.find(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_')?;
    let mut rest = &after[name..];
    if name == 0 {
        return None;
    }
    if rest.starts_with('(') {
        rest = &rest[rest.find(')')? + 1..];
    }
    if let Some(digits) = rest.strip_prefix(':') {
        let end = digits.find(|c: char| !c.is_ascii_digit())?;
        rest = digits.get(end..).filter(|_| end > 0)?;
    }
    rest.starts_with('%').then(|| text.len() - rest.len() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_taken_apart() {
        for known in [
            "",
            "plain",
            "100%%",
            "%REQ(x-a)%",
            "a-%REQ(:path)%-b",
            "%REQ(a?b):5%",
            "%PROTOCOL%%RESPONSE_CODE%",
        ] {
            assert_eq!(format_of(known), Format::Known, "{known}");
        }
        for broken in ["%", "100%", "%req(x)%", "%REQ(x%", "%REQ(x):%", "a % b", "%PROTOCOL", "%%%"] {
            assert_eq!(format_of(broken), Format::Broken, "{broken}");
        }
        assert_eq!(format_of("a%HOSTNAME%b"), Format::Unknown("%HOSTNAME%"));
        assert_eq!(format_of("%REQ(a)%%DURATION%"), Format::Unknown("%DURATION%"));
    }
}
