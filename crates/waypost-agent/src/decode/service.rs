//! The body of `/v1/agent/service/register`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::check::{CheckDefinition, ServiceCheck};
use crate::store::{Connect, Service, ServiceAddress, Weights};

/// The longest key and value that an instance's metadata may have, in bytes, and how many of them.
const META_KEY_LENGTH: usize = 128;
const META_VALUE_LENGTH: usize = 512;
const META_PAIRS: usize = 64;

/// An instance to register, with its checks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "Body")]
pub(crate) struct ServiceDefinition {
    pub service: Service,
    pub weights: Option<Weights>,
    pub check: CheckDefinition,
    pub checks: Vec<CheckDefinition>,
    /// Whether a Connect sidecar proxy is requested.
    pub sidecar: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
struct Body {
    kind: String,
    #[serde(rename = "ID")]
    id: String,
    name: String,
    tags: Vec<String>,
    address: String,
    #[serde(alias = "tagged_addresses")]
    tagged_addresses: BTreeMap<String, ServiceAddress>,
    meta: Option<BTreeMap<String, String>>,
    port: i64,
    #[serde(alias = "enable_tag_override")]
    enable_tag_override: bool,
    weights: Option<WeightsBody>,
    check: ServiceCheck,
    checks: Vec<Option<ServiceCheck>>,
    connect: ConnectBody,
    #[serde(rename = "Proxy")]
    _proxy: IgnoredAny,
    #[serde(rename = "Token")]
    _token: String,
}

/// [`Weights`] whose fields are 0 if they are missing.
#[derive(Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct WeightsBody {
    passing: i64,
    warning: i64,
}

/// Of `Connect` only `Native` is kept.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct ConnectBody {
    native: bool,
    #[serde(alias = "sidecar_service")]
    sidecar_service: Option<IgnoredAny>,
}

impl From<Body> for ServiceDefinition {
    fn from(body: Body) -> Self {
        let sidecar = body.connect.sidecar_service.is_some();
        let weights = body.weights.map(Weights::from);
        let mut service = Service {
            kind: body.kind,
            id: body.id,
            name: body.name,
            tags: body.tags,
            address: body.address,
            tagged_addresses: body.tagged_addresses,
            meta: body.meta,
            port: body.port,
            weights: weights.clone().unwrap_or_default(),
            enable_tag_override: body.enable_tag_override,
            connect: body.connect.into(),
            ..Service::default()
        };
        if service.id.is_empty() {
            service.id.clone_from(&service.name);
        }
        let checks = body.checks.into_iter().flatten();
        Self {
            service,
            weights,
            check: body.check.into(),
            checks: checks.map(CheckDefinition::from).collect(),
            sidecar,
        }
    }
}

impl From<WeightsBody> for Weights {
    fn from(WeightsBody { passing, warning }: WeightsBody) -> Self {
        Self { passing, warning }
    }
}

impl From<ConnectBody> for Connect {
    fn from(ConnectBody { native, .. }: ConnectBody) -> Self {
        Self { native }
    }
}

impl ServiceDefinition {
    /// The checks that are not empty.
    pub(crate) fn all_checks(&self) -> impl Iterator<Item = &CheckDefinition> {
        let first = Some(&self.check).filter(|check| !check.is_empty());
        first.into_iter().chain(&self.checks)
    }

    /// The instance, and its checks that are not empty.
    pub(crate) fn into_parts(self) -> (Service, Vec<CheckDefinition>) {
        let mut checks = self.checks;
        if !self.check.is_empty() {
            checks.insert(0, self.check);
        }
        (self.service, checks)
    }

    /// What is wrong with the weights or the metadata, in Consul's words.
    pub(crate) fn fault(&self) -> Option<String> {
        if let Some(fault) = self.weights.as_ref().and_then(fault_of_weights) {
            return Some(format!("Invalid Weights: {fault}"));
        }
        let fault = self.service.meta.as_ref().and_then(fault_of_meta)?;
        Some(format!("Invalid Service Meta: {fault}"))
    }
}

pub(super) fn fault_of_weights(weights: &Weights) -> Option<&'static str> {
    const HIGHEST: i64 = 65_535;
    if weights.passing < 1 {
        Some("Passing must be greater than 0")
    } else if weights.warning < 0 {
        Some("Warning must be greater or equal than 0")
    } else if weights.passing > HIGHEST || weights.warning > HIGHEST {
        Some("DNS Weight must be between 0 and 65535")
    } else {
        None
    }
}

pub(crate) fn fault_of_meta(meta: &BTreeMap<String, String>) -> Option<String> {
    if meta.len() > META_PAIRS {
        return Some(format!(
            "Node metadata cannot contain more than {META_PAIRS} key/value pairs"
        ));
    }
    meta.iter().find_map(|(key, value)| {
        let fault = fault_of_pair(key, value)?;
        Some(format!(
            "Couldn't load metadata pair ('{key}', '{value}'): {fault}"
        ))
    })
}

fn fault_of_pair(key: &str, value: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if key.is_empty() {
        Some("Key cannot be blank".to_owned())
    } else if !key.chars().all(plain) {
        Some("Key contains invalid characters".to_owned())
    } else if key.len() > META_KEY_LENGTH {
        Some(format!(
            "Key is too long (limit: {META_KEY_LENGTH} characters)"
        ))
    } else if key.starts_with("consul-") {
        Some("Key prefix 'consul-' is reserved for internal use".to_owned())
    } else if value.len() > META_VALUE_LENGTH {
        Some(format!(
            "Value is too long (limit: {META_VALUE_LENGTH} characters)"
        ))
    } else {
        None
    }
}
