//! Which API server to use and with which identity: from a kubeconfig, or from a pod's service
//! account.

mod client_config;
mod in_cluster;
mod kubeconfig;
mod plugin;
mod proxy;

use std::time::Duration;

use waypost_core::{ConfigError, Environment};

pub(crate) use self::client_config::{ClientConfig, FileStamps, bearer, bearer_of};
use self::in_cluster::InCluster;
pub use self::in_cluster::check_service_account;
use self::kubeconfig::KubeconfigFiles;
pub(crate) use self::kubeconfig::{CONTEXT, KUBECONFIG};
pub(crate) use self::plugin::Credentials;
use self::proxy::ProxyRules;

/// Where the configuration is read from.
#[derive(Clone, Debug)]
pub(crate) struct ConfigSource {
    location: Location,
    proxy: ProxyRules,
}

#[derive(Clone, Debug)]
enum Location {
    Kubeconfig(KubeconfigFiles),
    InCluster(InCluster),
}

impl ConfigSource {
    /// `KUBECONFIG` comes first, as with kubectl; then, in a pod, its service account; then the
    /// user's `~/.kube/config`.
    pub(crate) fn from_environment(environment: &Environment) -> Result<Self, ConfigError> {
        Ok(Self {
            location: Location::from_environment(environment)?,
            proxy: ProxyRules::from_environment(environment),
        })
    }

    /// Reads the files.
    pub(crate) fn load(&self) -> Result<ClientConfig, ConfigError> {
        let mut loaded = match &self.location {
            Location::Kubeconfig(files) => files.load()?,
            Location::InCluster(pod) => pod.load()?,
        };
        let kube = &mut loaded.kube;
        if kube.proxy_url.is_none() {
            kube.proxy_url = self.proxy.proxy_for(&kube.cluster_url)?;
        }
        kube.connect_timeout = Some(Duration::from_secs(5));
        kube.write_timeout = Some(Duration::from_secs(30));
        // kube's own retries can hide an outage for minutes.
        kube.default_retry = false;
        Ok(loaded)
    }

    /// Whether this process runs in a pod, with the identity of its service account.
    pub(crate) fn is_in_cluster(&self) -> bool {
        matches!(self.location, Location::InCluster(_))
    }
}

impl Location {
    fn from_environment(environment: &Environment) -> Result<Self, ConfigError> {
        if let Some(files) = KubeconfigFiles::from_variable(environment) {
            return Ok(Self::Kubeconfig(files));
        }
        if let Some(pod) = InCluster::from_environment(environment) {
            return Ok(Self::InCluster(pod));
        }
        KubeconfigFiles::in_home(environment).map(Self::Kubeconfig)
    }
}
