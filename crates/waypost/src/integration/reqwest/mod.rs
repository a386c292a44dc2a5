//! reqwest: an HTTP client whose URLs name services.
//!
//! An instance is picked for each request, so kept-alive connections don't tie the client to the
//! instances that existed when it started.

mod resolver;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use http::{HeaderMap, Method, StatusCode};
use reqwest::{Body, Request, Response, ResponseBuilderExt, Url};
use serde::Serialize;
use waypost_core::{Error, Instance, InstanceId, Invalid, ServiceAddress};

use super::leased_body::LeasedBody;
use super::retry::{
    AttemptTimeout, Call, Failure, HttpClient, RetryBudget, RetryPolicy, send, was_never_sent,
};
use crate::balance::{Key, Lease};
use crate::client::ServiceDiscoveryClient;
use crate::selector::Selector;

/// The crate, in the version whose types are used here.
pub use ::reqwest;

pub use self::resolver::ServiceResolver;

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
    policy: RetryPolicy,
}

/// Why a request got no response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// There is no usable instance, or the address is invalid.
    #[error(transparent)]
    Discovery(#[from] Error),
    /// The last instance that it was sent to did not start to respond within
    /// [`RetryPolicy::attempt_timeout`].
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

impl From<AttemptTimeout> for RequestError {
    fn from(AttemptTimeout { instance, after }: AttemptTimeout) -> Self {
        Self::AttemptTimeout { instance, after }
    }
}

impl Client {
    /// A client that sends requests through `http` to instances from `discovery`.
    pub fn new(discovery: ServiceDiscoveryClient, http: reqwest::Client) -> Self {
        Self {
            discovery,
            http,
            budget: Arc::new(RetryBudget::new()),
            policy: RetryPolicy::new(),
        }
    }

    /// Sets how many attempts a request has, their time limit, and whether there are retries after a
    /// response or hedges. [`RequestBuilder::policy`] sets it for one request.
    #[must_use]
    pub fn policy(mut self, policy: RetryPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// The time limit of one attempt; see [`RetryPolicy::attempt_timeout`]. 15 s by default. The limit for
    /// the whole request is [`reqwest::ClientBuilder::timeout`].
    #[must_use]
    pub fn attempt_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.policy = self.policy.attempt_timeout(limit);
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
            key: None,
            // A placeholder: the URL is set when an instance has been picked.
            request: self.http.request(method, "http://instance.invalid/"),
        }
    }

    /// Sends a request to an instance. If it fails without a response, it is retried at up to two other
    /// instances, provided that it was never sent or that its method is idempotent; a
    /// [policy](Self::policy) changes that. Retries are limited to a fifth of the requests. The request
    /// counts as in flight until the response body ends or is dropped.
    ///
    /// # Errors
    /// If there is no usable instance, or sending fails. 4xx and 5xx are not errors.
    pub async fn execute(
        &self,
        address: &ServiceAddress,
        request: Request,
    ) -> Result<Response, RequestError> {
        self.send(address, None, request).await
    }

    async fn send(
        &self,
        address: &ServiceAddress,
        key: Option<Key>,
        request: Request,
    ) -> Result<Response, RequestError> {
        let balancer = self.discovery.shared_balancer(address.service());
        let call = Call {
            balancer: &balancer,
            address,
            key,
            policy: &self.policy,
            budget: &self.budget,
        };
        let http = Http {
            client: self.http.clone(),
            // The query that was added with `RequestBuilder::query`.
            query: request.url().query().map(str::to_owned),
        };
        let (response, lease) = send(http, call, request).await?;
        Ok(with_lease(response, lease))
    }
}

/// reqwest's client, with the query of the request.
struct Http {
    client: reqwest::Client,
    query: Option<String>,
}

impl HttpClient for Http {
    type Request = Request;
    type Response = Response;
    type Error = RequestError;
    type Sending = BoxFuture<'static, Result<Response, Failure<RequestError>>>;

    fn method(request: &Request) -> &Method {
        request.method()
    }

    fn copy(&self, request: &Request) -> Option<Request> {
        // `None` if the body is a stream.
        request.try_clone()
    }

    fn start(
        &self,
        mut request: Request,
        _: &Instance,
        url: &str,
    ) -> Result<Self::Sending, RequestError> {
        *request.url_mut() = with_query(url, self.query.as_deref())?;
        let response = self.client.execute(request);
        Ok(async {
            response.await.map_err(|error| {
                let failure = if error.is_builder() {
                    Failure::InvalidRequest
                } else if was_never_sent(&error) {
                    Failure::NotSent
                } else if error.is_timeout() {
                    // Each attempt has a separate time limit, so this is the limit of the whole request.
                    Failure::OutOfTime
                } else {
                    Failure::Lost
                };
                failure(RequestError::Http(error))
            })
        }
        .boxed())
    }

    fn head(response: &Response) -> (StatusCode, &HeaderMap) {
        (response.status(), response.headers())
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
    key: Option<Key>,
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

    /// Sends the request only to instances that the selector accepts.
    pub fn select(mut self, selector: impl Into<Arc<Selector>>) -> Self {
        self.client.discovery = self.client.discovery.with_selector(selector);
        self
    }

    /// Sends all requests with the same key to the same instance, if the strategy is `consistent_hash`;
    /// other strategies ignore the key. While that instance can't be used, the key belongs to another one;
    /// a retry goes to any other.
    pub fn key(mut self, key: Key) -> Self {
        self.key = Some(key);
        self
    }

    /// Sets the attempts of this request, in place of the [client's](Client::policy).
    pub fn policy(mut self, policy: RetryPolicy) -> Self {
        self.client.policy = policy;
        self
    }

    /// Sends the request.
    ///
    /// # Errors
    /// The same as for [`Client::execute`].
    pub async fn send(self) -> Result<Response, RequestError> {
        let (address, request) = (self.address?, self.request.build()?);
        self.client.send(&address, self.key, request).await
    }
}
