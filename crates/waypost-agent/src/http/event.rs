//! `/v1/event`: firing and listing user events.

use std::sync::Arc;

use http::Method;
use regex::Regex;
use uuid::Uuid;

use super::blocking::{QueryKind, QueryResult};
use super::evaluation::evaluate;
use super::request::ApiRequest;
use super::response::{ApiError, ApiResponse};
use super::route::{Handler, Route};
use crate::filter::PatternCompiler;
use crate::ids;
use crate::store::{Service, Topic, UserEvent};

/// The largest encoded event, in bytes.
const MAX_EVENT_BYTES: usize = 512;

/// The size of an encoded event without its name (which counts twice), payload and filters.
const ENVELOPE_BYTES: usize = 55;

pub(super) const ROUTES: &[Route] = &[
    Route::new(
        "/v1/event/fire/",
        &[(
            Method::PUT,
            Handler::Async(|request| Box::pin(fire(request))),
        )],
    )
    .without_namespace(),
    Route::new(
        "/v1/event/list",
        &[(
            Method::GET,
            Handler::blocking(QueryKind::Events, |_| Topic::Events, list),
        )],
    )
    .without_namespace(),
];

/// The filters of an event.
struct EventFilters {
    node: Option<Regex>,
    service: Option<Regex>,
    tag: Option<Regex>,
}

async fn fire(request: ApiRequest) -> Result<ApiResponse, ApiError> {
    let has_patterns = ["node", "service", "tag"]
        .iter()
        .any(|name| !request.query.get(name).is_empty());
    if has_patterns {
        evaluate(&request, fire_now).await
    } else {
        fire_now(&request)
    }
}

fn fire_now(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let name = request.required_suffix("name")?;
    let query = &request.query;
    let event = UserEvent {
        id: request.app.random(ids::random),
        name: name.to_owned(),
        payload: Some(data_encoding::BASE64.encode(&request.body)).filter(|text| !text.is_empty()),
        node_filter: query.get("node").to_owned(),
        service_filter: query.get("service").to_owned(),
        tag_filter: query.get("tag").to_owned(),
        version: 1,
        ltime: 0,
    };
    let filters = EventFilters::of(&event).map_err(ApiError::internal)?;
    request.require_local_datacenter()?;
    let patterns = [&event.node_filter, &event.service_filter, &event.tag_filter];
    let pattern_bytes: usize = patterns.iter().map(|pattern| pattern.len() + 4).sum();
    if ENVELOPE_BYTES + 2 * name.len() + request.body.len() + pattern_bytes > MAX_EVENT_BYTES {
        return Err(ApiError::internal(format!(
            "1 error occurred:\n\t* error broadcasting event to segment \"\": user event exceeds \
             configured limit of {MAX_EVENT_BYTES} bytes before encoding\n\n"
        )));
    }
    let view = event.clone();
    let store = &request.app.store;
    let services: Vec<_> = store.read(|state| state.local.services().cloned().collect());
    let matches_node = filters.match_node(&request.app.node_name, &services);
    store.write(|state, changes| state.events.fire(event, matches_node, changes));
    request.json(&view)
}

fn list(request: &ApiRequest) -> Result<QueryResult, ApiError> {
    let name = request.query.get("name");
    let is_wanted = |event: &UserEvent| name.is_empty() || event.name == name;
    let events: Vec<_> = request.app.store.read(|state| {
        let latest = state.events.latest();
        latest.filter(|event| is_wanted(event)).cloned().collect()
    });
    let index = events.last().map_or(1, |event| index_of(&event.id));
    let body = request.json_body(&events)?;
    Ok(QueryResult { index, body })
}

/// Consul's index of an event: the exclusive or of both halves of its id.
fn index_of(id: &str) -> u64 {
    let (high, low) = Uuid::try_parse(id).unwrap_or_default().as_u64_pair();
    high ^ low
}

impl EventFilters {
    /// The errors are Consul's, except for the reason why a pattern is invalid.
    fn of(event: &UserEvent) -> Result<Self, String> {
        if !event.tag_filter.is_empty() && event.service_filter.is_empty() {
            return Err("Cannot provide tag filter without service filter".to_owned());
        }
        let mut patterns = PatternCompiler::default();
        let mut pattern = |what: &str, text: &str| match text {
            "" => Ok(None),
            text => patterns
                .compile(text)
                .map(Some)
                .map_err(|error| format!("Invalid {what} filter: error parsing regexp: {error}")),
        };
        Ok(Self {
            node: pattern("node", &event.node_filter)?,
            service: pattern("service", &event.service_filter)?,
            tag: pattern("tag", &event.tag_filter)?,
        })
    }

    /// Whether the filters match this node and its services.
    fn match_node(&self, node: &str, services: &[Arc<Service>]) -> bool {
        let matches = |pattern: &Option<Regex>, text: &str| {
            pattern
                .as_ref()
                .is_none_or(|pattern| pattern.is_match(text))
        };
        let mut services = services.iter().filter(|service| {
            let mut tags = service.tags.iter();
            matches(&self.service, &service.name)
                && (self.tag.is_none() || tags.any(|tag| matches(&self.tag, tag)))
        });
        matches(&self.node, node) && (self.service.is_none() || services.next().is_some())
    }
}
