//! How the provider connects: TLS, Unix sockets, and several agents.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use waypost_agent::Agent;
use waypost_consul::ConsulProvider;
use waypost_core::provider::Provider;
use waypost_core::{Environment, Error, ProviderErrorKind, ServiceName};
use waypost_testkit::{Ca, Consul, free_ports};

use crate::{TIMEOUT, next, register, until_ids, web, web_registration};

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

    for (verify, succeeds) in [(false, true), (true, false)] {
        let builder = ConsulProvider::builder().address(&url).tls_verify(verify);
        let provider = builder
            .client_certificate(&client_cert, &client_key)
            .build();
        let found = next(&mut provider.unwrap().watch(&web())).await;
        assert_eq!(found.is_ok(), succeeds, "{found:?}");
    }

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

/// How a proxy ends a request that waits too long.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Close,
    Status(&'static str),
}

/// Consul behind a proxy that lets no request wait for longer than 50 ms.
async fn start_impatient_proxy(cut: Cut, waiting: Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let waiting = Arc::clone(&waiting);
            tokio::spawn(async move {
                let mut request = vec![0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut request).await {
                    let head = String::from_utf8_lossy(&request[..length]).into_owned();
                    let response = if !head.contains("index=") {
                        "HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\nContent-Length: 2\r\n\r\n[]"
                    } else {
                        waiting.fetch_add(1, Ordering::SeqCst);
                        sleep(Duration::from_millis(50)).await;
                        match cut {
                            Cut::Close => return,
                            Cut::Status(status) => {
                                &format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")
                            }
                        }
                    };
                    stream.write_all(response.as_bytes()).await.unwrap();
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_proxy_that_cuts_waiting_requests_is_not_an_outage() {
    for cut in [
        Cut::Close,
        Cut::Status("504 Gateway Timeout"),
        Cut::Status("408 Request Timeout"),
        Cut::Status("429 Too Many Requests"),
    ] {
        let waiting = Arc::new(AtomicUsize::new(0));
        let address = start_impatient_proxy(cut, Arc::clone(&waiting)).await;
        let provider = ConsulProvider::new(&address).unwrap();
        let mut watch = provider.watch(&web());
        let ten_cuts = async {
            while waiting.load(Ordering::SeqCst) < 10 {
                let item = watch.next().await.expect("the watch has ended");
                assert!(item.is_ok(), "{cut:?}: {item:?}");
            }
        };
        timeout(TIMEOUT, ten_cuts).await.unwrap();
    }
}

#[tokio::test]
async fn an_agent_that_ends_while_a_request_waits_is_an_outage_at_once() {
    let mut consul = Consul::start().await;
    let provider = ConsulProvider::new(&consul.address()).unwrap();
    let mut watch = provider.watch(&web());
    let first = next(&mut watch).await.unwrap();
    consul.kill().await;
    // If the request was already waiting, the answer is confirmed once more.
    let outage = match next(&mut watch).await {
        Ok(confirmed) => {
            assert_eq!(confirmed, first);
            next(&mut watch).await
        }
        outage => outage,
    };
    // The kernel may still accept a connection for the dying process, so the message is either of
    // "can't connect" and "connection lost".
    assert_eq!(outage.unwrap_err().kind(), ProviderErrorKind::Unreachable);
}

/// Nothing had changed until the connection ended. The age of the answer counts from there, and not from
/// the last response, which may be minutes old.
#[tokio::test]
async fn an_answer_is_confirmed_by_a_connection_that_ends_while_a_request_waits() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut is_down = false;
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            while !is_down && let Ok(length @ 1..) = stream.read(&mut request).await {
                is_down = String::from_utf8_lossy(&request[..length]).contains("index=");
                if !is_down {
                    let response =
                        "HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\nContent-Length: 2\r\n\r\n[]";
                    stream.write_all(response.as_bytes()).await.unwrap();
                }
            }
        }
    });
    let provider = ConsulProvider::new(&address).unwrap();
    let mut watch = provider.watch(&web());
    let first = next(&mut watch).await.unwrap();
    assert_eq!(next(&mut watch).await.expect("a confirmation"), first);
    let error = next(&mut watch).await.unwrap_err();
    assert_eq!(error.kind(), ProviderErrorKind::Unreachable, "{error}");
}

/// The agent responds, but says nothing about the service.
#[tokio::test]
async fn an_answer_is_not_confirmed_by_an_error_of_the_agent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut response = "HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\nContent-Length: 2\r\n\r\n[]";
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut request).await {
                if String::from_utf8_lossy(&request[..length]).contains("index=") {
                    response = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
                }
                stream.write_all(response.as_bytes()).await.unwrap();
            }
        }
    });
    let provider = ConsulProvider::new(&address).unwrap();
    let mut watch = provider.watch(&web());
    next(&mut watch).await.unwrap();
    next(&mut watch).await.unwrap_err();
}

/// Passes connections on to a server, and counts them.
async fn start_counting_proxy(server: String, most: Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let open = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (server, open) = (server.clone(), Arc::clone(&open));
            most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::spawn(async move {
                if let Ok(mut server) = TcpStream::connect(server).await {
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                }
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    address
}

#[tokio::test]
async fn the_number_of_connections_is_bounded_whatever_the_number_of_services() {
    let agent = Agent::start().await.unwrap();
    let most = Arc::new(AtomicUsize::new(0));
    let address = start_counting_proxy(agent.http_addr().to_string(), Arc::clone(&most)).await;
    let provider = ConsulProvider::builder()
        .address(&address)
        .connections(20)
        .wait(Duration::from_secs(2));
    let provider = provider.build().unwrap();
    let mut watches = JoinSet::new();
    for n in 0..1_500 {
        let mut watch = provider.watch(&ServiceName::new(&format!("service-{n}")).unwrap());
        // The first answer, and one more after the request has waited or has been in the queue.
        watches.spawn(async move {
            for _ in 0..2 {
                watch.next().await.unwrap().unwrap();
            }
        });
    }
    timeout(5 * TIMEOUT, watches.join_all()).await.unwrap();
    let most = most.load(Ordering::SeqCst);
    // 20 that wait, 32 for all other requests, and 32 that are idle. The proxy may notice late that one has
    // been closed, so that it counts a few more.
    assert!((20..=150).contains(&most), "{most}");
}
