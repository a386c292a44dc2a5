//! The API server of Kubernetes, and the permissions of this client.

use std::time::Duration;

use tokio::time::timeout;
use waypost::provider::Provider;
use waypost::provider::kubernetes::{KubernetesProvider, MissingPermissions};
use waypost::{ProviderError, ProviderErrorKind};

use super::finding::Finding;

const SUBJECT: &str = "registry";

/// Examines the API server. Returns whether it can be used.
pub(super) async fn examine(
    cluster: &KubernetesProvider,
    limit: Duration,
    findings: &mut Vec<Finding>,
) -> bool {
    let report = match timeout(limit, cluster.access_report()).await {
        Ok(Ok(report)) => report,
        Ok(Err(error)) => {
            findings.push(failure(&error));
            return false;
        }
        Err(_) => {
            let what = format!("{} does not respond within {limit:?}", cluster.describe());
            let advice = "see whether `kubectl get --raw /version` does; a VPN may be needed";
            findings.push(Finding::error(SUBJECT, what, advice));
            return false;
        }
    };
    let (server, namespace) = (cluster.describe(), &report.namespace);
    let version = report.server_version.as_deref();
    let version = version.map(|version| format!(", version {version}"));
    let what = format!(
        "{server}{}, namespace {namespace}",
        version.unwrap_or_default()
    );
    findings.push(Finding::ok(SUBJECT, what));
    match &report.missing_for_lookups {
        None => {
            let place = if report.lists_all_namespaces {
                "all namespaces".to_owned()
            } else {
                format!("namespace {namespace}")
            };
            let what = format!("services can be found in {place}");
            findings.push(Finding::ok("permissions", what));
        }
        Some(missing) => {
            let what = format!("finding services needs: {}", missing.permissions.join(", "));
            findings.push(Finding::error("permissions", what, advice(missing)));
        }
    }
    if let Some(missing) = &report.missing_for_registration {
        let needed = missing.permissions.join(", ");
        let what = format!(
            "programs outside of the cluster can't register in namespace {namespace}; that would \
             need: {needed}"
        );
        // Programs in pods don't need these permissions, so this is no error.
        findings.push(Finding::ok("permissions", what));
    }
    report.missing_for_lookups.is_none()
}

fn advice(missing: &MissingPermissions) -> String {
    format!("to grant them, kubectl apply -f:\n{}", missing.manifest)
}

fn failure(error: &ProviderError) -> Finding {
    let advice = match error.kind() {
        ProviderErrorKind::NotAuthorised => {
            "see whether `kubectl auth whoami` works: the token may have expired, or belong to \
             another cluster"
        }
        _ => {
            "see whether `kubectl get --raw /version` works; KUBECONFIG and KUBERNETES_CONTEXT \
             choose the cluster"
        }
    };
    Finding::error(SUBJECT, error.to_string(), advice)
}
