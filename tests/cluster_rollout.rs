//! v1 comes anew, or closes connections under one's hands: no request fails.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use umbra_testkit::{CEILING, http, wait_for};

use crate::cluster_system::{Example, Second, with_example};
use crate::cluster_users::{Answer, Client, Connections, Users};

/// v1 closes what was idle for so long.
const IDLE: Duration = Duration::from_secs(1);
/// Clients in each pod that ask at once, so that as many connections to v1 grow old together.
const TOGETHER: u64 = 8;
const ROUNDS: u64 = 30;

#[test]
fn a_rollout_of_v1_under_load_fails_no_request() {
    with_example("rollout", Second::Buggy, |example| {
        example.route()?;
        let users = Users::start(example, Duration::from_millis(20))?;
        users.wait_for_more(20)?;
        let before = example.v1()?;
        let began = Instant::now();
        roll_out(example, &["rollout", "restart", "deployment/sa-logic"])?;
        let took = began.elapsed();
        users.wait_for_more(20)?;
        let after = example.v1()?;
        ensure!(
            before.iter().all(|old| after.iter().all(|new| new.name != old.name)),
            "{before:?}, {after:?}"
        );
        let seen = users.finish_unharmed()?;
        ensure!(seen.versions.keys().eq(["v1"]), "who answered: {:?}", seen.versions);
        println!("measured: a rollout of v1 under {} requests: {took:.1?}, none failed", seen.requests);
        Ok(())
    });
}

#[test]
fn a_v1_that_closes_idle_connections_fails_no_request() {
    with_example("idle", Second::Right, |example| {
        example.route()?;
        let idle = format!("IDLE_SECONDS={}", IDLE.as_secs());
        roll_out(example, &["set", "env", "deployment/sa-logic", &idle])?;
        // One pod, so that each request takes the connection of the round before.
        example.one_v1()?;
        let clients = example.clients()?;
        closes_idle_connections(example)?;
        let before = replaced(example)?;
        let asked = std::thread::scope(|scope| {
            let all: Vec<_> = clients.iter().map(|pod| scope.spawn(|| ask_in_rounds(example, pod))).collect();
            all.into_iter()
                .map(|one| one.join().expect("a user does not panic"))
                .collect::<Result<Vec<u64>>>()
        })?;
        println!(
            "measured: {} requests to a v1 that closes idle connections: none failed, {} met a closing one and were sent again",
            asked.iter().sum::<u64>(),
            replaced(example)? - before
        );
        Ok(())
    });
}

/// Runs a kubectl command that changes sa-logic's pods, and waits until the new ones have taken over.
fn roll_out(example: &Example, command: &[&str]) -> Result<()> {
    example.kubectl(command)?;
    let ceiling = format!("--timeout={}s", CEILING.as_secs());
    example.kubectl(&["rollout", "status", "deployment/sa-logic", &ceiling])?;
    wait_for("the old pods are gone", CEILING, || {
        let pods = example.cluster().pods(example.name(), "app=sa-logic,version=v1")?;
        ensure!(pods.len() <= example.cluster().nodes().len(), "{} pods", pods.len());
        Ok(())
    })
}

/// v1 does as it was told: else the test would say nothing.
fn closes_idle_connections(example: &Example) -> Result<()> {
    let (clients, v1) = (example.clients()?, example.v1()?);
    let address = (v1[0].address, 5000).into();
    let mut stream = example.network(&clients[0])?.within(|| http::connect(address))??;
    std::io::Write::write_all(&mut stream, b"GET /healthz HTTP/1.1\r\nhost: sa-logic\r\n\r\n")?;
    stream.set_read_timeout(Some(CEILING))?;
    // Ends when v1 closes, and not before: nobody asked it to.
    let mut answer = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut answer)?;
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    Ok(())
}

/// Requests that both proxies found their connection closed for, whosever they were.
fn replaced(example: &Example) -> Result<f64> {
    Ok(example.samples()?.iter().map(|one| one.sum("umbra_upstream_replaced_total", &[])).sum())
}

/// Some clients of one pod that keep their connections ask together, again and again, at gaps around v1's limit and any others. Gives
/// how often they asked; every answer must be v1's.
fn ask_in_rounds(example: &Example, pod: &crate::cluster_system::ExamplePod) -> Result<u64> {
    let mut clients = (0..TOGETHER).map(|_| Client::new(example, pod)).collect::<Result<Vec<_>>>()?;
    let mut gaps = Gaps(u64::from(std::process::id()));
    for round in 0..ROUNDS {
        let gap = gaps.next(round);
        std::thread::sleep(gap);
        let answers: Vec<Result<Answer>> = std::thread::scope(|scope| {
            let ask = |client| move || Client::ask(client, &format!("round-{round}"), Connections::Kept);
            let all: Vec<_> = clients.iter_mut().map(|client| scope.spawn(ask(client))).collect();
            all.into_iter().map(|one| one.join().expect("a client does not panic")).collect()
        });
        for answer in answers {
            let answer = answer.map_err(|error| error.context(format!("round {round} after {gap:?}")))?;
            let fine = answer.status == 200 && answer.version == "v1";
            ensure!(fine, "round {round} after {gap:?} on {}: {answer:?}", pod.node);
        }
    }
    Ok(ROUNDS * TOGETHER)
}

/// Random pauses: up to twice v1's limit, and every other one within 4 ms of it, on both sides.
struct Gaps(u64);

impl Gaps {
    fn next(&mut self, round: u64) -> Duration {
        // Knuth's linear congruential generator: any scatter does.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let random = self.0 >> 33;
        match round % 2 {
            0 => IDLE - Duration::from_millis(4) + Duration::from_micros(random % 8_000),
            _ => Duration::from_micros(random % 2_000_000),
        }
    }
}
