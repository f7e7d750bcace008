//! Stops one thread of a program, while the others go on: a worker that is blocked.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// A thread that stands still. Dropping it lets the thread go on.
#[derive(Debug)]
pub struct StoppedThread {
    release: Option<Sender<()>>,
    tracer: Option<JoinHandle<()>>,
}

/// Stops the thread called `name` of process `pid`; it stands still when this returns. Signals cannot do that: they stop
/// whole processes. So it is traced (ptrace), which needs root.
///
/// # Errors
/// There is no such thread, or it may not be traced.
pub fn stop_thread(pid: u32, name: &str) -> Result<StoppedThread> {
    let tid = thread_of(pid, name)?;
    let (release, released) = channel();
    let (say, said) = channel();
    // Only the thread that has begun to trace may end it.
    let tracer = std::thread::spawn(move || trace(tid, &say, &released));
    said.recv()
        .context("the tracer says how it went")?
        .with_context(|| format!("stopping {name} of {pid}"))?;
    Ok(StoppedThread { release: Some(release), tracer: Some(tracer) })
}

fn trace(tid: Pid, say: &Sender<nix::Result<()>>, released: &Receiver<()>) {
    let stopped = ptrace::seize(tid, ptrace::Options::empty())
        .and_then(|()| ptrace::interrupt(tid))
        .and_then(|()| waitpid(tid, Some(WaitPidFlag::__WALL)))
        .map(drop);
    // Whoever asked waits for it. When it failed, the end of this thread ends what it has begun.
    if say.send(stopped).is_err() || stopped.is_err() {
        return;
    }
    // An error is the end of all senders: that is the release.
    let _ = released.recv();
    // The process may be gone.
    let _ = ptrace::detach(tid, None);
}

fn thread_of(pid: u32, name: &str) -> Result<Pid> {
    let tasks = format!("/proc/{pid}/task");
    for task in std::fs::read_dir(&tasks).with_context(|| tasks.clone())? {
        let task = task?;
        // A thread may have ended meanwhile.
        let called = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if called.trim_end() == name {
            let tid = task.file_name().to_string_lossy().parse().context("a thread's number")?;
            return Ok(Pid::from_raw(tid));
        }
    }
    anyhow::bail!("no thread of process {pid} is called {name:?}")
}

impl Drop for StoppedThread {
    fn drop(&mut self) {
        drop(self.release.take());
        if let Some(tracer) = self.tracer.take() {
            // It has nothing left to do but to let go.
            let _ = tracer.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;
    use std::os::fd::AsFd as _;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::{Process, wait_for};

    #[test]
    fn a_stopped_thread_stands_still_until_it_is_let_go() {
        if !nix::unistd::geteuid().is_root() {
            return crate::skip("tracing needs root");
        }
        // Another process, since nobody traces itself: this test again, as a program that counts aloud.
        if std::env::var_os("UMBRA_TEST_COUNTS").is_some() {
            return count_aloud();
        }
        let log = std::env::temp_dir().join(format!("umbra-thread-{}", std::process::id()));
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args([
            "--exact",
            "thread::tests::a_stopped_thread_stands_still_until_it_is_let_go",
            "--nocapture",
        ]);
        command.env("UMBRA_TEST_COUNTS", "1");
        let process = Process::start("counter", &command, &log).unwrap();
        let lines = |of: &str| process.log().unwrap().matches(of).count();
        let ceiling = Duration::from_secs(60);
        let more = |of: &str, than: usize| {
            wait_for(of, ceiling, || {
                anyhow::ensure!(lines(of) > than, "no more than {than}");
                Ok(())
            })
            .unwrap();
        };
        more("left", 0);
        more("right", 0);
        let stopped = stop_thread(process.id(), "left").unwrap();
        let before = lines("left");
        more("right", lines("right") + 10);
        assert_eq!(lines("left"), before, "the other has gone on meanwhile");
        drop(stopped);
        more("left", before);
        assert!(stop_thread(process.id(), "nobody").is_err());
    }

    fn count_aloud() {
        let turns = Arc::new(AtomicU64::new(0));
        let count = |name: &'static str| {
            let turns = Arc::clone(&turns);
            // Without a lock, of `stderr` or the allocator: who is stopped while it has it stops the other, too.
            let mut out = File::from(std::io::stderr().as_fd().try_clone_to_owned().unwrap());
            let line = format!("{name}\n");
            let work = move || {
                while turns.fetch_add(1, Ordering::Relaxed) < 100_000 {
                    out.write_all(line.as_bytes()).unwrap();
                    std::thread::sleep(Duration::from_millis(1));
                }
            };
            std::thread::Builder::new().name(name.into()).spawn(work).unwrap()
        };
        for thread in [count("left"), count("right")] {
            thread.join().unwrap();
        }
    }
}
