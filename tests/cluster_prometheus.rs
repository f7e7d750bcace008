//! A real Prometheus that scrapes every proxy, and answers the article's question.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use umbra_testkit::{CEILING, Process, claim_address, http, wait_for};

/// A Prometheus of one test. Dropping it ends it and removes its data.
pub(crate) struct Prometheus {
    _process: Process,
    address: SocketAddr,
    dir: PathBuf,
}

impl Prometheus {
    /// Whether this machine has one; CI has.
    pub(crate) fn is_installed() -> bool {
        Command::new("prometheus").arg("--version").output().is_ok_and(|done| done.status.success())
    }

    /// One that scrapes these addresses every second, and has scraped each of them.
    pub(crate) fn start(targets: &[SocketAddr]) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("umbra-prometheus-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let targets: Vec<String> = targets.iter().map(|target| format!("\"{target}\"")).collect();
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
             scrape_configs: [{{job_name: umbra, static_configs: [{{targets: [{}]}}]}}]\n",
            targets.join(", ")
        );
        std::fs::write(dir.join("prometheus.yml"), config)?;
        let address = claim_address()?;
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address={address}"));
        let process = Process::start("prometheus", &command, &dir.join("log"))?;
        let started = Self { _process: process, address, dir };
        let wanted = targets.len() as f64;
        wait_for("Prometheus has scraped every proxy", CEILING, || {
            let up = started.query("sum(up)")?;
            ensure!(up >= Some(wanted), "{up:?} of {wanted} targets are up");
            Ok(())
        })?;
        Ok(started)
    }

    /// The value of a query that gives one; `None` when it gives nothing.
    pub(crate) fn query(&self, query: &str) -> Result<Option<f64>> {
        let path = format!("/api/v1/query?query={}", encoded(query));
        let answer: Value = serde_json::from_str(&http::get(self.address, &path)?)?;
        let result = answer["data"]["result"].as_array().with_context(|| answer.to_string())?;
        ensure!(result.len() <= 1, "{query} gives several values: {answer}");
        let value = result.first().and_then(|one| one["value"][1].as_str());
        Ok(value.map(str::parse).transpose()?)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // What it still writes lies in the temporary folder: no reason to fail a test.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Percent-encoded for a query string.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
