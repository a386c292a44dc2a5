//! The certificates of HTTPS listeners: in the gateway's files, or in the Secrets that a listener names.

use waypost::provider::kubernetes::objects::ObjectKey;

use super::Settings;
use super::conditions::Problem;
use super::objects::{CertificateRef, Gateway, ListenerTls, Objects};
use super::secrets::Secrets;
use crate::server_tls::ListenerCertificates;

/// The TLS option of a listener whose certificates are in the gateway's files. Its value is `files`.
const CERTIFICATES_OPTION: &str = "waypost.dev/certificates";

/// The certificates of a listener.
pub(super) struct ResolvedTls {
    pub(super) certificates: ListenerCertificates,
    /// The Secrets that have to be read.
    pub(super) secrets: Vec<ObjectKey>,
    /// Why references can't be resolved, or their Secrets can't be used at the moment.
    pub(super) unresolved: Option<Problem>,
    /// Whether a Secret has not been read yet.
    pub(super) is_pending: bool,
}

impl ResolvedTls {
    fn of_files() -> Self {
        Self {
            certificates: ListenerCertificates::Files,
            secrets: Vec::new(),
            unresolved: None,
            is_pending: false,
        }
    }

    /// Whether clients can connect.
    pub(super) fn is_usable(&self) -> bool {
        match &self.certificates {
            ListenerCertificates::Files => true,
            ListenerCertificates::Own(keys) => !keys.is_empty(),
        }
    }
}

/// What is needed to find the certificates of a listener.
#[derive(Clone, Copy)]
pub(super) struct CertificateSources<'a> {
    pub(super) objects: &'a Objects,
    pub(super) secrets: &'a Secrets,
    pub(super) settings: &'a Settings,
}

impl CertificateSources<'_> {
    /// The certificates of a listener of this Gateway.
    ///
    /// # Errors
    /// Which of its TLS settings isn't supported.
    pub(super) fn resolve(
        &self,
        gateway: &Gateway,
        tls: Option<&ListenerTls>,
    ) -> Result<ResolvedTls, &'static str> {
        let default = ListenerTls::default();
        let tls = tls.unwrap_or(&default);
        if tls.mode.as_deref().is_some_and(|mode| mode != "Terminate") {
            return Err("only the TLS mode Terminate is supported");
        }
        if tls.frontend_validation.is_some() {
            return Err("frontendValidation is not supported");
        }
        if tls.options.keys().any(|name| name != CERTIFICATES_OPTION) {
            return Err("the only TLS option is waypost.dev/certificates");
        }
        let option = tls.options.get(CERTIFICATES_OPTION).map(String::as_str);
        match (option, tls.certificate_refs.as_slice()) {
            (None, []) => Err("certificateRefs must name a Secret with the certificate"),
            (None, references) => Ok(self.of_secrets(gateway, references)),
            (Some("files"), []) if self.settings.has_files => Ok(ResolvedTls::of_files()),
            (Some("files"), []) => Err(
                "the gateway has no certificates in files (--tls-cert); certificateRefs must name a Secret",
            ),
            (Some("files"), _) => Err(
                "the option waypost.dev/certificates: files can't be combined with certificateRefs",
            ),
            (Some(_), _) => Err("the only value of waypost.dev/certificates is files"),
        }
    }

    fn of_secrets(&self, gateway: &Gateway, references: &[CertificateRef]) -> ResolvedTls {
        let (mut keys, mut secrets, mut problems) = (Vec::new(), Vec::new(), Vec::new());
        let mut is_pending = false;
        for reference in references {
            let key = match self.secret_key(gateway, reference) {
                Ok(key) => key,
                Err(problem) => {
                    problems.push(problem);
                    continue;
                }
            };
            match self.secrets.get(&key) {
                None => {
                    is_pending = true;
                    let message = format!("Secret {key} has not been read yet");
                    problems.push(Problem::new("InvalidCertificateRef", message));
                }
                Some(secret) => {
                    keys.extend(secret.certificate.clone());
                    problems.extend(secret.explanation().map(|explanation| {
                        let message = format!("Secret {key} {explanation}");
                        Problem::new("InvalidCertificateRef", message)
                    }));
                }
            }
            secrets.push(key);
        }
        ResolvedTls {
            certificates: ListenerCertificates::Own(keys),
            secrets,
            unresolved: Problem::join(problems),
            is_pending,
        }
    }

    /// The Secret of a reference, if the reference is valid and allowed.
    fn secret_key(
        &self,
        gateway: &Gateway,
        reference: &CertificateRef,
    ) -> Result<ObjectKey, Problem> {
        let invalid = |message| Problem::new("InvalidCertificateRef", message);
        let group = reference.group.as_deref().unwrap_or_default();
        let kind = reference.kind.as_deref().unwrap_or("Secret");
        let name = reference.name.as_str();
        if (group, kind) != ("", "Secret") {
            let kind = if group.is_empty() {
                kind.to_owned()
            } else {
                format!("{kind}.{group}")
            };
            return Err(invalid(format!(
                "certificateRef {name:?} is a {kind:?}; only Secrets are supported"
            )));
        }
        let own = gateway.metadata.namespace.as_str();
        let namespace = reference.namespace.as_deref().unwrap_or(own);
        // Both become part of a URL.
        if let Some(wrong) = [namespace, name].into_iter().find(|it| !is_name(it)) {
            return Err(invalid(format!("{wrong:?} is no name of a Secret")));
        }
        let (from, to) = (("Gateway", own), ("Secret", namespace, name));
        if namespace != own && !self.objects.is_granted(from, to) {
            let message = format!(
                "no ReferenceGrant in namespace {namespace} allows Gateways of namespace {own} to use Secret \
                 {name}"
            );
            return Err(Problem::new("RefNotPermitted", message));
        }
        Ok(ObjectKey::new(namespace, name))
    }
}

/// Whether this is a valid name of an object or a namespace: a DNS subdomain (RFC 1123).
fn is_name(name: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_label = |label: &str| {
        label.starts_with(is_inner)
            && label.ends_with(is_inner)
            && label.chars().all(|c| is_inner(c) || c == '-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_objects_are_dns_subdomains() {
        for name in ["a", "a-b.c1", "1", "a--b", &"a".repeat(253)] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "",
            ".",
            "a.",
            ".a",
            "-a",
            "a-",
            "a.-b",
            "A",
            "a_b",
            "a/b",
            "../a",
            "\u{e9}",
            &"a".repeat(254),
        ] {
            assert!(!is_name(name), "{name}");
        }
    }
}
