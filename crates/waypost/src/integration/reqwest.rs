//! reqwest: an HTTP client whose URLs name services.
//!
//! An instance is picked for each request, so kept-alive connections don't tie the client to the
//! instances that existed when it started.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use reqwest::{Body, Request, Response, ResponseBuilderExt, Url};
use serde::Serialize;
use tokio::time::timeout;
use waypost_core::{Error, InstanceId, Invalid, ServiceAddress};

use super::http::classify;
use super::leased_body::LeasedBody;
use super::retry::{ATTEMPTS, RetryBudget, may_retry, pick_for};
use crate::balance::Lease;
use crate::client::ServiceDiscoveryClient;
use crate::outlier::Outcome;

/// An HTTP client that looks services up by name. Clones share all state.
///
/// ```no_run
/// # async fn example(discovery: waypost::ServiceDiscoveryClient) -> Result<(), Box<dyn std::error::Error>> {
/// use waypost::integration::reqwest::Client;
///
/// // Instances are reached directly, also if the environment names a proxy.
/// let http = reqwest::Client::builder().no_proxy().build()?;
/// let client = Client::new(discovery, http);
/// let users = client.get("http://auth/users").send().await?.text().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    discovery: ServiceDiscoveryClient,
    http: reqwest::Client,
    budget: Arc<RetryBudget>,
    attempt_timeout: Option<Duration>,
}

/// Why a request got no response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// There is no usable instance, or the address is invalid.
    #[error(transparent)]
    Discovery(#[from] Error),
    /// The last instance that it was sent to did not start to respond within
    /// [`attempt_timeout`](Client::attempt_timeout).
    #[error("no response from {instance} within {}", humantime::format_duration(*.after))]
    AttemptTimeout {
        /// The instance.
        instance: InstanceId,
        /// The timeout.
        after: Duration,
    },
    /// The request is invalid, or sending it failed.
    #[error(transparent)]
    Http(#[from] reqwest::Error),
}

impl From<Invalid> for RequestError {
    fn from(invalid: Invalid) -> Self {
        Self::Discovery(invalid.into())
    }
}

impl Client {
    /// A client that sends requests through `http` to instances from `discovery`.
    pub fn new(discovery: ServiceDiscoveryClient, http: reqwest::Client) -> Self {
        Self {
            discovery,
            http,
            budget: Arc::new(RetryBudget::new()),
            attempt_timeout: None,
        }
    }

    /// The time limit of one attempt, until the response headers arrive. An attempt that takes longer
    /// fails, so an instance that hangs is ejected like one that refuses connections. If the method is
    /// idempotent, the request is sent to another instance. The limit for the whole request is
    /// [`reqwest::ClientBuilder::timeout`]. None by default.
    #[must_use]
    pub fn attempt_timeout(mut self, limit: Duration) -> Self {
        self.attempt_timeout = Some(limit);
        self
    }

    /// Builds a `GET` request. The address has the form of a [`ServiceAddress`], such as
    /// `http://auth/users`.
    pub fn get(&self, address: &str) -> RequestBuilder {
        self.request(Method::GET, address)
    }

    /// Builds a `POST` request.
    pub fn post(&self, address: &str) -> RequestBuilder {
        self.request(Method::POST, address)
    }

    /// Builds a `PUT` request.
    pub fn put(&self, address: &str) -> RequestBuilder {
        self.request(Method::PUT, address)
    }

    /// Builds a `DELETE` request.
    pub fn delete(&self, address: &str) -> RequestBuilder {
        self.request(Method::DELETE, address)
    }

    /// Builds a request with any method.
    pub fn request(&self, method: Method, address: &str) -> RequestBuilder {
        RequestBuilder {
            client: self.clone(),
            address: address.parse(),
            // A placeholder: the URL is set when an instance has been picked.
            request: self.http.request(method, "http://instance.invalid/"),
        }
    }

    /// Sends a request to an instance. If it fails without a response, it is retried at up to two other
    /// instances, provided that it was never sent or that its method is idempotent. Retries are limited
    /// to a fifth of the requests. The request counts as in flight until the response body ends or is
    /// dropped.
    ///
    /// # Errors
    /// If there is no usable instance, or sending fails. 4xx and 5xx are not errors.
    pub async fn execute(
        &self,
        address: &ServiceAddress,
        mut request: Request,
    ) -> Result<Response, RequestError> {
        self.budget.deposit();
        let balancer = self.discovery.shared_balancer(address.service());
        // The query that was added with `RequestBuilder::query`.
        let query = request.url().query().map(str::to_owned);
        let mut tried = Vec::new();
        loop {
            let (lease, url) = pick_for(&balancer, address, &tried).await?;
            *request.url_mut() = with_query(&url, query.as_deref())?;
            let is_last = tried.len() + 1 == ATTEMPTS;
            // `None` if the body is a stream.
            let copy = if is_last { None } else { request.try_clone() };
            let method = request.method().clone();
            let (error, may_retry) = match self.attempt(request, &lease).await {
                Ok(response) => {
                    lease.record(classify(response.status(), response.headers()));
                    return Ok(with_lease(response, lease));
                }
                Err(RequestError::Http(error)) if error.is_builder() => return Err(error.into()),
                Err(RequestError::Http(error)) => {
                    // Any other timeout is that of the whole request, so no time is left to retry.
                    let may_retry =
                        error.is_connect() || !error.is_timeout() && may_retry(&method, &error);
                    (error.into(), may_retry)
                }
                Err(error) => (error, method.is_idempotent()),
            };
            lease.record(Outcome::Failed);
            match copy {
                Some(copy) if may_retry && self.budget.withdraw() => request = copy,
                _ => return Err(error),
            }
            tried.push(lease.id().clone());
        }
    }

    async fn attempt(&self, request: Request, lease: &Lease) -> Result<Response, RequestError> {
        let response = self.http.execute(request);
        let Some(after) = self.attempt_timeout else {
            return Ok(response.await?);
        };
        match timeout(after, response).await {
            Ok(response) => Ok(response?),
            Err(_) => Err(RequestError::AttemptTimeout {
                instance: lease.id().clone(),
                after,
            }),
        }
    }
}

/// The response, with a body that holds the lease.
fn with_lease(response: Response, lease: Lease) -> Response {
    let url = response.url().clone();
    let (mut parts, body) = http::Response::<Body>::from(response).into_parts();
    // reqwest keeps the URL beside the HTTP response; the conversion back reads it from an extension.
    if let Ok(with_url) = http::Response::builder().url(url).body(()) {
        parts.extensions.extend(with_url.into_parts().0.extensions);
    }
    let body = Body::wrap(LeasedBody::new(body, lease));
    http::Response::from_parts(parts, body).into()
}

fn with_query(url: &str, query: Option<&str>) -> Result<Url, Invalid> {
    let mut parsed = Url::parse(url)
        .map_err(|error| Invalid::new("URL of an instance", url, error.to_string()))?;
    if let Some(query) = query {
        let joined = match parsed.query() {
            Some(first) => format!("{first}&{query}"),
            None => query.to_owned(),
        };
        parsed.set_query(Some(&joined));
    }
    Ok(parsed)
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("discovery", &self.discovery)
            .finish_non_exhaustive()
    }
}

/// Builds a request; see [`Client::request`].
#[derive(Debug)]
#[must_use = "call `send` to send the request"]
pub struct RequestBuilder {
    client: Client,
    address: Result<ServiceAddress, Invalid>,
    request: reqwest::RequestBuilder,
}

impl RequestBuilder {
    /// Changes the request with reqwest's own builder, for options that have no method here.
    pub fn with(
        mut self,
        edit: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Self {
        self.request = edit(self.request);
        self
    }

    /// Adds a header.
    pub fn header(self, name: &str, value: &str) -> Self {
        self.with(|request| request.header(name, value))
    }

    /// Sets the body.
    pub fn body(self, body: impl Into<Body>) -> Self {
        self.with(|request| request.body(body))
    }

    /// Sets the body to a value in JSON.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Self {
        self.with(|request| request.json(value))
    }

    /// Adds parameters to the query.
    pub fn query<T: Serialize + ?Sized>(self, query: &T) -> Self {
        self.with(|request| request.query(query))
    }

    /// Sends the request.
    ///
    /// # Errors
    /// The same as for [`Client::execute`].
    pub async fn send(self) -> Result<Response, RequestError> {
        let (address, request) = (self.address?, self.request.build()?);
        self.client.execute(&address, request).await
    }
}
