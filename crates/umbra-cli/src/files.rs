//! Manifests in files stand in for the API server.
//!
//! Takes: paths, as `-f` gives them. Gives: the same events that watches give, and problems that name file, line and
//! object. Never stops for a bad document: it harms only itself, and what was known of its object stays in force.

mod decode;
mod object;
mod world;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

pub use decode::{Decoded, Problem, decode};
pub use object::{Object, ObjectId, ObjectKind};
pub use world::{Changes, World};

/// File names that hold manifests, as `kubectl apply -f DIR` has it.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// The text of every file, or why it cannot be read.
pub type Texts = BTreeMap<PathBuf, Result<String, String>>;

/// Reads the files at `paths`; of a folder those directly in it, as kubectl does.
pub fn read(paths: &[PathBuf]) -> Texts {
    paths.iter().flat_map(|path| named(path)).map(|file| (file.clone(), text(&file))).collect()
}

/// A folder that cannot be listed stands for itself: reading it says why.
fn named(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return vec![path.to_owned()] };
    let files = entries.filter_map(Result::ok).map(|entry| entry.path());
    files.filter(|file| manifest(file) && file.is_file()).collect()
}

fn manifest(file: &Path) -> bool {
    file.extension().and_then(OsStr::to_str).is_some_and(|extension| EXTENSIONS.contains(&extension))
}

fn text(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| error.to_string())
}
