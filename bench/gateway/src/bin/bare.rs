//! A minimal proxy on hyper: one thread, hyper-util's pooled client, nothing else.
//!
//! Usage: `bare PORT ORIGIN_PORT`

use std::convert::Infallible;
use std::net::Ipv4Addr;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut ports = std::env::args().skip(1).map(|port| port.parse::<u16>());
    let (Some(Ok(port)), Some(Ok(origin))) = (ports.next(), ports.next()) else {
        panic!("usage: bare PORT ORIGIN_PORT");
    };
    let mut connector = hyper_util::client::legacy::connect::HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .expect("a free port");
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("an option");
        let client = client.clone();
        let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
            let path = request
                .uri()
                .path_and_query()
                .map_or("/", |path| path.as_str());
            let uri = format!("http://127.0.0.1:{origin}{path}");
            *request.uri_mut() = uri.parse().expect("a URI");
            let response = client.request(request);
            async move {
                Ok::<_, Infallible>(match response.await {
                    Ok(response) => response.map(http_body_util::Either::Left),
                    Err(error) => {
                        eprintln!("{error}");
                        Response::new(http_body_util::Either::Right(http_body_util::Empty::new()))
                    }
                })
            }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}
