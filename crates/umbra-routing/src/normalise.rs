//! One spelling for all spellings of a path, before anything is decided about it (spec/istio.md 4.1).
//!
//! Takes: a request's target. Gives: the target that rules see and that backends get. Never touches the query.

use std::borrow::Cow;

/// A path that means nothing, or that no server is to see: the client's fault, 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// `%zz`, `%2`, `%`.
    #[error("the path has a % that is not followed by two hexadecimal digits; write %25 for a percent sign")]
    Escape,
    /// A zero byte.
    #[error("the path contains a zero byte")]
    Zero,
}

/// Resolves `.` and `..`, turns `\` into `/`, undoes escapes of characters that need none, and escapes those that do.
/// Other escapes stay as they were sent, `%2F` and `%5C` among them, and so do doubled slashes. What follows the first
/// `?` stays, and so does a target that is no path (`*`).
///
/// # Errors
/// A broken escape, or a zero byte.
pub fn normalise(target: &str) -> Result<Cow<'_, str>, BadPath> {
    if !target.starts_with('/') || is_plain(target) {
        return Ok(Cow::Borrowed(target));
    }
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let mut normal = without_dot_segments(&respelled(path)?);
    normal.push_str(query);
    Ok(if normal == target { Cow::Borrowed(target) } else { Cow::Owned(normal) })
}

/// Nothing to do about the path of a target, as with nearly all.
fn is_plain(target: &str) -> bool {
    let mut after_slash = false;
    target.bytes().take_while(|byte| *byte != b'?').all(|byte| {
        let starts_dot_segment = after_slash && byte == b'.';
        after_slash = byte == b'/';
        !starts_dot_segment && byte != b'%' && byte != b'\\' && !needs_escape(byte)
    })
}

/// Raw characters that no path may have; of all others Envoy escapes none.
fn needs_escape(byte: u8) -> bool {
    !byte.is_ascii_graphic() || matches!(byte, b'"' | b'<' | b'>' | b'|' | b'^' | b'`')
}

fn needs_no_escape(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn respelled(path: &str) -> Result<String, BadPath> {
    let mut spelled = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            0 => return Err(BadPath::Zero),
            b'\\' => spelled.push('/'),
            b'%' => {
                let digits = bytes.next().zip(bytes.next()).ok_or(BadPath::Escape)?;
                unescape(digits, &mut spelled)?;
            }
            raw if needs_escape(raw) => spelled.push_str(&format!("%{raw:02X}")),
            plain => spelled.push(char::from(plain)),
        }
    }
    Ok(spelled)
}

fn unescape((high, low): (u8, u8), spelled: &mut String) -> Result<(), BadPath> {
    let digit = |byte| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (Some(tens), Some(ones)) = (digit(high), digit(low)) else { return Err(BadPath::Escape) };
    match tens << 4 | ones {
        0 => return Err(BadPath::Zero),
        byte if needs_no_escape(byte) => spelled.push(char::from(byte)),
        _ => spelled.extend(['%', char::from(high), char::from(low)]),
    }
    Ok(())
}

/// `path` begins with a slash. A `..` above the root is dropped.
fn without_dot_segments(path: &str) -> String {
    let mut kept = String::with_capacity(path.len());
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment == ".." {
            kept.truncate(kept.rfind('/').unwrap_or_default());
        }
        let is_dots = matches!(segment, "." | "..");
        if !is_dots {
            kept.push('/');
            kept.push_str(segment);
        } else if segments.peek().is_none() {
            kept.push('/');
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn each(cases: &[(&str, &str)]) {
        for (target, expected) in cases {
            assert_eq!(normalise(target).as_deref(), Ok(*expected), "{target}");
        }
    }

    #[test]
    fn dot_segments_are_resolved() {
        each(&[
            ("/x/../old/a/./b", "/old/a/b"),
            ("/b/.", "/b/"),
            ("/b/c/..", "/b/"),
            ("/a/../../b", "/b"),
            ("/..", "/"),
            ("/../../../b/../c", "/c"),
            ("/a//../b", "/a/b"),
            ("/a//b", "/a//b"),
            ("/.", "/"),
            ("/./", "/"),
            ("/a/..b/.c/d./...", "/a/..b/.c/d./..."),
        ]);
    }

    #[test]
    fn escaped_dots_are_dots_and_escaped_slashes_are_no_slashes() {
        each(&[
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/%2e/b", "/b"),
            ("/a/..%2fb", "/a/..%2fb"),
            ("/a%2F..%2fb", "/a%2F..%2fb"),
        ]);
    }

    #[test]
    fn a_backslash_is_a_slash_and_an_escaped_one_is_not() {
        each(&[("/b\\c", "/b/c"), ("/a\\..\\b/c", "/b/c"), ("/b%5Cc", "/b%5Cc"), ("/b%5cc", "/b%5cc")]);
    }

    #[test]
    fn escapes_of_unreserved_characters_are_undone_and_others_stay_as_sent() {
        each(&[
            ("/%61%41%7E%2D%5f%30", "/aA~-_0"),
            ("/a%2Eb", "/a.b"),
            ("/b%25c", "/b%25c"),
            ("/%c3%A9%20%3f%2a", "/%c3%A9%20%3f%2a"),
            ("/%2561", "/%2561"),
        ]);
    }

    #[test]
    fn raw_characters_that_no_path_may_have_are_escaped() {
        each(&[
            ("/\"<>|^`", "/%22%3C%3E%7C%5E%60"),
            ("/{}[]!$&'()*+,;=:@", "/{}[]!$&'()*+,;=:@"),
            ("/é", "/%C3%A9"),
        ]);
    }

    #[test]
    fn the_query_and_what_is_no_path_stay() {
        each(&[
            ("/ab%63?x=%61/../\\%zz", "/abc?x=%61/../\\%zz"),
            ("/a/..?", "/?"),
            ("/a?/..", "/a?/.."),
            ("*", "*"),
            ("", ""),
            ("?x", "?x"),
        ]);
    }

    #[test]
    fn a_broken_escape_and_a_zero_byte_are_bad() {
        for target in ["/b%zz", "/b%2", "/b%", "/b%2?5", "/%+1", "/%é", "/a%2/../b"] {
            assert_eq!(normalise(target), Err(BadPath::Escape), "{target}");
        }
        assert_eq!(normalise("/b%00c"), Err(BadPath::Zero));
        assert_eq!(normalise("/b\0c"), Err(BadPath::Zero));
    }

    #[test]
    fn a_path_in_order_is_not_copied() {
        for target in ["/", "/a/b.c?d", "/.well-known/x", "/a%20b"] {
            assert!(matches!(normalise(target), Ok(Cow::Borrowed(_))), "{target}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

        #[test]
        fn a_normal_path_is_normal_and_has_no_dot_segments(target in r"/([a./\\é^?]|%2[eEfF]|%6[1-9]){0,12}") {
            let normal = normalise(&target).expect("no broken escape");
            prop_assert_eq!(normalise(&normal), Ok(Cow::Borrowed(&*normal)));
            let path = normal.split('?').next().unwrap_or_default();
            prop_assert!(path.starts_with('/') && !path.split('/').any(|segment| matches!(segment, "." | "..")));
        }
    }
}
