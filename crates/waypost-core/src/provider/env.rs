use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::{StreamExt, stream};

use super::{Answer, NamesWatch, Provider, Watch};
use crate::environment::{Environment, parse_port};
use crate::error::ConfigError;
use crate::model::{Host, Instance, InstanceBuilder, ServiceName};

/// Services from environment variables: the simplest provider, one instance per service.
///
/// | variable | says |
/// |---|---|
/// | `SERVICE_<NAME>_URL` | the service's URL; what it says wins over the next two |
/// | `SERVICE_<NAME>_HOST` | its host |
/// | `SERVICE_<NAME>_PORT` | its port; 80 if only the host is set |
/// | `<NAME>_SERVICE_HOST`, `<NAME>_SERVICE_PORT` | the same, as Kubernetes injects it into pods; used where none of the above is set |
///
/// In `<NAME>` the service's name stands in capitals with `_` for `-` and `.`: `user-api` is
/// `USER_API`. Names that the environment lists therefore come back in small letters with `-`,
/// while a look-up finds each spelling.
///
/// ```
/// # use waypost_core::{Environment, provider::EnvProvider};
/// let variables = Environment::from_iter([("SERVICE_AUTH_PORT", "http")]);
/// let error = EnvProvider::new(&variables).unwrap_err();
/// assert!(error.to_string().starts_with("SERVICE_AUTH_PORT: "));
/// ```
#[derive(Clone, Debug)]
pub struct EnvProvider {
    services: Arc<BTreeMap<String, InstanceBuilder>>,
}

impl EnvProvider {
    /// Reads the variables. The first bad one is the error.
    pub fn new(environment: &Environment) -> Result<Self, ConfigError> {
        let mut services = BTreeMap::new();
        for (key, variables) in variables_by_service(environment) {
            if let Some(builder) = variables.instance(&key)? {
                services.insert(key, builder);
            }
        }
        Ok(Self {
            services: Arc::new(services),
        })
    }

    /// Whether the environment names no service at all.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    fn answer(&self, service: &ServiceName) -> Answer {
        let found = self.services.get(&key_of(service)).and_then(|builder| {
            // The instance bears the name that was asked for, whichever spelling that is.
            let named = builder.clone().of_service(service.clone());
            named.build().ok()
        });
        match found {
            Some(instance) => Answer::Instances(vec![Arc::new(instance)]),
            None => Answer::Unknown,
        }
    }
}

impl Provider for EnvProvider {
    fn describe(&self) -> Arc<str> {
        "environment variables".into()
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        // A process's environment doesn't change, so the first answer is the last.
        stream::once(std::future::ready(Ok(self.answer(service))))
            .chain(stream::pending())
            .boxed()
    }

    fn watch_names(&self) -> NamesWatch {
        let names: BTreeSet<_> = self
            .services
            .keys()
            .filter_map(|key| name_of(key))
            .collect();
        stream::once(std::future::ready(Ok(names)))
            .chain(stream::pending())
            .boxed()
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

/// The variables about one service: each with its own name, for errors.
#[derive(Default)]
struct Variables<'a> {
    url: Option<(&'a str, &'a str)>,
    host: Option<(&'a str, &'a str)>,
    port: Option<(&'a str, &'a str)>,
    injected_host: Option<(&'a str, &'a str)>,
    injected_port: Option<(&'a str, &'a str)>,
}

/// Spelled like a service's variables, but settings of ours or the cluster's own address.
const NOT_SERVICES: [&str; 3] = [
    "SERVICE_REGISTRY_HOST",
    "SERVICE_REGISTRY_PORT",
    "SERVICE_REGISTRY_URL",
];

#[derive(Clone, Copy)]
enum Says {
    Url,
    Host,
    Port,
    InjectedHost,
    InjectedPort,
}

/// How a service's variables begin and end. The first form that fits counts:
/// `SERVICE_X_SERVICE_HOST` is the host of `X_SERVICE`.
const FORMS: [(&str, &str, Says); 5] = [
    ("SERVICE_", "_URL", Says::Url),
    ("SERVICE_", "_HOST", Says::Host),
    ("SERVICE_", "_PORT", Says::Port),
    ("", "_SERVICE_HOST", Says::InjectedHost),
    ("", "_SERVICE_PORT", Says::InjectedPort),
];

/// The `<NAME>` in a variable's name, and what the variable says of that service.
fn what_it_says(variable: &str) -> Option<(&str, Says)> {
    FORMS.iter().find_map(|(prefix, suffix, says)| {
        let key = variable.strip_prefix(prefix)?.strip_suffix(suffix)?;
        name_of(key).map(|_| (key, *says))
    })
}

fn variables_by_service(environment: &Environment) -> BTreeMap<String, Variables<'_>> {
    let mut services: BTreeMap<String, Variables<'_>> = BTreeMap::new();
    for (variable, value) in environment.iter() {
        if NOT_SERVICES.contains(&variable) {
            continue;
        }
        let Some((key, says)) = what_it_says(variable) else {
            continue;
        };
        let of_service = services.entry(key.to_owned()).or_default();
        let field = match says {
            Says::Url => &mut of_service.url,
            Says::Host => &mut of_service.host,
            Says::Port => &mut of_service.port,
            Says::InjectedHost => &mut of_service.injected_host,
            Says::InjectedPort => &mut of_service.injected_port,
        };
        *field = Some((variable, value));
    }
    services
}

impl Variables<'_> {
    fn instance(&self, key: &str) -> Result<Option<InstanceBuilder>, ConfigError> {
        let Some(name) = name_of(key) else {
            return Ok(None);
        };
        // Every variable is checked, also one that another outweighs: a typing mistake that does
        // no harm today would tomorrow.
        let ours = host_and_port(&name, self.host, self.port)?;
        if let Some((variable, url)) = self.url {
            return Instance::from_url(name, url)
                .and_then(|builder| builder.clone().build().map(|_| Some(builder)))
                .map_err(|fault| ConfigError::new(variable, fault));
        }
        if ours.is_some() {
            return Ok(ours);
        }
        if let (None, Some((variable, _))) = (self.host, self.port) {
            let host = variable.replace("_PORT", "_HOST");
            return Err(ConfigError::new(
                variable,
                format!("a port alone is no address; set {host} as well"),
            ));
        }
        // Kubernetes sets the two together; one without the other is somebody else's variable.
        match (self.injected_host, self.injected_port) {
            (Some(_), Some(_)) => host_and_port(&name, self.injected_host, self.injected_port),
            _ => Ok(None),
        }
    }
}

fn host_and_port(
    name: &ServiceName,
    host: Option<(&str, &str)>,
    port: Option<(&str, &str)>,
) -> Result<Option<InstanceBuilder>, ConfigError> {
    let port = port
        .map(|(variable, value)| parse_port(variable, value))
        .transpose()?;
    let Some((variable, host)) = host else {
        return Ok(None);
    };
    let host: Host = host
        .parse()
        .map_err(|fault| ConfigError::new(variable, fault))?;
    Ok(Some(Instance::builder(
        name.clone(),
        host,
        port.unwrap_or(80),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider(variables: &[(&str, &str)]) -> Result<EnvProvider, ConfigError> {
        EnvProvider::new(&variables.iter().copied().collect())
    }

    fn url(provider: &EnvProvider, service: &str) -> Option<String> {
        match provider.answer(&ServiceName::new(service).unwrap()) {
            Answer::Instances(instances) => Some(instances[0].url().to_owned()),
            Answer::Unknown => None,
        }
    }

    #[test]
    fn each_form_is_understood_and_the_url_wins() {
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
        ])
        .unwrap();
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
    }

    #[test]
    fn a_bad_variable_is_named() {
        for (variable, value) in [
            ("SERVICE_AUTH_URL", "auth:80:80"),
            ("SERVICE_AUTH_URL", "http://auth:port"),
            ("SERVICE_AUTH_PORT", "70000"),
            ("SERVICE_AUTH_PORT", "8080"),
            ("SERVICE_AUTH_HOST", "not a host"),
        ] {
            let error = provider(&[(variable, value)]).unwrap_err();
            assert_eq!(error.place(), variable, "{error}");
        }
    }
}
