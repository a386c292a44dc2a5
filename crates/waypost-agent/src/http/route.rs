//! What an area says of its paths: who answers there, and how.

use std::pin::Pin;

use http::Method;

use super::blocking::Read;
use super::call::Call;
use super::reply::{Refusal, Reply};

/// A path and what can be done there. A path that ends in `/` stands for all below it too.
pub(crate) struct Route {
    pub path: &'static str,
    pub verbs: &'static [(Method, Handler)],
    /// Whether what is asked for would lie in a namespace, if there were any.
    pub namespaced: bool,
    /// The largest body, if that is less than others' may be.
    pub limit: Option<BodyLimit>,
}

/// How large a body may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimit {
    /// In bytes.
    pub size: usize,
    /// What Consul calls the setting.
    pub setting: &'static str,
}

/// Who answers.
pub(crate) enum Handler {
    /// At once.
    Plain(fn(&Call) -> Result<Reply, Refusal>),
    /// Later, and not by the rules of blocking queries.
    Later(fn(Call) -> Later),
    /// When the index has passed the client's.
    Blocking(Read),
    /// So too, and with `?cached` the answer says that it comes out of a cache. Ours is as fresh as
    /// any other.
    Cached(Read),
}

/// An answer to come.
pub(crate) type Later = Pin<Box<dyn Future<Output = Result<Reply, Refusal>> + Send>>;

impl Route {
    pub(crate) const fn new(path: &'static str, verbs: &'static [(Method, Handler)]) -> Self {
        Self {
            path,
            verbs,
            namespaced: true,
            limit: None,
        }
    }

    pub(crate) const fn up_to(self, size: usize, setting: &'static str) -> Self {
        Self {
            limit: Some(BodyLimit { size, setting }),
            ..self
        }
    }

    /// A route for which a namespace doesn't matter, so that naming one is no mistake.
    pub(crate) const fn beyond_namespaces(self) -> Self {
        Self {
            namespaced: false,
            ..self
        }
    }
}
