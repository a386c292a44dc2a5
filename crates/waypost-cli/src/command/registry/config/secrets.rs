use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};

use super::files::Node;
use crate::failure::Failure;

/// What nobody else may know of a cluster.
pub(super) struct Secrets {
    ca: CertifiedIssuer<'static, KeyPair>,
    /// 32 random bytes in base64, as `consul keygen` gives them.
    pub(super) gossip_key: String,
    /// The token that may do everything.
    pub(super) root_token: String,
    /// The token of the agents themselves.
    pub(super) agent_token: String,
    datacenter: String,
}

/// A node's certificate and its key, in PEM.
pub(super) struct Certified {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// How long certificates are good.
const CA_YEARS: i32 = 10;
const NODE_YEARS: i32 = 2;

impl Secrets {
    pub(super) fn new(datacenter: &str) -> Result<Self, Failure> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let name = format!("Consul CA of {datacenter}");
        params.distinguished_name.push(DnType::CommonName, name);
        last(&mut params, CA_YEARS);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(Failure::other)?;
        let ca = CertifiedIssuer::self_signed(params, key).map_err(Failure::other)?;
        Ok(Self {
            ca,
            gossip_key: base64(&random::<32>()?),
            root_token: uuid(random()?),
            agent_token: uuid(random()?),
            datacenter: datacenter.to_owned(),
        })
    }

    pub(super) fn ca_certificate(&self) -> String {
        self.ca.pem()
    }

    pub(super) fn ca_key(&self) -> String {
        self.ca.key().serialize_pem()
    }

    /// A certificate for a node. Servers have the name that Consul's `verify_server_hostname`
    /// wants to see, so that no client agent can pose as one.
    pub(super) fn certify(&self, node: &Node, is_server: bool) -> Result<Certified, Failure> {
        let role = if is_server { "server" } else { "client" };
        let names = vec![
            format!("{role}.{}.consul", self.datacenter),
            "localhost".into(),
            "127.0.0.1".into(),
            node.ip.to_string(),
        ];
        let mut params = CertificateParams::new(names).map_err(Failure::other)?;
        let name = format!("{role}.{}.consul", self.datacenter);
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        last(&mut params, NODE_YEARS);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(Failure::other)?;
        let certificate = params.signed_by(&key, &self.ca).map_err(Failure::other)?;
        Ok(Certified {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// From yesterday, for clocks that differ, and for so many years.
fn last(params: &mut CertificateParams, years: i32) {
    use std::time::{Duration, SystemTime};
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let now = SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + DAY * 365 * years.unsigned_abs()).into();
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    let provider = rustls::crypto::ring::default_provider();
    let filled = provider.secure_random.fill(&mut bytes);
    filled.map_err(|_| Failure::other("the system gives no random numbers"))?;
    Ok(bytes)
}

/// A random UUID (RFC 9562, version 4), the form of Consul's tokens.
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    parts.join("-")
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let group = u32::from_be_bytes(group);
        for position in 0..4 {
            let index = (group >> (18 - 6 * position)) & 0x3f;
            match position <= chunk.len() {
                true => text.push(char::from(ALPHABET[index as usize])),
                false => text.push('='),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_as_the_rfc_says() {
        // RFC 4648, section 10.
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, encoded) in vectors {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn tokens_are_uuids_and_never_the_same() {
        let secrets = Secrets::new("dc1").unwrap();
        assert_eq!(secrets.root_token.len(), 36);
        assert_eq!(&secrets.root_token[14..15], "4");
        assert_ne!(secrets.root_token, secrets.agent_token);
    }
}
