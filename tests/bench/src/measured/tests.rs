use super::*;
use crate::harness::Fault;
use crate::rounds::tests::round;
use crate::rows::ROWS;

fn row(metric: &str) -> &'static Row {
    ROWS.iter().find(|row| row.metric == metric).unwrap()
}

/// umbra, raw and Envoy, on a machine that is `pace` times slower.
fn at(pace: f64) -> crate::rounds::Round {
    let visits = |cost: f64| vec![cost * pace, cost * pace];
    let all = [
        (Kind::Umbra, PLAIN, visits(12.0)),
        (Kind::Umbra, MIRRORED, visits(18.0)),
        (Kind::Raw, PLAIN, visits(10.0)),
        (Kind::Raw, MIRRORED, visits(14.0)),
        (Kind::Envoy, PLAIN, visits(30.0)),
    ];
    round(&all.each_ref().map(|(kind, mode, visits)| (*kind, *mode, visits.as_slice())))
}

fn measured() -> Measured {
    let rounds = Rounds { all: [1.0, 1.3, 1.7].map(at).to_vec(), void: vec![] };
    Measured { rounds: BTreeMap::from([(Load::Closed(SMALL), rounds)]), ..Measured::default() }
}

fn near(figure: Result<Figure, String>, want: f64) {
    let figure = figure.unwrap();
    assert!((figure.value - want).abs() < 1e-9 && (figure.high - figure.low).abs() < 1e-9, "{figure:?}");
}

#[test]
fn a_machine_that_slows_down_changes_no_ratio() {
    near(measured().figure(row("cpu_vs_envoy")), 0.4);
    near(measured().figure(row("cpu_vs_raw")), 1.2);
    near(measured().figure(row("mirror_cost_vs_raw")), 1.5);
}

#[test]
fn what_is_missing_says_why() {
    let mut measured = measured();
    let why = |measured: &Measured, metric| measured.figure(row(metric)).unwrap_err();
    assert_eq!(why(&measured, "cpu_64k_vs_envoy"), "it was not asked for");
    assert_eq!(why(&measured, "isolation_p50"), "it was not asked for");
    assert_eq!(why(&measured, "cpu_vs_nginx"), "no round counts");
    measured.absent.insert(Kind::Nginx, "nginx is not here".into());
    assert_eq!(why(&measured, "cpu_vs_nginx"), "nginx is not here");
    let rounds = measured.rounds.get_mut(&Load::Closed(SMALL)).unwrap();
    let subject = Subject { kind: Kind::Envoy, mode: MIRRORED };
    rounds.void.push((subject, "7 copies came, 9 are configured".into()));
    let void = "every run is void: 7 copies came, 9 are configured";
    assert_eq!(why(&measured, "cpu_mirrored_vs_envoy"), void);
}

#[test]
fn counted_figures_are_paired_by_repetition() {
    let mut measured = Measured::default();
    let key = |count, mode| (count, Kind::Umbra, mode);
    measured.exact.insert(key(Count::Instructions, Mode::Unsampled), Ok(vec![101.0, 202.0]));
    measured.exact.insert(key(Count::Instructions, PLAIN), Ok(vec![100.0, 200.0]));
    measured.exact.insert(key(Count::Syscalls, PLAIN), Ok(vec![4.1]));
    measured.exact.insert(key(Count::Allocations, PLAIN), Err("valgrind is not here".into()));
    near(measured.figure(row("instructions_unsampled_mirror")), 1.01);
    near(measured.figure(row("syscalls")), 4.1);
    measured.idle_connection = BTreeMap::from([(Kind::Umbra, 4000.0)]);
    near(measured.figure(row("bytes_per_idle_connection")), 4000.0);
    measured.idle = BTreeMap::from([(Kind::Umbra, 6), (Kind::Envoy, 60)]);
    near(measured.figure(row("rss_idle_vs_envoy")), 0.1);
    assert_eq!(measured.figure(row("allocations")).unwrap_err(), "valgrind is not here");
}

#[test]
fn a_mirror_s_share_of_the_instructions_is_what_it_adds() {
    let mut measured = Measured::default();
    let all = [(Kind::Umbra, PLAIN, 20.0), (Kind::Umbra, MIRRORED, 25.0)];
    for (kind, mode, value) in
        all.into_iter().chain([(Kind::Nginx, PLAIN, 20.0), (Kind::Nginx, MIRRORED, 40.0)])
    {
        measured.exact.insert((Count::Instructions, kind, mode), Ok(vec![value]));
    }
    near(measured.figure(row("instructions_vs_nginx")), 1.0);
    near(measured.figure(row("instructions_mirror_vs_nginx")), 0.25);
}

#[test]
fn latencies_come_from_the_open_loop_alone() {
    let mut measured = measured();
    assert_eq!(measured.figure(row("p50_vs_envoy")).unwrap_err(), "it was not asked for");
    let closed = measured.rounds.remove(&Load::Closed(SMALL)).unwrap();
    measured.rounds.insert(Load::Open, closed);
    near(measured.figure(row("p50_vs_envoy")), 0.4);
    near(measured.figure(row("p99_mirrored_vs_plain")), 1.5);
}

#[test]
fn two_workers_cost_what_the_machine_does_not() {
    let visits = [
        (Kind::Raw, PLAIN, [10.0; 2]),
        (Kind::Umbra, PLAIN, [12.0; 2]),
        (Kind::Pair, PLAIN, [15.0; 2]),
        (Kind::RawPair, PLAIN, [12.0; 2]),
    ];
    let round = round(&visits.each_ref().map(|(kind, mode, visits)| (*kind, *mode, visits.as_slice())));
    let mut measured = Measured::default();
    measured.rounds.insert(Load::Workers, Rounds { all: vec![round; 3], void: vec![] });
    near(measured.figure(row("cpu_two_workers_vs_one")), 15.0 / 12.0 / (12.0 / 10.0));
    near(measured.figure(row("cpu_two_workers_vs_one_alone")), 15.0 / 12.0);
}

#[test]
fn isolation_is_that_of_the_worst_case_and_growth_that_beyond_the_start() {
    let case = |fault| (Case { fault, shape: SMALL }, Kind::Umbra);
    let fared = |mirrored: f64| {
        let visits = [(Kind::Umbra, PLAIN, [10.0; 2]), (Kind::Umbra, MIRRORED, [mirrored; 2])];
        let round = round(&visits.each_ref().map(|(kind, mode, visits)| (*kind, *mode, visits.as_slice())));
        Fared {
            rounds: Rounds { all: vec![round; 3], void: vec![] },
            planned: 9,
            failed: 2,
            failed_without: 0,
        }
    };
    let mut measured = Measured::default();
    measured.isolation.insert(case(Fault::Healthy), Ok(fared(10.0)));
    measured.isolation.insert(case(Fault::Silent), Ok(fared(10.9)));
    near(measured.figure(row("isolation_p50")), 1.09);
    near(measured.figure(row("isolation_p99_no_mirror")), 1.0);
    near(measured.figure(row("isolation_failed")), 4.0);
    assert!(!measured.is_noisy(row("isolation_p50")) && !measured.is_noisy(row("isolation_failed")));
    let overloaded = Fared { failed_without: 1, ..fared(10.0) };
    measured.isolation.insert(case(Fault::Drip), Ok(overloaded));
    assert!(measured.is_noisy(row("isolation_p99")) && measured.is_noisy(row("isolation_failed")));
    assert!(!measured.is_noisy(row("isolation_p50")), "users notice one, whatever others prove");
    measured.isolation.remove(&case(Fault::Drip));
    measured.isolation.insert(case(Fault::Deaf), Err("the mirror was never asked".into()));
    let why = measured.figure(row("isolation_p99")).unwrap_err();
    assert_eq!(why, "never_reads: the mirror was never asked");

    let growth = |more: u64| {
        let (resident, descriptors) = ((1 << 20, (1 << 20) + more), (40, 40 + 128));
        Ok(Growth { resident, descriptors, planned: 1, failed: 0 })
    };
    measured.growth.insert((memory::SILENT, Kind::Umbra), growth(8 << 20));
    measured.growth.insert((memory::SILENT, Kind::Envoy), growth(80 << 20));
    near(measured.figure(row("silent_mirror_growth_over_cap")), 0.5);
    near(measured.figure(row("silent_mirror_growth_vs_envoy")), 0.1);
    near(measured.figure(row("silent_mirror_connections")), 0.5);
    assert_eq!(measured.figure(row("deaf_mirror_64k_growth_over_cap")).unwrap_err(), "it was not asked for");
}
