//! An agent with a token, compared with a Consul with ACLs: responses with and without the token.

use hickory_proto::rr::RecordType;
use serde_json::Value;
use waypost_agent::Agent;

use crate::differential::normalize::cut_free_ending;
use crate::differential::until;
use crate::dns::{Transport, ask, dns_agent, normalize, query};
use crate::raw_http::{Request, Response};
use crate::real_consul::Consul;

const NODE: &str = "n1";
const TOKEN: &str = "secret";

/// The body of an authorize request.
const AUTHORIZATIONS: &str = r#"[{"Resource":"service","Segment":"web","Access":"read"},
    {"resource":"operator","access":"write"}]"#;

fn with_token(method: &str, target: &str, body: &str, token: &str) -> Request {
    let mut request = Request::new(method, target, body);
    let header = ("X-Consul-Token".to_owned(), token.to_owned());
    request.headers.push(header);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_with_and_without_the_token_match_consul() {
    let consul = Consul::start_with_token(NODE, TOKEN).await;
    let builder = dns_agent(NODE).token(TOKEN);
    let agent = builder.start().await.unwrap();
    let register = r#"{"Name":"web","Address":"10.1.1.1","Port":80}"#;
    let register = with_token("PUT", "/v1/agent/service/register", register, TOKEN);
    let seen = with_token("GET", "/v1/catalog/service/web", "", TOKEN);
    for side in [consul.http, agent.http_addr()] {
        assert_eq!(register.send(side).await.unwrap().status, "200 OK");
        until(side, &seen, "10.1.1.1").await;
    }

    let authorizations = |count| {
        let one = r#"{"Resource":"service","Access":"read"}"#;
        format!("[{}]", vec![one; count].join(","))
    };
    let [most, too_many] = [64, 65].map(authorizations);
    for (method, target, body) in [
        ("POST", "/v1/internal/acl/authorize", most.as_str()),
        ("POST", "/v1/internal/acl/authorize", too_many.as_str()),
        ("GET", "/v1/catalog/services", ""),
        ("GET", "/v1/acl/token/self", ""),
        ("GET", "/v1/acl/tokens", ""),
        ("GET", "/v1/acl/tokens?policy=nope", ""),
        (
            "GET",
            "/v1/acl/tokens?policy=00000000-0000-0000-0000-000000000001",
            "",
        ),
        (
            "GET",
            "/v1/acl/token/00000000-0000-0000-0000-000000000002",
            "",
        ),
        (
            "GET",
            "/v1/acl/token/00000000-0000-0000-0000-000000000003",
            "",
        ),
        ("GET", "/v1/acl/policies", ""),
        (
            "GET",
            "/v1/acl/policy/00000000-0000-0000-0000-000000000001",
            "",
        ),
        (
            "GET",
            "/v1/acl/policy/00000000-0000-0000-0000-000000000003",
            "",
        ),
        ("GET", "/v1/acl/policy/name/global-management", ""),
        ("GET", "/v1/acl/policy/name/nope", ""),
        ("GET", "/v1/acl/tokens?role=nope", ""),
        ("GET", "/v1/acl/tokens?authmethod=nope", ""),
        ("GET", "/v1/acl/roles", ""),
        ("GET", "/v1/acl/binding-rules", ""),
        ("GET", "/v1/acl/auth-methods", ""),
        ("PUT", "/v1/acl/bootstrap", ""),
        ("POST", "/v1/internal/acl/authorize", AUTHORIZATIONS),
        ("POST", "/v1/internal/acl/authorize", "[]"),
        ("POST", "/v1/internal/acl/authorize", "{}"),
        ("GET", "/v1/agent/services", ""),
        ("PUT", "/v1/kv/a", "1"),
        ("GET", "/v1/kv/a?raw", ""),
        ("GET", "/v1/status/leader", ""),
    ] {
        let request = with_token(method, target, body, TOKEN);
        compare(&request, &consul, &agent).await;
    }
    // Without lists: without a token Consul responds with an empty list, and the agent with 403.
    for (method, target) in [
        ("GET", "/v1/agent/self"),
        ("GET", "/v1/kv/a"),
        ("PUT", "/v1/kv/a"),
        ("DELETE", "/v1/kv/a"),
        ("PUT", "/v1/agent/service/deregister/web"),
        ("PUT", "/v1/session/create"),
        ("PUT", "/v1/agent/leave"),
    ] {
        compare(&Request::new(method, target, ""), &consul, &agent).await;
        for token in ["nope", "anonymous"] {
            let wrong = with_token(method, target, "", token);
            compare(&wrong, &consul, &agent).await;
        }
    }

    let dns = agent.dns_addr().unwrap();
    for name in [
        "web.service.consul.",
        "_web._tcp.service.consul.",
        "n1.node.consul.",
        "consul.service.consul.",
        "0a010101.addr.consul.",
        "1.1.1.10.in-addr.arpa.",
        "consul.",
        "nope.consul.",
    ] {
        for kind in [
            RecordType::A,
            RecordType::SRV,
            RecordType::ANY,
            RecordType::NS,
            RecordType::SOA,
            RecordType::PTR,
        ] {
            let query = query(name, kind);
            let theirs = normalize(
                ask(consul.dns, &query, Transport::Udp).await,
                consul.server_port,
            );
            let ours = normalize(ask(dns, &query, Transport::Udp).await, 8300);
            assert_eq!(ours, theirs, "{name} {kind}");
        }
    }
}

async fn compare(request: &Request, consul: &Consul, agent: &Agent) {
    let theirs = request.send(consul.http).await.unwrap();
    let ours = request.send(agent.http_addr()).await.unwrap();
    let what = format!(
        "{} {} {:?}",
        request.method, request.target, request.headers
    );
    assert_eq!(ours.status, theirs.status, "{what}");
    let (ours, theirs) = (body(&ours), body(&theirs));
    // Consul sometimes adds which permission is missing.
    let is_equal = theirs == ours || theirs.starts_with(&format!("{ours}: Missing "));
    assert!(is_equal, "{what}: {ours} instead of {theirs}");
}

/// The body without values that differ in each run.
fn body(response: &Response) -> String {
    let Ok(mut json) = serde_json::from_slice::<Value>(&response.body) else {
        let text = cut_free_ending(&response.text());
        return text
            .split(" (reset index")
            .next()
            .unwrap_or_default()
            .to_owned();
    };
    remove_volatile_values(&mut json);
    if let Value::String(leader) = &json {
        return leader.split(':').next().unwrap_or_default().to_owned();
    }
    json.to_string()
}

fn remove_volatile_values(json: &mut Value) {
    match json {
        Value::Array(items) => items.iter_mut().for_each(remove_volatile_values),
        Value::Object(fields) => {
            for field in ["AccessorID", "CreateTime", "CreateIndex", "ModifyIndex"] {
                if let Some(value) = fields.get_mut(field) {
                    *value = Value::from(value.is_string());
                }
            }
        }
        _ => {}
    }
}
