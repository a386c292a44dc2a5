//! `/v1/health`: checks, and instances with their checks.

use std::sync::Arc;

use http::Method;

use super::blocking::{About, Found, Read};
use super::call::Call;
use super::json;
use super::reply::{Body, Refusal};
use super::route::{Handler, Route};
use super::select::Selection;
use crate::filter::{CATALOG_SERVICE, CHECK, HEALTH};
use crate::store::{Answer, AnswerKey, Check, Instance, State, Status, Topic, View, fold};
use crate::wire::{CatalogService, HealthService};

pub(super) const ROUTES: &[Route] = &[
    Route::new(
        "/v1/health/node/",
        &[(
            Method::GET,
            read(|call| Topic::Node(fold(&call.rest)), node),
        )],
    ),
    Route::new(
        "/v1/health/checks/",
        &[(
            Method::GET,
            read(|call| Topic::Service(fold(&call.rest)), checks),
        )],
    ),
    Route::new(
        "/v1/health/state/",
        &[(Method::GET, read(|_| Topic::Checks, state))],
    ),
    Route::new(
        "/v1/health/service/",
        &[(
            Method::GET,
            cached(|call| Topic::Service(fold(&call.rest)), service),
        )],
    ),
    Route::new(
        "/v1/health/connect/",
        &[(
            Method::GET,
            cached(|call| Topic::Service(fold(&call.rest)), connect),
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

fn node(call: &Call) -> Result<Found, Refusal> {
    let name = call.name("node name")?;
    list(call, |state| state.catalog.checks_of_node(name))
}

fn checks(call: &Call) -> Result<Found, Refusal> {
    let name = call.name("service name")?;
    list(call, |state| state.catalog.checks_of_service(name))
}

fn state(call: &Call) -> Result<Found, Refusal> {
    let name = call.name("check state")?;
    list(call, |state| match (name, Status::parse(name)) {
        ("any", _) => state.catalog.checks_in_state(None),
        (_, Some(status)) => state.catalog.checks_in_state(Some(status)),
        (_, None) => (state.catalog.checks_in_state(None).0, Vec::new()),
    })
}

fn service(call: &Call) -> Result<Found, Refusal> {
    instances(call, View::Health, false)
}

fn connect(call: &Call) -> Result<Found, Refusal> {
    instances(call, View::Health, true)
}

fn list(
    call: &Call,
    look: impl FnOnce(&State) -> (u64, Vec<Arc<Check>>),
) -> Result<Found, Refusal> {
    let selection = Selection::of(call, &CHECK)?;
    let (index, checks) = call.app.store.read(|state| {
        let (index, mut checks) = look(state);
        if !selection.is_plain() {
            checks.retain(|check| {
                let node = state.catalog.node(&check.node);
                node.is_some_and(|(_, node, _)| selection.takes_node(node))
                    && selection.takes_shown(|| check)
            });
            selection.sort(state, &mut checks, |check| &check.node);
        }
        (index, checks)
    });
    Ok(Found {
        index,
        body: call.json_body(&checks)?,
    })
}

/// The instances of a service. The plain questions, which nearly all are, share their answers.
pub(super) fn instances(call: &Call, view: View, native: bool) -> Result<Found, Refusal> {
    let name = call.name("service name")?;
    let selection = match view {
        View::Health => Selection::with_passing(call, &HEALTH)?,
        View::Catalog => Selection::of(call, &CATALOG_SERVICE)?,
    };
    let selection = selection.only_native(native);
    let key = AnswerKey {
        view,
        passing: selection.passing(),
        pretty: call.pretty(),
    };
    let (index, slot, instances) = call.app.store.read(|state| {
        let slot = state.catalog.answer(name, &key);
        let slot = slot.filter(|_| selection.is_plain());
        let mut instances = match slot.as_ref().and_then(|slot| slot.get()) {
            Some(_) => Vec::new(),
            None => state.catalog.instances(name).collect(),
        };
        selection.sort(state, &mut instances, |instance: &Instance| {
            &instance.node.name
        });
        (state.catalog.service_index(name), slot, instances)
    });
    let body = match slot {
        Some(slot) => {
            let answer = slot.get_or_init(|| {
                // What comes out of the store can always be written.
                let text = serialise(&instances, &selection, &key);
                Arc::new(Answer::new(text.unwrap_or_default()))
            });
            Body::Shared(Arc::clone(answer))
        }
        None => Body::Own(serialise(&instances, &selection, &key)?.into()),
    };
    Ok(Found { index, body })
}

fn serialise(
    instances: &[Instance],
    selection: &Selection,
    key: &AnswerKey,
) -> serde_json::Result<Vec<u8>> {
    match key.view {
        View::Health => {
            let chosen = selection.choose(instances, HealthService::from).into_iter();
            let shown: Vec<_> = chosen.map(HealthService::from).collect();
            json::to_vec(&shown, key.pretty)
        }
        View::Catalog => {
            let chosen = selection
                .choose(instances, CatalogService::from)
                .into_iter();
            let shown: Vec<_> = chosen.map(CatalogService::from).collect();
            json::to_vec(&shown, key.pretty)
        }
    }
}
