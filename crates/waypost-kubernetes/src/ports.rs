//! Which port of an endpoint to call, and how to speak to it.

use super::wire::{Service, ServicePort, Slice, SlicePort, TargetPort};

/// The ports of all endpoints of a slice.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ports {
    pub(super) main: u16,
    pub(super) scheme: Box<str>,
    /// What the main port's protocol is said to be, as it is said.
    pub(super) app_protocol: Option<Box<str>>,
    pub(super) named: Vec<(Box<str>, u16)>,
}

/// The names that mean the port to call, unless something says otherwise, in this order.
const USUAL: [&str; 4] = ["http", "https", "grpc", "web"];

impl Ports {
    /// Chooses among the ports of a slice. The main one is
    /// 1. the one there is, if there is one;
    /// 2. the one that was `wanted`, by name or number;
    /// 3. the one called `http`, `https`, `grpc` or `web`;
    /// 4. the Service's first one;
    /// 5. the first one.
    ///
    /// A slice may have no ports at all, and a port may have no number ("all ports"): then it is
    /// the Service's port, or the usual one of the scheme.
    pub(super) fn of(slice: &Slice, service: Option<&Service>, wanted: Option<&str>) -> Self {
        let all = slice.ports.as_deref().unwrap_or_default();
        let mut usable: Vec<(&SlicePort, u16)> = all
            .iter()
            .filter_map(|port| Some((port, port.port?)))
            .collect();
        // Whoever looks a service up wants to connect to it.
        if usable
            .iter()
            .any(|(port, _)| is_tcp(port.protocol.as_deref()))
        {
            usable.retain(|(port, _)| is_tcp(port.protocol.as_deref()));
        }
        let first = service.and_then(|service| service.ports().first());
        let called = |name: &str| {
            let mut all = usable.iter();
            all.find(|(port, _)| port.name.as_deref().unwrap_or_default() == name)
        };
        let main = match &usable[..] {
            [only] => Some(only),
            _ => wanted
                .and_then(|wanted| {
                    let number = wanted.parse::<u16>().ok();
                    let mut all = usable.iter();
                    called(wanted).or_else(|| all.find(|(_, n)| Some(*n) == number))
                })
                .or_else(|| USUAL.into_iter().find_map(called))
                .or_else(|| called(first?.name.as_deref().unwrap_or_default()))
                .or(usable.first()),
        };
        let (number, name, said) = match main {
            Some((port, number)) => (
                Some(*number),
                port.name.as_deref(),
                port.app_protocol.as_deref(),
            ),
            None => {
                let said = first.and_then(|port| port.app_protocol.as_deref());
                (
                    first.and_then(target),
                    first.and_then(|port| port.name.as_deref()),
                    said,
                )
            }
        };
        let scheme = scheme(said, name, number);
        let named = usable.iter().filter_map(|(port, number)| {
            let name = port.name.as_deref().filter(|name| !name.is_empty())?;
            Some((name.into(), *number))
        });
        Self {
            main: number.unwrap_or_else(|| usual_port(scheme)),
            scheme: scheme.into(),
            app_protocol: said.map(Into::into),
            named: named.collect(),
        }
    }

    /// The ports of the Service's own address, or behind its name.
    pub(super) fn of_service(service: &Service, wanted: Option<&str>) -> Self {
        let of_pods = service.is_headless();
        let as_slice = |port: &ServicePort| SlicePort {
            name: port.name.clone(),
            // A headless Service has no address that could map ports.
            port: if of_pods { target(port) } else { port.port },
            protocol: port.protocol.clone(),
            app_protocol: port.app_protocol.clone(),
        };
        let slice = Slice {
            ports: Some(service.ports().iter().map(as_slice).collect()),
            ..Slice::default()
        };
        Self::of(&slice, Some(service), wanted)
    }
}

fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol.is_empty() || protocol == "TCP")
}

/// The number of the port that the pods listen on, as far as the Service tells.
fn target(port: &ServicePort) -> Option<u16> {
    match &port.target_port {
        Some(TargetPort::Number(Some(number))) => Some(*number),
        _ => port.port,
    }
}

/// By `appProtocol` ("Service", "Application protocol" in Kubernetes' documentation), else by the
/// custom of naming a port `protocol` or `protocol-something`, else by the number.
fn scheme(said: Option<&str>, name: Option<&str>, number: Option<u16>) -> &'static str {
    let known = |word: &str| match word {
        "http" | "http2" | "h2c" | "kubernetes.io/h2c" => Some("http"),
        "https" | "tls" => Some("https"),
        "grpc" => Some("grpc"),
        "ws" | "kubernetes.io/ws" => Some("ws"),
        "wss" | "kubernetes.io/wss" => Some("wss"),
        "tcp" => Some("tcp"),
        _ => None,
    };
    let custom = name.and_then(|name| name.split('-').next());
    let said = said.map(str::to_ascii_lowercase);
    said.as_deref()
        .and_then(known)
        .or_else(|| custom.and_then(known).filter(|scheme| *scheme != "tcp"))
        .unwrap_or(match number {
            Some(443 | 8443) => "https",
            _ => "http",
        })
}

fn usual_port(scheme: &str) -> u16 {
    match scheme {
        "https" | "wss" => 443,
        _ => 80,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(ports: Value, service: Value, wanted: Option<&str>) -> String {
        let slice: Slice = serde_json::from_value(json!({ "ports": ports })).unwrap();
        let service: Service = serde_json::from_value(json!({ "spec": service })).unwrap();
        let ports = Ports::of(&slice, Some(&service), wanted);
        format!("{}:{}", ports.scheme, ports.main)
    }

    #[test]
    fn the_port_to_call_is_chosen_by_the_rules_in_their_order() {
        let two = json!([{"name": "admin", "port": 9000}, {"name": "http", "port": 8080}]);
        let odd = json!([{"name": "a", "port": 1}, {"name": "b", "port": 2}]);
        let first_b = json!({"ports": [{"name": "b", "port": 80}, {"name": "a", "port": 81}]});
        let none = json!({});
        for (ports, service, wanted, expected) in [
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
            // By protocol.
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
            // Without numbers.
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
            let said = of(ports.clone(), service.clone(), wanted);
            assert_eq!(said, expected, "{ports} {service} {wanted:?}");
        }
    }

    #[test]
    fn a_service_s_own_ports_are_those_of_its_address() {
        for (address, expected) in [("10.96.0.1", 80), ("None", 8080)] {
            let service: Service = serde_json::from_value(json!({"spec": {
                "clusterIP": address, "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
            }}))
            .unwrap();
            assert_eq!(
                Ports::of_service(&service, None).main,
                expected,
                "{address}"
            );
        }
    }
}
