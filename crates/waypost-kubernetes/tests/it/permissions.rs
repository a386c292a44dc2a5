//! Discovery with missing permissions, and what the error says about them.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;
use waypost_core::provider::{Provider, ServiceAnswer};
use waypost_core::{Error, ProviderError, ProviderErrorKind};
use waypost_fake_kubernetes::ApiServer;
use waypost_kubernetes::KubernetesProvider;

use crate::{TIMEOUT, WEB_URL, next, put_web, start_server_with_web, until_only, watch_web};

/// A user without any permission.
const USER: &str = "system:serviceaccount:demo:shop";

const LIST_AND_WATCH: &[&str] = &["list", "watch"];

/// A provider with the permissions of the user.
fn provider(server: &ApiServer) -> KubernetesProvider {
    server.add_user(USER);
    let kubeconfig = server.kubeconfig_of(USER).unwrap();
    let builder = KubernetesProvider::builder().kubeconfig(kubeconfig);
    builder.namespace("demo").build().unwrap()
}

/// Grants the user these verbs on EndpointSlices and on Services.
fn grant(server: &ApiServer, slices: &[&str], services: &[&str]) {
    let rules = json!([
        { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": slices },
        { "apiGroups": [""], "resources": ["services"], "verbs": services },
    ]);
    server.grant(USER, "demo", &rules);
}

/// The YAML documents in an error.
pub(crate) fn advised_documents(error: ProviderError) -> Vec<Value> {
    let error = Error::from(error);
    assert!(matches!(error, Error::NotAuthorised { .. }), "{error:?}");
    let text = error.to_string();
    let (_, yaml) = text.split_once("kubectl apply -f:\n").expect(&text);
    serde_saphyr::from_multiple(yaml).unwrap()
}

#[tokio::test]
async fn each_missing_permission_degrades_answers_as_little_as_possible() {
    let by_dns = "http://web.demo.svc.cluster.local:80";
    for (slices, services, url, degraded) in [
        (LIST_AND_WATCH, LIST_AND_WATCH, WEB_URL, ""),
        (
            LIST_AND_WATCH,
            &[][..],
            WEB_URL,
            "no permission to read the Service",
        ),
        (
            &[],
            LIST_AND_WATCH,
            by_dns,
            "no permission to read EndpointSlices; this is the Service's cluster DNS name",
        ),
        (&["watch"], &["watch"], WEB_URL, ""),
    ] {
        let server = start_server_with_web().await;
        let provider = provider(&server);
        grant(&server, slices, services);
        let instance = until_only(&mut watch_web(&provider), url).await;
        let note = instance.meta("degraded").unwrap_or_default();
        assert_eq!(note, degraded, "{slices:?} {services:?}");
    }
}

#[tokio::test]
async fn names_come_from_slices_if_services_may_not_be_read() {
    let server = start_server_with_web().await;
    let provider = provider(&server);
    grant(&server, LIST_AND_WATCH, &[]);
    let names = timeout(TIMEOUT, provider.watch_names().next()).await;
    let names = names.unwrap().unwrap().unwrap();
    let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
    assert_eq!(names, ["web"]);
}

#[tokio::test]
async fn an_error_names_user_and_permission_and_retries_become_rarer() {
    let server = start_server_with_web().await;
    let provider = provider(&server);
    let mut watch = watch_web(&provider);
    let error = next(&mut watch).await.unwrap_err();
    assert_eq!(error.kind(), ProviderErrorKind::NotAuthorised);
    for part in [
        "403",
        USER,
        "endpointslices",
        "discovery.k8s.io",
        "\"demo\"",
    ] {
        assert!(error.message().contains(part), "{error}");
    }
    let only_errors = async { while next(&mut watch).await.is_err() {} };
    let found = timeout(Duration::from_secs(4), only_errors).await;
    assert!(found.is_err(), "an answer without permissions");
    let requests = server.requests();
    let requests = requests.iter().filter(|r| r.resource == "endpointslices");
    let requests = requests.count();
    assert!((3..=16).contains(&requests), "{requests} requests in 4 s");
    grant(&server, LIST_AND_WATCH, LIST_AND_WATCH);
    // The pause may have grown to 6 s by now.
    until_only(&mut watch, WEB_URL).await;
    put_web(&server, "10.0.0.2");
    until_only(&mut watch, "http://10.0.0.2:8080").await;
}

#[tokio::test]
async fn applying_the_advised_role_is_enough_to_recover() {
    let server = start_server_with_web().await;
    let provider = provider(&server);
    let mut watch = watch_web(&provider);
    let documents = advised_documents(next(&mut watch).await.unwrap_err());
    for _ in 0..3 {
        let again = advised_documents(next(&mut watch).await.unwrap_err());
        assert_eq!(again, documents);
    }
    for document in &documents {
        server.put(document);
    }
    until_only(&mut watch, WEB_URL).await;
}

#[tokio::test]
async fn applying_the_advice_for_one_account_leaves_the_rights_of_others() {
    let server = start_server_with_web().await;
    let other = "system:serviceaccount:demo:other";
    let kubeconfig = {
        server.add_user(other);
        server.kubeconfig_of(other).unwrap()
    };
    let other = KubernetesProvider::builder().kubeconfig(kubeconfig);
    let other = other.namespace("demo").build().unwrap();
    for provider in [other.clone(), provider(&server)] {
        let mut watch = watch_web(&provider);
        for document in advised_documents(next(&mut watch).await.unwrap_err()) {
            server.put(&document);
        }
        until_only(&mut watch, WEB_URL).await;
    }
    until_only(&mut watch_web(&other), WEB_URL).await;
}

#[tokio::test]
async fn list_without_watch_gives_an_answer_with_an_error_that_advises_to_grant_watch() {
    let server = start_server_with_web().await;
    let provider = provider(&server);
    grant(&server, &["list"], &["list"]);
    let mut watch = watch_web(&provider);
    until_only(&mut watch, WEB_URL).await;
    let error = loop {
        match next(&mut watch).await {
            Ok(ServiceAnswer::Instances(instances)) => assert_eq!(instances.len(), 1),
            Ok(ServiceAnswer::Unknown) => panic!("the service is known"),
            Err(error) => break error,
        }
    };
    let missing = "in namespace demo: watch services, watch endpointslices;";
    assert!(error.message().contains(missing), "{error}");
    for document in &advised_documents(error) {
        server.put(document);
    }
    put_web(&server, "10.0.0.2");
    until_only(&mut watch, "http://10.0.0.2:8080").await;
}

#[tokio::test]
async fn without_permission_to_watch_slices_they_are_listed_again_with_each_attempt() {
    let server = start_server_with_web().await;
    let provider = provider(&server);
    grant(&server, &["list"], LIST_AND_WATCH);
    let mut watch = watch_web(&provider);
    until_only(&mut watch, WEB_URL).await;
    let error = next(&mut watch).await.unwrap_err();
    assert!(error.message().contains("cannot watch"), "{error}");
    put_web(&server, "10.0.0.2");
    until_only(&mut watch, "http://10.0.0.2:8080").await;
    assert!(next(&mut watch).await.is_err());
}

#[tokio::test]
async fn access_denied_in_one_namespace_does_not_affect_others() {
    let server = start_server_with_web().await;
    let provider = provider(&server);
    grant(&server, LIST_AND_WATCH, LIST_AND_WATCH);
    let mut denied = provider.watch(&"web.kube-system".parse().unwrap());
    let mut watch = watch_web(&provider);
    until_only(&mut watch, WEB_URL).await;
    let error = next(&mut denied).await.unwrap_err();
    assert!(error.message().contains("\"kube-system\""), "{error}");
    put_web(&server, "10.0.0.2");
    until_only(&mut watch, "http://10.0.0.2:8080").await;
}

#[tokio::test]
async fn revoked_permissions_are_reported_without_a_new_answer() {
    let server = start_server_with_web().await;
    let provider = provider(&server);
    grant(&server, LIST_AND_WATCH, LIST_AND_WATCH);
    let mut watch = watch_web(&provider);
    until_only(&mut watch, WEB_URL).await;
    server.revoke(USER, "demo");
    // An open watch continues; the next request is denied.
    server.kill().await;
    server.restart().await.unwrap();
    let denied = async {
        loop {
            let error = next(&mut watch)
                .await
                .expect_err("only errors are expected");
            if error.kind() == ProviderErrorKind::NotAuthorised {
                return error;
            }
        }
    };
    let error = timeout(TIMEOUT, denied).await.unwrap();
    assert!(error.message().contains("cannot"), "{error}");
}
