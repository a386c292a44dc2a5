//! Credential plugins: programs that print the credentials of a user (Kubernetes documentation,
//! "client-go credential plugins"). Most managed clusters need one.

use std::fmt;
use std::io::{self, IsTerminal};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use kube::config::{ExecConfig, ExecInteractiveMode};
use serde::Deserialize;
use serde_json::json;
use tokio::process::Command;
use tokio::time::timeout;

/// The plugin of a user in a kubeconfig.
pub(crate) struct CredentialPlugin {
    config: ExecConfig,
}

/// The output of a plugin.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Credentials {
    pub(crate) token: Option<String>,
    /// PEM.
    pub(crate) client_certificate_data: Option<String>,
    /// PEM.
    pub(crate) client_key_data: Option<String>,
    expiration_timestamp: Option<String>,
}

#[derive(Deserialize)]
struct ExecCredential {
    status: Option<Credentials>,
}

impl CredentialPlugin {
    /// How long a plugin may run. It may ask the user to log in.
    const TIMEOUT: Duration = Duration::from_secs(60);
    /// The maximum number of characters of a plugin's error output that are reported.
    const MAX_ERROR: usize = 500;

    pub(super) fn new(config: ExecConfig) -> Self {
        Self { config }
    }

    /// Runs the plugin once. It is killed when the future is dropped.
    pub(crate) async fn run(&self) -> Result<Credentials, String> {
        let mut command = self.command(io::stdin().is_terminal())?;
        let output = timeout(Self::TIMEOUT, command.output()).await;
        let output = output
            .map_err(|_| {
                let time = humantime::format_duration(Self::TIMEOUT);
                format!("{self} did not finish in {time}")
            })?
            .map_err(|cause| self.not_started(&cause))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let text = text.trim();
            let from = text.chars().count().saturating_sub(Self::MAX_ERROR);
            let text: String = text.chars().skip(from).collect();
            return Err(format!("{self} failed ({}): {text}", output.status));
        }
        // YAML is accepted too, as by client-go. The cause could quote the credentials.
        let credential: Option<ExecCredential> = serde_saphyr::from_slice(&output.stdout).ok();
        let credentials = credential.and_then(|credential| credential.status);
        credentials
            .filter(|it| it.token.is_some() || it.certificate().is_some())
            .ok_or_else(|| format!("{self} printed no ExecCredential with a token or certificate"))
    }

    /// The program, which may ask the user for something if there is a terminal.
    fn command(&self, is_terminal: bool) -> Result<Command, String> {
        let config = &self.config;
        let program = config.command.as_deref().unwrap_or_default();
        if program.is_empty() {
            return Err("the user's exec section has no command".to_owned());
        }
        let is_interactive = match config.interactive_mode {
            Some(ExecInteractiveMode::Never) => false,
            Some(ExecInteractiveMode::Always) if !is_terminal => {
                return Err(format!("{self} needs a terminal"));
            }
            _ => is_terminal,
        };
        let mut spec = json!({ "interactive": is_interactive });
        if config.provide_cluster_info {
            spec["cluster"] = serde_json::to_value(&config.cluster).unwrap_or_default();
        }
        let info = json!({
            "apiVersion": config.api_version,
            "kind": "ExecCredential",
            "spec": spec,
        });
        let mut command = Command::new(program);
        command
            .args(config.args.iter().flatten())
            .env("KUBERNETES_EXEC_INFO", info.to_string())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        for variable in config.env.iter().flatten() {
            if let (Some(name), Some(value)) = (variable.get("name"), variable.get("value")) {
                command.env(name, value);
            }
        }
        if is_interactive {
            command.stdin(Stdio::inherit()).stderr(Stdio::inherit());
        } else {
            command.stdin(Stdio::null()).stderr(Stdio::piped());
        }
        Ok(command)
    }

    fn not_started(&self, cause: &io::Error) -> String {
        let hint = self.config.install_hint.as_deref().unwrap_or_default();
        match (cause.kind(), hint.trim()) {
            (io::ErrorKind::NotFound, "") => format!("{self} is not installed"),
            (io::ErrorKind::NotFound, hint) => format!("{self} is not installed: {hint}"),
            _ => format!("{self} cannot be run: {cause}"),
        }
    }
}

impl fmt::Display for CredentialPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = self.config.command.as_deref().unwrap_or_default();
        write!(f, "the credential plugin {program:?}")
    }
}

impl Credentials {
    /// Certificate and key.
    pub(crate) fn certificate(&self) -> Option<(&str, &str)> {
        let certificate = self.client_certificate_data.as_deref()?;
        Some((certificate, self.client_key_data.as_deref()?))
    }

    /// How long they are valid; `None` if that is not known.
    pub(crate) fn valid_for(&self, now: SystemTime) -> Option<Duration> {
        let timestamp = self.expiration_timestamp.as_deref()?;
        let expires_at = humantime::parse_rfc3339_weak(timestamp).ok()?;
        Some(expires_at.duration_since(now).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn plugin(config: Value) -> CredentialPlugin {
        CredentialPlugin::new(serde_json::from_value(config).unwrap())
    }

    /// What the program is told about its task, and its variable `A`.
    fn told(
        plugin: &CredentialPlugin,
        is_terminal: bool,
    ) -> Result<(Value, Option<String>), String> {
        let command = plugin.command(is_terminal)?;
        let variable = |name: &str| {
            let mut all = command.as_std().get_envs();
            let found = all.find(|(known, _)| *known == name)?.1?;
            Some(found.to_string_lossy().into_owned())
        };
        let info = variable("KUBERNETES_EXEC_INFO").unwrap();
        Ok((serde_json::from_str(&info).unwrap(), variable("A")))
    }

    #[test]
    fn a_plugin_asks_the_user_only_on_a_terminal() {
        for (mode, is_terminal, expected) in [
            ("Never", true, Ok(false)),
            ("Never", false, Ok(false)),
            ("IfAvailable", true, Ok(true)),
            ("IfAvailable", false, Ok(false)),
            ("Always", true, Ok(true)),
            (
                "Always",
                false,
                Err("the credential plugin \"login\" needs a terminal"),
            ),
        ] {
            let plugin = plugin(json!({ "command": "login", "interactiveMode": mode }));
            let told = told(&plugin, is_terminal);
            let interactive = told.map(|(info, _)| info["spec"]["interactive"] == true);
            assert_eq!(
                interactive,
                expected.map_err(str::to_owned),
                "{mode} {is_terminal}"
            );
        }
    }

    #[test]
    fn a_plugin_is_told_the_version_and_the_cluster_and_has_its_variables() {
        let config = json!({
            "apiVersion": "client.authentication.k8s.io/v1", "command": "login",
            "env": [{ "name": "A", "value": "1" }, { "name": "B" }],
        });
        let (info, variable) = told(&plugin(config), false).unwrap();
        assert_eq!(info["apiVersion"], "client.authentication.k8s.io/v1");
        assert_eq!(info["kind"], "ExecCredential");
        assert_eq!(info["spec"].get("cluster"), None);
        assert_eq!(variable.as_deref(), Some("1"));
        let error = plugin(json!({ "command": "" })).command(false).unwrap_err();
        assert_eq!(error, "the user's exec section has no command");
    }

    #[test]
    fn a_plugin_that_can_not_be_run_is_named_with_the_hint() {
        let name = "the credential plugin \"login\"";
        for (kind, hint, expected) in [
            (io::ErrorKind::NotFound, "", "is not installed"),
            (
                io::ErrorKind::NotFound,
                " get it \n",
                "is not installed: get it",
            ),
            (
                io::ErrorKind::PermissionDenied,
                "get it",
                "cannot be run: permission denied",
            ),
        ] {
            let plugin = plugin(json!({ "command": "login", "installHint": hint }));
            let error = plugin.not_started(&kind.into());
            assert_eq!(error, format!("{name} {expected}"));
        }
    }

    #[test]
    fn credentials_have_a_time_and_a_certificate_only_with_its_key() {
        let credentials = |value: Value| serde_json::from_value::<Credentials>(value).unwrap();
        let both = credentials(json!({ "clientCertificateData": "c", "clientKeyData": "k" }));
        assert_eq!(both.certificate(), Some(("c", "k")));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_769_860_800);
        assert_eq!(both.valid_for(now), None);
        let without_key = credentials(json!({ "clientCertificateData": "c" }));
        assert_eq!(without_key.certificate(), None);
        for (expiry, expected) in [
            ("2026-01-31T12:10:00Z", Some(600)),
            ("2026-01-31T11:00:00Z", Some(0)),
            ("soon", None),
        ] {
            let credentials = credentials(json!({ "expirationTimestamp": expiry }));
            let expected = expected.map(Duration::from_secs);
            assert_eq!(credentials.valid_for(now), expected, "{expiry}");
        }
    }
}
