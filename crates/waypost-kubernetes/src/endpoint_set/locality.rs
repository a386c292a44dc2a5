//! Selects the endpoints for a client on this node and in this zone, as kube-proxy does.

use crate::options::DiscoveryOptions;
use crate::resources::{Endpoint, HintTarget};

/// The location of an endpoint relative to this process, and its hints.
#[derive(Clone, Copy, Debug)]
pub(super) struct Locality {
    on_this_node: bool,
    for_nodes: Hint,
    for_zones: Hint,
}

/// A hint of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hint {
    None,
    /// The hint is for other nodes or zones.
    Elsewhere,
    /// The hint is for this process's node or zone.
    Here,
}

impl Hint {
    fn of(targets: Option<&Vec<HintTarget>>, own: Option<&str>) -> Self {
        match targets {
            Some(targets) if targets.iter().any(|target| Some(&*target.name) == own) => Self::Here,
            Some(targets) if !targets.is_empty() => Self::Elsewhere,
            _ => Self::None,
        }
    }
}

impl Locality {
    pub(super) fn of(endpoint: &Endpoint, options: &DiscoveryOptions) -> Self {
        let hints = endpoint.hints.as_ref();
        let node = options.node.as_deref();
        let zones = hints.and_then(|hints| hints.for_zones.as_ref());
        Self {
            on_this_node: node.is_some() && endpoint.node_name.as_deref() == node,
            for_nodes: Hint::of(hints.and_then(|hints| hints.for_nodes.as_ref()), node),
            for_zones: Hint::of(zones, options.zone.as_deref()),
        }
    }
}

/// A rule for the endpoints to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    All,
    /// Only endpoints on this node, even if there are none (`internalTrafficPolicy: Local`).
    OnThisNode,
    /// Only endpoints with a hint for this node.
    ForThisNode,
    /// Only endpoints with a hint for this zone.
    ForThisZone,
}

impl Rule {
    /// The rule for a Service, given its ready endpoints. Hints apply only if all of them have one, and
    /// one of them is for this node or zone; hints for nodes come first (`CategorizeEndpoints` in the
    /// source of kube-proxy).
    pub(super) fn of(
        is_local: bool,
        options: &DiscoveryOptions,
        ready: impl Iterator<Item = Locality> + Clone,
    ) -> Self {
        if is_local && options.node.is_some() {
            return Self::OnThisNode;
        }
        let applies = |hint: fn(&Locality) -> Hint| {
            let mut any_here = false;
            let all_hinted = ready.clone().all(|locality| {
                let hint = hint(&locality);
                any_here |= hint == Hint::Here;
                hint != Hint::None
            });
            all_hinted && any_here
        };
        if applies(|locality| locality.for_nodes) {
            Self::ForThisNode
        } else if applies(|locality| locality.for_zones) {
            Self::ForThisZone
        } else {
            Self::All
        }
    }

    pub(super) fn selects(self, locality: Locality) -> bool {
        match self {
            Self::All => true,
            Self::OnThisNode => locality.on_this_node,
            Self::ForThisNode => locality.for_nodes == Hint::Here,
            Self::ForThisZone => locality.for_zones == Hint::Here,
        }
    }
}
