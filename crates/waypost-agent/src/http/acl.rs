//! `/v1/acl`. If the agent has a token, there are two ACL tokens: this one, which allows everything,
//! and the anonymous token, which allows nothing. Both can be read, and nothing can be changed (see
//! [`super::unsupported`]). Without a token, ACLs are disabled.

use http::{Method, StatusCode};
use serde::Serialize;

use super::request::ApiRequest;
use super::response::{ApiError, ApiResponse};
use super::route::{Handler, Route};
use super::unsupported::{ACL, acl_error};
use crate::decode;
use crate::decode::Authorization;

const GET: Method = Method::GET;
const PUT: Method = Method::PUT;
const POST: Method = Method::POST;
const DELETE: Method = Method::DELETE;

pub(super) const ROUTES: &[Route] = &[
    Route::new("/v1/acl/bootstrap", &[(PUT, Handler::Sync(bootstrap))]).without_namespace(),
    Route::new("/v1/acl/tokens", &[(GET, Handler::Sync(tokens))]).without_namespace(),
    Route::new("/v1/acl/token/self", &[(GET, Handler::Sync(own_token))]).without_namespace(),
    Route::new(
        "/v1/acl/token/",
        &[(GET, Handler::Sync(token)), (PUT, ACL), (DELETE, ACL)],
    )
    .without_namespace(),
    Route::new("/v1/acl/policies", &[(GET, Handler::Sync(policies))]).without_namespace(),
    Route::new(
        "/v1/acl/policy/",
        &[(GET, Handler::Sync(policy)), (PUT, ACL), (DELETE, ACL)],
    )
    .without_namespace(),
    Route::new(
        "/v1/acl/policy/name/",
        &[(GET, Handler::Sync(policy_by_name))],
    )
    .without_namespace(),
    Route::new("/v1/acl/roles", &[(GET, Handler::Sync(empty_list))]).without_namespace(),
    Route::new("/v1/acl/binding-rules", &[(GET, Handler::Sync(empty_list))]).without_namespace(),
    Route::new("/v1/acl/auth-methods", &[(GET, Handler::Sync(empty_list))]).without_namespace(),
    Route::new(
        "/v1/internal/acl/authorize",
        &[(POST, Handler::Sync(authorize))],
    )
    .without_namespace(),
];

/// The index of everything here, because nothing changes.
const INDEX: u64 = 1;

const MAX_AUTHORIZATIONS: usize = 64;

const ANONYMOUS: &str = "00000000-0000-0000-0000-000000000002";

const GLOBAL_MANAGEMENT: PolicyLink = PolicyLink {
    id: "00000000-0000-0000-0000-000000000001",
    name: "global-management",
};

const POLICY_DESCRIPTION: &str = "Builtin Policy that grants unlimited access";
const POLICY_HASH: &str = "swIQt6up+s0cV4kePfJ2aRdKCLaQyykF4Hl1Nfdeumk=";

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Token<'a> {
    #[serde(rename = "AccessorID")]
    accessor: &'a str,
    #[serde(rename = "SecretID", skip_serializing_if = "str::is_empty")]
    secret: &'a str,
    description: &'static str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    policies: &'static [PolicyLink],
    local: bool,
    create_time: String,
    /// A hash of the permissions, and so a constant.
    hash: &'static str,
    create_index: u64,
    modify_index: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct PolicyLink {
    #[serde(rename = "ID")]
    id: &'static str,
    name: &'static str,
}

/// A policy as it is listed.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ListedPolicy {
    #[serde(flatten)]
    link: PolicyLink,
    description: &'static str,
    datacenters: Option<()>,
    hash: &'static str,
    create_index: u64,
    modify_index: u64,
}

/// A policy as it is read by id or name.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Policy {
    #[serde(flatten)]
    link: PolicyLink,
    description: &'static str,
    rules: String,
    hash: &'static str,
    create_index: u64,
    modify_index: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct AuthorizationResult {
    resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    segment: String,
    access: String,
    allow: bool,
}

/// Always fails, because the first token already exists.
fn bootstrap(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    required_token(request)?;
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        format!("Permission denied: ACL bootstrap no longer allowed (reset index: {INDEX})"),
    ))
}

fn tokens(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    required_token(request)?;
    let mut tokens = vec![anonymous(request), management(request, "")];
    let query = &request.query;
    let policy = query.get("policy");
    if !policy.is_empty() {
        tokens.retain(|token| token.policies.iter().any(|it| it.id == policy));
    }
    if !query.get("role").is_empty() || !query.get("authmethod").is_empty() {
        tokens.clear();
    }
    // Lists don't contain secrets.
    for token in &mut tokens {
        token.secret = "";
    }
    respond(request, &tokens)
}

fn own_token(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    respond(request, &management(request, required_token(request)?))
}

fn token(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let secret = required_token(request)?;
    match request.suffix.as_str() {
        ANONYMOUS => respond(request, &anonymous(request)),
        id if id == request.app.node_id => respond(request, &management(request, secret)),
        _ => Err(not_found()),
    }
}

fn policies(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    required_token(request)?;
    respond(
        request,
        &[ListedPolicy {
            link: GLOBAL_MANAGEMENT,
            description: POLICY_DESCRIPTION,
            datacenters: None,
            hash: POLICY_HASH,
            create_index: INDEX,
            modify_index: INDEX,
        }],
    )
}

fn policy(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    read_policy(request, GLOBAL_MANAGEMENT.id)
}

fn policy_by_name(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    read_policy(request, GLOBAL_MANAGEMENT.name)
}

fn read_policy(request: &ApiRequest, expected: &str) -> Result<ApiResponse, ApiError> {
    required_token(request)?;
    if request.suffix != expected {
        return Err(not_found());
    }
    respond(
        request,
        &Policy {
            link: GLOBAL_MANAGEMENT,
            description: POLICY_DESCRIPTION,
            rules: rules(),
            hash: POLICY_HASH,
            create_index: INDEX,
            modify_index: INDEX,
        },
    )
}

/// The list of roles, binding rules or auth methods.
fn empty_list(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    required_token(request)?;
    respond(request, &[(); 0])
}

/// Allows everything, because the request has the token.
fn authorize(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    required_token(request)?;
    let bad_request = |text: String| ApiError::bad_request(format!("Bad request: {text}"));
    let queries: Vec<Authorization> = decode::from_slice(&request.body)
        .map_err(|error| bad_request(format!("Failed to decode request body: {error}")))?;
    if queries.len() > MAX_AUTHORIZATIONS {
        return Err(bad_request(format!(
            "Refusing to process more than {MAX_AUTHORIZATIONS} authorizations at once"
        )));
    }
    let authorizations = queries.into_iter().map(|query| AuthorizationResult {
        resource: query.resource,
        segment: query.segment,
        access: query.access,
        allow: true,
    });
    request.json(&authorizations.collect::<Vec<_>>())
}

fn management<'a>(request: &'a ApiRequest, secret: &'a str) -> Token<'a> {
    Token {
        // Any unique id will do.
        accessor: &request.app.node_id,
        secret,
        description: "Master Token",
        policies: &[GLOBAL_MANAGEMENT],
        local: false,
        create_time: request.app.started(),
        hash: "4H7ICbDZ4j6AdxBPps0g3c8dGOg5QUg7BfxngwA4i+c=",
        create_index: INDEX,
        modify_index: INDEX,
    }
}

fn anonymous(request: &ApiRequest) -> Token<'static> {
    Token {
        accessor: ANONYMOUS,
        secret: "anonymous",
        description: "Anonymous Token",
        policies: &[],
        local: false,
        create_time: request.app.started(),
        hash: "RNVFSWnfd5DUOuB8vplp+imivlIna3fKQVnkUHh21cA=",
        create_index: INDEX,
        modify_index: INDEX,
    }
}

/// The rules of a policy that allows everything.
fn rules() -> String {
    let resources = [
        "acl",
        "agent_prefix",
        "event_prefix",
        "key_prefix",
        "keyring",
        "node_prefix",
        "operator",
        "query_prefix",
        "service_prefix",
        "session_prefix",
    ];
    let rules = resources.map(|resource| {
        if !resource.ends_with("_prefix") {
            return format!("\n{resource} = \"write\"");
        }
        let intentions = match resource {
            "service_prefix" => "\n\tintentions = \"write\"",
            _ => "",
        };
        format!("\n{resource} \"\" {{\n\tpolicy = \"write\"{intentions}\n}}")
    });
    rules.concat()
}

fn required_token(request: &ApiRequest) -> Result<&str, ApiError> {
    request.app.auth.token().ok_or_else(|| acl_error(request))
}

fn not_found() -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "ACL not found")
}

/// A response with the headers of a query.
fn respond<T: Serialize + ?Sized>(
    request: &ApiRequest,
    value: &T,
) -> Result<ApiResponse, ApiError> {
    request.require_local_datacenter()?;
    let response = request.json(value)?;
    Ok(response
        .header("x-consul-index", INDEX.to_string())
        .header("x-consul-knownleader", "true")
        .header("x-consul-lastcontact", "0"))
}
