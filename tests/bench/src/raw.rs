//! The floor: a forwarder of bytes that knows nothing of HTTP, one connection upstream for each client's.
//!
//! With a mirror it writes what it reads twice, and throws away what the mirror says. It isolates nothing: a mirror that
//! does not read stalls its primary here.

use std::net::{SocketAddr, TcpStream};

use anyhow::Result;
use clap::Args;

use crate::socket::{Interest, Poll, Socket, one_of_several};

/// Where it listens and forwards to.
#[derive(Debug, Args)]
pub(crate) struct Raw {
    /// For clients whose bytes go to the primary alone.
    #[arg(long)]
    pub(crate) plain: SocketAddr,
    /// For clients whose bytes go to the mirror, too.
    #[arg(long)]
    pub(crate) mirrored: SocketAddr,
    /// Answers.
    #[arg(long)]
    pub(crate) primary: SocketAddr,
    /// Gets copies.
    #[arg(long)]
    pub(crate) mirror: SocketAddr,
    /// Threads, each with listeners of its own.
    #[arg(long, default_value_t = 1)]
    pub(crate) workers: usize,
}

/// Of one client's connection: its legs, in the order of [`Leg`].
struct Link {
    legs: [Option<Socket>; 3],
    interests: [Interest; 3],
}

#[derive(Clone, Copy)]
enum Leg {
    Client,
    Primary,
    Mirror,
}

const LEGS: [Leg; 3] = [Leg::Client, Leg::Primary, Leg::Mirror];
/// Tokens below are listeners.
const FIRST: usize = 3;

/// Forwards until the process ends.
///
/// # Errors
/// An address is taken, or a backend refuses.
pub(crate) fn run(raw: &Raw) -> Result<()> {
    std::thread::scope(|scope| {
        let start = |number| {
            let name = format!("worker-{number}");
            Ok::<_, anyhow::Error>(std::thread::Builder::new().name(name).spawn_scoped(scope, || work(raw))?)
        };
        let workers = (0..raw.workers).map(start).collect::<Result<Vec<_>>>()?;
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })
}

fn work(raw: &Raw) -> Result<()> {
    let listeners = [one_of_several(raw.plain)?, one_of_several(raw.mirrored)?];
    let mut poll = Poll::new()?;
    for (token, listener) in listeners.iter().enumerate() {
        poll.add(listener, token)?;
    }
    let mut links: Vec<Option<Link>> = Vec::new();
    let (mut tokens, mut scratch) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        poll.wait(u16::MAX, &mut tokens)?;
        for &token in &tokens {
            if token < FIRST {
                let client = listeners[token].accept()?.0;
                let mirror = (token == 1).then(|| TcpStream::connect(raw.mirror)).transpose()?;
                let at = links.iter().position(Option::is_none).unwrap_or(links.len());
                let link = Link::new([Some(client), Some(TcpStream::connect(raw.primary)?), mirror])?;
                link.watch(&poll, at)?;
                if at == links.len() {
                    links.push(Some(link))
                } else {
                    links[at] = Some(link)
                }
                continue;
            }
            let (at, leg) = (token / FIRST - 1, LEGS[token % FIRST]);
            // An event of a connection that an earlier one of this batch has ended.
            let Some(link) = &mut links[at] else { continue };
            // A reset is an end like any other: its client notices.
            if !matches!(link.step(leg, &mut scratch), Ok(true)) {
                links[at] = None;
            } else if let Some(link) = &mut links[at] {
                link.adjust(&poll, at)?;
            }
        }
    }
}

impl Link {
    fn new(streams: [Option<TcpStream>; 3]) -> Result<Self> {
        let [client, primary, mirror] = streams.map(|stream| stream.map(Socket::new).transpose());
        Ok(Self { legs: [client?, primary?, mirror?], interests: [Interest::READ; 3] })
    }

    fn watch(&self, poll: &Poll, at: usize) -> Result<()> {
        for (leg, socket) in self.legs.iter().enumerate() {
            if let Some(socket) = socket {
                poll.add(socket, token(at, leg))?;
            }
        }
        Ok(())
    }

    /// Whether the connection goes on.
    fn step(&mut self, leg: Leg, scratch: &mut [u8]) -> Result<bool> {
        let to: &[Leg] = match leg {
            Leg::Client => &[Leg::Primary, Leg::Mirror],
            Leg::Primary => &[Leg::Client],
            Leg::Mirror => &[],
        };
        let reads = self.interests[leg as usize].read;
        let Some(from) = &mut self.legs[leg as usize] else { return Ok(true) };
        from.flush()?;
        if !reads {
            return Ok(true);
        }
        let Some(count) = from.receive(scratch)? else { return Ok(true) };
        for &leg in to {
            if let Some(socket) = &mut self.legs[leg as usize] {
                socket.send(&scratch[..count])?;
            }
        }
        Ok(count > 0)
    }

    /// Reads from nobody whose bytes would pile up, and writes where some are left.
    fn adjust(&mut self, poll: &Poll, at: usize) -> Result<()> {
        let drained = |leg: Leg| self.legs[leg as usize].as_ref().is_none_or(Socket::is_drained);
        let reads = [drained(Leg::Primary) && drained(Leg::Mirror), drained(Leg::Client), true];
        for (leg, socket) in self.legs.iter().enumerate() {
            let Some(socket) = socket else { continue };
            let interest = Interest { read: reads[leg], write: !socket.is_drained() };
            if self.interests[leg] != interest {
                poll.change(socket, token(at, leg), interest)?;
                self.interests[leg] = interest;
            }
        }
        Ok(())
    }
}

fn token(link: usize, leg: usize) -> usize {
    (link + 1) * FIRST + leg
}

#[cfg(test)]
mod tests {
    use umbra_testkit::{claim_address, http, wait_for};

    use super::*;
    use crate::harness::{Harness, Rate, Shape, Until};
    use crate::peers::{Mode, Target};
    use crate::void::{Void, copies_each, judge};

    /// A harness, and a forwarder in front of it: plain and mirrored. It ends with the test's process.
    fn forwarded() -> (Harness, [Target; 2]) {
        let harness = Harness::new().unwrap();
        let (primary, mirror) = harness.backends().unwrap();
        let [plain, mirrored] = [(); 2].map(|()| claim_address().unwrap());
        std::thread::spawn(move || run(&Raw { plain, mirrored, primary, mirror, workers: 1 }));
        wait_for("it listens", std::time::Duration::from_secs(60), || http::connect(mirrored)).unwrap();
        (harness, [plain, mirrored].map(|address| Target { address, host: "web" }))
    }

    #[test]
    fn every_request_is_answered_once_and_copied_once() {
        let (mut harness, [plain, mirrored]) = forwarded();
        // More at once than a listener's queue holds by default.
        harness.open(&mirrored, Shape::Small, 300).unwrap();
        for shape in [Shape::Small, Shape::Large, Shape::OneStream, Shape::ManyStreams] {
            for (target, mode) in [(plain, Mode::Plain), (mirrored, Mode::Mirrored), (plain, Mode::Plain)] {
                harness.open(&target, shape, shape.clients()).unwrap();
                let counts = harness.run(Until::Requests(200), copies_each(mode)).unwrap();
                assert_eq!(counts.answered, 200);
                assert_eq!(judge(mode, counts), Ok(()), "{shape:?} {mode:?}");
            }
        }
    }

    #[test]
    fn an_open_loop_times_each_request_that_was_planned() {
        let (mut harness, [_, mirrored]) = forwarded();
        harness.open(&mirrored, Shape::Small, 8).unwrap();
        let rate = Rate { per_second: 2_000.0, seconds: 0.1 };
        let (counts, latencies) = harness.run_open(rate, 1).unwrap();
        assert_eq!((counts.answered, latencies.len()), (200, 200));
        assert_eq!(judge(Mode::Mirrored, counts), Ok(()));
        assert!(latencies.is_sorted() && latencies[0] > std::time::Duration::ZERO);
    }

    #[test]
    fn a_forwarder_that_copies_nothing_is_void_as_a_mirroring_one() {
        let (mut harness, [plain, _]) = forwarded();
        harness.open(&plain, Shape::Small, 4).unwrap();
        // The harness need not wait for copies: none will come.
        let counts = harness.run(Until::Requests(20), 0).unwrap();
        assert_eq!(judge(Mode::Mirrored, counts), Err(Void::Copies { wanted: 20, came: 0 }));
    }
}
