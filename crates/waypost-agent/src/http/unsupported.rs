//! Features of Consul that this registry doesn't have: prepared queries, intentions, config
//! entries, gateways, further ACL tokens and more.
//!
//! Reads respond like a Consul that has no such items: lists are empty and names are not found. Writes
//! fail with the error of a Consul that has the feature disabled, if it can be disabled, and with 501
//! otherwise.

use bytes::Bytes;
use http::{Method, StatusCode};

use super::blocking::{QueryKind, QueryResult};
use super::request::ApiRequest;
use super::response::{ApiError, ApiResponse, ResponseBody};
use super::route::{Handler, Route};
use crate::store::Topic;

pub(super) const ACL: Handler = Handler::Sync(|request| Err(acl_error(request)));
pub(super) const OPERATOR: Handler = Handler::Sync(|_| Err(not_served("The operator API isn't")));
const INTENTIONS: Handler = Handler::Sync(|_| Err(not_served("Intentions aren't")));
const CONFIG: Handler = Handler::Sync(|_| Err(not_served("Config entries aren't")));
const QUERIES: Handler = Handler::Sync(|_| Err(not_served("Prepared queries aren't")));
const SNAPSHOTS: Handler = Handler::Sync(|_| Err(not_served("Snapshots aren't")));
const FEDERATION: Handler = Handler::Sync(|_| Err(not_served("Federation isn't")));
const CONNECT: Handler = Handler::Sync(|_| Err(ApiError::internal(CONNECT_DISABLED)));
const CONNECT_READ: Handler = Handler::Sync(|_| {
    let response: ApiResponse = ApiError::internal(CONNECT_DISABLED).into();
    Ok(response
        .header("x-consul-index", "1")
        .header("x-consul-knownleader", "false")
        .header("x-consul-lastcontact", "0"))
});

const CONNECT_DISABLED: &str = "Connect must be enabled in order to use this endpoint";

const CONFIG_KINDS: [&str; 8] = [
    "",
    "ingress-gateway",
    "proxy-defaults",
    "service-defaults",
    "service-resolver",
    "service-router",
    "service-splitter",
    "terminating-gateway",
];

const GET: Method = Method::GET;
const PUT: Method = Method::PUT;
const POST: Method = Method::POST;
const DELETE: Method = Method::DELETE;

macro_rules! routes {
    ($($path:literal $(($first:ident, $handler:expr))? $($name:ident $($method:ident)+)?;)+) => {
        &[$(
            Route::new($path, &[$(($first, $handler),)? $($(($method, $name)),+)?])
                .without_namespace()
        ),+]
    };
}

pub(super) const ROUTES: &[Route] = routes! {
    "/v1/query" (GET, query(QueryKind::Catalog, empty_list)) QUERIES POST;
    "/v1/query/" (GET, Handler::Sync(|_| not_found("Query"))) QUERIES PUT DELETE;
    "/v1/connect/intentions" (GET, query(QueryKind::Ui, empty_list)) INTENTIONS POST;
    "/v1/connect/intentions/"
        (GET, Handler::Sync(|_| not_found("Intention"))) INTENTIONS PUT DELETE;
    "/v1/connect/intentions/match" INTENTIONS GET;
    "/v1/connect/intentions/check" INTENTIONS GET;
    "/v1/config" CONFIG PUT;
    "/v1/config/" (GET, query(QueryKind::Ui, config_entry)) CONFIG DELETE;
    "/v1/catalog/gateway-services/" (GET, query(QueryKind::Catalog, gateway_services));
    "/v1/health/ingress/" (GET, query(QueryKind::Catalog, ingress_instances));
    "/v1/acl/replication" ACL GET;
    "/v1/acl/token" ACL PUT;
    "/v1/acl/policy" ACL PUT;
    "/v1/acl/role" ACL PUT;
    "/v1/acl/role/" ACL GET PUT DELETE;
    "/v1/acl/role/name/" ACL GET;
    "/v1/acl/binding-rule" ACL PUT;
    "/v1/acl/binding-rule/" ACL GET PUT DELETE;
    "/v1/acl/auth-method" ACL PUT;
    "/v1/acl/auth-method/" ACL GET PUT DELETE;
    "/v1/acl/login" ACL POST;
    "/v1/acl/logout" ACL POST;
    "/v1/acl/create" ACL PUT;
    "/v1/acl/update" ACL PUT;
    "/v1/acl/destroy/" ACL PUT;
    "/v1/acl/info/" ACL GET;
    "/v1/acl/clone/" ACL PUT;
    "/v1/acl/list" ACL GET;
    "/v1/acl/rules/translate" ACL POST;
    "/v1/acl/rules/translate/" ACL GET;
    "/v1/agent/token/" ACL PUT;
    "/v1/connect/ca/roots" CONNECT_READ GET;
    "/v1/connect/ca/configuration" CONNECT GET PUT;
    "/v1/agent/connect/ca/roots" CONNECT GET;
    "/v1/agent/connect/ca/leaf/" CONNECT GET;
    "/v1/agent/connect/authorize" CONNECT POST;
    "/v1/discovery-chain/" CONNECT_READ GET POST;
    "/v1/snapshot" SNAPSHOTS GET PUT;
    "/v1/operator/raft/peer" OPERATOR DELETE;
    "/v1/operator/keyring" OPERATOR GET POST PUT DELETE;
    "/v1/internal/federation-states" FEDERATION GET;
    "/v1/internal/federation-state/" FEDERATION GET;
};

/// A blocking query whose result never changes. The topic only has to be a valid one.
const fn query(kind: QueryKind, run: fn(&ApiRequest) -> Result<QueryResult, ApiError>) -> Handler {
    Handler::blocking(kind, |_| Topic::Nodes, run)
}

fn empty_list(_: &ApiRequest) -> Result<QueryResult, ApiError> {
    Ok(constant("[]"))
}

fn config_entry(request: &ApiRequest) -> Result<QueryResult, ApiError> {
    let (kind, name) = request
        .suffix
        .split_once('/')
        .unwrap_or((&request.suffix, ""));
    if !CONFIG_KINDS.contains(&kind) {
        let text = format!("invalid config entry kind: {kind}");
        return Err(ApiError::internal(text));
    }
    if name.is_empty() {
        return empty_list(request);
    }
    let text = format!("Config entry not found for {kind:?} / {name:?}");
    Err(ApiError::not_found(text))
}

fn gateway_services(request: &ApiRequest) -> Result<QueryResult, ApiError> {
    request.required_suffix("gateway name")?;
    Ok(constant("null"))
}

fn ingress_instances(request: &ApiRequest) -> Result<QueryResult, ApiError> {
    request.required_suffix("service name")?;
    empty_list(request)
}

fn constant(body: &'static str) -> QueryResult {
    QueryResult {
        index: 1,
        body: ResponseBody::Owned(Bytes::from_static(body.as_bytes())),
    }
}

fn not_found<T>(what: &str) -> Result<T, ApiError> {
    Err(ApiError::not_found(format!("{what} not found")))
}

/// The error for a registration or transaction with a proxy or gateway of Connect.
pub(super) fn mesh_error() -> ApiError {
    not_served("Connect's proxies and gateways aren't")
}

/// The error for ACLs: they are disabled without a token, and otherwise there is only that token.
pub(super) fn acl_error(request: &ApiRequest) -> ApiError {
    if request.app.auth.has_token() {
        return not_served("ACL policies and further tokens aren't");
    }
    ApiError::new(StatusCode::UNAUTHORIZED, "ACL support disabled")
}

fn not_served(what: &str) -> ApiError {
    ApiError::new(
        StatusCode::NOT_IMPLEMENTED,
        format!("{what} served by this registry; use a Consul server for that."),
    )
}
