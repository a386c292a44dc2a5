//! The snapshots that a directory makes from the provider's answers, and when settings choose the
//! provider.

use std::fs;
use std::sync::Arc;

use serde_json::json;
use tokio::time::timeout;
use waypost::Environment;
use waypost::directory::Directory;
use waypost::provider::kubernetes::KubernetesProvider;
use waypost::settings::Settings;
use waypost::snapshot::Snapshot;

use waypost_fake_kubernetes::manifest;

use super::{TIMEOUT, provider, start_server};

/// Waits for a snapshot of `web` that fulfils a condition.
async fn until(directory: &Directory, condition: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
    let mut subscription = directory.subscribe(&"web".parse().unwrap());
    let waiting = async {
        loop {
            let snapshot = subscription.changed().await;
            if condition(&snapshot) {
                return snapshot;
            }
        }
    };
    let found = timeout(TIMEOUT, waiting).await;
    found.expect("no such snapshot in time")
}

#[tokio::test]
async fn only_ready_instances_take_traffic_and_draining_ones_only_if_none_is_ready() {
    let server = start_server().await;
    let endpoints = [
        ("10.0.0.1", json!({ "ready": true })),
        ("10.0.0.2", json!({})),
        (
            "10.0.0.3",
            json!({ "ready": false, "serving": true, "terminating": true }),
        ),
        (
            "10.0.0.4",
            json!({ "ready": false, "serving": false, "terminating": false }),
        ),
        (
            "10.0.0.5",
            json!({ "ready": false, "serving": false, "terminating": true }),
        ),
    ];
    let slice_from = |first: usize| {
        let endpoints = endpoints[first..].iter().map(|(address, conditions)| {
            let mut endpoint = manifest::endpoint(address);
            endpoint["conditions"] = conditions.clone();
            endpoint
        });
        manifest::slice("demo", "web", "web-1", &[("http", 8080)], endpoints)
    };
    let usable = |snapshot: &Snapshot| -> Vec<String> {
        let usable = snapshot.usable().into_iter().flatten();
        usable
            .map(|endpoint| endpoint.instance().host().to_string())
            .collect()
    };
    server.put(&manifest::service("demo", "web", &[("http", 80)]));
    server.put(&slice_from(0));
    let directory = Directory::new(Arc::new(provider(&server)));
    let all = until(&directory, |s| s.instances().len() == 5).await;
    assert_eq!(usable(&all), ["10.0.0.1", "10.0.0.2"]);
    server.put(&slice_from(2));
    let not_ready = until(&directory, |s| s.instances().len() == 3).await;
    assert_eq!(usable(&not_ready), ["10.0.0.3"]);
    server.put(&slice_from(3));
    let critical = until(&directory, |s| s.instances().len() == 2).await;
    let error = critical.usable().unwrap_err().to_string();
    assert!(error.contains("none of the 2 instances"), "{error}");
}

#[tokio::test]
async fn a_single_lookup_is_stale_if_slices_may_be_listed_but_not_watched() {
    let server = start_server().await;
    server.put(&manifest::service("demo", "web", &[("http", 80)]));
    let endpoint = [manifest::endpoint("10.0.0.1")];
    let ports = [("http", 8080)];
    server.put(&manifest::slice("demo", "web", "web-1", &ports, endpoint));
    server.add_user("reader");
    let rules = json!([
        { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list"] },
        { "apiGroups": [""], "resources": ["services"], "verbs": ["list", "watch"] },
    ]);
    server.grant("reader", "demo", &rules);
    let kubeconfig = server.kubeconfig_of("reader").unwrap();
    let provider = KubernetesProvider::builder().kubeconfig(kubeconfig);
    let directory = Directory::new(Arc::new(provider.build().unwrap()));
    let snapshot = directory.lookup(&"web".parse().unwrap()).await.unwrap();
    assert_eq!(snapshot.instances().len(), 1);
    assert!(snapshot.freshness().is_stale());
}

#[tokio::test]
async fn settings_choose_kubernetes_in_a_pod_with_a_token() {
    let server = start_server().await;
    server.put(&manifest::service("demo", "web", &[("http", 80)]));
    let endpoint = [manifest::endpoint("10.0.0.1")];
    let ports = [("http", 8080)];
    server.put(&manifest::slice("demo", "web", "web-1", &ports, endpoint));
    let token = server.add_user("pod");
    server.grant("pod", "demo", &manifest::read_rules(&["list", "watch"]));
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    for (file, content) in [
        ("token", token),
        ("ca.crt", server.ca_pem().to_owned()),
        ("namespace", "demo\n".to_owned()),
    ] {
        fs::write(directory.join(file), content).unwrap();
    }
    let address = server.address();
    let settings = Settings::new(Environment::from_iter([
        ("KUBERNETES_SERVICE_HOST", address.ip().to_string()),
        ("KUBERNETES_SERVICE_PORT", address.port().to_string()),
        (
            "WAYPOST_SERVICE_ACCOUNT_DIR",
            directory.display().to_string(),
        ),
    ]));
    let settings = settings.unwrap();
    assert_eq!(settings.kind().as_str(), "kubernetes");
    let directory = Directory::new(settings.provider().unwrap());
    let snapshot = directory.lookup(&"web".parse().unwrap()).await.unwrap();
    assert_eq!(snapshot.instances().len(), 1);
}
