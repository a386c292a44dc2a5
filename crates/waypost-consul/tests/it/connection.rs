//! How the provider connects: TLS, Unix sockets, and several agents.

use std::path::Path;

use serde_json::json;
use waypost_consul::ConsulProvider;
use waypost_core::provider::Provider;
use waypost_core::{Environment, Error};
use waypost_testkit::{Ca, Consul, free_ports};

use crate::{next, register, until_ids, web, web_registration};

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
    let path = |path: &Path| path.display().to_string();
    let client = [
        ("CONSUL_CLIENT_CERT", path(&client_cert)),
        ("CONSUL_CLIENT_KEY", path(&client_key)),
    ];
    let trusted = [("CONSUL_CACERT", path(&ca.certificate()))];
    let look_up = async |parts: &[&[(&str, String)]]| {
        let variables = parts.iter().copied().flatten().cloned();
        let provider = ConsulProvider::from_environment(&variables.collect())?;
        assert_eq!(&*provider.describe(), format!("consul at {url}"));
        next(&mut provider.watch(&web())).await.map_err(Error::from)
    };

    look_up(&[&base, &client, &trusted]).await.unwrap();
    let by_name = [("CONSUL_TLS_SERVER_NAME", "server.dc1.consul".to_owned())];
    look_up(&[&base, &client, &trusted, &by_name])
        .await
        .unwrap();
    let unverified = [("CONSUL_HTTP_SSL_VERIFY", "false".to_owned())];
    look_up(&[&base, &client, &unverified]).await.unwrap();

    let other_name = [("CONSUL_TLS_SERVER_NAME", "other.example".to_owned())];
    for (parts, word) in [
        (
            &[&base[..], &client, &trusted, &other_name][..],
            "other.example",
        ),
        (&[&base, &client], "UnknownIssuer"),
        (&[&base, &trusted], "ertificate"),
        (&[&base, &trusted, &client[..1]], "CONSUL_CLIENT_KEY"),
        (&[&base, &trusted, &client[1..]], "CONSUL_CLIENT_CERT"),
    ] {
        let error = look_up(parts).await.unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
    }
    let malformed = ca.directory().join("malformed.pem");
    std::fs::write(&malformed, "not PEM").unwrap();
    let malformed = [("CONSUL_CACERT", path(&malformed))];
    let error = look_up(&[&base, &malformed]).await.unwrap_err().to_string();
    assert!(
        error.contains("malformed.pem") && error.contains("PEM"),
        "{error}"
    );
}

#[tokio::test]
async fn an_agent_on_a_unix_socket_is_read_and_written() {
    let directory = tempfile::tempdir().unwrap();
    let address = format!("unix://{}/consul.sock", directory.path().display());
    let addresses = format!("{address} 127.0.0.1");
    let _consul = Consul::with(json!({ "addresses": { "http": addresses } })).await;
    let environment = Environment::from_iter([("CONSUL_HTTP_ADDR", address.as_str())]);
    let provider = ConsulProvider::from_environment(&environment).unwrap();
    assert_eq!(&*provider.describe(), format!("consul at {address}"));
    register(&provider, web_registration("web-1", 80)).await;
    let instances = until_ids(&provider, &["web-1"]).await;
    assert_eq!(instances[0].url(), "http://127.0.0.1:80");
}

#[tokio::test]
async fn services_are_looked_up_with_another_agent_if_one_does_not_respond() {
    let consul = Consul::start().await;
    let provider = ConsulProvider::new(&consul.address()).unwrap();
    register(&provider, web_registration("web-1", 80)).await;
    let [unused] = free_ports();
    let provider = ConsulProvider::builder()
        .address(&format!("127.0.0.1:{unused}"))
        .address(&consul.address())
        .build()
        .unwrap();
    next(&mut provider.watch(&web())).await.unwrap_err();
    until_ids(&provider, &["web-1"]).await;
}
