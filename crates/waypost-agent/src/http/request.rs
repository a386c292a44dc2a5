//! A request as handlers see it, and the query parameters that all endpoints have in common.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::form_urlencoded;

use super::json;
use super::path::unescape;
use super::response::{ApiError, ApiResponse, ResponseBody};
use crate::app::App;
use crate::filter::EvaluationLimit;
use crate::store::{Topic, fold_case};
use crate::{decode, go_compat};

/// A request that has been routed to a handler.
#[derive(Clone, Debug)]
pub(crate) struct ApiRequest {
    pub app: Arc<App>,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub query: QueryParams,
    /// The part of the path after the route's path: a name, an id or a key.
    pub suffix: String,
    /// The limit on the evaluation of filters; `None` for no limit.
    pub evaluation_limit: Option<Arc<EvaluationLimit>>,
}

/// Decoded query parameters, in the order of the request.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueryParams(Vec<(String, String)>);

/// The consistency mode that the client requests. With one node every response is consistent; the mode
/// only appears in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consistency {
    Leader,
    Stale,
    Consistent,
}

/// The parameters of a blocking query.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueryOptions {
    /// `?index`: respond once the index is higher. 0 responds at once.
    pub index: u64,
    /// `?wait`: the longest wait. `None` is the default.
    pub wait: Option<Duration>,
    pub consistency: Consistency,
}

impl QueryParams {
    /// `None` if there is a `%` without two hexadecimal digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let pairs = text.split(['&', ';']).filter(|pair| !pair.is_empty());
        let decoded = pairs.map(|pair| {
            unescape(pair)?;
            let (name, value) = form_urlencoded::parse(pair.as_bytes()).next()?;
            Some((name.into_owned(), value.into_owned()))
        });
        Some(Self(decoded.collect::<Option<_>>()?))
    }

    /// The first value of a parameter, or an empty string.
    pub(crate) fn get(&self, name: &'static str) -> &str {
        self.all(name).next().unwrap_or_default()
    }

    pub(crate) fn has(&self, name: &'static str) -> bool {
        self.all(name).next().is_some()
    }

    pub(crate) fn all(&self, name: &'static str) -> impl Iterator<Item = &str> {
        let named = self.0.iter().filter(move |(known, _)| known == name);
        named.map(|(_, value)| value.as_str())
    }

    /// All parameters sorted by name and percent-encoded.
    pub(crate) fn encoded(&self) -> String {
        let mut pairs = self.0.clone();
        pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
        form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pairs)
            .finish()
    }
}

impl ApiRequest {
    /// The suffix, or the error `Missing {what}` if it is empty.
    pub(crate) fn required_suffix(&self, what: &str) -> Result<&str, ApiError> {
        match self.suffix.as_str() {
            "" => Err(ApiError::bad_request(format!("Missing {what}"))),
            suffix => Ok(suffix),
        }
    }

    /// The topic of the service whose name is the suffix.
    pub(crate) fn service_topic(&self) -> Topic {
        Topic::Service(fold_case(&self.suffix))
    }

    /// The topic of the node whose name is the suffix.
    pub(crate) fn node_topic(&self) -> Topic {
        Topic::Node(fold_case(&self.suffix))
    }

    /// Deserializes the first JSON value of the body.
    pub(crate) fn decode<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        decode::from_slice(&self.body)
            .map_err(|error| ApiError::bad_request(format!("Request decode failed: {error}")))
    }

    pub(crate) fn json<T: Serialize + ?Sized>(&self, value: &T) -> Result<ApiResponse, ApiError> {
        Ok(ApiResponse::json(self.json_body(value)?))
    }

    pub(crate) fn json_body<T: Serialize + ?Sized>(
        &self,
        value: &T,
    ) -> Result<ResponseBody, ApiError> {
        let text = json::to_vec(value, self.is_pretty())?;
        Ok(ResponseBody::Owned(text.into()))
    }

    /// Whether there is a filter, whose evaluation may take long.
    pub(crate) fn has_filter(&self) -> bool {
        !self.query.get("filter").is_empty()
    }

    pub(crate) fn is_pretty(&self) -> bool {
        self.query.has("pretty")
    }

    /// `?wait`. `None` is the default.
    pub(crate) fn wait(&self) -> Result<Option<Duration>, ApiError> {
        match self.query.get("wait") {
            "" => Ok(None),
            text => match go_compat::parse_duration(text) {
                Ok(nanoseconds) => {
                    Ok(Some(go_compat::duration(nanoseconds)).filter(|it| !it.is_zero()))
                }
                Err(_) => Err(ApiError::bad_request("Invalid wait time")),
            },
        }
    }

    /// The options of a blocking query. The errors are Consul's.
    pub(crate) fn query_options(&self) -> Result<QueryOptions, ApiError> {
        let wait = self.wait()?;
        let index = match self.query.get("index") {
            "" => 0,
            text => text
                .parse()
                .map_err(|_| ApiError::bad_request("Invalid index"))?,
        };
        let stale = self.query.has("stale") || self.allows_stale()?;
        let consistency = match (stale, self.query.has("consistent")) {
            (true, true) => {
                return Err(ApiError::bad_request(
                    "Cannot specify ?stale with ?consistent, conflicting semantics.",
                ));
            }
            (true, false) => Consistency::Stale,
            (false, true) => Consistency::Consistent,
            (false, false) => Consistency::Leader,
        };
        Ok(QueryOptions {
            index,
            wait,
            consistency,
        })
    }

    /// Whether `?max_stale` is above 0.
    fn allows_stale(&self) -> Result<bool, ApiError> {
        match self.query.get("max_stale") {
            "" => Ok(false),
            text => go_compat::parse_duration(text)
                .map(|nanoseconds| nanoseconds > 0)
                .map_err(|_| ApiError::bad_request(format!("Invalid max_stale value {text:?}"))),
        }
    }

    /// Rejects a `?dc` other than the datacenter of this agent, the only one there is.
    pub(crate) fn require_local_datacenter(&self) -> Result<(), ApiError> {
        if self.is_for_local_datacenter() {
            Ok(())
        } else {
            Err(ApiError::internal("No path to datacenter"))
        }
    }

    pub(crate) fn is_for_local_datacenter(&self) -> bool {
        let datacenter = self.query.get("dc");
        datacenter.is_empty() || datacenter == self.app.datacenter
    }
}

impl Consistency {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Stale => "stale",
            Self::Consistent => "consistent",
        }
    }
}
