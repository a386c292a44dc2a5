//! A plain client, which sees every byte of what the server says.

use std::time::Duration;

use reqwest::{Certificate, Method, Response, StatusCode};
use serde_json::{Value, json};
use waypost_fake_kubernetes::{ADMIN, ApiServer, Builder, manifest};

/// Longer than anything here takes.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// The path of the slices in the namespace `demo`.
pub(crate) const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/demo/endpointslices";

/// A server, and a client that may do everything.
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
        let token = server.add_token(ADMIN, None);
        let client = Client::new(&server, Some(token));
        Self { server, client }
    }

    /// Puts a slice of the service `web` with one endpoint, and gives its revision.
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
        // What a library leaves to the program, a test's helper chooses.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let ca = Certificate::from_pem(server.ca_pem().as_bytes()).unwrap();
        let http = reqwest::Client::builder().tls_certs_only([ca]).no_proxy();
        Self {
            http: http.build().unwrap(),
            url: server.url(),
            token,
        }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
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

pub(crate) async fn answer(request: reqwest::RequestBuilder) -> (StatusCode, Value) {
    let answer = async {
        let response = request.send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or_else(|_| json!(text));
        (status, body)
    };
    tokio::time::timeout(SOON, answer).await.unwrap()
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

    /// The next event; None at a clean end.
    pub(crate) async fn next(&mut self) -> Result<Option<Value>, reqwest::Error> {
        loop {
            if let Some(end) = self.buffer.iter().position(|it| *it == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line).unwrap()));
            }
            let chunk = tokio::time::timeout(SOON, self.response.chunk());
            match chunk.await.expect("an event in time")? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }

    /// The next event: its type, and what its object is called.
    pub(crate) async fn named(&mut self) -> (String, String) {
        let event = self.next().await.unwrap().expect("an event, not the end");
        let name = event["object"]["metadata"]["name"].as_str();
        (
            event["type"].as_str().unwrap_or_default().to_owned(),
            name.unwrap_or_default().to_owned(),
        )
    }

    /// Whether nothing comes for a while.
    pub(crate) async fn is_silent(&mut self) -> bool {
        let patience = Duration::from_millis(300);
        tokio::time::timeout(patience, self.response.chunk())
            .await
            .is_err()
    }
}

pub(crate) fn event(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}
