//! What this registry leaves to Consul, so that asking for it gets a clear answer: with the words
//! of a Consul that has it turned off, where there is such a thing, and with 501 elsewhere.

use http::{Method, StatusCode};

use super::call::Call;
use super::reply::{Refusal, Reply};
use super::route::{Handler, Route};

pub(super) const ACL: Handler = Handler::Plain(|call| Err(no_acl(call)));
const CONNECT: Handler = Handler::Plain(|_| Err(Refusal::internal(NO_CONNECT)));
const CONNECT_READ: Handler = Handler::Plain(|_| {
    let reply: Reply = Refusal::internal(NO_CONNECT).into();
    Ok(reply
        .header("x-consul-index", "1")
        .header("x-consul-knownleader", "false")
        .header("x-consul-lastcontact", "0"))
});
pub(super) const INTENTIONS: Handler = Handler::Plain(|_| Err(not_served("Intentions aren't")));
pub(super) const CONFIG: Handler = Handler::Plain(|_| Err(not_served("Config entries aren't")));
pub(super) const QUERIES: Handler = Handler::Plain(|_| Err(not_served("Prepared queries aren't")));
const SNAPSHOTS: Handler = Handler::Plain(|_| Err(not_served("Snapshots aren't")));
pub(super) const OPERATOR: Handler = Handler::Plain(|_| Err(not_served("The operator API isn't")));
const FEDERATION: Handler = Handler::Plain(|_| Err(not_served("Federation isn't")));

const NO_CONNECT: &str = "Connect must be enabled in order to use this endpoint";

const GET: Method = Method::GET;
const PUT: Method = Method::PUT;
const POST: Method = Method::POST;
const DELETE: Method = Method::DELETE;

macro_rules! routes {
    ($($path:literal $handler:ident $($verb:ident)+,)+) => {
        &[$(Route::new($path, &[$(($verb, $handler)),+]).beyond_namespaces()),+]
    };
}

pub(super) const ROUTES: &[Route] = routes! {
    "/v1/acl/replication" ACL GET,
    "/v1/acl/token" ACL PUT,
    "/v1/acl/policy" ACL PUT,
    "/v1/acl/role" ACL PUT,
    "/v1/acl/role/" ACL GET PUT DELETE,
    "/v1/acl/role/name/" ACL GET,
    "/v1/acl/binding-rule" ACL PUT,
    "/v1/acl/binding-rule/" ACL GET PUT DELETE,
    "/v1/acl/auth-method" ACL PUT,
    "/v1/acl/auth-method/" ACL GET PUT DELETE,
    "/v1/acl/login" ACL POST,
    "/v1/acl/logout" ACL POST,
    "/v1/acl/create" ACL PUT,
    "/v1/acl/update" ACL PUT,
    "/v1/acl/destroy/" ACL PUT,
    "/v1/acl/info/" ACL GET,
    "/v1/acl/clone/" ACL PUT,
    "/v1/acl/list" ACL GET,
    "/v1/acl/rules/translate" ACL POST,
    "/v1/acl/rules/translate/" ACL GET,
    "/v1/agent/token/" ACL PUT,
    "/v1/connect/ca/roots" CONNECT_READ GET,
    "/v1/connect/ca/configuration" CONNECT GET PUT,
    "/v1/agent/connect/ca/roots" CONNECT GET,
    "/v1/agent/connect/ca/leaf/" CONNECT GET,
    "/v1/agent/connect/authorize" CONNECT POST,
    "/v1/discovery-chain/" CONNECT_READ GET POST,
    "/v1/connect/intentions/match" INTENTIONS GET,
    "/v1/connect/intentions/check" INTENTIONS GET,
    "/v1/config" CONFIG PUT,
    "/v1/snapshot" SNAPSHOTS GET PUT,
    "/v1/operator/raft/peer" OPERATOR DELETE,
    "/v1/operator/keyring" OPERATOR GET POST PUT DELETE,
    "/v1/internal/federation-states" FEDERATION GET,
    "/v1/internal/federation-state/" FEDERATION GET,
};

/// Connect's proxies and gateways, which a registration or a filter may name.
pub(super) fn no_mesh() -> Refusal {
    not_served("Connect's proxies and gateways aren't")
}

/// Without a token there are no ACLs; with one there is just that one.
pub(super) fn no_acl(call: &Call) -> Refusal {
    if call.app.guard.has_token() {
        return not_served("ACL policies and further tokens aren't");
    }
    Refusal::new(StatusCode::UNAUTHORIZED, "ACL support disabled")
}

pub(super) fn not_served(what: &str) -> Refusal {
    Refusal::new(
        StatusCode::NOT_IMPLEMENTED,
        format!("{what} served by this registry; use a Consul server for that."),
    )
}
