//! Programs that tests start: their output is kept, and they end with the test, however it ends.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait_for;

/// A running program. Dropping it kills it; when a test fails, its last lines are printed.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `command` with its output in the file `log`.
    ///
    /// # Errors
    /// When the log cannot be made or the program cannot be started.
    pub fn start(name: &str, command: &Command, log: &Path) -> Result<Self> {
        let output = File::create(log).with_context(|| format!("{}", log.display()))?;
        let mut mortal = dies_with_parent(command);
        mortal.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = spawn_from_keeper(mortal).with_context(|| format!("{name}: {command:?}"))?;
        Ok(Self { name: name.to_owned(), log: log.to_owned(), child })
    }

    /// The process id: also the program's own, because what starts it replaces itself with it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has written so far.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log(&self) -> Result<String> {
        let bytes = std::fs::read(&self.log).with_context(|| format!("{}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// When it has not ended within `ceiling`.
    pub fn terminate(&mut self, ceiling: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(ceiling)
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Stops it where it is (SIGSTOP): a hang.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it has not ended within `ceiling`.
    pub fn wait(&mut self, ceiling: Duration) -> Result<ExitStatus> {
        let what = format!("{} ends", self.name);
        let child = &mut self.child;
        wait_for(&what, ceiling, || child.try_wait()?.context("it runs"))
    }

    /// Fails, with its last lines, when it has ended: for probes that would otherwise wait for a dead program.
    ///
    /// # Errors
    /// When it has ended.
    pub fn alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => anyhow::bail!("{} has ended: {status}\n{}", self.name, self.last_lines()),
        }
    }

    /// Sends a signal, and does not wait for what it does.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("a process id fits pid_t")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("{signal} to {}", self.name))
    }

    /// The end of what it has written, for whoever reads a failed test.
    pub fn last_lines(&self) -> String {
        let log = self.log().unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already: nothing to do about that.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}, last lines of {}\n{}", self.name, self.log.display(), self.last_lines());
        }
    }
}

/// The same command, killed by the kernel when its parent dies: a test that is killed leaves nothing behind.
fn dies_with_parent(command: &Command) -> Command {
    let mut mortal = Command::new("setpriv");
    mortal.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => mortal.env(name, value),
            None => mortal.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        mortal.current_dir(dir);
    }
    mortal
}

type Order = (Command, Sender<io::Result<Child>>);

/// Spawns from a thread that lives as long as this process: for the kernel, the parent is the thread that forked,
/// and a test's own thread ends before the statics that other tests share.
fn spawn_from_keeper(command: Command) -> Result<Child> {
    static KEEPER: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (orders, inbox) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in inbox {
                // Nobody waits for the reply only when the test is unwinding; the child is dropped, and killed at exit.
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (reply, answer) = channel();
    keeper
        .lock()
        .expect("no thread panics while it sends")
        .send((command, reply))
        .context("the keeper lives as long as the process")?;
    Ok(answer.recv().context("the keeper answers every order")??)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        let log = std::env::temp_dir().join(format!("umbra-process-{}-{}", std::process::id(), script.len()));
        Process::start("shell", Command::new("sh").args(["-c", script]), &log).unwrap()
    }

    #[test]
    fn keeps_the_output() {
        let mut process = shell("echo one; echo two >&2");
        assert!(process.wait(Duration::from_secs(60)).unwrap().success());
        assert_eq!(process.log().unwrap(), "one\ntwo\n");
    }

    #[test]
    fn outlives_the_thread_that_started_it() {
        let mut process = std::thread::spawn(|| shell("exec sleep 1000")).join().unwrap();
        process.alive().unwrap();
        assert!(!process.terminate(Duration::from_secs(60)).unwrap().success());
        assert!(process.alive().is_err());
    }
}
