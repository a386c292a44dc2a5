//! What the provider makes of a cluster's Services and EndpointSlices.

mod conformance;
mod watches;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;
use waypost::directory::Directory;
use waypost::provider::kubernetes::KubernetesProvider;
use waypost::provider::{Answer, Provider, Watch};
use waypost::snapshot::Snapshot;
use waypost::{Health, Instance};
use waypost_fake_kubernetes::manifest;

use super::{PATIENCE, demo, next, provider};

/// What is said of a service at first.
async fn look_up(provider: &KubernetesProvider, name: &str) -> Answer {
    next(&mut provider.watch(&name.parse().unwrap()))
        .await
        .unwrap()
}

async fn instances(provider: &KubernetesProvider, name: &str) -> Vec<Arc<Instance>> {
    match look_up(provider, name).await {
        Answer::Instances(instances) => instances,
        Answer::Unknown => panic!("{name} is unknown"),
    }
}

/// Follows a watch until what it says is as wanted.
async fn until(watch: &mut Watch, wanted: impl Fn(&[Arc<Instance>]) -> bool) -> Vec<Arc<Instance>> {
    let following = async {
        loop {
            if let Some(Ok(Answer::Instances(instances))) = watch.next().await
                && wanted(&instances)
            {
                return instances;
            }
        }
    };
    timeout(PATIENCE, following)
        .await
        .expect("it never is as wanted")
}

async fn directory_says(
    directory: &Directory,
    name: &str,
    wanted: impl Fn(&Snapshot) -> bool,
) -> Arc<Snapshot> {
    let mut subscription = directory.subscribe(&name.parse().unwrap());
    let following = async {
        loop {
            let snapshot = subscription.changed().await;
            if wanted(&snapshot) {
                return snapshot;
            }
        }
    };
    timeout(PATIENCE, following)
        .await
        .expect("it never says so")
}

#[tokio::test]
async fn pods_become_instances_with_what_is_known_of_them() {
    let server = demo().await;
    let mut service = manifest::service("demo", "web", &[("http", 80), ("admin", 81)]);
    service["metadata"]["labels"] = json!({
        "app.kubernetes.io/version": "2.1.0", "team": "shop",
    });
    service["metadata"]["annotations"] = json!({ "example.com/docs": "here", "other": "hidden" });
    server.put(&service);
    let ports = [("admin", 9000), ("http", 8080)];
    let pod = manifest::pod("10.0.0.1", "web-x1", "node-1", "zone-a");
    server.put(&manifest::slice("demo", "web", "web-abc", &ports, [pod]));

    let provider = KubernetesProvider::builder()
        .kubeconfig(server.kubeconfig())
        .annotation("example.com/docs")
        .build()
        .unwrap();
    let [web] = &instances(&provider, "web").await[..] else {
        panic!("one instance")
    };
    assert_eq!(web.id().as_str(), "web-x1");
    assert_eq!(web.url(), "http://10.0.0.1:8080");
    assert_eq!(web.named_port("admin"), Some(9000));
    assert_eq!(web.version(), Some("2.1.0"));
    assert_eq!(web.zone(), Some("zone-a"));
    assert_eq!(web.health(), Health::Passing);
    let metadata: BTreeMap<_, _> = web.metadata().collect();
    let expected = BTreeMap::from([
        ("app.kubernetes.io/version", "2.1.0"),
        ("example.com/docs", "here"),
        ("namespace", "demo"),
        ("node", "node-1"),
        ("pod", "web-x1"),
        ("team", "shop"),
        ("zone", "zone-a"),
    ]);
    assert_eq!(metadata, expected);
}

fn with_conditions(address: &str, conditions: Value) -> Value {
    let mut endpoint = manifest::endpoint(address);
    endpoint["conditions"] = conditions;
    endpoint
}

#[tokio::test]
async fn only_what_is_ready_takes_new_work_and_what_still_serves_only_when_nothing_is() {
    let server = demo().await;
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
    let slice = |from: usize| {
        let endpoints = endpoints[from..].iter();
        let endpoints = endpoints.map(|(address, said)| with_conditions(address, said.clone()));
        manifest::slice("demo", "web", "web-1", &[("http", 8080)], endpoints)
    };
    server.put(&manifest::service("demo", "web", &[("http", 80)]));
    server.put(&slice(0));
    let directory = Directory::new(Arc::new(provider(&server)));
    let usable = |snapshot: &Snapshot| -> Vec<String> {
        let usable = snapshot.usable().into_iter().flatten();
        usable
            .map(|endpoint| endpoint.instance().host().to_string())
            .collect()
    };
    let all = directory_says(&directory, "web", |s| s.instances().len() == 5).await;
    let health: BTreeSet<_> = all
        .instances()
        .map(|i| (i.host().to_string(), i.health()))
        .collect();
    let expected = [
        ("10.0.0.1", Health::Passing),
        ("10.0.0.2", Health::Passing),
        ("10.0.0.3", Health::Draining),
        ("10.0.0.4", Health::Critical),
        ("10.0.0.5", Health::Critical),
    ];
    assert_eq!(
        health,
        expected
            .map(|(host, health)| (host.to_owned(), health))
            .into()
    );
    assert_eq!(usable(&all), ["10.0.0.1", "10.0.0.2"]);
    server.put(&slice(2));
    let rest = directory_says(&directory, "web", |s| s.instances().len() == 3).await;
    assert_eq!(usable(&rest), ["10.0.0.3"]);
    server.put(&slice(3));
    let none = directory_says(&directory, "web", |s| s.instances().len() == 2).await;
    assert!(
        none.usable()
            .unwrap_err()
            .to_string()
            .contains("none of the 2 instances")
    );
}

#[tokio::test]
async fn a_pod_in_several_slices_is_one_instance_and_the_ready_one_counts() {
    let server = demo().await;
    let mut service = manifest::service("demo", "web", &[("http", 80)]);
    service["spec"]["ipFamilyPolicy"] = "PreferDualStack".into();
    service["spec"]["ipFamilies"] = json!(["IPv6", "IPv4"]);
    server.put(&service);
    let ports = [("http", 8080)];
    let put = |name: &str, kind: &str, address: &str, ready: bool| {
        let mut pod = manifest::pod(address, "web-0", "node", "zone");
        pod["conditions"] = json!({ "ready": ready });
        let mut slice = manifest::slice("demo", "web", name, &ports, [pod]);
        slice["addressType"] = kind.into();
        server.put(&slice);
    };
    put("web-a", "IPv4", "10.0.0.1", true);
    put("web-b", "IPv6", "fd00::1", true);
    let provider = provider(&server);
    let mut watch = provider.watch(&"web".parse().unwrap());
    let url =
        |url: &'static str| move |all: &[Arc<Instance>]| matches!(all, [only] if only.url() == url);
    // The Service's first family.
    until(&mut watch, url("http://[fd00::1]:8080")).await;
    put("web-b", "IPv6", "fd00::1", false);
    until(&mut watch, url("http://10.0.0.1:8080")).await;
    put("web-b", "IPv6", "fd00::1", true);
    until(&mut watch, url("http://[fd00::1]:8080")).await;
    server.delete("endpointslices", "demo", "web-b");
    until(&mut watch, url("http://10.0.0.1:8080")).await;
}

/// Two addresses that nobody says to belong together can't be told from two machines.
#[tokio::test]
async fn without_a_name_an_endpoint_is_an_instance_for_each_family() {
    let server = demo().await;
    let mut service = manifest::service("demo", "web", &[("http", 80)]);
    service["spec"]["selector"] = Value::Null;
    service["spec"]["ipFamilies"] = json!(["IPv4", "IPv6"]);
    service["spec"]["ipFamilyPolicy"] = "RequireDualStack".into();
    server.put(&service);
    let put = |name: &str, kind: &str, address: &str, annotations: Value| {
        let endpoint = manifest::endpoint(address);
        let mut slice = manifest::slice("demo", "web", name, &[("http", 8080)], [endpoint]);
        slice["addressType"] = kind.into();
        slice["metadata"]["annotations"] = annotations;
        server.put(&slice);
    };
    let provider = provider(&server);
    let mut watch = provider.watch(&"web".parse().unwrap());
    let urls = |all: &[Arc<Instance>]| -> Vec<String> {
        all.iter()
            .map(|instance| instance.url().to_owned())
            .collect()
    };
    put("web-4", "IPv4", "10.0.0.1", json!({}));
    put("web-6", "IPv6", "fd00::1", json!({}));
    let both = until(&mut watch, |all| all.len() == 2).await;
    assert_eq!(
        urls(&both),
        ["http://10.0.0.1:8080", "http://[fd00::1]:8080"]
    );
    // Where somebody does say it, they are one.
    let id = json!({ "waypost.dev/id": "vm-7" });
    put("web-4", "IPv4", "10.0.0.1", id.clone());
    put("web-6", "IPv6", "fd00::1", id);
    let one = until(&mut watch, |all| all.len() == 1).await;
    assert_eq!(urls(&one), ["http://10.0.0.1:8080"]);
}

#[tokio::test]
async fn services_of_every_kind_are_found() {
    let server = demo().await;
    // By another name.
    let mut external = manifest::service("demo", "external", &[("https", 443)]);
    external["spec"] = json!({
        "type": "ExternalName", "externalName": "api.example.com",
        "ports": [{ "name": "https", "port": 443 }],
    });
    server.put(&external);
    // Headless, without ports.
    let mut headless = manifest::service("demo", "headless", &[]);
    headless["spec"] = json!({ "clusterIP": "None", "selector": { "app": "headless" } });
    server.put(&headless);
    let mut slice = manifest::slice(
        "demo",
        "headless",
        "headless-1",
        &[],
        [
            manifest::pod("10.0.1.1", "db-0", "node", "zone"),
            manifest::pod("10.0.1.2", "db-1", "node", "zone"),
        ],
    );
    slice["ports"] = Value::Null;
    server.put(&slice);
    // Without a selector, with a slice made by hand: a name, and several addresses of one endpoint.
    let mut by_hand = manifest::service("demo", "by-hand", &[("http", 80)]);
    by_hand["spec"]["selector"] = Value::Null;
    server.put(&by_hand);
    let mut endpoint = manifest::endpoint("10.0.2.1");
    endpoint["addresses"] = json!(["10.0.2.1", "10.0.2.2"]);
    let ports = [("http", 8080)];
    server.put(&manifest::slice(
        "demo",
        "by-hand",
        "by-hand-1",
        &ports,
        [endpoint],
    ));
    let named = manifest::endpoint("db.example.com");
    let mut named = manifest::slice("demo", "by-hand", "by-hand-2", &ports, [named]);
    named["addressType"] = "FQDN".into();
    server.put(&named);
    // In another namespace, and without any endpoint.
    server.put(&manifest::namespace("other"));
    server.put(&manifest::service("other", "web", &[("http", 80)]));
    let far = [manifest::endpoint("10.0.3.1")];
    server.put(&manifest::slice("other", "web", "web-1", &ports, far));
    server.put(&manifest::service("demo", "idle", &[("http", 80)]));

    let provider = provider(&server);
    for (name, expected) in [
        ("external", &["https://api.example.com:443"][..]),
        ("headless", &["http://10.0.1.1:80", "http://10.0.1.2:80"]),
        (
            "by-hand",
            &["http://10.0.2.1:8080", "http://db.example.com:8080"],
        ),
        ("web.other", &["http://10.0.3.1:8080"]),
        ("web.other.svc", &["http://10.0.3.1:8080"]),
        ("web.other.svc.cluster.local", &["http://10.0.3.1:8080"]),
        (
            "headless.demo",
            &["http://10.0.1.1:80", "http://10.0.1.2:80"],
        ),
        ("idle", &[]),
    ] {
        let found = instances(&provider, name).await;
        let urls: Vec<_> = found.iter().map(|instance| instance.url()).collect();
        assert_eq!(urls, expected, "{name}");
        assert!(found.iter().all(|i| i.service().as_str() == name));
    }
    for name in [
        "nobody",
        "web",
        "nobody.other",
        "web.nowhere",
        "Web",
        "a.b.c",
    ] {
        assert_eq!(look_up(&provider, name).await, Answer::Unknown, "{name}");
    }
    let names = provider.watch_names().next().await.unwrap().unwrap();
    let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
    assert_eq!(names, ["by-hand", "external", "headless", "idle"]);
}

#[tokio::test]
async fn hints_count_only_if_every_endpoint_that_is_ready_has_one() {
    let server = demo().await;
    server.put(&manifest::service("demo", "web", &[("http", 80)]));
    let put = |hinted: bool| {
        let mut first = manifest::pod("10.0.0.1", "web-0", "node", "zone-a");
        first["hints"] = json!({ "forZones": [{ "name": "zone-b" }] });
        let mut second = manifest::pod("10.0.0.2", "web-1", "node", "zone-a");
        if hinted {
            second["hints"] = first["hints"].clone();
        }
        let mut third = manifest::pod("10.0.0.3", "web-2", "node", "zone-c");
        third["conditions"] = json!({ "ready": false });
        let endpoints = [first, second, third];
        server.put(&manifest::slice(
            "demo",
            "web",
            "web-1",
            &[("http", 80)],
            endpoints,
        ));
    };
    let provider = provider(&server);
    let mut watch = provider.watch(&"web".parse().unwrap());
    for (hinted, expected) in [
        (true, ["zone-b", "zone-b", "zone-c"]),
        (false, ["zone-a", "zone-a", "zone-c"]),
        (true, ["zone-b", "zone-b", "zone-c"]),
    ] {
        put(hinted);
        let zones = |all: &[Arc<Instance>]| {
            let zones = all
                .iter()
                .map(|instance| instance.zone().unwrap_or_default());
            zones.eq(expected)
        };
        until(&mut watch, zones).await;
    }
}
