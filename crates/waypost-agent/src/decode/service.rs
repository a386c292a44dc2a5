//! The body of `/v1/agent/service/register`.

use std::collections::BTreeMap;

use super::{CheckDefinition, Decode, Fault, Fields, Json, decode_map};
use crate::store::{Connect, Service, ServiceAddress, Weights};

const GO_TYPE: &str = "struct { EnableTagOverrideSnake bool \"json:\\\"enable_tag_override\\\"\"; \
    TaggedAddressesSnake map[string]structs.ServiceAddress \"json:\\\"tagged_addresses\\\"\"; \
    *structs.Alias }";

/// The longest key and value that an instance's metadata may have, and how many of them.
const META_KEY_LENGTH: usize = 128;
const META_VALUE_LENGTH: usize = 512;
const META_PAIRS: usize = 64;

/// An instance to register, with its checks.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceDefinition {
    pub service: Service,
    pub weights: Option<Weights>,
    pub check: CheckDefinition,
    pub checks: Vec<CheckDefinition>,
    /// Whether it is to get a proxy of Connect's.
    pub sidecar: bool,
}

impl ServiceDefinition {
    pub(crate) fn decode(json: Json<'_>) -> Result<Self, Fault> {
        let mut fields = Fields::of(json, "", GO_TYPE)?;
        let mut service = Service {
            kind: fields.take("Kind"),
            id: fields.take("ID"),
            name: fields.take("Name"),
            tags: fields.take("Tags"),
            address: fields.take("Address"),
            tagged_addresses: fields
                .take_any(&["TaggedAddresses", "tagged_addresses"])
                .unwrap_or_default(),
            meta: fields.take_any(&["Meta"]),
            port: fields.take("Port"),
            enable_tag_override: fields
                .take_any(&["EnableTagOverride", "enable_tag_override"])
                .unwrap_or_default(),
            ..Service::default()
        };
        let weights = fields.take_with(&["Weights"], |json| {
            decode_weights(json, "Weights.Weights", "structs.Weights").map(Some)
        });
        let check = fields.take_opaque(&["Check"], CheckDefinition::decode);
        let checks = fields.take_opaque(&["Checks"], decode_checks);
        let (connect, sidecar) = fields.take_opaque(&["Connect"], decode_connect);
        service.connect = connect;
        let _token: String = fields.take("Token");
        let _proxy = fields.take_with(&["Proxy"], |json| Ok(Some(json)));
        fields.finish()?;
        if service.id.is_empty() {
            service.id.clone_from(&service.name);
        }
        if let Some(weights) = &weights {
            service.weights = Weights::clone(weights);
        }
        Ok(Self {
            service,
            weights,
            check,
            checks,
            sidecar,
        })
    }

    /// The checks that say something.
    pub(crate) fn all_checks(&self) -> impl Iterator<Item = &CheckDefinition> {
        let first = Some(&self.check).filter(|check| !check.is_empty());
        first.into_iter().chain(&self.checks)
    }

    /// The instance and its checks that say something.
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

pub(super) fn decode_weights(
    json: Json<'_>,
    context: &'static str,
    go_type: &'static str,
) -> Result<Weights, Fault> {
    let mut fields = Fields::of(json, context, go_type)?;
    let weights = Weights {
        passing: fields.take("Passing"),
        warning: fields.take("Warning"),
    };
    fields.finish()?;
    Ok(weights)
}

fn decode_checks(json: Json<'_>) -> Result<Vec<CheckDefinition>, Fault> {
    match json {
        Json::Array(items) => items
            .into_iter()
            .filter(|item| *item != Json::Null)
            .map(CheckDefinition::decode)
            .collect(),
        other => Err(Fault::mismatch(&other, "structs.CheckTypes")),
    }
}

/// Of `Connect` only `Native` is kept; beside it, whether a sidecar is asked for.
pub(super) fn decode_connect(json: Json<'_>) -> Result<(Connect, bool), Fault> {
    const GO_TYPE: &str = "struct { SidecarServiceSnake *structs.ServiceDefinition \
        \"json:\\\"sidecar_service\\\"\"; *structs.Alias }";
    let mut fields = Fields::of(json, "", GO_TYPE)?;
    let connect = Connect {
        native: fields.take("Native"),
    };
    let sidecar = fields.take_with(&["SidecarService", "sidecar_service"], |_| Ok(true));
    fields.finish_leniently()?;
    Ok((connect, sidecar))
}

impl Decode for ServiceAddress {
    fn decode(json: Json<'_>) -> Result<Self, Fault> {
        let context = "ServiceAddress.TaggedAddresses";
        let mut fields = Fields::of(json, context, "structs.ServiceAddress")?;
        let address = Self {
            address: fields.take("Address"),
            port: fields.take("Port"),
        };
        fields.finish()?;
        Ok(address)
    }
}

impl Decode for BTreeMap<String, ServiceAddress> {
    fn decode(json: Json<'_>) -> Result<Self, Fault> {
        decode_map(json, "map[string]structs.ServiceAddress")
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
