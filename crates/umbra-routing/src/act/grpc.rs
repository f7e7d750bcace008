//! What gRPC says in HTTP's headers (spec/istio.md 4.5).

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// `application/grpc`, also with a suffix such as `+proto`.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes());
    let suffix = content_type.and_then(|value| value.strip_prefix(b"application/grpc"));
    suffix.is_some_and(|suffix| suffix.is_empty() || suffix[0] == b'+')
}

/// The gRPC status that stands for an HTTP status in an answer that a proxy makes itself.
pub fn grpc_status_of(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// The text of `grpc-message`: what is no plain ASCII is escaped (gRPC over HTTP/2, Responses).
pub fn grpc_message(text: &[u8]) -> HeaderValue {
    let mut escaped = String::with_capacity(text.len());
    for byte in text {
        match byte {
            b' '..=b'~' if *byte != b'%' => escaped.push(char::from(*byte)),
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    HeaderValue::from_str(&escaped).expect("plain ASCII")
}

/// The status that the headers of an answer, or its trailers, carry.
pub fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    headers.get(&GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// How long a gRPC request may take, says its client; `None` when it says nothing, or nothing that can be read.
pub fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(&GRPC_TIMEOUT)?.to_str().ok().filter(|_| is_grpc(headers))?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// The text of `grpc-timeout`, in milliseconds as long as its eight digits last.
pub fn grpc_timeout_text(timeout: Duration) -> String {
    const MOST: u128 = 99_999_999;
    let milliseconds = timeout.as_millis();
    let units = [(1, 'm'), (1_000, 'S'), (60_000, 'M'), (3_600_000, 'H')];
    let fits = units.into_iter().find(|(size, _)| milliseconds / size <= MOST);
    match fits {
        Some((size, unit)) => format!("{}{unit}", milliseconds / size),
        None => format!("{MOST}H"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (http::HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        of.iter().map(field).collect()
    }

    #[test]
    fn a_content_type_tells_grpc() {
        for (content_type, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(is_grpc(&headers(&[("content-type", content_type)])), expected, "{content_type}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn an_http_status_has_a_grpc_status() {
        for (http, grpc) in
            [(400, 13), (401, 16), (403, 7), (404, 12), (429, 14), (503, 14), (504, 14), (418, 2), (200, 2)]
        {
            assert_eq!(grpc_status_of(StatusCode::from_u16(http).expect("a status")), grpc, "{http}");
        }
    }

    #[test]
    fn a_timeout_is_read_from_grpc_requests_only() {
        for (text, expected) in [
            ("5S", Some(Duration::from_secs(5))),
            ("500m", Some(Duration::from_millis(500))),
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("7u", Some(Duration::from_micros(7))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("123456789S", None),
            ("S", None),
            ("", None),
            ("5s", None),
            ("-5S", None),
            ("+5S", None),
        ] {
            let of = |content_type| {
                grpc_timeout(&headers(&[("content-type", content_type), ("grpc-timeout", text)]))
            };
            assert_eq!(of("application/grpc"), expected, "{text}");
            assert_eq!(of("text/plain"), None, "{text}");
        }
    }

    #[test]
    fn a_timeout_is_written_in_milliseconds_if_they_fit() {
        for (milliseconds, expected) in [
            (500, "500m"),
            (0, "0m"),
            (99_999_999, "99999999m"),
            (100_000_000, "100000S"),
            (u64::MAX, "99999999H"),
        ] {
            assert_eq!(grpc_timeout_text(Duration::from_millis(milliseconds)), expected);
        }
    }

    #[test]
    fn a_message_is_escaped() {
        assert_eq!(grpc_message("100 % näher\n".as_bytes()), "100 %25 n%C3%A4her%0A");
    }

    #[test]
    fn a_status_is_read_from_headers_or_trailers() {
        assert_eq!(grpc_status(&headers(&[("grpc-status", "14")])), Some(14));
        assert_eq!(grpc_status(&headers(&[("grpc-status", "x")])), None);
        assert_eq!(grpc_status(&HeaderMap::new()), None);
    }
}
