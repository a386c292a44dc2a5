//! Which instances a request asks for: `?passing`, `?tag`, `?node-meta`.

use super::call::Call;
use super::reply::Refusal;
use crate::go;
use crate::store::{Instance, Node, Status};

/// The conditions of a request. All of them must hold.
#[derive(Debug, Default)]
pub(super) struct Selection {
    pub passing: bool,
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
            passing: passing(call)?,
            ..Self::of(call)?
        })
    }

    /// Whether the state of the service and `passing` decide everything.
    pub(super) fn is_plain(&self) -> bool {
        self.tags.is_empty() && self.node_meta.is_empty()
    }

    pub(super) fn takes(&self, instance: &Instance) -> bool {
        let passing = |instance: &Instance| {
            let mut checks = instance.checks.iter();
            checks.all(|check| check.status == Status::Passing)
        };
        let has_tag = |wanted: &String| {
            let mut tags = instance.service.tags.iter();
            tags.any(|tag| tag.to_lowercase() == *wanted)
        };
        (!self.passing || passing(instance))
            && self.tags.iter().all(has_tag)
            && self.takes_node(&instance.node)
    }

    pub(super) fn takes_node(&self, node: &Node) -> bool {
        let meta = node.meta.as_ref();
        self.node_meta
            .iter()
            .all(|(key, value)| meta.is_some_and(|meta| meta.get(key) == Some(value)))
    }
}

/// `?passing` alone means yes, and it may be given a boolean.
fn passing(call: &Call) -> Result<bool, Refusal> {
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
