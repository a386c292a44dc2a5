//! Certificates for tests of TLS.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use tempfile::TempDir;

/// A certificate authority, and a temporary directory with the certificates that it issued.
pub struct Ca {
    directory: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Ca {
    /// Creates a certificate authority with a new key.
    ///
    /// # Panics
    /// If the key or the files can't be created.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "Test CA");
        let key = KeyPair::generate().expect("the key should be generated");
        let issuer =
            CertifiedIssuer::self_signed(params, key).expect("the certificate should be signed");
        let directory = tempfile::tempdir().expect("the directory should be created");
        write(&directory.path().join("ca.pem"), &issuer.pem());
        Self { directory, issuer }
    }

    /// The file with the certificate of the authority.
    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// The directory with all files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Issues a certificate for servers and clients with these alternative names and addresses.
    /// Returns the files of the certificate and the key.
    ///
    /// # Panics
    /// If a name is not valid, or the files can't be created.
    pub fn issue(&self, name: &str, alternatives: &[&str]) -> (PathBuf, PathBuf) {
        let alternatives: Vec<_> = alternatives.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(alternatives).expect("the names should be valid");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().expect("the key should be generated");
        let certificate = params
            .signed_by(&key, &self.issuer)
            .expect("the certificate should be signed");
        let files = (
            self.directory.path().join(format!("{name}.pem")),
            self.directory.path().join(format!("{name}-key.pem")),
        );
        write(&files.0, &certificate.pem());
        write(&files.1, &key.serialize_pem());
        files
    }
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("the file should be written");
}

impl Default for Ca {
    fn default() -> Self {
        Self::new()
    }
}
