//! TLS to instances.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use waypost::{ConfigError, Host, Instance};

use super::stream::UpstreamStream;
use crate::attempt_error::{AttemptError, AttemptErrorKind};
use crate::transport::Transport;

/// How instances are verified. Shared by all workers.
#[derive(Debug)]
pub(crate) struct ClientTls {
    /// The certificate authorities that replace those of the system.
    roots: Option<RootCertStore>,
    /// Created for the first `https` instance: loading the system's certificates takes time, and may fail
    /// on systems that don't need them.
    config: OnceLock<Result<ClientConfig, String>>,
}

impl ClientTls {
    /// # Errors
    /// If the file of certificate authorities can't be read.
    pub(crate) fn new(ca_file: Option<&Path>) -> Result<Self, ConfigError> {
        Ok(Self {
            roots: ca_file.map(read_roots).transpose()?,
            config: OnceLock::new(),
        })
    }

    pub(super) async fn connect(
        &self,
        instance: &Instance,
        stream: TcpStream,
        protocols: &[&[u8]],
    ) -> Result<UpstreamStream, AttemptError> {
        let mut config = self
            .config
            .get_or_init(|| self.client_config())
            .clone()
            .map_err(|reason| {
                let cause = format!("TLS is unavailable: {reason}");
                AttemptError::new(AttemptErrorKind::NotCallable, cause)
            })?;
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let name = match instance.host() {
            Host::Ip(ip) => ServerName::from(*ip),
            Host::Name(name) => ServerName::try_from(name.to_string()).map_err(|error| {
                AttemptError::new(AttemptErrorKind::NotCallable, format!("{name}: {error}"))
            })?,
        };
        let connector = TlsConnector::from(Arc::new(config));
        match connector.connect(name, stream).await {
            Ok(stream) => Ok(UpstreamStream::new(Transport::Tls(Box::new(stream.into())))),
            Err(error) => Err(AttemptError::new(
                AttemptErrorKind::Connect,
                format!("TLS: {error}"),
            )),
        }
    }

    fn client_config(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match &self.roots {
            Some(roots) => builder.with_root_certificates(roots.clone()),
            None => {
                let verifier = Verifier::new(provider).map_err(|error| error.to_string())?;
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(verifier))
            }
        };
        Ok(builder.with_no_client_auth())
    }
}

fn read_roots(file: &Path) -> Result<RootCertStore, ConfigError> {
    let bad = |problem: String| ConfigError::new(file.display().to_string(), problem);
    // Only I/O errors are shown: others quote the file, which may contain a private key.
    let unreadable = |error| match error {
        pem::Error::Io(error) => bad(error.to_string()),
        _ => bad("contains no certificate in PEM format".to_owned()),
    };
    let certificates = CertificateDer::pem_file_iter(file).map_err(unreadable)?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let certificate = certificate.map_err(unreadable)?;
        roots.add(certificate).map_err(|e| bad(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(bad("contains no certificate in PEM format".to_owned()));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_an_error_that_shows_nothing_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let error = || ClientTls::new(Some(&file)).unwrap_err().to_string();
        let missing = error();
        assert!(missing.contains("ca.pem"), "{missing}");
        assert!(missing.contains("No such file"), "{missing}");
        for text in [
            "",
            "secret",
            "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n",
            "-----BEGIN CERTIFICATE-----\nsecret!\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\nsecret",
        ] {
            std::fs::write(&file, text).unwrap();
            let found = error();
            assert!(found.contains("ca.pem"), "{found}");
            assert!(found.contains("no certificate in PEM format"), "{found}");
            assert!(
                !found.contains("secret") && !found.contains("c2Vj"),
                "{found}"
            );
        }
    }
}
