//! `/v1/event`: telling everybody something.

use http::Method;
use regex::Regex;

use super::blocking::{About, Found, Read};
use super::call::Call;
use super::reply::{Refusal, Reply};
use super::route::{Handler, Route};
use crate::ids;
use crate::store::{Event, Local, Topic};

/// The largest event in bytes, with what it takes to send it.
const LARGEST: usize = 512;

/// What an event takes beside its name (twice), its payload and its filters.
const ENVELOPE: usize = 55;

pub(super) const ROUTES: &[Route] = &[
    Route::new("/v1/event/fire/", &[(Method::PUT, Handler::Plain(fire))]).beyond_namespaces(),
    Route::new(
        "/v1/event/list",
        &[(
            Method::GET,
            Handler::Blocking(Read {
                topic: |_| Topic::Events,
                look: list,
                about: About::Events,
            }),
        )],
    )
    .beyond_namespaces(),
];

/// Whom an event is for.
struct Audience {
    node: Option<Regex>,
    service: Option<Regex>,
    tag: Option<Regex>,
}

fn fire(call: &Call) -> Result<Reply, Refusal> {
    let name = call.name("name")?;
    let query = &call.query;
    let event = Event {
        id: call.app.random(ids::random),
        name: name.to_owned(),
        payload: Some(data_encoding::BASE64.encode(&call.body)).filter(|text| !text.is_empty()),
        node_filter: query.get("node").to_owned(),
        service_filter: query.get("service").to_owned(),
        tag_filter: query.get("tag").to_owned(),
        version: 1,
        time: 0,
    };
    let audience = Audience::of(&event).map_err(Refusal::internal)?;
    call.refuse_elsewhere()?;
    let filters = [&event.node_filter, &event.service_filter, &event.tag_filter];
    let filters = filters.map(|filter| filter.len() + 4).iter().sum::<usize>();
    if ENVELOPE + 2 * name.len() + call.body.len() + filters > LARGEST {
        return Err(Refusal::internal(format!(
            "1 error occurred:\n\t* error broadcasting event to segment \"\": user event exceeds \
             configured limit of {LARGEST} bytes before encoding\n\n"
        )));
    }
    let shown = event.clone();
    call.app.store.write(|state, changes| {
        let concerns = audience.includes(&call.app.node_name, &state.local);
        state.fire(event, concerns, changes);
    });
    call.json(&shown)
}

fn list(call: &Call) -> Result<Found, Refusal> {
    let name = call.query.get("name");
    let is_wanted = |event: &Event| name.is_empty() || event.name == name;
    let events: Vec<_> = call.app.store.read(|state| {
        let latest = state.events.latest();
        latest.filter(|event| is_wanted(event)).cloned().collect()
    });
    let index = events.last().map_or(1, |event| index_of(&event.id));
    let body = call.json_body(&events)?;
    Ok(Found { index, body })
}

/// Consul's index of an event: one half of its id folded into the other.
fn index_of(id: &str) -> u64 {
    let bits = u128::from_str_radix(&id.replace('-', ""), 16).unwrap_or_default();
    (bits >> 64) as u64 ^ (bits & u128::from(u64::MAX)) as u64
}

impl Audience {
    /// The error is Consul's, but for what is wrong with a pattern.
    fn of(event: &Event) -> Result<Self, String> {
        if !event.tag_filter.is_empty() && event.service_filter.is_empty() {
            return Err("Cannot provide tag filter without service filter".to_owned());
        }
        let pattern = |what: &str, text: &str| match text {
            "" => Ok(None),
            text => Regex::new(text)
                .map(Some)
                .map_err(|fault| format!("Invalid {what} filter: error parsing regexp: {fault}")),
        };
        Ok(Self {
            node: pattern("node", &event.node_filter)?,
            service: pattern("service", &event.service_filter)?,
            tag: pattern("tag", &event.tag_filter)?,
        })
    }

    fn includes(&self, node: &str, local: &Local) -> bool {
        let takes = |pattern: &Option<Regex>, text: &str| {
            pattern
                .as_ref()
                .is_none_or(|pattern| pattern.is_match(text))
        };
        let mut services = local.services().filter(|service| {
            let mut tags = service.tags.iter();
            takes(&self.service, &service.name)
                && (self.tag.is_none() || tags.any(|tag| takes(&self.tag, tag)))
        });
        takes(&self.node, node) && (self.service.is_none() || services.next().is_some())
    }
}
