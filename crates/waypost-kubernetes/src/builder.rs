use std::path::PathBuf;
use std::sync::Arc;

use waypost_core::{ConfigError, Environment, Error};

use super::KubernetesProvider;
use super::config::{CONTEXT, KUBECONFIG, Loaded, Source};
use super::connection::Connection;
use super::place::is_label;
use super::register::Registrations;
use super::views::{Setup, Views};

const NAMESPACE: &str = "KUBERNETES_NAMESPACE";
const CLUSTER_DOMAIN: &str = "KUBERNETES_CLUSTER_DOMAIN";

/// Puts a [`KubernetesProvider`] together.
///
/// What is not set here is taken from the environment; the module `settings` of the crate `waypost`
/// lists the variables.
#[derive(Clone, Debug, Default)]
#[must_use = "a provider comes into being with `build`"]
pub struct KubernetesBuilder {
    environment: Environment,
    namespace: Option<String>,
    cluster_domain: Option<String>,
    annotations: Vec<String>,
    port: Option<String>,
}

impl KubernetesBuilder {
    pub(super) fn of(environment: &Environment) -> Self {
        Self {
            environment: environment.clone(),
            ..Self::default()
        }
    }

    /// Uses this kubeconfig file, wherever the program runs.
    pub fn kubeconfig(mut self, path: impl Into<PathBuf>) -> Self {
        let path: PathBuf = path.into();
        self.environment = self.environment.with(KUBECONFIG, &path.to_string_lossy());
        self
    }

    /// Uses this context of the kubeconfig instead of its current one.
    pub fn context(mut self, context: &str) -> Self {
        self.environment = self.environment.with(CONTEXT, context);
        self
    }

    /// Looks in this namespace for names that don't say theirs.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// The domain below which the cluster's DNS has the Services; `cluster.local` unless said
    /// otherwise.
    pub fn cluster_domain(mut self, domain: impl Into<String>) -> Self {
        self.cluster_domain = Some(domain.into());
        self
    }

    /// Takes an annotation of Services over into the metadata of their instances, as is done with
    /// all labels.
    pub fn annotation(mut self, key: impl Into<String>) -> Self {
        self.annotations.push(key.into());
        self
    }

    /// Calls the port of this name where a Service has several, rather than `http` and the like.
    pub fn port(mut self, name: impl Into<String>) -> Self {
        self.port = Some(name.into());
        self
    }

    /// Reads the configuration and makes the provider. The server isn't asked yet, so it may be
    /// down.
    ///
    /// # Errors
    /// If a variable or a file is bad: it says which and what would be right.
    pub fn build(self) -> Result<KubernetesProvider, Error> {
        let variable = |name: &str| self.environment.get(name).map(str::to_owned);
        let source = Source::of(&self.environment)?;
        let (connection, Loaded { namespace, .. }) = Connection::new(source)?;
        let named = self.namespace.or_else(|| variable(NAMESPACE));
        let namespace = match named.or(namespace) {
            None => "default".into(),
            Some(name) if is_label(&name) => name,
            Some(name) => {
                let problem = format!(
                    "{name:?} is no namespace; use at most 63 of a-z, 0-9 and '-', \
                     beginning and ending with a letter or digit"
                );
                return Err(ConfigError::new(NAMESPACE, problem).into());
            }
        };
        let domain = self.cluster_domain.or_else(|| variable(CLUSTER_DOMAIN));
        let setup = Setup {
            namespace: namespace.into(),
            cluster_domain: match &domain {
                Some(domain) => domain.trim_matches('.').into(),
                None => "cluster.local".into(),
            },
            annotations: self.annotations.into_iter().map(Into::into).collect(),
            port: self.port.map(Into::into),
        };
        let connection = Arc::new(connection);
        let registrations = Registrations::new(
            Arc::clone(&connection),
            Arc::clone(&setup.namespace),
            Arc::clone(&setup.cluster_domain),
        );
        Ok(KubernetesProvider {
            views: Views::new(connection, setup),
            registrations: Arc::new(registrations),
        })
    }
}
