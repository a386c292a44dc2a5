//! Manifests, quickly made. Each is plain JSON, to be changed at will before it is
//! [put](crate::ApiServer::put).

use serde_json::{Value, json};

/// A namespace.
#[must_use]
pub fn namespace(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } })
}

/// A service with these ports, by name, whose pods have the label `app` with its name.
#[must_use]
pub fn service(namespace: &str, name: &str, ports: &[(&str, u16)]) -> Value {
    let ports = ports
        .iter()
        .map(|(name, port)| json!({ "name": name, "port": port }));
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name, "namespace": namespace, "labels": { "app": name } },
        "spec": { "selector": { "app": name }, "ports": ports.collect::<Value>() },
    })
}

/// A slice of a service, of this name, with these ports, by name, and [`endpoint`]s.
#[must_use]
pub fn slice(
    namespace: &str,
    service: &str,
    name: &str,
    ports: &[(&str, u16)],
    endpoints: impl IntoIterator<Item = Value>,
) -> Value {
    let ports = ports
        .iter()
        .map(|(name, port)| json!({ "name": name, "port": port, "protocol": "TCP" }));
    let labels = json!({
        "kubernetes.io/service-name": service,
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    });
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "name": name, "namespace": namespace, "labels": labels },
        "addressType": "IPv4",
        "endpoints": endpoints.into_iter().collect::<Value>(),
        "ports": ports.collect::<Value>(),
    })
}

/// An endpoint at this address that is ready.
#[must_use]
pub fn endpoint(address: &str) -> Value {
    json!({
        "addresses": [address],
        "conditions": { "ready": true, "serving": true, "terminating": false },
    })
}

/// An endpoint at this address that is a pod of this name on this node of this zone.
#[must_use]
pub fn pod(address: &str, name: &str, node: &str, zone: &str) -> Value {
    let mut endpoint = endpoint(address);
    endpoint["targetRef"] = json!({ "kind": "Pod", "name": name });
    endpoint["nodeName"] = node.into();
    endpoint["zone"] = zone.into();
    endpoint
}

/// So many slices of a service with so many ready pods each, at addresses from 10.64.0.0 on, as
/// the real controller makes them: named after the service, each pod on one of 50 nodes in one of 3
/// zones.
pub fn many_slices(
    namespace: &str,
    service: &str,
    slices: u32,
    endpoints: u32,
) -> impl Iterator<Item = Value> {
    let ports = [("http", 8080)];
    (0..slices).map(move |number| {
        let pods = (0..endpoints).map(|place| {
            let pod_number = number * endpoints + place;
            let node = pod_number % 50;
            pod(
                &address(pod_number).to_string(),
                &format!("{service}-{pod_number}"),
                &format!("node-{node}"),
                &format!("zone-{}", node % 3),
            )
        });
        slice(
            namespace,
            service,
            &format!("{service}-{number:05}"),
            &ports,
            pods,
        )
    })
}

/// The address of a pod by its number, from 10.64.0.0 on.
fn address(number: u32) -> std::net::Ipv4Addr {
    std::net::Ipv4Addr::from(0x0a40_0000 + number)
}

/// The rules of a Role that let somebody read services and slices, with these verbs.
#[must_use]
pub fn reading(verbs: &[&str]) -> Value {
    json!([
        { "apiGroups": [""], "resources": ["services"], "verbs": verbs },
        { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": verbs },
    ])
}
