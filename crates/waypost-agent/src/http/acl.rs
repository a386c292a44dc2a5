//! `/v1/acl`, as it is with a token: there is that one token, which may do everything, and the
//! anonymous one, which may do nothing. Both can be looked at and nothing can be changed (see
//! [`super::refused`]). Without a token there are no ACLs at all.

use http::{Method, StatusCode};
use serde::Serialize;

use super::call::Call;
use super::refused::{ACL, no_acl};
use super::reply::{Refusal, Reply};
use super::route::{Handler, Route};
use crate::decode::{self, Authorization};

const GET: Method = Method::GET;
const PUT: Method = Method::PUT;
const POST: Method = Method::POST;
const DELETE: Method = Method::DELETE;

pub(super) const ROUTES: &[Route] = &[
    Route::new("/v1/acl/bootstrap", &[(PUT, Handler::Plain(bootstrap))]).beyond_namespaces(),
    Route::new("/v1/acl/tokens", &[(GET, Handler::Plain(tokens))]).beyond_namespaces(),
    Route::new("/v1/acl/token/self", &[(GET, Handler::Plain(myself))]).beyond_namespaces(),
    Route::new(
        "/v1/acl/token/",
        &[(GET, Handler::Plain(token)), (PUT, ACL), (DELETE, ACL)],
    )
    .beyond_namespaces(),
    Route::new("/v1/acl/policies", &[(GET, Handler::Plain(policies))]).beyond_namespaces(),
    Route::new(
        "/v1/acl/policy/",
        &[(GET, Handler::Plain(policy)), (PUT, ACL), (DELETE, ACL)],
    )
    .beyond_namespaces(),
    Route::new(
        "/v1/acl/policy/name/",
        &[(GET, Handler::Plain(policy_by_name))],
    )
    .beyond_namespaces(),
    Route::new("/v1/acl/roles", &[(GET, Handler::Plain(none))]).beyond_namespaces(),
    Route::new("/v1/acl/binding-rules", &[(GET, Handler::Plain(none))]).beyond_namespaces(),
    Route::new("/v1/acl/auth-methods", &[(GET, Handler::Plain(none))]).beyond_namespaces(),
    Route::new(
        "/v1/internal/acl/authorize",
        &[(POST, Handler::Plain(authorize))],
    )
    .beyond_namespaces(),
];

/// They are there from the start.
const FIRST_INDEX: u64 = 1;

const MOST_AUTHORIZATIONS: usize = 64;

const ANONYMOUS: &str = "00000000-0000-0000-0000-000000000002";

const GLOBAL_MANAGEMENT: PolicyLink = PolicyLink {
    id: "00000000-0000-0000-0000-000000000001",
    name: "global-management",
};

const DESCRIPTION_OF_POLICY: &str = "Builtin Policy that grants unlimited access";
const HASH_OF_POLICY: &str = "swIQt6up+s0cV4kePfJ2aRdKCLaQyykF4Hl1Nfdeumk=";

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
    /// Of what it may do, so that it is the same everywhere.
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

/// The policy in a list.
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

/// The policy by itself.
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
struct Allowed {
    resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    segment: String,
    access: String,
    allow: bool,
}

/// The first token is there from the start, so that nobody can make it.
fn bootstrap(call: &Call) -> Result<Reply, Refusal> {
    token_in_force(call)?;
    Err(Refusal::new(
        StatusCode::FORBIDDEN,
        format!("Permission denied: ACL bootstrap no longer allowed (reset index: {FIRST_INDEX})"),
    ))
}

fn tokens(call: &Call) -> Result<Reply, Refusal> {
    token_in_force(call)?;
    let asked = |parameter| call.query.get(parameter);
    let mut tokens = vec![anonymous(call), management(call, "")];
    let policy = asked("policy");
    if !policy.is_empty() {
        tokens.retain(|token| token.policies.iter().any(|it| it.id == policy));
    }
    if !asked("role").is_empty() || !asked("authmethod").is_empty() {
        tokens.clear();
    }
    // Secrets don't stand in lists.
    for token in &mut tokens {
        token.secret = "";
    }
    found(call, &tokens)
}

/// Whoever comes this far has the token.
fn myself(call: &Call) -> Result<Reply, Refusal> {
    found(call, &management(call, token_in_force(call)?))
}

fn token(call: &Call) -> Result<Reply, Refusal> {
    let secret = token_in_force(call)?;
    match call.rest.as_str() {
        ANONYMOUS => found(call, &anonymous(call)),
        id if id == call.app.node_id => found(call, &management(call, secret)),
        _ => Err(unknown()),
    }
}

fn policies(call: &Call) -> Result<Reply, Refusal> {
    token_in_force(call)?;
    found(
        call,
        &[ListedPolicy {
            link: GLOBAL_MANAGEMENT,
            description: DESCRIPTION_OF_POLICY,
            datacenters: None,
            hash: HASH_OF_POLICY,
            create_index: FIRST_INDEX,
            modify_index: FIRST_INDEX,
        }],
    )
}

fn policy(call: &Call) -> Result<Reply, Refusal> {
    the_policy(call, GLOBAL_MANAGEMENT.id)
}

fn policy_by_name(call: &Call) -> Result<Reply, Refusal> {
    the_policy(call, GLOBAL_MANAGEMENT.name)
}

fn the_policy(call: &Call, wanted: &str) -> Result<Reply, Refusal> {
    token_in_force(call)?;
    if call.rest != wanted {
        return Err(unknown());
    }
    found(
        call,
        &Policy {
            link: GLOBAL_MANAGEMENT,
            description: DESCRIPTION_OF_POLICY,
            rules: rules(),
            hash: HASH_OF_POLICY,
            create_index: FIRST_INDEX,
            modify_index: FIRST_INDEX,
        },
    )
}

/// Of everything else there is nothing.
fn none(call: &Call) -> Result<Reply, Refusal> {
    token_in_force(call)?;
    found(call, &[(); 0])
}

/// Whoever comes this far may do whatever is asked about.
fn authorize(call: &Call) -> Result<Reply, Refusal> {
    token_in_force(call)?;
    let refuse = |words: String| Refusal::bad_request(format!("Bad request: {words}"));
    let questions: Vec<Authorization> = decode::from_slice(&call.body)
        .map_err(|error| refuse(format!("Failed to decode request body: {error}")))?;
    if questions.len() > MOST_AUTHORIZATIONS {
        return Err(refuse(format!(
            "Refusing to process more than {MOST_AUTHORIZATIONS} authorizations at once"
        )));
    }
    let answers = questions.into_iter().map(|question| Allowed {
        resource: question.resource,
        segment: question.segment,
        access: question.access,
        allow: true,
    });
    call.json(&answers.collect::<Vec<_>>())
}

fn management<'a>(call: &'a Call, secret: &'a str) -> Token<'a> {
    Token {
        // To be told from others is all it is for.
        accessor: &call.app.node_id,
        secret,
        description: "Master Token",
        policies: &[GLOBAL_MANAGEMENT],
        local: false,
        create_time: call.app.started(),
        hash: "4H7ICbDZ4j6AdxBPps0g3c8dGOg5QUg7BfxngwA4i+c=",
        create_index: FIRST_INDEX,
        modify_index: FIRST_INDEX,
    }
}

fn anonymous(call: &Call) -> Token<'static> {
    Token {
        accessor: ANONYMOUS,
        secret: "anonymous",
        description: "Anonymous Token",
        policies: &[],
        local: false,
        create_time: call.app.started(),
        hash: "RNVFSWnfd5DUOuB8vplp+imivlIna3fKQVnkUHh21cA=",
        create_index: FIRST_INDEX,
        modify_index: FIRST_INDEX,
    }
}

/// In the language of policies: everything.
fn rules() -> String {
    let all = [
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
    let rules = all.map(|resource| {
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

fn token_in_force(call: &Call) -> Result<&str, Refusal> {
    call.app.guard.token().ok_or_else(|| no_acl(call))
}

fn unknown() -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "ACL not found")
}

fn found<T: Serialize + ?Sized>(call: &Call, value: &T) -> Result<Reply, Refusal> {
    call.refuse_elsewhere()?;
    let reply = call.json(value)?;
    Ok(reply
        .header("x-consul-index", FIRST_INDEX.to_string())
        .header("x-consul-knownleader", "true")
        .header("x-consul-lastcontact", "0"))
}
