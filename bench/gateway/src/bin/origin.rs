//! An origin for large bodies: answers a GET with a number of bytes, and reads the body of a POST.
//!
//! Usage: `origin PORT BYTES`

use std::convert::Infallible;
use std::net::Ipv4Addr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let (Some(Ok(port)), Some(Ok(size))) = (arguments.next(), arguments.next()) else {
        panic!("usage: origin PORT BYTES");
    };
    let whole = Bytes::from(vec![b'x'; size]);
    let port = u16::try_from(port).expect("a port");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .expect("a free port");
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("an option");
        let whole = whole.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let whole = whole.clone();
            async move {
                let is_get = request.method() == Method::GET;
                let mut body = request.into_body();
                while let Some(Ok(_)) = body.frame().await {}
                let answer = if is_get { whole } else { Bytes::new() };
                Ok::<_, Infallible>(Response::new(Full::new(answer)))
            }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}
