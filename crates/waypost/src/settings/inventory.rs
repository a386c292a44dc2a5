//! Lists every setting with its value and its source.

#[cfg(feature = "kubernetes")]
use waypost_core::provider::Provider;
use waypost_core::{Environment, Error, mask_secrets};

use super::selection::{ProviderKind, Settings};

/// The effective value of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Setting {
    /// Its name, such as `consul.token`.
    pub name: String,
    /// Its value; `***` for a secret.
    pub value: String,
    /// Where the value comes from.
    pub source: Source,
    /// The variables that can set it, in order of precedence.
    pub variables: &'static [&'static str],
    /// Whether the chosen provider uses it.
    pub is_used: bool,
}

/// Where the value of a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// These environment variables together.
    Variables(Vec<String>),
    /// A file that is not named by a variable, such as `~/.kube/config`.
    File(String),
    /// The setting is not set.
    Default,
}

/// A setting that a variable can set.
struct Known {
    name: &'static str,
    /// The variables, in order of precedence.
    variables: &'static [&'static str],
    default: &'static str,
    /// The provider that uses it; `None` if all do.
    provider: Option<ProviderKind>,
}

const fn known(
    name: &'static str,
    variables: &'static [&'static str],
    default: &'static str,
) -> Known {
    Known {
        name,
        variables,
        default,
        provider: None,
    }
}

impl Known {
    const fn of(self, provider: ProviderKind) -> Self {
        Self {
            provider: Some(provider),
            ..self
        }
    }
}

const ADDRESS: &str = "consul.address";
const TOKEN: &str = "consul.token";
const SERVER: &str = "kubernetes.server";
const NAMESPACE: &str = "kubernetes.namespace";

/// All settings. A test compares this list with the variables that are read.
const KNOWN: &[Known] = &[
    known("provider", &["SERVICE_DISCOVERY_PROVIDER"], ""),
    known("environment", &["ENVIRONMENT"], "none"),
    known("max-stale", &["SERVICE_DISCOVERY_MAX_STALE"], "no limit"),
    known(
        "snapshot-file",
        &["SERVICE_DISCOVERY_SNAPSHOT_FILE"],
        "none",
    ),
    known("strategy", &["SERVICE_DISCOVERY_STRATEGY"], "round_robin"),
    known("zone", &["SERVICE_DISCOVERY_ZONE"], "none"),
    known(
        "outlier-detection",
        &["SERVICE_DISCOVERY_OUTLIER_DETECTION"],
        "true",
    ),
    known("active-check", &["SERVICE_DISCOVERY_ACTIVE_CHECK"], "none"),
    known("static.file", &["SERVICE_DISCOVERY_CONFIG_FILE"], "none").of(ProviderKind::Static),
    known(
        ADDRESS,
        &[
            "CONSUL_HOST",
            "CONSUL_PORT",
            "CONSUL_HTTP_ADDR",
            "CONSUL_HTTP_SSL",
            "SERVICE_REGISTRY_HOST",
            "SERVICE_REGISTRY_PORT",
        ],
        "http://localhost:8500",
    )
    .of(ProviderKind::Consul),
    known(
        TOKEN,
        &[
            "CONSUL_TOKEN",
            "CONSUL_HTTP_TOKEN",
            "CONSUL_HTTP_TOKEN_FILE",
        ],
        "none",
    )
    .of(ProviderKind::Consul),
    known("consul.ca-file", &["CONSUL_CACERT"], "the system's").of(ProviderKind::Consul),
    known("consul.ca-folder", &["CONSUL_CAPATH"], "none").of(ProviderKind::Consul),
    known("consul.client-certificate", &["CONSUL_CLIENT_CERT"], "none").of(ProviderKind::Consul),
    known("consul.client-key", &["CONSUL_CLIENT_KEY"], "none").of(ProviderKind::Consul),
    known(
        "consul.tls-server-name",
        &["CONSUL_TLS_SERVER_NAME"],
        "the host",
    )
    .of(ProviderKind::Consul),
    known("consul.tls-verify", &["CONSUL_HTTP_SSL_VERIFY"], "true").of(ProviderKind::Consul),
    known("consul.namespace", &["CONSUL_NAMESPACE"], "none").of(ProviderKind::Consul),
    known("consul.partition", &["CONSUL_PARTITION"], "none").of(ProviderKind::Consul),
    known("consul.wait", &["CONSUL_WAIT"], "1m").of(ProviderKind::Consul),
    known(
        "dns.server",
        &["SERVICE_DISCOVERY_DNS_SERVER"],
        "those of /etc/resolv.conf",
    )
    .of(ProviderKind::Dns),
    known(
        "dns.search",
        &["SERVICE_DISCOVERY_DNS_SEARCH"],
        "those of /etc/resolv.conf",
    )
    .of(ProviderKind::Dns),
    known("dns.name", &["SERVICE_DISCOVERY_DNS_NAME"], "{service}").of(ProviderKind::Dns),
    known("dns.port", &["SERVICE_DISCOVERY_DNS_PORT"], "none").of(ProviderKind::Dns),
    known("dns.scheme", &["SERVICE_DISCOVERY_DNS_SCHEME"], "http").of(ProviderKind::Dns),
    known("dns.udp", &["SERVICE_DISCOVERY_DNS_UDP"], "false").of(ProviderKind::Dns),
    known(
        "dns.min-refresh",
        &["SERVICE_DISCOVERY_DNS_MIN_REFRESH"],
        "1s",
    )
    .of(ProviderKind::Dns),
    known(
        "dns.max-refresh",
        &["SERVICE_DISCOVERY_DNS_MAX_REFRESH"],
        "1m",
    )
    .of(ProviderKind::Dns),
    known(
        SERVER,
        &[
            "KUBECONFIG",
            "KUBERNETES_SERVICE_HOST",
            "KUBERNETES_SERVICE_PORT",
        ],
        "none",
    )
    .of(ProviderKind::Kubernetes),
    known("kubernetes.node", &["KUBERNETES_NODE_NAME"], "none").of(ProviderKind::Kubernetes),
    known(
        "kubernetes.context",
        &["KUBERNETES_CONTEXT"],
        "the current one",
    )
    .of(ProviderKind::Kubernetes),
    known(NAMESPACE, &["KUBERNETES_NAMESPACE"], "default").of(ProviderKind::Kubernetes),
    known("kubernetes.namespaces", &["KUBERNETES_NAMESPACES"], "none").of(ProviderKind::Kubernetes),
    known(
        "kubernetes.service-selector",
        &["KUBERNETES_SERVICE_SELECTOR"],
        "none",
    )
    .of(ProviderKind::Kubernetes),
    known(
        "kubernetes.cluster-domain",
        &["KUBERNETES_CLUSTER_DOMAIN"],
        "cluster.local",
    )
    .of(ProviderKind::Kubernetes),
    known(
        "kubernetes.service-account",
        &["WAYPOST_SERVICE_ACCOUNT_DIR"],
        "/var/run/secrets/kubernetes.io/serviceaccount",
    )
    .of(ProviderKind::Kubernetes),
    known("kubernetes.proxy", &["HTTPS_PROXY", "https_proxy"], "none").of(ProviderKind::Kubernetes),
    known("kubernetes.no-proxy", &["NO_PROXY", "no_proxy"], "none").of(ProviderKind::Kubernetes),
];

/// Every setting with its value in this environment, and the first invalid setting, if any. The
/// environment is read by the same code as in programs, so a variable that another one overrides is not a
/// source.
///
/// ```
/// # use waypost::Environment;
/// # use waypost::settings::{Source, effective_settings};
/// let environment = [("CONSUL_TOKEN", "abc"), ("CONSUL_HTTP_TOKEN", "def")];
/// let (settings, problem) = effective_settings(&Environment::from_iter(environment));
/// let token = settings.iter().find(|it| it.name == "consul.token").unwrap();
/// assert_eq!(token.value, "***");
/// assert_eq!(token.source, Source::Variables(vec!["CONSUL_TOKEN".into()]));
/// assert!(problem.is_none());
/// ```
pub fn effective_settings(environment: &Environment) -> (Vec<Setting>, Option<Error>) {
    let environment = environment.clone().recording();
    let outcome = read_all(&environment);
    let reads = environment.reads();
    let (selected, provider, problem) = match outcome {
        Outcome::Complete(selected, provider) => (Some(selected), Some(provider), None),
        Outcome::Invalid(selected, error) => (selected, None, Some(error)),
    };
    let provider = provider.as_ref();
    let settings = KNOWN.iter().map(|known| {
        let sources = sources(known, &environment, &reads);
        let mut setting = Setting {
            name: known.name.to_owned(),
            value: value(known, &environment, &sources),
            source: if sources.is_empty() {
                Source::Default
            } else {
                Source::Variables(sources)
            },
            variables: known.variables,
            is_used: known.provider.is_none()
                || known.provider == selected.as_ref().map(Settings::kind),
        };
        if known.name == "provider"
            && let Some(selected) = &selected
        {
            setting.value = selected.kind().to_string();
            if let Some(variable) = selected.reason().strip_suffix(" is set") {
                setting.source = Source::Variables(vec![variable.to_owned()]);
            }
        }
        if setting.is_used
            && let Some(provider) = provider
        {
            provider.complete(&mut setting, &environment);
        }
        setting
    });
    let mut settings: Vec<_> = settings.collect();
    if selected.is_some_and(|it| it.kind() == ProviderKind::Env) {
        settings.extend(services(&environment));
    }
    (settings, problem)
}

/// The result of reading all settings.
enum Outcome {
    Complete(Settings, Described),
    /// The settings, as far as they could be read, and the first invalid one.
    Invalid(Option<Settings>, Error),
}

fn read_all(environment: &Environment) -> Outcome {
    let settings = match Settings::new(environment.clone()) {
        Ok(settings) => settings,
        Err(error) => return Outcome::Invalid(None, error.into()),
    };
    settings.is_development();
    settings.balancer_options();
    let options = settings.directory_options().map(drop);
    let strategy = settings.strategy().map(drop);
    let provider = Described::of(&settings);
    match (options.and(strategy), provider) {
        (Ok(()), Ok(provider)) => Outcome::Complete(settings, provider),
        (Err(error), _) => Outcome::Invalid(Some(settings), error.into()),
        (_, Err(error)) => Outcome::Invalid(Some(settings), error),
    }
}

/// The settings that the provider itself reports.
struct Described {
    /// The description, such as `consul at http://localhost:8500`.
    description: String,
    #[cfg_attr(not(feature = "kubernetes"), allow(dead_code))]
    namespace: Option<String>,
}

impl Described {
    fn of(settings: &Settings) -> Result<Self, Error> {
        #[cfg(feature = "kubernetes")]
        if settings.kind() == ProviderKind::Kubernetes {
            let environment = settings.environment();
            let provider = waypost_kubernetes::KubernetesProvider::from_environment(environment)?;
            return Ok(Self {
                description: provider.describe().to_string(),
                namespace: Some(provider.namespace().to_owned()),
            });
        }
        Ok(Self {
            description: settings.chosen_provider()?.describe().to_string(),
            namespace: None,
        })
    }

    /// Replaces the value of a setting that the provider has combined from several variables, or read from
    /// a file.
    fn complete(&self, setting: &mut Setting, environment: &Environment) {
        let address = || {
            self.description
                .split_once(" at ")
                .map(|(_, address)| address)
        };
        match (&*setting.name, &self.namespace) {
            (ADDRESS | SERVER, _) => {
                if let Some(address) = address() {
                    setting.value = address.to_owned();
                }
                if setting.name == SERVER && setting.source == Source::Default {
                    setting.source = Source::File(home_kubeconfig(environment));
                }
            }
            (NAMESPACE, Some(namespace)) => {
                let is_from_file = setting.source == Source::Default && *namespace != setting.value;
                if is_from_file {
                    setting.source = Source::File(match environment.get("KUBECONFIG") {
                        Some(files) => files.to_owned(),
                        None => home_kubeconfig(environment),
                    });
                }
                setting.value.clone_from(namespace);
            }
            _ => {}
        }
    }
}

fn home_kubeconfig(environment: &Environment) -> String {
    if let Some(folder) = environment.get("WAYPOST_SERVICE_ACCOUNT_DIR") {
        return folder.to_owned();
    }
    if environment.get("KUBERNETES_SERVICE_HOST").is_some() {
        return "the service account of the pod".to_owned();
    }
    format!("{}/.kube/config", environment.get("HOME").unwrap_or("~"))
}

/// The variables that determine a setting: those that are set and were read. An address may be combined
/// from several; any other setting has only one.
fn sources(known: &Known, environment: &Environment, reads: &[String]) -> Vec<String> {
    let is_source = |name: &&&str| {
        let is_read = reads.iter().any(|read| read == **name);
        let value = environment.get(name).unwrap_or_default();
        // Kubernetes sets `CONSUL_PORT` to a URL, which is ignored.
        is_read && !value.is_empty() && !(name.ends_with("_PORT") && value.contains("://"))
    };
    let all = known.variables.iter().filter(is_source);
    let all = all.map(|name| (*name).to_owned());
    if matches!(known.name, ADDRESS | SERVER) {
        all.collect()
    } else {
        all.take(1).collect()
    }
}

fn value(known: &Known, environment: &Environment, sources: &[String]) -> String {
    let Some(variable) = sources.first() else {
        return known.default.to_owned();
    };
    if known.name == TOKEN && !variable.ends_with("_FILE") {
        return "***".to_owned();
    }
    mask_secrets(environment.get(variable).unwrap_or_default()).into_owned()
}

/// The variables that name services.
fn services(environment: &Environment) -> impl Iterator<Item = Setting> {
    let is_service = |name: &str| {
        let rest = name.strip_prefix("SERVICE_").unwrap_or_default();
        let is_ours = rest.starts_with("DISCOVERY_") || rest.starts_with("REGISTRY_");
        let is_part = ["_URL", "_HOST", "_PORT"]
            .iter()
            .any(|part| rest.ends_with(part));
        is_part && !is_ours
    };
    let named = environment.iter().filter(move |(name, _)| is_service(name));
    named.map(|(name, value)| Setting {
        name: "env.service".to_owned(),
        value: mask_secrets(value).into_owned(),
        source: Source::Variables(vec![name.to_owned()]),
        variables: &[],
        is_used: true,
    })
}

#[cfg(all(test, feature = "consul", feature = "dns", feature = "kubernetes"))]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const KUBECONFIG: &str = "
current-context: a
contexts: [{name: a, context: {cluster: c, namespace: shop}}]
clusters: [{name: c, cluster: {server: 'https://10.0.0.1:6443'}}]
";

    fn find<'a>(settings: &'a [Setting], name: &str) -> &'a Setting {
        let found = settings.iter().find(|setting| setting.name == name);
        found.expect("the setting should be listed")
    }

    #[tokio::test]
    async fn every_variable_that_is_read_is_listed_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kubeconfig");
        std::fs::write(&file, KUBECONFIG).unwrap();
        let file = file.to_str().unwrap();
        let mut reads = BTreeSet::new();
        for variables in [
            &[][..],
            &[("SERVICE_DISCOVERY_PROVIDER", "static")],
            &[("SERVICE_DISCOVERY_PROVIDER", "dns")],
            &[
                ("SERVICE_DISCOVERY_PROVIDER", "kubernetes"),
                ("KUBECONFIG", file),
            ],
            &[
                ("SERVICE_DISCOVERY_PROVIDER", "kubernetes"),
                ("HOME", "/no/such"),
            ],
            &[("KUBERNETES_SERVICE_HOST", "10.0.0.1")],
            &[
                ("SERVICE_DISCOVERY_PROVIDER", "kubernetes"),
                ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
            ],
        ] {
            let environment: Environment = variables.iter().copied().collect();
            let environment = environment.recording();
            read_all(&environment);
            reads.extend(environment.reads());
        }
        // Only used to find ~/.kube/config.
        reads.remove("HOME");
        let listed = KNOWN.iter().flat_map(|known| known.variables);
        let listed: BTreeSet<_> = listed.map(|&name| name.to_owned()).collect();
        assert_eq!(reads, listed);
    }

    #[test]
    fn a_setting_comes_from_the_variable_that_is_used() {
        let (settings, problem) = effective_settings(&Environment::from_iter([
            ("CONSUL_HOST", "c"),
            ("SERVICE_REGISTRY_PORT", "9"),
            ("SERVICE_REGISTRY_HOST", "r"),
            ("CONSUL_PORT", "tcp://10.0.0.1:8500"),
            ("CONSUL_HTTP_TOKEN", "secret"),
            ("SERVICE_DISCOVERY_SNAPSHOT_FILE", "/x"),
        ]));
        assert!(problem.is_none());
        let address = find(&settings, ADDRESS);
        assert_eq!(address.value, "http://c:9");
        let from = ["CONSUL_HOST", "SERVICE_REGISTRY_PORT"].map(String::from);
        let Source::Variables(variables) = &address.source else {
            panic!("{address:?}");
        };
        assert!(
            from.iter().all(|it| variables.contains(it)),
            "{variables:?}"
        );
        assert!(!variables.contains(&"CONSUL_PORT".to_owned()));
        assert_eq!(find(&settings, TOKEN).value, "***");
        assert_eq!(find(&settings, "strategy").source, Source::Default);
        assert_eq!(find(&settings, "strategy").value, "round_robin");
        assert_eq!(find(&settings, "provider").value, "consul");
        assert!(!find(&settings, "static.file").is_used);
    }

    #[test]
    fn the_variables_that_name_services_are_listed_with_the_environment_as_provider() {
        let (settings, problem) = effective_settings(&Environment::from_iter([
            ("SERVICE_DISCOVERY_PROVIDER", "env"),
            ("SERVICE_AUTH_URL", "http://auth"),
            ("SERVICE_BILLING_HOST", "billing"),
            ("SERVICE_BILLING_PORT", "81"),
            ("SERVICE_BILLING_OWNER", "search"),
            ("SERVICE_REGISTRY_HOST", "consul"),
        ]));
        assert!(problem.is_none(), "{problem:?}");
        let services = settings.iter().filter(|it| it.name == "env.service");
        let services: Vec<_> = services.map(|it| it.source.clone()).collect();
        let names = ["AUTH_URL", "BILLING_HOST", "BILLING_PORT"];
        let names = names.map(|name| Source::Variables(vec![format!("SERVICE_{name}")]));
        assert_eq!(services, names);
    }

    #[tokio::test]
    async fn settings_from_a_kubeconfig_have_that_file_as_their_source() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(".kube/config");
        std::fs::create_dir(folder.path().join(".kube")).unwrap();
        std::fs::write(&file, KUBECONFIG).unwrap();
        let (home, file) = (folder.path().to_str().unwrap(), file.to_str().unwrap());
        for variable in [("KUBECONFIG", file), ("HOME", home)] {
            let (settings, problem) = effective_settings(&Environment::from_iter([
                ("SERVICE_DISCOVERY_PROVIDER", "kubernetes"),
                variable,
            ]));
            assert!(problem.is_none(), "{problem:?}");
            let server = find(&settings, SERVER);
            assert!(
                server.value.starts_with("https://10.0.0.1:6443"),
                "{server:?}"
            );
            let namespace = find(&settings, NAMESPACE);
            assert_eq!(namespace.value, "shop");
            assert_eq!(namespace.source, Source::File(file.to_owned()));
        }
    }

    #[test]
    fn an_invalid_setting_is_reported_beside_the_others() {
        let variables = [
            ("SERVICE_DISCOVERY_MAX_STALE", "soon"),
            ("CONSUL_HOST", "c"),
        ];
        let (settings, problem) = effective_settings(&Environment::from_iter(variables));
        assert!(
            problem
                .unwrap()
                .to_string()
                .starts_with("SERVICE_DISCOVERY_MAX_STALE: ")
        );
        assert_eq!(find(&settings, "max-stale").value, "soon");
    }
}
