//! Which port of an endpoint to call, and with which scheme.

use crate::resources::{EndpointPort, EndpointSlice, Service, ServicePort, TargetPort};

/// The ports of all endpoints of a slice.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ports {
    /// The port to call.
    pub(crate) main: u16,
    pub(crate) scheme: Box<str>,
    /// The `appProtocol` of the main port, verbatim.
    pub(crate) app_protocol: Option<Box<str>>,
    pub(crate) named: Vec<(Box<str>, u16)>,
}

/// The names of the port to call by convention, in order of preference.
const CONVENTIONAL_NAMES: [&str; 4] = ["http", "https", "grpc", "web"];

impl Ports {
    /// Chooses the main port among those of a slice, by the first of these rules that applies:
    /// 1. the only port;
    /// 2. the `preferred` one, by name or number;
    /// 3. the one named `http`, `https`, `grpc` or `web`;
    /// 4. the one that the Service lists first;
    /// 5. the first one.
    ///
    /// A slice may have no ports at all, and a port may have no number ("all ports"). Then the main
    /// port is the Service's first port, or the default port of the scheme.
    pub(crate) fn of_slice(
        slice: &EndpointSlice,
        service: Option<&Service>,
        preferred: Option<&str>,
    ) -> Self {
        let first_of_service = service.and_then(|service| service.ports().first());
        let ports = usable_ports(slice);
        let main = main_port(&ports, first_of_service, preferred);
        let (number, name, app_protocol) = match main {
            Some((port, number)) => (Some(number), &port.name, &port.app_protocol),
            None => match first_of_service {
                Some(port) => (target_port(port), &port.name, &port.app_protocol),
                None => (None, &None, &None),
            },
        };
        let scheme = scheme(app_protocol.as_deref(), name.as_deref(), number);
        let named = ports.iter().filter_map(|(port, number)| {
            let name = port.name.clone().filter(|name| !name.is_empty())?;
            Some((name, *number))
        });
        Self {
            main: number.unwrap_or_else(|| default_port(scheme)),
            scheme: scheme.into(),
            app_protocol: app_protocol.clone(),
            named: named.collect(),
        }
    }

    /// The ports behind the DNS name of a Service: those of its cluster IP, or of the pods of a
    /// headless Service.
    pub(crate) fn of_service(service: &Service, preferred: Option<&str>) -> Self {
        let is_headless = service.is_headless();
        let endpoint_port = |port: &ServicePort| EndpointPort {
            name: port.name.clone(),
            port: if is_headless {
                target_port(port)
            } else {
                port.port
            },
            protocol: port.protocol.clone(),
            app_protocol: port.app_protocol.clone(),
        };
        let slice = EndpointSlice {
            ports: Some(service.ports().iter().map(endpoint_port).collect()),
            ..EndpointSlice::default()
        };
        Self::of_slice(&slice, Some(service), preferred)
    }
}

/// The ports with a number: those for TCP, or all if there are none for TCP.
fn usable_ports(slice: &EndpointSlice) -> Vec<(&EndpointPort, u16)> {
    let ports = slice.ports.as_deref().unwrap_or_default();
    let mut usable: Vec<_> = ports
        .iter()
        .filter_map(|port| Some((port, port.port?)))
        .collect();
    if usable.iter().any(|(port, _)| is_tcp(port)) {
        usable.retain(|(port, _)| is_tcp(port));
    }
    usable
}

fn is_tcp(port: &EndpointPort) -> bool {
    port.protocol
        .as_deref()
        .is_none_or(|protocol| protocol.is_empty() || protocol == "TCP")
}

fn main_port<'a>(
    ports: &[(&'a EndpointPort, u16)],
    first_of_service: Option<&ServicePort>,
    preferred: Option<&str>,
) -> Option<(&'a EndpointPort, u16)> {
    if let [only] = ports {
        return Some(*only);
    }
    let find = |matches: &dyn Fn(&(&EndpointPort, u16)) -> bool| {
        ports.iter().copied().find(|port| matches(port))
    };
    let named = |name: &str| find(&|(port, _)| port.name.as_deref().unwrap_or_default() == name);
    let numbered = |number: u16| find(&|(_, other)| *other == number);
    preferred
        .and_then(|preferred| named(preferred).or_else(|| numbered(preferred.parse().ok()?)))
        .or_else(|| CONVENTIONAL_NAMES.into_iter().find_map(named))
        .or_else(|| named(first_of_service?.name.as_deref().unwrap_or_default()))
        .or_else(|| ports.first().copied())
}

/// The port that the pods of a Service listen on, as far as the Service says.
fn target_port(port: &ServicePort) -> Option<u16> {
    match &port.target_port {
        Some(TargetPort::Number(Some(number))) => Some(*number),
        _ => port.port,
    }
}

/// The scheme: by `appProtocol` ("Service", "Application protocol" in the Kubernetes documentation),
/// else by the convention of naming a port `protocol` or `protocol-suffix`, else by the number.
fn scheme(app_protocol: Option<&str>, name: Option<&str>, number: Option<u16>) -> &'static str {
    let known = |protocol: &str| match protocol {
        "http" | "http2" | "h2c" | "kubernetes.io/h2c" => Some("http"),
        "https" | "tls" => Some("https"),
        "grpc" => Some("grpc"),
        "ws" | "kubernetes.io/ws" => Some("ws"),
        "wss" | "kubernetes.io/wss" => Some("wss"),
        "tcp" => Some("tcp"),
        _ => None,
    };
    let prefix = name.and_then(|name| name.split('-').next());
    let app_protocol = app_protocol.map(str::to_ascii_lowercase);
    app_protocol
        .as_deref()
        .and_then(known)
        .or_else(|| prefix.and_then(known).filter(|scheme| *scheme != "tcp"))
        .unwrap_or(match number {
            Some(443 | 8443) => "https",
            _ => "http",
        })
}

fn default_port(scheme: &str) -> u16 {
    match scheme {
        "https" | "wss" => 443,
        _ => 80,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn choose(ports: Value, service: Value, preferred: Option<&str>) -> String {
        let slice: EndpointSlice = serde_json::from_value(json!({ "ports": ports })).unwrap();
        let service: Service = serde_json::from_value(json!({ "spec": service })).unwrap();
        let ports = Ports::of_slice(&slice, Some(&service), preferred);
        format!("{}:{}", ports.scheme, ports.main)
    }

    #[test]
    fn the_main_port_is_chosen_by_the_first_rule_that_applies() {
        let two = json!([{"name": "admin", "port": 9000}, {"name": "http", "port": 8080}]);
        let odd = json!([{"name": "a", "port": 1}, {"name": "b", "port": 2}]);
        let first_b = json!({"ports": [{"name": "b", "port": 80}, {"name": "a", "port": 81}]});
        let none = json!({});
        for (ports, service, preferred, expected) in [
            (json!([{"port": 8080}]), &none, None, "http:8080"),
            (
                json!([{"name": "", "port": 8080}]),
                &none,
                Some("admin"),
                "http:8080",
            ),
            (two.clone(), &none, None, "http:8080"),
            (two.clone(), &none, Some("admin"), "http:9000"),
            (two.clone(), &none, Some("9000"), "http:9000"),
            (two, &none, Some("no-such"), "http:8080"),
            (odd.clone(), &first_b, None, "http:2"),
            (odd, &none, None, "http:1"),
            // TCP before other protocols.
            (
                json!([{"name": "dns", "port": 53, "protocol": "UDP"},
                    {"name": "metrics", "port": 9153, "protocol": "TCP"}]),
                &none,
                None,
                "http:9153",
            ),
            (
                json!([{"name": "dns", "port": 53, "protocol": "UDP"}]),
                &none,
                None,
                "http:53",
            ),
            // The scheme.
            (
                json!([{"name": "x", "port": 1, "appProtocol": "https"}]),
                &none,
                None,
                "https:1",
            ),
            (
                json!([{"name": "x", "port": 1, "appProtocol": "kubernetes.io/h2c"}]),
                &none,
                None,
                "http:1",
            ),
            (
                json!([{"name": "x", "port": 1, "appProtocol": "kubernetes.io/wss"}]),
                &none,
                None,
                "wss:1",
            ),
            (
                json!([{"name": "http", "port": 1, "appProtocol": "GRPC"}]),
                &none,
                None,
                "grpc:1",
            ),
            (
                json!([{"name": "grpc-web", "port": 1}]),
                &none,
                None,
                "grpc:1",
            ),
            (
                json!([{"name": "https-internal", "port": 1}]),
                &none,
                None,
                "https:1",
            ),
            (json!([{"port": 8443}]), &none, None, "https:8443"),
            // No port number.
            (json!(null), &none, None, "http:80"),
            (json!([]), &first_b, None, "http:80"),
            (json!([{"name": "any"}]), &none, None, "http:80"),
            (
                json!(null),
                &json!({"ports": [{"name": "https", "port": 443, "targetPort": 8443}]}),
                None,
                "https:8443",
            ),
        ] {
            let chosen = choose(ports.clone(), service.clone(), preferred);
            assert_eq!(chosen, expected, "{ports} {service} {preferred:?}");
        }
    }

    #[test]
    fn the_ports_of_a_service_are_those_of_its_cluster_ip_or_pods() {
        for (cluster_ip, expected) in [("10.96.0.1", 80), ("None", 8080)] {
            let service: Service = serde_json::from_value(json!({"spec": {
                "clusterIP": cluster_ip, "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
            }}))
            .unwrap();
            assert_eq!(
                Ports::of_service(&service, None).main,
                expected,
                "{cluster_ip}"
            );
        }
    }
}
