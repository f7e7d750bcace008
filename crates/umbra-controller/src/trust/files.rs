//! `--tls-dir`: the certificates as files, for programs run by hand.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

use super::{Leaf, Pair, TrustError, Trusted, check_leaf, make_ca, make_leaf};
use crate::push::Identity;

/// Completes `dir` (`ca`, `controller` and `proxy`, each `.crt` and `.key`) and reads it.
///
/// # Errors
/// The directory cannot be read or written, or holds a CA that cannot sign.
pub fn complete(dir: &Path, now: SystemTime) -> Result<Trusted, TrustError> {
    fs::create_dir_all(dir).map_err(|source| TrustError::File { path: dir.display().to_string(), source })?;
    let ca = match read_pair(dir, "ca")? {
        Some(ca) => ca,
        None => write_pair(dir, "ca", make_ca(now)?)?,
    };
    let controller = leaf_under(dir, &ca, Leaf::Controller, now)?;
    let proxy = leaf_under(dir, &ca, Leaf::Proxy, now)?.certificate;
    let identity = Identity { ca: ca.certificate, certificate: controller.certificate, key: controller.key };
    Ok(Trusted { identity, proxy })
}

fn leaf_under(dir: &Path, ca: &Pair, leaf: Leaf, now: SystemTime) -> Result<Pair, TrustError> {
    if let Some(pair) = read_pair(dir, leaf.stem())? {
        match check_leaf(&ca.certificate, &pair, leaf, now) {
            Ok(()) => return Ok(pair),
            Err(reason) => tracing::warn!(certificate = leaf.stem(), %reason, "made anew"),
        }
    }
    write_pair(dir, leaf.stem(), make_leaf(ca, leaf, now)?)
}

/// `None` when the certificate is not there. A CA certificate without its key reads with an empty key: good enough
/// as long as no leaf is missing.
fn read_pair(dir: &Path, stem: &str) -> Result<Option<Pair>, TrustError> {
    let certificate = read(dir, stem, "crt")?;
    let key = read(dir, stem, "key")?.unwrap_or_default();
    Ok(certificate.map(|certificate| Pair { certificate, key }))
}

fn read(dir: &Path, stem: &str, extension: &str) -> Result<Option<String>, TrustError> {
    let path = dir.join(stem).with_extension(extension);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TrustError::File { path: path.display().to_string(), source }),
    }
}

/// The key first: a proxy that waits for the certificate then finds both.
fn write_pair(dir: &Path, stem: &str, pair: Pair) -> Result<Pair, TrustError> {
    write(&dir.join(stem).with_extension("key"), &pair.key)?;
    write(&dir.join(stem).with_extension("crt"), &pair.certificate)?;
    Ok(pair)
}

/// Whole or not at all, and for the owner only.
fn write(path: &Path, text: &str) -> Result<(), TrustError> {
    let temporary = path.with_extension("new");
    let written = (|| {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&temporary, path)
    })();
    written.map_err(|source| TrustError::File { path: path.display().to_string(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::push::client_config;

    fn scratch(name: &str) -> std::path::PathBuf {
        let dir = std::env::temp_dir().join(format!("umbra-trust-{name}-{}", std::process::id()));
        fs::remove_dir_all(&dir).ok();
        dir
    }

    #[test]
    fn missing_files_are_written_once() {
        let dir = scratch("once");
        let first = complete(&dir, SystemTime::now()).unwrap().identity;
        client_config(&first).unwrap();
        for name in ["ca.crt", "ca.key", "controller.crt", "controller.key", "proxy.crt", "proxy.key"] {
            assert_eq!(fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        }
        let second = complete(&dir, SystemTime::now()).unwrap().identity;
        assert!(first.certificate == second.certificate && first.ca == second.ca);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_leaf_of_another_ca_is_made_anew() {
        let dir = scratch("anew");
        complete(&dir, SystemTime::now()).unwrap();
        let proxy = fs::read_to_string(dir.join("proxy.crt")).unwrap();
        fs::remove_file(dir.join("ca.crt")).unwrap();
        let identity = complete(&dir, SystemTime::now()).unwrap().identity;
        client_config(&identity).unwrap();
        let new = read_pair(&dir, "proxy").unwrap().unwrap();
        assert_ne!(new.certificate, proxy);
        check_leaf(&identity.ca, &new, Leaf::Proxy, SystemTime::now()).unwrap();
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_ca_without_its_key_serves_until_a_leaf_is_missing() {
        let dir = scratch("keyless");
        complete(&dir, SystemTime::now()).unwrap();
        fs::remove_file(dir.join("ca.key")).unwrap();
        complete(&dir, SystemTime::now()).unwrap();
        fs::remove_file(dir.join("proxy.crt")).unwrap();
        assert!(matches!(complete(&dir, SystemTime::now()), Err(TrustError::Ca(_))));
        fs::remove_dir_all(dir).unwrap();
    }
}
