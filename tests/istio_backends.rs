//! Pods that record what they are asked, and answer as the request's headers say: `x-status`, `x-sleep-ms`,
//! `x-fail-first: K` (503 to the first K attempts of a case).

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use umbra_testkit::Pod;

/// One request as a pod saw it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    /// Of pods, `logic-v1`.
    pub(crate) group: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) host: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, Vec<String>>,
    /// Of the body.
    pub(crate) len: u64,
}

/// What all pods saw, by the request's `x-case`.
#[derive(Clone, Default)]
pub(crate) struct Records(Arc<Mutex<BTreeMap<String, Vec<Seen>>>>);

impl Records {
    /// What was seen of one, in a fixed order.
    pub(crate) fn of(&self, case: &str) -> Vec<Seen> {
        let mut seen = self.lock().get(case).cloned().unwrap_or_default();
        seen.sort();
        seen
    }

    /// Forgets all.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    /// Adds one; gives how many of the same case have been seen, with it.
    fn add(&self, case: &str, seen: Seen) -> usize {
        let mut all = self.lock();
        let of_case = all.entry(case.to_owned()).or_default();
        of_case.push(seen);
        of_case.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<Seen>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves a pod's port 5000 until the test ends.
pub(crate) fn serve(pod: &Pod, name: &str, group: &str, records: &Records) -> Result<()> {
    let address = pod.ipv4;
    let listener = pod.netns().within(|| TcpListener::bind((address, 5000)))??;
    let (name, group, records) = (name.to_owned(), group.to_owned(), records.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (name, group, records) = (name.clone(), group.clone(), records.clone());
            // A connection that breaks is the proxy's to notice.
            std::thread::spawn(move || connection(&stream, &name, &group, &records));
        }
    });
    Ok(())
}

fn connection(stream: &TcpStream, name: &str, group: &str, records: &Records) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some((seen, case)) = request(&mut reader, group)? {
        let header = |name: &str| seen.headers.get(name).and_then(|values| values[0].parse::<u64>().ok());
        let (status, sleep, fail_first) = (header("x-status"), header("x-sleep-ms"), header("x-fail-first"));
        let is_head = seen.method == "HEAD";
        let closes = seen.headers.get("connection").is_some_and(|values| values[0] == "close");
        let attempt = records.add(&case, seen) as u64;
        if let Some(millis) = sleep {
            std::thread::sleep(Duration::from_millis(millis));
        }
        let fails = fail_first.is_some_and(|first| attempt <= first);
        let status = if fails { 503 } else { status.unwrap_or(200) };
        let body = if is_head || status == 204 || status == 304 { "" } else { "ok" };
        let length = if status == 204 { String::new() } else { "content-length: 2\r\n".to_owned() };
        write!(&mut &*stream, "HTTP/1.1 {status} Recorded\r\nx-pod: {name}\r\n{length}\r\n{body}")?;
        if closes {
            break;
        }
    }
    Ok(())
}

/// The next request and its `x-case`; `None`: the connection has ended.
fn request(reader: &mut BufReader<TcpStream>, group: &str) -> Result<Option<(Seen, String)>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.trim_end().split(' ');
    let (method, path) =
        (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    loop {
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line)?;
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').context("a header")?;
        headers.entry(name.to_ascii_lowercase()).or_default().push(value.trim().to_owned());
    }
    let first = |name: &str| headers.get(name).and_then(|values| values.first()).cloned();
    let len = match (first("transfer-encoding"), first("content-length")) {
        (Some(_), _) => chunked(reader)?,
        (None, Some(length)) => skip(reader, length.parse()?)?,
        (None, None) => 0,
    };
    let (host, case) = (first("host").unwrap_or_default(), first("x-case").unwrap_or_default());
    Ok(Some((Seen { group: group.to_owned(), method, path, host, headers, len }, case)))
}

fn skip(reader: &mut BufReader<TcpStream>, bytes: u64) -> Result<u64> {
    Ok(std::io::copy(&mut reader.take(bytes), &mut std::io::sink())?)
}

fn chunked(reader: &mut BufReader<TcpStream>) -> Result<u64> {
    let mut all = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size =
            u64::from_str_radix(line.trim_end(), 16).with_context(|| format!("a chunk's size: {line:?}"))?;
        all += skip(reader, size)?;
        // The line's end after the chunk, or after the last one (there are no trailers here).
        reader.read_line(&mut String::new())?;
        if size == 0 {
            return Ok(all);
        }
    }
}
