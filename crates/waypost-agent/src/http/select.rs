//! The parameters that select and sort instances: `?passing`, `?tag`, `?node-meta`, `?filter` and
//! `?near`.

use serde::Serialize;

use super::request::ApiRequest;
use super::response::ApiError;
use crate::filter::{Filter, Shape};
use crate::go_compat;
use crate::store::{CheckStatus, Instance, Node, Service, State};

/// The conditions of a request, all of which must hold, and the order of the results.
#[derive(Debug, Default)]
pub(super) struct Selection {
    passing: bool,
    tags: Vec<String>,
    node_meta: Vec<(String, String)>,
    filter: Option<Filter>,
    near: Option<String>,
    /// Whether to list Connect-native instances and proxies instead.
    for_connect: bool,
}

impl Selection {
    /// The conditions that every list supports. `shape` has the fields that `?filter` can use.
    pub(super) fn of(request: &ApiRequest, shape: &'static Shape) -> Result<Self, ApiError> {
        Ok(Self {
            filter: parse_filter(request, shape).map_err(ApiError::query_error)?,
            ..Self::without_filter(request)
        })
    }

    /// The conditions of a list that doesn't support `?filter`.
    pub(super) fn without_filter(request: &ApiRequest) -> Self {
        let node_meta = request.query.all("node-meta").map(|pair| {
            let (key, value) = pair.split_once(':').unwrap_or((pair, ""));
            (key.to_owned(), value.to_owned())
        });
        Self {
            passing: false,
            tags: request.query.all("tag").map(str::to_lowercase).collect(),
            node_meta: node_meta.collect(),
            filter: None,
            near: near(request).map(str::to_owned),
            for_connect: false,
        }
    }

    /// The conditions that every list supports, and `?passing`.
    pub(super) fn with_passing(
        request: &ApiRequest,
        shape: &'static Shape,
    ) -> Result<Self, ApiError> {
        let selection = Self::of(request, shape)?;
        Ok(Self {
            passing: is_passing(request)?,
            ..selection
        })
    }

    /// Whether to list the Connect-native instances and proxies of a service instead.
    pub(super) fn for_connect(self, for_connect: bool) -> Self {
        Self {
            for_connect,
            ..self
        }
    }

    /// Whether only passing instances match.
    pub(super) fn passing(&self) -> bool {
        self.passing
    }

    /// Whether there are no conditions other than `passing`, and no order.
    pub(super) fn is_unconditional(&self) -> bool {
        self.tags.is_empty()
            && self.node_meta.is_empty()
            && self.filter.is_none()
            && self.near.is_none()
            && !self.for_connect
    }

    /// Sorts items by their distance from the node in `?near`.
    pub(super) fn sort<T>(&self, state: &State, items: &mut [T], node_of: impl Fn(&T) -> &str) {
        if let Some(near) = &self.near {
            state.coordinates.sort_by_distance(near, items, node_of);
        }
    }

    /// The instances that match, in Consul's order: an instance that isn't passing is replaced by
    /// the last one of the list. `view` makes the record that `?filter` is applied to.
    pub(super) fn select<'a, T: Serialize>(
        &self,
        instances: &'a [Instance],
        view: impl Fn(&'a Instance) -> T,
    ) -> Vec<&'a Instance> {
        let matches = |instance: &&'a Instance| {
            self.matches_node(&instance.node)
                && self.matches_tags(&instance.service)
                && self.matches_filter(|| view(instance))
        };
        let mut selected: Vec<_> = instances.iter().filter(matches).collect();
        let mut i = 0;
        while self.passing && i < selected.len() {
            let mut checks = selected[i].checks.iter();
            if checks.all(|check| check.status == CheckStatus::Passing) {
                i += 1;
            } else {
                selected.swap_remove(i);
            }
        }
        selected
    }

    fn matches_tags(&self, service: &Service) -> bool {
        let has = |wanted: &String| service.tags.iter().any(|tag| tag.to_lowercase() == *wanted);
        self.tags.iter().all(has)
    }

    /// Whether `?filter` matches a record in the format of the response.
    pub(super) fn matches_filter<T: Serialize>(&self, view: impl FnOnce() -> T) -> bool {
        matches(self.filter.as_ref(), view)
    }

    pub(super) fn matches_node(&self, node: &Node) -> bool {
        let meta = node.meta.as_ref();
        self.node_meta
            .iter()
            .all(|(key, value)| meta.is_some_and(|meta| meta.get(key) == Some(value)))
    }
}

/// The node in `?near`.
fn near(request: &ApiRequest) -> Option<&str> {
    match request.query.get("near") {
        "" => None,
        "_agent" => Some(&request.app.node_name),
        node => Some(node),
    }
}

/// `?passing`, which may have a boolean value. Without a value it is true.
fn is_passing(request: &ApiRequest) -> Result<bool, ApiError> {
    match request.query.get("passing") {
        "" => Ok(request.query.has("passing")),
        text => go_compat::parse_bool(text)
            .ok_or_else(|| ApiError::bad_request("Invalid value for ?passing")),
    }
}

/// Parses `?filter`.
pub(super) fn parse_filter(
    request: &ApiRequest,
    shape: &'static Shape,
) -> Result<Option<Filter>, String> {
    match request.query.get("filter") {
        "" => Ok(None),
        text => {
            let filter = Filter::parse(text, shape)?;
            Ok(Some(filter.with_limit(request.evaluation_limit.clone())))
        }
    }
}

/// Whether a filter matches a record in the format of the response. `None` matches every record.
pub(super) fn matches<T: Serialize>(filter: Option<&Filter>, view: impl FnOnce() -> T) -> bool {
    // Every record can be serialized.
    filter.is_none_or(|filter| {
        !filter.has_ended() && serde_json::to_value(view()).is_ok_and(|it| filter.matches(&it))
    })
}
