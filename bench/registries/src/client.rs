//! A minimal HTTP client for both registries, so that the client doesn't dominate the measurements.

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, sleep};

use crate::Result;

/// The timeout of operations that should be immediate.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// The number of services that instances are distributed over.
const SERVICES: usize = 100;

/// A keep-alive connection.
pub(crate) struct Client(BufReader<TcpStream>);

pub(crate) struct Response {
    pub index: u64,
    pub body: Vec<u8>,
}

impl Client {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(BufReader::new(stream))
    }

    pub(crate) async fn register(&mut self, n: usize) -> Result<()> {
        self.register_as(&format!("service-{}", n % SERVICES), n)
            .await
    }

    pub(crate) async fn register_as(&mut self, service: &str, n: usize) -> Result<()> {
        let body = format!(
            r#"{{"ID":"{service}-{n}","Name":"{service}","Port":{},"Tags":["v1"],"Check":{{"TTL":"1h","Status":"passing"}}}}"#,
            1024 + n
        );
        self.put("/v1/agent/service/register", &body).await?;
        Ok(())
    }

    /// Repeats a query until the response has this many instances.
    pub(crate) async fn wait_for_instances(&mut self, path: &str, instances: usize) -> Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            let response = self.get(path).await?;
            let found: Vec<serde_json::Value> = serde_json::from_slice(&response.body)?;
            if found.len() == instances {
                return Ok(());
            }
            sleep(Duration::from_millis(5)).await;
        }
        Err(format!("{path} never had {instances} instances").into())
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<Response> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.exchange(&request).await
    }

    pub(crate) async fn put(&mut self, path: &str, body: &str) -> Result<Response> {
        let length = body.len();
        let request = format!(
            "PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        self.exchange(&request).await
    }

    async fn exchange(&mut self, request: &str) -> Result<Response> {
        self.0.write_all(request.as_bytes()).await?;
        let status = self.line().await?;
        let (mut length, mut chunked, mut index) = (0, false, 0);
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(": ") else {
                break;
            };
            match name {
                "Content-Length" => length = value.parse()?,
                "Transfer-Encoding" => chunked = value == "chunked",
                "X-Consul-Index" => index = value.parse()?,
                _ => {}
            }
        }
        let mut body = Vec::new();
        while chunked {
            let size = usize::from_str_radix(&self.line().await?, 16)?;
            self.read(&mut body, size).await?;
            self.line().await?;
            chunked = size > 0;
        }
        self.read(&mut body, length).await?;
        if !status.starts_with("HTTP/1.1 200") {
            let text = String::from_utf8_lossy(&body);
            return Err(format!("{status}: {text}").into());
        }
        Ok(Response { index, body })
    }

    async fn read(&mut self, into: &mut Vec<u8>, length: usize) -> Result<()> {
        let start = into.len();
        into.resize(start + length, 0);
        self.0.read_exact(&mut into[start..]).await?;
        Ok(())
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line).await? == 0 {
            return Err("the connection was closed".into());
        }
        Ok(line.trim_end().to_owned())
    }
}
