//! The rules of Services.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Circumstances, names::Form};
use crate::http::Cause;

pub(super) fn set_defaults(service: &mut Value, circumstances: Circumstances<'_>) {
    let spec = &mut service["spec"];
    if !spec.is_object() {
        *spec = json!({});
    }
    let or = |spec: &mut Value, field: &str, value: Value| {
        if spec[field].is_null() {
            spec[field] = value;
        }
    };
    or(spec, "type", "ClusterIP".into());
    or(spec, "sessionAffinity", "None".into());
    for port in spec["ports"].as_array_mut().into_iter().flatten() {
        or(port, "protocol", "TCP".into());
        let number = port["port"].clone();
        or(port, "targetPort", number);
    }
    if spec["ports"].as_array().is_none_or(Vec::is_empty)
        && let Some(map) = spec.as_object_mut()
    {
        map.remove("ports");
    }
    if spec["type"] != "ExternalName" {
        if spec["clusterIP"].as_str().unwrap_or_default().is_empty() {
            let before = circumstances.before.map(|it| &it["spec"]["clusterIP"]);
            let before = before.filter(|it| it.is_string()).cloned();
            let free = circumstances.free_ip.map(|it| it.to_string().into());
            spec["clusterIP"] = before.or(free).unwrap_or_default();
        }
        let address = spec["clusterIP"].clone();
        or(spec, "clusterIPs", json!([address]));
        or(spec, "internalTrafficPolicy", "Cluster".into());
        or(spec, "ipFamilies", json!(["IPv4"]));
        or(spec, "ipFamilyPolicy", "SingleStack".into());
    } else if let Some(map) = spec.as_object_mut() {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            map.remove(field);
        }
    }
    if service["status"].is_null() {
        service["status"] = json!({ "loadBalancer": {} });
    }
}

pub(super) fn check(service: &Value, circumstances: Circumstances<'_>, causes: &mut Vec<Cause>) {
    let spec = &service["spec"];
    let kind = spec["type"].as_str().unwrap_or_default();
    let types = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    if !types.contains(&kind) {
        causes.push(Cause::not_supported("spec.type", &spec["type"], &types));
    }
    let ports = spec["ports"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if ports.is_empty() && kind != "ExternalName" && spec["clusterIP"] != "None" {
        causes.push(Cause::required("spec.ports", ""));
    }
    if kind == "ExternalName" && spec["externalName"].as_str().unwrap_or_default().is_empty() {
        causes.push(Cause::invalid(
            "spec.externalName",
            &json!(""),
            "a lowercase RFC 1123 subdomain must be given",
        ));
    }
    let mut names = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    for (number, port) in ports.iter().enumerate() {
        let field = |name: &str| format!("spec.ports[{number}].{name}");
        let name = port["name"].as_str().unwrap_or_default();
        let protocol = port["protocol"].as_str();
        if !numbers.insert((protocol, port["port"].as_i64())) {
            let field = format!("spec.ports[{number}]");
            let pair = json!({ "port": port["port"], "protocol": protocol });
            causes.push(Cause::duplicate(&field, &pair));
        }
        if name.is_empty() && ports.len() > 1 {
            causes.push(Cause::required(&field("name"), ""));
        } else if let Some(why) = Form::Label.fault(name).filter(|_| !name.is_empty()) {
            causes.push(Cause::invalid(&field("name"), &port["name"], why));
        } else if !names.insert(name) {
            causes.push(Cause::duplicate(&field("name"), &port["name"]));
        }
        if !port["port"]
            .as_i64()
            .is_some_and(|it| (1..=65535).contains(&it))
        {
            causes.push(Cause::invalid(
                &field("port"),
                &port["port"].as_i64().unwrap_or_default().into(),
                "must be between 1 and 65535, inclusive",
            ));
        }
    }
    if let Some(before) = circumstances.before {
        let old = &before["spec"]["clusterIP"];
        let was_kept = old.is_null() || kind == "ExternalName" || *old == spec["clusterIP"];
        if !was_kept {
            let field = "spec.clusterIPs[0]";
            let why = "may not change once set";
            causes.push(Cause::invalid(field, &spec["clusterIPs"], why));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(spec: Value) -> Vec<String> {
        let mut service = json!({ "spec": spec });
        let mut causes = Vec::new();
        set_defaults(&mut service, Circumstances::default());
        check(&service, Circumstances::default(), &mut causes);
        causes.into_iter().map(|it| it.field).collect()
    }

    #[test]
    fn ports_are_needed_where_there_is_an_address() {
        assert_eq!(faults(json!({})), ["spec.ports"]);
        assert!(faults(json!({ "clusterIP": "None" })).is_empty());
        let external = json!({ "type": "ExternalName", "externalName": "db.example.com" });
        assert!(faults(external).is_empty());
        let nameless = json!({ "ports": [{ "port": 80 }, { "port": 81, "name": "admin" }] });
        assert_eq!(faults(nameless), ["spec.ports[0].name"]);
        let twice = json!({ "ports": [{ "port": 80, "name": "a" }, { "port": 80, "name": "B" }] });
        assert_eq!(faults(twice), ["spec.ports[1]", "spec.ports[1].name"]);
    }
}
