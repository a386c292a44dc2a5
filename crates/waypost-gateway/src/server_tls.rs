//! TLS for client connections, with certificates that are selected by server name (SNI). Those in files are read
//! again when the files change; those of the Gateway API's listeners are replaced by its controller.

use std::fmt;
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

use crate::routes::HostPattern;

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

/// The TLS of the gateway's port.
pub(crate) struct ServerTls {
    files: Vec<TlsCertificate>,
    certificates: Arc<Certificates>,
    acceptor: TlsAcceptor,
}

impl ServerTls {
    /// `None` if there can be no certificates: neither files nor listeners of the Gateway API with TLS.
    ///
    /// # Errors
    /// If a file can't be read, or does not contain a certificate or key.
    pub(crate) fn new(
        files: Vec<TlsCertificate>,
        has_listeners: bool,
    ) -> Result<Option<Self>, ConfigError> {
        if files.is_empty() && !has_listeners {
            return Ok(None);
        }
        let certificates = Certificates::default();
        certificates.files.store(Arc::new(parse(&read(&files)?)?));
        let certificates = Arc::new(certificates);
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

    /// Replaces the listeners of the Gateway API. Handshakes from now on use their certificates; open
    /// connections are not affected.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn set_listeners(&self, listeners: Vec<TlsListener>) {
        self.certificates.listeners.store(Arc::new(listeners));
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
                    self.certificates.files.store(Arc::new(keys));
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
        let (certificate, key) = (&self.files.certificate, &self.files.key);
        certified_key(
            (&certificate.display().to_string(), &self.certificate),
            (&key.display().to_string(), &self.key),
        )
    }
}

/// Parses a certificate, followed by the intermediate certificates, and its private key. Each argument is the
/// name of the source, for errors, and its content as PEM.
///
/// # Errors
/// What is wrong, and in which source. The content is never shown, since it may be a private key, even where a
/// certificate should be.
pub(crate) fn certified_key(
    (certificate_place, certificate): (&str, &[u8]),
    (key_place, key): (&str, &[u8]),
) -> Result<CertifiedKey, ConfigError> {
    let in_certificate = |problem: &dyn fmt::Display| ConfigError::new(certificate_place, problem);
    let no_certificate = || in_certificate(&"contains no certificate in PEM format");
    let chain = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| no_certificate())?;
    let first = chain.first().ok_or_else(no_certificate)?;
    EndEntityCert::try_from(first).map_err(|error| in_certificate(&error))?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| ConfigError::new(key_place, "contains no private key in PEM format"))?;
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map_err(|error| {
        let problem = format!("does not fit the certificate in {certificate_place}: {error}");
        ConfigError::new(key_place, problem)
    })
}

/// A listener of the Gateway API that clients reach over TLS.
#[cfg_attr(not(feature = "kubernetes"), allow(dead_code))]
pub(crate) struct TlsListener {
    /// The server names that it serves; `None` for all.
    pub(crate) hostname: Option<HostPattern>,
    pub(crate) certificates: ListenerCertificates,
}

/// Where the certificates of a listener are.
#[cfg_attr(not(feature = "kubernetes"), allow(dead_code))]
#[derive(Clone)]
pub(crate) enum ListenerCertificates {
    /// In the files of the gateway.
    Files,
    /// The listener's own certificates. If there are none, handshakes for its names fail.
    Own(Vec<Arc<CertifiedKey>>),
}

impl TlsListener {
    fn matches(&self, name: &str) -> bool {
        let hostname = self.hostname.as_ref();
        hostname.is_none_or(|hostname| hostname.matches(name))
    }

    /// The more specific of two listeners has the greater value.
    fn rank(&self) -> Option<(bool, usize)> {
        self.hostname.as_ref().map(HostPattern::rank)
    }
}

/// The certificates of the gateway's port.
#[derive(Default)]
struct Certificates {
    /// The certificates in files, in the order of the configuration.
    files: ArcSwap<Vec<Arc<CertifiedKey>>>,
    /// The listeners of the Gateway API in their order of precedence.
    listeners: ArcSwap<Vec<TlsListener>>,
}

impl Certificates {
    /// The certificate for a client that requests this name, which is in lower case.
    ///
    /// The most specific listener that matches the name decides: if it has no certificates, those of others are
    /// not used instead. If no listener matches, the certificates in files are used. A client that requests no
    /// name gets a certificate of a listener for all names, or else any: its requests are routed by their host.
    fn choose(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let (files, listeners) = (self.files.load(), self.listeners.load());
        let matches = |listener: &&TlsListener| name.is_none_or(|name| listener.matches(name));
        let mut chosen: Vec<_> = listeners.iter().filter(matches).collect();
        match name {
            Some(_) => {
                let best = chosen.iter().map(|listener| listener.rank()).max();
                chosen.retain(|listener| Some(listener.rank()) == best);
            }
            None => chosen.sort_by_key(|listener| listener.rank()),
        }
        let others = if chosen.is_empty() || name.is_none() {
            files.as_slice()
        } else {
            &[]
        };
        let of_listeners = chosen
            .iter()
            .flat_map(|listener| match &listener.certificates {
                ListenerCertificates::Files => files.iter(),
                ListenerCertificates::Own(keys) => keys.iter(),
            });
        first_for(name, of_listeners.chain(others))
    }
}

/// The first certificate that is valid for a name, or else the first of all.
fn first_for<'a>(
    name: Option<&str>,
    keys: impl Iterator<Item = &'a Arc<CertifiedKey>> + Clone,
) -> Option<Arc<CertifiedKey>> {
    let name = name.and_then(|name| ServerName::try_from(name).ok());
    let is_for = |key: &&Arc<CertifiedKey>| {
        let first = key.cert.first();
        let certificate = first.and_then(|der| EndEntityCert::try_from(der).ok());
        match (&name, certificate) {
            (Some(name), Some(certificate)) => {
                certificate.verify_is_valid_for_subject_name(name).is_ok()
            }
            _ => false,
        }
    };
    let found = keys.clone().find(is_for);
    found.or_else(|| keys.clone().next()).cloned()
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name())
    }
}

impl fmt::Debug for Certificates {
    /// Shows no key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str]) -> Arc<CertifiedKey> {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let pair = rcgen::generate_simple_self_signed(names).unwrap();
        let (certificate, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
        let key = certified_key(("crt", certificate.as_bytes()), ("key", key.as_bytes()));
        Arc::new(key.unwrap())
    }

    fn listener(hostname: Option<&str>, certificates: ListenerCertificates) -> TlsListener {
        TlsListener {
            hostname: hostname.map(|hostname| HostPattern::parse(hostname).unwrap()),
            certificates,
        }
    }

    #[test]
    fn the_most_specific_listener_decides_and_then_the_names_in_the_certificates() {
        use ListenerCertificates::{Files, Own};
        let [file, all, shop, pay, other_pay] = [
            &["file.example"][..],
            &["any.example"],
            &["*.shop.example"],
            &["unrelated.example"],
            &["pay.shop.example"],
        ]
        .map(certificate);
        let own = |key: &Arc<CertifiedKey>| Own(vec![Arc::clone(key)]);
        let with_all = [
            listener(Some("*.shop.example"), own(&shop)),
            listener(Some("pay.shop.example"), own(&pay)),
            listener(Some("pay.shop.example"), own(&other_pay)),
            listener(Some("new.shop.example"), Own(Vec::new())),
            listener(Some("file.shop.example"), Files),
            listener(None, own(&all)),
        ];
        let mut certificates = Certificates::default();
        certificates.files.store(Arc::new(vec![Arc::clone(&file)]));
        certificates.listeners.store(Arc::new(with_all.into()));
        let expect = |certificates: &Certificates, name, expected: Option<&Arc<CertifiedKey>>| {
            let chosen = certificates.choose(name);
            let is_expected = match (&chosen, expected) {
                (Some(chosen), Some(expected)) => Arc::ptr_eq(chosen, expected),
                (chosen, expected) => chosen.is_none() && expected.is_none(),
            };
            assert!(is_expected, "{name:?}");
        };
        for (name, expected) in [
            (Some("a.shop.example"), Some(&shop)),
            (Some("pay.shop.example"), Some(&other_pay)),
            (Some("new.shop.example"), None),
            (Some("file.shop.example"), Some(&file)),
            (Some("shop.example"), Some(&all)),
            (None, Some(&all)),
        ] {
            expect(&certificates, name, expected);
        }
        let some = vec![listener(Some("shop.example"), own(&shop))];
        certificates.listeners.store(Arc::new(some));
        expect(&certificates, Some("other.example"), Some(&file));
        certificates.files = ArcSwap::default();
        expect(&certificates, Some("other.example"), None);
        expect(&certificates, None, Some(&shop));
        assert_eq!(format!("{certificates:?}"), "Certificates { .. }");
    }

    #[test]
    fn an_error_shows_no_part_of_a_key() {
        let pair = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let key = pair.signing_key.serialize_pem();
        let in_one_line = key.replace('\n', "");
        let certificate = pair.cert.pem();
        for (first, second) in [(&in_one_line, &key), (&certificate, &in_one_line)] {
            let places = (("a.crt", first.as_bytes()), ("a.key", second.as_bytes()));
            let error = certified_key(places.0, places.1).unwrap_err().to_string();
            let expected = [
                "a.crt: contains no certificate in PEM format",
                "a.key: contains no private key in PEM format",
            ];
            assert!(expected.contains(&error.as_str()), "{error}");
        }
    }
}
