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
        let mut command = self.command()?;
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

    fn command(&self) -> Result<Command, String> {
        let config = &self.config;
        let program = config.command.as_deref().unwrap_or_default();
        if program.is_empty() {
            return Err("the user's exec section has no command".to_owned());
        }
        let is_terminal = io::stdin().is_terminal();
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
