//! Advice for pods: the parts of the manifests that replace a registration.

use serde_json::{Value, json};
use waypost_core::{Check, CheckKind, Registration};

/// Why a pod does not register itself, and what its manifests must contain instead, with the values of
/// this registration.
pub(super) fn advice(registration: &Registration) -> String {
    let instance = registration.instance();
    let (name, port) = (instance.service(), instance.port());
    let name = name.as_str().split('.').next().unwrap_or_default();
    let scheme = instance.scheme();
    let selector = json!({ "app.kubernetes.io/name": name });
    let mut labels = selector.clone();
    if let Some(version) = instance.version() {
        labels["app.kubernetes.io/version"] = version.into();
    }
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name },
        "spec": {
            "selector": selector,
            "ports": [{ "name": scheme, "port": port, "targetPort": scheme, "appProtocol": scheme }],
        },
    });
    let container = json!({
        "ports": [{ "name": scheme, "containerPort": port }],
        "readinessProbe": readiness_probe(registration.checks(), scheme),
    });
    // JSON is valid YAML, so each line can be pasted as it is.
    format!(
        "in a pod, Kubernetes registers the instance: a Service that selects the pod lists it while \
         it is ready\nThe manifests need\n  \
         Service     {service}\n  \
         pod labels  {labels}\n  \
         container   {container}"
    )
}

/// The readiness probe that corresponds to the first health check, else one that connects.
fn readiness_probe(checks: &[Check], port: &str) -> Value {
    for check in checks {
        let mut probe = match check.kind() {
            CheckKind::Http(http) => {
                let mut get = json!({ "path": http.path(), "port": port });
                if port == "https" {
                    get["scheme"] = "HTTPS".into();
                }
                json!({ "httpGet": get })
            }
            CheckKind::Tcp => json!({ "tcpSocket": { "port": port } }),
            CheckKind::Grpc { service } => {
                json!({ "grpc": { "port": port, "service": service } })
            }
            CheckKind::Script(command) => json!({ "exec": { "command": command } }),
            _ => continue,
        };
        if let Some((interval, timeout)) = check.timing() {
            probe["periodSeconds"] = interval.as_secs().max(1).into();
            probe["timeoutSeconds"] = timeout.as_secs().max(1).into();
        }
        return probe;
    }
    json!({ "tcpSocket": { "port": port } })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use waypost_core::ServiceRegistration;

    use super::*;

    #[test]
    fn the_advice_has_the_values_of_the_registration() {
        let registration = ServiceRegistration::new("billing", 8080)
            .unwrap()
            .version("1.0.0")
            .check(Check::ttl(Duration::from_secs(9)))
            .check(Check::http("/health").every(Duration::from_secs(7)));
        let advice = advice(&registration.resolve(None).unwrap());
        let line = |start: &str| -> Value {
            let mut lines = advice.lines().map(str::trim);
            let line = lines.find_map(|line| line.strip_prefix(start)).unwrap();
            serde_json::from_str(line).unwrap()
        };
        let service = line("Service");
        assert_eq!(service["metadata"]["name"], "billing");
        assert_eq!(service["spec"]["ports"][0]["port"], 8080);
        let labels = line("pod labels");
        assert_eq!(labels["app.kubernetes.io/version"], "1.0.0");
        assert_eq!(
            service["spec"]["selector"]["app.kubernetes.io/name"],
            labels["app.kubernetes.io/name"]
        );
        let container = line("container");
        assert_eq!(container["ports"][0]["containerPort"], 8080);
        let probe = json!({ "httpGet": { "path": "/health", "port": "http" }, "periodSeconds": 7, "timeoutSeconds": 5 });
        assert_eq!(container["readinessProbe"], probe);
    }

    #[test]
    fn each_kind_of_check_has_its_readiness_probe() {
        let tcp = || json!({ "tcpSocket": { "port": "http" } });
        let with_times = |mut probe: Value| {
            probe["periodSeconds"] = 10.into();
            probe["timeoutSeconds"] = 5.into();
            probe
        };
        let http = |scheme: Value| json!({ "path": "/health", "port": "https", "scheme": scheme });
        for (checks, port, probe) in [
            (vec![], "http", tcp()),
            (vec![Check::ttl(Duration::from_secs(9))], "http", tcp()),
            (
                vec![Check::tcp(), Check::http("/health")],
                "http",
                with_times(tcp()),
            ),
            (
                vec![Check::http("/health")],
                "https",
                with_times(json!({ "httpGet": http("HTTPS".into()) })),
            ),
            (
                vec![Check::grpc("web.v1")],
                "http",
                with_times(json!({ "grpc": { "port": "http", "service": "web.v1" } })),
            ),
            (
                vec![Check::script(["/bin/true", "-x"])],
                "http",
                with_times(json!({ "exec": { "command": ["/bin/true", "-x"] } })),
            ),
        ] {
            assert_eq!(readiness_probe(&checks, port), probe);
        }
    }
}
