//! The body of `/v1/agent/service/register`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::check::ServiceCheck;
use crate::metadata;
use crate::store::{CheckDefinition, Connect, Proxy, Service, ServiceAddress, Weights};

/// The interval of the TCP check of a sidecar, in nanoseconds.
const SIDECAR_CHECK_INTERVAL: i64 = 10_000_000_000;

/// An instance to register, with its checks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "Body")]
pub(crate) struct ServiceDefinition {
    pub service: Service,
    pub weights: Option<Weights>,
    pub check: CheckDefinition,
    pub checks: Vec<CheckDefinition>,
    /// The Connect sidecar proxy that is to be registered as well.
    pub sidecar: Option<Box<ServiceDefinition>>,
    /// Whether the body had an id.
    pub has_id: bool,
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
    connect: ServiceConnect,
    proxy: Option<Proxy>,
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

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct ServiceConnect {
    native: bool,
    #[serde(alias = "sidecar_service")]
    sidecar_service: Option<Box<ServiceDefinition>>,
}

/// The only field of `Connect` that the catalog keeps is `Native`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct ConnectBody {
    native: bool,
}

/// The id of the sidecar of an instance.
pub(crate) fn sidecar_id(id: &str) -> String {
    format!("{id}-sidecar-proxy")
}

impl From<Body> for ServiceDefinition {
    fn from(body: Body) -> Self {
        let has_id = !body.id.is_empty();
        let native = body.connect.native;
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
            proxy: body.proxy.unwrap_or_default(),
            connect: Connect { native },
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
            sidecar: body.connect.sidecar_service,
            has_id,
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

    /// Checks the fields of a Connect proxy. The error is Consul's.
    pub(crate) fn validate_proxy(&self) -> Result<(), String> {
        let mut errors = Vec::new();
        let service = &self.service;
        if service.is_connect_proxy() {
            let config = service.proxy.config();
            if config.destination_service_name.trim().is_empty() {
                errors.push(
                    "Proxy.DestinationServiceName must be non-empty for Connect proxy services"
                        .to_owned(),
                );
            }
            if service.port == 0 {
                errors.push("Port must be set for a Connect proxy".to_owned());
            }
            if service.connect.native {
                errors.push(
                    "A Proxy cannot also be Connect Native, only typical services".to_owned(),
                );
            }
            errors.extend(config.upstream_errors());
        }
        if let Some(sidecar) = &self.sidecar {
            if sidecar.has_id {
                errors.push(
                    "A SidecarService cannot specify an ID as this is managed by the agent"
                        .to_owned(),
                );
            }
            if sidecar.sidecar.is_some() {
                errors.push("A SidecarService cannot have a nested SidecarService".to_owned());
            }
        }
        let count = errors.len();
        let noun = if count == 1 { "error" } else { "errors" };
        match count {
            0 => Ok(()),
            _ => Err(format!(
                "{count} {noun} occurred:\n\t* {}\n\n",
                errors.join("\n\t* ")
            )),
        }
    }

    /// Takes the sidecar, with Consul's defaults for missing fields, except for the port.
    pub(crate) fn take_sidecar(&mut self) -> Option<Self> {
        let mut sidecar = *self.sidecar.take()?;
        let parent = &self.service;
        let service = &mut sidecar.service;
        service.id = sidecar_id(&parent.id);
        let default = |field: &mut String, value: &str| {
            if field.is_empty() {
                value.clone_into(field);
            }
        };
        default(&mut service.name, &format!("{}-sidecar-proxy", parent.name));
        default(&mut service.kind, Service::CONNECT_PROXY);
        if service.tags.is_empty() {
            service.tags.clone_from(&parent.tags);
        }
        if service.meta.as_ref().is_none_or(BTreeMap::is_empty) {
            service.meta.clone_from(&parent.meta);
        }
        let mut config = service.proxy.config().clone();
        default(&mut config.destination_service_name, &parent.name);
        default(&mut config.destination_service_id, &parent.id);
        default(&mut config.local_service_address, "127.0.0.1");
        if config.local_service_port < 1 {
            config.local_service_port = parent.port;
        }
        service.proxy = config.into();
        Some(sidecar)
    }

    /// Adds the checks that Consul gives a sidecar without checks. Its port must be known.
    pub(crate) fn add_sidecar_checks(&mut self) {
        if self.all_checks().next().is_some() {
            return;
        }
        let config = self.service.proxy.config();
        let address = &config.local_service_address;
        let address = if address.contains(':') {
            format!("[{address}]:{}", self.service.port)
        } else {
            format!("{address}:{}", self.service.port)
        };
        let parent = config.destination_service_id.clone();
        self.checks = vec![
            CheckDefinition {
                name: "Connect Sidecar Listening".to_owned(),
                tcp: address,
                interval: SIDECAR_CHECK_INTERVAL,
                ..CheckDefinition::default()
            },
            CheckDefinition {
                name: format!("Connect Sidecar Aliasing {parent}"),
                alias_service: parent,
                ..CheckDefinition::default()
            },
        ];
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
