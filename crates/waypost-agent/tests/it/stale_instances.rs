//! Finding and deregistering instances whose process was killed.

use tokio::net::TcpListener;
use waypost_agent::{Agent, deregister_stale_instances, stale_instances};
use waypost_testkit::free_ports;

use crate::raw_http::Request;

async fn register(agent: &Agent, body: &str) {
    let request = Request::new("PUT", "/v1/agent/service/register", body);
    let response = request.send(agent.http_addr()).await.unwrap();
    assert_eq!(response.status, "200 OK", "{}", response.text());
}

#[tokio::test]
async fn stale_instances_are_listed_and_deregistered_and_others_stay() {
    let agent = Agent::builder().token("secret").start().await;
    let agent = agent.unwrap();
    let alive = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let alive_port = alive.local_addr().unwrap().port();
    let [dead_port] = free_ports();
    let with_token = |body: String| {
        let mut request = Request::new("PUT", "/v1/agent/service/register", &body);
        request
            .headers
            .push(("X-Consul-Token".to_owned(), "secret".to_owned()));
        request
    };
    for body in [
        format!(r#"{{"ID":"alive","Name":"web","Port":{alive_port}}}"#),
        format!(r#"{{"ID":"dead one","Name":"web","Port":{dead_port}}}"#),
        format!(r#"{{"ID":"dead over IPv6","Name":"web","Address":"::1","Port":{dead_port}}}"#),
        format!(r#"{{"ID":"failing","Name":"web","Port":{alive_port},"Check":{{"TTL":"1h"}}}}"#),
        format!(r#"{{"ID":"elsewhere","Name":"web","Address":"10.1.2.3","Port":{dead_port}}}"#),
        format!(
            r#"{{"ID":"udp","Name":"web","Port":{dead_port},"Check":{{"TTL":"1h","Status":"passing"}}}}"#
        ),
        r#"{"ID":"portless","Name":"web"}"#.to_owned(),
    ] {
        let response = with_token(body).send(agent.http_addr()).await.unwrap();
        assert_eq!(response.status, "200 OK");
    }
    let found = stale_instances(&agent.url(), Some("secret")).await.unwrap();
    let ids: Vec<_> = found.iter().map(|instance| instance.id.as_str()).collect();
    assert_eq!(ids, ["dead one", "dead over IPv6"]);
    for (instance, address) in found.iter().zip(["127.0.0.1", "[::1]"]) {
        let address = format!("{address}:{dead_port}");
        assert_eq!(instance.address, address);
        assert_eq!(instance.why, format!("nothing listens on {address}"));
    }
    deregister_stale_instances(&agent.url(), Some("secret"), &found)
        .await
        .unwrap();
    assert!(
        stale_instances(&agent.url(), Some("secret"))
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn an_instance_with_an_expired_ttl_check_is_stale() {
    let agent = Agent::start().await.unwrap();
    register(
        &agent,
        r#"{"Name":"web","Check":{"TTL":"1ms","Status":"passing"}}"#,
    )
    .await;
    let request = Request::new("GET", "/v1/health/state/critical", "");
    while !request
        .send(agent.http_addr())
        .await
        .unwrap()
        .text()
        .contains("TTL expired")
    {
        tokio::task::yield_now().await;
    }
    let found = stale_instances(&agent.url(), None).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].why, "its TTL check has expired");
}

#[tokio::test]
async fn errors_name_the_registry() {
    let agent = Agent::builder().token("secret").start().await.unwrap();
    let url = agent.url();
    let refused = stale_instances(&url, None).await.unwrap_err().to_string();
    assert!(
        refused.contains("Permission denied") && refused.contains(&url),
        "{refused}"
    );
    agent.shutdown().await;
    let gone = stale_instances(&url, None).await.unwrap_err().to_string();
    assert!(
        gone.contains("can't reach") && gone.contains(&url),
        "{gone}"
    );
}
