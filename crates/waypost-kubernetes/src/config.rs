//! Which cluster to ask and as whom: the files and variables that tell it, and their precedence.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use kube::config::{Config, Kubeconfig, KubeconfigError};
use waypost_core::provider::TokenFile;
use waypost_core::{ConfigError, Environment, Host};

/// Where the configuration stands.
#[derive(Clone, Debug)]
pub(super) struct Source {
    place: Place,
    proxy: Proxy,
}

#[derive(Clone, Debug)]
enum Place {
    /// Files as `kubectl` reads them.
    Kubeconfig {
        paths: Vec<PathBuf>,
        /// The variable that named them, if one did.
        named_by: Option<&'static str>,
        context: Option<String>,
    },
    /// What a pod finds: variables that name the server, and the files of its service account.
    Pod {
        host: String,
        port: String,
        folder: PathBuf,
    },
}

/// All that a connection needs, read anew whenever one is made.
pub(super) struct Loaded {
    pub(super) config: Config,
    /// The file that holds our token. It is ours to read, so that `config` doesn't name it.
    pub(super) token_file: Option<PathBuf>,
    /// The namespace to look in, if the files name one.
    pub(super) namespace: Option<String>,
    /// Whom the server takes us for, in words for errors.
    pub(super) identity: String,
    /// The proxy that the kubeconfig names.
    proxy: Option<Uri>,
    /// The files that all this came from; when one changes, a new connection may do better.
    files: Vec<PathBuf>,
}

pub(super) const KUBECONFIG: &str = "KUBECONFIG";
pub(super) const CONTEXT: &str = "KUBERNETES_CONTEXT";
pub(super) const SERVICE_HOST: &str = "KUBERNETES_SERVICE_HOST";
const SERVICE_PORT: &str = "KUBERNETES_SERVICE_PORT";
const SERVICE_ACCOUNT: &str = "WAYPOST_SERVICE_ACCOUNT_DIR";
const SERVICE_ACCOUNT_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

impl Source {
    /// `KUBECONFIG` wins, as with kubectl; a pod uses its service account; else it is the user's
    /// `~/.kube/config`.
    pub(super) fn of(environment: &Environment) -> Result<Self, ConfigError> {
        Ok(Self {
            place: Place::of(environment)?,
            proxy: Proxy::of(environment),
        })
    }

    pub(super) fn load(&self) -> Result<Loaded, ConfigError> {
        let mut loaded = match &self.place {
            Place::Kubeconfig {
                paths,
                named_by,
                context,
            } => load_kubeconfig(paths, *named_by, context.as_deref())?,
            Place::Pod { host, port, folder } => load_pod(host, port, folder)?,
        };
        let config = &mut loaded.config;
        if loaded.proxy.is_none() {
            config.proxy_url = self.proxy.before(&config.cluster_url)?;
        }
        config.connect_timeout = Some(Duration::from_secs(5));
        config.write_timeout = Some(Duration::from_secs(30));
        // Inside of one call it would try for minutes and tell nobody.
        config.default_retry = false;
        Ok(loaded)
    }
}

impl Place {
    fn of(environment: &Environment) -> Result<Self, ConfigError> {
        let context = environment.get(CONTEXT).map(str::to_owned);
        if let Some(paths) = environment.get(KUBECONFIG) {
            let paths = std::env::split_paths(paths).filter(|path| !path.as_os_str().is_empty());
            return Ok(Self::Kubeconfig {
                paths: paths.collect(),
                named_by: Some(KUBECONFIG),
                context,
            });
        }
        if let Some(host) = environment.get(SERVICE_HOST) {
            return Ok(Self::Pod {
                host: host.to_owned(),
                port: environment.get(SERVICE_PORT).unwrap_or("443").to_owned(),
                folder: service_account_folder(environment),
            });
        }
        let home = environment.get("HOME").ok_or_else(|| {
            let problem = format!(
                "is not set, and neither are HOME nor {SERVICE_HOST}; \
                 name a kubeconfig file, as for kubectl"
            );
            ConfigError::new(KUBECONFIG, problem)
        })?;
        Ok(Self::Kubeconfig {
            paths: vec![Path::new(home).join(".kube/config")],
            named_by: None,
            context,
        })
    }
}

impl Source {
    /// Whether we run in the cluster, as its Kubernetes started us.
    pub(super) fn is_pod(&self) -> bool {
        matches!(self.place, Place::Pod { .. })
    }
}

impl Loaded {
    /// How the files look now; another result later means that one has changed.
    pub(super) fn stamps(&self) -> Stamps {
        Stamps(
            self.files
                .iter()
                .map(|file| (file.clone(), stamp(file)))
                .collect(),
        )
    }
}

/// How files looked at one time.
pub(super) struct Stamps(Vec<(PathBuf, Option<(SystemTime, u64)>)>);

impl Stamps {
    pub(super) fn have_changed(&self) -> bool {
        self.0.iter().any(|(file, before)| stamp(file) != *before)
    }
}

fn stamp(file: &Path) -> Option<(SystemTime, u64)> {
    let data = fs::metadata(file).ok()?;
    Some((data.modified().ok()?, data.len()))
}

/// Where a pod's service account is.
fn service_account_folder(environment: &Environment) -> PathBuf {
    let named = environment.get(SERVICE_ACCOUNT);
    named.unwrap_or(SERVICE_ACCOUNT_FOLDER).into()
}

/// The reason why this is no pod that may use the API: no variable, or no token.
pub fn pod_without_token(environment: &Environment) -> Option<String> {
    let folder = service_account_folder(environment);
    bearer(&TokenFile::new(folder.join("token"))).err()
}

/// The header for the token in a file (RFC 6750, section 2.1), or what is wrong with the file.
pub(super) fn bearer(token: &TokenFile) -> Result<HeaderValue, String> {
    let header = token
        .token()
        .map(|token| HeaderValue::try_from(format!("Bearer {token}")));
    match header {
        Ok(Ok(mut header)) => {
            // Hidden from the Debug output of those who print headers.
            header.set_sensitive(true);
            Ok(header)
        }
        Ok(Err(why)) => Err(format!("{}: {why}", token.path().display())),
        Err(why) => Err(format!("{}: {why}", token.path().display())),
    }
}

// === a proxy ===

/// What the environment says of proxies.
#[derive(Clone, Debug)]
struct Proxy {
    url: Option<String>,
    no: String,
}

impl Proxy {
    fn of(environment: &Environment) -> Self {
        let either = |upper, lower| environment.get(upper).or_else(|| environment.get(lower));
        Self {
            url: either("HTTPS_PROXY", "https_proxy").map(str::to_owned),
            no: either("NO_PROXY", "no_proxy")
                .unwrap_or_default()
                .to_owned(),
        }
    }

    /// The proxy to reach the server by, as other clients of Kubernetes choose it: none before this
    /// very machine.
    fn before(&self, server: &Uri) -> Result<Option<Uri>, ConfigError> {
        let Some(url) = &self.url else {
            return Ok(None);
        };
        let is_here = server.host().and_then(|host| host.parse::<Host>().ok());
        if is_here.is_some_and(|host| host.is_loopback()) {
            return Ok(None);
        }
        let rules = Matcher::builder().all(url.as_str()).no(self.no.as_str());
        match rules.build().intercept(server) {
            None => Ok(None),
            Some(_) => parse_proxy("HTTPS_PROXY", url).map(Some),
        }
    }
}

fn parse_proxy(place: &str, url: &str) -> Result<Uri, ConfigError> {
    let uri: Uri = url.parse().map_err(|cause| {
        let problem = format!("{cause}; use a form such as http://proxy.example:3128");
        ConfigError::new(place, problem)
    })?;
    match uri.scheme_str() {
        Some("http" | "https" | "socks5") => Ok(uri),
        _ => {
            let problem = "the URL must begin with http://, https:// or socks5://";
            Err(ConfigError::new(place, problem))
        }
    }
}

// === a kubeconfig ===

fn load_kubeconfig(
    paths: &[PathBuf],
    named_by: Option<&str>,
    context: Option<&str>,
) -> Result<Loaded, ConfigError> {
    let shown: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
    let shown = shown.join(":");
    let place = match named_by {
        Some(variable) => format!("{variable} {shown}"),
        None => shown.clone(),
    };
    let wrong = |problem: String| ConfigError::new(place.clone(), problem);

    // As with kubectl, a list may name files that don't exist, as long as one does.
    let there: Vec<_> = paths.iter().filter(|path| path.exists()).collect();
    if there.is_empty() {
        return Err(wrong(format!(
            "there is no such file; set {KUBECONFIG} to a kubeconfig file, as for kubectl"
        )));
    }
    let mut kubeconfig = Kubeconfig::default();
    for path in &there {
        let one = Kubeconfig::read_from(path)
            .map_err(|fault| ConfigError::new(path.display().to_string(), in_words(&fault)))?;
        kubeconfig = kubeconfig
            .merge(one)
            .map_err(|fault| ConfigError::new(path.display().to_string(), in_words(&fault)))?;
    }

    let known: Vec<_> = kubeconfig
        .contexts
        .iter()
        .map(|c| c.name.as_str())
        .collect();
    let known = known.join(", ");
    let chosen = context
        .map(str::to_owned)
        .or_else(|| kubeconfig.current_context.clone());
    let chosen = chosen.filter(|name| !name.is_empty()).ok_or_else(|| {
        wrong(format!(
            "it has no current-context; set {CONTEXT} to one of: {known}"
        ))
    })?;
    let named = kubeconfig.contexts.iter().find(|c| c.name == chosen);
    let Some(named) = named.and_then(|named| named.context.clone()) else {
        let place = match context {
            Some(_) => CONTEXT.to_owned(),
            None => place.clone(),
        };
        let problem = format!("{chosen:?} is no context of {shown}; it has: {known}");
        return Err(ConfigError::new(place, problem));
    };
    let cluster = kubeconfig.clusters.iter().find(|c| c.name == named.cluster);
    let authority = cluster
        .and_then(|c| c.cluster.as_ref()?.certificate_authority.as_ref())
        .map(PathBuf::from);
    let proxy = cluster.and_then(|c| c.cluster.as_ref()?.proxy_url.clone());
    let proxy = proxy.filter(|proxy| !proxy.is_empty());
    let proxy = proxy
        .map(|proxy| parse_proxy("proxy-url", &proxy))
        .transpose();
    let proxy = proxy.map_err(|fault| wrong(fault.to_string()))?;
    kubeconfig.current_context = Some(chosen.clone());
    let mut config = Config::try_from(kubeconfig)
        .map_err(|fault| wrong(format!("context {chosen:?}: {}", in_words(&fault))))?;

    config.proxy_url = proxy.clone();

    let auth = &mut config.auth_info;
    let certificate = [&auth.client_certificate, &auth.client_key];
    let mut files: Vec<_> = there.into_iter().cloned().collect();
    files.extend(authority);
    files.extend(certificate.into_iter().flatten().map(PathBuf::from));
    // A token in a file outweighs one beside it, as in client-go.
    let token_file = auth.token_file.take().map(PathBuf::from);
    if token_file.is_some() {
        auth.token = None;
    }
    let user = named.user.as_deref().unwrap_or("none");
    Ok(Loaded {
        token_file,
        namespace: named.namespace.filter(|namespace| !namespace.is_empty()),
        identity: format!("the credentials of user {user:?} in {shown}"),
        proxy,
        files,
        config,
    })
}

fn in_words(fault: &KubeconfigError) -> String {
    match fault {
        KubeconfigError::Parse(cause) => format!("it is no kubeconfig: {cause}"),
        KubeconfigError::ReadConfig(cause, _) => format!("it can't be read: {cause}"),
        KubeconfigError::LoadClusterOfContext(cluster) => {
            format!("its cluster {cluster:?} is not among the clusters")
        }
        KubeconfigError::MissingClusterUrl => "its cluster has no server; give its URL".into(),
        other => other.to_string(),
    }
}

// === a pod ===

fn load_pod(host: &str, port: &str, folder: &Path) -> Result<Loaded, ConfigError> {
    let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
        ConfigError::new(
            SERVICE_PORT,
            format!("{port:?} is no port; use a number from 1 to 65535"),
        )
    })?;
    let authority = match host.parse() {
        Ok(ip) => std::net::SocketAddr::new(ip, port).to_string(),
        Err(_) => format!("{host}:{port}"),
    };
    let server = format!("https://{authority}").parse().map_err(|cause| {
        ConfigError::new(SERVICE_HOST, format!("{host:?} is no host ({cause})"))
    })?;
    let token_file = folder.join("token");
    bearer(&TokenFile::new(token_file.clone())).map_err(|why| {
        let problem = format!("{why}; the pod needs automountServiceAccountToken: true");
        ConfigError::new(folder.display().to_string(), problem)
    })?;
    let bundle = folder.join("ca.crt");
    if let Err(cause) = fs::metadata(&bundle) {
        let problem = format!("can't be read: {cause}; it holds the cluster's CA");
        return Err(ConfigError::new(bundle.display().to_string(), problem));
    }
    let namespace = fs::read_to_string(folder.join("namespace")).ok();
    let namespace = namespace.map(|text| text.trim().to_owned());
    let mut config = Config::new(server);
    // No CA but that of the file; the system's need not be there at all.
    config.root_cert = Some(Vec::new());
    config.root_cert_file = Some(bundle.clone());
    Ok(Loaded {
        config,
        identity: format!("the token in {}", token_file.display()),
        token_file: Some(token_file),
        namespace: namespace.filter(|namespace| !namespace.is_empty()),
        proxy: None,
        files: vec![bundle],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_of_the_environment_is_not_for_this_machine_nor_for_exceptions() {
        let environment = Environment::from_iter([
            ("HTTPS_PROXY", "http://user:secret@proxy:3128"),
            ("NO_PROXY", "10.0.0.0/8,.internal"),
        ]);
        let proxy = Proxy::of(&environment);
        for (server, by_proxy) in [
            ("https://cluster.example:6443", true),
            ("https://203.0.113.7", true),
            ("https://10.1.2.3:6443", false),
            ("https://api.internal", false),
            ("https://127.0.0.1:6443", false),
            ("https://[::1]:6443", false),
            ("https://localhost:6443", false),
        ] {
            let chosen = proxy.before(&server.parse().unwrap()).unwrap();
            assert_eq!(chosen.is_some(), by_proxy, "{server}");
        }
        let environment = environment.with("HTTPS_PROXY", "proxy:3128");
        let bad = Proxy::of(&environment).before(&"https://a".parse().unwrap());
        let bad = bad.unwrap_err().to_string();
        assert!(bad.starts_with("HTTPS_PROXY: "), "{bad}");
    }
}
