//! Encryption towards the endpoints: which fields go with which mode.

use super::actions;
use super::problem::Field;
use crate::ClientTlsSettings;
use crate::words::TLS_MODES;

/// `selected`: the DestinationRule has a workloadSelector, without which a Secret cannot be found by clients.
pub(super) fn check(tls: &ClientTlsSettings, selected: bool, field: &mut Field<'_>) {
    actions::one_of(tls.mode.as_deref(), &TLS_MODES, "mode", field);
    match tls.mode.as_deref().unwrap_or("DISABLE") {
        "MUTUAL" => mutual(tls, field),
        "ISTIO_MUTUAL" => none_of(&files(tls), "ISTIO_MUTUAL", field),
        "SIMPLE" => {}
        _ => without_effect(tls, field),
    }
    if given(&tls.credential_name) {
        none_of(&files(tls)[..3], "credentialName", field);
        if !selected {
            field.at("credentialName").warn("is used only with a workloadSelector; add one, or use files");
        }
    }
    let checks = given(&tls.ca_certificates) || !tls.subject_alt_names.is_empty();
    if tls.insecure_skip_verify == Some(true) && checks {
        field.at("insecureSkipVerify").error(
            "cannot be true beside caCertificates or subjectAltNames, which ask for a check; keep one",
        );
    }
}

fn given(text: &Option<String>) -> bool {
    text.as_ref().is_some_and(|text| !text.is_empty())
}

type Given = (&'static str, bool);

fn files(tls: &ClientTlsSettings) -> [Given; 4] {
    [
        ("clientCertificate", given(&tls.client_certificate)),
        ("privateKey", given(&tls.private_key)),
        ("caCertificates", given(&tls.ca_certificates)),
        ("caCrl", given(&tls.ca_crl)),
    ]
}

/// Istio takes them, too.
fn without_effect(tls: &ClientTlsSettings, field: &mut Field<'_>) {
    let others = [("credentialName", given(&tls.credential_name)), ("sni", given(&tls.sni))];
    for (name, _) in files(tls).into_iter().chain(others).filter(|(_, given)| *given) {
        field.at(name).warn("has no effect with mode DISABLE; choose another mode, or remove it");
    }
}

fn none_of(fields: &[Given], with: &str, field: &mut Field<'_>) {
    for (name, _) in fields.iter().filter(|(_, given)| *given) {
        field.at(name).error(format!("cannot be set with {with}; remove it"));
    }
}

fn mutual(tls: &ClientTlsSettings, field: &mut Field<'_>) {
    if given(&tls.credential_name) {
        return;
    }
    for (name, text) in [("clientCertificate", &tls.client_certificate), ("privateKey", &tls.private_key)] {
        if !given(text) {
            field
                .at(name)
                .error("is missing; required for mutual tls: name a file, or a Secret in credentialName");
        }
    }
}
