//! TLS to an agent: which certificates to trust, and which one to present.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use waypost_core::ConfigError;

/// The TLS options of a provider.
#[derive(Clone, Debug, Default)]
pub(super) struct TlsOptions {
    pub(super) ca_file: Option<PathBuf>,
    pub(super) ca_folder: Option<PathBuf>,
    /// The certificate to present, for mutual TLS.
    pub(super) client_cert: Option<PathBuf>,
    pub(super) client_key: Option<PathBuf>,
    /// The name to expect in the agent's certificate, if it isn't the host of the address.
    pub(super) server_name: Option<String>,
    pub(super) skip_verify: bool,
}

impl TlsOptions {
    /// The configuration of a client. Without CA options, the system's CAs are trusted.
    pub(super) fn config(&self) -> Result<ClientConfig, ConfigError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|cause| setup_error(&cause))?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier(provider)?);
        match (&self.client_cert, &self.client_key) {
            (None, None) => Ok(builder.with_no_client_auth()),
            (Some(cert), Some(key)) => {
                let chain = certificates(cert)?;
                let private = PrivateKeyDer::from_pem_file(key)
                    .map_err(|cause| file_error(key, pem_problem("private key", &cause)))?;
                builder
                    .with_client_auth_cert(chain, private)
                    .map_err(|cause| file_error(cert, format!("does not match its key: {cause}")))
            }
            (Some(_), None) => Err(ConfigError::new(
                "CONSUL_CLIENT_KEY",
                "is not set; a client certificate needs its key",
            )),
            (None, Some(_)) => Err(ConfigError::new(
                "CONSUL_CLIENT_CERT",
                "is not set; a client key needs its certificate",
            )),
        }
    }

    fn verifier(
        &self,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, ConfigError> {
        if self.skip_verify {
            let rule = Rule::Any;
            return Ok(Arc::new(Verifier { provider, rule }));
        }
        let roots = self.roots()?;
        let inner: Arc<dyn ServerCertVerifier> = if roots.is_empty() {
            let verifier = rustls_platform_verifier::Verifier::new(Arc::clone(&provider));
            Arc::new(verifier.map_err(|cause| setup_error(&cause))?)
        } else {
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|cause| setup_error(&cause))?
        };
        let Some(name) = &self.server_name else {
            return Ok(inner);
        };
        let expected = ServerName::try_from(name.clone()).map_err(|_| {
            ConfigError::new(
                "CONSUL_TLS_SERVER_NAME",
                format!("{name:?} is not a DNS name or IP address"),
            )
        })?;
        let rule = Rule::OtherName(inner, expected);
        Ok(Arc::new(Verifier { provider, rule }))
    }

    /// The CAs of the file and the folder.
    fn roots(&self) -> Result<RootCertStore, ConfigError> {
        let mut roots = RootCertStore::empty();
        let mut add = |path: &Path| {
            for certificate in certificates(path)? {
                let added = roots.add(certificate);
                added.map_err(|cause| {
                    file_error(
                        path,
                        format!("contains an unusable CA certificate: {cause}"),
                    )
                })?;
            }
            Ok(())
        };
        if let Some(file) = &self.ca_file {
            add(file)?;
        }
        if let Some(folder) = &self.ca_folder {
            let unreadable = |cause| file_error(folder, format!("can't be listed: {cause}"));
            for entry in fs::read_dir(folder).map_err(unreadable)? {
                let path = entry.map_err(unreadable)?.path();
                if path.is_file() {
                    add(&path)?;
                }
            }
            if roots.is_empty() {
                return Err(file_error(folder, "contains no certificate".into()));
            }
        }
        Ok(roots)
    }
}

fn setup_error(cause: &dyn Display) -> ConfigError {
    ConfigError::new("TLS configuration", cause)
}

fn file_error(path: &Path, problem: String) -> ConfigError {
    ConfigError::new(path.display().to_string(), problem)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let unreadable = |cause| file_error(path, pem_problem("certificate", &cause));
    let all = CertificateDer::pem_file_iter(path).map_err(unreadable)?;
    let all: Vec<_> = all.collect::<Result<_, _>>().map_err(unreadable)?;
    if all.is_empty() {
        let empty = pem_problem("certificate", &pem::Error::NoItemsFound);
        return Err(file_error(path, empty));
    }
    Ok(all)
}

/// Why a file has no usable certificate or key. Only I/O errors are shown: others quote the file, which may
/// contain a private key.
fn pem_problem(wanted: &str, cause: &pem::Error) -> String {
    match cause {
        pem::Error::Io(cause) => format!("can't be read: {cause}"),
        _ => format!("contains no {wanted} in PEM format"),
    }
}

/// Verifies the agent's certificate by a rule, and always the signatures of the handshake.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    rule: Rule,
}

#[derive(Debug)]
enum Rule {
    /// Any certificate is accepted (`CONSUL_HTTP_SSL_VERIFY=false`).
    Any,
    /// The certificate has to be for this name, whatever the host of the address is.
    OtherName(Arc<dyn ServerCertVerifier>, ServerName<'static>),
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.rule {
            Rule::Any => Ok(ServerCertVerified::assertion()),
            Rule::OtherName(inner, name) => {
                inner.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_an_error_that_shows_nothing_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let problem = || certificates(&path).unwrap_err().to_string();
        let missing = problem();
        assert!(missing.contains("ca.pem"), "{missing}");
        assert!(missing.contains("can't be read: No such file"), "{missing}");
        for text in ["", "secret", "-----BEGIN CERTIFICATE-----\nsecret!\n"] {
            std::fs::write(&path, text).unwrap();
            let found = problem();
            assert!(found.contains("contains no certificate"), "{found}");
            assert!(!found.contains("secret"), "{found}");
        }
    }
}
