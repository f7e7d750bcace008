//! The programs of this workspace, as cargo has built them beside the test.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

/// `umbra-controller`, `umbra-proxy`, `sa-logic` and so on, of the same build as this test (`target/debug/NAME`).
///
/// # Errors
/// When it has not been built.
pub fn program(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    // target/PROFILE/deps/TEST
    let folder = test.ancestors().nth(2).context("a test lies in target/PROFILE/deps")?;
    let path = folder.join(name);
    ensure!(path.exists(), "{} is not built: cargo build --workspace --bins", path.display());
    Ok(path)
}
