//! How many generated cases a test runs, and which.

use proptest::test_runner::{Config, FileFailurePersistence, RngAlgorithm, TestRng, TestRunner};

/// Runs `cases`, always the same, so that what was met is met again; or as many new ones as `PROPTEST_CASES` says. What
/// fails is kept in the file `kept`, which each run begins with.
pub fn runner(cases: u32, kept: &'static str) -> TestRunner {
    let kept = FileFailurePersistence::Direct(kept);
    let config = Config { failure_persistence: Some(Box::new(kept)), ..Config::default() };
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => TestRunner::new(config),
        None => {
            let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
            TestRunner::new_with_rng(Config { cases, ..config }, rng)
        }
    }
}
