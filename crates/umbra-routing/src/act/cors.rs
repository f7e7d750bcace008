//! Which pages of other origins may call (spec/istio.md 4.4).
//!
//! Takes: a request's head. Gives: a preflight's answer, what to add to an answer, or nothing. Never refuses a request:
//! browsers do.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::RuleError;
use crate::action;
use crate::head::RequestHead;
use crate::matcher::Text;

/// What a rule's CORS policy says to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsDecision {
    /// A preflight: answered here, 200 with these headers and nothing else; no header operations, no copies.
    Answer(CorsHeaders),
    /// Goes on; its answer gets these.
    Allow(CorsHeaders),
    /// Goes on as if there were no policy.
    Pass,
}

/// Headers that take the place of what the backend or a header operation says under their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CorsHeaders(Vec<(HeaderName, HeaderValue)>);

impl CorsHeaders {
    /// Puts them into an answer, after its header operations.
    pub fn put_into(&self, answer: &mut HeaderMap) {
        for (name, value) in &self.0 {
            answer.insert(name.clone(), value.clone());
        }
    }

    fn push(&mut self, name: HeaderName, value: Option<&HeaderValue>) {
        self.0.extend(value.map(|value| (name, value.clone())));
    }
}

/// A policy, ready to use.
pub(crate) struct Cors {
    origins: Vec<Text>,
    methods: Option<HeaderValue>,
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    max_age: Option<HeaderValue>,
    credentials: Option<HeaderValue>,
    ignore_unmatched: bool,
}

impl Cors {
    pub(crate) fn new(cors: &action::Cors) -> Result<Self, RuleError> {
        Ok(Self {
            origins: cors.origins.iter().map(Text::new).collect::<Result<_, _>>()?,
            methods: list(&cors.methods)?,
            headers: list(&cors.headers)?,
            expose: list(&cors.expose)?,
            max_age: cors.max_age.map(HeaderValue::from),
            credentials: cors.credentials.then(|| HeaderValue::from_static("true")),
            ignore_unmatched: cors.ignore_unmatched,
        })
    }

    pub(crate) fn decide(&self, head: &RequestHead<'_>) -> CorsDecision {
        let Some(origin) = filled(head, header::ORIGIN) else { return CorsDecision::Pass };
        let allowed = origin.to_str().is_ok_and(|text| self.origins.iter().any(|of| of.holds(text)));
        let origin = allowed.then_some(origin);
        let asked = filled(head, header::ACCESS_CONTROL_REQUEST_METHOD);
        match asked.filter(|_| head.method == Method::OPTIONS.as_str()) {
            Some(method) if allowed || self.ignore_unmatched => {
                CorsDecision::Answer(self.preflight(head, origin, method))
            }
            None if allowed => CorsDecision::Allow(self.simple(origin)),
            _ => CorsDecision::Pass,
        }
    }

    fn simple(&self, origin: Option<&HeaderValue>) -> CorsHeaders {
        let mut headers = CorsHeaders::default();
        headers.push(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.push(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, self.credentials.as_ref());
        headers.push(header::ACCESS_CONTROL_EXPOSE_HEADERS, self.expose.as_ref());
        headers
    }

    /// What was asked for is not checked. A list that is `*` answers with it.
    fn preflight(
        &self,
        head: &RequestHead<'_>,
        origin: Option<&HeaderValue>,
        method: &HeaderValue,
    ) -> CorsHeaders {
        let nothing = HeaderValue::from_static("");
        let requested = head.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).unwrap_or(&nothing);
        let or_asked = |list: &'_ HeaderValue, asked: &HeaderValue| {
            if list == "*" { asked.clone() } else { list.clone() }
        };
        let methods = self.methods.as_ref().map(|list| or_asked(list, method));
        let names = self.headers.as_ref().map(|list| or_asked(list, requested));
        let mut headers = self.simple(origin);
        headers.push(header::ACCESS_CONTROL_ALLOW_METHODS, methods.as_ref());
        headers.push(header::ACCESS_CONTROL_ALLOW_HEADERS, names.as_ref());
        headers.push(header::ACCESS_CONTROL_MAX_AGE, self.max_age.as_ref());
        headers
    }
}

/// An empty header counts as none.
fn filled<'h>(head: &RequestHead<'h>, name: HeaderName) -> Option<&'h HeaderValue> {
    head.headers.get(name).filter(|value| !value.is_empty())
}

/// Joined without blanks; an empty list is no header.
fn list(values: &[String]) -> Result<Option<HeaderValue>, RuleError> {
    let joined = values.join(",");
    let value = (!values.is_empty()).then(|| HeaderValue::from_str(&joined));
    value.transpose().map_err(|_| RuleError::Cors(joined))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::StringMatch;

    const GOOD: &str = "http://good.example";

    /// For GET and POST, x-one, exposing x-three and x-four, with credentials.
    fn policy() -> action::Cors {
        let list = |of: &[&str]| of.iter().map(|text| (*text).to_owned()).collect();
        action::Cors {
            origins: vec![StringMatch::Exact(GOOD.into())],
            methods: list(&["GET", "POST"]),
            headers: list(&["x-one", "X-Two"]),
            expose: list(&["x-three", "x-four"]),
            max_age: Some(90),
            credentials: true,
            ignore_unmatched: false,
        }
    }

    fn bare(origins: Vec<StringMatch>) -> action::Cors {
        action::Cors { origins, ..Default::default() }
    }

    /// The decision, with its headers as `name: value` in short.
    fn decide(policy: &action::Cors, method: &str, headers: &[(&'static str, &'static str)]) -> String {
        let mut map = HeaderMap::new();
        headers.iter().for_each(|(name, value)| drop(map.insert(*name, HeaderValue::from_static(value))));
        let head =
            RequestHead { method, scheme: "http", authority: "a", target: "/", headers: &map, labels: None };
        let said = |headers: CorsHeaders| {
            let field = |(name, value): &(HeaderName, HeaderValue)| {
                format!(" {}: {};", &name.as_str()["access-control-".len()..], value.to_str().expect("text"))
            };
            headers.0.iter().map(field).collect::<String>()
        };
        match Cors::new(policy).expect("a policy").decide(&head) {
            CorsDecision::Answer(headers) => format!("answer{}", said(headers)),
            CorsDecision::Allow(headers) => format!("allow{}", said(headers)),
            CorsDecision::Pass => "pass".into(),
        }
    }

    const ASKS: (&str, &str) = ("access-control-request-method", "DELETE");

    #[test]
    fn a_preflight_of_an_allowed_origin_is_answered_here() {
        let expected = "answer allow-origin: http://good.example; allow-credentials: true; \
                        expose-headers: x-three,x-four; allow-methods: GET,POST; allow-headers: x-one,X-Two; \
                        max-age: 90;";
        assert_eq!(decide(&policy(), "OPTIONS", &[("origin", GOOD), ASKS]), expected);
        let bare = bare(vec![StringMatch::Prefix("http://good.".into())]);
        assert_eq!(
            decide(&bare, "OPTIONS", &[("origin", GOOD), ASKS]),
            "answer allow-origin: http://good.example;"
        );
    }

    #[test]
    fn what_is_no_preflight_goes_on_and_its_answer_says_less() {
        let allow = "allow allow-origin: http://good.example; allow-credentials: true; \
                     expose-headers: x-three,x-four;";
        for (method, headers, expected) in [
            ("GET", &[("origin", GOOD)][..], allow),
            ("DELETE", &[("origin", GOOD)], allow),
            ("GET", &[("origin", GOOD), ASKS], allow),
            ("OPTIONS", &[("origin", GOOD)], allow),
            ("OPTIONS", &[("origin", GOOD), ("access-control-request-method", "")], allow),
            ("OPTIONS", &[ASKS], "pass"),
            ("GET", &[("origin", "")], "pass"),
            ("GET", &[], "pass"),
        ] {
            assert_eq!(decide(&policy(), method, headers), expected, "{method} {headers:?}");
        }
    }

    #[test]
    fn other_origins_pass_unless_their_preflights_are_to_be_ignored() {
        for (method, origin) in [
            ("OPTIONS", "http://bad.example"),
            ("GET", "http://bad.example"),
            ("GET", "http://Good.example"),
            ("GET", "http://good.example:81"),
        ] {
            assert_eq!(decide(&policy(), method, &[("origin", origin), ASKS]), "pass", "{method} {origin}");
        }
        let ignore = action::Cors { ignore_unmatched: true, ..policy() };
        let bad = ("origin", "http://bad.example");
        let answer = decide(&ignore, "OPTIONS", &[bad, ASKS]);
        assert!(answer.starts_with("answer") && answer.contains("allow-methods: GET,POST"), "{answer}");
        assert!(!answer.contains("allow-origin"), "{answer}");
        assert_eq!(decide(&ignore, "GET", &[bad, ASKS]), "pass");
        assert_eq!(decide(&ignore, "OPTIONS", &[bad]), "pass");
    }

    #[test]
    fn stars_echo_what_was_asked_for() {
        let star = || vec!["*".to_owned()];
        let all = action::Cors {
            methods: star(),
            headers: star(),
            expose: star(),
            ..bare(vec![StringMatch::Present])
        };
        let asks = ("access-control-request-headers", "x-a, X-B");
        for (headers, expected) in [
            (&[("origin", "x"), ASKS][..], "allow-methods: DELETE; allow-headers: ;"),
            (&[("origin", "x"), ASKS, asks], "allow-methods: DELETE; allow-headers: x-a, X-B;"),
        ] {
            let expected = format!("answer allow-origin: x; expose-headers: *; {expected}");
            assert_eq!(decide(&all, "OPTIONS", headers), expected);
        }
        let with_credentials = action::Cors { credentials: true, ..bare(vec![StringMatch::Present]) };
        let expected = "allow allow-origin: x; allow-credentials: true;";
        assert_eq!(decide(&with_credentials, "GET", &[("origin", "x")]), expected);
    }

    #[test]
    fn an_empty_policy_does_nothing_and_a_bad_one_is_refused() {
        assert_eq!(decide(&bare(Vec::new()), "OPTIONS", &[("origin", GOOD), ASKS]), "pass");
        let bad = action::Cors { expose: vec!["a\n".into()], ..policy() };
        assert!(matches!(Cors::new(&bad), Err(RuleError::Cors(_))));
        assert!(matches!(Cors::new(&bare(vec![StringMatch::Regex("(".into())])), Err(RuleError::Match(_))));
    }

    #[test]
    fn its_headers_overwrite() {
        let mut answer = HeaderMap::new();
        answer.append("access-control-allow-origin", HeaderValue::from_static("a"));
        answer.append("access-control-allow-origin", HeaderValue::from_static("b"));
        CorsHeaders(vec![(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static(GOOD))])
            .put_into(&mut answer);
        assert_eq!(answer.get_all("access-control-allow-origin").iter().collect::<Vec<_>>(), [GOOD]);
    }
}
