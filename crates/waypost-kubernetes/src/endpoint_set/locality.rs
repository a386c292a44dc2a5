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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A process on the node `own` in the zone `a`.
    fn options(node: Option<&str>, zone: Option<&str>) -> DiscoveryOptions {
        DiscoveryOptions {
            node: node.map(Into::into),
            zone: zone.map(Into::into),
            ..DiscoveryOptions::in_demo()
        }
    }

    fn endpoint(node: Option<&str>, for_nodes: &[&str], for_zones: &[&str]) -> Endpoint {
        let targets = |names: &[&str]| -> Value {
            names.iter().map(|name| json!({ "name": name })).collect()
        };
        let hints = json!({ "forNodes": targets(for_nodes), "forZones": targets(for_zones) });
        serde_json::from_value(json!({ "nodeName": node, "hints": hints })).unwrap()
    }

    /// The rule for these endpoints, and which of them it selects.
    fn rule(
        is_local: bool,
        options: &DiscoveryOptions,
        endpoints: &[Endpoint],
    ) -> (Rule, Vec<bool>) {
        let localities: Vec<_> = endpoints
            .iter()
            .map(|it| Locality::of(it, options))
            .collect();
        let rule = Rule::of(is_local, options, localities.iter().copied());
        (
            rule,
            localities
                .iter()
                .map(|locality| rule.selects(*locality))
                .collect(),
        )
    }

    #[test]
    fn hints_apply_if_every_endpoint_has_one_and_one_is_for_this_place() {
        let here = options(Some("own"), Some("a"));
        let zones = |names: &[&str]| endpoint(None, &[], names);
        let nodes = |names: &[&str]| endpoint(None, names, &[]);
        let both = |node: &str, zone: &str| endpoint(None, &[node], &[zone]);
        for (endpoints, expected, selected) in [
            (
                vec![zones(&["a"]), zones(&["b"])],
                Rule::ForThisZone,
                vec![true, false],
            ),
            (
                vec![zones(&["b", "a"]), zones(&["b"])],
                Rule::ForThisZone,
                vec![true, false],
            ),
            (vec![zones(&["a"]), zones(&[])], Rule::All, vec![true, true]),
            (
                vec![zones(&["b"]), zones(&["c"])],
                Rule::All,
                vec![true, true],
            ),
            (
                vec![nodes(&["own"]), nodes(&["x"])],
                Rule::ForThisNode,
                vec![true, false],
            ),
            // Hints for nodes come first.
            (
                vec![both("x", "a"), both("own", "b")],
                Rule::ForThisNode,
                vec![false, true],
            ),
            (
                vec![both("x", "a"), both("y", "b")],
                Rule::ForThisZone,
                vec![true, false],
            ),
            (vec![], Rule::All, vec![]),
        ] {
            assert_eq!(rule(false, &here, &endpoints), (expected, selected));
        }
        let unknown = options(None, None);
        let endpoints = [zones(&["a"]), zones(&["b"])];
        assert_eq!(rule(false, &unknown, &endpoints).0, Rule::All);
    }

    #[test]
    fn a_local_service_has_only_the_endpoints_on_this_node() {
        let at = |node: Option<&str>| endpoint(node, &["own"], &["a"]);
        let endpoints = [at(Some("own")), at(Some("other")), at(None)];
        let here = options(Some("own"), Some("a"));
        assert_eq!(
            rule(true, &here, &endpoints),
            (Rule::OnThisNode, vec![true, false, false])
        );
        // Outside of the cluster, there is no node.
        let outside = options(None, Some("a"));
        assert_eq!(
            rule(true, &outside, &endpoints),
            (Rule::ForThisZone, vec![true; 3])
        );
        assert!(!Locality::of(&at(None), &outside).on_this_node);
    }
}
