//! The objects that routes are made from, reduced to the fields that are used.
//!
//! With the generated types of the crate `gateway-api`, an unknown value of an enumeration, such as a new
//! kind of filter, would make the whole object unreadable instead of being reported in its status.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use waypost::provider::kubernetes::objects::{ObjectKey, ObjectKind};

pub(crate) const GROUP: &str = "gateway.networking.k8s.io";

pub(super) const SECRETS: ObjectKind = ObjectKind::new("", "v1", "secrets");
pub(super) const SERVICES: ObjectKind = ObjectKind::new("", "v1", "services");
pub(super) const NAMESPACES: ObjectKind = ObjectKind::new("", "v1", "namespaces");
pub(super) const CLASSES: ObjectKind = ObjectKind::new(GROUP, "v1", "gatewayclasses");
pub(super) const GATEWAYS: ObjectKind = ObjectKind::new(GROUP, "v1", "gateways");
pub(super) const ROUTES: ObjectKind = ObjectKind::new(GROUP, "v1", "httproutes");
pub(super) const GRANTS: ObjectKind = ObjectKind::new(GROUP, "v1beta1", "referencegrants");

/// All objects at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Objects {
    pub(super) classes: Vec<GatewayClass>,
    pub(super) gateways: Vec<Gateway>,
    pub(super) routes: Vec<HttpRoute>,
    pub(super) grants: Vec<ReferenceGrant>,
    pub(super) services: Vec<Service>,
    pub(super) namespaces: Vec<Namespace>,
}

impl Objects {
    /// Whether a ReferenceGrant allows objects of the Gateway API in one namespace to refer to an object of the
    /// core API group in another one.
    pub(super) fn is_granted(
        &self,
        (from_kind, from_namespace): (&str, &str),
        (to_kind, to_namespace, to_name): (&str, &str, &str),
    ) -> bool {
        let is_from = |it: &GrantFrom| {
            (it.group.as_str(), it.kind.as_str(), it.namespace.as_str())
                == (GROUP, from_kind, from_namespace)
        };
        let is_to = |it: &GrantTo| {
            let name = it.name.as_deref().filter(|name| !name.is_empty());
            it.group.is_empty() && it.kind == to_kind && name.is_none_or(|name| name == to_name)
        };
        let grants = self.grants.iter();
        grants
            .filter(|grant| grant.metadata.namespace == to_namespace)
            .any(|grant| grant.spec.from.iter().any(is_from) && grant.spec.to.iter().any(is_to))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) resource_version: String,
    pub(super) generation: u64,
    pub(super) creation_timestamp: String,
    pub(super) labels: BTreeMap<String, String>,
}

impl Metadata {
    pub(super) fn key(&self) -> ObjectKey {
        ObjectKey::new(&self.namespace, &self.name)
    }
}

/// An object with a spec and a status. Only the spec is kept in a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Object<T> {
    pub(super) metadata: Metadata,
    pub(super) spec: T,
    #[serde(skip_serializing)]
    pub(super) status: Value,
}

pub(crate) type GatewayClass = Object<GatewayClassSpec>;
pub(crate) type Gateway = Object<GatewaySpec>;
pub(crate) type HttpRoute = Object<HttpRouteSpec>;
pub(crate) type ReferenceGrant = Object<ReferenceGrantSpec>;
pub(crate) type Service = Object<ServiceSpec>;
pub(crate) type Namespace = Object<()>;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct GatewayClassSpec {
    pub(super) controller_name: String,
    pub(super) parameters_ref: Option<Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct GatewaySpec {
    pub(super) gateway_class_name: String,
    pub(super) listeners: Vec<Listener>,
    pub(super) addresses: Vec<Address>,
    pub(super) infrastructure: Option<Infrastructure>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Address {
    pub(super) value: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Infrastructure {
    pub(super) parameters_ref: Option<Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Listener {
    pub(super) name: String,
    pub(super) hostname: Option<String>,
    pub(super) port: u32,
    pub(super) protocol: String,
    pub(super) tls: Option<ListenerTls>,
    pub(super) allowed_routes: AllowedRoutes,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ListenerTls {
    pub(super) mode: Option<String>,
    pub(super) certificate_refs: Vec<CertificateRef>,
    pub(super) options: BTreeMap<String, String>,
    pub(super) frontend_validation: Option<Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct CertificateRef {
    pub(super) group: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct AllowedRoutes {
    pub(super) namespaces: RouteNamespaces,
    pub(super) kinds: Vec<RouteKind>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RouteNamespaces {
    pub(super) from: Option<String>,
    pub(super) selector: Option<LabelSelector>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RouteKind {
    pub(super) group: Option<String>,
    pub(super) kind: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct LabelSelector {
    pub(super) match_labels: BTreeMap<String, String>,
    pub(super) match_expressions: Vec<LabelExpression>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LabelExpression {
    pub(super) key: String,
    pub(super) operator: String,
    pub(super) values: Vec<String>,
}

impl LabelSelector {
    pub(super) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let is_equal = |(key, value): (&String, &String)| labels.get(key) == Some(value);
        self.match_labels.iter().all(is_equal)
            && self.match_expressions.iter().all(|expression| {
                let value = labels.get(&expression.key);
                let is_listed = value.is_some_and(|value| expression.values.contains(value));
                match expression.operator.as_str() {
                    "In" => is_listed,
                    "NotIn" => !is_listed,
                    "Exists" => value.is_some(),
                    "DoesNotExist" => value.is_none(),
                    _ => false,
                }
            })
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct HttpRouteSpec {
    pub(super) parent_refs: Vec<ParentRef>,
    pub(super) hostnames: Vec<String>,
    pub(super) rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ParentRef {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) section_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) port: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Rule {
    pub(super) matches: Vec<Match>,
    pub(super) filters: Vec<Filter>,
    pub(super) backend_refs: Vec<BackendRef>,
    pub(super) timeouts: Timeouts,
    pub(super) retry: Option<Value>,
    pub(super) session_persistence: Option<Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Match {
    pub(super) path: Option<ValueMatch>,
    pub(super) headers: Vec<ValueMatch>,
    pub(super) query_params: Vec<ValueMatch>,
    pub(super) method: Option<String>,
}

/// The condition on a path, a header or a query parameter. A path has no name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ValueMatch {
    pub(super) r#type: Option<String>,
    pub(super) name: String,
    pub(super) value: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Filter {
    pub(super) r#type: String,
    pub(super) request_header_modifier: Option<HeaderModifier>,
    pub(super) response_header_modifier: Option<HeaderModifier>,
    pub(super) request_mirror: Option<RequestMirror>,
    pub(super) request_redirect: Option<RequestRedirect>,
    #[serde(rename = "urlRewrite")]
    pub(super) url_rewrite: Option<UrlRewrite>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct HeaderModifier {
    pub(super) set: Vec<Header>,
    pub(super) add: Vec<Header>,
    pub(super) remove: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Header {
    pub(super) name: String,
    pub(super) value: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct RequestMirror {
    pub(super) backend_ref: BackendRef,
    pub(super) percent: Option<u32>,
    pub(super) fraction: Option<Fraction>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Fraction {
    pub(super) numerator: u32,
    pub(super) denominator: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct RequestRedirect {
    pub(super) scheme: Option<String>,
    pub(super) hostname: Option<String>,
    pub(super) path: Option<PathModifier>,
    pub(super) port: Option<u32>,
    pub(super) status_code: Option<u16>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct UrlRewrite {
    pub(super) hostname: Option<String>,
    pub(super) path: Option<PathModifier>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PathModifier {
    pub(super) r#type: String,
    pub(super) replace_full_path: Option<String>,
    pub(super) replace_prefix_match: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct BackendRef {
    pub(super) group: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) port: Option<u32>,
    pub(super) weight: Option<u32>,
    pub(super) filters: Vec<Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Timeouts {
    pub(super) request: Option<String>,
    pub(super) backend_request: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ReferenceGrantSpec {
    pub(super) from: Vec<GrantFrom>,
    pub(super) to: Vec<GrantTo>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct GrantFrom {
    pub(super) group: String,
    pub(super) kind: String,
    pub(super) namespace: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct GrantTo {
    pub(super) group: String,
    pub(super) kind: String,
    pub(super) name: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ServiceSpec {
    pub(super) r#type: Option<String>,
    pub(super) ports: Vec<ServicePort>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ServicePort {
    pub(super) name: Option<String>,
    pub(super) port: u32,
    pub(super) protocol: Option<String>,
}
