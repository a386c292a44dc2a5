//! `dig` against the DNS interface.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::process::Command;
use waypost_agent::Agent;

use super::{program, put};

async fn dig(agent: &Agent, question: &str) -> String {
    let server = agent.dns_addr().unwrap();
    let mut command = Command::new(program("WAYPOST_DIG", "dig"));
    command
        .arg(format!("@{}", server.ip()))
        .args(["-p", &server.port().to_string(), "+timeout=5"])
        .args(question.split(' '));
    let output = command.kill_on_drop(true).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{question}: {text}");
    // dig reports a malformed message only as a warning.
    let warned = text.contains(";; Warning") || text.contains("malformed");
    assert!(!warned, "{question}: {text}");
    text
}

#[tokio::test]
async fn dig_resolves_records_of_all_types() {
    let dns = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let agent = Agent::builder().dns(dns).node_name("n1").start().await;
    let agent = agent.unwrap();
    let http = agent.http_addr();
    let register = "/v1/agent/service/register";
    for body in [
        r#"{"Name":"web","Tags":["v1"],"Address":"10.0.0.1","Port":80}"#,
        r#"{"Name":"six","Address":"fd00::6","Port":80}"#,
        r#"{"Name":"named","Address":"db.example.com","Port":80}"#,
    ] {
        put(http, "", register, body).await;
    }
    for (question, expected) in [
        ("web.service.consul", "10.0.0.1"),
        ("v1.web.service.dc1.consul A", "10.0.0.1"),
        ("WEB.Service.CONSUL. +tcp", "10.0.0.1"),
        ("six.service.consul AAAA", "fd00::6"),
        ("named.service.consul CNAME", "db.example.com."),
        ("web.service.consul SRV", "1 1 80 0a000001.addr.dc1.consul."),
        (
            "_web._v1.service.consul SRV",
            "1 1 80 0a000001.addr.dc1.consul.",
        ),
        ("n1.node.consul", "127.0.0.1"),
        ("0a000001.addr.consul", "10.0.0.1"),
        ("-x 127.0.0.1", "n1.node.dc1.consul."),
        ("consul NS", "n1.node.dc1.consul."),
        ("n1.node.consul TXT", "\"consul-network-segment=\""),
    ] {
        let response = dig(&agent, &format!("{question} +short")).await;
        assert_eq!(response.trim(), expected, "{question}");
    }
    let soa = dig(&agent, "consul SOA +short").await;
    assert!(soa.starts_with("ns.consul. hostmaster.consul."), "{soa}");
    let unknown = dig(&agent, "nope.service.consul").await;
    assert!(unknown.contains("status: NXDOMAIN"), "{unknown}");
    let foreign = dig(&agent, "example.com").await;
    assert!(foreign.contains("status: REFUSED"), "{foreign}");
}

/// Answers that don't fit into a datagram are left out without the truncation flag, as in Consul by
/// default (`enable_truncate`). Over TCP all are sent.
#[tokio::test]
async fn dig_gets_as_many_answers_as_fit() {
    let dns = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let agent = Agent::builder().dns(dns).start().await.unwrap();
    for i in 1..=100 {
        let body = format!(r#"{{"ID":"{i}","Name":"web","Address":"10.0.0.{i}","Port":80}}"#);
        put(agent.http_addr(), "", "/v1/agent/service/register", &body).await;
    }
    let count = async |question: &str| dig(&agent, question).await.lines().count();
    assert_eq!(count("web.service.consul SRV +short +tcp").await, 100);
    assert_eq!(
        count("web.service.consul A +short +bufsize=4096").await,
        100
    );
    let response = dig(&agent, "web.service.consul SRV").await;
    assert!(response.contains("ANSWER: 19,"), "{response}");
    let response = dig(&agent, "web.service.consul SRV +noedns +ignore").await;
    assert!(response.contains("flags: qr aa rd;"), "{response}");
    assert!(response.contains("ANSWER: 3,"), "{response}");
}
