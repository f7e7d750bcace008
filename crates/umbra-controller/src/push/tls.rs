//! The controller's side of mutual TLS.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// PEM texts of the controller's identity.
#[derive(Clone)]
pub struct Identity {
    /// The CA that signs both ends.
    pub ca: String,
    /// The controller's certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// PEM texts that cannot be used. Delete the files or the Secret's data: they are made anew.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Not PEM, or not the kind of PEM.
    #[error("{what}: {source}")]
    Pem {
        /// Which text.
        what: &'static str,
        /// Why.
        source: rustls_pki_types::pem::Error,
    },
    /// Certificate and key do not belong together, or the CA is none.
    #[error("the controller's certificate: {0}")]
    Tls(#[from] rustls::Error),
}

/// Trusts this CA alone, and shows the controller's certificate.
///
/// # Errors
/// Texts that are not what their names say.
pub fn client_config(identity: &Identity) -> Result<Arc<ClientConfig>, IdentityError> {
    let pem = |what| move |source| IdentityError::Pem { what, source };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(identity.ca.as_bytes()).map_err(pem("ca.crt"))?)?;
    let certificates = CertificateDer::pem_slice_iter(identity.certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(pem("controller.crt"))?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).map_err(pem("controller.key"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates, key)?;
    Ok(Arc::new(config))
}
