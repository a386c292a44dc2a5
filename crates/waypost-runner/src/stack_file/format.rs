//! The keys of a stack file, as types. The JSON schema for editors is derived from them.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use toml::Spanned;
use toml::de::DeTable;

use super::document::{Errors, Section, field_names, read_table};
use super::tables::Tables;
use crate::service::{RestartRule, StopSignal};

/// A stack: services that discover each other, started together by `waypost up`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[schemars(title = "waypost.toml")]
#[non_exhaustive]
pub struct Contents {
    /// The name of the stack; default: the name of the file's folder.
    pub name: Option<String>,
    /// Files of environment variables for all services. A file whose name ends in `?` may be missing.
    /// Later files take precedence over earlier ones, and the shell's environment over all.
    pub env_files: Vec<String>,
    /// The services that Waypost provides.
    pub waypost: BuiltIn,
    /// Values for the services that don't set their own.
    pub defaults: Defaults,
    /// The services, by name.
    pub services: BTreeMap<String, Service>,
}

/// The services that Waypost provides.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct BuiltIn {
    /// `embedded`, `consul` to start `consul agent -dev`, or the `HOST:PORT` of a running registry;
    /// default: `embedded`.
    pub registry: String,
    /// The port of the registry that is started; default: 8500.
    pub registry_port: u16,
    /// The port of the dashboard, or `false` for none; default: 3000.
    pub dashboard: PortOrOff,
    /// The port of the gateway, or `false` for none; default: 8000.
    pub gateway: PortOrOff,
    /// The gateway's routes file, which it reads again whenever it changes; default: none.
    pub routes: Option<String>,
}

impl Default for BuiltIn {
    fn default() -> Self {
        Self {
            registry: "embedded".to_owned(),
            registry_port: 8500,
            dashboard: PortOrOff::Port(3000),
            gateway: PortOrOff::Port(8000),
            routes: None,
        }
    }
}

/// A port, or `false`.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a port from 1 to 65535, or false")]
pub enum PortOrOff {
    /// The port.
    Port(#[schemars(range(min = 1))] u16),
    /// `false` disables it; `true` is not valid.
    Switch(bool),
}

impl PortOrOff {
    /// The port; `None` if it is disabled.
    pub fn port(self) -> Option<u16> {
        match self {
            Self::Port(port) => Some(port),
            Self::Switch(_) => None,
        }
    }
}

/// Values for the services that don't set their own.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Defaults {
    /// When a program that has exited is restarted; default: `crash`.
    pub restart: Option<RestartRule>,
    /// How programs are stopped.
    pub stop: Stop,
}

/// One service: a program, a one-time task (`once`) or something that runs elsewhere (`external`).
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Service {
    /// The program and its arguments: a string, split as a shell does, or a list. `{port}` is the
    /// instance's port, `{services.NAME.port}` that of another service.
    pub run: Option<CommandLine>,
    /// Run `run` and `build` with `sh -c`, for pipes, `&&` and variables; default: false.
    pub shell: bool,
    /// The working folder, relative to the file; default: the file's folder.
    pub dir: Option<String>,
    /// The port of the first instance; 0 for any free port. The instance keeps it when it is restarted.
    /// Further instances get free ports. Default: the service has no port.
    pub port: Option<u16>,
    /// The number of instances; default: 1.
    #[schemars(range(min = 1))]
    pub replicas: Option<u32>,
    /// The services that this one waits for before it starts: `NAME` (ready, or completed if it is a
    /// one-time task), `NAME:started`, `NAME:ready` or `NAME:completed`.
    pub after: Vec<String>,
    /// When an instance is ready; default: it accepts connections on its port, or runs if it has none.
    pub ready: Option<Ready>,
    /// A command that builds the program, run before the first start and after a change. If it fails, the
    /// program of the previous build keeps running.
    pub build: Option<CommandLine>,
    /// Restart the service when these files change.
    pub watch: Option<Watch>,
    /// Environment variables. They take precedence over all others.
    pub env: BTreeMap<String, EnvValue>,
    /// Files of environment variables, in addition to those of the stack.
    pub env_files: Vec<String>,
    /// Variables that must be set. Otherwise the service isn't started.
    pub needs_env: Vec<String>,
    /// The services that it calls. For each, the variables `SERVICE_<NAME>_URL` and `<NAME>_URL` are set.
    pub uses: Vec<String>,
    /// How it is registered: `true` (by Waypost), `"self"` (by itself), `false` (not at all), or a table
    /// with tags and other properties; default: `true` for a service with a port.
    pub register: Option<Register>,
    /// A one-time task, such as a migration; default: false.
    pub once: bool,
    /// The `HOST:PORT` of something that Waypost doesn't start. It is only checked, registered and shown.
    pub external: Option<String>,
    /// Started only with `--profile` and one of these names, or if the service itself is named.
    pub profiles: Vec<String>,
    /// When the program is restarted after it has exited; default: `crash`.
    pub restart: Option<RestartRule>,
    /// How the program is stopped.
    pub stop: Option<Stop>,
    /// Open its URL in the browser once it is ready; default: false.
    pub open: bool,
    /// Links that are shown with the service, by title.
    pub links: BTreeMap<String, String>,
}

/// A command: a string that is split as a shell does, or a list of words.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a command: a string such as \"npm run dev\", or a list of strings"
)]
pub enum CommandLine {
    /// A string, split as a shell does.
    Line(String),
    /// The program and its arguments.
    Words(Vec<String>),
}

/// The value of an environment variable.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected the value of a variable: a string, a number, true or false"
)]
pub enum EnvValue {
    /// Text.
    Text(String),
    /// `true` or `false`.
    Switch(bool),
    /// An integer.
    Integer(i64),
    /// Any other number.
    Number(f64),
}

impl std::fmt::Display for EnvValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Switch(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Number(value) => value.fmt(f),
        }
    }
}

/// When an instance is ready. One of `http`, `tcp`, `log` and `exec`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Ready {
    /// A GET request to this path (or `http://` URL) is answered with 2xx.
    pub http: Option<String>,
    /// The port accepts connections.
    pub tcp: Option<bool>,
    /// A line of its output matches this regular expression.
    pub log: Option<String>,
    /// This command exits with 0. It runs in the service's folder and environment.
    pub exec: Option<CommandLine>,
    /// The time between two checks of a ready instance; default: 5s.
    #[serde(deserialize_with = "duration")]
    #[schemars(with = "Option<String>")]
    pub every: Option<Duration>,
    /// How long a check may take; default: 1s.
    #[serde(deserialize_with = "duration")]
    #[schemars(with = "Option<String>")]
    pub timeout: Option<Duration>,
    /// How many consecutive checks must fail before the instance is no longer ready; default: 3.
    #[schemars(range(min = 1))]
    pub failures: Option<u32>,
    /// How long the start may take before it counts as failed; default: 30s, or 3s for an external
    /// service. The program is not stopped.
    #[serde(deserialize_with = "duration")]
    #[schemars(with = "Option<String>")]
    pub start_within: Option<Duration>,
}

/// Restart a service when files change.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Watch {
    /// Patterns as in a `.gitignore`, relative to the service's folder; default: everything. What a
    /// `.gitignore` ignores is never watched.
    pub paths: Vec<String>,
    /// The time without further changes after which the service is restarted; default: 200ms.
    #[serde(deserialize_with = "duration")]
    #[schemars(with = "Option<String>")]
    pub wait: Option<Duration>,
    /// Also restart the services that depend on this one (`after`); default: false.
    pub cascade: bool,
}

/// How a program is stopped.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Stop {
    /// The signal that is sent to stop the program; default: `TERM`.
    pub signal: Option<StopSignal>,
    /// How long stopping may take before the program is killed; default: 10s.
    #[serde(deserialize_with = "duration")]
    #[schemars(with = "Option<String>")]
    pub within: Option<Duration>,
}

/// How a service is registered.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected true, false, \"self\", or a table with name, tags, meta and version"
)]
pub enum Register {
    /// `true`: registered by Waypost; `false`: not registered.
    Switch(bool),
    /// The program registers itself.
    Own(OwnRegistration),
    /// Registered by Waypost with these properties.
    Details(Registration),
}

/// The service registers itself.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OwnRegistration {
    /// `"self"`
    #[serde(rename = "self")]
    Itself,
}

/// The properties with which a service is registered.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Registration {
    /// The name in the registry; default: that of the service.
    pub name: Option<String>,
    /// Tags.
    pub tags: Vec<String>,
    /// Metadata.
    pub meta: BTreeMap<String, String>,
    /// The version.
    pub version: Option<String>,
}

/// All tables with fixed keys.
pub(super) fn tables() -> Tables {
    Tables(vec![
        ("at the top level", field_names::<Contents>()),
        ("in [waypost]", field_names::<BuiltIn>()),
        ("in [defaults]", field_names::<Defaults>()),
        ("in [defaults.stop]", field_names::<Stop>()),
        ("in [services.NAME]", field_names::<Service>()),
        ("in [services.NAME.ready]", field_names::<Ready>()),
        ("in [services.NAME.watch]", field_names::<Watch>()),
        ("in [services.NAME.stop]", field_names::<Stop>()),
        ("in [services.NAME.register]", field_names::<Registration>()),
    ])
}

impl Section for Contents {
    fn nested(key: &str, table: &Spanned<DeTable<'_>>, errors: &mut Errors<'_>) -> bool {
        match key {
            "waypost" => drop(read_table::<BuiltIn>(table, errors)),
            "defaults" => drop(read_table::<Defaults>(table, errors)),
            _ => return false,
        }
        true
    }
}

impl Section for BuiltIn {}

impl Section for Defaults {
    fn nested(key: &str, table: &Spanned<DeTable<'_>>, errors: &mut Errors<'_>) -> bool {
        if key == "stop" {
            read_table::<Stop>(table, errors);
        }
        key == "stop"
    }
}

impl Section for Service {
    fn nested(key: &str, table: &Spanned<DeTable<'_>>, errors: &mut Errors<'_>) -> bool {
        match key {
            "ready" => drop(read_table::<Ready>(table, errors)),
            "watch" => drop(read_table::<Watch>(table, errors)),
            "stop" => drop(read_table::<Stop>(table, errors)),
            "register" => drop(read_table::<Registration>(table, errors)),
            _ => return false,
        }
        true
    }
}

impl Section for Ready {}
impl Section for Registration {}
impl Section for Stop {}
impl Section for Watch {}

/// A duration such as `200ms` or `1m 30s`.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match humantime::parse_duration(&text) {
        Ok(duration) if !duration.is_zero() => Ok(Some(duration)),
        _ => Err(serde::de::Error::custom(format!(
            "{text:?} is not a duration; use one such as \"200ms\", \"2s\" or \"1m\""
        ))),
    }
}
