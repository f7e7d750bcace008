//! Writes the files of `crds/` from the types.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds");
    std::fs::create_dir_all(&folder)?;
    for file in umbra_api::crd::files() {
        std::fs::write(folder.join(file.name), file.text)?;
    }
    Ok(())
}
