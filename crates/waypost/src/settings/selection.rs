//! Chooses the provider and its options by the environment.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use waypost_core::provider::{
    EnvProvider, FallbackProvider, LayerPolicy, LayeredProvider, Provider, StaticProvider,
};
use waypost_core::{ConfigError, Environment, Error};

use crate::active_check::ActiveCheck;
use crate::balance::{BalancerOptions, StrategyFactory, factory_named};
use crate::directory::DirectoryOptions;
use crate::outlier::OutlierDetection;

/// The providers that a configuration can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProviderKind {
    /// [`EnvProvider`].
    Env,
    /// [`StaticProvider`].
    Static,
    /// A Consul agent.
    Consul,
    /// DNS servers.
    Dns,
    /// A Kubernetes cluster.
    Kubernetes,
}

/// Makes a provider from its environment variables.
type Build = fn(&Environment) -> Result<Arc<dyn Provider>, Error>;

/// Each kind with its name and its constructor.
const KINDS: &[(ProviderKind, &str, Build)] = &[
    (ProviderKind::Env, "env", |env| {
        Ok(Arc::new(EnvProvider::new(env)))
    }),
    (ProviderKind::Static, "static", build_static),
    (ProviderKind::Consul, "consul", build_consul),
    (ProviderKind::Dns, "dns", build_dns),
    (ProviderKind::Kubernetes, "kubernetes", build_kubernetes),
];

impl ProviderKind {
    /// The name, as in `SERVICE_DISCOVERY_PROVIDER`.
    pub fn as_str(self) -> &'static str {
        let entry = KINDS.iter().find(|(kind, ..)| *kind == self);
        entry.map_or("", |(_, name, _)| name)
    }
}

impl fmt::Display for ProviderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for ProviderKind {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, ConfigError> {
        let entry = KINDS.iter().find(|(_, known, _)| *known == name);
        entry.map(|(kind, ..)| *kind).ok_or_else(|| {
            let names: Vec<_> = KINDS.iter().map(|(_, name, _)| *name).collect();
            ConfigError::new(
                PROVIDER,
                format!(
                    "unknown provider {name:?}; use one of: {}",
                    names.join(", ")
                ),
            )
        })
    }
}

/// Set by Kubernetes in every pod.
const POD: &str = "KUBERNETES_SERVICE_HOST";
const PROVIDER: &str = "SERVICE_DISCOVERY_PROVIDER";
const STRATEGY: &str = "SERVICE_DISCOVERY_STRATEGY";
const ACTIVE_CHECK: &str = "SERVICE_DISCOVERY_ACTIVE_CHECK";
const CONFIG_FILE: &str = "SERVICE_DISCOVERY_CONFIG_FILE";

/// The settings in an environment: which provider to use, and how.
///
/// ```
/// # use waypost::Environment;
/// # use waypost::settings::Settings;
/// let environment = Environment::from_iter([("CONSUL_HOST", "consul.example")]);
/// let settings = Settings::new(environment)?;
/// assert_eq!(settings.kind().as_str(), "consul");
/// assert_eq!(settings.reason(), "CONSUL_HOST is set");
/// # Ok::<(), waypost::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Settings {
    environment: Environment,
    kind: ProviderKind,
    reason: String,
}

impl Settings {
    /// Reads the settings from an environment.
    ///
    /// # Errors
    /// If `SERVICE_DISCOVERY_PROVIDER` names an unknown provider. Other variables are checked when they
    /// are used.
    pub fn new(environment: Environment) -> Result<Self, ConfigError> {
        let (kind, reason) = choose_provider(&environment)?;
        Ok(Self {
            environment,
            kind,
            reason,
        })
    }

    /// Reads the settings from the process's environment.
    ///
    /// # Errors
    /// The same as for [`new`](Self::new).
    pub fn of_this_process() -> Result<Self, ConfigError> {
        Self::new(Environment::of_this_process())
    }

    /// The chosen provider.
    pub fn kind(&self) -> ProviderKind {
        self.kind
    }

    /// Why it was chosen, such as `CONSUL_HOST is set`.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The environment that the settings come from.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Whether `ENVIRONMENT` is `development`.
    pub fn is_development(&self) -> bool {
        self.environment.get("ENVIRONMENT") == Some("development")
    }

    /// The options of the directory.
    ///
    /// # Errors
    /// If a variable is invalid.
    pub fn directory_options(&self) -> Result<DirectoryOptions, ConfigError> {
        Ok(DirectoryOptions {
            max_stale: self.environment.duration("SERVICE_DISCOVERY_MAX_STALE")?,
            snapshot_file: self
                .environment
                .get("SERVICE_DISCOVERY_SNAPSHOT_FILE")
                .map(Into::into),
            outlier_detection: OutlierDetection {
                enabled: (self
                    .environment
                    .flag("SERVICE_DISCOVERY_OUTLIER_DETECTION")?)
                .unwrap_or(true),
                ..OutlierDetection::default()
            },
            active_check: self.active_check()?,
            ..DirectoryOptions::default()
        })
    }

    fn active_check(&self) -> Result<Option<ActiveCheck>, ConfigError> {
        let Some(text) = self.environment.get(ACTIVE_CHECK) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(check) => Ok(Some(check)),
            Err(Error::Config(error)) => Err(error),
            Err(error) => Err(ConfigError::new(ACTIVE_CHECK, error)),
        }
    }

    /// The options of balancers.
    pub fn balancer_options(&self) -> BalancerOptions {
        match self.environment.get("SERVICE_DISCOVERY_ZONE") {
            Some(zone) => BalancerOptions::default().zone(zone),
            None => BalancerOptions::default(),
        }
    }

    /// The strategy, if one is set.
    pub(crate) fn strategy(&self) -> Result<Option<StrategyFactory>, ConfigError> {
        let name = self.environment.get(STRATEGY);
        let strategy = name.map(factory_named).transpose();
        strategy.map_err(|error| ConfigError::new(STRATEGY, error))
    }

    /// Makes the provider; in development, with the fallback to `http://localhost:8000`.
    ///
    /// # Errors
    /// If a variable or the file of services is invalid. The message names it and what is expected.
    pub fn provider(&self) -> Result<Arc<dyn Provider>, Error> {
        let chosen = self.chosen_provider()?;
        if !self.is_development() {
            return Ok(chosen);
        }
        let fallback = FallbackProvider::new(FallbackProvider::LOCALHOST)?;
        let layers = LayeredProvider::new(LayerPolicy::FirstKnown);
        Ok(Arc::new(layers.shared_layer(chosen).layer(fallback)))
    }

    /// Makes the provider without the fallback.
    ///
    /// # Errors
    /// The same as for [`provider`](Self::provider).
    pub fn chosen_provider(&self) -> Result<Arc<dyn Provider>, Error> {
        let entry = KINDS.iter().find(|(kind, ..)| *kind == self.kind);
        let (.., build) = entry.ok_or_else(|| ConfigError::new(PROVIDER, "unknown provider"))?;
        let provider = build(&self.environment)?;
        tracing::info!(
            provider = %provider.describe(),
            reason = self.reason,
            "service discovery provider chosen"
        );
        Ok(provider)
    }
}

/// The provider, and the reason for the choice.
fn choose_provider(environment: &Environment) -> Result<(ProviderKind, String), ConfigError> {
    if let Some(name) = environment.get(PROVIDER) {
        return Ok((name.parse()?, format!("{PROVIDER} is set")));
    }
    let variables = [
        (CONFIG_FILE, ProviderKind::Static),
        ("CONSUL_HTTP_ADDR", ProviderKind::Consul),
        ("CONSUL_HOST", ProviderKind::Consul),
        ("SERVICE_REGISTRY_HOST", ProviderKind::Consul),
    ];
    for (variable, kind) in variables {
        if environment.get(variable).is_some() {
            return Ok((kind, format!("{variable} is set")));
        }
    }
    if environment.get(POD).is_some() {
        return Ok(choose_in_pod(environment));
    }
    let service = environment.iter().find(|(variable, _)| {
        variable.starts_with("SERVICE_")
            && (variable.ends_with("_URL") || variable.ends_with("_HOST"))
    });
    Ok(match service {
        Some((variable, _)) => (ProviderKind::Env, format!("{variable} is set")),
        None => (
            ProviderKind::Consul,
            format!("default; set {PROVIDER} to use another"),
        ),
    })
}

fn build_static(environment: &Environment) -> Result<Arc<dyn Provider>, Error> {
    let path = environment.get(CONFIG_FILE).ok_or_else(|| {
        ConfigError::new(
            CONFIG_FILE,
            "not set; set it to the path of the file of services",
        )
    })?;
    let provider = StaticProvider::open(path).map_err(|error| {
        if error.location() == path {
            // The error is about the whole file, for instance if it can't be read: name the variable too.
            ConfigError::new(CONFIG_FILE, error)
        } else {
            error
        }
    })?;
    Ok(Arc::new(provider))
}

#[cfg(feature = "consul")]
fn build_consul(environment: &Environment) -> Result<Arc<dyn Provider>, Error> {
    let provider = waypost_consul::ConsulProvider::from_environment(environment)?;
    Ok(Arc::new(provider))
}

#[cfg(not(feature = "consul"))]
fn build_consul(_: &Environment) -> Result<Arc<dyn Provider>, Error> {
    let problem = "consul is set, but this program was built without the feature `consul`";
    Err(ConfigError::new(PROVIDER, problem).into())
}

#[cfg(feature = "dns")]
fn build_dns(environment: &Environment) -> Result<Arc<dyn Provider>, Error> {
    let provider = waypost_dns::DnsProvider::from_environment(environment)?;
    Ok(Arc::new(provider))
}

#[cfg(not(feature = "dns"))]
fn build_dns(_: &Environment) -> Result<Arc<dyn Provider>, Error> {
    let problem = "dns is set, but this program was built without the feature `dns`";
    Err(ConfigError::new(PROVIDER, problem).into())
}

#[cfg(feature = "kubernetes")]
fn choose_in_pod(environment: &Environment) -> (ProviderKind, String) {
    match waypost_kubernetes::check_service_account(environment) {
        Ok(()) => {
            let reason = format!("{POD} is set and the service account's token is readable");
            (ProviderKind::Kubernetes, reason)
        }
        Err(why) => {
            let reason =
                format!("{POD} is set, but {why}; using the variables that Kubernetes injects");
            (ProviderKind::Env, reason)
        }
    }
}

#[cfg(not(feature = "kubernetes"))]
fn choose_in_pod(_: &Environment) -> (ProviderKind, String) {
    let reason = format!(
        "{POD} is set, but this program was built without the feature `kubernetes`; \
         using the variables that Kubernetes injects"
    );
    (ProviderKind::Env, reason)
}

#[cfg(feature = "kubernetes")]
fn build_kubernetes(environment: &Environment) -> Result<Arc<dyn Provider>, Error> {
    let provider = waypost_kubernetes::KubernetesProvider::from_environment(environment)?;
    Ok(Arc::new(provider))
}

#[cfg(not(feature = "kubernetes"))]
fn build_kubernetes(_: &Environment) -> Result<Arc<dyn Provider>, Error> {
    let problem = "kubernetes is set, but this program was built without the feature `kubernetes`; \
         in a pod, `env` finds the services of the pod's namespace";
    Err(ConfigError::new(PROVIDER, problem).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        Settings::new(variables.iter().copied().collect())
    }

    #[test]
    fn the_provider_is_chosen_in_the_documented_order() {
        for (variables, kind, reason) in [
            (&[][..], "consul", "default"),
            (&[("DATABASE_URL", "http://a")], "consul", "default"),
            (&[("SERVICE_NAME", "auth")], "consul", "default"),
            (
                &[("SERVICE_AUTH_URL", "http://a")],
                "env",
                "SERVICE_AUTH_URL is set",
            ),
            (
                &[
                    ("SERVICE_AUTH_URL", "http://a"),
                    ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
                ],
                "env",
                "KUBERNETES_SERVICE_HOST is set",
            ),
            (
                &[
                    ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
                    ("CONSUL_HTTP_ADDR", "c:8500"),
                ],
                "consul",
                "CONSUL_HTTP_ADDR is set",
            ),
            (
                &[
                    ("SERVICE_REGISTRY_HOST", "localhost"),
                    ("SERVICE_DISCOVERY_CONFIG_FILE", "f"),
                ],
                "static",
                "SERVICE_DISCOVERY_CONFIG_FILE is set",
            ),
            (
                &[
                    ("SERVICE_DISCOVERY_CONFIG_FILE", "f"),
                    ("SERVICE_DISCOVERY_PROVIDER", "env"),
                ],
                "env",
                "SERVICE_DISCOVERY_PROVIDER is set",
            ),
            (
                &[("CONSUL_HOST", ""), ("SERVICE_AUTH_HOST", "a")],
                "env",
                "SERVICE_AUTH_HOST",
            ),
        ] {
            let settings = settings(variables).unwrap();
            assert_eq!(settings.kind().as_str(), kind, "{variables:?}");
            assert!(settings.reason().contains(reason), "{}", settings.reason());
        }
    }

    #[cfg(feature = "kubernetes")]
    #[test]
    fn a_pod_uses_the_kubernetes_api_with_a_token_and_injected_variables_without() {
        let folder = tempfile::tempdir().unwrap();
        let account = folder.path().to_str().unwrap().to_owned();
        let pod = [
            ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
            ("WAYPOST_SERVICE_ACCOUNT_DIR", &account),
        ];
        let without = settings(&pod).unwrap();
        assert_eq!(without.kind(), ProviderKind::Env);
        assert!(
            without.reason().contains("can't be read"),
            "{}",
            without.reason()
        );
        std::fs::write(folder.path().join("token"), "abc").unwrap();
        let with = settings(&pod).unwrap();
        assert_eq!(with.kind(), ProviderKind::Kubernetes);
        let error = with.provider().unwrap_err().to_string();
        assert!(error.contains("ca.crt"), "{error}");
    }

    #[test]
    fn the_error_about_an_unknown_provider_lists_the_known_ones() {
        let error = settings(&[("SERVICE_DISCOVERY_PROVIDER", "etcd")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "SERVICE_DISCOVERY_PROVIDER: unknown provider \"etcd\"; \
             use one of: env, static, consul, dns, kubernetes"
        );
    }

    #[test]
    fn load_balancing_is_configured_by_the_environment() {
        let settings = settings(&[
            ("SERVICE_DISCOVERY_OUTLIER_DETECTION", "false"),
            ("SERVICE_DISCOVERY_ACTIVE_CHECK", "tcp"),
            ("SERVICE_DISCOVERY_ZONE", "eu-1"),
        ])
        .unwrap();
        let options = settings.directory_options().unwrap();
        assert!(!options.outlier_detection.enabled);
        assert!(options.active_check.is_some());
        assert_eq!(settings.balancer_options().zone.as_deref(), Some("eu-1"));
    }

    #[test]
    fn an_invalid_load_balancing_setting_names_the_variable_and_the_valid_values() {
        let error_of = |variable: &str, value: &str| {
            let settings = settings(&[(variable, value)]).unwrap();
            let options = settings.directory_options().map(|_| ());
            let result = options.and_then(|()| settings.strategy().map(|_| ()));
            result.unwrap_err().to_string()
        };
        for (variable, value, hint) in [
            ("SERVICE_DISCOVERY_STRATEGY", "best", "round_robin, "),
            (
                "SERVICE_DISCOVERY_OUTLIER_DETECTION",
                "maybe",
                "true or false",
            ),
            ("SERVICE_DISCOVERY_ACTIVE_CHECK", "udp", "http:/health"),
        ] {
            let error = error_of(variable, value);
            assert!(
                error.starts_with(variable) && error.contains(hint),
                "{error}"
            );
        }
    }

    #[test]
    fn the_error_about_a_missing_file_names_the_variable_and_the_file() {
        let settings = settings(&[("SERVICE_DISCOVERY_CONFIG_FILE", "/no/such.yaml")]).unwrap();
        let error = settings.provider().unwrap_err().to_string();
        assert!(
            error.starts_with("SERVICE_DISCOVERY_CONFIG_FILE: /no/such.yaml"),
            "{error}"
        );
    }
}
