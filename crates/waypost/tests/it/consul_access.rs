//! Tokens and certificates against a real Consul: each way works, and each fails with the right
//! error, and no log ever shows a token.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::{sleep, timeout};
use waypost::directory::Directory;
use waypost::provider::Provider;
use waypost::provider::consul::ConsulProvider;
use waypost::settings::Settings;
use waypost::{Environment, Error, Registrar, RegistrationState, ServiceRegistration};
use waypost_testkit::{Ca, Consul, ROOT_TOKEN, free_ports, http_client};

use crate::consul::web;
use crate::logs::Logs;

const RULES: &str = r#"
    service "web" { policy = "write" }
    node_prefix "" { policy = "read" }
"#;

fn with_token(consul: &Consul, token: &str) -> Arc<dyn Provider> {
    let builder = ConsulProvider::builder()
        .address(&consul.address())
        .token(token);
    Arc::new(builder.build().unwrap())
}

fn registration() -> ServiceRegistration {
    ServiceRegistration::new("web", 80).unwrap().id("web-1")
}

/// Waits until the registration has failed at least once.
async fn first_failure(registrar: &Registrar) -> String {
    let failed = async {
        loop {
            if let RegistrationState::Pending(Some(error)) = registrar.state() {
                return error.to_string();
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(60), failed).await.unwrap()
}

#[tokio::test]
async fn tokens_do_what_their_policy_says_and_never_show() {
    let (logs, _guard) = Logs::take();
    let consul = Consul::with_acl().await;
    let writer = consul.create_token("writer", RULES).await;
    let blind = consul.create_token("blind", "").await;
    let nodeless = consul
        .create_token("nodeless", r#"service "web" { policy = "read" }"#)
        .await;

    // The least that is needed is enough.
    let provider = with_token(&consul, &writer);
    let registrar = Registrar::start(Arc::clone(&provider), registration()).unwrap();
    timeout(Duration::from_secs(60), registrar.registered())
        .await
        .unwrap();
    let found = Directory::new(Arc::clone(&provider))
        .lookup(&web())
        .await
        .unwrap();
    assert_eq!(found.usable().unwrap().len(), 1);

    // Less is not, and the error says what is missing. Consul itself answers an empty list here.
    for (token, missing) in [
        (&blind, r#"service "web" { policy = "read" }"#),
        (&nodeless, r#"node_prefix "" { policy = "read" }"#),
    ] {
        let error = Directory::new(with_token(&consul, token))
            .lookup(&web())
            .await
            .unwrap_err();
        assert!(matches!(error, Error::NotAuthorised { .. }), "{error:?}");
        assert!(error.to_string().contains(missing), "{error}");
    }
    let refused = Registrar::start(with_token(&consul, &blind), registration()).unwrap();
    let error = first_failure(&refused).await;
    assert!(
        error.contains(r#"service "web" { policy = "write" }"#),
        "{error}"
    );
    refused.abandon();

    // One that nobody knows.
    let unknown = "11111111-2222-3333-4444-555555555555";
    let error = Directory::new(with_token(&consul, unknown))
        .lookup(&web())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NotAuthorised { .. }), "{error:?}");
    assert!(
        error.to_string().contains("doesn't know the token"),
        "{error}"
    );
    let debug = format!("{provider:?} {error:?} {registrar:?}");

    registrar.deregister().await.unwrap();
    let text = logs.text() + &debug;
    for secret in [&writer, &blind, &nodeless, unknown, ROOT_TOKEN] {
        // The test itself speaks to Consul with the root token, on the same thread.
        assert!(!text.contains(secret), "a token in: {text}");
    }
}

#[tokio::test]
async fn a_token_is_rotated_by_replacing_its_file() {
    let (logs, _guard) = Logs::take();
    let consul = Consul::with_acl().await;
    let first = consul.create_token("first", RULES).await;
    let second = consul.create_token("second", RULES).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, &first).unwrap();
    let environment = Environment::from_iter([
        ("CONSUL_HTTP_ADDR", consul.address()),
        ("CONSUL_HTTP_TOKEN_FILE", file.display().to_string()),
    ]);
    let provider = Settings::new(environment).unwrap().provider().unwrap();
    let registrar = Registrar::start(Arc::clone(&provider), registration()).unwrap();
    timeout(Duration::from_secs(60), registrar.registered())
        .await
        .unwrap();
    let directory = Directory::new(Arc::clone(&provider));
    directory.lookup(&web()).await.unwrap().usable().unwrap();

    // The old one is revoked, the new one is put in its place.
    std::fs::write(&file, &second).unwrap();
    let accessor = consul_self(&consul, &first).await;
    let client = http_client();
    let gone = client
        .delete(consul.url(&format!("/v1/acl/token/{accessor}")))
        .header("x-consul-token", ROOT_TOKEN);
    assert!(gone.send().await.unwrap().status().is_success());

    let fresh = Directory::new(provider).lookup(&web()).await.unwrap();
    assert_eq!(fresh.usable().unwrap().len(), 1);
    registrar.deregister().await.unwrap();
    let text = logs.text();
    assert!(
        !text.contains(&first) && !text.contains(&second),
        "a token in: {text}"
    );
}

async fn consul_self(consul: &Consul, token: &str) -> String {
    let request = http_client()
        .get(consul.url("/v1/acl/token/self"))
        .header("x-consul-token", token);
    let reply = request.send().await.unwrap().text().await.unwrap();
    let reply: serde_json::Value = serde_json::from_str(&reply).unwrap();
    reply["AccessorID"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn mutual_tls_works_and_each_missing_part_is_named() {
    let ca = Ca::new();
    let (server_cert, server_key) = ca.issue("server", &["server.dc1.consul", "127.0.0.1"]);
    let (client_cert, client_key) = ca.issue("client", &["client.example"]);
    let consul = Consul::with(json!({
        "ca_file": ca.certificate(), "cert_file": server_cert, "key_file": server_key,
        "verify_incoming_https": true,
    }))
    .await;
    let url = format!("https://{}", consul.https_address());
    let base = [
        ("CONSUL_HTTP_ADDR", consul.https_address()),
        ("CONSUL_HTTP_SSL", "true".into()),
    ];
    let path = |path: &std::path::Path| path.display().to_string();
    let certified = [
        ("CONSUL_CLIENT_CERT", path(&client_cert)),
        ("CONSUL_CLIENT_KEY", path(&client_key)),
    ];
    let trusted = [("CONSUL_CACERT", path(&ca.certificate()))];
    let look_up = async |parts: &[&[(&str, String)]]| {
        let variables = parts.iter().copied().flatten().cloned();
        let provider = ConsulProvider::from_environment(&variables.collect())?;
        assert_eq!(&*provider.describe(), format!("consul at {url}"));
        Directory::new(Arc::new(provider)).lookup(&web()).await
    };

    look_up(&[&base, &certified, &trusted]).await.unwrap();
    let by_name = [("CONSUL_TLS_SERVER_NAME", "server.dc1.consul".to_owned())];
    look_up(&[&base, &certified, &trusted, &by_name])
        .await
        .unwrap();
    let unchecked = [("CONSUL_HTTP_SSL_VERIFY", "false".to_owned())];
    look_up(&[&base, &certified, &unchecked]).await.unwrap();

    let other_name = [("CONSUL_TLS_SERVER_NAME", "other.example".to_owned())];
    for (parts, word) in [
        (
            &[&base[..], &certified, &trusted, &other_name][..],
            "other.example",
        ),
        (&[&base, &certified], "UnknownIssuer"),
        (&[&base, &trusted], "ertificate"),
        (&[&base, &trusted, &certified[..1]], "CONSUL_CLIENT_KEY"),
        (&[&base, &trusted, &certified[1..]], "CONSUL_CLIENT_CERT"),
    ] {
        let error = look_up(parts).await.unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
    }
    let nonsense = ca.directory().join("nonsense.pem");
    std::fs::write(&nonsense, "not PEM").unwrap();
    let bad = [("CONSUL_CACERT", path(&nonsense))];
    let error = look_up(&[&base, &bad]).await.unwrap_err().to_string();
    assert!(
        error.contains("nonsense.pem") && error.contains("PEM"),
        "{error}"
    );
}

#[tokio::test]
async fn an_agent_on_a_unix_socket_is_as_good_as_any() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("consul.sock");
    let both = format!("unix://{} 127.0.0.1", socket.display());
    let consul = Consul::with(json!({ "addresses": { "http": both } })).await;
    let address = format!("unix://{}", socket.display());
    let environment = Environment::from_iter([("CONSUL_HTTP_ADDR", address.as_str())]);
    let provider = Settings::new(environment).unwrap().provider().unwrap();
    assert_eq!(&*provider.describe(), format!("consul at {address}"));
    let registrar = Registrar::start(Arc::clone(&provider), registration()).unwrap();
    timeout(Duration::from_secs(60), registrar.registered())
        .await
        .unwrap();
    let found = Directory::new(provider).lookup(&web()).await.unwrap();
    assert_eq!(
        found.usable().unwrap()[0].instance().url(),
        "http://127.0.0.1:80"
    );
    drop(consul);
}

#[tokio::test]
async fn where_one_agent_does_not_answer_another_is_asked() {
    let consul = Consul::start().await;
    let provider = Arc::new(ConsulProvider::new(&consul.address()).unwrap());
    let registrar = Registrar::start(provider, registration()).unwrap();
    registrar.registered().await;
    let [nobody] = free_ports();
    let both = ConsulProvider::builder()
        .address(&format!("127.0.0.1:{nobody}"))
        .address(&consul.address())
        .build()
        .unwrap();
    let directory = Directory::new(Arc::new(both));
    let mut subscription = directory.subscribe(&web());
    let found = async { while !subscription.changed().await.is_known() {} };
    timeout(Duration::from_secs(60), found).await.unwrap();
}
