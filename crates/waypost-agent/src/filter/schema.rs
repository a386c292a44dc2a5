//! The fields that filters can select from the records of each endpoint. The names are those in
//! responses.

use Shape::{Bool, List, Map, Number, Record, Text, Texts};

/// The type of a value.
#[derive(Debug)]
pub(crate) enum Shape {
    Text,
    Number,
    Bool,
    Texts,
    /// From strings to values of one shape.
    Map(&'static Shape),
    List(&'static Shape),
    Record(&'static [(&'static str, Shape)]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    Contains,
    /// [`Contains`](Self::Contains) with its operands swapped.
    In,
    IsEmpty,
    Matches,
}

/// `/v1/catalog/nodes`
pub(crate) const NODE: Shape = Record(&[
    ("ID", Text),
    ("Node", Text),
    ("Address", Text),
    ("Datacenter", Text),
    ("TaggedAddresses", Map(&Text)),
    ("Meta", Map(&Text)),
]);

/// `/v1/catalog/node/:node`, `/v1/catalog/node-services/:node` and `/v1/agent/services`
pub(crate) const SERVICE: Shape = Record(&[
    ("Kind", Text),
    ("ID", Text),
    ("Service", Text),
    ("Tags", Texts),
    ("Address", Text),
    ("TaggedAddresses", Map(&ADDRESS)),
    ("Meta", Map(&Text)),
    ("Port", Number),
    ("Weights", WEIGHTS),
    ("EnableTagOverride", Bool),
    ("Proxy", PROXY),
    ("Connect", CONNECT),
]);

/// `/v1/agent/checks`, `/v1/health/node/:node`, `/v1/health/checks/:service` and
/// `/v1/health/state/:state`
pub(crate) const CHECK: Shape = Record(&[
    ("Node", Text),
    ("CheckID", Text),
    ("Name", Text),
    ("Status", Text),
    ("Notes", Text),
    ("Output", Text),
    ("ServiceID", Text),
    ("ServiceName", Text),
    ("ServiceTags", Texts),
    ("Type", Text),
]);

/// `/v1/health/service/:service`
pub(crate) const HEALTH: Shape = Record(&[
    ("Node", NODE),
    ("Service", SERVICE),
    ("Checks", List(&CHECK)),
]);

/// `/v1/catalog/service/:service`
pub(crate) const CATALOG_SERVICE: Shape = Record(&[
    ("ID", Text),
    ("Node", Text),
    ("Address", Text),
    ("Datacenter", Text),
    ("TaggedAddresses", Map(&Text)),
    ("NodeMeta", Map(&Text)),
    ("ServiceKind", Text),
    ("ServiceID", Text),
    ("ServiceName", Text),
    ("ServiceTags", Texts),
    ("ServiceAddress", Text),
    ("ServiceTaggedAddresses", Map(&ADDRESS)),
    ("ServiceWeights", WEIGHTS),
    ("ServiceMeta", Map(&Text)),
    ("ServicePort", Number),
    ("ServiceEnableTagOverride", Bool),
    ("ServiceProxy", PROXY),
    ("ServiceConnect", CONNECT),
]);

/// `/v1/internal/ui/nodes`
pub(crate) const NODE_WITH_ALL: Shape = Record(&[
    ("ID", Text),
    ("Node", Text),
    ("Address", Text),
    ("TaggedAddresses", Map(&Text)),
    ("Meta", Map(&Text)),
    ("Services", List(&SERVICE)),
    ("Checks", List(&CHECK)),
]);

const ADDRESS: Shape = Record(&[("Address", Text), ("Port", Number)]);

const WEIGHTS: Shape = Record(&[("Passing", Number), ("Warning", Number)]);

const CONNECT: Shape = Record(&[("Native", Bool)]);

/// The configuration of a Connect proxy. Instances that aren't proxies have an empty one.
const PROXY: Shape = Record(&[
    ("DestinationServiceName", Text),
    ("DestinationServiceID", Text),
    ("LocalServiceAddress", Text),
    ("LocalServicePort", Number),
    ("Upstreams", List(&UPSTREAM)),
    ("MeshGateway", MESH_GATEWAY),
    (
        "Expose",
        Record(&[("Checks", Bool), ("Paths", List(&EXPOSED_PATH))]),
    ),
]);

const MESH_GATEWAY: Shape = Record(&[("Mode", Text)]);

const UPSTREAM: Shape = Record(&[
    ("DestinationType", Text),
    ("DestinationNamespace", Text),
    ("DestinationName", Text),
    ("Datacenter", Text),
    ("LocalBindAddress", Text),
    ("LocalBindPort", Number),
    ("MeshGateway", MESH_GATEWAY),
]);

const EXPOSED_PATH: Shape = Record(&[
    ("ListenerPort", Number),
    ("Path", Text),
    ("LocalPathPort", Number),
    ("Protocol", Text),
    ("ParsedFromCheck", Bool),
]);

impl Shape {
    /// A field of a record.
    pub(super) fn field(&self, name: &str) -> Option<&Self> {
        let Self::Record(fields) = self else {
            return None;
        };
        let (_, shape) = fields.iter().find(|(known, _)| *known == name)?;
        Some(shape)
    }

    /// The shape of the value that a name selects. For a list, that is the value selected from each item.
    pub(super) fn below(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Map(of) => Some(of),
            Self::List(item) => item.below(name),
            _ => self.field(name),
        }
    }

    pub(super) fn supports(&self, operator: Operator) -> bool {
        use Operator::{Contains, Equal, In, IsEmpty, Matches};
        match self {
            Self::Text => matches!(operator, Equal | Contains | In | Matches),
            Self::Number | Self::Bool => operator == Equal,
            Self::Texts | Self::Map(_) => matches!(operator, Contains | In | IsEmpty),
            Self::List(_) => operator == IsEmpty,
            Self::Record(_) => false,
        }
    }

    /// The name of the type in error messages.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Number => "a number",
            Self::Bool => "a boolean",
            Self::Texts => "a list of strings",
            Self::Map(_) => "a map",
            Self::List(_) => "a list of objects",
            Self::Record(_) => "an object",
        }
    }
}
