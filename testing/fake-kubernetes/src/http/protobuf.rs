//! Bodies in Kubernetes' binary form, which kubectl uses for what it makes itself: a namespace, a
//! role, a question about rights. They are read as the JSON they stand for; answers are JSON.

use serde_json::{Map, Value, json};

/// What a body of this form begins with.
const MAGIC: &[u8] = b"k8s\0";

/// What a field of a message holds.
enum Field {
    Text,
    Number,
    Bool,
    Message(&'static Message),
    /// Entries with a key and a value, both text.
    TextMap,
    /// Either a number or a text.
    NumberOrText,
    List(&'static Field),
}

/// The fields of a message: number, name in JSON, and what they hold. Others are passed over.
type Message = [(u64, &'static str, Field)];

use Field::{Bool, List, Message as Of, Number, NumberOrText, Text, TextMap};

static METADATA: &Message = &[
    (1, "name", Text),
    (2, "generateName", Text),
    (3, "namespace", Text),
    (5, "uid", Text),
    (6, "resourceVersion", Text),
    (11, "labels", TextMap),
    (12, "annotations", TextMap),
    (14, "finalizers", List(&Text)),
];

static RULE: &Message = &[
    (1, "verbs", List(&Text)),
    (2, "apiGroups", List(&Text)),
    (3, "resources", List(&Text)),
    (4, "resourceNames", List(&Text)),
    (5, "nonResourceURLs", List(&Text)),
];

static ROLE: &Message = &[(1, "metadata", Of(METADATA)), (2, "rules", List(&Of(RULE)))];

static SUBJECT: &Message = &[
    (1, "kind", Text),
    (2, "apiGroup", Text),
    (3, "name", Text),
    (4, "namespace", Text),
];

static ROLE_REFERENCE: &Message = &[(1, "apiGroup", Text), (2, "kind", Text), (3, "name", Text)];

static BINDING: &Message = &[
    (1, "metadata", Of(METADATA)),
    (2, "subjects", List(&Of(SUBJECT))),
    (3, "roleRef", Of(ROLE_REFERENCE)),
];

static SERVICE_PORT: &Message = &[
    (1, "name", Text),
    (2, "protocol", Text),
    (3, "port", Number),
    (4, "targetPort", NumberOrText),
    (5, "nodePort", Number),
    (6, "appProtocol", Text),
];

static SERVICE_SPEC: &Message = &[
    (1, "ports", List(&Of(SERVICE_PORT))),
    (2, "selector", TextMap),
    (3, "clusterIP", Text),
    (4, "type", Text),
    (10, "externalName", Text),
];

static SERVICE: &Message = &[(1, "metadata", Of(METADATA)), (2, "spec", Of(SERVICE_SPEC))];

static RESOURCE_ATTRIBUTES: &Message = &[
    (1, "namespace", Text),
    (2, "verb", Text),
    (3, "group", Text),
    (4, "version", Text),
    (5, "resource", Text),
    (6, "subresource", Text),
    (7, "name", Text),
];

static PATH_ATTRIBUTES: &Message = &[(1, "path", Text), (2, "verb", Text)];

static ACCESS_SPEC: &Message = &[
    (1, "resourceAttributes", Of(RESOURCE_ATTRIBUTES)),
    (2, "nonResourceAttributes", Of(PATH_ATTRIBUTES)),
];

static ACCESS: &Message = &[(1, "metadata", Of(METADATA)), (2, "spec", Of(ACCESS_SPEC))];

static RULES_SPEC: &Message = &[(1, "namespace", Text)];

static RULES: &Message = &[(1, "metadata", Of(METADATA)), (2, "spec", Of(RULES_SPEC))];

static PRECONDITIONS: &Message = &[(1, "uid", Text), (2, "resourceVersion", Text)];

static DELETE_OPTIONS: &Message = &[
    (1, "gracePeriodSeconds", Number),
    (2, "preconditions", Of(PRECONDITIONS)),
    (3, "orphanDependents", Bool),
    (4, "propagationPolicy", Text),
    (5, "dryRun", List(&Text)),
];

/// Of these only the metadata is read.
static OTHER: &Message = &[(1, "metadata", Of(METADATA))];

static TYPE: &Message = &[(1, "apiVersion", Text), (2, "kind", Text)];

fn message_of(kind: &str) -> &'static Message {
    match kind {
        "Role" | "ClusterRole" => ROLE,
        "RoleBinding" | "ClusterRoleBinding" => BINDING,
        "Service" => SERVICE,
        "SelfSubjectAccessReview" => ACCESS,
        "SelfSubjectRulesReview" => RULES,
        "DeleteOptions" => DELETE_OPTIONS,
        _ => OTHER,
    }
}

/// A body as JSON; None if it isn't well-formed.
pub(crate) fn read(body: &[u8]) -> Option<Value> {
    let mut rest = body.strip_prefix(MAGIC)?;
    let (mut kind, mut raw) = (Value::Null, &[][..]);
    while !rest.is_empty() {
        match read_field(&mut rest)? {
            (1, Wire::Bytes(bytes)) => kind = message(TYPE, bytes)?,
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let name = kind["kind"].as_str().unwrap_or_default();
    let mut object = message(message_of(name), raw)?;
    if let (Some(object), Value::Object(kind)) = (object.as_object_mut(), kind) {
        object.extend(kind);
    }
    Some(object)
}

/// What stands in a message, whatever it means.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a type that none of our fields has.
    Other,
}

fn message(fields: &Message, mut bytes: &[u8]) -> Option<Value> {
    let mut object = Map::new();
    while !bytes.is_empty() {
        let (number, wire) = read_field(&mut bytes)?;
        let Some((_, name, field)) = fields.iter().find(|(it, ..)| *it == number) else {
            continue;
        };
        match field {
            List(item) => {
                let value = value(item, wire)?;
                let list = object.entry(*name).or_insert_with(|| json!([]));
                list.as_array_mut()?.push(value);
            }
            TextMap => {
                let entry = value(field, wire)?;
                let map = object.entry(*name).or_insert_with(|| json!({}));
                let key = entry["key"].as_str().unwrap_or_default().to_owned();
                let text = entry["value"].as_str().unwrap_or_default();
                map.as_object_mut()?.insert(key, text.into());
            }
            // Go writes empty texts, and means that they aren't there.
            Text if matches!(wire, Wire::Bytes([])) => {}
            _ => {
                object.insert((*name).to_owned(), value(field, wire)?);
            }
        }
    }
    Some(Value::Object(object))
}

static ENTRY: &Message = &[(1, "key", Text), (2, "value", Text)];
static EITHER: &Message = &[
    (1, "type", Number),
    (2, "number", Number),
    (3, "text", Text),
];

fn value(field: &Field, wire: Wire<'_>) -> Option<Value> {
    match (field, wire) {
        (Text, Wire::Bytes(bytes)) => Some(std::str::from_utf8(bytes).ok()?.into()),
        (Number, Wire::Number(number)) => Some(number.cast_signed().into()),
        (Bool, Wire::Number(number)) => Some((number != 0).into()),
        (Of(fields), Wire::Bytes(bytes)) => message(fields, bytes),
        (TextMap, Wire::Bytes(bytes)) => message(ENTRY, bytes),
        (NumberOrText, Wire::Bytes(bytes)) => {
            let mut either = message(EITHER, bytes)?;
            let is_text = either["type"] == 1;
            Some(either[if is_text { "text" } else { "number" }].take())
        }
        _ => None,
    }
}

fn read_field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Wire<'a>)> {
    let tag = read_number(bytes)?;
    let wire = match tag & 7 {
        0 => Wire::Number(read_number(bytes)?),
        1 => skip(bytes, 8)?,
        2 => {
            let length = usize::try_from(read_number(bytes)?).ok()?;
            let (taken, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            Wire::Bytes(taken)
        }
        5 => skip(bytes, 4)?,
        _ => return None,
    };
    Some((tag >> 3, wire))
}

fn skip<'a>(bytes: &mut &'a [u8], length: usize) -> Option<Wire<'a>> {
    *bytes = bytes.get(length..)?;
    Some(Wire::Other)
}

fn read_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field with bytes.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut field = vec![number << 3 | 2, bytes.len() as u8];
        field.extend_from_slice(bytes);
        field
    }

    #[test]
    fn reads_a_role() {
        let kind = [field(1, b"rbac.authorization.k8s.io/v1"), field(2, b"Role")].concat();
        let rule = [field(1, b"get"), field(1, b"list"), field(3, b"services")].concat();
        let label = [field(1, b"app"), field(2, b"web")].concat();
        let meta = [field(1, b"reader"), field(2, b""), field(11, &label)].concat();
        let role = [field(1, &meta), field(2, &rule)].concat();
        let body = [MAGIC.to_vec(), field(1, &kind), field(2, &role)].concat();
        assert_eq!(
            read(&body),
            Some(json!({
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "Role",
                "metadata": { "name": "reader", "labels": { "app": "web" } },
                "rules": [{ "verbs": ["get", "list"], "resources": ["services"] }],
            }))
        );
    }

    #[test]
    fn what_is_cut_short_is_nothing() {
        assert_eq!(read(b"k8s\0\x0a\x05abc"), None);
        assert_eq!(read(b"{}"), None);
    }
}
