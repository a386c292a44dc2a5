//! reqwest: a client whose URLs name services.
//!
//! An instance is chosen for each request, so that kept connections don't pin a client to the
//! instances that were there when it started.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use reqwest::{Body, Request, Response, Url};
use serde::Serialize;
use tokio::time::timeout;
use tower::retry::budget::{Budget, TpsBudget};
use waypost_core::{Error, InstanceId, Invalid, ServiceAddress};

use super::http::classify;
use super::retry::{ATTEMPTS, choose, may_repeat, retry_budget};
use crate::balance::Lease;
use crate::client::ServiceDiscoveryClient;
use crate::outlier::Outcome;

/// An HTTP client that finds services by name. Clones share everything.
///
/// ```no_run
/// # async fn example(discovery: waypost::ServiceDiscoveryClient) -> Result<(), Box<dyn std::error::Error>> {
/// use waypost::integration::reqwest::Client;
///
/// let client = Client::new(discovery, reqwest::Client::new());
/// let users = client.get("http://auth/users").send().await?.text().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    discovery: ServiceDiscoveryClient,
    http: reqwest::Client,
    budget: Arc<TpsBudget>,
    attempt_timeout: Option<Duration>,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No instance was found to send it to.
    #[error(transparent)]
    Discovery(#[from] Error),
    /// The instance that it was sent to did not begin to answer within
    /// [`attempt_timeout`](Client::attempt_timeout), and it may not be sent again.
    #[error("{instance} did not answer within {}", humantime::format_duration(*.after))]
    NoAnswer {
        /// The instance.
        instance: InstanceId,
        /// How long it had.
        after: Duration,
    },
    /// It could not be put together, or sending it failed.
    #[error(transparent)]
    Http(#[from] reqwest::Error),
}

impl From<Invalid> for RequestError {
    fn from(invalid: Invalid) -> Self {
        Self::Discovery(invalid.into())
    }
}

impl Client {
    /// Sends requests by `http` to instances that `discovery` finds.
    pub fn new(discovery: ServiceDiscoveryClient, http: reqwest::Client) -> Self {
        Self {
            discovery,
            http,
            budget: Arc::new(retry_budget()),
            attempt_timeout: None,
        }
    }

    /// How long an instance may take until its answer begins. One that takes longer has failed, and
    /// the request is sent to another if that is safe: an instance that hangs is ejected like one
    /// that refuses. The time that a request has in all is for [`reqwest::ClientBuilder::timeout`].
    /// No limit unless set.
    #[must_use]
    pub fn attempt_timeout(mut self, limit: Duration) -> Self {
        self.attempt_timeout = Some(limit);
        self
    }

    /// Begins a `GET` request; the address is one as in [`ServiceAddress`].
    pub fn get(&self, address: &str) -> RequestBuilder {
        self.request(Method::GET, address)
    }

    /// Begins a `POST` request.
    pub fn post(&self, address: &str) -> RequestBuilder {
        self.request(Method::POST, address)
    }

    /// Begins a `PUT` request.
    pub fn put(&self, address: &str) -> RequestBuilder {
        self.request(Method::PUT, address)
    }

    /// Begins a `DELETE` request.
    pub fn delete(&self, address: &str) -> RequestBuilder {
        self.request(Method::DELETE, address)
    }

    /// Begins any request.
    pub fn request(&self, method: Method, address: &str) -> RequestBuilder {
        RequestBuilder {
            client: self.clone(),
            address: address.parse(),
            // The URL is put in when an instance is chosen.
            request: self.http.request(method, "http://instance.invalid/"),
        }
    }

    /// Sends a request to an instance. One that fails without an answer is sent to up to two more,
    /// if that is safe: if it never left, or if its method is idempotent; at most a fifth of the
    /// requests are retries. The response counts as in flight as long as it is held.
    ///
    /// # Errors
    /// If there is no instance, or sending fails. An answer of 4xx or 5xx is an answer.
    pub async fn execute(
        &self,
        address: &ServiceAddress,
        mut request: Request,
    ) -> Result<Response, RequestError> {
        self.budget.deposit();
        let balancer = self.discovery.shared_balancer(address.service());
        // What `RequestBuilder::query` added.
        let query = request.url().query().map(str::to_owned);
        let mut tried = Vec::new();
        loop {
            let (lease, url) = choose(&balancer, address, &tried).await?;
            *request.url_mut() = with_query(&url, query.as_deref())?;
            let spare = match tried.len() + 1 < ATTEMPTS {
                true => request.try_clone(),
                false => None,
            };
            let method = request.method().clone();
            let (error, safe) = match self.attempt(request, &lease).await {
                Ok(mut response) => {
                    lease.record(classify(response.status(), response.headers()));
                    response.extensions_mut().insert(Arc::new(lease));
                    return Ok(response);
                }
                Err(RequestError::Http(error)) if error.is_builder() => return Err(error.into()),
                Err(RequestError::Http(error)) => {
                    // One that ran out of all its time has none left for another attempt.
                    let safe = !error.is_timeout() && may_repeat(&method, &error);
                    (error.into(), safe)
                }
                Err(error) => (error, method.is_idempotent()),
            };
            lease.record(Outcome::Failed);
            match spare {
                Some(spare) if safe && self.budget.withdraw() => request = spare,
                _ => return Err(error),
            }
            tried.push(lease.id().clone());
        }
    }

    async fn attempt(&self, request: Request, lease: &Lease) -> Result<Response, RequestError> {
        let answer = self.http.execute(request);
        let Some(after) = self.attempt_timeout else {
            return Ok(answer.await?);
        };
        match timeout(after, answer).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(RequestError::NoAnswer {
                instance: lease.id().clone(),
                after,
            }),
        }
    }
}

fn with_query(url: &str, query: Option<&str>) -> Result<Url, Invalid> {
    let mut parsed = Url::parse(url)
        .map_err(|error| Invalid::new("URL of an instance", url, error.to_string()))?;
    if let Some(query) = query {
        let whole = match parsed.query() {
            Some(own) => format!("{own}&{query}"),
            None => query.to_owned(),
        };
        parsed.set_query(Some(&whole));
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

/// A request that is put together; see [`Client::request`].
#[derive(Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct RequestBuilder {
    client: Client,
    address: Result<ServiceAddress, Invalid>,
    request: reqwest::RequestBuilder,
}

impl RequestBuilder {
    /// Does to the request what reqwest's own builder can and this one has no method for.
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

    /// Sets the body to a value as JSON.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Self {
        self.with(|request| request.json(value))
    }

    /// Adds to the query.
    pub fn query<T: Serialize + ?Sized>(self, query: &T) -> Self {
        self.with(|request| request.query(query))
    }

    /// Sends it.
    ///
    /// # Errors
    /// As [`Client::execute`].
    pub async fn send(self) -> Result<Response, RequestError> {
        let (address, request) = (self.address?, self.request.build()?);
        self.client.execute(&address, request).await
    }
}
