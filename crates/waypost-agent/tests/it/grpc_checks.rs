//! gRPC checks against a server of the health checking protocol.

use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use waypost_agent::Agent;

use crate::raw_http::Request;

const SOON: Duration = Duration::from_secs(30);

/// Serves `ready` as serving, `broken` as not serving, and knows nothing else.
async fn serve(listener: TcpListener) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                tokio::spawn(async move {
                    let mut body = request.into_body();
                    let question = body.data().await.unwrap().unwrap();
                    let service = String::from_utf8_lossy(&question[5..]).into_owned();
                    let status: &[u8] = match service.as_str() {
                        text if text.ends_with("ready") => &[0, 0, 0, 0, 2, 8, 1],
                        text if text.ends_with("broken") => &[0, 0, 0, 0, 2, 8, 2],
                        _ => &[],
                    };
                    let response = http::Response::builder()
                        .header("content-type", "application/grpc")
                        .body(())
                        .unwrap();
                    let mut stream = respond.send_response(response, false).unwrap();
                    let mut trailers = http::HeaderMap::new();
                    if status.is_empty() {
                        trailers.insert("grpc-status", 5.into());
                        trailers.insert("grpc-message", "unknown service".parse().unwrap());
                    } else {
                        stream
                            .send_data(Bytes::copy_from_slice(status), false)
                            .unwrap();
                        trailers.insert("grpc-status", 0.into());
                    }
                    stream.send_trailers(trailers).unwrap();
                });
            }
        });
    }
}

#[tokio::test]
async fn a_service_is_as_well_as_its_server_says() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    let server = tokio::spawn(serve(listener));
    let agent = Agent::start().await.unwrap();
    let checks = ["ready", "broken", "unknown"]
        .map(|name| format!(r#"{{"CheckID":"{name}","GRPC":"{target}/{name}","Interval":"1h"}}"#));
    let body = format!(r#"{{"Name":"web","Checks":[{}]}}"#, checks.join(","));
    let register = Request::new("PUT", "/v1/agent/service/register", &body);
    let answer = register.send(agent.http_addr()).await.unwrap();
    assert_eq!(answer.status, "200 OK", "{}", answer.text());
    let expected = [
        format!("gRPC check {target}/ready: success"),
        "gRPC application didn't report service healthy".to_owned(),
        "rpc error: code = NotFound desc = unknown service".to_owned(),
    ];
    let request = Request::new("GET", "/v1/agent/checks", "");
    let seen = async {
        loop {
            let text = request.send(agent.http_addr()).await.unwrap().text();
            if expected.iter().all(|output| text.contains(output)) {
                return text;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let text = timeout(SOON, seen).await.unwrap();
    assert_eq!(text.matches(r#""Status":"passing""#).count(), 1, "{text}");
    server.abort();
}
