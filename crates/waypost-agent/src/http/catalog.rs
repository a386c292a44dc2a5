//! `/v1/catalog`: nodes and services as the cluster knows them.

use std::sync::Arc;

use http::Method;

use super::blocking::{About, Found, Read};
use super::call::Call;
use super::health::instances;
use super::refused::no_mesh;
use super::reply::{Refusal, Reply};
use super::route::{Handler, Route};
use super::select::Selection;
use crate::decode::{CatalogDeregistration, CatalogRegistration};
use crate::filter::{NODE, SERVICE};
use crate::store::{Node, Service, Topic, View, fold};
use crate::wire::{NodeServices, Pairs};

pub(super) const ROUTES: &[Route] = &[
    Route::new(
        "/v1/catalog/datacenters",
        &[(Method::GET, Handler::Plain(datacenters))],
    )
    .beyond_namespaces(),
    Route::new(
        "/v1/catalog/register",
        &[(Method::PUT, Handler::Plain(register))],
    ),
    Route::new(
        "/v1/catalog/deregister",
        &[(Method::PUT, Handler::Plain(deregister))],
    ),
    Route::new(
        "/v1/catalog/nodes",
        &[(Method::GET, read(|_| Topic::Nodes, nodes))],
    )
    .beyond_namespaces(),
    Route::new(
        "/v1/catalog/services",
        &[(Method::GET, cached(|_| Topic::Services, services))],
    ),
    Route::new(
        "/v1/catalog/service/",
        &[(
            Method::GET,
            cached(|call| Topic::Service(fold(&call.rest)), service),
        )],
    ),
    Route::new(
        "/v1/catalog/connect/",
        &[(
            Method::GET,
            cached(|call| Topic::Service(fold(&call.rest)), connect),
        )],
    ),
    Route::new(
        "/v1/catalog/node/",
        &[(
            Method::GET,
            read(|call| Topic::Node(fold(&call.rest)), node),
        )],
    ),
    Route::new(
        "/v1/catalog/node-services/",
        &[(
            Method::GET,
            read(|call| Topic::Node(fold(&call.rest)), node_services),
        )],
    ),
];

const fn read(topic: fn(&Call) -> Topic, look: fn(&Call) -> Result<Found, Refusal>) -> Handler {
    Handler::Blocking(Read {
        topic,
        look,
        about: About::Catalog,
    })
}

const fn cached(topic: fn(&Call) -> Topic, look: fn(&Call) -> Result<Found, Refusal>) -> Handler {
    Handler::Cached(Read {
        topic,
        look,
        about: About::Catalog,
    })
}

fn datacenters(call: &Call) -> Result<Reply, Refusal> {
    let reply = call.json(&[&call.app.datacenter])?;
    Ok(match call.query.has("cached") {
        true => reply.header("x-cache", "HIT").header("age", "0"),
        false => reply,
    })
}

fn register(call: &Call) -> Result<Reply, Refusal> {
    let mut registration: CatalogRegistration = call.decode()?;
    refuse_elsewhere(call, &registration.datacenter)?;
    registration.complete().map_err(Refusal::internal)?;
    let mut entry = registration.entry;
    if entry.service.as_ref().is_some_and(Service::is_of_mesh) {
        return Err(no_mesh());
    }
    entry.node.datacenter.clone_from(&call.app.datacenter);
    let done = call
        .app
        .store
        .write(|state, changes| state.catalog.register(entry, changes));
    done.map_err(Refusal::internal)?;
    call.json(&true)
}

fn deregister(call: &Call) -> Result<Reply, Refusal> {
    let gone: CatalogDeregistration = call.decode()?;
    refuse_elsewhere(call, &gone.datacenter)?;
    if gone.node.is_empty() {
        return Err(Refusal::internal("Must provide node"));
    }
    let (node, service, check) = (&gone.node, &gone.service_id, &gone.check_id);
    call.app.store.write(|state, changes| {
        let catalog = &mut state.catalog;
        match (service.as_str(), check.as_str()) {
            ("", "") => catalog.remove_node(node, changes),
            ("", check) => catalog.remove_check(node, check, changes),
            (service, _) => catalog.remove_service(node, service, changes),
        };
    });
    call.json(&true)
}

/// The body says which datacenter is meant; here, `?dc` doesn't count.
fn refuse_elsewhere(call: &Call, datacenter: &str) -> Result<(), Refusal> {
    if datacenter.is_empty() || datacenter == call.app.datacenter {
        Ok(())
    } else {
        Err(Refusal::internal("No path to datacenter"))
    }
}

fn nodes(call: &Call) -> Result<Found, Refusal> {
    let selection = Selection::of(call, &NODE)?;
    let (index, nodes) = call.app.store.read(|state| {
        let (index, nodes) = state.catalog.nodes();
        let nodes =
            nodes.filter(|node| selection.takes_node(node) && selection.takes_shown(|| node));
        let mut nodes: Vec<_> = nodes.cloned().collect();
        selection.sort(state, &mut nodes, |node| &node.name);
        (index, nodes)
    });
    Ok(Found {
        index,
        body: call.json_body(&nodes)?,
    })
}

fn services(call: &Call) -> Result<Found, Refusal> {
    let selection = Selection::without_filter(call);
    call.app.store.read(|state| {
        let (index, services) = match selection.is_plain() {
            true => state.catalog.services(),
            false => state.catalog.services_on(|node| selection.takes_node(node)),
        };
        Ok(Found {
            index,
            body: call.json_body(&services)?,
        })
    })
}

fn service(call: &Call) -> Result<Found, Refusal> {
    instances(call, View::Catalog, false)
}

fn connect(call: &Call) -> Result<Found, Refusal> {
    instances(call, View::Catalog, true)
}

/// The services of a node by id.
fn node(call: &Call) -> Result<Found, Refusal> {
    let (index, found) = one_node(call, |services| {
        let pairs = services.map(|service| (service.id.clone(), Arc::clone(service)));
        Pairs(pairs.collect())
    })?;
    let found = found.map(|(node, services)| NodeServices { node, services });
    let body = call.json_body(&found)?;
    Ok(Found { index, body })
}

/// The services of a node as a list.
fn node_services(call: &Call) -> Result<Found, Refusal> {
    let (index, found) = one_node(call, |services| services.cloned().collect::<Vec<_>>())?;
    let (node, services) = found.unzip();
    let has_filter = !call.query.get("filter").is_empty();
    let services = services.filter(|services| has_filter || !services.is_empty());
    let body = call.json_body(&NodeServices { node, services })?;
    Ok(Found { index, body })
}

/// The index, and a node with its services in some shape if it is known.
type OneNode<S> = (u64, Option<(Arc<Node>, S)>);

fn one_node<S>(
    call: &Call,
    shape: impl FnOnce(&mut dyn Iterator<Item = &Arc<Service>>) -> S,
) -> Result<OneNode<S>, Refusal> {
    let name = call.name("node name")?;
    let selection = Selection::of(call, &SERVICE)?;
    Ok(call.app.store.read(|state| {
        let Some((index, node, services)) = state.catalog.node(name) else {
            // Consul says 1, so that nobody who waits hears that the node is gone.
            return (state.catalog.nodes().0, None);
        };
        let mut services = services.filter(|service| selection.takes_shown(|| service));
        (index, Some((Arc::clone(node), shape(&mut services))))
    }))
}
