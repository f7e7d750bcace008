//! Which core does what, and what a process has used.

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The two cores of a measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    /// For the proxy under test, alone.
    pub(crate) proxy: usize,
    /// For the second worker of a proxy that has two: where there are two cores only, the load's, too.
    pub(crate) second: usize,
    /// For clients and backends.
    pub(crate) load: usize,
}

impl Cores {
    /// The first and the last that this process may use.
    ///
    /// # Errors
    /// When it may use one only: what is measured would then be the load, too.
    pub(crate) fn choose() -> Result<Self> {
        let set = sched_getaffinity(Pid::from_raw(0))?;
        let usable: Vec<_> = (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect();
        ensure!(
            usable.len() >= 2,
            "the proxy and the load need a core each; this process may use {usable:?}"
        );
        Ok(Self { proxy: usable[0], second: usable[1], load: usable[usable.len() - 1] })
    }
}

impl Cores {
    /// The command that keeps what it runs on these cores.
    pub(crate) fn pinned(cores: &[usize]) -> Vec<String> {
        let list: Vec<_> = cores.iter().map(usize::to_string).collect();
        ["taskset".into(), "-c".into(), list.join(",")].to_vec()
    }
}

/// Keeps this thread on one core.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("core {core}"))
}

/// Nanoseconds on a core, of all threads of a process that are there now: they have to live as long as the measurement.
///
/// # Errors
/// When the process has ended.
pub(crate) fn nanoseconds(process: u32) -> Result<u64> {
    Ok(by_thread(process)?.into_iter().map(|(_, used)| used).sum())
}

/// The same of each thread, with its name.
///
/// # Errors
/// When the process has ended.
pub(crate) fn by_thread(process: u32) -> Result<Vec<(String, u64)>> {
    let tasks = format!("/proc/{process}/task");
    let mut all = Vec::new();
    for task in std::fs::read_dir(&tasks).with_context(|| tasks.clone())? {
        let path = task?.path();
        let read = |name: &str| {
            let path = path.join(name);
            std::fs::read_to_string(&path).with_context(|| path.display().to_string())
        };
        let text = read("schedstat")?;
        let first = text.split(' ').next().and_then(|number| number.parse().ok());
        let used = first.with_context(|| format!("{}: {text:?}", path.display()))?;
        all.push((read("comm")?.trim().to_owned(), used));
    }
    Ok(all)
}

/// How many descriptors a process has open.
///
/// # Errors
/// When the process has ended.
pub(crate) fn descriptors(process: u32) -> Result<u64> {
    let path = format!("/proc/{process}/fd");
    Ok(std::fs::read_dir(&path).with_context(|| path)?.count() as u64)
}

/// Bytes of memory that are resident of a process.
///
/// # Errors
/// When the process has ended.
pub(crate) fn resident(process: u32) -> Result<u64> {
    let path = format!("/proc/{process}/status");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let kibibytes = text.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    Ok(kibibytes.with_context(|| format!("VmRSS in {path}"))?.parse::<u64>()? * 1024)
}
