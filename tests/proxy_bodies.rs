//! Large bodies: they stream to v1 whatever v2 does, and the proxy's memory stays bounded.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use umbra_testkit::{http, wait_for};

use crate::proxy_system::{CEILING, Proxy};

const MIB: usize = 1 << 20;
const LARGE: usize = 64 * MIB;
/// What copies of one worker may hold of bodies (`ShadowLimits::worker_bytes`) with all that it takes, for two workers.
const BUDGET: u64 = 2 * 16 * MIB as u64;
/// More than before, which is none: blocks and heads that workers keep for what comes next.
const KEPT: u64 = 6 * MIB as u64;
/// For what the proxy does once in 160 s when it has little to do.
const SELDOM: Duration = Duration::from_secs(300);

#[test]
fn a_mirror_that_never_reads_costs_its_copy_and_neither_speed_nor_memory() -> Result<()> {
    const TIMES: u64 = 9;
    let mut proxy = Proxy::start()?;
    let (v1, v2) = (Counting::start()?, Unreading::start()?);
    let chunk = vec![b'x'; MIB];
    proxy.route(v1.address, None)?;
    post(proxy.traffic(), LARGE, &chunk)?;
    let before = proxy.memory()?;
    let (mut alone, mut mirrored) = (Vec::new(), Vec::new());
    // In turn, so that whatever else this machine does slows both.
    for _ in 0..TIMES {
        proxy.route(v1.address, None)?;
        alone.push(timed(|| post(proxy.traffic(), LARGE, &chunk))?);
        proxy.route(v1.address, Some(v2.address))?;
        mirrored.push(timed(|| post(proxy.traffic(), LARGE, &chunk))?);
    }
    let after = proxy.memory()?;
    let (alone, mirrored) = (median(alone), median(mirrored));
    println!(
        "measured: POST of 64 MiB: {alone:.0?} without a mirror, {mirrored:.0?} with one that never reads, ratio {:.2} \
         (aim: 1.02); memory {} MiB before, at most {} MiB (aim: 16 MiB more a worker)",
        mirrored.as_secs_f64() / alone.as_secs_f64(),
        before.now / MIB as u64,
        after.most / MIB as u64,
    );
    let shadows = proxy.settled(TIMES)?;
    ensure!(proxy.dropped("body_budget")? == TIMES, "{shadows:?}");
    ensure!(v2.accepted() > 0, "v2 was not even connected to");
    ensure!(after.most <= before.now + BUDGET, "{before:?}, {after:?}");
    Ok(())
}

#[test]
fn many_large_bodies_at_once_stay_within_the_budget() -> Result<()> {
    const CLIENTS: u64 = 32;
    const EACH: usize = 16 * MIB;
    let mut proxy = Proxy::start()?;
    let (v1, v2) = (Counting::start()?, Unreading::start()?);
    let chunk = vec![b'x'; MIB];
    proxy.route(v1.address, None)?;
    post(proxy.traffic(), EACH, &chunk)?;
    let before = proxy.memory()?;
    proxy.route(v1.address, Some(v2.address))?;
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| post(proxy.traffic(), EACH, &chunk))).collect();
        all.into_iter().try_for_each(|one| one.join().expect("a client does not panic"))
    })?;
    let after = proxy.memory()?;
    println!(
        "measured: {CLIENTS} POSTs of 16 MiB at once: memory {} MiB before, at most {} MiB (aim: 16 MiB more a worker)",
        before.now / MIB as u64,
        after.most / MIB as u64,
    );
    ensure!(after.most <= before.now + BUDGET, "{before:?}, {after:?}");
    ensure!(after.most > before.now + KEPT, "there is nothing to go back: {before:?}, {after:?}");
    let shadows = proxy.settled(CLIENTS)?;
    ensure!(proxy.dropped("body_budget")? == CLIENTS, "{shadows:?}");
    // Left to itself the allocator keeps some 11 MiB of that for ever.
    wait_for("what copies held goes back to the system", SELDOM, || {
        let now = proxy.memory()?;
        ensure!(now.now <= before.now + KEPT, "{before:?}, {now:?}");
        Ok(())
    })
}

#[test]
fn the_first_byte_reaches_v1_before_the_client_has_sent_its_last() -> Result<()> {
    let mut proxy = Proxy::start()?;
    let (v1, v2) = (Counting::start()?, Counting::start()?);
    proxy.route(v1.address, Some(v2.address))?;
    let mut stream = http::connect(proxy.traffic())?;
    write!(stream, "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 3\r\nconnection: close\r\n\r\n")?;
    for _ in 0..3 {
        stream.write_all(b"x")?;
        // Not before each byte has arrived at both does the next one leave.
        v1.began.recv_timeout(CEILING).context("the byte did not reach v1")?;
        v2.began.recv_timeout(CEILING).context("the byte did not reach v2")?;
    }
    let answer = http::read_answer(&mut stream)?;
    ensure!((answer.status, answer.body.as_str()) == (200, "3"), "{answer:?}");
    let shadows = proxy.settled(1)?;
    ensure!(shadows.answered == 1, "{shadows:?}");
    Ok(())
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let began = Instant::now();
    work()?;
    Ok(began.elapsed())
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all[all.len() / 2]
}

/// A POST of `size` bytes, which v1 has to have counted.
fn post(to: SocketAddr, size: usize, chunk: &[u8]) -> Result<()> {
    let mut stream = http::connect(to)?;
    stream.set_read_timeout(Some(CEILING))?;
    stream.set_write_timeout(Some(CEILING))?;
    write!(stream, "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: {size}\r\nconnection: close\r\n\r\n")?;
    for _ in 0..size / chunk.len() {
        stream.write_all(chunk)?;
    }
    let answer = http::read_answer(&mut stream)?;
    ensure!((answer.status, answer.body) == (200, size.to_string()), "{}", answer.head);
    Ok(())
}

/// A backend that answers with the number of body bytes it has read.
struct Counting {
    address: SocketAddr,
    /// Told at each read of a body.
    began: Receiver<()>,
}

impl Counting {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, (begins, began)) = (listener.local_addr()?, channel());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let begins = begins.clone();
                // An error is the proxy's going away: whoever waits for an answer notices.
                std::thread::spawn(move || serve(stream, &begins));
            }
        });
        Ok(Self { address, began })
    }
}

/// Requests with a Content-Length, one after the other.
fn serve(stream: TcpStream, begins: &Sender<()>) -> Result<()> {
    let mut stream = BufReader::with_capacity(256 * 1024, stream);
    loop {
        let (mut length, mut line) = (0, String::new());
        while line != "\r\n" {
            line.clear();
            ensure!(stream.read_line(&mut line)? > 0, "the end");
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let (mut left, mut buffer) = (length, vec![0; 256 * 1024]);
        while left > 0 {
            let most = left.min(buffer.len());
            let read = stream.read(&mut buffer[..most])?;
            ensure!(read > 0, "cut off");
            left -= read;
            // Nobody listens when the test has ended.
            let _ = begins.send(());
        }
        let body = length.to_string();
        write!(stream.get_mut(), "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
    }
}

/// A backend that accepts connections and never reads from them.
struct Unreading {
    address: SocketAddr,
    held: Arc<Mutex<Vec<TcpStream>>>,
}

impl Unreading {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, held) = (listener.local_addr()?, Arc::<Mutex<Vec<_>>>::default());
        let all = Arc::clone(&held);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                all.lock().expect("no panic while holding it").push(stream);
            }
        });
        Ok(Self { address, held })
    }

    fn accepted(&self) -> usize {
        self.held.lock().expect("no panic while holding it").len()
    }
}
