//! The promise: whatever a mirror does, each primary request is served, unaltered, and the proxy's memory, descriptors
//! and counters stay right. Every misbehaviour, with every size of body, in both versions of HTTP, on kept and on fresh
//! connections; each combination is a service of its own, so that what fails has a name.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use umbra_proxy::metrics::DropReason;
use umbra_routing::{Put, Rule};
use umbra_testkit::table::{self, Copies, Shadowed};
use umbra_testkit::{Samples, Shadows, wait_for};

use crate::proxy_kinds::Does;
use crate::proxy_mirrors::Backends;
use crate::proxy_requests::{Ask, User, Version, Wrong};
use crate::proxy_system::{CEILING, Memory, Proxy};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const SIZES: [usize; 5] = [0, KIB, 64 * KIB, MIB, LARGE];
const LARGE: usize = 32 * MIB;
/// Requests of each combination.
const REQUESTS: usize = 20;
/// Before, without mirrors: what primary requests take is there then.
const FIRST: usize = 1;
/// Bounds what this test waits for, and leaves the mirror that is a second late time to answer, on a machine where it is others'
/// turn for seconds.
const SHADOW_TIMEOUT: &str = "6s";
/// What copies of one worker may hold of bodies (`ShadowLimits::worker_bytes`) with all that it takes, for two workers.
const CAP: u64 = 2 * 16 * MIB as u64;
/// A copy in flight has a connection or a stream, a task and a head besides: measured, with some room.
const PER_COPY: u64 = 32 * KIB as u64;
/// Groups at a time: enough that those that wait for silent mirrors do not keep the others waiting.
const AT_ONCE: usize = 3;

/// All mirrors, each with a service and a user of its own, beside each other at one proxy.
#[derive(Clone, Copy, Debug)]
struct Group {
    version: Version,
    keep: bool,
    size: usize,
    requests: usize,
}

/// What came of one mirror in one group.
struct Case {
    does: Does,
    failed: Vec<String>,
    altered: Vec<String>,
    shadows: Shadows,
    /// By reason, each of all that there are.
    dropped: BTreeMap<&'static str, u64>,
}

/// What came of a group.
struct Outcome {
    group: Group,
    cases: Vec<Case>,
    altered_copies: Vec<String>,
    before: Memory,
    after: Memory,
    took: Duration,
}

#[test]
fn no_mirror_fails_alters_or_starves_a_primary_request() -> Result<()> {
    let outcomes = run(groups())?;
    print_mirrors(&outcomes);
    let wrong: Vec<String> = outcomes.iter().flat_map(Outcome::wrong).collect();
    ensure!(wrong.is_empty(), "{} wrong:\n  {}", wrong.len(), wrong.join("\n  "));
    Ok(())
}

/// With copies that may take a day, whoever waits for one that a mirror never ends is not answered.
#[test]
fn no_primary_request_waits_for_a_copy() -> Result<()> {
    const REQUESTS: usize = 2;
    let sizes = [0, 64 * KIB, LARGE].into_iter();
    let both = |size| [Version::Http1, Version::Http2].map(|version| (version, size));
    for (version, size) in sizes.flat_map(both) {
        let group = Group { version, keep: true, size, requests: REQUESTS };
        let mut proxy = Proxy::start_with(&["--shadow-timeout", "1440m"])?;
        let backends = Backends::start(version, size, &Does::ALL)?;
        proxy.put(&services(&backends, true)?)?;
        for (does, wrong) in group.ask(&proxy, REQUESTS)? {
            ensure!(wrong.is_empty(), "{group}: {does}: {wrong:?}");
        }
        let silent = fqdn(Does::ReadsAndNeverAnswers);
        let copies = Shadows::of(&proxy.samples()?, &[("service", &silent)]);
        let in_flight = copies.eligible - copies.sent - copies.dropped;
        ensure!(copies.sent == 0 && (size == LARGE || in_flight == REQUESTS as u64), "{group}: {copies:?}");
    }
    Ok(())
}

/// The largest bodies first: they take longest. `UMBRA_TEST_CASES=text` runs those with this text in their name.
fn groups() -> Vec<Group> {
    let mut groups = Vec::new();
    for size in SIZES.into_iter().rev() {
        for version in [Version::Http2, Version::Http1] {
            groups.extend([true, false].map(|keep| Group { version, keep, size, requests: REQUESTS }));
        }
    }
    let wanted = std::env::var("UMBRA_TEST_CASES").unwrap_or_default();
    groups.retain(|group| group.to_string().contains(&wanted));
    groups
}

fn run(groups: Vec<Group>) -> Result<Vec<Outcome>> {
    let (left, outcomes) = (Mutex::new(groups.into_iter()), Mutex::new(Vec::new()));
    let next = || left.lock().expect("no panic while holding it").next();
    let work = || -> Result<()> {
        while let Some(group) = next() {
            let outcome = group.run().with_context(|| group.to_string())?;
            println!("measured: {outcome}");
            outcomes.lock().expect("no panic while holding it").push(outcome);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        all.into_iter().try_for_each(|one| one.join().expect("a group does not panic"))
    })?;
    Ok(outcomes.into_inner().expect("no panic while holding it"))
}

impl Group {
    fn run(self) -> Result<Outcome> {
        let began = Instant::now();
        let mut proxy = Proxy::start_with(&["--shadow-timeout", SHADOW_TIMEOUT])?;
        let backends = Backends::start(self.version, self.size, &Does::ALL)?;
        // First without mirrors, so that what primary requests take is there before.
        proxy.put(&services(&backends, false)?)?;
        let descriptors = proxy.descriptors()?;
        let mut failed = self.ask(&proxy, FIRST)?;
        back_to(&proxy, descriptors)?;
        proxy.put(&services(&backends, true)?)?;
        let before = proxy.memory()?;
        proxy.forget_peak()?;
        for (does, more) in self.ask(&proxy, self.requests)? {
            failed.entry(does).or_default().extend(more);
        }
        let settled = |does| {
            let shadows = proxy.settled_with(&[("service", &fqdn(does))], self.requests as u64);
            shadows.with_context(|| format!("{does}"))
        };
        let shadows: Vec<_> = Does::ALL.into_iter().map(settled).collect::<Result<_>>()?;
        let after = proxy.memory()?;
        back_to(&proxy, descriptors)?;
        proxy.alive()?;
        let samples = proxy.samples()?;
        let cases = Does::ALL.into_iter().zip(shadows).map(|(does, shadows)| {
            let wrong = failed.remove(&does).unwrap_or_default();
            Case::new(does, wrong, shadows, &samples)
        });
        let (cases, altered_copies, took) = (cases.collect(), backends.altered(), began.elapsed());
        Ok(Outcome { group: self, cases, altered_copies, before, after, took })
    }

    /// A user of each service, all at once; each asks so often, one request after the other.
    fn ask(self, proxy: &Proxy, times: usize) -> Result<BTreeMap<Does, Vec<Wrong>>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let to = proxy.traffic();
        runtime.block_on(async {
            let user = |does: Does| {
                tokio::spawn(async move {
                    let (mut user, mut wrong) = (User::new(self.version, to), Vec::new());
                    for number in 0..times {
                        let ask = Ask { service: does.name(), number, size: self.size };
                        wrong.extend(user.ask(ask, self.keep).await.err());
                    }
                    (does, wrong)
                })
            };
            let mut all = BTreeMap::new();
            for user in Does::ALL.map(user) {
                let (does, wrong) = user.await?;
                all.insert(does, wrong);
            }
            Ok(all)
        })
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = if self.version == Version::Http1 { "HTTP/1.1" } else { "HTTP/2" };
        let connections = if self.keep { "kept" } else { "fresh" };
        let (size, unit) = if self.size < MIB { (self.size / KIB, "KiB") } else { (self.size / MIB, "MiB") };
        let requests = self.requests;
        write!(f, "isolation: {version:8} {connections:5} connections, {size:2} {unit} x {requests:2}")
    }
}

/// Waits until the proxy has as few descriptors as at the start: idle upstream connections end after some seconds.
fn back_to(proxy: &Proxy, descriptors: usize) -> Result<()> {
    wait_for("as many descriptors as at the start", CEILING, || {
        let now = proxy.descriptors()?;
        ensure!(now <= descriptors, "{now}, {descriptors} at the start");
        Ok(())
    })
}

fn fqdn(does: Does) -> String {
    format!("{does}.default.svc.cluster.local")
}

/// A service for each mirror, with the same primary.
fn services(backends: &Backends, mirrored: bool) -> Result<Put> {
    let service = |&(does, address): &(Does, Option<SocketAddr>)| {
        let v2 = mirrored.then_some(Copies { endpoint: address, per_million: 1_000_000 });
        Shadowed { name: does.name(), v1: backends.primary(), v2, rule: Rule::default() }
    };
    let all: Vec<_> = backends.mirrors().iter().map(service).collect();
    table::put(&all)
}

impl Case {
    fn new(does: Does, wrong: Vec<Wrong>, shadows: Shadows, samples: &Samples) -> Self {
        let (mut failed, mut altered) = (Vec::new(), Vec::new());
        for wrong in wrong {
            match wrong {
                Wrong::Failed(error) => failed.push(format!("{does}: failed: {error:#}")),
                Wrong::Altered(error) => altered.push(format!("{does}: altered: {error:#}")),
            }
        }
        let count = |reason| {
            let labels = [("service", &*fqdn(does)), ("reason", reason)];
            samples.sum("umbra_shadow_dropped_total", &labels) as u64
        };
        let reasons = DropReason::ALL.map(DropReason::as_str);
        let dropped = reasons.into_iter().map(|reason| (reason, count(reason)));
        let dropped = dropped.filter(|(_, count)| *count > 0).collect();
        Self { does, failed, altered, shadows, dropped }
    }

    /// Outcomes that such a mirror cannot have: they would say that another case was tried.
    fn implausible(&self, size: usize) -> Option<String> {
        let Shadows { answered, timed_out, failed, dropped, .. } = self.shadows;
        let unlikely = match self.does {
            Does::Answers
            | Does::AnswersAfter10Ms
            | Does::AnswersAfter1S
            | Does::Answers503
            | Does::AnswersEarly
            | Does::AnswersWithoutEnd => timed_out + failed,
            Does::ReadsAndNeverAnswers | Does::NeverReads | Does::ReadsOneByteASecond => answered + failed,
            Does::ResetsAtOnce
            | Does::ResetsHalfWay
            | Does::BreaksOffItsAnswer
            | Does::Refuses
            | Does::HalfCloses => answered + timed_out,
            Does::IsNotThere | Does::FailsSometimes => answered + timed_out + failed,
        };
        let excused: &[DropReason] = match self.does {
            Does::IsNotThere => &[DropReason::NoEndpoint],
            // What it resets, it took before.
            Does::Refuses => &[DropReason::Breaker, DropReason::BodyBudget],
            _ => &[DropReason::BodyBudget],
        };
        let count = |reason: &DropReason| self.dropped.get(reason.as_str()).copied().unwrap_or(0);
        let small = size < MIB && count(&DropReason::BodyBudget) > 0;
        let excused: u64 = excused.iter().map(count).sum();
        let unnamed = dropped != self.dropped.values().sum::<u64>();
        (unlikely > 0 || dropped > excused || small || unnamed)
            .then(|| format!("{}: {:?}, dropped {:?}", self.does, self.shadows, self.dropped))
    }
}

impl Outcome {
    fn growth(&self) -> u64 {
        self.after.most.saturating_sub(self.before.now)
    }

    fn cap(&self) -> u64 {
        CAP + PER_COPY * (self.group.requests * Does::ALL.len()) as u64
    }

    fn wrong(&self) -> Vec<String> {
        let of_cases = self.cases.iter().flat_map(|case| {
            let all = case.failed.iter().chain(&case.altered).cloned();
            all.chain(case.implausible(self.group.size))
        });
        let copies = self.altered_copies.iter().map(|what| format!("altered, at a backend: {what}"));
        let (growth, cap) = (self.growth(), self.cap());
        let memory = (growth > cap).then(|| format!("memory grew by {growth} bytes, {cap} are allowed"));
        of_cases.chain(copies).chain(memory).map(|what| format!("{}: {what}", self.group)).collect()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed: usize = self.cases.iter().map(|case| case.failed.len()).sum();
        let altered: usize = self.cases.iter().map(|case| case.altered.len()).sum();
        let mib = |bytes| bytes as f64 / MIB as f64;
        write!(
            f,
            "{} x {} mirrors: {failed} failed, {altered} altered; memory {:.1} MiB, {:.1} more at most (cap {:.0}); took {:.0?}",
            self.group,
            self.cases.len(),
            mib(self.before.now),
            mib(self.growth()),
            mib(self.cap()),
            self.took
        )
    }
}

/// What became of the copies, by mirror.
fn print_mirrors(outcomes: &[Outcome]) {
    for does in Does::ALL {
        let cases = || outcomes.iter().flat_map(|outcome| &outcome.cases).filter(|case| case.does == does);
        let all = cases().map(|case| case.shadows).fold(Shadows::default(), std::ops::Add::add);
        let mut dropped = BTreeMap::new();
        for (reason, count) in cases().flat_map(|case| &case.dropped) {
            *dropped.entry(*reason).or_insert(0) += count;
        }
        let failed: usize = cases().map(|case| case.failed.len() + case.altered.len()).sum();
        println!(
            "measured: isolation: mirror {does:22}: {:4} requests, {failed} failed or altered; copies: {:4} answered, \
             {:4} timed out, {:4} failed, {:4} dropped {dropped:?}",
            all.eligible, all.answered, all.timed_out, all.failed, all.dropped
        );
    }
}
