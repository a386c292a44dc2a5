//! The fields of each kind and their types. What a kind doesn't have is dropped, as by the API
//! server, and named if the client wants to know.

use serde_json::Value;

use crate::kinds::Kind;

/// What may stand in a place.
#[derive(Debug)]
enum Shape {
    Text,
    Number,
    Bool,
    Any,
    List(&'static Shape),
    /// Whatever keys there are.
    Map(&'static Shape),
    Fields(&'static [(&'static str, Shape)]),
}

use Shape::{Any, Bool, Fields, List, Map, Number, Text};

const METADATA: Shape = Fields(&[
    ("annotations", Map(&Text)),
    ("creationTimestamp", Text),
    ("deletionGracePeriodSeconds", Number),
    ("deletionTimestamp", Text),
    ("finalizers", List(&Text)),
    ("generateName", Text),
    ("generation", Number),
    ("labels", Map(&Text)),
    ("managedFields", List(&Any)),
    ("name", Text),
    ("namespace", Text),
    ("ownerReferences", List(&OWNER)),
    ("resourceVersion", Text),
    ("selfLink", Text),
    ("uid", Text),
]);

static OWNER: Shape = Fields(&[
    ("apiVersion", Text),
    ("blockOwnerDeletion", Bool),
    ("controller", Bool),
    ("kind", Text),
    ("name", Text),
    ("uid", Text),
]);

static REFERENCE: Shape = Fields(&[
    ("apiVersion", Text),
    ("fieldPath", Text),
    ("kind", Text),
    ("name", Text),
    ("namespace", Text),
    ("resourceVersion", Text),
    ("uid", Text),
]);

static NAMED: Shape = Fields(&[("name", Text)]);

static ENDPOINT: Shape = Fields(&[
    ("addresses", List(&Text)),
    (
        "conditions",
        Fields(&[("ready", Bool), ("serving", Bool), ("terminating", Bool)]),
    ),
    ("deprecatedTopology", Map(&Text)),
    (
        "hints",
        Fields(&[("forNodes", List(&NAMED)), ("forZones", List(&NAMED))]),
    ),
    ("hostname", Text),
    ("nodeName", Text),
    (
        "targetRef",
        Fields(&[
            ("apiVersion", Text),
            ("fieldPath", Text),
            ("kind", Text),
            ("name", Text),
            ("namespace", Text),
            ("resourceVersion", Text),
            ("uid", Text),
        ]),
    ),
    ("zone", Text),
]);

static ENDPOINT_PORT: Shape = Fields(&[
    ("appProtocol", Text),
    ("name", Text),
    ("port", Number),
    ("protocol", Text),
]);

static ENDPOINT_SLICE: Shape = Fields(&[
    ("addressType", Text),
    ("endpoints", List(&ENDPOINT)),
    ("metadata", METADATA),
    ("ports", List(&ENDPOINT_PORT)),
]);

static SERVICE_PORT: Shape = Fields(&[
    ("appProtocol", Text),
    ("name", Text),
    ("nodePort", Number),
    ("port", Number),
    ("protocol", Text),
    // A number or a name.
    ("targetPort", Any),
]);

static SERVICE: Shape = Fields(&[
    ("metadata", METADATA),
    (
        "spec",
        Fields(&[
            ("allocateLoadBalancerNodePorts", Bool),
            ("clusterIP", Text),
            ("clusterIPs", List(&Text)),
            ("externalIPs", List(&Text)),
            ("externalName", Text),
            ("externalTrafficPolicy", Text),
            ("healthCheckNodePort", Number),
            ("internalTrafficPolicy", Text),
            ("ipFamilies", List(&Text)),
            ("ipFamilyPolicy", Text),
            ("loadBalancerClass", Text),
            ("loadBalancerIP", Text),
            ("loadBalancerSourceRanges", List(&Text)),
            ("ports", List(&SERVICE_PORT)),
            ("publishNotReadyAddresses", Bool),
            ("selector", Map(&Text)),
            ("sessionAffinity", Text),
            ("sessionAffinityConfig", Any),
            ("trafficDistribution", Text),
            ("type", Text),
        ]),
    ),
    ("status", Any),
]);

static RULE: Shape = Fields(&[
    ("apiGroups", List(&Text)),
    ("nonResourceURLs", List(&Text)),
    ("resourceNames", List(&Text)),
    ("resources", List(&Text)),
    ("verbs", List(&Text)),
]);

static ROLE: Shape = Fields(&[
    ("aggregationRule", Any),
    ("metadata", METADATA),
    ("rules", List(&RULE)),
]);

static SUBJECT: Shape = Fields(&[
    ("apiGroup", Text),
    ("kind", Text),
    ("name", Text),
    ("namespace", Text),
]);

static BINDING: Shape = Fields(&[
    ("metadata", METADATA),
    (
        "roleRef",
        Fields(&[("apiGroup", Text), ("kind", Text), ("name", Text)]),
    ),
    ("subjects", List(&SUBJECT)),
]);

static SERVICE_ACCOUNT: Shape = Fields(&[
    ("automountServiceAccountToken", Bool),
    ("imagePullSecrets", List(&NAMED)),
    ("metadata", METADATA),
    ("secrets", List(&REFERENCE)),
]);

/// Of these nobody here reads the content.
static OTHER: Shape = Fields(&[("metadata", METADATA), ("spec", Any), ("status", Any)]);

fn of(kind: &Kind) -> &'static Shape {
    match kind.plural {
        "endpointslices" => &ENDPOINT_SLICE,
        "services" => &SERVICE,
        "roles" | "clusterroles" => &ROLE,
        "rolebindings" | "clusterrolebindings" => &BINDING,
        "serviceaccounts" => &SERVICE_ACCOUNT,
        _ => &OTHER,
    }
}

/// Something that stands where something else belongs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mismatch(pub String);

/// Drops what the kind doesn't have, and gives the paths of that.
pub(crate) fn prune(kind: &Kind, object: &mut Value) -> Result<Vec<String>, Mismatch> {
    let mut unknown = Vec::new();
    if let Some(map) = object.as_object_mut() {
        map.remove("kind");
        map.remove("apiVersion");
    }
    let mut walk = Walk {
        kind,
        unknown: &mut unknown,
    };
    walk.visit(of(kind), object, "")?;
    Ok(unknown)
}

struct Walk<'a> {
    kind: &'a Kind,
    unknown: &'a mut Vec<String>,
}

impl Walk<'_> {
    fn visit(&mut self, shape: &Shape, value: &mut Value, path: &str) -> Result<(), Mismatch> {
        if value.is_null() {
            return Ok(());
        }
        match (shape, value) {
            (Any, _) | (Text, Value::String(_)) | (Bool, Value::Bool(_)) => Ok(()),
            (Number, Value::Number(number)) if number.as_i64().is_some() => Ok(()),
            (List(shape), Value::Array(items)) => {
                let mut places = items.iter_mut().enumerate();
                places.try_for_each(|(at, it)| self.visit(shape, it, &format!("{path}[{at}]")))
            }
            (Map(shape), Value::Object(map)) => map
                .iter_mut()
                .try_for_each(|(key, it)| self.visit(shape, it, &below(path, key))),
            (Fields(fields), Value::Object(map)) => {
                map.retain(|key, _| {
                    let is_known = fields.iter().any(|(name, _)| name == key);
                    if !is_known {
                        self.unknown.push(below(path, key));
                    }
                    is_known
                });
                // Go leaves out what is null, where it may be left out.
                map.retain(|_, value| !value.is_null());
                fields.iter().try_for_each(|(name, shape)| {
                    map.get_mut(*name)
                        .map_or(Ok(()), |it| self.visit(shape, it, &below(path, name)))
                })
            }
            (shape, found) => Err(self.mismatch(shape, found, path)),
        }
    }

    fn mismatch(&self, shape: &Shape, found: &Value, path: &str) -> Mismatch {
        let found = match found {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(number) if number.is_f64() => format!("number {number}"),
            Value::Number(_) => "number".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        let wanted = match shape {
            Text => "string",
            Number => "int32",
            Bool => "bool",
            List(_) => "slice",
            Map(_) => "map",
            Fields(_) | Any => "struct",
        };
        let Kind { name, version, .. } = self.kind;
        Mismatch(format!(
            "{name} in version {version:?} cannot be handled as a {name}: json: cannot unmarshal \
             {found} into Go struct field {name}.{path} of type {wanted}"
        ))
    }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slices() -> &'static Kind {
        Kind::find("discovery.k8s.io", "v1", "endpointslices").unwrap()
    }

    #[test]
    fn drops_and_names_what_the_kind_does_not_have() {
        let mut object = json!({
            "kind": "EndpointSlice",
            "metadata": { "name": "a", "labels": { "any": "thing" } },
            "adressType": "IPv4",
            "endpoints": [{ "addresses": ["10.0.0.1"], "ready": true }],
        });
        let unknown = prune(slices(), &mut object);
        assert_eq!(
            unknown,
            Ok(vec![
                "adressType".to_owned(),
                "endpoints[0].ready".to_owned()
            ])
        );
        assert_eq!(
            object,
            json!({
                "metadata": { "name": "a", "labels": { "any": "thing" } },
                "endpoints": [{ "addresses": ["10.0.0.1"] }],
            })
        );
    }

    #[test]
    fn refuses_what_has_another_type() {
        let mut object = json!({ "ports": [{ "port": "http" }] });
        let Err(Mismatch(text)) = prune(slices(), &mut object) else {
            panic!("a name is no number");
        };
        assert!(
            text.ends_with("cannot unmarshal string into Go struct field EndpointSlice.ports[0].port of type int32"),
            "{text}"
        );
    }
}
