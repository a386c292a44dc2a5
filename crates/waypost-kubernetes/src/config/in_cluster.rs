//! The configuration of a pod: two variables that name the API server, and the files of its service
//! account.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use kube::config::Config;
use waypost_core::provider::TokenFile;
use waypost_core::{ConfigError, Environment};

use super::client_config::{ClientConfig, bearer};

pub(super) const SERVICE_HOST: &str = "KUBERNETES_SERVICE_HOST";
const SERVICE_PORT: &str = "KUBERNETES_SERVICE_PORT";
const SERVICE_ACCOUNT: &str = "WAYPOST_SERVICE_ACCOUNT_DIR";
const SERVICE_ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Checks that the service account of this pod has a token.
///
/// # Errors
/// What is wrong with the token, in words.
pub fn check_service_account(environment: &Environment) -> Result<(), String> {
    let token = service_account_dir(environment).join("token");
    bearer(&TokenFile::new(token)).map(drop)
}

fn service_account_dir(environment: &Environment) -> PathBuf {
    let dir = environment.get(SERVICE_ACCOUNT);
    dir.unwrap_or(SERVICE_ACCOUNT_DIR).into()
}

/// Where a pod's configuration is.
#[derive(Clone, Debug)]
pub(super) struct InCluster {
    host: String,
    port: String,
    service_account_dir: PathBuf,
}

impl InCluster {
    /// `None` if this process doesn't run in a pod.
    pub(super) fn from_environment(environment: &Environment) -> Option<Self> {
        Some(Self {
            host: environment.get(SERVICE_HOST)?.to_owned(),
            port: environment.get(SERVICE_PORT).unwrap_or("443").to_owned(),
            service_account_dir: service_account_dir(environment),
        })
    }

    pub(super) fn load(&self) -> Result<ClientConfig, ConfigError> {
        let Self {
            host,
            port,
            service_account_dir: dir,
        } = self;
        let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
            let problem = format!("{port:?} is not a port; use a number from 1 to 65535");
            ConfigError::new(SERVICE_PORT, problem)
        })?;
        let authority = match host.parse() {
            Ok(ip) => SocketAddr::new(ip, port).to_string(),
            Err(_) => format!("{host}:{port}"),
        };
        let server = format!("https://{authority}").parse().map_err(|cause| {
            ConfigError::new(SERVICE_HOST, format!("{host:?} is not a host ({cause})"))
        })?;
        let token_file = dir.join("token");
        bearer(&TokenFile::new(token_file.clone())).map_err(|why| {
            let problem = format!("{why}; the pod needs automountServiceAccountToken: true");
            ConfigError::new(dir.display().to_string(), problem)
        })?;
        let ca_bundle = dir.join("ca.crt");
        if let Err(cause) = fs::metadata(&ca_bundle) {
            let problem = format!("can't read the cluster's CA certificate: {cause}");
            return Err(ConfigError::new(ca_bundle.display().to_string(), problem));
        }
        let namespace = fs::read_to_string(dir.join("namespace")).ok();
        let namespace = namespace.map(|text| text.trim().to_owned());
        let mut kube = Config::new(server);
        // Trust the cluster's CA only: the image may have no system certificates.
        kube.root_cert = Some(Vec::new());
        kube.root_cert_file = Some(ca_bundle.clone());
        Ok(ClientConfig {
            kube,
            identity: format!("the token in {}", token_file.display()),
            token_file: Some(token_file),
            plugin: None,
            namespace: namespace.filter(|namespace| !namespace.is_empty()),
            ca: ca_bundle.display().to_string(),
            files: vec![ca_bundle],
        })
    }
}
