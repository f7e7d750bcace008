//! `make soak`: users of all kinds, while mirrors and endpoints misbehave by chance and the configuration changes all
//! the time. No request may fail that its endpoint has not failed, and the proxy may not grow.
//!
//! `SOAK_MINUTES` says how long, 30 by default. A line every 10 s, a summary, and the same as `target/soak.json`.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use umbra_routing::{Put, Rule};
use umbra_testkit::table::{self, Copies, Shadowed};
use umbra_testkit::{Shadows, repository, wait_for};

use crate::proxy_kinds::Does;
use crate::proxy_mirrors::Backends;
use crate::proxy_requests::Version;
use crate::proxy_system::{CEILING, Proxy};
use crate::proxy_users::{Asked, Load, Seen};

const MIB: usize = 1 << 20;
/// Pushed ten times a second.
const CHANGE_EVERY: Duration = Duration::from_millis(100);
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// Services of each version. One of them has an endpoint that fails some requests.
const SERVICES: usize = 4;
/// Endpoints of a version that always answer.
const GOOD: usize = 3;
/// Part of the time after which the proxy has all that it needs: with endpoints that come and go it takes minutes until
/// its caches are as full as they get.
const WARM_AFTER: f64 = 0.3;
/// Growth that is none.
const FLAT: f64 = 0.1;
/// Shorter runs are over before that: they tell how memory grows, and no more.
const FLAT_FROM_MINUTES: f64 = 20.0;

#[test]
#[ignore = "a run of its own: make soak"]
fn faults_and_changes_for_a_long_time() -> Result<()> {
    let minutes: f64 = std::env::var("SOAK_MINUTES").map_or(Ok(30.0), |text| text.parse())?;
    let mut proxy = Proxy::start_with(&["--shadow-timeout", "3s"])?;
    let mut world = World::start()?;
    proxy.put(&world.put()?)?;
    let (descriptors, threads) = (proxy.descriptors()?, proxy.threads()?);
    let load = Load::start(proxy.traffic(), &world.asked())?;
    let rounds = world.change_for(&mut proxy, Duration::from_secs_f64(minutes * 60.0), &load)?;
    let seen = load.finish();
    let shadows = wait_for("copies have ended", CEILING, || {
        let shadows = Shadows::of(&proxy.samples()?, &[]);
        shadows.settled().map(|()| shadows)
    })?;
    wait_for("as many descriptors as at the start", CEILING, || {
        let now = proxy.descriptors()?;
        ensure!(now <= descriptors, "{now}, {descriptors} at the start");
        Ok(())
    })?;
    let summary = Summary { minutes, seen, shadows, rounds, altered: world.altered() };
    println!("measured: soak: {summary}");
    let path = repository().join("target/soak.json");
    std::fs::write(&path, summary.json()?).with_context(|| path.display().to_string())?;
    ensure!(proxy.threads()? <= threads, "{} threads, {threads} at the start", proxy.threads()?);
    summary.right()
}

/// All backends, and what the proxy is told of them.
struct World {
    versions: Vec<Backing>,
    services: Vec<Service>,
    random: fastrand::Rng,
}

/// Backends of one version.
struct Backing {
    version: Version,
    good: Vec<Backends>,
    /// Mirrors of all kinds, and an endpoint that fails sometimes.
    others: Backends,
}

struct Service {
    name: String,
    version: usize,
    fickle: bool,
    endpoints: Vec<SocketAddr>,
    mirror: Option<(Does, u32)>,
}

impl World {
    fn start() -> Result<Self> {
        let kinds = [&Does::ALL[..], &[Does::FailsSometimes]].concat();
        let backing = |version| -> Result<Backing> {
            let good = (0..GOOD).map(|_| Backends::start(version, MIB, &[])).collect::<Result<_>>()?;
            Ok(Backing { version, good, others: Backends::start(version, MIB, &kinds)? })
        };
        let versions = vec![backing(Version::Http1)?, backing(Version::Http2)?];
        let services = (0..versions.len()).flat_map(|version| {
            (0..SERVICES).map(move |number| Service {
                name: format!("soak-{version}-{number}"),
                version,
                fickle: number == 0,
                endpoints: Vec::new(),
                mirror: None,
            })
        });
        let mut world = Self { services: services.collect(), versions, random: fastrand::Rng::new() };
        (0..world.services.len()).for_each(|number| world.change(number));
        Ok(world)
    }

    /// Another mirror with another share, or none; other endpoints, of which one answers.
    fn change(&mut self, number: usize) {
        let Self { versions, services, random } = self;
        let service = &mut services[number];
        let backing = &versions[service.version];
        let does = Does::ALL[random.usize(..Does::ALL.len())];
        service.mirror = random.bool().then(|| (does, random.u32(1..=1_000_000)));
        let mut endpoints: Vec<_> = backing.good.iter().map(Backends::primary).collect();
        random.shuffle(&mut endpoints);
        endpoints.truncate(random.usize(1..=GOOD));
        if random.bool() {
            // Refuses connections: another one takes the request.
            endpoints.extend(backing.address(Does::Refuses));
        }
        if service.fickle {
            endpoints.extend(backing.address(Does::FailsSometimes));
        }
        service.endpoints = endpoints;
    }

    /// All of it, as a controller pushes it.
    fn put(&self) -> Result<Put> {
        let mut sets = Vec::new();
        let all: Vec<_> = self.services.iter().map(|service| self.shadowed(service)).collect();
        for service in &self.services {
            sets.push(table::endpoints(&service.name, "v1", &service.endpoints)?);
            if let Some((Does::IsNotThere, _)) = service.mirror {
                sets.push(table::endpoints(&service.name, "v2", &[])?);
            }
        }
        let mut put = table::put(&all)?;
        put.resources.extend(sets);
        Ok(put)
    }

    /// Its endpoints come besides: this has one of each version.
    fn shadowed<'a>(&self, service: &'a Service) -> Shadowed<'a> {
        let backing = &self.versions[service.version];
        let v1 = backing.good[0].primary();
        let v2 =
            service.mirror.map(|(does, per_million)| Copies { endpoint: backing.address(does), per_million });
        Shadowed { name: &service.name, v1, v2, rule: Rule::default() }
    }

    fn asked(&self) -> Vec<Asked> {
        let asked = |(version, backing): (usize, &Backing)| {
            let services = self.services.iter().filter(|service| service.version == version);
            let services = services.map(|service| service.name.clone()).collect();
            Asked { version: backing.version, services, failures: backing.others.failures() }
        };
        self.versions.iter().enumerate().map(asked).collect()
    }

    /// Pushes changes until the time is over; tells how it goes.
    fn change_for(&mut self, proxy: &mut Proxy, time: Duration, load: &Load) -> Result<Rounds> {
        let (began, mut rounds) = (Instant::now(), Rounds::default());
        let mut told = began;
        while began.elapsed() < time {
            let round = Instant::now();
            let number = self.random.usize(..self.services.len());
            self.change(number);
            proxy.put(&self.put()?)?;
            rounds.changes += 1;
            if began.elapsed() >= time.mul_f64(WARM_AFTER) {
                rounds.resident.push(proxy.memory()?.now);
            }
            if told.elapsed() >= TOLD_EVERY {
                told = Instant::now();
                self.tell(proxy, began, &rounds, load)?;
            }
            // The pace of the changes: nothing is awaited.
            std::thread::sleep(CHANGE_EVERY.saturating_sub(round.elapsed()));
        }
        Ok(rounds)
    }

    fn tell(&self, proxy: &mut Proxy, began: Instant, rounds: &Rounds, load: &Load) -> Result<()> {
        proxy.alive()?;
        let shadows = Shadows::of(&proxy.samples()?, &[]);
        println!(
            "measured: soak: {:4.0} s: {}; {} changes; memory {:.1} MiB, {} descriptors; {shadows:?}",
            began.elapsed().as_secs_f64(),
            load.seen(),
            rounds.changes,
            proxy.memory()?.now as f64 / MIB as f64,
            proxy.descriptors()?,
        );
        Ok(())
    }

    fn altered(&self) -> Vec<String> {
        let all = self.versions.iter().flat_map(|backing| backing.good.iter().chain([&backing.others]));
        all.flat_map(Backends::altered).collect()
    }
}

impl Backing {
    fn address(&self, does: Does) -> Option<SocketAddr> {
        self.others.mirrors().iter().find(|(kind, _)| *kind == does)?.1
    }
}

/// What was pushed, and the proxy's memory once it was warm.
#[derive(Default)]
struct Rounds {
    changes: u64,
    resident: Vec<u64>,
}

impl Rounds {
    /// Medians of the first and of the last third.
    fn memory(&self) -> Option<(u64, u64)> {
        let third = self.resident.len() / 3;
        let median = |part: &[u64]| {
            let mut part = part.to_vec();
            part.sort_unstable();
            part.get(part.len() / 2).copied()
        };
        Some((median(&self.resident[..third])?, median(&self.resident[self.resident.len() - third..])?))
    }
}

/// What came of it.
struct Summary {
    minutes: f64,
    seen: Seen,
    shadows: Shadows,
    rounds: Rounds,
    /// At backends.
    altered: Vec<String>,
}

impl Summary {
    fn growth(&self) -> Option<f64> {
        let (first, last) = self.rounds.memory()?;
        Some(last as f64 / first as f64 - 1.0)
    }

    fn json(&self) -> Result<String> {
        let Shadows { eligible, sent, dropped, answered, timed_out, failed } = self.shadows;
        let (first, last) = self.rounds.memory().unwrap_or_default();
        let all = json!({
            "minutes": self.minutes,
            "requests": self.seen.requests,
            "failed": self.seen.failed,
            "failedByEndpoints": self.seen.failed_on_purpose,
            "altered": self.seen.altered,
            "alteredAtBackends": self.altered.len(),
            "changes": self.rounds.changes,
            "memory": {"first": first, "last": last, "growth": self.growth()},
            "copies": {
                "eligible": eligible, "sent": sent, "dropped": dropped,
                "answered": answered, "timedOut": timed_out, "failed": failed,
            },
        });
        Ok(serde_json::to_string_pretty(&all)? + "\n")
    }

    fn right(&self) -> Result<()> {
        let Self { seen, altered, .. } = self;
        ensure!(seen.failed + seen.altered == 0, "{seen}\n  {}", seen.named.join("\n  "));
        ensure!(altered.is_empty(), "{altered:?}");
        ensure!(seen.requests > 0 && self.shadows.eligible > 0, "nobody asked: {self}");
        let growth = self.growth().context("too short to tell how memory grows")?;
        let long = self.minutes >= FLAT_FROM_MINUTES;
        ensure!(!long || growth <= FLAT, "memory is not flat: {growth:+.3}");
        Ok(())
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = self.rounds.memory().unwrap_or_default();
        write!(
            f,
            "{} minutes: {}; {} altered at backends; {} changes; memory {:.1} MiB when warm, {:.1} at the end \
             ({:+.1} %); descriptors as at the start; {:?}",
            self.minutes,
            self.seen,
            self.altered.len(),
            self.rounds.changes,
            first as f64 / MIB as f64,
            last as f64 / MIB as f64,
            self.growth().unwrap_or_default() * 100.0,
            self.shadows,
        )
    }
}
