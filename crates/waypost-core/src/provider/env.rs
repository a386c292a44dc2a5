//! A provider that reads services from environment variables.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::{StreamExt, stream};

use super::traits::{NamesWatch, Provider, ServiceAnswer, Watch};
use crate::environment::{Environment, is_service_link, parse_port};
use crate::error::{ConfigError, ProviderError};
use crate::model::{Host, Instance, InstanceBuilder, ServiceName};

/// Reads services from environment variables, one instance per service.
///
/// | variable | meaning |
/// |---|---|
/// | `SERVICE_<NAME>_URL` | the service's URL; takes precedence over the other variables |
/// | `SERVICE_<NAME>_HOST` | its host |
/// | `SERVICE_<NAME>_PORT` | its port; 80 if only the host is set |
/// | `<NAME>_SERVICE_HOST`, `<NAME>_SERVICE_PORT` | its host and port as Kubernetes injects them into pods; used if none of the above is set |
///
/// `<NAME>` is the service's name in upper case with `_` for `-` and `.`: `user-api` is `USER_API`.
/// A look-up therefore finds a service by any of these spellings, while the list of names has them in
/// lower case with `-`.
///
/// The environment also holds variables of other programs. Therefore an invalid variable fails only
/// the look-ups of its own service, and a port without a host, or one that is a service link of
/// Kubernetes (`SERVICE_AUTH_PORT=tcp://10.0.0.1:80`), is ignored.
///
/// ```
/// # use waypost_core::{Environment, provider::{EnvProvider, Provider}};
/// let variables = Environment::from_iter([("SERVICE_AUTH_URL", "http://auth-service:5001")]);
/// let provider = EnvProvider::new(&variables);
/// assert!(!provider.is_empty());
/// ```
#[derive(Clone, Debug)]
pub struct EnvProvider {
    /// The instance of each service, or the problem of its variables.
    services: Arc<BTreeMap<String, Result<InstanceBuilder, ConfigError>>>,
}

impl EnvProvider {
    /// Reads the variables. Invalid ones are logged.
    pub fn new(environment: &Environment) -> Self {
        let mut services = BTreeMap::new();
        for (key, variables) in variables_by_service(environment) {
            let Some(instance) = variables.instance(&key).transpose() else {
                continue;
            };
            if let Err(error) = &instance {
                tracing::warn!(%error, "invalid variable, look-ups of this service fail");
            }
            services.insert(key, instance);
        }
        Self {
            services: Arc::new(services),
        }
    }

    /// Whether the environment has no service.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    fn answer(&self, service: &ServiceName) -> Result<ServiceAnswer, ProviderError> {
        let Some(instance) = self.services.get(&key_of(service)) else {
            return Ok(ServiceAnswer::Unknown);
        };
        let misconfigured = |error| ProviderError::misconfigured(self.describe(), error);
        let builder = instance.clone().map_err(misconfigured)?;
        // The instance has the name that was looked up, in that spelling.
        Ok(match builder.service(service.clone()).build() {
            Ok(instance) => ServiceAnswer::Instances(vec![Arc::new(instance)]),
            Err(_) => ServiceAnswer::Unknown,
        })
    }
}

impl Provider for EnvProvider {
    fn describe(&self) -> Arc<str> {
        "environment variables".into()
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        // The environment doesn't change, so there is only one answer.
        let answer = self.answer(service);
        stream::iter([answer]).chain(stream::pending()).boxed()
    }

    fn watch_names(&self) -> NamesWatch {
        let names: BTreeSet<_> = self
            .services
            .keys()
            .filter_map(|key| name_of(key))
            .collect();
        stream::iter([Ok(names)]).chain(stream::pending()).boxed()
    }
}

/// `user-api` → `USER_API`.
fn key_of(service: &ServiceName) -> String {
    let upper = service.as_str().to_ascii_uppercase();
    upper.replace(['-', '.'], "_")
}

/// `USER_API` → `user-api`, the usual spelling of a service's name.
fn name_of(key: &str) -> Option<ServiceName> {
    let lower = key.to_ascii_lowercase();
    ServiceName::new(&lower.replace('_', "-")).ok()
}

/// The variables of one service. Each is a pair of name and value, so that errors can name it.
#[derive(Default)]
struct Variables<'a> {
    url: Option<(&'a str, &'a str)>,
    host: Option<(&'a str, &'a str)>,
    port: Option<(&'a str, &'a str)>,
    injected_host: Option<(&'a str, &'a str)>,
    injected_port: Option<(&'a str, &'a str)>,
}

/// Waypost's own settings, whose names have the form of a service's variables.
const SETTINGS: [&str; 3] = [
    "SERVICE_REGISTRY_HOST",
    "SERVICE_REGISTRY_PORT",
    "SERVICE_REGISTRY_URL",
];

/// What a variable sets.
#[derive(Clone, Copy)]
enum Field {
    Url,
    Host,
    Port,
    InjectedHost,
    InjectedPort,
}

/// The prefix and suffix of each variable. The first match is used: `SERVICE_X_SERVICE_HOST` is the
/// host of `X_SERVICE`.
const FORMS: [(&str, &str, Field); 5] = [
    ("SERVICE_", "_URL", Field::Url),
    ("SERVICE_", "_HOST", Field::Host),
    ("SERVICE_", "_PORT", Field::Port),
    ("", "_SERVICE_HOST", Field::InjectedHost),
    ("", "_SERVICE_PORT", Field::InjectedPort),
];

/// The `<NAME>` in a variable's name, and what the variable sets.
fn parse_variable(variable: &str) -> Option<(&str, Field)> {
    FORMS.iter().find_map(|(prefix, suffix, field)| {
        let key = variable.strip_prefix(prefix)?.strip_suffix(suffix)?;
        name_of(key).map(|_| (key, *field))
    })
}

fn variables_by_service(environment: &Environment) -> BTreeMap<String, Variables<'_>> {
    let mut services: BTreeMap<String, Variables<'_>> = BTreeMap::new();
    for (variable, value) in environment.iter() {
        if SETTINGS.contains(&variable) {
            continue;
        }
        let Some((key, field)) = parse_variable(variable) else {
            continue;
        };
        let variables = services.entry(key.to_owned()).or_default();
        let field = match field {
            Field::Url => &mut variables.url,
            Field::Host => &mut variables.host,
            Field::Port => &mut variables.port,
            Field::InjectedHost => &mut variables.injected_host,
            Field::InjectedPort => &mut variables.injected_port,
        };
        *field = Some((variable, value));
    }
    services
}

impl Variables<'_> {
    /// A builder of the instance; `None` if the variables don't define one.
    fn instance(&self, key: &str) -> Result<Option<InstanceBuilder>, ConfigError> {
        let Some(name) = name_of(key) else {
            return Ok(None);
        };
        if let Some((variable, url)) = self.url {
            return Instance::from_url(name, url)
                .and_then(|builder| builder.clone().build().map(|_| Some(builder)))
                .map_err(|invalid| ConfigError::new(variable, invalid));
        }
        if let Some(host) = self.host {
            let port = self
                .port
                .filter(|(name, port)| !is_service_link(name, port));
            return host_and_port(name, host, port).map(Some);
        }
        if let Some((variable, _)) = self.port {
            tracing::debug!(variable, "ignoring a port without a host");
        }
        // Kubernetes sets both; one without the other is an unrelated variable.
        match (self.injected_host, self.injected_port) {
            (Some(host), port @ Some(_)) => host_and_port(name, host, port).map(Some),
            _ => Ok(None),
        }
    }
}

fn host_and_port(
    name: ServiceName,
    (variable, host): (&str, &str),
    port: Option<(&str, &str)>,
) -> Result<InstanceBuilder, ConfigError> {
    let port = port
        .map(|(variable, value)| parse_port(variable, value))
        .transpose()?;
    let host: Host = host
        .parse()
        .map_err(|invalid| ConfigError::new(variable, invalid))?;
    Ok(Instance::builder(name, host, port.unwrap_or(80)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn provider(variables: &[(&str, &str)]) -> EnvProvider {
        EnvProvider::new(&variables.iter().copied().collect())
    }

    fn url(provider: &EnvProvider, service: &str) -> Option<String> {
        match provider.answer(&ServiceName::new(service).unwrap()) {
            Ok(ServiceAnswer::Instances(instances)) => Some(instances[0].url().to_owned()),
            Ok(ServiceAnswer::Unknown) => None,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn each_form_is_read_and_the_url_takes_precedence() {
        let env = provider(&[
            ("SERVICE_AUTH_URL", "https://auth-service:5001/v1/"),
            ("SERVICE_AUTH_HOST", "elsewhere"),
            ("SERVICE_AUTH_PORT", "1"),
            ("SERVICE_BACKEND_HOST", "backend-service"),
            ("SERVICE_BACKEND_PORT", "5000"),
            ("SERVICE_USER_API_HOST", "10.0.0.7"),
            ("REDIS_MASTER_SERVICE_HOST", "10.0.0.11"),
            ("REDIS_MASTER_SERVICE_PORT", "6379"),
            ("BACKEND_SERVICE_HOST", "10.0.0.12"),
            ("BACKEND_SERVICE_PORT", "1"),
            ("SERVICE_REGISTRY_HOST", "localhost"),
            ("SERVICE_REGISTRY_PORT", "8500"),
            ("SERVICE_EMPTY_URL", ""),
        ]);
        for (service, expected) in [
            ("auth", "https://auth-service:5001/v1"),
            ("backend", "http://backend-service:5000"),
            ("user-api", "http://10.0.0.7:80"),
            ("user.api", "http://10.0.0.7:80"),
            ("redis-master", "http://10.0.0.11:6379"),
        ] {
            assert_eq!(url(&env, service).as_deref(), Some(expected), "{service}");
        }
        for unknown in ["registry", "empty", "nope"] {
            assert_eq!(url(&env, unknown), None, "{unknown}");
        }
        assert!(!env.is_empty());
        assert!(provider(&[("SERVICE_REGISTRY_HOST", "localhost")]).is_empty());
        // It fails its look-ups, so a program must be told of it.
        assert!(!provider(&[("SERVICE_AUTH_URL", "auth:80:80")]).is_empty());
    }

    #[test]
    fn an_invalid_variable_fails_only_its_own_service_and_is_named_in_the_error() {
        for (service, variables) in [
            ("auth", &[("SERVICE_AUTH_URL", "auth:80:80")][..]),
            ("auth", &[("SERVICE_AUTH_URL", "http://auth:port")]),
            (
                "auth",
                &[("SERVICE_AUTH_PORT", "70000"), ("SERVICE_AUTH_HOST", "a")],
            ),
            ("auth", &[("SERVICE_AUTH_HOST", "not a host")]),
            (
                "redis",
                &[("REDIS_SERVICE_PORT", "x"), ("REDIS_SERVICE_HOST", "a")],
            ),
        ] {
            let good = [("SERVICE_WEB_URL", "http://web")];
            let env = provider(&[variables, &good].concat());
            assert_eq!(url(&env, "web").as_deref(), Some("http://web:80"));
            assert_eq!(url(&env, "other"), None);
            let error = env.answer(&service.parse().unwrap()).unwrap_err();
            let Error::Config(error) = error.into() else {
                panic!("{variables:?}");
            };
            assert_eq!(error.location(), variables[0].0, "{error}");
        }
    }

    #[test]
    fn variables_that_belong_to_other_programs_are_ignored() {
        let env = provider(&[
            ("SERVICE_WEB_URL", "http://web"),
            // A program's own setting.
            ("SERVICE_METRICS_PORT", "9090"),
            ("SERVICE_DEBUG_PORT", "no number"),
            // The service link of a Service named `service-auth`, alone and beside a host.
            ("SERVICE_AUTH_PORT", "tcp://10.0.0.1:80"),
            ("SERVICE_BACKEND_PORT", "tcp://10.0.0.1:80"),
            ("SERVICE_BACKEND_HOST", "backend"),
            // Overridden by a URL.
            ("SERVICE_WEB_HOST", "not a host"),
            ("SERVICE_WEB_PORT", "x"),
        ]);
        for (service, expected) in [
            ("web", Some("http://web:80")),
            ("metrics", None),
            ("debug", None),
            ("auth", None),
            ("backend", Some("http://backend:80")),
        ] {
            assert_eq!(url(&env, service).as_deref(), expected, "{service}");
        }
    }
}
