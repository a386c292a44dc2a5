//! `/v1/acl/token/self`: what the one token is, if there is one.

use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::BASE64;
use http::Method;
use serde::Serialize;

use super::call::Call;
use super::refused::no_acl;
use super::reply::{Refusal, Reply};
use super::router::{Handler, Route};
use crate::go;

pub(super) const ROUTES: &[Route] = &[Route::new(
    "/v1/acl/token/self",
    &[(Method::GET, Handler::Plain(myself))],
)
.beyond_namespaces()];

/// It is there from the start.
const FIRST_INDEX: u64 = 1;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Token<'a> {
    #[serde(rename = "AccessorID")]
    accessor: &'a str,
    #[serde(rename = "SecretID")]
    secret: &'a str,
    description: &'static str,
    policies: [Policy; 1],
    local: bool,
    create_time: String,
    hash: String,
    create_index: u64,
    modify_index: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Policy {
    #[serde(rename = "ID")]
    id: &'static str,
    name: &'static str,
}

/// Whoever comes this far has the token, which may do everything: Consul's master token.
fn myself(call: &Call) -> Result<Reply, Refusal> {
    let Some(secret) = call.app.guard.token() else {
        return Err(no_acl(call));
    };
    // To be told from others is all it is for.
    let accessor = &call.app.node_id;
    let hash = BASE64.encode(accessor.replace('-', "").as_bytes());
    let token = Token {
        accessor,
        secret,
        description: "Master Token",
        policies: [Policy {
            id: "00000000-0000-0000-0000-000000000001",
            name: "global-management",
        }],
        local: false,
        create_time: time_of(call.app.started),
        hash,
        create_index: FIRST_INDEX,
        modify_index: FIRST_INDEX,
    };
    let reply = call.json(&token)?;
    Ok(reply
        .header("x-consul-index", FIRST_INDEX.to_string())
        .header("x-consul-knownleader", "true")
        .header("x-consul-lastcontact", "0"))
}

fn time_of(moment: SystemTime) -> String {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = go::date_time(since.as_secs()).replace(' ', "T");
    format!("{seconds}.{:09}Z", since.subsec_nanos())
}
