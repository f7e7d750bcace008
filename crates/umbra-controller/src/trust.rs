//! The push channel's certificates: a CA of our own, one leaf for the controller, one for all proxies.
//!
//! Takes: the PEM texts that are stored (files of `--tls-dir`, or Secrets). Gives: the same texts, completed.
//! Never replaces a CA that is there, nor a leaf that verifies under it.

pub mod files;
pub mod secrets;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, crypto::CryptoProvider, sign::CertifiedKey};

use crate::metrics::{CertificateLabels, Metrics};
use crate::push::{Identity, PROXY_NAME};

/// The name the controller's certificate carries; proxies take configuration from no other.
pub const CONTROLLER_NAME: &str = "umbra-controller.umbra-system";

/// Leaves live a year: rotation is not there yet, and an expiry metric is.
const LEAF_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// The CA outlives ten leaves.
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Clocks of nodes may be this far behind.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// A certificate and its key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// `*.crt`
    pub certificate: String,
    /// `*.key`
    pub key: String,
}

/// Everything that is stored, completed.
pub struct Trusted {
    /// The controller's own part.
    pub identity: Identity,
    /// The proxies' certificate, for its expiry.
    pub proxy: String,
}

/// Which end a leaf is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
    /// The pushing end, a TLS client.
    Controller,
    /// The receiving end, a TLS server; all proxies share it.
    Proxy,
}

/// Certificates that cannot be made or kept.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The stored CA is not usable. Whoever put it there has to replace or delete it.
    #[error("the stored CA (ca.crt, ca.key) cannot be used: {0}; delete it to have a new one made")]
    Ca(String),
    /// A certificate could not be made. A bug, or no randomness.
    #[error("making a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// The directory of `--tls-dir`. Its owner must let the controller read and write there.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The API server, or RBAC for the Secret.
    #[error("secret {name}: {source}")]
    Secret {
        /// Which Secret.
        name: &'static str,
        /// Why.
        source: Box<kube::Error>,
    },
}

impl Leaf {
    /// The name in the certificate.
    pub fn name(self) -> &'static str {
        match self {
            Self::Controller => CONTROLLER_NAME,
            Self::Proxy => PROXY_NAME,
        }
    }

    /// The stem of its files and data keys.
    pub fn stem(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Proxy => "proxy",
        }
    }
}

/// A new CA.
///
/// # Errors
/// See [`TrustError::Make`].
pub fn make_ca(now: SystemTime) -> Result<Pair, TrustError> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name.push(DnType::CommonName, "umbra-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params, now, CA_LIFE);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A new leaf under `ca`.
///
/// # Errors
/// The CA cannot be used, or see [`TrustError::Make`].
pub fn make_leaf(ca: &Pair, leaf: Leaf, now: SystemTime) -> Result<Pair, TrustError> {
    let bad = |error: rcgen::Error| TrustError::Ca(error.to_string());
    let issuer =
        Issuer::from_ca_cert_pem(&ca.certificate, KeyPair::from_pem(&ca.key).map_err(bad)?).map_err(bad)?;
    let mut params = CertificateParams::new(vec![leaf.name().to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, leaf.name());
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match leaf {
        Leaf::Controller => ExtendedKeyUsagePurpose::ClientAuth,
        Leaf::Proxy => ExtendedKeyUsagePurpose::ServerAuth,
    }];
    valid(&mut params, now, LEAF_LIFE);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn valid(params: &mut CertificateParams, now: SystemTime, life: Duration) {
    let since_1970 = now.duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    let start = rcgen::date_time_ymd(1970, 1, 1) + since_1970;
    params.not_before = start - CLOCK_SKEW;
    params.not_after = start + life;
}

/// Says why `pair` is not a leaf of that kind under the CA certificate `ca` at `now`.
///
/// # Errors
/// The reason, for a log.
pub fn check_leaf(ca: &str, pair: &Pair, leaf: Leaf, now: SystemTime) -> Result<(), String> {
    let text = |error: rustls::pki_types::pem::Error| error.to_string();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificate = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).map_err(text)?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(text)?;
    CertifiedKey::from_der(vec![certificate.clone()], key, &provider).map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(ca.as_bytes()).map_err(text)?;
    roots.add(ca).map_err(|error| error.to_string())?;
    let since_1970 = now.duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?;
    let now = UnixTime::since_unix_epoch(since_1970);
    verify(Arc::new(roots), provider, &certificate, leaf, now)
}

fn verify(
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    certificate: &CertificateDer<'_>,
    leaf: Leaf,
    now: UnixTime,
) -> Result<(), String> {
    match leaf {
        Leaf::Controller => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            let verifier = verifier.map_err(|error| error.to_string())?;
            verifier.verify_client_cert(certificate, &[], now).map_err(|error| error.to_string())?;
        }
        Leaf::Proxy => {
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
            let verifier = verifier.map_err(|error| error.to_string())?;
            let name = ServerName::try_from(PROXY_NAME).expect("a DNS name");
            let verified = verifier.verify_server_cert(certificate, &[], &name, &[], now);
            verified.map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// Publishes when a certificate ends, so that an alert can come before.
pub fn record_expiry(metrics: &Metrics, certificate: &str, pem: &str) {
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(pem.as_bytes()) else { return };
    let Ok(parsed) = pem.parse_x509() else { return };
    let labels = CertificateLabels { certificate: certificate.to_owned() };
    metrics.certificate_expiry.get_or_create(&labels).set(parsed.validity().not_after.timestamp());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_verifies_under_its_own_ca_only_and_for_a_year() {
        let now = SystemTime::now();
        let (ca, other) = (make_ca(now).unwrap(), make_ca(now).unwrap());
        for leaf in [Leaf::Controller, Leaf::Proxy] {
            let pair = make_leaf(&ca, leaf, now).unwrap();
            check_leaf(&ca.certificate, &pair, leaf, now).unwrap();
            check_leaf(&ca.certificate, &pair, leaf, now - Duration::from_secs(3000)).unwrap();
            check_leaf(&other.certificate, &pair, leaf, now).unwrap_err();
            check_leaf(&ca.certificate, &pair, leaf, now + Duration::from_secs(366 * 24 * 3600)).unwrap_err();
            let mixed = Pair { key: make_leaf(&ca, leaf, now).unwrap().key, ..pair };
            check_leaf(&ca.certificate, &mixed, leaf, now).unwrap_err();
        }
        let proxy = make_leaf(&ca, Leaf::Proxy, now).unwrap();
        check_leaf(&ca.certificate, &proxy, Leaf::Controller, now)
            .expect_err("a proxy cannot pose as the controller");
    }

    #[test]
    fn the_expiry_is_published() {
        let (metrics, now) = (Metrics::default(), SystemTime::now());
        record_expiry(&metrics, "ca", &make_ca(now).unwrap().certificate);
        let labels = CertificateLabels { certificate: "ca".into() };
        let end = metrics.certificate_expiry.get_or_create(&labels).get();
        let expected = (now.duration_since(UNIX_EPOCH).unwrap() + CA_LIFE).as_secs();
        assert_eq!(end.unsigned_abs(), expected);
    }
}
