//! TLS of clients' connections: certificates by name, read again when their files change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use waypost::ConfigError;
use webpki::EndEntityCert;

/// How often the files are read.
const FILE_INTERVAL: Duration = Duration::from_secs(1);

/// A certificate with its chain, and its private key, in PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsCertificate {
    /// The certificate, followed by the intermediate certificates.
    pub certificate: PathBuf,
    /// The private key: PKCS #8, SEC 1 or PKCS #1.
    pub key: PathBuf,
}

/// The TLS of a listener.
pub(crate) struct ServerTls {
    files: Vec<TlsCertificate>,
    certificates: Arc<Certificates>,
    acceptor: TlsAcceptor,
}

impl ServerTls {
    /// `None` without certificates.
    ///
    /// # Errors
    /// If a file can't be read, or does not contain a certificate or key.
    pub(crate) fn new(files: Vec<TlsCertificate>) -> Result<Option<Self>, ConfigError> {
        if files.is_empty() {
            return Ok(None);
        }
        let keys = parse(&read(&files)?)?;
        let certificates = Arc::new(Certificates(ArcSwap::from_pointee(keys)));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| ConfigError::new("TLS".to_owned(), error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificates) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Some(Self {
            files,
            certificates,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        }))
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }

    /// Applies each change of the files. Files with an error are reported once, and the previous
    /// certificates are kept. Never returns.
    pub(crate) async fn follow_files(&self) {
        let mut applied = read(&self.files).map_err(|error| error.to_string());
        loop {
            tokio::time::sleep(FILE_INTERVAL).await;
            let found = read(&self.files).map_err(|error| error.to_string());
            if found == applied {
                continue;
            }
            let parsed = found
                .as_ref()
                .map_err(Clone::clone)
                .and_then(|found| parse(found).map_err(|error| error.to_string()));
            match parsed {
                Ok(keys) => {
                    self.certificates.0.store(Arc::new(keys));
                    tracing::info!("certificates reloaded");
                }
                Err(error) => tracing::error!("{error}; keeping the previous certificates"),
            }
            applied = found;
        }
    }
}

/// The content of one certificate's files.
#[derive(PartialEq, Eq)]
struct Pem {
    files: TlsCertificate,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

fn read(files: &[TlsCertificate]) -> Result<Vec<Pem>, ConfigError> {
    let read = |path: &PathBuf| {
        std::fs::read(path)
            .map_err(|error| ConfigError::new(path.display().to_string(), error.to_string()))
    };
    files
        .iter()
        .map(|files| {
            Ok(Pem {
                certificate: read(&files.certificate)?,
                key: read(&files.key)?,
                files: files.clone(),
            })
        })
        .collect()
}

fn parse(pems: &[Pem]) -> Result<Vec<Arc<CertifiedKey>>, ConfigError> {
    pems.iter().map(|pem| pem.parse().map(Arc::new)).collect()
}

impl Pem {
    fn parse(&self) -> Result<CertifiedKey, ConfigError> {
        let wrong =
            |path: &PathBuf, problem: String| ConfigError::new(path.display().to_string(), problem);
        let in_certificate = |problem| wrong(&self.files.certificate, problem);
        let in_key = |problem| wrong(&self.files.key, problem);
        let chain = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| in_certificate(error.to_string()))?;
        let first = chain
            .first()
            .ok_or_else(|| in_certificate("contains no certificate in PEM format".to_owned()))?;
        EndEntityCert::try_from(first).map_err(|error| in_certificate(error.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|error| in_key(format!("contains no private key: {error}")))?;
        let provider = rustls::crypto::ring::default_provider();
        CertifiedKey::from_der(chain, key, &provider).map_err(|error| {
            let certificate = self.files.certificate.display();
            in_key(format!(
                "does not fit the certificate in {certificate}: {error}"
            ))
        })
    }
}

/// The certificates, in the order of the configuration.
#[derive(Debug)]
struct Certificates(ArcSwap<Vec<Arc<CertifiedKey>>>);

impl ResolvesServerCert for Certificates {
    /// The first certificate for the name that the client requests, otherwise the first of all.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let keys = self.0.load();
        let name = hello
            .server_name()
            .and_then(|name| ServerName::try_from(name).ok());
        let is_for = |key: &&Arc<CertifiedKey>| {
            let certificate = key
                .cert
                .first()
                .and_then(|der| EndEntityCert::try_from(der).ok());
            match (&name, certificate) {
                (Some(name), Some(certificate)) => {
                    certificate.verify_is_valid_for_subject_name(name).is_ok()
                }
                _ => false,
            }
        };
        keys.iter().find(is_for).or(keys.first()).cloned()
    }
}
