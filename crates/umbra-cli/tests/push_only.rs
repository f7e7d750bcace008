//! `umbra up` never applies a table but by the push API: it cannot even name what tables are made of.

#![allow(clippy::unwrap_used, reason = "a test that cannot set its stage fails")]

use std::path::Path;

/// What would reach a proxy's tables past its push API.
const PAST_THE_API: [&str; 6] = [
    "umbra_routing",
    "umbra_proxy::tables",
    "umbra_proxy::worker",
    "umbra_compile::service",
    "Tables",
    "Config::",
];

#[test]
fn no_source_names_tables() {
    let mut read = 0;
    visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/up"), &mut |file, text| {
        read += 1;
        for word in PAST_THE_API {
            assert!(!text.contains(word), "{}: names {word}", file.display());
        }
    });
    assert!(read > 3, "the sources were not found");
}

fn visit(folder: &Path, seen: &mut impl FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, seen);
        } else {
            seen(&path, &std::fs::read_to_string(&path).unwrap());
        }
    }
}
