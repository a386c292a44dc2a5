//! Which credentials the provider sends to the API server, and when it reads them again.

use std::fs;
use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use serde_json::{Value, json};
use waypost_core::provider::Provider;
use waypost_core::{Environment, ProviderErrorKind};
use waypost_fake_kubernetes::{ApiServer, manifest};
use waypost_kubernetes::KubernetesProvider;

use crate::{WEB_URL, next, put_web, start_server_with_web, until_only, watch_web};

/// Writes a kubeconfig for the server with these credentials, next to its CA certificate.
fn write_kubeconfig(server: &ApiServer, directory: &Path, user: Value) -> PathBuf {
    fs::write(directory.join("ca.crt"), server.ca_pem()).unwrap();
    let content = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": {
            "server": server.url(), "certificate-authority": "ca.crt",
        } }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u", "namespace": "demo" } }],
        "users": [{ "name": "u", "user": user }],
    });
    let path = directory.join("config");
    fs::write(&path, content.to_string()).unwrap();
    path
}

/// The token of a user who may find services.
fn add_reader(server: &ApiServer) -> String {
    let token = server.add_user("reader");
    server.grant("reader", "demo", &manifest::read_rules(&["list", "watch"]));
    token
}

fn provider(kubeconfig: &Path) -> KubernetesProvider {
    let builder = KubernetesProvider::builder().kubeconfig(kubeconfig);
    builder.namespace("demo").build().unwrap()
}

#[tokio::test]
async fn a_token_file_may_end_with_a_newline_and_a_rotated_token_is_used_at_once() {
    let server = start_server_with_web().await;
    let first = add_reader(&server);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, format!("{first}\n")).unwrap();
    let path = write_kubeconfig(&server, directory.path(), json!({ "tokenFile": "token" }));
    let mut watch = watch_web(&provider(&path));
    until_only(&mut watch, WEB_URL).await;

    let second = server.add_token("reader");
    server.revoke_token(&first);
    fs::write(&file, format!("{second}\n")).unwrap();
    server.forget_requests();
    until_only(&mut watch_web(&provider(&path)), WEB_URL).await;
    server.kill().await;
    server.restart().await.unwrap();
    put_web(&server, "10.0.0.2");
    until_only(&mut watch, "http://10.0.0.2:8080").await;
    let requests = server.requests();
    let unauthorized = requests.iter().filter(|request| request.code == Some(401));
    assert_eq!(unauthorized.count(), 0);
}

#[tokio::test]
async fn the_error_for_a_wrong_token_names_its_file_which_is_read_again_when_it_changes() {
    let server = start_server_with_web().await;
    let directory = tempfile::tempdir().unwrap();
    let path = write_kubeconfig(&server, directory.path(), json!({ "token": "wrong" }));
    let mut watch = watch_web(&provider(&path));
    let error = next(&mut watch).await.unwrap_err();
    assert_eq!(error.kind(), ProviderErrorKind::NotAuthorised);
    let file = path.display().to_string();
    assert!(error.message().contains(&file), "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");
    let token = add_reader(&server);
    write_kubeconfig(&server, directory.path(), json!({ "token": token }));
    until_only(&mut watch, WEB_URL).await;
}

#[tokio::test]
async fn client_certificates_are_accepted() {
    let server = start_server_with_web().await;
    let path = server.kubeconfig_of("admin-certificate").unwrap();
    until_only(&mut watch_web(&provider(&path)), WEB_URL).await;
}

/// A user whose credentials a shell script prints.
fn plugin_user(script: &str) -> Value {
    json!({ "exec": {
        "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never",
        "command": "sh", "args": ["-c", script],
    } })
}

#[tokio::test]
async fn a_credential_plugin_runs_once_for_all_requests_even_if_its_clock_differs() {
    let server = start_server_with_web().await;
    let directory = tempfile::tempdir().unwrap();
    let runs = directory.path().join("runs");
    let script = |expiry: &str| {
        let credential = json!({
            "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
            "status": { "token": add_reader(&server), "expirationTimestamp": expiry },
        });
        format!("echo run >> '{}'; echo '{credential}'", runs.display())
    };
    // According to this machine's clock, the second one has already expired.
    for (run, expiry) in ["2999-01-01T00:00:00Z", "2001-01-01T00:00:00Z"]
        .into_iter()
        .enumerate()
    {
        let user = plugin_user(&script(expiry));
        let path = write_kubeconfig(&server, directory.path(), user);
        let provider = provider(&path);
        until_only(&mut watch_web(&provider), WEB_URL).await;
        let names = provider.watch_names().next().await;
        assert_eq!(names.unwrap().unwrap().len(), 1);
        let runs = fs::read_to_string(&runs).unwrap();
        assert_eq!(runs.lines().count(), run + 1, "{expiry}");
    }
}

#[tokio::test]
async fn the_error_of_a_credential_plugin_says_what_is_wrong_with_it() {
    let server = start_server_with_web().await;
    let directory = tempfile::tempdir().unwrap();
    let mut missing = plugin_user("");
    missing["exec"]["command"] = "no-such-plugin".into();
    missing["exec"]["installHint"] = "get it from example.com".into();
    for (user, expected) in [
        (
            missing,
            r#"plugin "no-such-plugin" is not installed: get it from example.com"#,
        ),
        (
            plugin_user("echo please log in >&2; exit 3"),
            r#"plugin "sh" failed (exit status: 3): please log in"#,
        ),
        (
            plugin_user("echo secret"),
            r#"plugin "sh" printed no ExecCredential"#,
        ),
        (
            plugin_user("exec tail -f /dev/null"),
            r#"plugin "sh" has not finished in 4s"#,
        ),
    ] {
        let path = write_kubeconfig(&server, directory.path(), user);
        let error = next(&mut watch_web(&provider(&path))).await.unwrap_err();
        assert!(error.message().contains(expected), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn a_credential_plugin_may_print_a_client_certificate() {
    let server = start_server_with_web().await;
    let kubeconfig = server.kubeconfig_of("admin-certificate").unwrap();
    let kubeconfig: Value =
        serde_saphyr::from_str(&fs::read_to_string(kubeconfig).unwrap()).unwrap();
    let user = &kubeconfig["users"][0]["user"];
    let pem = |key: &str| {
        let data = data_encoding::BASE64.decode(user[key].as_str().unwrap().as_bytes());
        String::from_utf8(data.unwrap()).unwrap()
    };
    let credential = json!({
        "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
        "status": {
            "clientCertificateData": pem("client-certificate-data"),
            "clientKeyData": pem("client-key-data"),
        },
    });
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("credential");
    fs::write(&file, credential.to_string()).unwrap();
    let user = plugin_user(&format!("cat '{}'", file.display()));
    let path = write_kubeconfig(&server, directory.path(), user);
    until_only(&mut watch_web(&provider(&path)), WEB_URL).await;
}

#[tokio::test]
async fn a_replaced_ca_certificate_is_read_again() {
    let (other_server, server) = (start_server_with_web().await, start_server_with_web().await);
    let directory = tempfile::tempdir().unwrap();
    let token = add_reader(&server);
    let path = write_kubeconfig(&server, directory.path(), json!({ "token": token }));
    fs::write(directory.path().join("ca.crt"), other_server.ca_pem()).unwrap();
    let mut watch = watch_web(&provider(&path));
    let error = next(&mut watch).await.unwrap_err();
    assert_eq!(error.kind(), ProviderErrorKind::Unreachable, "{error}");
    let expected = format!(
        "not trusted by {}",
        directory.path().join("ca.crt").display()
    );
    assert!(error.to_string().contains(&expected), "{error}");

    fs::write(directory.path().join("ca.crt"), server.ca_pem()).unwrap();
    until_only(&mut watch, WEB_URL).await;
}

#[tokio::test]
async fn a_pod_uses_its_service_account() {
    let server = start_server_with_web().await;
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    for (file, content) in [
        ("token", add_reader(&server)),
        ("ca.crt", server.ca_pem().to_owned()),
        ("namespace", "demo\n".to_owned()),
    ] {
        fs::write(directory.join(file), content).unwrap();
    }
    let address = server.address();
    let environment = Environment::from_iter([
        ("KUBERNETES_SERVICE_HOST", address.ip().to_string()),
        ("KUBERNETES_SERVICE_PORT", address.port().to_string()),
        (
            "WAYPOST_SERVICE_ACCOUNT_DIR",
            directory.display().to_string(),
        ),
    ]);
    let provider = KubernetesProvider::from_environment(&environment).unwrap();
    until_only(&mut watch_web(&provider), WEB_URL).await;
}

#[test]
fn an_invalid_configuration_is_an_error_that_says_where_and_what_would_be_valid() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config");
    let path = file.display().to_string();
    let environment = |variables: &[(&str, &str)]| {
        let kubeconfig = ("KUBECONFIG", &*path);
        Environment::from_iter([kubeconfig].into_iter().chain(variables.iter().copied()))
    };
    let valid = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "a",
        "clusters": [{ "name": "c", "cluster": { "server": "https://127.0.0.1:1" } }],
        "contexts": [{ "name": "a", "context": { "cluster": "c" } },
                     { "name": "b", "context": { "cluster": "nowhere" } }],
    });
    let mut without_current = valid.clone();
    without_current["current-context"] = "".into();
    for (content, environment, place, hint) in [
        (None, environment(&[]), "KUBECONFIG", "no such file"),
        (
            Some(json!("text")),
            environment(&[]),
            &path,
            "not a kubeconfig",
        ),
        (
            Some(without_current),
            environment(&[]),
            &path,
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
            &path,
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
    ] {
        let _ = fs::remove_file(&file);
        if let Some(content) = content {
            fs::write(&file, content.to_string()).unwrap();
        }
        let error = KubernetesProvider::from_environment(&environment).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains(place) && error.contains(hint),
            "{place}, {hint}: {error}"
        );
    }
}
