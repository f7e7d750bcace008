//! Network namespaces: something for a program or a thread to live in, deleted with its owner.

use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, setns};

/// Names start with this, then the id of the process that owns them.
const PREFIX: &str = "umbra-test-";

/// A network namespace with its loopback up. Dropping it deletes it, and every interface in it.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes one, after removing those that killed tests have left behind.
    ///
    /// # Errors
    /// Without root, or where the kernel has no network namespaces.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        if number == 0 {
            remove_leftovers()?;
        }
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        ip(&format!("netns add {name}"))?;
        let made = Self { name };
        made.ip("link set lo up")?;
        Ok(made)
    }

    /// Whether this process may make them. Where not, says that the test is skipped ([`crate::skip`]).
    pub fn available() -> bool {
        let root = nix::unistd::geteuid().is_root();
        if !root {
            crate::skip("network namespaces need root");
        }
        root
    }

    /// Its name, as `ip netns` lists it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `program`, to be run in it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        // Not `ip netns exec`, which also mounts a new /sys.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg("--").arg(program);
        command
    }

    /// Runs a command line (split at white space) in it and gives what it wrote.
    ///
    /// # Errors
    /// When it fails: with its error output.
    pub fn run(&self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().context("an empty command line")?);
        output(command.args(words))
    }

    /// `ip` in it.
    ///
    /// # Errors
    /// When it fails: with its error output.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        ip(&format!("-n {} {arguments}", self.name))
    }

    /// Loads a ruleset with nft.
    ///
    /// # Errors
    /// When nft refuses it: with its words.
    pub fn nft(&self, ruleset: &str) -> Result<()> {
        use std::io::Write as _;
        let mut child = self
            .command("nft")
            .args(["-f", "-"])
            .stdin(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()?;
        child.stdin.take().expect("piped above").write_all(ruleset.as_bytes())?;
        let done = child.wait_with_output()?;
        ensure!(done.status.success(), "nft: {}\n{ruleset}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    }

    /// Runs `work` on a thread that lives in it. Sockets made there belong to the namespace for good, wherever they are
    /// used afterwards: bind or connect inside, serve outside.
    ///
    /// # Errors
    /// Without root.
    ///
    /// # Panics
    /// When `work` does.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let path = format!("/run/netns/{}", self.name);
        let namespace = File::open(&path).with_context(|| path.clone())?;
        within(namespace, work).context(path)
    }
}

/// Runs `work` on a thread that lives in a network namespace.
pub(crate) fn within<T: Send>(namespace: File, work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let entered = scope.spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).context("entering the network namespace")?;
            Ok(work())
        });
        entered.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl Drop for Netns {
    fn drop(&mut self) {
        // One that cannot be deleted is removed by the next test process.
        let _ = ip(&format!("netns delete {}", self.name));
    }
}

/// `ip` in the namespace of this process.
///
/// # Errors
/// When it fails: with its error output.
pub(crate) fn ip(arguments: &str) -> Result<String> {
    output(Command::new("ip").args(arguments.split_whitespace()))
}

fn output(command: &mut Command) -> Result<String> {
    let done = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(done.status.success(), "{command:?}: {}\n{}", done.status, String::from_utf8_lossy(&done.stderr));
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

fn remove_leftovers() -> Result<()> {
    for line in ip("netns list")?.lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let Some(owner) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()) else { continue };
        if !std::path::Path::new("/proc").join(owner).exists() {
            ip(&format!("netns delete {name}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn sockets_made_within_belong_to_it() {
        if !Netns::available() {
            return;
        }
        let (one, other) = (Netns::new().unwrap(), Netns::new().unwrap());
        let listener = one.within(|| TcpListener::bind("127.0.0.1:80").unwrap()).unwrap();
        let mut client = one.within(|| TcpStream::connect("127.0.0.1:80").unwrap()).unwrap();
        client.write_all(b"x").unwrap();
        let mut byte = [0];
        listener.accept().unwrap().0.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
        assert!(other.within(|| TcpStream::connect("127.0.0.1:80").is_err()).unwrap());
    }

    #[test]
    fn is_deleted_on_drop() {
        if !Netns::available() {
            return;
        }
        let name = Netns::new().unwrap().name().to_owned();
        assert!(!ip("netns list").unwrap().lines().any(|line| line.starts_with(&name)));
    }
}
