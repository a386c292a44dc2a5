//! Manifests for tests. Each is plain JSON that a test can change before it
//! [puts](crate::ApiServer::put) it.

use std::net::Ipv4Addr;

use data_encoding::BASE64;
use serde_json::{Value, json};

/// A namespace.
#[must_use]
pub fn namespace(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } })
}

/// A Service with these named ports that selects pods by the label `app` with its name.
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

/// A Secret of type `kubernetes.io/tls` with this certificate and key, as PEM.
#[must_use]
pub fn tls_secret(namespace: &str, name: &str, certificate: &str, key: &str) -> Value {
    let encoded = |text: &str| BASE64.encode(text.as_bytes());
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": name, "namespace": namespace },
        "type": "kubernetes.io/tls",
        "data": { "tls.crt": encoded(certificate), "tls.key": encoded(key) },
    })
}

/// An EndpointSlice of a Service, with its own name, these named ports and [`endpoint`]s.
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

/// A ready endpoint at this address.
#[must_use]
pub fn endpoint(address: &str) -> Value {
    json!({
        "addresses": [address],
        "conditions": { "ready": true, "serving": true, "terminating": false },
    })
}

/// A ready endpoint at this address that is the pod of this name, on this node in this zone.
#[must_use]
pub fn pod(address: &str, name: &str, node: &str, zone: &str) -> Value {
    let mut endpoint = endpoint(address);
    endpoint["targetRef"] = json!({ "kind": "Pod", "name": name });
    endpoint["nodeName"] = node.into();
    endpoint["zone"] = zone.into();
    endpoint
}

/// A number of slices of a Service, each with a number of ready pods. Addresses begin at 10.64.0.0,
/// slices are named after the Service, and pods are on 50 nodes in 3 zones.
pub fn many_slices(
    namespace: &str,
    service: &str,
    slices: u32,
    endpoints: u32,
) -> impl Iterator<Item = Value> {
    let ports = [("http", 8080)];
    (0..slices).map(move |number| {
        let pods = (0..endpoints).map(|index| {
            let pod_number = number * endpoints + index;
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

/// The address of a pod by its number.
fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a40_0000 + number)
}

/// The rules of a Role that allows these verbs on Services and EndpointSlices.
#[must_use]
pub fn read_rules(verbs: &[&str]) -> Value {
    json!([
        { "apiGroups": [""], "resources": ["services"], "verbs": verbs },
        { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": verbs },
    ])
}
