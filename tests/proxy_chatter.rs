//! A mirror of HTTP/2 that answers in messages of one byte, more at once than anybody reads in time. The `h2` crate holds
//! some 256 bytes for each: such a mirror may lose its connection and the copies on it, but takes no memory beyond what
//! copies may have, and nothing of users.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, anyhow, ensure};
use tokio::task::JoinSet;
use umbra_testkit::frames::{
    DATA, END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW, PREFACE, SETTINGS, STATUS_200, frame,
};

use crate::proxy_mirrors::Backends;
use crate::proxy_requests::{Ask, User, Version};
use crate::proxy_system::Proxy;

const MIB: u64 = 1 << 20;
/// What copies of two workers may hold (`ShadowLimits::worker_bytes`).
const CAP: u64 = 2 * 16 * MIB;
/// At once, each on a connection of its own.
const USERS: usize = 16;
/// Of each user, one after the other.
const REQUESTS: usize = 8;

#[test]
fn a_mirror_that_answers_in_single_bytes_takes_neither_memory_nor_requests() -> Result<()> {
    let mut proxy = Proxy::start()?;
    let (primary, mirror) = (Backends::start(Version::Http2, 1024, &[])?, Chatty::start()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // What a debug build needs for so many users without a mirror is not the mirror's.
    proxy.route(primary.primary(), None)?;
    runtime.block_on(ask(proxy.traffic()))?;
    proxy.route(primary.primary(), Some(mirror.address))?;
    let before = proxy.memory()?;
    proxy.forget_peak()?;
    runtime.block_on(ask(proxy.traffic()))?;
    let shadows = proxy.settled((USERS * REQUESTS) as u64)?;
    let growth = proxy.memory()?.most.saturating_sub(before.now);
    println!(
        "measured: a mirror that answers in single bytes: {:.1} MiB more at most (cap {}); {shadows:?}",
        growth as f64 / MIB as f64,
        CAP / MIB
    );
    ensure!(mirror.answered.load(Ordering::Relaxed) > 0, "the mirror was never asked");
    ensure!(growth <= CAP, "memory grew by {growth} bytes");
    ensure!(primary.altered().is_empty(), "{:?}", primary.altered());
    Ok(())
}

/// All users ask, and get what the primary says.
async fn ask(traffic: SocketAddr) -> Result<()> {
    let mut users = JoinSet::new();
    for user in 0..USERS {
        users.spawn(async move {
            let mut asks = User::new(Version::Http2, traffic);
            for request in 0..REQUESTS {
                let ask = Ask { service: "web", number: user * REQUESTS + request, size: 0 };
                asks.ask(ask, true).await.map_err(|wrong| anyhow!("{wrong:?}"))?;
            }
            Ok(())
        });
    }
    users.join_all().await.into_iter().collect()
}

/// The mirror.
struct Chatty {
    address: SocketAddr,
    answered: Arc<AtomicUsize>,
}

impl Chatty {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, answered) = (listener.local_addr()?, Arc::<AtomicUsize>::default());
        let count = Arc::clone(&answered);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let count = Arc::clone(&count);
                // How a connection ends is the proxy's affair.
                std::thread::spawn(move || serve(stream, &count));
            }
        });
        Ok(Self { address, answered })
    }
}

fn serve(mut stream: TcpStream, answered: &AtomicUsize) -> Result<()> {
    stream.read_exact(&mut [0; PREFACE.len()])?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let [a, b, c, kind, _, number @ ..] = head;
        std::io::copy(&mut (&stream).take(u32::from_be_bytes([0, a, b, c]).into()), &mut std::io::sink())
            .context("a frame")?;
        if kind == HEADERS {
            answered.fetch_add(1, Ordering::Relaxed);
            stream.write_all(&answer(u32::from_be_bytes(number)))?;
        }
    }
}

fn answer(stream: u32) -> Vec<u8> {
    let mut all = frame(HEADERS, END_HEADERS, stream, &[STATUS_200]);
    all.extend(frame(DATA, 0, stream, b"x").repeat(INITIAL_WINDOW));
    all.extend(frame(DATA, END_STREAM, stream, &[]));
    all
}
