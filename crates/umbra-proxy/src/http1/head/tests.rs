use super::*;

const LIMIT: usize = 4096;

fn parse(text: &str, piece: usize) -> Result<Option<(RequestHead, Vec<u8>)>, HeadError> {
    let (mut input, mut scan) = (BytesMut::new(), Scan::default());
    let mut parsed = None;
    for piece in text.as_bytes().chunks(piece) {
        input.extend_from_slice(piece);
        if parsed.is_none() {
            parsed = request(&mut input, &mut scan, LIMIT, HeaderMap::new)?;
        }
    }
    Ok(parsed.map(|head| (head, input.to_vec())))
}

fn refused(text: &str) -> HeadError {
    let mut refusals = (1..=text.len()).map(|piece| match parse(text, piece) {
        Err(error) => error,
        Ok(parsed) => panic!("{text:?} in pieces of {piece}: {:?}", parsed.map(|(head, _)| head.request)),
    });
    let first = refusals.next().expect("no head is empty");
    assert!(
        refusals.all(|other| std::mem::discriminant(&other) == std::mem::discriminant(&first)),
        "{text:?}"
    );
    first
}

fn of_answer(text: &str, is_head: bool) -> Result<Option<AnswerHead>, HeadError> {
    answer(&mut BytesMut::from(text), &mut Scan::default(), (LIMIT, is_head), HeaderMap::new)
}

#[test]
fn a_request_is_read_in_any_pieces_and_what_follows_stays() {
    let text =
        "\r\nPOST /a?b=%20 HTTP/1.1\r\nHost: x\r\nX-Odd: \t a b \r\nX-Odd:\r\ncontent-length: 3\r\n\r\nabc";
    for piece in 1..=text.len() {
        let (head, rest) = parse(text, piece).expect("sound").expect("whole");
        assert_eq!(rest, b"abc");
        assert_eq!((head.framing, head.keep_alive, head.expects_continue), (Framing::Length(3), true, false));
        let request = head.request;
        assert_eq!((request.method(), request.uri()), (&Method::POST, &Uri::from_static("/a?b=%20")));
        let odd: Vec<_> = request.headers().get_all("x-odd").iter().collect();
        assert_eq!(odd, ["a b", ""]);
    }
    assert!(parse("GET / HTTP/1.1\r\nhost: x\r\n\r", 3).expect("so far").is_none());
}

#[test]
fn what_frames_a_request_is_unambiguous_or_refused() {
    let framing = |fields: &str| {
        let text = format!("POST / HTTP/1.1\r\nhost: x\r\n{fields}\r\n");
        parse(&text, text.len()).map(|head| head.expect("whole").0.framing)
    };
    assert_eq!(framing(""), Ok(Framing::None));
    assert_eq!(framing("content-length: 0\r\n"), Ok(Framing::None));
    assert_eq!(framing("content-length: 7\r\ncontent-length: 7\r\n"), Ok(Framing::Length(7)));
    assert_eq!(framing("Transfer-Encoding: CHUNKED\r\n"), Ok(Framing::Chunked));
    for fields in [
        "content-length: 3\r\ncontent-length: 4\r\n",
        "content-length: 3, 3\r\n",
        "content-length: +3\r\n",
        "content-length: -3\r\n",
        "content-length: 0x3\r\n",
        "content-length: \r\n",
        "content-length: 3 3\r\n",
        "content-length: 99999999999999999999\r\n",
        "content-length: 3\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 3\r\n",
        "transfer-encoding: gzip\r\ncontent-length: 3\r\n",
    ] {
        let text = format!("POST / HTTP/1.1\r\nhost: x\r\n{fields}\r\n");
        assert!(matches!(refused(&text), HeadError::Malformed(_)), "{fields:?}");
    }
    for coding in [
        "gzip",
        "gzip, chunked",
        "chunked, identity",
        "xchunked",
        "chunked\r\ntransfer-encoding: chunked",
        "\"chunked\"",
        "",
    ] {
        let text = format!("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: {coding}\r\n\r\n");
        assert_eq!(refused(&text), HeadError::UnknownCoding, "{coding:?}");
    }
    let old = "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n";
    assert!(matches!(refused(old), HeadError::Malformed(_)));
}

#[test]
fn what_is_no_head_is_refused() {
    for text in [
        "\0\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "GET / HTTP/1.2\r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1 \r\n\r\n",
        " GET / HTTP/1.1\r\n\r\n",
        "\rGET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nx y: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nx : 1\r\n\r\n",
        "GET / HTTP/1.1\r\n: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nx\r\n\r\n",
        "GET / HTTP/1.1\r\nx: 1\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nx: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nx: a\0b\r\n\r\n",
        "GET host HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET host:80 HTTP/1.1\r\nhost: x\r\n\r\n",
        "CONNECT /path HTTP/1.1\r\nhost: x\r\n\r\n",
    ] {
        assert!(matches!(refused(text), HeadError::Malformed(_)), "{text:?}");
    }
    for target in ["/", "*", "http://x/y?z", "/%zz", "//a//b"] {
        let text = format!("OPTIONS {target} HTTP/1.1\r\nhost: x\r\n\r\n");
        assert!(parse(&text, 5).expect("sound").is_some(), "{target:?}");
    }
}

#[test]
fn a_whole_uri_without_a_path_gets_one() {
    for (target, expected) in [("http://x?a=b", "/?a=b"), ("http://x", "/"), ("http://x/y?z", "/y?z")] {
        let text = format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n");
        let (head, _) = parse(&text, 5).expect("sound").expect("whole");
        assert_eq!(head.request.uri().path_and_query().expect("a path"), expected);
        assert_eq!(head.request.uri().host(), Some("x"));
    }
}

#[test]
fn heads_have_a_limit_in_bytes_and_fields() {
    let long = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(LIMIT));
    for piece in [1, 100, LIMIT * 2] {
        assert!(matches!(parse(&long, piece), Err(HeadError::TooLarge)));
    }
    let empty = format!("{}GET / HTTP/1.1\r\n\r\n", "\r\n".repeat(LIMIT));
    for piece in [1, 100, LIMIT * 4] {
        assert!(matches!(parse(&empty, piece), Err(HeadError::TooLarge)), "empty lines");
    }
    let fields = |count: usize| {
        let fields: String = (0..count).map(|n| format!("x-{n}: 1\r\n")).collect();
        let text = format!("GET / HTTP/1.1\r\n{fields}\r\n");
        parse(&text, text.len()).map(|head| head.map(|(head, _)| head.request.headers().len()))
    };
    assert_eq!(fields(MAX_HEADERS), Ok(Some(MAX_HEADERS)));
    assert_eq!(fields(MAX_HEADERS + 1), Err(HeadError::TooLarge));
}

#[test]
fn a_connection_goes_on_as_both_versions_say() {
    let keeps = |version: &str, connection: &str| {
        let text = format!("GET / HTTP/{version}\r\nhost: x\r\n{connection}\r\n");
        parse(&text, text.len()).expect("sound").expect("whole").0.keep_alive
    };
    assert!(keeps("1.1", ""));
    assert!(!keeps("1.1", "connection: x, Close\r\n"));
    assert!(!keeps("1.0", ""));
    assert!(keeps("1.0", "connection: Keep-Alive\r\n"));
}

#[test]
fn an_answer_ends_where_its_status_its_method_and_its_fields_say() {
    let framing = |head: &str, is_head: bool| {
        of_answer(&format!("HTTP/1.1 {head}\r\n\r\n"), is_head).map(|head| head.expect("whole").framing)
    };
    assert_eq!(framing("200 OK\r\ncontent-length: 5", false), Ok(Framing::Length(5)));
    assert_eq!(framing("200 OK\r\ncontent-length: 5", true), Ok(Framing::None));
    assert_eq!(framing("200", false), Ok(Framing::UntilClose));
    for bodiless in ["204 No Content", "304 Not Modified\r\ncontent-length: 5", "100 Continue"] {
        assert_eq!(framing(bodiless, false), Ok(Framing::None), "{bodiless:?}");
    }
    assert_eq!(framing("200 OK\r\ntransfer-encoding: chunked", false), Ok(Framing::Chunked));
    assert_eq!(framing("200 OK\r\ntransfer-encoding: gzip", false), Err(HeadError::UnknownCoding));
    assert!(framing("200 OK\r\ncontent-length: 5\r\ncontent-length: 6", false).is_err());
    let both = of_answer("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n", false);
    let both = both.expect("sound").expect("whole");
    assert_eq!(both.framing, Framing::Chunked);
    assert!(!both.answer.headers().contains_key("content-length"), "nobody may be told");
    assert!(of_answer("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", false).is_err());
    for wrong in [
        "HTTP/1.1 99\r\n\r\n",
        "HTTP/1.1 1000 X\r\n\r\n",
        "200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx : 1\r\n\r\n",
    ] {
        assert!(of_answer(wrong, false).is_err(), "{wrong:?}");
    }
}

#[test]
fn an_answer_is_what_it_is_however_it_comes() {
    let read = |text: &str, piece: usize| {
        let (mut input, mut scan) = (BytesMut::new(), Scan::default());
        for piece in text.as_bytes().chunks(piece) {
            input.extend_from_slice(piece);
            if let Some(head) = answer(&mut input, &mut scan, (LIMIT, false), HeaderMap::new)? {
                return Ok(Some((head.framing, head.answer.headers().len())));
            }
        }
        Ok::<_, HeadError>(None)
    };
    for (text, expected) in [
        ("HTTP/1.1 200 OK\r\na: 1\nb: 2\r\ncontent-length: 3\n\nabc", Ok(Some((Framing::Length(3), 3)))),
        ("\r\nHTTP/1.1 204 No Content\r\n\r\n", Ok(Some((Framing::None, 0)))),
        ("\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", Err(HeadError::Malformed("its lines"))),
        ("HTTP/1.1 204 No Content\r\n\r", Ok(None)),
    ] {
        for piece in 1..=text.len() {
            assert_eq!(read(text, piece), expected, "{text:?} in pieces of {piece}");
        }
    }
}

#[test]
fn keep_alive_of_an_answer() {
    let keeps = |text: &str| of_answer(text, false).expect("sound").expect("whole").keep_alive;
    assert!(keeps("HTTP/1.1 204 No Content\r\n\r\n"));
    assert!(!keeps("HTTP/1.1 200 OK\r\n\r\n"), "its end is the connection's");
    assert!(!keeps("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"));
    assert!(!keeps("HTTP/1.0 204 No Content\r\n\r\n"));
}
