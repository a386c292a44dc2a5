//! Blocking queries: a client sends the index that it has seen, and the response waits for a higher
//! one.
//!
//! The rules are Consul's. An index of 0 is answered at once. The wait is 5 minutes by default and
//! 10 at most, plus up to a sixteenth of it, so that many clients don't return at the same time.
//! When it ends, the response has the current state.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::evaluation::evaluate;
use super::request::{ApiRequest, Consistency, QueryOptions};
use super::response::{ApiError, ApiResponse, ResponseBody};
use crate::store::Topic;

pub(crate) const DEFAULT_WAIT: Duration = Duration::from_secs(5 * 60);
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(10 * 60);

/// The wait is extended by up to this fraction of it.
const JITTER_FRACTION: u32 = 16;

/// A query that can wait for a change.
pub(crate) struct BlockingQuery {
    /// The topic whose changes wake the query.
    pub topic: fn(&ApiRequest) -> Topic,
    pub run: fn(&ApiRequest) -> Result<QueryResult, ApiError>,
    pub kind: QueryKind,
}

/// The kind of data that a query reads. The response headers and a few rules depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueryKind {
    /// Nodes, services and checks. The response has a consistency header.
    Catalog,
    /// The same for the web page.
    Ui,
    Sessions,
    /// Keys. Errors don't have the headers of a query.
    Keys,
    /// Coordinates. A 404 doesn't have the headers of a query either.
    Coordinates,
    /// User events. Their index isn't monotonic, and there is no leader header.
    Events,
}

/// A response body and the index at which it was current.
#[derive(Debug)]
pub(crate) struct QueryResult {
    pub index: u64,
    pub body: ResponseBody,
}

/// The response of a query, or the future of it.
pub(crate) enum QueryOutcome {
    Ready(Result<ApiResponse, ApiError>),
    Waiting(Pin<Box<dyn Future<Output = Result<ApiResponse, ApiError>> + Send>>),
}

impl BlockingQuery {
    /// Runs the query. A future is allocated only if it has to wait.
    pub(crate) fn start(&'static self, request: ApiRequest) -> QueryOutcome {
        let options = match request.query_options() {
            Ok(options) => options,
            Err(error) => return QueryOutcome::Ready(Err(error)),
        };
        if !request.is_for_local_datacenter() && self.kind != QueryKind::Events {
            let error = ApiError::internal("No path to datacenter");
            return QueryOutcome::Ready(if self.kind == QueryKind::Keys {
                Err(error)
            } else {
                Ok(failed_query(error))
            });
        }
        if request.has_filter() {
            return QueryOutcome::Waiting(Box::pin(async move {
                match self.evaluate_and_wait(&request, options).await {
                    Err(error) if error.is_query_error() => Ok(failed_query(error)),
                    result => result,
                }
            }));
        }
        let result = match (self.run)(&request) {
            Ok(result) => result,
            Err(error) if error.is_query_error() => {
                return QueryOutcome::Ready(Ok(failed_query(error)));
            }
            Err(error) => return QueryOutcome::Ready(Err(error)),
        };
        if options.index == 0 || self.is_newer(&request, &result, options.index) {
            let response = self.respond(&request, result, options.consistency);
            return QueryOutcome::Ready(Ok(response));
        }
        QueryOutcome::Waiting(Box::pin(async move {
            let result = self.wait(&request, options).await?;
            Ok(self.respond(&request, result, options.consistency))
        }))
    }

    /// Runs a query with a filter.
    async fn evaluate_and_wait(
        &self,
        request: &ApiRequest,
        options: QueryOptions,
    ) -> Result<ApiResponse, ApiError> {
        let mut result = evaluate(request, self.run).await?;
        if options.index > 0 && !self.is_newer(request, &result, options.index) {
            result = self.wait(request, options).await?;
        }
        Ok(self.respond(request, result, options.consistency))
    }

    async fn wait(
        &self,
        request: &ApiRequest,
        options: QueryOptions,
    ) -> Result<QueryResult, ApiError> {
        let wait = options.wait.unwrap_or(DEFAULT_WAIT).min(MAX_WAIT);
        let deadline = Instant::now() + with_jitter(wait, request);
        let watch = request.app.store.watch((self.topic)(request));
        let faults = &request.app.faults;
        loop {
            let change = watch.listen();
            let interruption = faults.interrupted();
            let result = if request.has_filter() {
                evaluate(request, self.run).await?
            } else {
                (self.run)(request)?
            };
            if self.is_newer(request, &result, options.index) {
                return Ok(result);
            }
            tokio::select! {
                () = change => {}
                () = interruption => {
                    return if faults.returns_empty() {
                        Ok(result)
                    } else {
                        Err(ApiError::close_connection())
                    };
                }
                () = sleep_until(deadline) => return Ok(result),
            }
        }
    }

    /// Whether the result is newer than what the client has seen.
    fn is_newer(&self, request: &ApiRequest, result: &QueryResult, seen: u64) -> bool {
        match self.kind {
            QueryKind::Events => result.index != seen,
            _ => request.app.faults.shown_index(result.index) > seen,
        }
    }

    fn respond(
        &self,
        request: &ApiRequest,
        result: QueryResult,
        consistency: Consistency,
    ) -> ApiResponse {
        let faults = &request.app.faults;
        let is_catalog = matches!(self.kind, QueryKind::Catalog | QueryKind::Ui);
        let body = if is_catalog && faults.returns_empty() {
            result.body.to_empty()
        } else {
            result.body
        };
        let is_not_found = matches!(body, ResponseBody::NotFound);
        let mut response = ApiResponse::of(body);
        match self.kind {
            QueryKind::Events => {
                return response.header("x-consul-index", result.index.to_string());
            }
            QueryKind::Coordinates if is_not_found => return response,
            _ => {}
        }
        if self.kind == QueryKind::Catalog {
            response = response.header("x-consul-effective-consistency", consistency.as_str());
        }
        let index = faults.shown_index(result.index);
        with_query_headers(response, index, "true")
    }
}

fn failed_query(error: ApiError) -> ApiResponse {
    with_query_headers(error.into(), 1, "false")
}

fn with_query_headers(response: ApiResponse, index: u64, known_leader: &str) -> ApiResponse {
    response
        .header("x-consul-index", index.max(1).to_string())
        .header("x-consul-knownleader", known_leader)
        .header("x-consul-lastcontact", "0")
}

fn with_jitter(wait: Duration, request: &ApiRequest) -> Duration {
    let jitter = request.app.random(|random| random.f64());
    wait + (wait / JITTER_FRACTION).mul_f64(jitter)
}
