//! The certificates as Secrets, in a cluster.
//!
//! The three Secrets are shipped without data, so that RBAC can name them (`create` cannot be limited by name) and
//! so that applying the manifests again keeps their contents. The CA is filled first; every write names the
//! resourceVersion it was made against, so that of two controllers one wins and the other reads again.

use std::collections::BTreeMap;
use std::time::SystemTime;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};

use super::{Leaf, Pair, TrustError, Trusted, check_leaf, make_ca, make_leaf};
use crate::lead::ANSWER_LIMIT;
use crate::push::Identity;

const CA: &str = "umbra-ca";

/// Completes the Secrets and reads them.
///
/// # Errors
/// A Secret is missing or may not be read or written, or the stored CA cannot sign.
pub async fn complete(api: &Api<Secret>, now: SystemTime) -> Result<Trusted, TrustError> {
    let ca = authority(api, now).await?;
    let controller = leaf_under(api, &ca, Leaf::Controller, now).await?;
    let proxy = leaf_under(api, &ca, Leaf::Proxy, now).await?.certificate;
    let identity = Identity { ca: ca.certificate, certificate: controller.certificate, key: controller.key };
    Ok(Trusted { identity, proxy })
}

async fn authority(api: &Api<Secret>, now: SystemTime) -> Result<Pair, TrustError> {
    loop {
        let secret = get(api, CA).await?;
        if let Some(ca) = pair(&secret, "ca") {
            return Ok(ca);
        }
        let ca = make_ca(now)?;
        if put(api, CA, secret, [("ca.crt", &ca.certificate), ("ca.key", &ca.key)].into()).await? {
            tracing::info!(secret = CA, "filled");
            return Ok(ca);
        }
    }
}

async fn leaf_under(api: &Api<Secret>, ca: &Pair, leaf: Leaf, now: SystemTime) -> Result<Pair, TrustError> {
    let name = secret_name(leaf);
    loop {
        let secret = get(api, name).await?;
        if let Some(stored) = pair(&secret, leaf.stem()) {
            match check_leaf(&ca.certificate, &stored, leaf, now) {
                Ok(()) if text(&secret, "ca.crt").as_deref() == Some(ca.certificate.as_str()) => {
                    return Ok(stored);
                }
                Ok(()) => tracing::warn!(secret = name, "its ca.crt is not the CA's; made anew"),
                Err(reason) => tracing::warn!(secret = name, %reason, "made anew"),
            }
        }
        let made = make_leaf(ca, leaf, now)?;
        let (crt, key) = (format!("{}.crt", leaf.stem()), format!("{}.key", leaf.stem()));
        let data =
            [("ca.crt", &ca.certificate), (crt.as_str(), &made.certificate), (key.as_str(), &made.key)];
        if put(api, name, secret, data.into()).await? {
            tracing::info!(secret = name, "filled");
            return Ok(made);
        }
    }
}

fn secret_name(leaf: Leaf) -> &'static str {
    match leaf {
        Leaf::Controller => "umbra-controller-tls",
        Leaf::Proxy => "umbra-proxy-tls",
    }
}

fn pair(secret: &Secret, stem: &str) -> Option<Pair> {
    let certificate = text(secret, &format!("{stem}.crt"))?;
    Some(Pair { certificate, key: text(secret, &format!("{stem}.key")).unwrap_or_default() })
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    let bytes = &secret.data.as_ref()?.get(key)?.0;
    String::from_utf8(bytes.clone()).ok().filter(|text| !text.is_empty())
}

async fn get(api: &Api<Secret>, name: &'static str) -> Result<Secret, TrustError> {
    loop {
        match tokio::time::timeout(ANSWER_LIMIT, api.get(name)).await {
            Ok(answer) => {
                return answer.map_err(|source| TrustError::Secret { name, source: Box::new(source) });
            }
            Err(error) => tracing::warn!(secret = name, %error, "the API server does not answer"),
        }
    }
}

/// False: somebody else wrote in between, or the API server has not answered; read again.
async fn put(
    api: &Api<Secret>,
    name: &'static str,
    mut secret: Secret,
    data: BTreeMap<&str, &String>,
) -> Result<bool, TrustError> {
    let held = secret.data.get_or_insert_default();
    held.extend(data.into_iter().map(|(key, text)| (key.to_owned(), ByteString(text.as_bytes().to_vec()))));
    match tokio::time::timeout(ANSWER_LIMIT, api.replace(name, &PostParams::default(), &secret)).await {
        Ok(Ok(_)) => Ok(true),
        Ok(Err(kube::Error::Api(status))) if status.is_conflict() => Ok(false),
        Err(error) => {
            tracing::warn!(secret = name, %error, "the API server does not answer");
            Ok(false)
        }
        Ok(Err(source)) => Err(TrustError::Secret { name, source: Box::new(source) }),
    }
}
