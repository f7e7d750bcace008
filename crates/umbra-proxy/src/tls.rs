//! The proxy's end of mutual TLS: who it is, and who may push to it.
//!
//! Takes: `ca.crt`, `proxy.crt`, `proxy.key` of one directory. Gives: a server that talks only to holders of a
//! certificate of that CA, and says whether one of them is the controller. Never trusts any other root.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::server::{ParsedCertificate, ServerConfig, WebPkiClientVerifier};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

/// The name that the controller's certificate carries (design: Names and ports).
const CONTROLLER: &str = "umbra-controller.umbra-system";

/// Why there is no TLS yet. The proxy tries again: the controller writes the files.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// Not there yet, or not readable.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: rustls_pki_types::pem::Error,
    },
    /// There, but of no use: the fault of who wrote it.
    #[error("{}: {what}", dir.display())]
    Unusable {
        /// Where.
        dir: PathBuf,
        /// Why.
        what: String,
    },
}

/// Reads the directory.
pub(crate) fn load(dir: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let unusable = |what: String| TlsError::Unusable { dir: dir.to_owned(), what };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&dir.join("ca.crt"))? {
        roots.add(certificate).map_err(|error| unusable(format!("ca.crt: {error}")))?;
    }
    let chain = certificates(&dir.join("proxy.crt"))?;
    let key_path = dir.join("proxy.key");
    let key = PrivateKeyDer::from_pem_file(&key_path)
        .map_err(|source| TlsError::File { path: key_path, source })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| unusable(format!("ca.crt: {error}")))?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| unusable(format!("proxy.crt, proxy.key: {error}")))?;
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |source| TlsError::File { path: path.to_owned(), source };
    CertificateDer::pem_file_iter(path).map_err(error)?.collect::<Result<_, _>>().map_err(error)
}

/// Whether a certificate that has been verified under our CA is the controller's.
pub(crate) fn is_controller(chain: Option<&[CertificateDer<'_>]>) -> bool {
    let Some(leaf) = chain.and_then(<[_]>::first) else { return false };
    let name = ServerName::try_from(CONTROLLER).expect("a DNS name");
    ParsedCertificate::try_from(leaf)
        .is_ok_and(|certificate| rustls::client::verify_server_name(&certificate, &name).is_ok())
}
