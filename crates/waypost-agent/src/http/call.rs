//! A request, with what Consul lets every request say.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::form_urlencoded;

use super::json;
use super::path::unescape;
use super::reply::{Body, Refusal, Reply};
use crate::app::App;
use crate::decode;
use crate::go_compat;

/// A request on its way to a handler.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub app: Arc<App>,
    pub body: Bytes,
    pub query: Query,
    /// What follows the route's path: a name, an id, a key.
    pub rest: String,
}

/// The parameters of a request, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

/// How fresh an answer the client wants. With one node it is always the freshest; only the header
/// tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consistency {
    Leader,
    Stale,
    Consistent,
}

/// What every read of the catalog may say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadOptions {
    /// Answer only when the index is higher; 0 is at once.
    pub index: u64,
    /// How long to wait for that; none is Consul's default.
    pub wait: Option<Duration>,
    pub consistency: Consistency,
}

impl Query {
    /// Nothing if there is a `%` without two hexadecimal digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let pairs = text.split(['&', ';']).filter(|pair| !pair.is_empty());
        let decoded = pairs.map(|pair| {
            unescape(pair)?;
            let (name, value) = form_urlencoded::parse(pair.as_bytes()).next()?;
            Some((name.into_owned(), value.into_owned()))
        });
        Some(Self(decoded.collect::<Option<_>>()?))
    }

    /// The parameter's first value, empty when it is missing.
    pub(crate) fn get(&self, name: &'static str) -> &str {
        self.all(name).next().unwrap_or_default()
    }

    /// All parameters in order of their names, as a client would write them.
    pub(crate) fn encoded(&self) -> String {
        let mut pairs = self.0.clone();
        pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
        form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pairs)
            .finish()
    }

    pub(crate) fn has(&self, name: &'static str) -> bool {
        self.all(name).next().is_some()
    }

    pub(crate) fn all(&self, name: &'static str) -> impl Iterator<Item = &str> {
        let named = self.0.iter().filter(move |(known, _)| known == name);
        named.map(|(_, value)| value.as_str())
    }
}

impl Call {
    /// What follows the route's path, which must not be empty; `what` is said if it is.
    pub(crate) fn name(&self, what: &str) -> Result<&str, Refusal> {
        match self.rest.as_str() {
            "" => Err(Refusal::bad_request(format!("Missing {what}"))),
            name => Ok(name),
        }
    }

    /// Reads the first JSON value of the body.
    pub(crate) fn decode<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        decode::from_slice(&self.body)
            .map_err(|error| Refusal::bad_request(format!("Request decode failed: {error}")))
    }

    pub(crate) fn json<T: Serialize + ?Sized>(&self, value: &T) -> Result<Reply, Refusal> {
        Ok(Reply::json(self.json_body(value)?))
    }

    pub(crate) fn json_body<T: Serialize + ?Sized>(&self, value: &T) -> Result<Body, Refusal> {
        let text = json::to_vec(value, self.pretty())?;
        Ok(Body::Own(text.into()))
    }

    pub(crate) fn pretty(&self) -> bool {
        self.query.has("pretty")
    }

    /// `?wait`; none is Consul's default.
    pub(crate) fn wait(&self) -> Result<Option<Duration>, Refusal> {
        match self.query.get("wait") {
            "" => Ok(None),
            text => match go_compat::parse_duration(text) {
                Ok(nanoseconds) => {
                    Ok(Some(go_compat::duration(nanoseconds)).filter(|it| !it.is_zero()))
                }
                Err(_) => Err(Refusal::bad_request("Invalid wait time")),
            },
        }
    }

    /// The options of a read, with Consul's complaints about them.
    pub(crate) fn read_options(&self) -> Result<ReadOptions, Refusal> {
        let wait = self.wait()?;
        let index = match self.query.get("index") {
            "" => 0,
            text => text
                .parse()
                .map_err(|_| Refusal::bad_request("Invalid index"))?,
        };
        let stale = self.query.has("stale") || self.allows_staleness()?;
        let consistency = match (stale, self.query.has("consistent")) {
            (true, true) => {
                return Err(Refusal::bad_request(
                    "Cannot specify ?stale with ?consistent, conflicting semantics.",
                ));
            }
            (true, false) => Consistency::Stale,
            (false, true) => Consistency::Consistent,
            (false, false) => Consistency::Leader,
        };
        Ok(ReadOptions {
            index,
            wait,
            consistency,
        })
    }

    /// `?max_stale`: how old an answer may be.
    fn allows_staleness(&self) -> Result<bool, Refusal> {
        match self.query.get("max_stale") {
            "" => Ok(false),
            text => go_compat::parse_duration(text)
                .map(|nanoseconds| nanoseconds > 0)
                .map_err(|_| Refusal::bad_request(format!("Invalid max_stale value {text:?}"))),
        }
    }

    /// Refuses what is for another datacenter.
    pub(crate) fn refuse_elsewhere(&self) -> Result<(), Refusal> {
        if self.is_for_here() {
            Ok(())
        } else {
            Err(Refusal::internal("No path to datacenter"))
        }
    }

    /// Whether the request is for this datacenter, the only one there is.
    pub(crate) fn is_for_here(&self) -> bool {
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
