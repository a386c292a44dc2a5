//! A plain HTTP client, which sees each byte that the server sends.

use std::time::Duration;

use reqwest::{Certificate, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use waypost_fake_kubernetes::{ApiServer, Builder, manifest};

/// Longer than any step of a test takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The path of the slices in the namespace `demo`.
pub(crate) const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/demo/endpointslices";

/// A server, and a client with all permissions.
pub(crate) struct Fixture {
    pub(crate) server: ApiServer,
    pub(crate) client: Client,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::with(ApiServer::builder()).await
    }

    pub(crate) async fn with(builder: Builder) -> Self {
        let server = builder.namespace("demo").start().await.unwrap();
        let token = server.add_token("admin");
        let client = Client::new(&server, Some(token));
        Self { server, client }
    }

    /// Puts a slice of the service `web` with one endpoint, and returns its revision.
    pub(crate) fn put_slice(&self, name: &str, address: &str) -> u64 {
        let endpoints = [manifest::endpoint(address)];
        let ports = [("http", 8080)];
        self.server
            .put(&manifest::slice("demo", "web", name, &ports, endpoints))
    }
}

#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
}

impl Client {
    pub(crate) fn new(server: &ApiServer, token: Option<String>) -> Self {
        // reqwest leaves the choice of a TLS implementation to the program.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let ca = Certificate::from_pem(server.ca_pem().as_bytes()).unwrap();
        let http = reqwest::Client::builder().tls_certs_only([ca]).no_proxy();
        Self {
            http: http.build().unwrap(),
            url: server.url(),
            token,
        }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        answer(self.request(Method::GET, path)).await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> (StatusCode, Value) {
        answer(self.request(method, path).json(body)).await
    }

    pub(crate) async fn watch(&self, path: &str) -> Watch {
        let response = self.request(Method::GET, path).send().await.unwrap();
        Watch::new(response)
    }
}

/// Sends a request, and returns the status and the JSON of its response.
pub(crate) async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let answer = async {
        let response = request.send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or_else(|_| json!(text));
        (status, body)
    };
    tokio::time::timeout(DEADLINE, answer).await.unwrap()
}

/// The events of a watch.
pub(crate) struct Watch {
    pub(crate) response: Response,
    buffer: Vec<u8>,
}

impl Watch {
    fn new(response: Response) -> Self {
        Self {
            response,
            buffer: Vec::new(),
        }
    }

    /// The next event; None if the stream ends cleanly.
    pub(crate) async fn next(&mut self) -> Result<Option<Value>, reqwest::Error> {
        loop {
            if let Some(end) = self.buffer.iter().position(|it| *it == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line).unwrap()));
            }
            let chunk = tokio::time::timeout(DEADLINE, self.response.chunk());
            match chunk.await.expect("no event in time")? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }

    /// The type of the next event, and the name of its object.
    pub(crate) async fn named(&mut self) -> (String, String) {
        let event = self.next().await.unwrap().expect("the watch ended");
        let name = event["object"]["metadata"]["name"].as_str();
        (
            event["type"].as_str().unwrap_or_default().to_owned(),
            name.unwrap_or_default().to_owned(),
        )
    }

    /// Whether no event comes for a while.
    pub(crate) async fn is_silent(&mut self) -> bool {
        let while_silent = Duration::from_millis(300);
        let next = tokio::time::timeout(while_silent, self.response.chunk());
        next.await.is_err()
    }
}

/// The value that [`Watch::named`] returns for an event of this type.
pub(crate) fn event(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}
