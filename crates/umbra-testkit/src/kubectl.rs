//! kubectl as people use it, with the API server's own words when it refuses.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::wait_for;

/// The root of this repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// One of the programs that `tests/cluster/tools.sh` builds: kubectl, kube-apiserver, etcd and so on.
///
/// # Errors
/// When it has not been built.
pub fn kubernetes_program(name: &str) -> Result<PathBuf> {
    let path = repository().join("target/cluster-tools/bin").join(name);
    if path.exists() { Ok(path) } else { bail!("{name} is not built: run tests/cluster/tools.sh") }
}

/// kubectl against one cluster.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// kubectl that uses this kubeconfig and nothing of the environment.
    ///
    /// # Errors
    /// When kubectl has not been built.
    pub fn new(kubeconfig: &Path) -> Result<Self> {
        Ok(Self { program: kubernetes_program("kubectl")?, kubeconfig: kubeconfig.to_owned() })
    }

    /// The kubeconfig it uses.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The bare command, for those who want to keep it running.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        command
    }

    /// Runs it and gives what it wrote.
    ///
    /// # Errors
    /// When it fails: its command line and its error output.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        self.run_with_input(arguments, "")
    }

    /// `kubectl apply -f -` of these documents.
    ///
    /// # Errors
    /// When the API server refuses one: its words.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        self.run_with_input(&["apply", "-f", "-"], yaml)
    }

    /// `kubectl create -f -` of these documents, which must be new: one request for each, so that many are made soon.
    /// The API server checks them; kubectl does not.
    ///
    /// # Errors
    /// When the API server refuses one: its words.
    pub fn create(&self, yaml: &str) -> Result<()> {
        self.run_with_input(&["create", "--validate=false", "-f", "-"], yaml).map(drop)
    }

    /// Writes the status of these objects, as whoever owns it would.
    ///
    /// # Errors
    /// When the API server refuses one: its words.
    pub fn apply_status(&self, yaml: &str) -> Result<()> {
        let line = ["apply", "--server-side", "--force-conflicts", "--subresource=status", "-f", "-"];
        self.run_with_input(&line, yaml).map(drop)
    }

    /// `kubectl delete -f -` of these documents, which may be gone already.
    ///
    /// # Errors
    /// When the API server refuses.
    pub fn delete(&self, yaml: &str) -> Result<String> {
        self.run_with_input(&["delete", "--ignore-not-found", "-f", "-"], yaml)
    }

    /// `kubectl get ... -o json`.
    ///
    /// # Errors
    /// When the object is not there or the API server refuses.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.run(&[&["get", "-o", "json"], arguments].concat())?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Waits until `kubectl wait` agrees, also while the object is not there yet.
    ///
    /// # Errors
    /// When it does not within `ceiling`.
    pub fn wait(&self, condition: &str, arguments: &[&str], ceiling: Duration) -> Result<()> {
        let awaited = format!("--for={condition}");
        wait_for(&format!("kubectl wait {awaited} {}", arguments.join(" ")), ceiling, || {
            self.run(&[&["wait", &awaited, "--timeout=0s"], arguments].concat()).map(drop)
        })
    }

    /// kubectl with this on its standard input.
    ///
    /// # Errors
    /// When it fails: its command line and error output.
    pub fn run_with_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{}", self.program.display()))?;
        // kubectl reads all of its input before it writes, so neither end can block on the other; and one that ends
        // without reading says why on its error output.
        let _ = child.stdin.take().expect("piped above").write_all(input.as_bytes());
        let output = child.wait_with_output()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        bail!(
            "kubectl {}: {}\n{}{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout)
        )
    }
}
