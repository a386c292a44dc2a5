//! `/v1/kv`: keys, their values and their locks.

use std::sync::Arc;

use http::Method;
use tokio::time::Instant;

use super::blocking::{QueryKind, QueryResult};
use super::json;
use super::request::ApiRequest;
use super::response::{ApiError, ApiResponse, ResponseBody};
use super::route::{Handler, Route};
use crate::go_compat;
use crate::store::{CachedBody, KvEntry, SharedListKey, Topic};

/// The largest value (Consul's `kv_max_value_size`), in bytes.
const MAX_VALUE_BYTES: usize = 512 * 1024;

/// Requests for the same list of keys share a response of at least this length, in bytes.
const MIN_SHARED_BYTES: usize = 64 * 1024;

pub(super) const ROUTES: &[Route] = &[Route::new(
    "/v1/kv/",
    &[
        (Method::GET, Handler::blocking(QueryKind::Keys, topic, read)),
        (Method::PUT, Handler::Sync(put)),
        (Method::DELETE, Handler::Sync(delete)),
    ],
)
.with_body_limit(MAX_VALUE_BYTES, "kv_max_value_size")];

fn topic(request: &ApiRequest) -> Topic {
    if is_list(request) {
        Topic::Prefix(request.suffix.clone())
    } else {
        Topic::Key(request.suffix.clone())
    }
}

fn is_list(request: &ApiRequest) -> bool {
    request.query.has("recurse") || request.query.has("keys")
}

fn read(request: &ApiRequest) -> Result<QueryResult, ApiError> {
    if !is_list(request) {
        return read_key(request);
    }
    let only_keys = request.query.has("keys");
    let key_of = |index| SharedListKey {
        prefix: request.suffix.clone(),
        pretty: request.is_pretty(),
        index,
    };
    let (index, entries, shared) = request.app.store.read(|state| {
        let (index, entries) = state.kv.list(&request.suffix);
        let shared = state.kv.shared_lists().get(&key_of(index));
        (index, entries, shared.filter(|_| !only_keys))
    });
    if let Some(body) = shared {
        let body = ResponseBody::Shared(body);
        return Ok(QueryResult { index, body });
    }
    // Only a list of all keys responds with an empty list instead of 404.
    let body = if entries.is_empty() && !(only_keys && request.suffix.is_empty()) {
        ResponseBody::NotFound
    } else if only_keys {
        let keys = entries.iter().map(|entry| entry.key.as_str());
        request.json_body(&up_to_separator(
            keys,
            request.suffix.len(),
            request.query.get("separator"),
        ))?
    } else {
        let text = json::to_vec(&entries, request.is_pretty())?;
        let body = Arc::new(CachedBody::new(text));
        if body.uncompressed.len() >= MIN_SHARED_BYTES {
            let store = &request.app.store;
            store.read(|state| state.kv.shared_lists().insert(key_of(index), &body));
        }
        ResponseBody::Shared(body)
    };
    Ok(QueryResult { index, body })
}

fn read_key(request: &ApiRequest) -> Result<QueryResult, ApiError> {
    let key = request.required_suffix("key name")?;
    let (index, entry) = request.app.store.read(|state| {
        let (index, entry) = state.kv.get(key);
        (index, entry.cloned())
    });
    let body = match entry {
        None => ResponseBody::NotFound,
        Some(entry) if request.query.has("raw") => ResponseBody::Raw(entry.value.clone()),
        Some(entry) => request.json_body(&[entry])?,
    };
    Ok(QueryResult { index, body })
}

/// Cuts each key after the first separator that follows the prefix, and removes duplicates.
fn up_to_separator<'a>(
    keys: impl Iterator<Item = &'a str>,
    prefix: usize,
    separator: &str,
) -> Vec<&'a str> {
    let mut keys: Vec<&str> = keys
        .map(|key| match key[prefix..].find(separator) {
            Some(at) if !separator.is_empty() => &key[..prefix + at + separator.len()],
            _ => key,
        })
        .collect();
    keys.dedup();
    keys
}

fn put(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let key = request.required_suffix("key name")?;
    reject_conflict(request, &["cas", "acquire", "release"])?;
    let query = &request.query;
    let number = |name| {
        let text = query.has(name).then(|| query.get(name));
        text.map(go_compat::parse_u64).transpose()
    };
    let mut entry = KvEntry {
        key: key.to_owned(),
        flags: number("flags").map_err(ApiError::internal)?.unwrap_or(0),
        value: request.body.clone(),
        ..KvEntry::default()
    };
    let cas = number("cas").map_err(ApiError::internal)?;
    request.require_local_datacenter()?;
    let done = request.app.store.write(|state, changes| {
        if let Some(index) = cas {
            Ok(state.kv.set_if(index, entry, changes).is_some())
        } else if query.has("acquire") {
            entry.session = query.get("acquire").to_owned();
            if state.kv.has_lock_delay(key, Instant::now().into_std()) {
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
    request.json(&done.map_err(|error: String| ApiError::internal(error))?)
}

fn delete(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    reject_conflict(request, &["recurse", "cas"])?;
    let tree = request.query.has("recurse");
    if !tree {
        request.required_suffix("key name")?;
    }
    let cas = if request.query.has("cas") {
        Some(go_compat::parse_u64(request.query.get("cas")).map_err(ApiError::internal)?)
    } else {
        None
    };
    request.require_local_datacenter()?;
    let key = request.suffix.as_str();
    let done = request.app.store.write(|state, changes| match cas {
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
    request.json(&done)
}

/// Rejects a request with more than one of these parameters.
fn reject_conflict(request: &ApiRequest, names: &[&'static str]) -> Result<(), ApiError> {
    let count = names.iter().filter(|name| request.query.has(name)).count();
    if count < 2 {
        return Ok(());
    }
    let text = format!("Conflicting flags: {}", request.query.encoded());
    Err(ApiError::bad_request(text))
}
