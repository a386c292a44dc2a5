//! Which instances the provider finds for Services and EndpointSlices.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use serde_json::{Value, json};
use waypost_core::provider::{Provider, ServiceAnswer};
use waypost_core::{Health, Instance};
use waypost_fake_kubernetes::manifest;
use waypost_kubernetes::KubernetesProvider;

use crate::{next, provider, start_server, until, until_only, watch_web};

/// The first answer about a service.
async fn look_up(provider: &KubernetesProvider, name: &str) -> ServiceAnswer {
    let mut watch = provider.watch(&name.parse().unwrap());
    next(&mut watch).await.unwrap()
}

async fn instances(provider: &KubernetesProvider, name: &str) -> Vec<Arc<Instance>> {
    match look_up(provider, name).await {
        ServiceAnswer::Instances(instances) => instances,
        ServiceAnswer::Unknown => panic!("{name} is unknown"),
    }
}

#[tokio::test]
async fn a_pod_becomes_an_instance_with_the_labels_of_its_service() {
    let server = start_server().await;
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
    // Only with a hint does the instance have this zone, which clients then prefer.
    assert_eq!(web.zone(), None);
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

#[tokio::test]
async fn conditions_become_health() {
    let server = start_server().await;
    server.put(&manifest::service("demo", "web", &[("http", 80)]));
    let expected = [
        ("10.0.0.1", json!({ "ready": true }), Health::Passing),
        ("10.0.0.2", json!({}), Health::Passing),
        (
            "10.0.0.3",
            json!({ "ready": false, "serving": true, "terminating": true }),
            Health::Draining,
        ),
        (
            "10.0.0.4",
            json!({ "ready": false, "serving": false, "terminating": true }),
            Health::Critical,
        ),
    ];
    let endpoints = expected.iter().map(|(address, conditions, _)| {
        let mut endpoint = manifest::endpoint(address);
        endpoint["conditions"] = conditions.clone();
        endpoint
    });
    let ports = [("http", 8080)];
    server.put(&manifest::slice("demo", "web", "web-1", &ports, endpoints));
    let found = instances(&provider(&server), "web").await;
    let found: BTreeMap<_, _> = found
        .iter()
        .map(|instance| (instance.host().to_string(), instance.health()))
        .collect();
    let expected = expected.map(|(address, _, health)| (address.to_owned(), health));
    assert_eq!(found, BTreeMap::from(expected));
}

#[tokio::test]
async fn a_pod_in_several_slices_is_one_instance_by_the_ready_slice_of_the_preferred_family() {
    let server = start_server().await;
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
    let mut watch = watch_web(&provider);
    // IPv6 is the Service's first family.
    until_only(&mut watch, "http://[fd00::1]:8080").await;
    put("web-b", "IPv6", "fd00::1", false);
    until_only(&mut watch, "http://10.0.0.1:8080").await;
    put("web-b", "IPv6", "fd00::1", true);
    until_only(&mut watch, "http://[fd00::1]:8080").await;
    server.delete("endpointslices", "demo", "web-b");
    until_only(&mut watch, "http://10.0.0.1:8080").await;
}

/// Without a target reference or an id, nothing says whether two addresses are one machine.
#[tokio::test]
async fn a_dual_stack_endpoint_is_one_instance_per_family_unless_an_id_joins_them() {
    let server = start_server().await;
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
    let mut watch = watch_web(&provider);
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
    // An annotation with the same id makes them one.
    let id = json!({ "waypost.dev/id": "vm-7" });
    put("web-4", "IPv4", "10.0.0.1", id.clone());
    put("web-6", "IPv6", "fd00::1", id);
    let one = until(&mut watch, |all| all.len() == 1).await;
    assert_eq!(urls(&one), ["http://10.0.0.1:8080"]);
}

/// The selector of a Service also fits pods that do not have the port its targetPort names.
#[tokio::test]
async fn pods_without_the_port_of_their_service_get_no_traffic() {
    let server = start_server().await;
    let mut service = manifest::service("demo", "web", &[("http", 80), ("metrics", 9090)]);
    service["spec"]["ports"][0]["targetPort"] = "http".into();
    server.put(&service);
    let put = |name: &str, address: &str, ports: &[(&str, u16)]| {
        let pod = manifest::pod(address, name, "node", "zone");
        let mut slice = manifest::slice("demo", "web", name, ports, [pod]);
        if ports.is_empty() {
            slice["ports"] = Value::Null;
        }
        server.put(&slice);
    };
    put("web-1", "10.0.0.1", &[("http", 8080), ("metrics", 9090)]);
    put("web-2", "10.0.0.2", &[("metrics", 9090)]);
    put("web-3", "10.0.0.3", &[]);
    put("web-4", "10.0.0.4", &[("http", 8081)]);
    let found = instances(&provider(&server), "web").await;
    let urls: Vec<_> = found.iter().map(|instance| instance.url()).collect();
    assert_eq!(urls, ["http://10.0.0.1:8080", "http://10.0.0.4:8081"]);
}

/// Pods in the network of their node have its address.
#[tokio::test]
async fn of_several_pods_at_one_address_and_port_the_healthiest_is_the_only_instance() {
    let server = start_server().await;
    server.put(&manifest::service("demo", "web", &[("http", 80)]));
    let pod = |address: &str, name: &str, ready: bool| {
        let mut pod = manifest::pod(address, name, "node", "zone");
        pod["conditions"] = json!({ "ready": ready });
        pod
    };
    let put = |name: &str, port: u16, pods: &[Value]| {
        let ports = [("http", port)];
        let pods = pods.iter().cloned();
        server.put(&manifest::slice("demo", "web", name, &ports, pods));
    };
    let in_one_slice = [
        pod("10.0.0.1", "web-1", true),
        pod("10.0.0.1", "web-2", true),
    ];
    put("web-a", 8080, &in_one_slice);
    put("web-b", 8080, &[pod("10.0.0.2", "web-3", false)]);
    put("web-c", 8080, &[pod("10.0.0.2", "web-4", true)]);
    put("web-d", 8081, &[pod("10.0.0.2", "web-5", true)]);
    let provider = provider(&server);
    let mut watch = watch_web(&provider);
    let ids = |expected: &'static [&str]| {
        move |all: &[Arc<Instance>]| {
            all.iter()
                .map(|it| it.id().as_str())
                .eq(expected.iter().copied())
        }
    };
    until(&mut watch, ids(&["web-1", "web-4", "web-5"])).await;
    server.delete("endpointslices", "demo", "web-c");
    put("web-a", 8080, &in_one_slice[1..]);
    until(&mut watch, ids(&["web-2", "web-3", "web-5"])).await;
}

#[tokio::test]
async fn services_of_every_kind_are_found() {
    let server = start_server().await;
    // An alias.
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
    // Without a selector; slices written by hand, with two addresses of one endpoint and a DNS name.
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
    let other = [manifest::endpoint("10.0.3.1")];
    server.put(&manifest::slice("other", "web", "web-1", &ports, other));
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
        assert_eq!(
            look_up(&provider, name).await,
            ServiceAnswer::Unknown,
            "{name}"
        );
    }
    let names = provider.watch_names().next().await.unwrap().unwrap();
    let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
    assert_eq!(names, ["by-hand", "external", "headless", "idle"]);
}

#[tokio::test]
async fn zone_hints_apply_only_if_every_ready_endpoint_has_one() {
    let server = start_server().await;
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
    let mut watch = watch_web(&provider);
    for (hinted, expected) in [
        (true, ["zone-b", "zone-b", ""]),
        (false, ["", "", ""]),
        (true, ["zone-b", "zone-b", ""]),
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
