//! Kubeconfig files, read as kubectl reads them.

use std::path::{Path, PathBuf};

use kube::config::{Config, Kubeconfig, KubeconfigError};
use waypost_core::{ConfigError, Environment};

use super::client_config::ClientConfig;
use super::in_cluster::SERVICE_HOST;
use super::plugin::CredentialPlugin;
use super::proxy::parse_proxy;

/// The variable that names kubeconfig files.
pub(crate) const KUBECONFIG: &str = "KUBECONFIG";
/// The variable that names the context to use.
pub(crate) const CONTEXT: &str = "KUBERNETES_CONTEXT";

/// Kubeconfig files, and the context to use.
#[derive(Clone, Debug)]
pub(super) struct KubeconfigFiles {
    paths: Vec<PathBuf>,
    /// The variable that named the files, if one did.
    variable: Option<&'static str>,
    /// The context; `None` for the current context of the files.
    context: Option<String>,
}

impl KubeconfigFiles {
    /// The files that the variable lists, if it is set.
    pub(super) fn from_variable(environment: &Environment) -> Option<Self> {
        let paths = std::env::split_paths(environment.get(KUBECONFIG)?);
        Some(Self {
            paths: paths.filter(|path| !path.as_os_str().is_empty()).collect(),
            variable: Some(KUBECONFIG),
            context: environment.get(CONTEXT).map(str::to_owned),
        })
    }

    /// The file in the user's home directory.
    pub(super) fn in_home(environment: &Environment) -> Result<Self, ConfigError> {
        let home = environment.get("HOME").ok_or_else(|| {
            let problem = format!(
                "is not set, and neither are HOME nor {SERVICE_HOST}; set it to a kubeconfig \
                 file, as for kubectl"
            );
            ConfigError::new(KUBECONFIG, problem)
        })?;
        Ok(Self {
            paths: vec![Path::new(home).join(".kube/config")],
            variable: None,
            context: environment.get(CONTEXT).map(str::to_owned),
        })
    }

    pub(super) fn load(&self) -> Result<ClientConfig, ConfigError> {
        let shown: Vec<_> = self.paths.iter().map(|p| p.display().to_string()).collect();
        let shown = shown.join(":");
        let place = match self.variable {
            Some(variable) => format!("{variable} {shown}"),
            None => shown.clone(),
        };
        let invalid = |problem: String| ConfigError::new(place.clone(), problem);

        // As with kubectl, a list may name files that do not exist, as long as one does.
        let existing: Vec<_> = self.paths.iter().filter(|path| path.exists()).collect();
        if existing.is_empty() {
            return Err(invalid(format!(
                "there is no such file; set {KUBECONFIG} to a kubeconfig file, as for kubectl"
            )));
        }
        let mut kubeconfig = Kubeconfig::default();
        for path in &existing {
            let merged = Kubeconfig::read_from(path).and_then(|file| kubeconfig.merge(file));
            kubeconfig = merged
                .map_err(|cause| ConfigError::new(path.display().to_string(), describe(&cause)))?;
        }

        let names = kubeconfig.contexts.iter().map(|c| c.name.as_str());
        let known = names.collect::<Vec<_>>().join(", ");
        let name = self
            .context
            .clone()
            .or_else(|| kubeconfig.current_context.clone());
        let name = name.filter(|name| !name.is_empty()).ok_or_else(|| {
            invalid(format!(
                "it has no current-context; set {CONTEXT} to one of: {known}"
            ))
        })?;
        let context = kubeconfig.contexts.iter().find(|c| c.name == name);
        let Some(context) = context.and_then(|context| context.context.clone()) else {
            let place = match self.context {
                Some(_) => CONTEXT.to_owned(),
                None => place.clone(),
            };
            let problem = format!("there is no context {name:?} in {shown}; it has: {known}");
            return Err(ConfigError::new(place, problem));
        };
        let cluster = kubeconfig
            .clusters
            .iter()
            .find(|c| c.name == context.cluster);
        let cluster = cluster.and_then(|cluster| cluster.cluster.as_ref());
        let ca_bundle = cluster
            .and_then(|cluster| cluster.certificate_authority.as_ref())
            .map(PathBuf::from);
        let has_data = cluster.is_some_and(|it| it.certificate_authority_data.is_some());
        let ca = match &ca_bundle {
            _ if has_data => format!("certificate-authority-data in {shown}"),
            Some(file) => file.display().to_string(),
            None => "the certificates of this system".to_owned(),
        };
        let proxy = cluster.and_then(|cluster| cluster.proxy_url.clone());
        let proxy = proxy
            .filter(|proxy| !proxy.is_empty())
            .map(|proxy| parse_proxy("proxy-url", &proxy))
            .transpose()
            .map_err(|cause| invalid(cause.to_string()))?;
        kubeconfig.current_context = Some(name.clone());
        let mut kube = Config::try_from(kubeconfig)
            .map_err(|cause| invalid(format!("context {name:?}: {}", describe(&cause))))?;
        kube.proxy_url = proxy;

        let auth = &mut kube.auth_info;
        let client_files = [&auth.client_certificate, &auth.client_key];
        let mut files: Vec<_> = existing.into_iter().cloned().collect();
        files.extend(ca_bundle);
        files.extend(client_files.into_iter().flatten().map(PathBuf::from));
        // A token file takes precedence over an inline token, as in client-go.
        let token_file = auth.token_file.take().map(PathBuf::from);
        if token_file.is_some() {
            auth.token = None;
        }
        let is_known = auth.token.is_some() || token_file.is_some() || auth.username.is_some();
        let plugin = auth.exec.take().filter(|_| !is_known);
        let user = context.user.as_deref().unwrap_or("none");
        Ok(ClientConfig {
            token_file,
            plugin: plugin.map(CredentialPlugin::new),
            namespace: context.namespace.filter(|namespace| !namespace.is_empty()),
            identity: format!("the credentials of user {user:?} in {shown}"),
            ca,
            files,
            kube,
        })
    }
}

fn describe(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::Parse(cause) => format!("not a kubeconfig: {cause}"),
        KubeconfigError::ReadConfig(cause, _) => format!("can't be read: {cause}"),
        KubeconfigError::LoadClusterOfContext(cluster) => {
            format!("its cluster {cluster:?} is not among the clusters")
        }
        KubeconfigError::MissingClusterUrl => {
            "its cluster has no server; set it to the URL of the API server".into()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The configuration of a file with this cluster, context and user.
    fn load(cluster: Value, context: Value, user: Value) -> (ClientConfig, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        let mut content = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{ "name": "c", "cluster": { "server": "https://127.0.0.1:1" } }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "ann" } }],
            "users": [{ "name": "ann", "user": user }],
        });
        let merge = |into: &mut Value, from: Value| {
            for (key, value) in from.as_object().unwrap() {
                into[key] = value.clone();
            }
        };
        merge(&mut content["clusters"][0]["cluster"], cluster);
        merge(&mut content["contexts"][0]["context"], context);
        std::fs::write(&file, content.to_string()).unwrap();
        // Empty and missing entries are left out, as by kubectl.
        let list = format!("{}::/no/such/file:", file.display());
        let environment = Environment::from_iter([(KUBECONFIG, list)]);
        let files = KubeconfigFiles::from_variable(&environment).unwrap();
        (files.load().unwrap(), dir)
    }

    #[test]
    fn an_empty_proxy_or_namespace_is_none() {
        for (proxy, namespace, expected) in [
            ("", "", (None, None)),
            (
                "http://proxy:3128",
                "shop",
                (Some("http://proxy:3128/"), Some("shop")),
            ),
        ] {
            let cluster = json!({ "proxy-url": proxy });
            let (config, _dir) = load(cluster, json!({ "namespace": namespace }), json!({}));
            let proxy = config.kube.proxy_url.map(|url| url.to_string());
            assert_eq!((proxy.as_deref(), config.namespace.as_deref()), expected);
        }
    }

    #[test]
    fn the_source_of_credentials_is_a_file_a_token_or_a_program_in_this_order() {
        let exec = json!({ "apiVersion": "v1", "command": "login" });
        for (user, file, token, plugin) in [
            (
                json!({ "tokenFile": "/t", "token": "x", "exec": exec }),
                true,
                false,
                false,
            ),
            (json!({ "token": "x", "exec": exec }), false, true, false),
            (
                json!({ "username": "a", "password": "b", "exec": exec }),
                false,
                false,
                false,
            ),
            (json!({ "exec": exec }), false, false, true),
            (json!({}), false, false, false),
        ] {
            let (config, dir) = load(json!({}), json!({}), user.clone());
            assert_eq!(config.token_file.is_some(), file, "{user}");
            assert_eq!(config.kube.auth_info.token.is_some(), token, "{user}");
            assert_eq!(config.plugin.is_some(), plugin, "{user}");
            let path = dir.path().join("config");
            let place = format!("the credentials of user \"ann\" in {}", path.display());
            assert!(config.identity.starts_with(&place), "{}", config.identity);
            assert_eq!(config.files, [path]);
        }
    }

    #[test]
    fn the_certificate_authority_is_named_in_errors() {
        let of = |cluster: Value| load(cluster, json!({}), json!({})).0.ca;
        assert_eq!(of(json!({})), "the certificates of this system");
    }
}
