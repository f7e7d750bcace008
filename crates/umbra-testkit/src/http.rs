//! HTTP as a test asks it: one request, one connection, everything in memory.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

/// For a connection and for each read: a program that says nothing for so long hangs.
const CEILING: Duration = Duration::from_secs(30);

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    /// The body, which has to be text.
    pub body: String,
}

/// The body of a GET that succeeds.
///
/// # Errors
/// When nobody answers, or with another status than 200.
pub fn get(address: SocketAddr, path: &str) -> Result<String> {
    get_on(connect(address)?, path)
}

/// The same on a connection that is there already: one made in a network namespace, for example.
///
/// # Errors
/// When nobody answers, or with another status than 200.
pub fn get_on(stream: TcpStream, path: &str) -> Result<String> {
    let answer = exchange(stream, "GET", path, &[], "")?;
    ensure!(answer.status == 200, "GET {path}: {}\n{}", answer.head, answer.body);
    Ok(answer.body)
}

/// Connects within 30 s.
///
/// # Errors
/// When nobody accepts.
pub fn connect(address: SocketAddr) -> Result<TcpStream> {
    TcpStream::connect_timeout(&address, CEILING).with_context(|| address.to_string())
}

/// Sends one request with `Connection: close` and reads the answer to its end. `host` is among `headers`, else the
/// peer's address. Reads wait 30 s at most, or as long as the stream says.
///
/// # Errors
/// When the connection breaks, or what comes is not an answer with a text body of a known length.
pub fn exchange(
    mut stream: TcpStream,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Answer> {
    if stream.read_timeout()?.is_none() {
        stream.set_read_timeout(Some(CEILING))?;
    }
    let mut request = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request += &format!("host: {}\r\n", stream.peer_addr()?);
    }
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!("content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes())?;
    read_answer(&mut stream)
}

/// Reads one answer from a connection that its sender closes afterwards.
///
/// # Errors
/// See [`exchange`].
pub fn read_answer(stream: &mut TcpStream) -> Result<Answer> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes)?;
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("no answer: {text:?}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("no status: {head:?}"))?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    match length {
        Some(length) if length == body.len() => {}
        _ => bail!("the body is not whole, or of unknown length: {text:?}"),
    }
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn answering(text: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
            stream.write_all(text.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn a_whole_answer_is_read_and_a_cut_one_is_not() {
        let whole = answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(get(whole, "/").unwrap(), "hi");
        let cut = answering("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhi");
        assert!(get(cut, "/").unwrap_err().to_string().contains("not whole"));
        let refused = answering("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n");
        assert!(get(refused, "/").unwrap_err().to_string().contains("503"));
    }
}
