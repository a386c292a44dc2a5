//! Which instances a request asks for: `?passing`, `?tag`, `?node-meta`.

use super::call::Call;
use super::reply::Refusal;
use crate::go;
use crate::store::{Instance, Node, Service, Status};

/// The conditions of a request. All of them must hold.
#[derive(Debug, Default)]
pub(super) struct Selection {
    passing: bool,
    tags: Vec<String>,
    node_meta: Vec<(String, String)>,
}

impl Selection {
    /// The conditions that every list takes.
    pub(super) fn of(call: &Call) -> Result<Self, Refusal> {
        refuse_filter(call)?;
        let node_meta = call.query.all("node-meta").map(|pair| {
            let (key, value) = pair.split_once(':').unwrap_or((pair, ""));
            (key.to_owned(), value.to_owned())
        });
        Ok(Self {
            passing: false,
            tags: call.query.all("tag").map(str::to_lowercase).collect(),
            node_meta: node_meta.collect(),
        })
    }

    /// Those, and `?passing`.
    pub(super) fn with_passing(call: &Call) -> Result<Self, Refusal> {
        Ok(Self {
            passing: wants_passing(call)?,
            ..Self::of(call)?
        })
    }

    /// Whether only passing instances are wanted.
    pub(super) fn passing(&self) -> bool {
        self.passing
    }

    /// Whether the state of the service and `passing` decide everything.
    pub(super) fn is_plain(&self) -> bool {
        self.tags.is_empty() && self.node_meta.is_empty()
    }

    /// The instances that meet the conditions, in Consul's order: where it drops an instance that
    /// isn't passing, the last one of the list takes its place.
    pub(super) fn choose<'a>(&self, instances: &'a [Instance]) -> Vec<&'a Instance> {
        let meets = |instance: &&Instance| {
            self.takes_node(&instance.node) && self.takes_tags(&instance.service)
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

    pub(super) fn takes_node(&self, node: &Node) -> bool {
        let meta = node.meta.as_ref();
        self.node_meta
            .iter()
            .all(|(key, value)| meta.is_some_and(|meta| meta.get(key) == Some(value)))
    }
}

/// `?passing` alone means yes, and it may be given a boolean.
fn wants_passing(call: &Call) -> Result<bool, Refusal> {
    match call.query.get("passing") {
        "" => Ok(call.query.has("passing")),
        text => {
            go::parse_bool(text).ok_or_else(|| Refusal::bad_request("Invalid value for ?passing"))
        }
    }
}

/// Says so, rather than answering another question than was asked.
pub(super) fn refuse_filter(call: &Call) -> Result<(), Refusal> {
    match call.query.get("filter") {
        "" => Ok(()),
        _ => Err(Refusal::internal(
            "Failed to create boolean expression evaluator: filters aren't served yet",
        )),
    }
}
