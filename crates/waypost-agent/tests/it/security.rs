//! Authentication, limits and timeouts of requests, and restrictions of health checks.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use waypost_agent::{Agent, Error};

use crate::raw_http::{Request, Response, read_response};

const SOON: Duration = Duration::from_secs(30);

async fn ask(agent: &Agent, request: Request) -> Response {
    request.send(agent.http_addr()).await.unwrap()
}

fn get(target: &str) -> Request {
    Request::new("GET", target, "")
}

fn register(body: &str) -> Request {
    Request::new("PUT", "/v1/agent/service/register", body)
}

#[tokio::test]
async fn an_agent_that_is_reachable_from_other_machines_needs_a_token() {
    let everywhere = "0.0.0.0:0".parse().unwrap();
    let error = Agent::builder().http(everywhere).start().await.unwrap_err();
    assert!(matches!(error, Error::Unprotected { .. }));
    assert!(error.to_string().contains("token"), "{error}");
    let agent = Agent::builder().http(everywhere).token("secret");
    agent.start().await.unwrap();
}

#[tokio::test]
async fn requests_without_the_token_are_rejected() {
    let agent = Agent::builder().token("secret").start().await.unwrap();
    for target in [
        "/v1/catalog/services",
        "/v1/agent/self",
        "/v1/health/state/any",
    ] {
        let response = ask(&agent, get(target)).await;
        assert_eq!(response.status, "403 Forbidden", "{target}");
        assert_eq!(response.text(), "Permission denied");
    }
    let refused = ask(&agent, register(r#"{"Name":"web"}"#)).await;
    assert_eq!(refused.text(), "Permission denied");
    let wrong = ask(&agent, get("/v1/catalog/services?token=nope")).await;
    assert_eq!(wrong.text(), "ACL not found");
    assert_eq!(ask(&agent, get("/v1/status/leader")).await.status, "200 OK");

    let mut by_header = get("/v1/catalog/services");
    by_header
        .headers
        .push(("X-Consul-Token".to_owned(), "secret".to_owned()));
    let mut as_bearer = get("/v1/catalog/services");
    as_bearer
        .headers
        .push(("Authorization".to_owned(), "Bearer secret".to_owned()));
    for allowed in [
        get("/v1/catalog/services?token=secret"),
        by_header,
        as_bearer,
    ] {
        assert_eq!(ask(&agent, allowed).await.text(), r#"{"consul":[]}"#);
    }
}

#[tokio::test]
async fn requests_from_other_web_sites_are_rejected() {
    let agent = Agent::builder()
        .allow_host("registry.test")
        .start()
        .await
        .unwrap();
    for (name, value, status) in [
        ("Host", "evil.example", "403 Forbidden"),
        ("Host", "registry.test:8500", "200 OK"),
        ("Host", "localhost", "200 OK"),
        ("Origin", "https://evil.example", "403 Forbidden"),
        ("Origin", "http://localhost:3000", "200 OK"),
        ("Sec-Fetch-Site", "cross-site", "403 Forbidden"),
        ("Sec-Fetch-Site", "same-origin", "200 OK"),
        ("Sec-Fetch-Site", "none", "200 OK"),
    ] {
        let mut request = get("/v1/catalog/services");
        request.headers.push((name.to_owned(), value.to_owned()));
        assert_eq!(ask(&agent, request).await.status, status, "{name}: {value}");
    }
}

#[tokio::test]
async fn a_request_with_two_hosts_is_rejected() {
    let agent = Agent::start().await.unwrap();
    for (target, hosts, status) in [
        (
            "/v1/agent/services",
            "Host: a\r\nHost: b\r\n",
            "HTTP/1.1 400 ",
        ),
        (
            "/v1/agent/services",
            "Host: a\r\nHost: a\r\n",
            "HTTP/1.1 400 ",
        ),
        (
            "http://evil.example/v1/agent/services",
            "Host: a\r\n",
            "HTTP/1.1 403 ",
        ),
        (
            "http://a/v1/agent/services",
            "Host: evil.example\r\n",
            "HTTP/1.1 403 ",
        ),
        ("http://a/v1/agent/services", "Host: a\r\n", "HTTP/1.1 200 "),
    ] {
        let mut stream = TcpStream::connect(agent.http_addr()).await.unwrap();
        let request = format!("GET {target} HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with(status), "{target} {hosts}: {response}");
    }
}

#[tokio::test]
async fn an_empty_token_counts_as_none() {
    let agent = Agent::builder().token("").start().await.unwrap();
    assert_eq!(ask(&agent, get("/v1/agent/services")).await.text(), "{}");
    let everywhere = "0.0.0.0:0".parse().unwrap();
    let error = Agent::builder().http(everywhere).token("").start().await;
    assert!(matches!(error, Err(Error::Unprotected { .. })));
}

/// Each expression compiles to about a megabyte, and is matched with each record.
#[tokio::test]
async fn costly_filters_are_refused_and_do_not_delay_other_requests() {
    let agent = Agent::start().await.unwrap();
    let body = r#"{"Name":"web","Check":{"TTL":"1h"}}"#;
    ask(&agent, register(body)).await;
    let tests = |pattern: &str, count| {
        let test = format!("Service.ID%20matches%20`{pattern}`");
        vec![test; count].join("+or+").replace("%20", "+")
    };
    for (pattern, count) in [("%5CpL{100}", 60), ("%5Cw{95}", 1_200), ("a", 60)] {
        let target = format!("/v1/health/service/web?filter={}", tests(pattern, count));
        let costly = get(&target);
        let (costly, start) = (costly.send(agent.http_addr()), Instant::now());
        let (costly, light) = tokio::join!(costly, async {
            let response = ask(&agent, get("/v1/catalog/services")).await;
            (response, start.elapsed())
        });
        let costly = costly.unwrap();
        assert!(
            costly.text().contains("regular expression"),
            "{}",
            costly.text()
        );
        assert_eq!(light.0.status, "200 OK");
        // They would take minutes if they were evaluated.
        assert!(light.1 < SOON, "{pattern}: {:?}", light.1);
    }
    let usual = "/v1/health/service/web?filter=Service.ID%20matches%20`^web(-[0-9]%2B)?$`";
    let usual = ask(&agent, get(usual)).await;
    assert!(usual.text().contains("service:web"), "{}", usual.text());
    let event = format!("/v1/event/fire/deploy?service={}", "%5CpL{100}");
    let event = ask(&agent, Request::new("PUT", &event, "")).await;
    assert!(event.text().contains("too large"), "{}", event.text());
}

#[tokio::test]
async fn a_head_or_body_that_is_too_large_is_rejected() {
    let agent = Agent::start().await.unwrap();
    // The agent may respond before it has read everything, or close the connection.
    let long = get(&format!("/v1/agent/service/{}", "a".repeat(100_000)));
    if let Ok(response) = long.send(agent.http_addr()).await {
        assert!(response.status.starts_with('4'), "{}", response.status);
    }
    let body = format!(
        r#"{{"Name":"web","Meta":{{"a":"{}"}}}}"#,
        "a".repeat(2_000_000)
    );
    if let Ok(response) = register(&body).send(agent.http_addr()).await {
        assert_eq!(response.status, "413 Payload Too Large");
    }
    assert_eq!(ask(&agent, get("/v1/agent/services")).await.text(), "{}");
}

/// Consul uses Go's HTTP server.
#[tokio::test]
async fn a_head_that_is_refused_gets_the_response_of_gos_server() {
    let agent = Agent::start().await.unwrap();
    let long = "a".repeat(70_000);
    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    for (head, status) in [
        ("nonsense\r\n\r\n".to_owned(), "400 Bad Request"),
        (
            format!("GET /v1/kv/{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
            "414 Request URI Too Long",
        ),
        (
            format!("GET /v1/kv/a HTTP/1.1\r\nHost: a\r\n{many}\r\n"),
            "431 Request Header Fields Too Large",
        ),
    ] {
        let mut stream = TcpStream::connect(agent.http_addr()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut response = String::new();
        let read = timeout(SOON, stream.read_to_string(&mut response)).await;
        read.unwrap().unwrap();
        let expected = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Connection: close\r\n\r\n{status}"
        );
        assert_eq!(response, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_request_times_out() {
    let agent = Agent::start().await.unwrap();
    let mut slow = TcpStream::connect(agent.http_addr()).await.unwrap();
    let start = Instant::now();
    let slow_request = async {
        for byte in b"GET /v1/agent/self HTTP/1.1\r\nHost: localhost\r\nX-Slow: " {
            slow.write_all(&[*byte]).await?;
            sleep(Duration::from_secs(1)).await;
        }
        slow.read_u8().await
    };
    slow_request.await.unwrap_err();
    let elapsed = start.elapsed();
    assert!(elapsed < Duration::from_secs(60), "{elapsed:?}");

    let mut half = TcpStream::connect(agent.http_addr()).await.unwrap();
    let head = b"PUT /v1/kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf";
    half.write_all(head).await.unwrap();
    let mut response = String::new();
    half.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 408 "), "{response}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_after_ten_minutes() {
    let agent = Agent::start().await.unwrap();
    let mut client = TcpStream::connect(agent.http_addr()).await.unwrap();
    let request = b"GET /v1/status/leader HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for _ in 0..10 {
        client.write_all(request).await.unwrap();
        let response = read_response(&mut client).await.unwrap();
        assert_eq!(response.status, "200 OK");
        sleep(Duration::from_secs(5 * 60)).await;
    }
    let start = Instant::now();
    client.read_u8().await.unwrap_err();
    let idle = start.elapsed();
    assert!(idle > Duration::from_secs(5 * 60), "{idle:?}");
    assert!(idle < Duration::from_secs(20 * 60), "{idle:?}");
}

/// Clients with connection pools, such as Python's, send the head and body of a request separately,
/// and the next request on the same connection.
#[tokio::test]
async fn a_rejected_request_keeps_the_connection_open() {
    let agent = Agent::builder().token("secret").start().await.unwrap();
    let mut stream = TcpStream::connect(agent.http_addr()).await.unwrap();
    for target in [
        "PUT /v1/kv/a",
        "POST /v1/kv/a",
        "PUT /nope",
        "PUT //v1/kv/a",
        "GET /v1/status/leader",
        "PUT /v1/agent/service/register?ns=x",
    ] {
        let head = format!("{target} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        sleep(Duration::from_millis(20)).await;
        stream.write_all(b"body").await.unwrap();
        let response = timeout(SOON, read_response(&mut stream)).await.unwrap();
        response.unwrap_or_else(|error| panic!("{target}: {error}"));
    }
}

/// Silent connections neither block clients with the token nor accumulate memory.
#[tokio::test(start_paused = true)]
async fn silent_connections_do_not_lock_out_clients_with_the_token() {
    let agent = Agent::builder().token("secret").max_connections(20);
    let agent = agent.start().await.unwrap();
    let mut known = TcpStream::connect(agent.http_addr()).await.unwrap();
    let request = b"GET /v1/agent/services?token=secret HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut silent = Vec::new();
    for _ in 0..60 {
        silent.push(TcpStream::connect(agent.http_addr()).await.unwrap());
        known.write_all(request).await.unwrap();
        let response = read_response(&mut known).await.unwrap();
        assert_eq!(response.status, "200 OK");
    }
    let new = ask(&agent, get("/v1/agent/services?token=secret")).await;
    assert_eq!(new.status, "200 OK");
    let start = Instant::now();
    for mut silent in silent {
        // Closed, with or without an error.
        assert!(silent.read_u8().await.is_err());
    }
    let elapsed = start.elapsed();
    assert!(elapsed <= Duration::from_secs(20), "{elapsed:?}");
    known.write_all(request).await.unwrap();
    let response = read_response(&mut known).await.unwrap();
    assert_eq!(response.status, "200 OK");
}

#[tokio::test(start_paused = true)]
async fn the_token_is_checked_before_the_body_is_read() {
    let agent = Agent::builder().token("secret").start().await.unwrap();
    let mut stream = TcpStream::connect(agent.http_addr()).await.unwrap();
    let head = b"PUT /v1/kv/a HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nbody";
    stream.write_all(head).await.unwrap();
    let start = Instant::now();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 403 "), "{response}");
    let elapsed = start.elapsed();
    assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
}

/// With many unfinished heads of 60 kB, some of the connections are closed. The clock is paused, so that
/// none of them is closed for its age.
#[tokio::test(start_paused = true)]
async fn the_memory_for_unfinished_heads_is_limited() {
    let agent = Agent::start().await.unwrap();
    let start = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "a".repeat(60_000));
    let mut open = Vec::new();
    let mut closed = 0;
    for _ in 0..1_300 {
        let mut stream = TcpStream::connect(agent.http_addr()).await.unwrap();
        if stream.write_all(start.as_bytes()).await.is_err() {
            closed += 1;
            continue;
        }
        open.push(stream);
    }
    assert_eq!(ask(&agent, get("/v1/agent/services")).await.text(), "{}");
    let mut first = open.swap_remove(0);
    first
        .write_all(b"\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut response = String::new();
    first.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 "), "{response}");
    for mut stream in open {
        if timeout(Duration::ZERO, stream.read_u8()).await.is_ok() {
            closed += 1;
        }
    }
    assert!((100..400).contains(&closed), "{closed} of 1300 are closed");
}

/// `curl` sends characters that are invalid in a URI, and Consul accepts them.
#[tokio::test]
async fn invalid_uri_characters_are_accepted_as_by_consul() {
    let agent = Agent::start().await.unwrap();
    ask(&agent, register(r#"{"Name":"web"}"#)).await;
    ask(&agent, Request::new("PUT", "/v1/kv/\u{e9}t\u{e9}", "1")).await;
    for (target, expected) in [
        ("/v1/kv/%C3%A9t%C3%A9?raw", "1"),
        ("/v1/kv/\u{e9}t\u{e9}?raw", "1"),
        ("/v1/agent/services?filter=Service==\"nope\"", "{}"),
    ] {
        let response = ask(&agent, get(target)).await;
        assert_eq!(response.status, "200 OK", "{target}");
        assert_eq!(response.text(), expected, "{target}");
    }
    for target in ["/v1/kv/a b", "/v1/kv/\u{7f}"] {
        let response = ask(&agent, get(target)).await;
        assert_eq!(response.status, "400 Bad Request", "{target}");
        assert_eq!(response.text(), "400 Bad Request", "{target}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_monitor_connection_has_no_idle_timeout() {
    let agent = Agent::start().await.unwrap();
    let mut monitor = TcpStream::connect(agent.http_addr()).await.unwrap();
    let request = b"GET /v1/agent/monitor HTTP/1.1\r\nHost: localhost\r\n\r\n";
    monitor.write_all(request).await.unwrap();
    let head = read_response(&mut monitor).await.unwrap();
    assert_eq!(head.status, "200 OK");
    sleep(Duration::from_secs(60 * 60)).await;
    ask(&agent, register(r#"{"Name":"web"}"#)).await;
    let mut lines = Vec::new();
    while !String::from_utf8_lossy(&lines).contains("service=web") {
        let more = monitor.read_buf(&mut lines).await.unwrap();
        assert_ne!(more, 0, "{}", String::from_utf8_lossy(&lines));
    }
}

#[tokio::test]
async fn checks_connect_only_to_allowed_targets() {
    let agent = Agent::builder()
        .check_targets(["127.0.0.0/8"])
        .start()
        .await
        .unwrap();
    let outside = r#"{"Name":"a","Check":{"HTTP":"http://169.254.169.254/","Interval":"1s"}}"#;
    let response = ask(&agent, register(outside)).await;
    assert!(
        response.text().contains("169.254.169.254"),
        "{}",
        response.text()
    );
    let inside = r#"{"Name":"a","Check":{"TCP":"127.0.0.1:1","Interval":"1s"}}"#;
    assert_eq!(ask(&agent, register(inside)).await.status, "200 OK");
}

#[tokio::test]
async fn script_checks_run_only_if_enabled() {
    let body = r#"{"Name":"web","Check":{"Args":["sh","-c","echo fine; exit 1"],"Interval":"1h"}}"#;
    let agent = Agent::start().await.unwrap();
    let response = ask(&agent, register(body)).await;
    assert!(
        response.text().contains("enable_script_checks"),
        "{}",
        response.text()
    );
    let agent = Agent::builder()
        .enable_script_checks(true)
        .start()
        .await
        .unwrap();
    assert_eq!(ask(&agent, register(body)).await.status, "200 OK");
    let warned = async {
        while !ask(&agent, get("/v1/health/state/warning"))
            .await
            .text()
            .contains("fine")
        {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, warned).await.unwrap();
}

#[tokio::test]
async fn a_leave_request_notifies_the_owner_of_the_agent() {
    let agent = Agent::start().await.unwrap();
    assert!(agent.left().now_or_never().is_none());
    let leave = Request::new("PUT", "/v1/agent/leave", "");
    assert_eq!(ask(&agent, leave).await.status, "200 OK");
    timeout(SOON, agent.left()).await.unwrap();
}
