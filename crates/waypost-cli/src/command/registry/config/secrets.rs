//! The secrets of a cluster: its CA, the certificates of the nodes, the gossip key and the tokens.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use data_encoding::BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};

use crate::error::CommandError;
use crate::random::random;

/// The secrets that all nodes of a cluster depend on.
pub(super) struct Secrets {
    ca: CertifiedIssuer<'static, KeyPair>,
    /// 32 random bytes in base64, as printed by `consul keygen`.
    pub(super) gossip_key: String,
    /// The token with all rights.
    pub(super) root_token: String,
    /// The token of the agents.
    pub(super) agent_token: String,
    datacenter: String,
}

/// A node's certificate and its key, in PEM.
pub(super) struct Certified {
    pub(super) certificate: String,
    pub(super) key: String,
}

const DAY: Duration = Duration::from_secs(24 * 3600);
const YEAR: Duration = DAY.saturating_mul(365);
const CA_LIFETIME: Duration = YEAR.saturating_mul(10);
const NODE_LIFETIME: Duration = YEAR.saturating_mul(2);

impl Secrets {
    pub(super) fn new(datacenter: &str) -> Result<Self, CommandError> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let name = format!("Consul CA of {datacenter}");
        params.distinguished_name.push(DnType::CommonName, name);
        set_lifetime(&mut params, CA_LIFETIME);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(CommandError::other)?;
        let ca = CertifiedIssuer::self_signed(params, key).map_err(CommandError::other)?;
        Ok(Self {
            ca,
            gossip_key: BASE64.encode(&random::<32>()?),
            root_token: random_uuid()?,
            agent_token: random_uuid()?,
            datacenter: datacenter.to_owned(),
        })
    }

    pub(super) fn ca_certificate(&self) -> String {
        self.ca.pem()
    }

    pub(super) fn ca_key(&self) -> String {
        self.ca.key().serialize_pem()
    }

    /// Issues a certificate for a node. Only a server's certificate has the name that Consul
    /// requires with `verify_server_hostname`, so a client agent can't pose as a server.
    pub(super) fn certify(&self, ip: IpAddr, is_server: bool) -> Result<Certified, CommandError> {
        let role = if is_server { "server" } else { "client" };
        let name = format!("{role}.{}.consul", self.datacenter);
        let names = vec![
            name.clone(),
            "localhost".into(),
            "127.0.0.1".into(),
            ip.to_string(),
        ];
        let mut params = CertificateParams::new(names).map_err(CommandError::other)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        set_lifetime(&mut params, NODE_LIFETIME);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(CommandError::other)?;
        let certificate = params
            .signed_by(&key, &self.ca)
            .map_err(CommandError::other)?;
        Ok(Certified {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// Makes the certificate valid from yesterday on, to allow for clocks that are behind.
fn set_lifetime(params: &mut CertificateParams, lifetime: Duration) {
    let now = SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + lifetime).into();
}

/// A random UUID, the form of Consul's tokens.
fn random_uuid() -> Result<String, CommandError> {
    let uuid = uuid::Builder::from_random_bytes(random()?).into_uuid();
    Ok(uuid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gossip_key_is_32_bytes_in_base64() {
        let secrets = Secrets::new("dc1").unwrap();
        let key = BASE64.decode(secrets.gossip_key.as_bytes()).unwrap();
        assert_eq!(key.len(), 32);
    }

    #[test]
    fn tokens_are_distinct_random_uuids() {
        let secrets = Secrets::new("dc1").unwrap();
        assert_eq!(secrets.root_token.len(), 36);
        assert_eq!(&secrets.root_token[14..15], "4");
        assert_ne!(secrets.root_token, secrets.agent_token);
    }
}
