//! As whom the provider asks a cluster, and what it makes of rights that it lacks.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;
use waypost::directory::Directory;
use waypost::provider::kubernetes::KubernetesProvider;
use waypost::provider::{Answer, Provider, Watch};
use waypost::settings::Settings;
use waypost::{Environment, ProviderErrorKind};
use waypost_fake_kubernetes::{ApiServer, manifest};

use super::{PATIENCE, demo, next};

/// A server with one service of one instance.
async fn server() -> ApiServer {
    let server = demo().await;
    server.put(&manifest::service("demo", "web", &[("http", 80)]));
    put_slice(&server, "10.0.0.1");
    server
}

fn put_slice(server: &ApiServer, address: &str) {
    let endpoint = [manifest::endpoint(address)];
    server.put(&manifest::slice(
        "demo",
        "web",
        "web-1",
        &[("http", 8080)],
        endpoint,
    ));
}

/// A provider that asks as a user with these rights on EndpointSlices and on Services.
fn user(server: &ApiServer, slices: &[&str], services: &[&str]) -> KubernetesProvider {
    server.add_user("reader");
    grant(server, slices, services);
    let kubeconfig = server.kubeconfig_of("reader").unwrap();
    provider_of(&kubeconfig)
}

fn grant(server: &ApiServer, slices: &[&str], services: &[&str]) {
    let rules = json!([
        { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": slices },
        { "apiGroups": [""], "resources": ["services"], "verbs": services },
    ]);
    server.grant("reader", "demo", &rules);
}

fn provider_of(kubeconfig: &Path) -> KubernetesProvider {
    let builder = KubernetesProvider::builder().kubeconfig(kubeconfig);
    builder.namespace("demo").build().unwrap()
}

fn watch(provider: &KubernetesProvider) -> Watch {
    provider.watch(&"web".parse().unwrap())
}

/// Follows a watch, through failures, until it tells this one URL; gives its note of what is
/// lacking.
async fn until(watch: &mut Watch, url: &str) -> Option<String> {
    let following = async {
        loop {
            let Some(Ok(Answer::Instances(instances))) = watch.next().await else {
                continue;
            };
            if let [only] = &instances[..]
                && only.url() == url
            {
                return only.meta("degraded").map(str::to_owned);
            }
        }
    };
    let told = timeout(PATIENCE, following).await;
    told.unwrap_or_else(|_| panic!("{url} is never told"))
}

const BOTH: &[&str] = &["list", "watch"];
const WEB: &str = "http://10.0.0.1:8080";

#[tokio::test]
async fn each_right_that_is_missing_costs_as_little_as_it_can() {
    let by_dns = "http://web.demo.svc.cluster.local:80";
    for (slices, services, url, lack) in [
        (BOTH, BOTH, WEB, None),
        (
            BOTH,
            &[][..],
            WEB,
            Some("no permission to read the Service"),
        ),
        (
            &[],
            BOTH,
            by_dns,
            Some("no permission to read EndpointSlices"),
        ),
        (&["watch"], &["watch"], WEB, None),
    ] {
        let server = server().await;
        let provider = user(&server, slices, services);
        let note = until(&mut watch(&provider), url).await;
        let as_expected = match (&note, lack) {
            (Some(note), Some(lack)) => note.starts_with(lack),
            (note, lack) => note.as_deref() == lack,
        };
        assert!(as_expected, "{slices:?} {services:?}: {note:?}");
    }
}

#[tokio::test]
async fn names_come_from_the_slices_where_services_may_not_be_read() {
    let server = server().await;
    let provider = user(&server, BOTH, &[]);
    let mut names = provider.watch_names();
    let names = timeout(PATIENCE, names.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(
        names.iter().map(|name| name.as_str()).eq(["web"]),
        "{names:?}"
    );
}

#[tokio::test]
async fn a_refusal_says_who_may_not_do_what_and_a_right_granted_later_is_noticed() {
    let server = server().await;
    let provider = user(&server, &[], &[]);
    let mut web = watch(&provider);
    let error = next(&mut web).await.unwrap_err();
    assert_eq!(error.kind(), ProviderErrorKind::NotAuthorised);
    for part in [
        "403",
        "reader",
        "endpointslices",
        "discovery.k8s.io",
        "\"demo\"",
    ] {
        assert!(error.message().contains(part), "{error}");
    }
    // Each attempt is one request, and they become fewer.
    let failures = timeout(Duration::from_secs(4), async {
        let mut failures = 1;
        while web.next().await.is_some_and(|item| item.is_err()) {
            failures += 1;
        }
        failures
    });
    assert!(failures.await.is_err(), "it goes on failing");
    let asked = server.requests();
    let asked = asked
        .iter()
        .filter(|request| request.resource == "endpointslices");
    let asked = asked.count();
    assert!((3..=16).contains(&asked), "{asked} requests in 4 s");
    grant(&server, BOTH, BOTH);
    // The pause may have grown to 6 s by now.
    until(&mut web, WEB).await;
    put_slice(&server, "10.0.0.2");
    until(&mut web, "http://10.0.0.2:8080").await;
}

#[tokio::test]
async fn a_list_without_a_watch_is_served_and_said_to_be_stale() {
    let server = server().await;
    let provider = user(&server, &["list"], BOTH);
    let mut web = watch(&provider);
    until(&mut web, WEB).await;
    let error = next(&mut web).await.unwrap_err();
    assert!(error.message().contains("cannot watch"), "{error}");
    // Whoever asks once hears so, too.
    let directory = Directory::new(Arc::new(user(&server, &["list"], BOTH)));
    let once = directory.lookup(&"web".parse().unwrap()).await.unwrap();
    assert!(once.freshness().is_stale() && once.instances().len() == 1);
    // It is read again with each attempt.
    put_slice(&server, "10.0.0.2");
    until(&mut web, "http://10.0.0.2:8080").await;
    assert!(next(&mut web).await.is_err());
}

#[tokio::test]
async fn a_namespace_that_refuses_us_stops_no_other() {
    let server = server().await;
    let provider = user(&server, BOTH, BOTH);
    let mut refused = provider.watch(&"web.kube-system".parse().unwrap());
    let mut web = watch(&provider);
    until(&mut web, WEB).await;
    let error = next(&mut refused).await.unwrap_err();
    assert!(error.message().contains("\"kube-system\""), "{error}");
    put_slice(&server, "10.0.0.2");
    until(&mut web, "http://10.0.0.2:8080").await;
}

#[tokio::test]
async fn rights_that_are_taken_back_leave_what_is_known() {
    let server = server().await;
    let provider = user(&server, BOTH, BOTH);
    let mut web = watch(&provider);
    until(&mut web, WEB).await;
    server.revoke("reader", "demo");
    // An open watch goes on; the next request is refused.
    server.kill().await;
    server.restart().await.unwrap();
    let error = async {
        loop {
            let error = next(&mut web).await.expect_err("only failures are told");
            if error.kind() == ProviderErrorKind::NotAuthorised {
                return error;
            }
        }
    };
    let error = timeout(PATIENCE, error).await.unwrap();
    assert!(error.message().contains("cannot"), "{error}");
}

// === as whom ===

/// A kubeconfig for the server with these lines about the user.
fn kubeconfig(server: &ApiServer, folder: &Path, user: Value) -> std::path::PathBuf {
    fs::write(folder.join("ca.crt"), server.ca_pem()).unwrap();
    let content = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": {
            "server": server.url(), "certificate-authority": "ca.crt",
        } }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u", "namespace": "demo" } }],
        "users": [{ "name": "u", "user": user }],
    });
    let path = folder.join("config");
    fs::write(&path, content.to_string()).unwrap();
    path
}

fn reader_token(server: &ApiServer) -> String {
    let token = server.add_user("reader");
    grant(server, BOTH, BOTH);
    token
}

#[tokio::test]
async fn a_token_file_may_end_with_a_newline_and_is_read_again_as_soon_as_it_is_refused() {
    let server = server().await;
    let first = reader_token(&server);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, format!("{first}\n")).unwrap();
    let path = kubeconfig(&server, folder.path(), json!({ "tokenFile": "token" }));
    let provider = provider_of(&path);
    let mut web = watch(&provider);
    until(&mut web, WEB).await;

    let second = server.add_token("reader");
    server.revoke_token(&first);
    fs::write(&file, format!("{second}\n")).unwrap();
    server.forget_requests();
    let mut other = provider_of(&path).watch(&"web".parse().unwrap());
    until(&mut other, WEB).await;
    server.kill().await;
    server.restart().await.unwrap();
    put_slice(&server, "10.0.0.2");
    until(&mut web, "http://10.0.0.2:8080").await;
    let refused = server.requests();
    let refused = refused.iter().filter(|request| request.code == Some(401));
    assert_eq!(refused.count(), 0);
}

#[tokio::test]
async fn a_wrong_token_is_said_to_be_so_with_where_it_comes_from() {
    let server = server().await;
    let folder = tempfile::tempdir().unwrap();
    let path = kubeconfig(&server, folder.path(), json!({ "token": "wrong" }));
    let provider = provider_of(&path);
    let mut web = watch(&provider);
    let error = next(&mut web).await.unwrap_err();
    assert_eq!(error.kind(), ProviderErrorKind::NotAuthorised);
    let file = path.display().to_string();
    assert!(error.message().contains(&file), "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");
    // The file is read again when it has changed.
    let token = reader_token(&server);
    kubeconfig(&server, folder.path(), json!({ "token": token }));
    until(&mut web, WEB).await;
}

#[tokio::test]
async fn a_certificate_and_a_credential_plugin_log_in() {
    let server = server().await;
    let context = server.kubeconfig_of("admin-certificate").unwrap();
    until(&mut watch(&provider_of(&context)), WEB).await;

    let folder = tempfile::tempdir().unwrap();
    let token = reader_token(&server);
    let credential = json!({
        "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
        "status": { "token": token },
    });
    fs::write(folder.path().join("credential"), credential.to_string()).unwrap();
    let credential = folder.path().join("credential");
    let plugin = json!({ "exec": {
        "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never",
        "command": "cat", "args": [credential],
    } });
    let path = kubeconfig(&server, folder.path(), plugin);
    until(&mut watch(&provider_of(&path)), WEB).await;
}

#[tokio::test]
async fn a_certificate_that_was_replaced_is_read_again() {
    let (stranger, server) = (server().await, server().await);
    let folder = tempfile::tempdir().unwrap();
    let token = reader_token(&server);
    let path = kubeconfig(&server, folder.path(), json!({ "token": token }));
    fs::write(folder.path().join("ca.crt"), stranger.ca_pem()).unwrap();
    let mut web = watch(&provider_of(&path));
    let error = next(&mut web).await.unwrap_err();
    assert_eq!(error.kind(), ProviderErrorKind::Unreachable, "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");

    fs::write(folder.path().join("ca.crt"), server.ca_pem()).unwrap();
    until(&mut web, WEB).await;
}

#[tokio::test]
async fn a_pod_finds_its_server_token_and_namespace_by_itself() {
    let server = server().await;
    let folder = tempfile::tempdir().unwrap();
    let write = |file: &str, content: String| fs::write(folder.path().join(file), content).unwrap();
    write("token", reader_token(&server));
    write("ca.crt", server.ca_pem());
    write("namespace", "demo\n".into());
    let environment = Environment::from_iter([
        ("KUBERNETES_SERVICE_HOST", server.address().ip().to_string()),
        (
            "KUBERNETES_SERVICE_PORT",
            server.address().port().to_string(),
        ),
        (
            "WAYPOST_SERVICE_ACCOUNT_DIR",
            folder.path().display().to_string(),
        ),
    ]);
    let settings = Settings::new(environment).unwrap();
    assert_eq!(settings.kind().as_str(), "kubernetes");
    let provider = settings.provider().unwrap();
    until(&mut provider.watch(&"web".parse().unwrap()), WEB).await;
}

#[tokio::test]
async fn a_bad_configuration_is_refused_with_its_place_and_what_would_be_right() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    let shown = file.display().to_string();
    let environment = |more: &[(&str, &str)]| {
        let pairs = [("KUBECONFIG", &*shown)]
            .into_iter()
            .chain(more.iter().copied());
        pairs.collect::<Environment>()
    };
    let valid = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "a",
        "clusters": [{ "name": "c", "cluster": { "server": "https://127.0.0.1:1" } }],
        "contexts": [{ "name": "a", "context": { "cluster": "c" } },
                     { "name": "b", "context": { "cluster": "nowhere" } }],
    });
    let mut without_current = valid.clone();
    without_current["current-context"] = "".into();
    let cases = [
        (None, environment(&[]), "KUBECONFIG", "no such file"),
        (
            Some(json!("text")),
            environment(&[]),
            &shown,
            "not a kubeconfig",
        ),
        (
            Some(without_current),
            environment(&[]),
            &shown,
            "KUBERNETES_CONTEXT to one of: a, b",
        ),
        (
            Some(valid.clone()),
            environment(&[("KUBERNETES_CONTEXT", "z")]),
            "KUBERNETES_CONTEXT",
            "it has: a, b",
        ),
        (
            Some(valid.clone()),
            environment(&[("KUBERNETES_CONTEXT", "b")]),
            &shown,
            "nowhere",
        ),
        (
            Some(valid),
            environment(&[("KUBERNETES_NAMESPACE", "No_Such")]),
            "KUBERNETES_NAMESPACE",
            "a-z",
        ),
        (None, Environment::default(), "KUBECONFIG", "is not set"),
        (
            None,
            Environment::from_iter([
                ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
                ("KUBERNETES_SERVICE_PORT", "http"),
            ]),
            "KUBERNETES_SERVICE_PORT",
            "from 1 to 65535",
        ),
    ];
    for (content, environment, place, hint) in cases {
        let _ = fs::remove_file(&file);
        if let Some(content) = content {
            fs::write(&file, content.to_string()).unwrap();
        }
        let error = KubernetesProvider::from_environment(&environment)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(place) && error.contains(hint),
            "{place}, {hint}: {error}"
        );
    }
}
