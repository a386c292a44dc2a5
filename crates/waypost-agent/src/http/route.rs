//! Route definitions: a path, and the handler of each method.

use std::pin::Pin;

use http::Method;

use super::blocking::{BlockingQuery, QueryKind, QueryResult};
use super::request::ApiRequest;
use super::response::{ApiError, ApiResponse};
use crate::store::Topic;

/// A path and its handlers. A path that ends in `/` also matches every path below it.
pub(crate) struct Route {
    pub path: &'static str,
    pub methods: &'static [(Method, Handler)],
    /// Whether naming an Enterprise namespace in a request is an error.
    pub rejects_namespace: bool,
    /// The largest request body, where that is less than the limit of the server.
    pub body_limit: Option<BodyLimit>,
}

/// The largest body that a route accepts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimit {
    /// In bytes.
    pub size: usize,
    /// The name of Consul's setting, for the error text.
    pub setting: &'static str,
}

/// How a request is answered.
pub(crate) enum Handler {
    /// By a function that returns at once.
    Sync(fn(&ApiRequest) -> Result<ApiResponse, ApiError>),
    /// By a future that isn't a blocking query.
    Async(fn(ApiRequest) -> ResponseFuture),
    /// By a blocking query.
    Blocking(BlockingQuery),
    /// By a blocking query whose response has cache headers with `?cached`. There is no cache: the
    /// response is always current.
    CachedBlocking(BlockingQuery),
}

/// The future of a response.
pub(crate) type ResponseFuture =
    Pin<Box<dyn Future<Output = Result<ApiResponse, ApiError>> + Send>>;

impl Handler {
    /// A blocking query. `topic` is what wakes it.
    pub(crate) const fn blocking(
        kind: QueryKind,
        topic: fn(&ApiRequest) -> Topic,
        run: fn(&ApiRequest) -> Result<QueryResult, ApiError>,
    ) -> Self {
        Self::Blocking(BlockingQuery { topic, run, kind })
    }

    /// A blocking query with cache headers.
    pub(crate) const fn cached(
        kind: QueryKind,
        topic: fn(&ApiRequest) -> Topic,
        run: fn(&ApiRequest) -> Result<QueryResult, ApiError>,
    ) -> Self {
        Self::CachedBlocking(BlockingQuery { topic, run, kind })
    }
}

impl Route {
    pub(crate) const fn new(path: &'static str, methods: &'static [(Method, Handler)]) -> Self {
        Self {
            path,
            methods,
            rejects_namespace: true,
            body_limit: None,
        }
    }

    pub(crate) const fn with_body_limit(self, size: usize, setting: &'static str) -> Self {
        Self {
            body_limit: Some(BodyLimit { size, setting }),
            ..self
        }
    }

    /// Ignores a namespace in the request instead of rejecting it.
    pub(crate) const fn without_namespace(self) -> Self {
        Self {
            rejects_namespace: false,
            ..self
        }
    }
}
