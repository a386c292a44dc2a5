//! Registers instances with an agent, and reports their health.

use serde_json::{Map, Value, json};
use waypost_core::provider::{HeartbeatResponse, InstanceReport};
use waypost_core::{InstanceId, ProviderError, ProviderErrorKind, Registration};

use crate::acl::AclRule;
use crate::agent_client::AgentClient;
use crate::definition::{check_status, service_definition, ttl_check_ids};
use crate::escape::escape;

/// Registers an instance with its checks. Checks that only an earlier registration had are removed.
pub(super) async fn register(
    agent: &AgentClient,
    registration: &Registration,
    report: &InstanceReport,
) -> Result<(), ProviderError> {
    let mut body = service_definition(registration, report);
    let id = registration.instance().id();
    // Otherwise, an agent that has lost its data would consider each check critical until its next run.
    for check in body["Checks"].as_array_mut().into_iter().flatten() {
        let known = check["CheckID"].as_str();
        let known = known.and_then(|check| agent.registered_instances.status(id, check));
        if let (Some(status), Some(check)) = (known, check.as_object_mut()) {
            check.entry("Status").or_insert_with(|| status.into());
        }
    }
    let path = "/v1/agent/service/register?replace-existing-checks=true";
    let result = agent.put(path, &body, &write_rule(registration)).await;
    // Even if it failed: the agent may have registered the instance, and its response may be lost.
    if let Some(address) = agent.answering_address() {
        agent.registered_instances.add(id, address);
    }
    deregister_with_earlier_agents(agent, id).await;
    result.map_err(|error| agent.error_of_known_path(error))
}

/// Removes an instance. It is not an error if the instance isn't registered.
pub(super) async fn deregister(agent: &AgentClient, id: &InstanceId) -> Result<(), ProviderError> {
    deregister_with(agent, id).await?;
    let current = agent.answering_address();
    for address in agent.registered_instances.take(id) {
        if Some(address) != current
            && let Err(error) = deregister_with(&agent.at(address), id).await
        {
            tracing::warn!(
                %id, %error,
                "an agent that had the registration earlier doesn't answer, and may still have it"
            );
        }
    }
    Ok(())
}

async fn deregister_with(agent: &AgentClient, id: &InstanceId) -> Result<(), ProviderError> {
    let path = format!("/v1/agent/service/deregister/{}", escape(id.as_str()));
    let rule = AclRule::write_unknown_service();
    match agent.put(&path, &Value::Null, &rule).await {
        // Newer agents answer 404.
        Err(error) if is_not_found(&error) => Ok(()),
        result => result,
    }
}

/// Removes registrations that were made earlier with other agents of the same DNS name. An agent that
/// doesn't answer is tried again later.
async fn deregister_with_earlier_agents(agent: &AgentClient, id: &InstanceId) {
    let Some(current) = agent.answering_address() else {
        return;
    };
    for address in agent.registered_instances.due(id, current) {
        match deregister_with(&agent.at(address), id).await {
            Ok(()) => agent.registered_instances.remove(id, address),
            Err(error) => tracing::debug!(%id, %error, "an earlier agent doesn't answer"),
        }
    }
}

/// Compares what the agent has with the registration, and reports to each TTL check.
pub(super) async fn heartbeat(
    agent: &AgentClient,
    registration: &Registration,
    report: InstanceReport,
) -> Result<HeartbeatResponse, ProviderError> {
    deregister_with_earlier_agents(agent, registration.instance().id()).await;
    let result = async {
        if let Some(difference) = difference(agent, registration, &report).await? {
            return Ok(HeartbeatResponse::Changed(difference.into()));
        }
        let body = json!({ "Status": check_status(report.health), "Output": report.output });
        let rule = write_rule(registration);
        for id in ttl_check_ids(registration) {
            let path = format!("/v1/agent/check/update/{}", escape(&id));
            agent.put(&path, &body, &rule).await?;
        }
        Ok(HeartbeatResponse::Known)
    };
    match result.await {
        Err(error) if is_not_found(&error) => Ok(HeartbeatResponse::Forgotten),
        result => result,
    }
}

/// How the service and its checks differ from the registration, if they do.
async fn difference(
    agent: &AgentClient,
    registration: &Registration,
    report: &InstanceReport,
) -> Result<Option<String>, ProviderError> {
    let instance = registration.instance();
    let id = instance.id().as_str();
    let rule = AclRule::read_service(instance.service().as_str());
    let path = format!("/v1/agent/service/{}", escape(id));
    let stored = agent.get(&path, &[], None, Some(&rule)).await?;
    let wanted = service_definition(registration, report);
    let Ok(stored) = serde_json::from_slice::<Value>(&stored.body) else {
        return Ok(None);
    };
    if let Some(difference) = service_difference(&wanted, &stored) {
        return Ok(Some(difference));
    }
    let wanted: Vec<_> = definition_checks(&wanted).collect();
    if wanted.is_empty() {
        return Ok(None);
    }
    // Agents that don't know the filter return the checks of all services.
    let filter = format!("ServiceID == {}", Value::from(id));
    let params = [("filter".to_owned(), filter)];
    let stored = agent.get("/v1/agent/checks", &params, None, Some(&rule));
    let stored = stored.await?;
    let Ok(stored) = serde_json::from_slice::<Map<String, Value>>(&stored.body) else {
        return Ok(None);
    };
    let status = |id: &str| {
        Some((
            id.to_owned(),
            stored.get(id)?["Status"].as_str()?.to_owned(),
        ))
    };
    let statuses = wanted.iter().filter_map(|(id, _)| status(id)).collect();
    agent
        .registered_instances
        .set_statuses(instance.id(), statuses);
    let difference = |(id, kind)| check_difference(id, kind, stored.get(id));
    Ok(wanted.into_iter().find_map(difference))
}

/// How a stored check differs. Agents don't report what a check requests: its `Definition` is empty. Newer
/// agents report its type. The output of an HTTP check contains the URL, but isn't compared: when the check is
/// registered again, the agent keeps the old output until the check runs, so a correct URL would look wrong.
fn check_difference(id: &str, kind: &str, stored: Option<&Value>) -> Option<String> {
    let Some(stored) = stored else {
        return Some(format!("the check {id} is missing"));
    };
    let stored = stored["Type"]
        .as_str()
        .filter(|stored| !stored.is_empty())?;
    let differs = stored != kind;
    differs.then(|| format!("the check {id} is of the type {stored} instead of {kind}"))
}

/// The first field of a stored service that differs from its definition. Fields that only newer agents
/// have, or that agents fill in, are not compared.
fn service_difference(wanted: &Value, stored: &Value) -> Option<String> {
    // Go writes an empty list or map as `null`.
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    let differs = |wanted: &Value, stored: &Value| {
        wanted != stored && !(is_empty(wanted) && is_empty(stored))
    };
    let difference = |name: &str, wanted: &Value, stored: &Value| {
        let found = differs(wanted, stored);
        found.then(|| format!("{name} is {stored} instead of {wanted}"))
    };
    for (name, stored_name) in [
        ("Name", "Service"),
        ("Address", "Address"),
        ("Port", "Port"),
        ("Meta", "Meta"),
        ("Weights", "Weights"),
    ] {
        let found = difference(stored_name, &wanted[name], &stored[stored_name]);
        if found.is_some() {
            return found;
        }
    }
    // Other programs may change the tags if the registration allows it.
    if wanted["EnableTagOverride"] != true {
        let found = difference("Tags", &wanted["Tags"], &stored["Tags"]);
        if found.is_some() {
            return found;
        }
    }
    // Agents add addresses of their own.
    let addresses = wanted["TaggedAddresses"].as_object();
    addresses.into_iter().flatten().find_map(|(tag, wanted)| {
        let stored = &stored["TaggedAddresses"][tag];
        difference(&format!("TaggedAddresses.{tag}"), wanted, stored)
    })
}

/// The ids and types of the checks in a service definition.
fn definition_checks(definition: &Value) -> impl Iterator<Item = (&str, &'static str)> {
    let checks = definition["Checks"].as_array();
    checks.into_iter().flatten().filter_map(|check| {
        let of_type = |(field, _): &(&str, _)| !check[*field].is_null();
        let (_, kind) = CHECK_TYPES.into_iter().find(of_type)?;
        Some((check["CheckID"].as_str()?, kind))
    })
}

/// The field of a definition that makes a check one of this type.
const CHECK_TYPES: [(&str, &str); 5] = [
    ("HTTP", "http"),
    ("TCP", "tcp"),
    ("GRPC", "grpc"),
    ("Args", "script"),
    ("TTL", "ttl"),
];

/// Starts maintenance mode with a reason, or ends it if there is none.
pub(super) async fn set_maintenance(
    agent: &AgentClient,
    registration: &Registration,
    reason: Option<&str>,
) -> Result<(), ProviderError> {
    let id = escape(registration.instance().id().as_str());
    let path = match reason {
        Some(reason) => {
            let reason = escape(reason);
            format!("/v1/agent/service/maintenance/{id}?enable=true&reason={reason}")
        }
        None => format!("/v1/agent/service/maintenance/{id}?enable=false"),
    };
    agent
        .put(&path, &Value::Null, &write_rule(registration))
        .await
}

fn write_rule(registration: &Registration) -> AclRule {
    AclRule::write_service(registration.instance().service().as_str())
}

/// Whether the agent doesn't know the service or check: status 404, or, from agents before 1.11,
/// status 500 with one of these texts.
pub(super) fn is_not_found(error: &ProviderError) -> bool {
    let text = error.message();
    let is_404 = error.kind() == ProviderErrorKind::Rejected && text.starts_with("404");
    is_404
        || [
            "does not have associated TTL",
            "Unknown check",
            "unknown service ID",
        ]
        .iter()
        .any(|phrase| text.contains(phrase))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures_util::FutureExt;
    use waypost_agent::Agent;
    use waypost_core::ServiceRegistration;
    use waypost_testkit::{free_ports, http_client};

    use crate::resolver::AgentResolver;
    use crate::tls::TlsOptions;
    use crate::token::Token;

    use super::*;

    const HOSTS: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1)),
        IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)),
    ];

    async fn start_agent(host: IpAddr, port: u16) -> Agent {
        let agent = Agent::builder().http(SocketAddr::new(host, port));
        agent.allow_host("agents.test").start().await.unwrap()
    }

    /// A client for the DNS name of both agents. The order of the addresses changes with each look-up.
    fn client_of_both(port: u16) -> AgentClient {
        let turn = AtomicUsize::new(0);
        let resolver = AgentResolver::with_lookup(move |_| {
            let mut addresses = HOSTS.to_vec();
            addresses.rotate_left(turn.fetch_add(1, Ordering::SeqCst) % 2);
            std::future::ready(Ok(addresses)).boxed()
        });
        let address = format!("agents.test:{port}").parse().unwrap();
        let token = Arc::new(Token::None);
        let client = AgentClient::new(address, resolver, token, &TlsOptions::default(), vec![]);
        client.unwrap()
    }

    async fn is_registered(host: IpAddr, port: u16, id: &str) -> bool {
        let url = format!("http://{host}:{port}/v1/agent/service/{id}");
        http_client()
            .get(url)
            .send()
            .await
            .unwrap()
            .status()
            .is_success()
    }

    #[tokio::test]
    async fn with_two_agents_behind_one_name_an_instance_is_registered_once_and_finally_deregistered()
     {
        let [port] = free_ports();
        let mut agents = Vec::new();
        for host in HOSTS {
            agents.push(start_agent(host, port).await);
        }
        let client = client_of_both(port);
        let registration = ServiceRegistration::new("web", 80).unwrap().id("web-1");
        let registration = registration.resolve(None).unwrap();
        let report = InstanceReport::alive();
        register(&client, &registration, &report).await.unwrap();
        for _ in 0..5 {
            let known = heartbeat(&client, &registration, report.clone()).await;
            assert_eq!(known.unwrap(), HeartbeatResponse::Known);
        }
        let first = client.answering_address().unwrap();
        let other = HOSTS.into_iter().find(|host| *host != first).unwrap();
        assert!(is_registered(first, port, "web-1").await);
        assert!(!is_registered(other, port, "web-1").await);

        // The agent fails, and the instance is registered with the other one.
        let failed = agents
            .iter()
            .position(|agent| agent.http_addr().ip() == first);
        agents.remove(failed.unwrap()).shutdown().await;
        let forgotten = heartbeat(&client, &registration, report.clone()).await;
        assert_eq!(forgotten.unwrap(), HeartbeatResponse::Forgotten);
        register(&client, &registration, &report).await.unwrap();
        assert!(is_registered(other, port, "web-1").await);

        // It returns and still has the registration, like an agent with a data directory.
        agents.push(start_agent(first, port).await);
        let body = service_definition(&registration, &report);
        let returned = client.at(first);
        let path = "/v1/agent/service/register";
        returned
            .put(path, &body, &write_rule(&registration))
            .await
            .unwrap();
        assert!(is_registered(first, port, "web-1").await);
        // The clock only moves to the next attempt, so that no request times out.
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(60)).await;
        tokio::time::resume();
        let known = heartbeat(&client, &registration, report.clone()).await;
        assert_eq!(known.unwrap(), HeartbeatResponse::Known);
        assert!(
            !is_registered(first, port, "web-1").await,
            "two registrations"
        );
        assert!(is_registered(other, port, "web-1").await);

        deregister(&client, registration.instance().id())
            .await
            .unwrap();
        for host in HOSTS {
            assert!(!is_registered(host, port, "web-1").await, "{host}");
        }
    }

    #[test]
    fn each_field_of_a_service_is_compared() {
        let wanted = json!({
            "ID": "web-1", "Name": "web", "Address": "10.0.0.1", "Port": 80, "Tags": ["a", "b"],
            "Meta": {"team": "x"}, "Weights": {"Passing": 1, "Warning": 1},
            "TaggedAddresses": {"wan": {"Address": "203.0.113.1", "Port": 80}},
        });
        let stored = json!({
            "ID": "web-1", "Service": "web", "Address": "10.0.0.1", "Port": 80, "Tags": ["a", "b"],
            "Meta": {"team": "x"}, "Weights": {"Passing": 1, "Warning": 1}, "ContentHash": "abc",
            "TaggedAddresses": {"lan_ipv4": {"Address": "10.0.0.1", "Port": 80},
                                "wan": {"Address": "203.0.113.1", "Port": 80}},
        });
        assert_eq!(service_difference(&wanted, &stored), None);
        for (field, value) in [
            ("Service", json!("api")),
            ("Address", json!("10.0.0.2")),
            ("Port", json!(81)),
            ("Tags", json!(["a"])),
            ("Meta", json!({})),
            ("Weights", json!({"Passing": 2, "Warning": 1})),
            ("TaggedAddresses", Value::Null),
        ] {
            let mut changed = stored.clone();
            changed[field] = value;
            let difference = service_difference(&wanted, &changed).unwrap();
            assert!(difference.starts_with(field), "{difference}");
        }

        let mut override_allowed = wanted.clone();
        override_allowed["EnableTagOverride"] = true.into();
        let mut retagged = stored.clone();
        retagged["Tags"] = json!(["other"]);
        assert_eq!(service_difference(&override_allowed, &retagged), None);

        let bare = json!({"Name": "web", "Tags": [], "Meta": {}, "Address": "", "Port": 80,
                          "Weights": {"Passing": 1, "Warning": 1}});
        let null = json!({"Service": "web", "Tags": null, "Meta": null, "Address": "", "Port": 80,
                          "Weights": {"Passing": 1, "Warning": 1}});
        assert_eq!(service_difference(&bare, &null), None);
    }

    #[test]
    fn an_agent_that_does_not_know_the_instance_is_recognised() {
        use ProviderErrorKind::{Rejected, Unreachable};
        for (kind, text, expected) in [
            (Rejected, "404 Not Found: Unknown service", true),
            (
                Rejected,
                "500: CheckID \"c\" does not have associated TTL",
                true,
            ),
            (Rejected, "500: Unknown check \"c\"", true),
            (Rejected, "500: unknown service ID \"s\"", true),
            (Rejected, "500: disk full", false),
            (Rejected, "400: 404", false),
            (Unreachable, "404 is no status here", false),
        ] {
            let error = ProviderError::new("consul", kind, text);
            assert_eq!(is_not_found(&error), expected, "{text}");
        }
    }
}
