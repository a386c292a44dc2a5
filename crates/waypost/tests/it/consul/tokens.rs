//! ACL tokens: what a policy allows, the errors when it doesn't, rotation, and that tokens are never
//! logged.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{sleep, timeout};
use waypost::directory::Directory;
use waypost::provider::consul::ConsulProvider;
use waypost::provider::{Provider, TokenFile};
use waypost::settings::Settings;
use waypost::{Environment, Error, Registrar, RegistrationState, ServiceRegistration};
use waypost_testkit::{Consul, Logs, ROOT_TOKEN, http_client};

use super::{TIMEOUT, web};

/// The rules that are needed to register and find `web`.
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

/// Waits until registering has failed at least once, and returns the error.
async fn first_failure(registrar: &Registrar) -> String {
    let failed = async {
        loop {
            if let RegistrationState::Pending(Some(error)) = registrar.state() {
                return error.to_string();
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(TIMEOUT, failed).await.unwrap()
}

#[tokio::test]
async fn a_missing_rule_is_named_in_the_error_and_tokens_are_never_logged() {
    let (logs, _guard) = Logs::take();
    let consul = Consul::with_acl().await;
    let writer = consul.create_token("writer", RULES).await;
    let blind = consul.create_token("blind", "").await;
    let nodeless = consul
        .create_token("nodeless", r#"service "web" { policy = "read" }"#)
        .await;

    // The documented rules suffice.
    let provider = with_token(&consul, &writer);
    let registrar = Registrar::start(Arc::clone(&provider), registration()).unwrap();
    timeout(TIMEOUT, registrar.registered()).await.unwrap();
    let found = Directory::new(Arc::clone(&provider))
        .lookup(&web())
        .await
        .unwrap();
    assert_eq!(found.usable().unwrap().len(), 1);

    // Without one of them, Consul returns an empty list instead of an error.
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

    // A token that Consul doesn't know.
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
        // The root token, which the test itself uses, must not be logged either.
        assert!(!text.contains(secret), "a token in: {text}");
    }
}

#[tokio::test]
async fn a_token_is_rotated_by_replacing_its_file() {
    let (logs, _guard) = Logs::take();
    let consul = Consul::with_acl().await;
    let first = consul.create_token("first", RULES).await;
    let second = consul.create_token("second", RULES).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, &first).unwrap();
    let environment = Environment::from_iter([
        ("CONSUL_HTTP_ADDR", consul.address()),
        ("CONSUL_HTTP_TOKEN_FILE", file.display().to_string()),
    ]);
    let provider = Settings::new(environment).unwrap().provider().unwrap();
    let registrar = Registrar::start(Arc::clone(&provider), registration()).unwrap();
    timeout(TIMEOUT, registrar.registered()).await.unwrap();
    let found = Directory::new(Arc::clone(&provider))
        .lookup(&web())
        .await
        .unwrap();
    found.usable().unwrap();

    // Replace the token and revoke the old one.
    std::fs::write(&file, &second).unwrap();
    let id = accessor_id(&consul, &first).await;
    let request = http_client()
        .delete(consul.url(&format!("/v1/acl/token/{id}")))
        .header("x-consul-token", ROOT_TOKEN);
    let response = request.send().await.unwrap();
    response.error_for_status().unwrap();

    let fresh = Directory::new(provider).lookup(&web()).await.unwrap();
    assert_eq!(fresh.usable().unwrap().len(), 1);
    registrar.deregister().await.unwrap();
    let text = logs.text();
    assert!(
        !text.contains(&first) && !text.contains(&second),
        "a token in: {text}"
    );
}

/// The id by which Consul's API refers to a token.
async fn accessor_id(consul: &Consul, token: &str) -> String {
    let request = http_client()
        .get(consul.url("/v1/acl/token/self"))
        .header("x-consul-token", token);
    let response = request.send().await.unwrap().text().await.unwrap();
    let token: Value = serde_json::from_str(&response).unwrap();
    token["AccessorID"].as_str().unwrap().to_owned()
}

#[test]
fn a_token_file_that_becomes_unusable_is_logged_once_until_it_is_mended() {
    let (logs, _guard) = Logs::take();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    let file = TokenFile::new(&path);
    let warnings = || logs.lines(&["WARN", "token file unusable"]).len();
    // Without an earlier token, the caller reports the error.
    assert!(file.token().is_err());
    assert_eq!(warnings(), 0);
    for outage in 1..=2 {
        write("first");
        assert_eq!(file.token().unwrap(), "first");
        write("");
        for _ in 0..3 {
            assert_eq!(file.token().unwrap(), "first");
            assert_eq!(warnings(), outage);
        }
    }
    let line = &logs.lines(&["token file unusable"])[0];
    assert!(
        line.contains("the file is empty") && line.contains("token"),
        "{line}"
    );
}
