use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use tempfile::TempDir;

/// A certificate authority of a test, and the folder with what it issued.
pub struct Ca {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Ca {
    /// A new one.
    ///
    /// # Panics
    /// If no key can be made.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "A test's CA");
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a CA certificate");
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("a file");
        Self { folder, issuer }
    }

    /// The file with its certificate.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The folder with all its files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Issues a certificate for these names and addresses, and gives its file and its key's.
    ///
    /// # Panics
    /// If that can't be done.
    pub fn issue(&self, name: &str, alternatives: &[&str]) -> (PathBuf, PathBuf) {
        let alternatives: Vec<_> = alternatives.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(alternatives).expect("names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let files = (
            self.folder.path().join(format!("{name}.pem")),
            self.folder.path().join(format!("{name}-key.pem")),
        );
        fs::write(&files.0, certificate.pem()).expect("a file");
        fs::write(&files.1, key.serialize_pem()).expect("a file");
        files
    }
}

impl Default for Ca {
    fn default() -> Self {
        Self::new()
    }
}
