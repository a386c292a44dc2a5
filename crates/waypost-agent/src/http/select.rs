//! Which instances a request asks for, and in which order: `?passing`, `?tag`, `?node-meta`,
//! `?filter`, `?near`.

use serde::Serialize;

use super::call::Call;
use super::reply::Refusal;
use crate::filter::{Filter, Shape};
use crate::go_compat;
use crate::store::{Instance, Node, Service, State, Status};

/// The conditions of a request. All of them must hold.
#[derive(Debug, Default)]
pub(super) struct Selection {
    passing: bool,
    tags: Vec<String>,
    node_meta: Vec<(String, String)>,
    filter: Option<Filter>,
    near: Option<String>,
    /// Whether only those are wanted that speak Connect by themselves.
    native: bool,
}

impl Selection {
    /// The conditions that every list takes. `shape` is what `?filter` is about.
    pub(super) fn of(call: &Call, shape: &'static Shape) -> Result<Self, Refusal> {
        Ok(Self {
            filter: parse_filter(call, shape).map_err(Refusal::of_read)?,
            ..Self::without_filter(call)
        })
    }

    /// Those of a list that takes no `?filter`.
    pub(super) fn without_filter(call: &Call) -> Self {
        let node_meta = call.query.all("node-meta").map(|pair| {
            let (key, value) = pair.split_once(':').unwrap_or((pair, ""));
            (key.to_owned(), value.to_owned())
        });
        Self {
            passing: false,
            tags: call.query.all("tag").map(str::to_lowercase).collect(),
            node_meta: node_meta.collect(),
            filter: None,
            near: near(call).map(str::to_owned),
            native: false,
        }
    }

    /// Those that every list takes, and `?passing`.
    pub(super) fn with_passing(call: &Call, shape: &'static Shape) -> Result<Self, Refusal> {
        let selection = Self::of(call, shape)?;
        Ok(Self {
            passing: wants_passing(call)?,
            ..selection
        })
    }

    /// Only those that can be reached by Connect. There are no proxies here, so that is those that
    /// need none.
    pub(super) fn only_native(self, native: bool) -> Self {
        Self { native, ..self }
    }

    /// Whether only passing instances are wanted.
    pub(super) fn passing(&self) -> bool {
        self.passing
    }

    /// Whether the state of the service and `passing` decide everything.
    pub(super) fn is_plain(&self) -> bool {
        self.tags.is_empty()
            && self.node_meta.is_empty()
            && self.filter.is_none()
            && self.near.is_none()
            && !self.native
    }

    /// Puts what is near the node that was named first, if one was.
    pub(super) fn sort<T>(&self, state: &State, things: &mut [T], node_of: impl Fn(&T) -> &str) {
        if let Some(near) = &self.near {
            state.sort_by_distance(near, things, node_of);
        }
    }

    /// The instances that meet the conditions, in Consul's order: where it drops an instance that
    /// isn't passing, the last one of the list takes its place. `show` is how the answer shows one.
    pub(super) fn choose<'a, T: Serialize>(
        &self,
        instances: &'a [Instance],
        show: impl Fn(&'a Instance) -> T,
    ) -> Vec<&'a Instance> {
        let meets = |instance: &&'a Instance| {
            self.takes_node(&instance.node)
                && (instance.service.connect.native || !self.native)
                && self.takes_tags(&instance.service)
                && self.takes_shown(|| show(instance))
        };
        let mut chosen: Vec<_> = instances.iter().filter(meets).collect();
        let mut i = 0;
        while self.passing && i < chosen.len() {
            let mut checks = chosen[i].checks.iter();
            if checks.all(|check| check.status == Status::Passing) {
                i += 1;
            } else {
                chosen.swap_remove(i);
            }
        }
        chosen
    }

    fn takes_tags(&self, service: &Service) -> bool {
        let has = |wanted: &String| service.tags.iter().any(|tag| tag.to_lowercase() == *wanted);
        self.tags.iter().all(has)
    }

    /// Whether `?filter` takes a record, as the answer shows it.
    pub(super) fn takes_shown<T: Serialize>(&self, show: impl FnOnce() -> T) -> bool {
        takes(self.filter.as_ref(), show)
    }

    pub(super) fn takes_node(&self, node: &Node) -> bool {
        let meta = node.meta.as_ref();
        self.node_meta
            .iter()
            .all(|(key, value)| meta.is_some_and(|meta| meta.get(key) == Some(value)))
    }
}

/// The node that `?near` names.
fn near(call: &Call) -> Option<&str> {
    match call.query.get("near") {
        "" => None,
        "_agent" => Some(&call.app.node_name),
        node => Some(node),
    }
}

/// `?passing` alone means yes, and it may be given a boolean.
fn wants_passing(call: &Call) -> Result<bool, Refusal> {
    match call.query.get("passing") {
        "" => Ok(call.query.has("passing")),
        text => go_compat::parse_bool(text)
            .ok_or_else(|| Refusal::bad_request("Invalid value for ?passing")),
    }
}

/// `?filter` of a list that is no read of the catalog.
pub(super) fn filter(call: &Call, shape: &'static Shape) -> Result<Option<Filter>, Refusal> {
    parse_filter(call, shape).map_err(Refusal::internal)
}

fn parse_filter(call: &Call, shape: &'static Shape) -> Result<Option<Filter>, String> {
    match call.query.get("filter") {
        "" => Ok(None),
        text => Filter::parse(text, shape).map(Some),
    }
}

/// Whether a filter, if there is one, takes a record as the answer shows it.
pub(super) fn takes<T: Serialize>(filter: Option<&Filter>, show: impl FnOnce() -> T) -> bool {
    // A record that can't be shown can't be asked about either; there is none such.
    filter.is_none_or(|filter| serde_json::to_value(show()).is_ok_and(|it| filter.matches(&it)))
}
