//! `/v1/kv`: keys and values, and the locks on them.

use http::Method;
use tokio::time::Instant;

use super::blocking::{About, Found, Read};
use super::call::Call;
use super::reply::{Body, Refusal, Reply};
use super::route::{Handler, Route};
use crate::go_compat;
use crate::store::{Entry, Topic};

/// The largest value (Consul's `kv_max_value_size`), in bytes.
const LARGEST_VALUE: usize = 512 * 1024;

pub(super) const ROUTES: &[Route] = &[Route::new(
    "/v1/kv/",
    &[
        (
            Method::GET,
            Handler::Blocking(Read {
                topic,
                look,
                about: About::Keys,
            }),
        ),
        (Method::PUT, Handler::Plain(put)),
        (Method::DELETE, Handler::Plain(delete)),
    ],
)
.up_to(LARGEST_VALUE, "kv_max_value_size")];

fn topic(call: &Call) -> Topic {
    if is_list(call) {
        Topic::Prefix(call.rest.clone())
    } else {
        Topic::Key(call.rest.clone())
    }
}

fn is_list(call: &Call) -> bool {
    call.query.has("recurse") || call.query.has("keys")
}

fn look(call: &Call) -> Result<Found, Refusal> {
    if !is_list(call) {
        return one(call);
    }
    let (index, entries) = call.app.store.read(|state| state.kv.list(&call.rest));
    let wants_keys = call.query.has("keys");
    // All keys there are is a list, even if there are none.
    let body = if entries.is_empty() && !(wants_keys && call.rest.is_empty()) {
        Body::Missing
    } else if wants_keys {
        let keys = entries.iter().map(|entry| entry.key.as_str());
        call.json_body(&folded(keys, call.rest.len(), call.query.get("separator")))?
    } else {
        call.json_body(&entries)?
    };
    Ok(Found { index, body })
}

fn one(call: &Call) -> Result<Found, Refusal> {
    let key = call.name("key name")?;
    let (index, entry) = call.app.store.read(|state| {
        let (index, entry) = state.kv.get(key);
        (index, entry.cloned())
    });
    let body = match entry {
        None => Body::Missing,
        Some(entry) if call.query.has("raw") => Body::Raw(entry.value.clone()),
        Some(entry) => call.json_body(&[entry])?,
    };
    Ok(Found { index, body })
}

/// The keys, but those with the separator after the prefix only up to it, and those once.
fn folded<'a>(keys: impl Iterator<Item = &'a str>, prefix: usize, separator: &str) -> Vec<&'a str> {
    let mut folded: Vec<&str> = keys
        .map(|key| match key[prefix..].find(separator) {
            Some(at) if !separator.is_empty() => &key[..prefix + at + separator.len()],
            _ => key,
        })
        .collect();
    folded.dedup();
    folded
}

fn put(call: &Call) -> Result<Reply, Refusal> {
    let key = call.name("key name")?;
    refuse_conflict(call, &["cas", "acquire", "release"])?;
    let query = &call.query;
    let number = |name| match query.has(name) {
        true => go_compat::parse_u64(query.get(name)).map(Some),
        false => Ok(None),
    };
    let mut entry = Entry {
        key: key.to_owned(),
        flags: number("flags").map_err(Refusal::internal)?.unwrap_or(0),
        value: call.body.clone(),
        ..Entry::default()
    };
    let cas = number("cas").map_err(Refusal::internal)?;
    call.refuse_elsewhere()?;
    let done = call.app.store.write(|state, changes| {
        if let Some(index) = cas {
            Ok(state.kv.set_if(index, entry, changes).is_some())
        } else if query.has("acquire") {
            entry.session = query.get("acquire").to_owned();
            if state.kv.is_closed(key, Instant::now().into_std()) {
                return Ok(false);
            }
            Ok(state.lock(entry, changes)?.is_some())
        } else if query.has("release") {
            entry.session = query.get("release").to_owned();
            Ok(state.unlock(entry, changes)?.is_some())
        } else {
            state.kv.set(entry, changes);
            Ok(true)
        }
    });
    call.json(&done.map_err(|fault: String| Refusal::internal(fault))?)
}

fn delete(call: &Call) -> Result<Reply, Refusal> {
    refuse_conflict(call, &["recurse", "cas"])?;
    let tree = call.query.has("recurse");
    if !tree {
        call.name("key name")?;
    }
    let cas = match call.query.has("cas") {
        true => Some(go_compat::parse_u64(call.query.get("cas")).map_err(Refusal::internal)?),
        false => None,
    };
    call.refuse_elsewhere()?;
    let key = call.rest.as_str();
    let done = call.app.store.write(|state, changes| match cas {
        Some(index) => state.kv.delete_if(index, key, changes),
        None => {
            if tree {
                state.kv.delete_tree(key, changes);
            } else {
                state.kv.delete(key, changes);
            }
            true
        }
    });
    call.json(&done)
}

/// Only one of these may be asked for.
fn refuse_conflict(call: &Call, names: &[&'static str]) -> Result<(), Refusal> {
    let asked = names.iter().filter(|name| call.query.has(name)).count();
    if asked < 2 {
        return Ok(());
    }
    let text = format!("Conflicting flags: {}", call.query.encoded());
    Err(Refusal::bad_request(text))
}
