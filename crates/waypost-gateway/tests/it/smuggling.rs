//! Requests whose framing could be read in two ways are refused, and never reach an instance.

use crate::support::{Origin, RawClient, TestGateway};

/// What each is, and the bytes after `POST /auth/ HTTP/1.1\r\n`.
const ATTEMPTS: &[(&str, &str)] = &[
    (
        "length and chunks",
        "Host: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunks and length",
        "Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    ),
    (
        "two lengths",
        "Host: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    ),
    (
        "a list of lengths",
        "Host: a\r\nContent-Length: 1, 2\r\n\r\nab",
    ),
    ("a signed length", "Host: a\r\nContent-Length: +1\r\n\r\na"),
    (
        "chunks not last",
        "Host: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    ),
    (
        "a coding before chunks",
        "Host: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunks twice",
        "Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a disguised coding",
        "Host: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a folded line",
        "Host: a\r\nX-A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a folded coding",
        "Host: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a space before the colon",
        "Host: a\r\nContent-Length : 0\r\n\r\n",
    ),
    ("a null in a value", "Host: a\r\nX-A: b\0c\r\n\r\n"),
    (
        "a carriage return in a value",
        "Host: a\r\nX-A: b\rContent-Length: 5\r\n\r\n",
    ),
    ("no host", "Content-Length: 0\r\n\r\n"),
    (
        "two hosts",
        "Host: a\r\nHost: b\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a host with a path",
        "Host: a/internal\r\nContent-Length: 0\r\n\r\n",
    ),
];

#[tokio::test]
async fn each_attempt_is_a_400_and_the_end_of_the_connection() {
    let gateway = TestGateway::start().await;
    let origin = Origin::echo().await;
    gateway.add("auth", "a", origin.address).await;
    for (what, rest) in ATTEMPTS {
        let mut client = RawClient::connect(gateway.address).await;
        let smuggled = "GET /internal/services HTTP/1.1\r\nHost: a\r\n\r\n";
        client
            .send(format!("POST /auth/ HTTP/1.1\r\n{rest}{smuggled}"))
            .await;
        let answer = client.read_to_end().await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{what}: {answer}");
        assert_eq!(answer.matches("\r\ndate: ").count(), 1, "{what}: {answer}");
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn an_attempt_behind_a_good_request_is_noticed_too() {
    let gateway = TestGateway::start().await;
    let origin = Origin::echo().await;
    gateway.add("auth", "a", origin.address).await;
    let good =
        "POST /auth/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    let mut client = RawClient::connect(gateway.address).await;
    client.send(good).await;
    assert!(client.read_until("}").await.starts_with("HTTP/1.1 200"));
    client
        .send(format!("POST /auth/ HTTP/1.1\r\n{}", ATTEMPTS[0].1))
        .await;
    assert!(client.read_to_end().await.starts_with("HTTP/1.1 400"));
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn a_bad_chunk_is_a_400() {
    let gateway = TestGateway::start().await;
    gateway.add("auth", "a", Origin::echo().await.address).await;
    for (what, chunks) in [
        ("no number", "zz\r\nhello\r\n0\r\n\r\n"),
        (
            "a number too long",
            "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        ),
        ("a signed number", "-5\r\nhello\r\n0\r\n\r\n"),
        ("data longer than said", "2\r\nhello\r\n0\r\n\r\n"),
    ] {
        let head = "POST /auth/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut client = RawClient::connect(gateway.address).await;
        client.send(format!("{head}{chunks}")).await;
        let answer = client.read_to_end().await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{what}: {answer}");
        assert_eq!(answer.matches("\r\ndate: ").count(), 1, "{what}: {answer}");
    }
}

#[tokio::test]
async fn a_path_cannot_climb_out_of_its_service() {
    let gateway = TestGateway::start().await;
    let origin = Origin::echo().await;
    gateway.add("auth", "a", origin.address).await;
    for path in [
        "/auth/../internal/health",
        "/auth/%2e%2E/x",
        "/auth/.%2e/x",
        "/auth/./x",
    ] {
        let mut client = RawClient::connect(gateway.address).await;
        client
            .send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .await;
        let answer = client.read_to_end().await;
        assert!(
            answer.starts_with("HTTP/1.1 400") && answer.contains("dot_segment"),
            "{answer}"
        );
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let gateway = TestGateway::start().await;
    let mut client = RawClient::connect(gateway.address).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-A: ").await;
    client.send("a".repeat(100_000)).await;
    assert!(client.read_to_end().await.starts_with("HTTP/1.1 431"));
}
