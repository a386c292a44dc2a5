//! Admission of objects before they are stored: fills in defaults and refuses invalid objects. It has
//! only the rules that a registration could break.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use crate::http::status::Status;
use crate::kind::Kind;

/// Fills in the defaults of an object and validates it. `before` is the object that it replaces.
pub(crate) fn admit(kind: Kind, object: &mut Value, before: Option<&Value>) -> Result<(), Status> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let name = name.to_owned();
    let mut faults = Vec::new();
    match kind {
        Kind::Service => {
            if !is_service_name(&name) {
                faults.push(format!("metadata.name: {name:?} is not a DNS-1035 label"));
            }
            set_service_defaults(&mut object["spec"]);
            faults.extend(service_faults(&object["spec"]));
        }
        Kind::EndpointSlice => {
            if !is_subdomain(&name) {
                faults.push(format!("metadata.name: {name:?} is not a DNS subdomain"));
            }
            set_slice_defaults(object);
            faults.extend(slice_faults(object));
            if before.is_some_and(|it| it["addressType"] != object["addressType"]) {
                faults.push("addressType: field is immutable".to_owned());
            }
        }
        Kind::Secret => {
            if !is_subdomain(&name) {
                faults.push(format!("metadata.name: {name:?} is not a DNS subdomain"));
            }
            set_default(object, "type", || "Opaque".into());
            faults.extend(secret_faults(object));
            if before.is_some_and(|it| it["type"] != object["type"]) {
                faults.push("type: field is immutable".to_owned());
            }
        }
        Kind::Namespace
        | Kind::Role
        | Kind::RoleBinding
        | Kind::ClusterRole
        | Kind::ClusterRoleBinding
        | Kind::GatewayClass
        | Kind::Gateway
        | Kind::HttpRoute
        | Kind::ReferenceGrant => {}
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid(kind, &name, &faults))
    }
}

/// Checks all conditions within a status, as the schema of each CustomResourceDefinition does.
pub(crate) fn condition_faults(field: &str, status: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    match status {
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                faults.extend(condition_faults(&format!("{field}[{number}]"), item));
            }
        }
        Value::Object(members) => {
            for (name, value) in members {
                let field = format!("{field}.{name}");
                if name == "conditions" {
                    let conditions = value.as_array().into_iter().flatten();
                    let wrong = conditions.filter(|it| !is_condition(it));
                    faults.extend(wrong.map(|it| format!("{field}: {it} is not a condition")));
                } else {
                    faults.extend(condition_faults(&field, value));
                }
            }
        }
        _ => {}
    }
    faults
}

fn is_condition(condition: &Value) -> bool {
    let text = |field: &str| condition[field].as_str();
    let is_word = |text: &str| {
        text.starts_with(|it: char| it.is_ascii_alphabetic())
            && text
                .chars()
                .all(|it| it.is_ascii_alphanumeric() || "_,:".contains(it))
    };
    text("type").is_some_and(|it| !it.is_empty())
        && text("reason").is_some_and(is_word)
        && matches!(text("status"), Some("True" | "False" | "Unknown"))
        && text("message").is_some_and(|it| it.len() <= 32_768)
        && text("lastTransitionTime").is_some_and(|it| humantime::parse_rfc3339(it).is_ok())
        && condition["observedGeneration"].is_u64()
}

fn set_service_defaults(spec: &mut Value) {
    set_default(spec, "type", || "ClusterIP".into());
    if spec["type"] != "ExternalName" {
        set_default(spec, "ipFamilies", || json!(["IPv4"]));
    }
    for port in spec["ports"].as_array_mut().into_iter().flatten() {
        let number = port["port"].clone();
        set_default(port, "protocol", || "TCP".into());
        set_default(port, "targetPort", || number);
    }
}

fn service_faults(spec: &Value) -> Vec<String> {
    let ports = spec["ports"].as_array().map(Vec::as_slice);
    let ports = ports.unwrap_or_default();
    let mut faults = port_name_faults("spec.ports", ports, ports.len() > 1);
    let mut numbers = BTreeSet::new();
    for port in ports {
        let (protocol, number) = (port["protocol"].as_str(), &port["port"]);
        if !numbers.insert((protocol, number.as_i64())) {
            faults.push(format!("spec.ports: duplicate port {number}"));
        }
    }
    faults
}

fn set_slice_defaults(slice: &mut Value) {
    for field in ["endpoints", "ports"] {
        // The API server stores an empty list as one that is absent, and returns both as null.
        if slice[field].as_array().is_none_or(Vec::is_empty) {
            slice[field] = Value::Null;
        }
    }
    for port in slice["ports"].as_array_mut().into_iter().flatten() {
        set_default(port, "name", || "".into());
        set_default(port, "protocol", || "TCP".into());
    }
}

/// A Secret of type `kubernetes.io/tls` must have both entries, but their content isn't checked.
fn secret_faults(secret: &Value) -> Vec<String> {
    if secret["type"] != "kubernetes.io/tls" {
        return Vec::new();
    }
    let entries = ["tls.crt", "tls.key"].into_iter();
    let missing = entries.filter(|entry| !secret["data"][entry].is_string());
    missing
        .map(|entry| format!("data[{entry}]: Required value"))
        .collect()
}

fn slice_faults(slice: &Value) -> Vec<String> {
    let address_type = slice["addressType"].as_str().unwrap_or_default();
    let is_right = |address: &str| match address_type {
        "IPv4" => address.parse::<Ipv4Addr>().is_ok(),
        "IPv6" => address.parse::<Ipv6Addr>().is_ok(),
        "FQDN" => is_subdomain(address) && address.contains('.'),
        _ => false,
    };
    let ports = slice["ports"].as_array().map(Vec::as_slice);
    let mut faults = port_name_faults("ports", ports.unwrap_or_default(), false);
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    for (number, endpoint) in endpoints.enumerate() {
        let field = format!("endpoints[{number}].addresses");
        let addresses = endpoint["addresses"].as_array().map(Vec::as_slice);
        let addresses = addresses.unwrap_or_default();
        if addresses.is_empty() {
            faults.push(format!("{field}: must contain at least 1 address"));
        }
        let wrong = addresses
            .iter()
            .filter(|it| !it.as_str().is_some_and(is_right));
        faults.extend(wrong.map(|it| format!("{field}: {it} is not of type {address_type:?}")));
    }
    faults
}

/// Checks that port names are unique labels; an empty name counts as one.
fn port_name_faults(field: &str, ports: &[Value], are_required: bool) -> Vec<String> {
    let mut faults = Vec::new();
    let mut names = BTreeSet::new();
    for (number, port) in ports.iter().enumerate() {
        let name = port["name"].as_str().unwrap_or_default();
        let is_valid = if name.is_empty() {
            !are_required
        } else {
            is_label(name)
        };
        if !is_valid {
            faults.push(format!(
                "{field}[{number}].name: {name:?} is not a DNS label"
            ));
        } else if !names.insert(name) {
            faults.push(format!("{field}[{number}].name: duplicate value {name:?}"));
        }
    }
    faults
}

fn set_default(object: &mut Value, field: &str, value: impl FnOnce() -> Value) {
    if object[field].is_null() {
        object[field] = value();
    }
}

/// A label of RFC 1123.
fn is_label(name: &str) -> bool {
    let is_alphanumeric = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit();
    name.len() <= 63
        && name.starts_with(is_alphanumeric)
        && name.ends_with(is_alphanumeric)
        && name.chars().all(|it| is_alphanumeric(it) || it == '-')
}

/// A label of RFC 1035, which begins with a letter.
fn is_service_name(name: &str) -> bool {
    is_label(name) && name.starts_with(|it: char| it.is_ascii_lowercase())
}

fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(kind: Kind, mut object: Value) -> Option<String> {
        object["metadata"] = json!({ "name": "web" });
        let refused = admit(kind, &mut object, None).err();
        refused.map(|it| it.message)
    }

    #[test]
    fn addresses_are_of_the_type_that_the_slice_names() {
        for (address_type, address, is_valid) in [
            ("IPv4", "10.0.0.1", true),
            ("IPv6", "fd00::1", true),
            ("FQDN", "db.example.com", true),
            ("IPv4", "fd00::1", false),
            ("IPv6", "10.0.0.1", false),
            ("FQDN", "localhost", false),
            ("", "10.0.0.1", false),
        ] {
            let endpoints = json!([{ "addresses": [address] }]);
            let slice = json!({ "addressType": address_type, "endpoints": endpoints });
            let refused = refusal(Kind::EndpointSlice, slice);
            assert_eq!(refused.is_none(), is_valid, "{address_type} {address}");
        }
    }

    #[test]
    fn ports_have_unique_names_and_a_service_has_each_number_once() {
        let service = |ports: Value| refusal(Kind::Service, json!({ "spec": { "ports": ports } }));
        assert_eq!(service(json!([{ "port": 80 }])), None);
        for ports in [
            json!([{ "port": 80 }, { "port": 81, "name": "admin" }]),
            json!([{ "port": 80, "name": "a" }, { "port": 80, "name": "b" }]),
            json!([{ "port": 80, "name": "grpc+tls" }]),
        ] {
            assert!(service(ports.clone()).is_some(), "{ports}");
        }
        let ports = json!([{ "name": "http", "port": 80 }, { "name": "http", "port": 81 }]);
        let slice = json!({ "addressType": "IPv4", "ports": ports });
        assert!(refusal(Kind::EndpointSlice, slice).is_some());
    }

    #[test]
    fn a_secret_for_tls_has_a_certificate_and_a_key_and_keeps_its_type() {
        let secret = |data: Value| json!({ "type": "kubernetes.io/tls", "data": data });
        let both = secret(json!({ "tls.crt": "", "tls.key": "" }));
        assert_eq!(refusal(Kind::Secret, both.clone()), None);
        assert_eq!(refusal(Kind::Secret, json!({})), None);
        for data in [Value::Null, json!({ "tls.crt": "" })] {
            let refused = refusal(Kind::Secret, secret(data)).unwrap();
            assert!(refused.contains("data[tls.key]: Required value"));
        }
        let mut opaque = json!({ "metadata": { "name": "web" } });
        assert!(admit(Kind::Secret, &mut opaque, Some(&both)).is_err());
        assert_eq!(opaque["type"], "Opaque");
    }

    #[test]
    fn empty_lists_become_null() {
        let mut slice = json!({
            "metadata": { "name": "a" }, "addressType": "IPv4", "endpoints": [], "ports": [],
        });
        admit(Kind::EndpointSlice, &mut slice, None).unwrap();
        assert!(slice["endpoints"].is_null() && slice["ports"].is_null());
    }
}
