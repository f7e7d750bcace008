//! Network namespaces for tests; gone with their values.

use std::process::Command;

/// Whether namespaces can be made here, and `programs` are there; what is missing was said aloud.
pub(crate) fn available(programs: &[&str]) -> Option<()> {
    let root = Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout == b"0\n");
    let has = |program: &&str| {
        Command::new("sh")
            .args(["-c", &format!("command -v {program}")])
            .output()
            .is_ok_and(|out| out.status.success())
    };
    let missing = match programs.iter().chain(&["ip"]).find(|program| !has(program)) {
        None if root => return Some(()),
        None => "root".to_owned(),
        Some(program) => format!("the program `{program}`"),
    };
    assert!(std::env::var_os("CI").is_none(), "cannot run in CI without {missing}");
    eprintln!("skipped: needs {missing}");
    None
}

/// A network namespace.
pub(crate) struct Namespace(String);

impl Namespace {
    /// A new one; names of different tests must differ.
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("umbra-{}-{name}", std::process::id());
        run("ip", &["netns", "add", &name]);
        let namespace = Self(name);
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    /// As `ip netns` knows it.
    #[allow(dead_code, reason = "each test program uses its part")]
    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// A program inside, not started yet.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]);
        command
    }

    /// The standard output of a program inside that must succeed.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> String {
        let mut all = vec!["netns", "exec", &self.0, program];
        all.extend(arguments);
        run("ip", &all)
    }

    /// `ip` inside.
    pub(crate) fn ip(&self, arguments: &[&str]) {
        let mut all = vec!["-n", &self.0];
        all.extend(arguments);
        run("ip", &all);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _gone = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// The standard output of a program that must succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let out = Command::new(program).args(arguments).output().expect(program);
    assert!(out.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}
