//! The kinds of objects that the server stores.

use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::{Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A kind of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Namespace,
    Service,
    Secret,
    EndpointSlice,
    Role,
    RoleBinding,
    ClusterRole,
    ClusterRoleBinding,
    GatewayClass,
    Gateway,
    HttpRoute,
    ReferenceGrant,
}

/// The group of the Gateway API's custom resources.
const GATEWAY_API: &str = "gateway.networking.k8s.io";
const GATEWAY_API_V1: &str = "gateway.networking.k8s.io/v1";
const GATEWAY_API_BETA: &str = "gateway.networking.k8s.io/v1beta1";

impl Kind {
    /// In the order of the discriminants.
    pub(crate) const ALL: [Self; 12] = [
        Self::Namespace,
        Self::Service,
        Self::Secret,
        Self::EndpointSlice,
        Self::Role,
        Self::RoleBinding,
        Self::ClusterRole,
        Self::ClusterRoleBinding,
        Self::GatewayClass,
        Self::Gateway,
        Self::HttpRoute,
        Self::ReferenceGrant,
    ];

    /// The kind with this plural in this API group and version, such as `discovery.k8s.io/v1`.
    pub(crate) fn of_resource(api_version: &str, plural: &str) -> Option<Self> {
        let mut kinds = Self::ALL.into_iter();
        kinds.find(|it| it.api_version() == api_version && it.plural() == plural)
    }

    /// The kind that a manifest names.
    pub(crate) fn of_manifest(manifest: &Value) -> Option<Self> {
        let mut kinds = Self::ALL.into_iter();
        kinds.find(|it| manifest["kind"] == it.name() && manifest["apiVersion"] == it.api_version())
    }

    /// The API group; empty for the core.
    pub(crate) fn group(self) -> &'static str {
        self.description().group
    }

    /// `v1` or `discovery.k8s.io/v1`.
    pub(crate) fn api_version(self) -> &'static str {
        self.description().api_version
    }

    /// `Service` or `EndpointSlice`.
    pub(crate) fn name(self) -> &'static str {
        self.description().name
    }

    /// `services` or `endpointslices`, as in paths and rules.
    pub(crate) fn plural(self) -> &'static str {
        self.description().plural
    }

    /// `services` or `endpointslices.discovery.k8s.io`, as in error texts.
    pub(crate) fn qualified_plural(self) -> String {
        qualified(self.plural(), self.group())
    }

    /// `Service` or `EndpointSlice.discovery.k8s.io`, as in error texts.
    pub(crate) fn qualified_name(self) -> String {
        qualified(self.name(), self.group())
    }

    pub(crate) fn is_namespaced(self) -> bool {
        !matches!(
            self,
            Self::Namespace | Self::ClusterRole | Self::ClusterRoleBinding | Self::GatewayClass
        )
    }

    /// Whether it is defined by a CustomResourceDefinition of the Gateway API.
    pub(crate) fn is_custom(self) -> bool {
        self.group() == GATEWAY_API
    }

    /// Checks the types of an object's fields and drops the fields that the kind does not have, as
    /// the API server does.
    pub(crate) fn normalize(self, object: Value) -> Result<Value, serde_json::Error> {
        (self.description().normalize)(object)
    }

    fn description(self) -> &'static Description {
        match self {
            Self::Namespace => const { &Description::of::<Namespace>() },
            Self::Service => const { &Description::of::<Service>() },
            Self::Secret => const { &Description::of::<Secret>() },
            Self::EndpointSlice => const { &Description::of::<EndpointSlice>() },
            Self::Role => const { &Description::of::<Role>() },
            Self::RoleBinding => const { &Description::of::<RoleBinding>() },
            Self::ClusterRole => const { &Description::of::<ClusterRole>() },
            Self::ClusterRoleBinding => const { &Description::of::<ClusterRoleBinding>() },
            Self::GatewayClass => &GATEWAY_CLASS,
            Self::Gateway => &GATEWAY,
            Self::HttpRoute => &HTTP_ROUTE,
            Self::ReferenceGrant => &REFERENCE_GRANT,
        }
    }
}

/// The properties of a kind, from its published type.
struct Description {
    group: &'static str,
    api_version: &'static str,
    name: &'static str,
    plural: &'static str,
    normalize: fn(Value) -> Result<Value, serde_json::Error>,
}

impl Description {
    const fn of<T: Resource + DeserializeOwned + Serialize>() -> Self {
        Self {
            group: T::GROUP,
            api_version: T::API_VERSION,
            name: T::KIND,
            plural: T::URL_PATH_SEGMENT,
            normalize: |object| serde_json::to_value(serde_json::from_value::<T>(object)?),
        }
    }
}

const GATEWAY_CLASS: Description = custom(GATEWAY_API_V1, "GatewayClass", "gatewayclasses");
const GATEWAY: Description = custom(GATEWAY_API_V1, "Gateway", "gateways");
const HTTP_ROUTE: Description = custom(GATEWAY_API_V1, "HTTPRoute", "httproutes");
const REFERENCE_GRANT: Description = custom(GATEWAY_API_BETA, "ReferenceGrant", "referencegrants");

/// A custom resource of the Gateway API. Its fields are not checked.
const fn custom(
    api_version: &'static str,
    name: &'static str,
    plural: &'static str,
) -> Description {
    Description {
        group: GATEWAY_API,
        api_version,
        name,
        plural,
        normalize: Ok,
    }
}

/// `name.group`, or the name alone for the core.
fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() {
        name.to_owned()
    } else {
        format!("{name}.{group}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_fields_are_dropped() {
        let slice = json!({
            "metadata": { "name": "a", "labels": { "any": "thing" } },
            "addressType": "IPv4",
            "endpoints": [{ "addresses": ["10.0.0.1"], "ready": true }],
            "adressType": "IPv6",
        });
        assert_eq!(
            Kind::EndpointSlice.normalize(slice).unwrap(),
            json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": { "name": "a", "labels": { "any": "thing" } },
                "addressType": "IPv4",
                "endpoints": [{ "addresses": ["10.0.0.1"] }],
            })
        );
    }

    #[test]
    fn a_field_of_another_type_is_refused() {
        let slice = json!({ "ports": [{ "port": "http" }] });
        let error = Kind::EndpointSlice.normalize(slice).unwrap_err();
        assert!(error.to_string().contains("expected i32"), "{error}");
    }
}
