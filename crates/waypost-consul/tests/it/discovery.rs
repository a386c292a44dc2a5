//! Looking services up.

use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::json;
use waypost_consul::{Consistency, ConsulBuilder, ConsulProvider};
use waypost_core::provider::{LayerPolicy, LayeredProvider, MemoryProvider, Provider};
use waypost_core::{Check, Health, ProviderErrorKind, ServiceName, ServiceRegistration, Weight};
use waypost_testkit::{Consul, http_client};

use crate::{
    Server, TIMEOUT, next, provider_at, register, until, until_ids, web, web_registration,
};

#[tokio::test]
async fn an_instance_is_found_with_all_registered_properties() {
    for server in Server::start_each().await {
        let provider = server.provider();
        let registration = web_registration("web-1", 8080)
            .host("10.1.2.3".parse().unwrap())
            .scheme("https")
            .path_prefix("/v2")
            .version("2.0.0")
            .tag("api")
            .tag("blue")
            .meta("team", "search")
            .zone("eu-1")
            .weight(Weight::new(7))
            .named_port("admin", 9000)
            .check(Check::ttl(TIMEOUT).with_initial_health(Health::Passing));
        let registration = register(&provider, registration).await;

        let instances = until_ids(&provider, &["web-1"]).await;
        let instance = &instances[0];
        assert_eq!(instance.url(), "https://10.1.2.3:8080/v2");
        assert_eq!(instance.health(), Health::Passing);
        assert_eq!(instance.version(), Some("2.0.0"));
        assert_eq!(instance.tags().collect::<Vec<_>>(), ["api", "blue"]);
        assert_eq!(instance.meta("team"), Some("search"));
        assert_eq!(instance.zone(), Some("eu-1"));
        assert_eq!(instance.weight(), Weight::new(7));
        assert_eq!(instance.named_port("admin"), Some(9000));

        let names = provider.watch_names().next().await.unwrap().unwrap();
        assert!(names.contains("web"), "{names:?}");

        let registry = provider.registry().unwrap();
        let id = registration.instance().id();
        registry.deregister(id).await.unwrap();
        until_ids(&provider, &[]).await;
    }
}

#[tokio::test]
async fn ids_and_tags_with_special_characters_are_preserved() {
    for server in Server::start_each().await {
        let provider = server.provider();
        let id = "ä b/c?d#e%20&f";
        let registration = web_registration(id, 1).tag("a,b \"c\"");
        let registration = register(&provider, registration).await;
        let instances = until_ids(&provider, &[id]).await;
        assert!(instances[0].has_tag("a,b \"c\""));
        let registry = provider.registry().unwrap();
        let id = registration.instance().id();
        registry.deregister(id).await.unwrap();
        until_ids(&provider, &[]).await;
    }
}

#[tokio::test]
async fn query_options_select_instances() {
    let consul = Consul::start().await;
    let provider = ConsulProvider::new(&consul.address()).unwrap();
    for (id, tag, team) in [
        ("a", "blue", "se&arch"),
        ("b", "green", "se&arch"),
        ("c", "blue", "x"),
    ] {
        let registration = web_registration(id, 80).tag(tag).meta("team", team);
        register(&provider, registration).await;
    }
    until_ids(&provider, &["a", "b", "c"]).await;

    let ids = async |builder: ConsulBuilder| {
        let provider = provider_at(&consul, builder);
        let instances = next(&mut provider.watch(&web())).await.unwrap();
        let ids: Vec<_> = instances.iter().map(|i| i.id().as_str()).collect();
        ids.join(" ")
    };
    let builder = ConsulProvider::builder;
    assert_eq!(ids(builder().tag("blue")).await, "a c");
    assert_eq!(ids(builder().tag("blue").tag("green")).await, "");
    let filter = "Service.Meta.team == \"se&arch\"";
    assert_eq!(ids(builder().filter(filter)).await, "a b");
    for consistency in [
        Consistency::Default,
        Consistency::Stale,
        Consistency::Consistent,
    ] {
        let builder = builder().consistency(consistency).near("_agent");
        assert_eq!(ids(builder).await, "a b c");
    }
    assert_eq!(ids(builder().node_meta("no", "such")).await, "");

    let provider = provider_at(&consul, builder().datacenter("nowhere"));
    let error = next(&mut provider.watch(&web())).await.unwrap_err();
    assert!(
        error.to_string().contains("No path to datacenter"),
        "{error}"
    );
}

#[tokio::test]
async fn more_services_than_connections_can_be_watched() {
    let consul = Consul::start().await;
    let provider = provider_at(&consul, ConsulProvider::builder().connections(4));
    let names = (0..40).map(|n| ServiceName::new(&format!("web-{n}")).unwrap());
    let mut watches: Vec<_> = names.map(|name| provider.watch(&name)).collect();
    for watch in &mut watches {
        assert!(next(watch).await.unwrap().is_empty());
    }
    let mut last = watches.pop().unwrap();
    let waiting = tokio::spawn(async move { until(&mut last, |found| !found.is_empty()).await });
    let others = tokio::spawn(join_all(watches.into_iter().map(|mut watch| async move {
        // None of them may fail.
        until(&mut watch, |found| !found.is_empty()).await
    })));
    register(
        &provider,
        ServiceRegistration::new("web-39", 80).unwrap().id("late"),
    )
    .await;
    assert_eq!(waiting.await.unwrap()[0].id().as_str(), "late");
    assert!(!others.is_finished(), "a watch failed");
    others.abort();
}

#[tokio::test]
async fn a_program_that_is_restarted_again_and_again_is_not_locked_out() {
    // Consul counts the connection of a blocking query until its wait is over, even if its client has gone.
    let consul = Consul::with(json!({"limits": {"http_max_conns_per_client": 100}})).await;
    for _ in 0..6 {
        let provider = provider_at(&consul, ConsulProvider::builder().connections(20));
        let names = (0..25).map(|n| ServiceName::new(&format!("web-{n}")).unwrap());
        join_all(names.map(|name| {
            let mut watch = provider.watch(&name);
            // The first answer, and one after a wait.
            async move {
                for _ in 0..2 {
                    assert!(next(&mut watch).await.unwrap().is_empty());
                }
                watch
            }
        }))
        .await;
    }
}

#[tokio::test]
async fn instances_that_a_restored_snapshot_lacks_are_not_taken_for_deregistered() {
    let consul = Consul::start().await;
    let url = consul.url("/v1/snapshot");
    let snapshot = http_client().get(&url).send().await.unwrap();
    let snapshot = snapshot.bytes().await.unwrap();
    // An instance of another node, which the agent doesn't add again.
    let service = json!({"ID": "web-1", "Service": "web", "Port": 80});
    let service = json!({"Node": "other", "Address": "127.0.0.1", "Service": service});
    consul.put("/v1/catalog/register", &service).await;
    let provider = provider_at(&consul, ConsulProvider::builder());
    let mut watch = provider.watch(&web());
    until(&mut watch, |found| found.len() == 1).await;
    let restored = http_client().put(&url).body(snapshot).send().await.unwrap();
    restored.error_for_status().unwrap();
    let error = loop {
        match next(&mut watch).await {
            Ok(found) => assert_eq!(found.len(), 1),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ProviderErrorKind::Unconfirmed, "{error}");
    assert!(
        error.to_string().contains("restored from an older state"),
        "{error}"
    );
}

#[tokio::test]
async fn names_that_are_not_valid_are_known_with_the_reason() {
    for server in Server::start_each().await {
        let provider = server.provider();
        assert_eq!(provider.ignored_names(), []);
        for name in ["team/users", "my service", "web"] {
            let service = json!({"ID": name, "Name": name, "Port": 80});
            let url = server.url("/v1/agent/service/register");
            let request = http_client().put(url).json(&service);
            request.send().await.unwrap().error_for_status().unwrap();
        }
        let mut names = provider.watch_names();
        while !names.next().await.unwrap().unwrap().contains("web") {}
        let ignored = provider.ignored_names();
        let ignored: Vec<_> = ignored.iter().map(ToString::to_string).collect();
        assert_eq!(ignored.len(), 2, "{ignored:?}");
        assert!(ignored[0].starts_with("service name \"my service\" is not valid: ' ' "));
        assert!(ignored[1].starts_with("service name \"team/users\" is not valid: '/' "));
        let layered = LayeredProvider::new(LayerPolicy::FirstKnown)
            .layer(MemoryProvider::new())
            .layer(provider);
        assert_eq!(layered.ignored_names().len(), 2);
    }
}
