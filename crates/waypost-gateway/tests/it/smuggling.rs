//! A corpus of requests with ambiguous or invalid framing. Each is either rejected without reaching
//! an instance, or arrives as one well-formed request.
//!
//! hyper rejects most of them. Those that it accepts and the gateway rejects are in [`OURS`].

use crate::support::{Origin, RawClient, TestGateway};

/// A description, and the rest of the request after `POST /auth/ HTTP/1.1\r\n`.
type Case = (&'static str, &'static str);

/// Rejected by hyper.
const REJECTED: &[Case] = &[
    (
        "two lengths",
        "Host: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    ),
    (
        "a list of lengths",
        "Host: a\r\nContent-Length: 1, 2\r\n\r\nab",
    ),
    (
        "a list of equal lengths",
        "Host: a\r\nContent-Length: 1, 1\r\n\r\na",
    ),
    (
        "a length with a plus sign",
        "Host: a\r\nContent-Length: +1\r\n\r\na",
    ),
    (
        "a negative length",
        "Host: a\r\nContent-Length: -1\r\n\r\na",
    ),
    (
        "a hexadecimal length",
        "Host: a\r\nContent-Length: 0x1\r\n\r\na",
    ),
    (
        "a length with a fraction",
        "Host: a\r\nContent-Length: 1.0\r\n\r\na",
    ),
    ("an empty length", "Host: a\r\nContent-Length:\r\n\r\na"),
    (
        "a length over 64 bits",
        "Host: a\r\nContent-Length: 18446744073709551616\r\n\r\na",
    ),
    (
        "a space inside a length",
        "Host: a\r\nContent-Length: 1 1\r\n\r\na",
    ),
    (
        "a coding after chunked",
        "Host: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    ),
    (
        "the coding identity",
        "Host: a\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    ),
    (
        "the coding identity with a length",
        "Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    ),
    (
        "an unknown coding",
        "Host: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "an empty coding",
        "Host: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n",
    ),
    (
        "a coding behind a vertical tab",
        "Host: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a coding in quotes",
        "Host: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
    ),
    (
        "a folded header",
        "Host: a\r\nX-A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a folded coding",
        "Host: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a space before the first header",
        " Content-Length: 5\r\nHost: a\r\n\r\n",
    ),
    (
        "a space before the colon of a length",
        "Host: a\r\nContent-Length : 0\r\n\r\n",
    ),
    (
        "a space before the colon of a coding",
        "Host: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a null in a header name",
        "Host: a\r\nContent-Length\0: 5\r\n\r\n",
    ),
    ("a null in a value", "Host: a\r\nX-A: b\0c\r\n\r\n"),
    (
        "a carriage return in a value",
        "Host: a\r\nX-A: b\rContent-Length: 5\r\n\r\n",
    ),
    (
        "a header without a colon",
        "Host: a\r\nContent-Length\r\n\r\n",
    ),
    ("a header without a name", "Host: a\r\n: 5\r\n\r\n"),
];

/// Accepted by hyper, rejected by the gateway.
const OURS: &[Case] = &[
    // Two readings of where the body ends; see `framing.rs`.
    (
        "a length before a coding",
        "Host: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a length after a coding",
        "Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    ),
    (
        "an invalid length after a coding",
        "Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: +4\r\n\r\n0\r\n\r\n",
    ),
    (
        "a length in other case before a coding",
        "Host: a\r\ncontent-LENGTH: 4\r\ntransfer-ENCODING: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a length with a bare line feed before a coding",
        "Host: a\nContent-Length: 4\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    // Lines that another server may not see the end of; see `framing.rs`.
    ("bare line feeds", "Host: a\nContent-Length: 2\n\nhi"),
    (
        "a bare line feed that hides a header",
        "Host: a\r\nX: a\nContent-Length: 2\r\n\r\nhi",
    ),
    ("a bare line feed at the end of the head", "Host: a\r\n\n"),
    // Codings that would be lost, or that another server may not apply; see `target.rs`.
    (
        "a coding before chunked",
        "Host: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked in two headers",
        "Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked twice in one header",
        "Host: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    ),
    // Servers could disagree about the host of the request; see `target.rs`.
    ("no host", "Content-Length: 0\r\n\r\n"),
    (
        "two hosts",
        "Host: a\r\nHost: b\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a host with a path",
        "Host: a/internal\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a host with a port in letters",
        "Host: a:b\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a host with two ports",
        "Host: a:1:2\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a host that is only a port",
        "Host: :80\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a host with user information",
        "Host: me@a\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a host with a space",
        "Host: a b\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a host with a comma",
        "Host: a, b\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a host with a query",
        "Host: a?b\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "an address with text behind it",
        "Host: [::1]x\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "two equal hosts",
        "Host: a\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "a coding in two parts",
        "Host: a\r\nTransfer-Encoding: deflate\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a coding with a parameter",
        "Host: a\r\nTransfer-Encoding: gzip;q=1, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "two lengths before a coding",
        "Host: a\r\nContent-Length: 4\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a length of zero before a coding",
        "Host: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
];

/// Whole requests that hyper rejects because of their first line or version.
const REJECTED_REQUESTS: &[Case] = &[
    (
        "a coding in HTTP/1.0",
        "POST /auth/ HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("no version", "GET /auth/\r\n\r\n"),
    ("version 1.2", "GET /auth/ HTTP/1.2\r\nHost: a\r\n\r\n"),
    ("version 2.0", "GET /auth/ HTTP/2.0\r\nHost: a\r\n\r\n"),
    ("two spaces", "GET  /auth/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("a tab", "GET\t/auth/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    (
        "a space in the path",
        "GET /auth/ x HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "a null in the path",
        "GET /auth/\0 HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "a space before the method",
        " GET /auth/ HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "an absolute target beside an invalid host",
        "GET http://a/auth/ HTTP/1.1\r\nHost: a b\r\n\r\n",
    ),
    (
        "an absolute target without a host",
        "GET http://a/auth/ HTTP/1.1\r\n\r\n",
    ),
    (
        "a target with user information",
        "GET http://me@a/auth/ HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    ("no target", "GET HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("an empty method", " / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (
        "a method with a colon",
        "GE:T /auth/ HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        "a lower-case version",
        "GET /auth/ http/1.1\r\nHost: a\r\n\r\n",
    ),
    ("version 1.10", "GET /auth/ HTTP/1.10\r\nHost: a\r\n\r\n"),
    (
        "a version with a space",
        "GET /auth/ HTTP/1.1 \r\nHost: a\r\n\r\n",
    ),
    (
        "a carriage return as line break",
        "GET /auth/ HTTP/1.1\rHost: a\r\r",
    ),
];

/// A description, the rest of the request as above, and the body that has to arrive.
const ACCEPTED: &[(&str, &str, &str)] = &[
    ("a length", "Host: a\r\nContent-Length: 2\r\n\r\nhi", "hi"),
    (
        "two equal lengths",
        "Host: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
        "hi",
    ),
    (
        "a length with leading zeros and spaces",
        "Host: a\r\nContent-Length:   002  \r\n\r\nhi",
        "hi",
    ),
    (
        "chunks",
        "Host: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        "hi",
    ),
    (
        "a coding in capitals",
        "Host: a\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        "hi",
    ),
    (
        "chunk extensions",
        "Host: a\r\nTransfer-Encoding: chunked\r\n\r\n2;a=\"b;c\"\r\nhi\r\n0;x\r\n\r\n",
        "hi",
    ),
    (
        "chunk sizes with zeros, capitals and spaces",
        "Host: a\r\nTransfer-Encoding: chunked\r\n\r\n000A \r\n0123456789\r\n00\r\n\r\n",
        "0123456789",
    ),
    (
        "a body that looks like a request with two lengths",
        "Host: a\r\nContent-Length: 66\r\n\r\n\
         POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
];

/// A description, and a chunked body that hyper rejects while it is read.
const BAD_CHUNKS: &[Case] = &[
    ("no size", "zz\r\nhello\r\n0\r\n\r\n"),
    ("an empty size", "\r\nhello\r\n0\r\n\r\n"),
    (
        "a size over 64 bits",
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    ),
    ("a negative size", "-5\r\nhello\r\n0\r\n\r\n"),
    ("a size in letters", "5g\r\nhello\r\n0\r\n\r\n"),
    ("a size with a fraction", "5.0\r\nhello\r\n0\r\n\r\n"),
    ("a size with an underscore", "0_5\r\nhello\r\n0\r\n\r\n"),
    ("a null after the size", "5\0\r\nhello\r\n0\r\n\r\n"),
    (
        "a trailer without a colon",
        "5\r\nhello\r\n0\r\nX-A\r\n\r\n",
    ),
    ("a size with a plus sign", "+5\r\nhello\r\n0\r\n\r\n"),
    ("a size with a prefix", "0x5\r\nhello\r\n0\r\n\r\n"),
    ("a space before the size", " 5\r\nhello\r\n0\r\n\r\n"),
    ("a space inside the size", "5 5\r\nhello\r\n0\r\n\r\n"),
    ("data longer than the size", "2\r\nhello\r\n0\r\n\r\n"),
    ("a bare line feed after the size", "5\nhello\r\n0\r\n\r\n"),
    (
        "a bare line feed in an extension",
        "5;x\nhello\r\n0\r\n\r\n",
    ),
    ("a bare line feed after the data", "5\r\nhello\n0\r\n\r\n"),
    (
        "a carriage return without a line feed",
        "5\rhello\r\n0\r\n\r\n",
    ),
    (
        "a space before the colon of a trailer",
        "5\r\nhello\r\n0\r\nX-A : b\r\n\r\n",
    ),
];

/// A request that would get a response if it were parsed as a request.
const SMUGGLED: &str = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";

/// Sends a request followed by [`SMUGGLED`] and returns all that the gateway sends.
async fn send(gateway: &TestGateway, request: &str) -> String {
    let mut client = RawClient::connect(gateway.address).await;
    client.send(format!("{request}{SMUGGLED}")).await;
    client.read_to_end().await
}

fn assert_rejected(case: &str, response: &str) {
    assert!(response.starts_with("HTTP/1.1 400 "), "{case}: {response}");
    let responses = response.matches("\r\ndate: ").count();
    assert_eq!(responses, 1, "{case}: {response}");
}

#[tokio::test]
async fn a_rejected_request_gets_a_400_and_the_connection_is_closed() {
    let gateway = TestGateway::start().await;
    let origin = Origin::echo().await;
    gateway.add("auth", "a", origin.address).await;
    for (case, rest) in [REJECTED, OURS].concat() {
        let response = send(&gateway, &format!("POST /auth/ HTTP/1.1\r\n{rest}")).await;
        assert_rejected(case, &response);
    }
    for (case, request) in REJECTED_REQUESTS {
        assert_rejected(case, &send(&gateway, request).await);
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn an_accepted_request_arrives_whole_and_the_next_one_is_read_after_it() {
    let gateway = TestGateway::start().await;
    let origin = Origin::echo().await;
    gateway.add("auth", "a", origin.address).await;
    for (case, rest, body) in ACCEPTED {
        let next = "GET /auth/next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let before = origin.requests();
        let mut client = RawClient::connect(gateway.address).await;
        client
            .send(format!("POST /auth/ HTTP/1.1\r\n{rest}{next}"))
            .await;
        let responses = client.read_to_end().await;
        let body = format!("\"body\":{}", serde_json::json!(body));
        assert!(responses.contains(&body), "{case}: {responses}");
        assert!(
            responses.contains(r#""uri":"/next""#),
            "{case}: {responses}"
        );
        assert_eq!(origin.requests(), before + 2, "{case}");
    }
}

#[tokio::test]
async fn a_conflict_is_detected_after_a_good_request_too() {
    let gateway = TestGateway::start().await;
    let origin = Origin::echo().await;
    gateway.add("auth", "a", origin.address).await;
    let good =
        "POST /auth/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    let mut client = RawClient::connect(gateway.address).await;
    client.send(good).await;
    assert!(client.read_until("}").await.starts_with("HTTP/1.1 200"));
    client
        .send(format!("POST /auth/ HTTP/1.1\r\n{}", OURS[0].1))
        .await;
    assert!(client.read_to_end().await.starts_with("HTTP/1.1 400"));
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn a_good_request_is_served_even_if_a_malformed_one_follows_at_once() {
    let gateway = TestGateway::start().await;
    gateway.add("auth", "a", Origin::echo().await.address).await;
    let good = "GET /auth/good HTTP/1.1\r\nHost: a\r\n\r\n";
    for (case, malformed) in REJECTED {
        // A conflict applies to the whole connection, including requests read together with it.
        if malformed.contains("Content-Length") && malformed.contains("Transfer-Encoding") {
            continue;
        }
        let response = send(
            &gateway,
            &format!("{good}POST /auth/ HTTP/1.1\r\n{malformed}"),
        )
        .await;
        assert!(response.starts_with("HTTP/1.1 200 "), "{case}: {response}");
        assert!(response.contains("HTTP/1.1 400 "), "{case}: {response}");
    }
}

#[tokio::test]
async fn a_bad_chunk_gets_a_400_and_the_connection_is_closed() {
    let gateway = TestGateway::start().await;
    gateway.add("auth", "a", Origin::echo().await.address).await;
    for (case, chunks) in BAD_CHUNKS {
        let head = "POST /auth/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_rejected(case, &send(&gateway, &format!("{head}{chunks}")).await);
    }
}

#[tokio::test]
async fn dot_segments_in_a_path_are_rejected() {
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
        let response = client.read_to_end().await;
        assert!(
            response.starts_with("HTTP/1.1 400") && response.contains("dot_segment"),
            "{response}"
        );
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn an_endless_head_gets_a_431() {
    let gateway = TestGateway::start().await;
    let mut client = RawClient::connect(gateway.address).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-A: ").await;
    client.send("a".repeat(100_000)).await;
    assert!(client.read_to_end().await.starts_with("HTTP/1.1 431"));
}
