//! Which provider to use, told by the environment.
//!
//! # Which provider
//! The first line that applies decides:
//!
//! | environment | provider |
//! |---|---|
//! | `SERVICE_DISCOVERY_PROVIDER` | the one that it names: `env`, `static`, `consul`, `kubernetes` |
//! | `SERVICE_DISCOVERY_CONFIG_FILE` | `static` |
//! | `CONSUL_HTTP_ADDR`, `CONSUL_HOST` or `SERVICE_REGISTRY_HOST` | `consul` |
//! | `KUBERNETES_SERVICE_HOST` (set in every pod), and the service account's token can be read | `kubernetes` |
//! | `KUBERNETES_SERVICE_HOST`, without a token | `env`, for the variables that Kubernetes injects |
//! | a `SERVICE_<NAME>_URL` or `SERVICE_<NAME>_HOST` | `env` |
//! | none of these | `consul`, on this machine at port 8500 |
//!
//! # Where Consul is
//! Variables made for us outweigh those made for Consul's own tools, which outweigh those of the
//! stack; each is read by itself, so that a token may come from one and an address from another.
//!
//! | what | variables, the first that is set | otherwise |
//! |---|---|---|
//! | host | `CONSUL_HOST`, `CONSUL_HTTP_ADDR`, `SERVICE_REGISTRY_HOST` | `localhost` |
//! | port | `CONSUL_PORT`, `CONSUL_HTTP_ADDR`, `SERVICE_REGISTRY_PORT` | 8500 |
//! | scheme | `CONSUL_HTTP_ADDR`, `CONSUL_HTTP_SSL` | `http` |
//! | token | `CONSUL_TOKEN`, `CONSUL_HTTP_TOKEN`, the file that `CONSUL_HTTP_TOKEN_FILE` names | none |
//! | CAs to trust | `CONSUL_CACERT` (a file), `CONSUL_CAPATH` (a folder) | the system's |
//! | our certificate | `CONSUL_CLIENT_CERT`, `CONSUL_CLIENT_KEY` | none |
//! | name in the agent's certificate | `CONSUL_TLS_SERVER_NAME` | the host |
//! | check of the agent's certificate | `CONSUL_HTTP_SSL_VERIFY` | `true` |
//! | namespace, partition | `CONSUL_NAMESPACE`, `CONSUL_PARTITION` | none |
//!
//! `CONSUL_HTTP_ADDR` may also be a socket, `unix:///path`, or several addresses with commas
//! between them: then services are looked up with the next one where one doesn't answer.
//!
//! # Where Kubernetes is
//! The first line that applies decides, as with `kubectl`:
//!
//! | environment | configuration |
//! |---|---|
//! | `KUBECONFIG` | the files that it names, with `:` between them |
//! | `KUBERNETES_SERVICE_HOST`, `KUBERNETES_SERVICE_PORT` | the pod's: server by these, token and CA by its service account |
//! | otherwise | `~/.kube/config` |
//!
//! | what | variables, the first that is set | otherwise |
//! |---|---|---|
//! | namespace of names without one | `KUBERNETES_NAMESPACE` | the pod's, the context's, `default` |
//! | context of the kubeconfig | `KUBERNETES_CONTEXT` | its current one |
//! | domain of the cluster's DNS | `KUBERNETES_CLUSTER_DOMAIN` | `cluster.local` |
//! | folder of the service account | `WAYPOST_SERVICE_ACCOUNT_DIR` | `/var/run/secrets/kubernetes.io/serviceaccount` |
//! | proxy before the server | the kubeconfig's `proxy-url`, `HTTPS_PROXY` unless `NO_PROXY` | none |
//!
//! # While the provider fails
//! | what | variable | otherwise |
//! |---|---|---|
//! | for how long old answers are good | `SERVICE_DISCOVERY_MAX_STALE`, such as `10m` | for ever |
//! | where answers are kept for a start while the provider is down | `SERVICE_DISCOVERY_SNAPSHOT_FILE` | nowhere |
//!
//! # Load balancing
//! | what | variable | otherwise |
//! |---|---|---|
//! | strategy, by its [name](crate::balance::strategy_named) | `SERVICE_DISCOVERY_STRATEGY`, such as `least_connections` | `round_robin` |
//! | our zone, whose instances are preferred | `SERVICE_DISCOVERY_ZONE` | none |
//! | ejection for failed requests | `SERVICE_DISCOVERY_OUTLIER_DETECTION` | `true` |
//! | [checks](crate::ActiveCheck) of our own | `SERVICE_DISCOVERY_ACTIVE_CHECK`: `tcp`, or `http:/health` with the feature `http-check` | none |
//!
//! What a program sets in code outweighs these.
//!
//! # Development
//! With `ENVIRONMENT=development` a service that the provider doesn't know, or can't be asked for,
//! is looked for at `http://localhost:8000`, where the gateway listens.

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

/// The kinds of provider that a configuration can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProviderKind {
    /// [`EnvProvider`].
    Env,
    /// [`StaticProvider`].
    Static,
    /// A Consul agent.
    Consul,
    /// A Kubernetes cluster.
    Kubernetes,
}

/// Makes a provider from what the environment says of it.
type Build = fn(&Environment) -> Result<Arc<dyn Provider>, Error>;

/// Each kind, its name, and how it is made: a new provider is one line here.
const KINDS: &[(ProviderKind, &str, Build)] = &[
    (ProviderKind::Env, "env", |env| {
        Ok(Arc::new(EnvProvider::new(env)?))
    }),
    (ProviderKind::Static, "static", build_static),
    (ProviderKind::Consul, "consul", build_consul),
    (ProviderKind::Kubernetes, "kubernetes", build_kubernetes),
];

impl ProviderKind {
    /// Its name, as in `SERVICE_DISCOVERY_PROVIDER`.
    pub fn as_str(self) -> &'static str {
        let known = KINDS.iter().find(|(kind, ..)| *kind == self);
        known.map_or("", |(_, name, _)| name)
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
        let known = KINDS.iter().find(|(_, known, _)| *known == name);
        known.map(|(kind, ..)| *kind).ok_or_else(|| {
            let names: Vec<_> = KINDS.iter().map(|(_, name, _)| *name).collect();
            ConfigError::new(
                PROVIDER,
                format!("{name:?} is no provider; use one of: {}", names.join(", ")),
            )
        })
    }
}

/// Kubernetes sets it in every pod.
const IN_A_POD: &str = "KUBERNETES_SERVICE_HOST";
const PROVIDER: &str = "SERVICE_DISCOVERY_PROVIDER";
const STRATEGY: &str = "SERVICE_DISCOVERY_STRATEGY";
const ACTIVE_CHECK: &str = "SERVICE_DISCOVERY_ACTIVE_CHECK";
const CONFIG_FILE: &str = "SERVICE_DISCOVERY_CONFIG_FILE";

/// Which provider the environment asks for, and why.
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
    /// Decides by the given environment.
    ///
    /// # Errors
    /// If `SERVICE_DISCOVERY_PROVIDER` names an unknown provider.
    pub fn new(environment: Environment) -> Result<Self, ConfigError> {
        let (kind, reason) = choose(&environment)?;
        Ok(Self {
            environment,
            kind,
            reason,
        })
    }

    /// Decides by this process's environment.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of_this_process() -> Result<Self, ConfigError> {
        Self::new(Environment::of_this_process())
    }

    /// The kind of provider that was chosen.
    pub fn kind(&self) -> ProviderKind {
        self.kind
    }

    /// Why it was chosen.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// What the choice was made by.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Whether `ENVIRONMENT` says that this is development.
    pub fn is_development(&self) -> bool {
        self.environment.get("ENVIRONMENT") == Some("development")
    }

    /// How a directory of this provider is to behave.
    ///
    /// # Errors
    /// If a variable is bad.
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
        let check = self.environment.get(ACTIVE_CHECK).map(str::parse);
        let check: Option<Result<_, Error>> = check;
        check.transpose().map_err(|fault| match fault {
            Error::Config(fault) => fault,
            fault => ConfigError::new(ACTIVE_CHECK, fault),
        })
    }

    /// How the weights of instances are changed before a strategy sees them.
    pub fn balancer_options(&self) -> BalancerOptions {
        match self.environment.get("SERVICE_DISCOVERY_ZONE") {
            Some(zone) => BalancerOptions::default().zone(zone),
            None => BalancerOptions::default(),
        }
    }

    /// The strategy that the environment names, if it names one.
    pub(crate) fn strategy(&self) -> Result<Option<StrategyFactory>, ConfigError> {
        let strategy = self
            .environment
            .get(STRATEGY)
            .map(factory_named)
            .transpose();
        strategy.map_err(|fault| ConfigError::new(STRATEGY, fault))
    }

    /// The provider, and under it the fallback where this is development.
    ///
    /// # Errors
    /// If a variable or the file is bad: it says which and what would be right.
    pub fn provider(&self) -> Result<Arc<dyn Provider>, Error> {
        let chosen = self.chosen_provider()?;
        if !self.is_development() {
            return Ok(chosen);
        }
        let fallback = FallbackProvider::new(FallbackProvider::LOCALHOST)?;
        let layers = LayeredProvider::new(LayerPolicy::FirstKnown);
        Ok(Arc::new(layers.shared_layer(chosen).layer(fallback)))
    }

    /// The provider alone, without the fallback of development.
    ///
    /// # Errors
    /// As [`provider`](Self::provider).
    pub fn chosen_provider(&self) -> Result<Arc<dyn Provider>, Error> {
        let build = KINDS.iter().find(|(kind, ..)| *kind == self.kind);
        let (.., build) = build.ok_or_else(|| ConfigError::new(PROVIDER, "no such provider"))?;
        let chosen = build(&self.environment)?;
        tracing::info!(
            provider = %chosen.describe(),
            reason = self.reason,
            "service discovery provider chosen"
        );
        Ok(chosen)
    }
}

fn choose(environment: &Environment) -> Result<(ProviderKind, String), ConfigError> {
    if let Some(name) = environment.get(PROVIDER) {
        return Ok((name.parse()?, format!("{PROVIDER} names it")));
    }
    let signs = [
        (CONFIG_FILE, ProviderKind::Static),
        ("CONSUL_HTTP_ADDR", ProviderKind::Consul),
        ("CONSUL_HOST", ProviderKind::Consul),
        ("SERVICE_REGISTRY_HOST", ProviderKind::Consul),
    ];
    if let Some((variable, kind)) = signs
        .into_iter()
        .find(|(variable, _)| environment.get(variable).is_some())
    {
        return Ok((kind, format!("{variable} is set")));
    }
    if environment.get(IN_A_POD).is_some() {
        return Ok(in_a_pod(environment));
    }
    let names_service = environment.iter().find(|(variable, _)| {
        variable.starts_with("SERVICE_")
            && (variable.ends_with("_URL") || variable.ends_with("_HOST"))
    });
    Ok(match names_service {
        Some((variable, _)) => (ProviderKind::Env, format!("{variable} is set")),
        None => (
            ProviderKind::Consul,
            format!("nothing is set; {PROVIDER} would choose another"),
        ),
    })
}

fn build_static(environment: &Environment) -> Result<Arc<dyn Provider>, Error> {
    let path = environment.get(CONFIG_FILE).ok_or_else(|| {
        ConfigError::new(CONFIG_FILE, "is not set; name the file with the services")
    })?;
    let provider = StaticProvider::open(path).map_err(|error| match error.location() == path {
        // The file can't be read: it is the variable that is wrong.
        true => ConfigError::new(CONFIG_FILE, error),
        false => error,
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
    let problem = "consul is wanted, but this program was built without the feature `consul`";
    Err(ConfigError::new(PROVIDER, problem).into())
}

#[cfg(feature = "kubernetes")]
fn in_a_pod(environment: &Environment) -> (ProviderKind, String) {
    match waypost_kubernetes::check_service_account(environment) {
        Ok(()) => {
            let reason = format!("{IN_A_POD} is set, and a token is there");
            (ProviderKind::Kubernetes, reason)
        }
        Err(why) => {
            let reason = format!(
                "{IN_A_POD} is set, but {why}; the variables that Kubernetes injects are used"
            );
            (ProviderKind::Env, reason)
        }
    }
}

#[cfg(not(feature = "kubernetes"))]
fn in_a_pod(_: &Environment) -> (ProviderKind, String) {
    let reason = format!(
        "{IN_A_POD} is set, but this program was built without the feature `kubernetes`; \
         the variables that Kubernetes injects are used"
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
    let problem = "kubernetes is wanted, but this program was built without the feature `kubernetes`; \
         in a pod, `env` finds the services of its namespace";
    Err(ConfigError::new(PROVIDER, problem).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        Settings::new(variables.iter().copied().collect())
    }

    #[test]
    fn the_environment_decides_in_the_order_written() {
        for (variables, kind, reason) in [
            (&[][..], "consul", "nothing is set"),
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
                "SERVICE_DISCOVERY_PROVIDER names it",
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
    fn a_pod_with_a_token_uses_the_api_and_one_without_the_injected_variables() {
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
    fn an_unknown_provider_lists_the_known_ones() {
        let error = settings(&[("SERVICE_DISCOVERY_PROVIDER", "etcd")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "SERVICE_DISCOVERY_PROVIDER: \"etcd\" is no provider; \
             use one of: env, static, consul, kubernetes"
        );
    }

    #[test]
    fn the_environment_says_how_loads_are_balanced() {
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
    fn a_bad_word_about_load_balancing_names_the_variable_and_what_is_right() {
        let fault = |variable: &str, value: &str| {
            let settings = settings(&[(variable, value)]).unwrap();
            let options = settings.directory_options().map(|_| ());
            let fault = options.and_then(|()| settings.strategy().map(|_| ()));
            fault.unwrap_err().to_string()
        };
        for (variable, value, hint) in [
            ("SERVICE_DISCOVERY_STRATEGY", "best", "round_robin, "),
            (
                "SERVICE_DISCOVERY_OUTLIER_DETECTION",
                "maybe",
                "true nor false",
            ),
            ("SERVICE_DISCOVERY_ACTIVE_CHECK", "udp", "http:/health"),
        ] {
            let fault = fault(variable, value);
            assert!(
                fault.starts_with(variable) && fault.contains(hint),
                "{fault}"
            );
        }
    }

    #[test]
    fn a_missing_file_names_the_variable_and_the_file() {
        let settings = settings(&[("SERVICE_DISCOVERY_CONFIG_FILE", "/no/such.yaml")]).unwrap();
        let error = settings.provider().unwrap_err().to_string();
        assert!(
            error.starts_with("SERVICE_DISCOVERY_CONFIG_FILE: /no/such.yaml"),
            "{error}"
        );
    }
}
