//! Computes the routes and the status of each object from the objects of a cluster, as a pure function.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use waypost::provider::kubernetes::objects::{ObjectKey, ObjectKind};

use super::certificates::{CertificateSources, ResolvedTls};
use super::conditions::{Condition, Problem, list};
use super::listeners::{ServedListener, attach, listeners};
use super::objects::{
    CLASSES, GATEWAYS, GROUP, Gateway, GatewayClass, HttpRoute, Metadata, Object, Objects,
    ParentRef, ROUTES,
};
use super::rules::{References, TranslatedRule, translate};
use super::secrets::Secrets;
use super::{CONTROLLER, Settings};
use crate::routes::{HostPattern, HttpRouteSpec};
use crate::server_tls::TlsListener;

/// The result for all objects.
pub(super) struct Resolution {
    /// The routes. Between equally specific ones, the earlier takes precedence.
    pub(super) routes: Vec<HttpRouteSpec>,
    /// The accepted listeners with TLS. Between equally specific ones, the earlier takes precedence.
    pub(super) tls_listeners: Vec<TlsListener>,
    /// The Secrets that have to be read.
    pub(super) secrets: BTreeSet<ObjectKey>,
    /// The objects whose status has to be changed.
    pub(super) changes: Vec<StatusChange>,
}

/// The new content of an object's status.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StatusChange {
    pub(super) kind: ObjectKind,
    pub(super) key: ObjectKey,
    pub(super) resource_version: String,
    /// The members of the status that change.
    pub(super) status: Value,
}

pub(super) fn resolve(objects: &Objects, secrets: &Secrets, settings: &Settings) -> Resolution {
    let mut changes = Vec::new();
    let class = (objects.classes.iter()).find(|class| {
        class.metadata.name == settings.class && class.spec.controller_name == CONTROLLER
    });
    if let Some(class) = class {
        changes.extend(class_status(class));
    }
    let is_accepted = class.is_some_and(|class| class.spec.parameters_ref.is_none());
    let gateways = by_age(&objects.gateways).into_iter();
    let ours: Vec<&Gateway> = gateways
        .filter(|gateway| is_accepted && gateway.spec.gateway_class_name == settings.class)
        .collect();
    let sources = CertificateSources {
        objects,
        secrets,
        settings,
    };
    let served: Vec<ServedListener<'_>> = (ours.iter().copied())
        .filter(|gateway| parameters(gateway).is_none())
        .flat_map(|gateway| listeners(gateway, sources))
        .collect();
    let references = References::new(objects, settings);
    let mut attached: Vec<BTreeSet<ObjectKey>> = vec![BTreeSet::new(); served.len()];
    let mut routes = Vec::new();
    for route in by_age(&objects.routes) {
        let mut context = RouteContext {
            route,
            objects,
            ours: &ours,
            served: &served,
            attached: &mut attached,
        };
        let translated: Vec<_> = (route.spec.rules.iter())
            .map(|rule| translate(rule, route, &references))
            .collect();
        let (hosts, parents) = context.attach(&translated);
        routes.extend(specs(route, &translated, &hosts));
        changes.extend(status_change(
            ROUTES,
            &route.metadata,
            &route.status,
            json!({ "parents": parents }),
        ));
    }
    for gateway in ours {
        let of_gateway = served.iter().zip(&attached);
        let of_gateway = of_gateway.filter(|(it, _)| std::ptr::eq(it.gateway, gateway));
        let of_gateway: Vec<_> = of_gateway.collect();
        // While Secrets are still being read, the status stays as it is. Otherwise each start of the gateway
        // would report problems for a moment.
        let is_pending = |tls: &ResolvedTls| tls.is_pending;
        if !(of_gateway.iter()).any(|(it, _)| it.tls.as_ref().is_some_and(is_pending)) {
            changes.extend(gateway_status(gateway, &of_gateway, settings));
        }
    }
    let tls = served.iter().filter_map(|listener| listener.tls.as_ref());
    Resolution {
        routes,
        tls_listeners: (served.iter())
            .filter_map(ServedListener::tls_listener)
            .collect(),
        secrets: tls.flat_map(|tls| tls.secrets.iter().cloned()).collect(),
        changes,
    }
}

/// Objects in their order of precedence: the oldest first.
fn by_age<T>(objects: &[Object<T>]) -> Vec<&Object<T>> {
    let mut sorted: Vec<_> = objects.iter().collect();
    sorted.sort_by_key(|object| {
        let metadata = &object.metadata;
        (
            &metadata.creation_timestamp,
            &metadata.namespace,
            &metadata.name,
        )
    });
    sorted
}

/// A change, if these members of the status differ.
fn status_change(
    kind: ObjectKind,
    metadata: &Metadata,
    present: &Value,
    status: Value,
) -> Option<StatusChange> {
    let members = status.as_object()?;
    let is_empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
    let differs = members.iter().any(|(name, value)| {
        present[name] != *value && !(present[name].is_null() && is_empty(value))
    });
    differs.then(|| StatusChange {
        kind,
        key: metadata.key(),
        resource_version: metadata.resource_version.clone(),
        status,
    })
}

// --- GatewayClass and Gateway ---

fn class_status(class: &GatewayClass) -> Option<StatusChange> {
    let problem = class.spec.parameters_ref.as_ref().map(|_| {
        let message = "parametersRef is not supported";
        Problem::new("InvalidParameters", message)
    });
    let accepted = Condition::unless("Accepted", problem.as_ref(), "Accepted");
    let metadata = &class.metadata;
    let conditions = list(
        &[accepted],
        metadata.generation,
        &class.status["conditions"],
    );
    let status = json!({ "conditions": conditions });
    status_change(CLASSES, metadata, &class.status, status)
}

/// Settings of a Gateway that aren't supported.
fn parameters(gateway: &Gateway) -> Option<Problem> {
    let infrastructure = gateway.spec.infrastructure.as_ref()?;
    infrastructure.parameters_ref.as_ref()?;
    let message = "infrastructure.parametersRef is not supported";
    Some(Problem::new("InvalidParameters", message))
}

fn gateway_status(
    gateway: &Gateway,
    of_gateway: &[(&ServedListener<'_>, &BTreeSet<ObjectKey>)],
    settings: &Settings,
) -> Option<StatusChange> {
    let (generation, present) = (gateway.metadata.generation, &gateway.status);
    let count = |holds: &dyn Fn(&ServedListener<'_>) -> bool| {
        of_gateway.iter().filter(|(it, _)| holds(it)).count()
    };
    let (all, accepted, served) = (
        of_gateway.len(),
        count(&|it| it.problem.is_none()),
        count(&|it| it.is_served()),
    );
    let mut asked = (gateway.spec.addresses.iter()).filter_map(|it| it.value.as_ref());
    let unusable = asked.find(|value| !settings.addresses.contains(value));
    let parameters = parameters(gateway);
    let not_valid = |is_accepted, message: String| {
        Condition::because("Accepted", is_accepted, "ListenersNotValid", message)
    };
    let accepted = match &parameters {
        Some(problem) => Condition::unless("Accepted", Some(problem), "Accepted"),
        None if accepted == 0 => not_valid(false, "no listener is valid".to_owned()),
        None if served < all => not_valid(
            true,
            format!("{} of {all} listeners are not valid", all - served),
        ),
        None => Condition::is("Accepted", true, "Accepted"),
    };
    let programmed = match unusable {
        _ if !accepted.is_true => Condition::is("Programmed", false, "Invalid"),
        _ if served == 0 => Condition::because(
            "Programmed",
            false,
            "Invalid",
            "no listener has a certificate that can be used",
        ),
        Some(address) => Condition::because(
            "Programmed",
            false,
            "AddressNotUsable",
            format!("this gateway does not have the address {address}"),
        ),
        None => Condition::is("Programmed", true, "Programmed"),
    };
    let known = present["listeners"].as_array().map(Vec::as_slice);
    let listeners = of_gateway.iter().map(|(listener, attached)| {
        let name = &listener.listener.name;
        let before = known.unwrap_or_default().iter();
        let before = before.clone().find(|it| it["name"] == name.as_str());
        let before = before.map_or(&Value::Null, |it| &it["conditions"]);
        let kinds = if listener.allows_http_routes() {
            json!([{ "group": GROUP, "kind": "HTTPRoute" }])
        } else {
            json!([])
        };
        json!({
            "name": name,
            "supportedKinds": kinds,
            "attachedRoutes": attached.len(),
            "conditions": list(&listener_conditions(listener), generation, before),
        })
    });
    let mut status = json!({
        "conditions": list(&[accepted, programmed], generation, &present["conditions"]),
        "listeners": listeners.collect::<Vec<_>>(),
    });
    if !settings.addresses.is_empty() {
        let addresses = settings.addresses.iter().map(|address| {
            let is_ip = address.parse::<std::net::IpAddr>().is_ok();
            json!({ "type": if is_ip { "IPAddress" } else { "Hostname" }, "value": address })
        });
        status["addresses"] = addresses.collect();
    }
    status_change(GATEWAYS, &gateway.metadata, present, status)
}

fn listener_conditions(listener: &ServedListener<'_>) -> [Condition; 4] {
    let problem = listener.problem.as_ref();
    [
        Condition::unless("Accepted", problem, "Accepted"),
        if listener.is_served() {
            Condition::is("Programmed", true, "Programmed")
        } else {
            Condition::is("Programmed", false, "Invalid")
        },
        Condition::unless("ResolvedRefs", listener.unresolved(), "ResolvedRefs"),
        if listener.is_conflicted {
            Condition::is("Conflicted", true, "HostnameConflict")
        } else {
            Condition::is("Conflicted", false, "NoConflicts")
        },
    ]
}

// --- HTTPRoute ---

struct RouteContext<'a> {
    route: &'a HttpRoute,
    objects: &'a Objects,
    ours: &'a [&'a Gateway],
    served: &'a [ServedListener<'a>],
    /// The routes that are attached to each listener.
    attached: &'a mut [BTreeSet<ObjectKey>],
}

/// The hosts of a route: each with the hosts of more specific listeners, which don't belong to it.
type Hosts = Vec<(Option<HostPattern>, Vec<HostPattern>)>;

impl RouteContext<'_> {
    /// The hosts for which the route is used, and all `parents` of its new status.
    fn attach(&mut self, rules: &[TranslatedRule]) -> (Hosts, Vec<Value>) {
        let route = self.route;
        let present = route.status["parents"].as_array();
        let present = present.map(Vec::as_slice).unwrap_or_default();
        let is_valid = rules.is_empty() || rules.iter().any(|rule| !rule.matches.is_empty());
        let (mut hosts, mut parents) = (Hosts::new(), self.parents_of_others(present));
        for parent in &route.spec.parent_refs {
            let Some(gateway) = self.our_gateway(parent) else {
                continue;
            };
            let listeners = self.served.iter().enumerate();
            let of_gateway: Vec<_> = listeners
                .filter(|(_, listener)| std::ptr::eq(listener.gateway, gateway))
                .collect();
            let attachments = attach(route, parent, &of_gateway, self.objects);
            if let Ok(attachments) = &attachments {
                for (at, of_listener) in attachments.iter().filter(|_| is_valid) {
                    self.attached[*at].insert(route.metadata.key());
                    let except = self.more_specific(&self.served[*at]);
                    let new = of_listener
                        .iter()
                        .cloned()
                        .map(|host| (host, except.clone()));
                    hosts.extend(new);
                }
            }
            let reference = json!(parent);
            let before = present
                .iter()
                .find(|it| it["controllerName"] == CONTROLLER && it["parentRef"] == reference);
            let before = before.map_or(&Value::Null, |it| &it["conditions"]);
            let conditions = route_conditions(attachments.err(), rules);
            parents.push(json!({
                "parentRef": reference,
                "controllerName": CONTROLLER,
                "conditions": list(&conditions, route.metadata.generation, before),
            }));
        }
        let mut seen: Hosts = Vec::new();
        for host in hosts {
            if !seen.contains(&host) {
                seen.push(host);
            }
        }
        (seen, parents)
    }

    /// The Gateway of a reference, if it is of our class.
    fn our_gateway(&self, parent: &ParentRef) -> Option<&Gateway> {
        let ours = self.ours.iter().copied();
        ours.into_iter()
            .find(|gateway| self.is_parent(parent, gateway))
    }

    fn is_parent(&self, parent: &ParentRef, gateway: &Gateway) -> bool {
        let own = self.route.metadata.namespace.as_str();
        parent.group.as_deref().is_none_or(|group| group == GROUP)
            && parent.kind.as_deref().is_none_or(|kind| kind == "Gateway")
            && parent.namespace.as_deref().unwrap_or(own) == gateway.metadata.namespace
            && parent.name == gateway.metadata.name
    }

    /// The `parents` of the current status that we must not change: those of other controllers, and those of
    /// Gateways of other classes, which another deployment of this gateway may serve.
    fn parents_of_others(&self, present: &[Value]) -> Vec<Value> {
        let is_kept = |value: &&Value| {
            if value["controllerName"] != CONTROLLER {
                return true;
            }
            let references = self.route.spec.parent_refs.iter();
            let reference = references
                .filter(|reference| json!(reference) == value["parentRef"])
                .find(|reference| self.our_gateway(reference).is_none());
            let mut gateways = self.objects.gateways.iter();
            reference.is_some_and(|it| gateways.any(|gateway| self.is_parent(it, gateway)))
        };
        present.iter().filter(is_kept).cloned().collect()
    }

    /// The hostnames of listeners that are more specific than this one. A request for such a host belongs
    /// to that listener's routes only.
    fn more_specific(&self, listener: &ServedListener<'_>) -> Vec<HostPattern> {
        let others = self.served.iter().filter(|other| other.problem.is_none());
        let hostnames = others.filter_map(|other| other.hostname.clone());
        let more: BTreeMap<_, _> = hostnames
            .filter(|other| match &listener.hostname {
                None => true,
                Some(own) => own != other && own.intersection(other).as_ref() == Some(other),
            })
            .map(|other| (other.to_string(), other))
            .collect();
        more.into_values().collect()
    }
}

fn route_conditions(not_attached: Option<Problem>, rules: &[TranslatedRule]) -> Vec<Condition> {
    let all = |problems: &dyn Fn(&TranslatedRule) -> &Vec<Problem>| {
        Problem::join(rules.iter().flat_map(problems).cloned().collect())
    };
    let (invalid, unresolved) = (all(&|rule| &rule.invalid), all(&|rule| &rule.unresolved));
    let has_valid = rules.is_empty() || rules.iter().any(|rule| rule.invalid.is_empty());
    let refused = not_attached.or_else(|| invalid.clone().filter(|_| !has_valid));
    let mut conditions = vec![
        Condition::unless("Accepted", refused.as_ref(), "Accepted"),
        Condition::unless("ResolvedRefs", unresolved.as_ref(), "ResolvedRefs"),
    ];
    if let Some(Problem { reason, message }) = invalid.filter(|_| has_valid) {
        // The specification prescribes the beginning of the message.
        let message = format!("Dropped Rule: {message}");
        let partly = Condition::because("PartiallyInvalid", true, reason, message);
        conditions.push(partly);
    }
    conditions
}

/// The routes of an HTTPRoute: one for each match and host.
fn specs(route: &HttpRoute, rules: &[TranslatedRule], hosts: &Hosts) -> Vec<HttpRouteSpec> {
    let key = route.metadata.key();
    let source: Arc<str> = format!("HTTPRoute {key}").into();
    let mut specs = Vec::new();
    for (rule_index, rule) in rules.iter().enumerate() {
        for (match_index, path, conditions) in &rule.matches {
            for (host_index, (host, except_hosts)) in hosts.iter().enumerate() {
                specs.push(HttpRouteSpec {
                    name: format!("{key}/{rule_index}/{match_index}/{host_index}"),
                    source: Arc::clone(&source),
                    host: host.clone(),
                    except_hosts: except_hosts.clone(),
                    path: path.clone(),
                    conditions: conditions.clone(),
                    action: Arc::clone(&rule.action),
                });
            }
        }
    }
    specs
}
