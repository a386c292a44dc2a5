//! The body of `/v1/agent/service/register`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::check::ServiceCheck;
use crate::metadata;
use crate::store::{CheckDefinition, Connect, Service, ServiceAddress, Weights};

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

    /// Checks the weights and the metadata. The error is Consul's.
    pub(crate) fn validate(&self) -> Result<(), String> {
        if let Some(weights) = &self.weights {
            let result = weights.validate();
            result.map_err(|error| format!("Invalid Weights: {error}"))?;
        }
        if let Some(meta) = &self.service.meta {
            let result = metadata::validate(meta);
            result.map_err(|error| format!("Invalid Service Meta: {error}"))?;
        }
        Ok(())
    }
}
