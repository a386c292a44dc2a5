//! Which port of an endpoint to call, and with which scheme.

use crate::resources::{EndpointPort, EndpointSlice, Service, ServicePort, TargetPort};

/// The port that a service is called at. It is chosen once for the whole service and then looked up in
/// each slice by its name, as kube-proxy does: pods that a Service selects can have different ports.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PortChoice {
    /// Endpoints without a port of this name are not called.
    Named {
        /// Empty for a port without a name.
        name: Box<str>,
        app_protocol: Option<Box<str>>,
        /// The port number to call if a slice doesn't have one ("all ports").
        target: Option<u16>,
    },
    /// Neither the Service nor any slice has ports, as with a headless Service. Endpoints are called
    /// at the default port.
    Default,
}

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

impl PortChoice {
    /// Chooses among the ports of the Service, or if it has none or may not be read, among those of
    /// all slices. The first rule that applies decides:
    /// 1. the `preferred` one, by name or number;
    /// 2. the one named `http`, `https`, `grpc` or `web`;
    /// 3. the first one.
    ///
    /// A TCP port has precedence over all others.
    pub(crate) fn of_service<'a>(
        service: Option<&'a Service>,
        slices: impl Iterator<Item = &'a EndpointSlice> + Clone,
        preferred: Option<&str>,
    ) -> Self {
        let of_slices = slices.flat_map(|slice| slice.ports.iter().flatten());
        let of_service = service.map(Service::ports).unwrap_or_default();
        let mut candidates: Vec<_> = of_service.iter().map(Candidate::of_service).collect();
        if candidates.is_empty() {
            candidates.extend(of_slices.clone().map(Candidate::of_slice));
        }
        if candidates.iter().any(|port| port.is_tcp) {
            candidates.retain(|port| port.is_tcp);
        }
        let named = |name: &str| candidates.iter().find(|port| port.name == name);
        let numbered = |number: u16| {
            let in_slices = || {
                let port = of_slices.clone().find(|port| port.port == Some(number));
                named(port?.name.as_deref().unwrap_or_default())
            };
            let has_number = |port: &&Candidate<'_>| port.numbers.contains(&Some(number));
            in_slices().or_else(|| candidates.iter().find(has_number))
        };
        let chosen = preferred
            .and_then(|preferred| named(preferred).or_else(|| numbered(preferred.parse().ok()?)))
            .or_else(|| CONVENTIONAL_NAMES.into_iter().find_map(named))
            .or_else(|| candidates.iter().find(|port| port.numbers != [None; 2]))
            .or_else(|| candidates.first());
        match chosen {
            Some(port) => Self::Named {
                name: port.name.into(),
                app_protocol: port.app_protocol.map(Into::into),
                target: port.numbers[0],
            },
            None => Self::Default,
        }
    }

    /// The port of this name, whether the Service has it or not.
    pub(crate) fn named(service: Option<&Service>, name: &str) -> Self {
        let mut ports = service.map(Service::ports).unwrap_or_default().iter();
        let port = ports.find(|port| port.name.as_deref() == Some(name));
        Self::Named {
            name: name.into(),
            app_protocol: port.and_then(|port| port.app_protocol.clone()),
            target: port.and_then(target_port),
        }
    }
}

/// A port that can be chosen.
struct Candidate<'a> {
    name: &'a str,
    app_protocol: Option<&'a str>,
    is_tcp: bool,
    /// Its numbers: first the endpoints' number, then those of the Service.
    numbers: [Option<u16>; 2],
}

impl<'a> Candidate<'a> {
    fn of_service(port: &'a ServicePort) -> Self {
        Self {
            name: port.name.as_deref().unwrap_or_default(),
            app_protocol: port.app_protocol.as_deref(),
            is_tcp: is_tcp(port.protocol.as_deref()),
            numbers: [target_port(port), port.port],
        }
    }

    fn of_slice(port: &'a EndpointPort) -> Self {
        Self {
            name: port.name.as_deref().unwrap_or_default(),
            app_protocol: port.app_protocol.as_deref(),
            is_tcp: is_tcp(port.protocol.as_deref()),
            numbers: [port.port, None],
        }
    }
}

impl Ports {
    /// Looks up the port to call in a slice. `own` is the port that the slice itself names, by name or
    /// number; it has precedence over the choice for the service. `None` if the slice does not have the
    /// chosen port.
    pub(crate) fn of_slice(
        slice: &EndpointSlice,
        choice: &PortChoice,
        own: Option<&str>,
    ) -> Option<Self> {
        let ports = slice.ports.as_deref().unwrap_or_default();
        let named = |name: &str| {
            let mut ports = ports.iter();
            ports.find(|port| port.name.as_deref().unwrap_or_default() == name)
        };
        let numbered = |number: u16| ports.iter().find(|port| port.port == Some(number));
        let own = own.and_then(|own| named(own).or_else(|| numbered(own.parse().ok()?)));
        let (number, name, app_protocol) = match (own, choice) {
            (Some(port), _) => (port.port, &port.name, &port.app_protocol),
            (
                None,
                PortChoice::Named {
                    name,
                    app_protocol,
                    target,
                },
            ) => {
                let port = named(name)?;
                let app_protocol = port
                    .app_protocol
                    .as_ref()
                    .map_or(app_protocol, |_| &port.app_protocol);
                (port.port.or(*target), &port.name, app_protocol)
            }
            (None, PortChoice::Default) => (None, &None, &None),
        };
        let scheme = scheme(app_protocol.as_deref(), name.as_deref(), number);
        let named = usable_ports(ports)
            .into_iter()
            .filter_map(|(port, number)| {
                let name = port.name.clone().filter(|name| !name.is_empty())?;
                Some((name, number))
            });
        Some(Self {
            main: number.unwrap_or_else(|| default_port(scheme)),
            scheme: scheme.into(),
            app_protocol: app_protocol.clone(),
            named: named.collect(),
        })
    }

    /// The ports behind the DNS name of a Service: those of its cluster IP, or of the pods of a
    /// headless Service.
    pub(crate) fn of_service(service: &Service, choice: &PortChoice) -> Option<Self> {
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
        Self::of_slice(&slice, choice, None)
    }
}

/// The ports with a number: those for TCP, or all if there are none for TCP.
fn usable_ports(ports: &[EndpointPort]) -> Vec<(&EndpointPort, u16)> {
    let mut usable: Vec<_> = ports
        .iter()
        .filter_map(|port| Some((port, port.port?)))
        .collect();
    let is_tcp = |(port, _): &(&EndpointPort, u16)| is_tcp(port.protocol.as_deref());
    if usable.iter().any(is_tcp) {
        usable.retain(is_tcp);
    }
    usable
}

fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol.is_empty() || protocol == "TCP")
}

/// The port that the pods of a Service listen on, as far as the Service says.
fn target_port(port: &ServicePort) -> Option<u16> {
    match &port.target_port {
        Some(TargetPort::Number(Some(number))) => Some(*number),
        _ => port.port,
    }
}

/// Protocols other than HTTP that ports are named after.
const OTHER_PROTOCOLS: [&str; 24] = [
    "amqp",
    "amqps",
    "cassandra",
    "cql",
    "dns",
    "ftp",
    "imap",
    "kafka",
    "ldap",
    "ldaps",
    "memcache",
    "memcached",
    "mongo",
    "mongodb",
    "mqtt",
    "mysql",
    "nats",
    "pgsql",
    "postgres",
    "postgresql",
    "redis",
    "rediss",
    "smtp",
    "ssh",
];

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
        other => OTHER_PROTOCOLS.contains(&other).then_some("tcp"),
    };
    let prefix = name.and_then(|name| name.split('-').next());
    let app_protocol = app_protocol.map(str::to_ascii_lowercase);
    app_protocol
        .as_deref()
        .and_then(known)
        .or_else(|| prefix.filter(|prefix| *prefix != "tcp").and_then(known))
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
        let choice = PortChoice::of_service(Some(&service), [&slice].into_iter(), preferred);
        match Ports::of_slice(&slice, &choice, None) {
            Some(ports) => format!("{}:{}", ports.scheme, ports.main),
            None => "none".to_owned(),
        }
    }

    #[test]
    fn a_port_that_the_slice_names_itself_comes_first() {
        let ports = json!([
            {"name": "admin", "port": 9000},
            {"name": "http", "port": 8080},
            {"name": "any", "appProtocol": "https"},
        ]);
        let slice: EndpointSlice = serde_json::from_value(json!({ "ports": ports })).unwrap();
        let choice = PortChoice::of_service(None, [&slice].into_iter(), None);
        for (own, expected) in [("admin", 9000), ("9000", 9000), ("1", 8080), ("any", 443)] {
            let ports = Ports::of_slice(&slice, &choice, Some(own)).unwrap();
            assert_eq!(ports.main, expected, "{own}");
        }
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
                "tcp:53",
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
            (
                json!([{"name": "postgres", "port": 5432}]),
                &none,
                None,
                "tcp:5432",
            ),
            (
                json!([{"name": "redis-main", "port": 6379}]),
                &none,
                None,
                "tcp:6379",
            ),
            (
                json!([{"name": "db", "port": 1, "appProtocol": "mysql"}]),
                &none,
                None,
                "tcp:1",
            ),
            (json!([{"name": "tcp", "port": 80}]), &none, None, "http:80"),
            // No port number.
            (json!(null), &none, None, "http:80"),
            (json!([]), &first_b, None, "none"),
            (json!([{"name": "any"}]), &none, None, "http:80"),
            (
                json!([{"name": "https"}]),
                &json!({"ports": [{"name": "https", "port": 443, "targetPort": 8443}]}),
                None,
                "https:8443",
            ),
            // The endpoints do not have the port of the Service.
            (
                json!(null),
                &json!({"ports": [{"name": "https", "port": 443, "targetPort": 8443}]}),
                None,
                "none",
            ),
            (
                json!([{"name": "metrics", "port": 9090}]),
                &json!({"ports": [{"name": "http", "port": 80}, {"name": "metrics", "port": 9090}]}),
                None,
                "none",
            ),
            (
                json!([{"name": "metrics", "port": 9090}]),
                &json!({"ports": [{"name": "http", "port": 80}, {"name": "metrics", "port": 9090}]}),
                Some("metrics"),
                "http:9090",
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
            let choice = PortChoice::of_service(Some(&service), std::iter::empty(), None);
            let ports = Ports::of_service(&service, &choice).unwrap();
            assert_eq!(ports.main, expected, "{cluster_ip}");
        }
    }

    /// Without the Service, as when it may not be read.
    #[test]
    fn without_service_ports_the_port_is_chosen_among_those_of_all_slices() {
        let slice = |ports: Value| -> EndpointSlice {
            serde_json::from_value(json!({ "ports": ports })).unwrap()
        };
        let slices = [
            slice(json!([{"name": "metrics", "port": 9090}])),
            slice(json!([{"name": "metrics", "port": 9090}, {"name": "http", "port": 8080}])),
            slice(json!([{"name": "http", "port": 8081}])),
            slice(json!(null)),
        ];
        let choice = PortChoice::of_service(None, slices.iter(), None);
        let ports = slices.each_ref().map(|slice| {
            let ports = Ports::of_slice(slice, &choice, None);
            ports.map(|ports| ports.main)
        });
        assert_eq!(ports, [None, Some(8080), Some(8081), None]);
        let own = Ports::of_slice(&slices[0], &choice, Some("metrics"));
        assert_eq!(own.map(|ports| ports.main), Some(9090));
    }
}
