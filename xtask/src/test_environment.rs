//! The environment that tests run in.

use std::process::Command;

/// Variables of the user or the cluster that would change the outcome of tests.
const REMOVED_FROM_TESTS: &[&str] = &[
    "CONSUL_CACERT",
    "CONSUL_HOST",
    "CONSUL_HTTP_ADDR",
    "CONSUL_HTTP_SSL",
    "CONSUL_HTTP_TOKEN",
    "CONSUL_HTTP_TOKEN_FILE",
    "CONSUL_NAMESPACE",
    "CONSUL_PORT",
    "CONSUL_TOKEN",
    "ENVIRONMENT",
    "KUBECONFIG",
    "KUBERNETES_NAMESPACE",
    "KUBERNETES_SERVICE_HOST",
    "KUBERNETES_SERVICE_PORT",
    "SERVICE_DISCOVERY_CONFIG_FILE",
    "SERVICE_DISCOVERY_PROVIDER",
    "SERVICE_REGISTRY_HOST",
    "SERVICE_REGISTRY_PORT",
];

/// Isolates a test's command from variables that the user or the cluster has set.
pub(crate) fn isolate(command: &mut Command) {
    for name in REMOVED_FROM_TESTS {
        command.env_remove(name);
    }
    // Cargo may need a proxy to fetch crates, but the tests talk to this machine.
    for name in ["NO_PROXY", "no_proxy"] {
        let mut hosts = std::env::var(name).unwrap_or_default();
        if !hosts.is_empty() {
            hosts.push(',');
        }
        command.env(name, hosts + "127.0.0.1,localhost,::1");
    }
}
