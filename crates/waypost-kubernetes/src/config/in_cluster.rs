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

#[cfg(test)]
mod tests {
    use super::*;

    /// The configuration of a pod with these files in the folder of its service account.
    fn load(
        host: &str,
        port: Option<&str>,
        files: &[(&str, &str)],
    ) -> (Result<ClientConfig, ConfigError>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let environment = Environment::from_iter([
            (SERVICE_HOST, host.to_owned()),
            (SERVICE_PORT, port.unwrap_or_default().to_owned()),
            (SERVICE_ACCOUNT, dir.path().display().to_string()),
        ]);
        (
            InCluster::from_environment(&environment).unwrap().load(),
            dir,
        )
    }

    const FILES: [(&str, &str); 3] = [("token", "t"), ("ca.crt", "c"), ("namespace", " shop \n")];

    #[test]
    fn the_server_is_named_by_two_variables() {
        for (host, port, expected) in [
            ("10.96.0.1", None, "https://10.96.0.1:443/"),
            ("10.96.0.1", Some("6443"), "https://10.96.0.1:6443/"),
            ("fd00::1", Some("443"), "https://[fd00::1]:443/"),
            (
                "kubernetes.default",
                Some("443"),
                "https://kubernetes.default:443/",
            ),
        ] {
            let (config, dir) = load(host, port, &FILES);
            let config = config.unwrap();
            assert_eq!(config.kube.cluster_url, *expected);
            assert_eq!(config.namespace.as_deref(), Some("shop"));
            assert_eq!(config.token_file, Some(dir.path().join("token")));
            // Only the cluster's own authority is trusted.
            assert_eq!(config.kube.root_cert, Some(Vec::new()));
            assert_eq!(config.files, [dir.path().join("ca.crt")]);
        }
        let none = Environment::default();
        assert!(InCluster::from_environment(&none).is_none());
    }

    #[test]
    fn what_is_missing_in_a_pod_is_named() {
        let namespace = [FILES[0], FILES[1], ("namespace", " \n")];
        let (config, _dir) = load("10.96.0.1", None, &namespace);
        assert_eq!(config.unwrap().namespace, None);
        for (host, port, files, location, problem) in [
            (
                "10.96.0.1",
                Some("0"),
                &FILES[..],
                SERVICE_PORT,
                "\"0\" is not a port",
            ),
            ("a b", None, &FILES, SERVICE_HOST, "\"a b\" is not a host ("),
            (
                "10.96.0.1",
                None,
                &FILES[1..],
                "",
                "automountServiceAccountToken: true",
            ),
            (
                "10.96.0.1",
                None,
                &FILES[..1],
                "ca.crt",
                "can't read the cluster's CA certificate",
            ),
        ] {
            let (config, dir) = load(host, port, files);
            let Err(error) = config else {
                panic!("{problem}");
            };
            let folder = dir.path().display().to_string();
            let is_there = error.location() == location
                || error.location() == folder + if location.is_empty() { "" } else { "/ca.crt" };
            assert!(is_there, "{error}");
            assert!(error.problem().contains(problem), "{error}");
        }
    }

    #[test]
    fn a_service_account_needs_a_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display().to_string();
        let environment = Environment::from_iter([(SERVICE_ACCOUNT, path)]);
        let error = check_service_account(&environment).unwrap_err();
        assert!(
            error.starts_with(&dir.path().join("token").display().to_string()),
            "{error}"
        );
        fs::write(dir.path().join("token"), "t\n").unwrap();
        check_service_account(&environment).unwrap();
    }
}
