//! The handling of records, times to live and negative answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use waypost_agent::Agent;
use waypost_core::provider::{Provider, ServiceAnswer, Watch};
use waypost_core::{Environment, Instance, ProviderError, ProviderErrorKind, ServiceName};
use waypost_dns::{DnsBuilder, DnsProvider};
use waypost_testkit::{Consul, free_ports, http_client};

use super::TIMEOUT;
use super::server::{Answer, Server};

fn web() -> ServiceName {
    "web".parse().unwrap()
}

fn builder(server: &Server) -> DnsBuilder {
    DnsProvider::builder()
        .server(server.address)
        .udp(true)
        .name("{service}.test.")
}

/// The address of a name.
fn address(name: &str, ttl: u32, host: [u8; 4]) -> Answer {
    addresses_of(name, ttl, &[host])
}

fn addresses(ttl: u32, hosts: &[[u8; 4]]) -> Answer {
    addresses_of("web.test.", ttl, hosts)
}

fn addresses_of(name: &str, ttl: u32, hosts: &[[u8; 4]]) -> Answer {
    let record = |host: &[u8; 4]| {
        let [a, b, c, d] = *host;
        let name = Name::from_ascii(name).unwrap();
        Record::from_rdata(name, ttl, RData::A(A::new(a, b, c, d)))
    };
    Answer::Records(hosts.iter().map(record).collect())
}

fn srv(records: &[(u16, u16, u16, &str)]) -> Answer {
    let record = |(priority, weight, port, target): &(u16, u16, u16, &str)| {
        let target = Name::from_ascii(target).unwrap();
        let srv = SRV::new(*priority, *weight, *port, target);
        Record::from_rdata(Name::from_ascii("web.test.").unwrap(), 1, RData::SRV(srv))
    };
    Answer::Records(records.iter().map(record).collect())
}

async fn next(watch: &mut Watch) -> Result<ServiceAnswer, ProviderError> {
    timeout(TIMEOUT, watch.next())
        .await
        .expect("no answer in time")
        .expect("the watch ended")
}

async fn instances(watch: &mut Watch) -> Vec<Arc<Instance>> {
    match next(watch).await.unwrap() {
        ServiceAnswer::Instances(instances) => instances,
        ServiceAnswer::Unknown => panic!("unknown"),
    }
}

fn urls(instances: &[Arc<Instance>]) -> Vec<&str> {
    instances.iter().map(|it| it.url()).collect()
}

#[tokio::test]
async fn srv_records_become_instances_with_ports_weights_and_priorities() {
    let server = Server::start().await;
    let records = [
        (10, 3, 8001, "a.test."),
        (10, 0, 8002, "a.test."),
        (20, 9, 8003, "b.test."),
    ];
    server.set("web.test.", RecordType::SRV, srv(&records));
    server.set(
        "a.test.",
        RecordType::A,
        address("a.test.", 1, [10, 0, 0, 1]),
    );
    server.set(
        "b.test.",
        RecordType::A,
        address("b.test.", 1, [10, 0, 0, 2]),
    );
    let provider = builder(&server).scheme("https").build().unwrap();
    let all = instances(&mut provider.watch(&web())).await;
    let seen: Vec<_> = all
        .iter()
        .map(|it| (it.url(), it.weight().get(), it.meta("priority")))
        .collect();
    let expected = [
        ("https://10.0.0.1:8001", 3, Some("10")),
        ("https://10.0.0.1:8002", 1, Some("10")),
        ("https://10.0.0.2:8003", 0, Some("20")),
    ];
    assert_eq!(seen, expected);
    assert_eq!(all[0].meta("target"), Some("a.test"));
}

#[tokio::test]
async fn a_name_with_only_ipv6_addresses_is_found() {
    let server = Server::start().await;
    let record = |name| {
        let name = Name::from_ascii(name).unwrap();
        Record::from_rdata(name, 1, RData::AAAA(AAAA::new(0xfd00, 0, 0, 0, 0, 0, 0, 7)))
    };
    for name in ["web.test.", "a.test."] {
        let none = Answer::Negative(ResponseCode::NoError, 1);
        server.set(name, RecordType::A, none);
        server.set(name, RecordType::AAAA, Answer::Records(vec![record(name)]));
    }
    let targets = srv(&[(10, 1, 8001, "a.test.")]);
    server.set("web.test.", RecordType::SRV, targets);
    for (builder, url) in [
        (builder(&server).port(80), "http://[fd00::7]:80"),
        (builder(&server), "http://[fd00::7]:8001"),
    ] {
        let provider = builder.build().unwrap();
        let all = instances(&mut provider.watch(&web())).await;
        assert_eq!(urls(&all), [url]);
    }
}

#[tokio::test]
async fn a_name_is_looked_up_again_when_its_time_to_live_is_over_within_bounds() {
    let server = Server::start().await;
    // The upper bound is far above what is expected, for a busy machine, and far below the other limits.
    let most = 60_000;
    for (ttl, floor, ceiling, least) in [
        (0, 200, 600_000, 150),
        (2, 10, 600_000, 1_900),
        (3600, 10, 200, 150),
    ] {
        server.set("web.test.", RecordType::A, addresses(ttl, &[[10, 0, 0, 1]]));
        let provider = builder(&server)
            .port(80)
            .min_refresh(Duration::from_millis(floor))
            .max_refresh(Duration::from_millis(ceiling));
        let mut watch = provider.build().unwrap().watch(&web());
        let asked = Instant::now();
        instances(&mut watch).await;
        instances(&mut watch).await;
        let took = asked.elapsed().as_millis();
        assert!((least..most).contains(&took), "ttl {ttl}: {took} ms");
    }
}

#[tokio::test]
async fn negative_answers_are_answers_and_failures_are_not() {
    let server = Server::start().await;
    let provider = builder(&server).build().unwrap();
    let look_up = async |code: ResponseCode| {
        server.set("web.test.", RecordType::SRV, Answer::Negative(code, 0));
        next(&mut provider.watch(&web())).await
    };
    assert_eq!(
        look_up(ResponseCode::NXDomain).await.unwrap(),
        ServiceAnswer::Unknown
    );
    let none = ServiceAnswer::Instances(Vec::new());
    assert_eq!(look_up(ResponseCode::NoError).await.unwrap(), none);
    let failure = look_up(ResponseCode::ServFail).await.unwrap_err();
    assert_eq!(failure.kind(), ProviderErrorKind::Unreachable, "{failure}");
    let refusal = look_up(ResponseCode::Refused).await.unwrap_err();
    assert_eq!(refusal.kind(), ProviderErrorKind::Rejected, "{refusal}");
    assert!(refusal.to_string().contains("REFUSED"), "{refusal}");
    // The root as a target says that the service is not available.
    server.set("web.test.", RecordType::SRV, srv(&[(0, 0, 0, ".")]));
    assert_eq!(next(&mut provider.watch(&web())).await.unwrap(), none);
}

#[tokio::test]
async fn the_whole_look_up_fails_if_the_address_of_a_target_is_unknown() {
    let server = Server::start().await;
    let records = [(1, 1, 80, "a.test."), (1, 1, 80, "b.test.")];
    server.set("web.test.", RecordType::SRV, srv(&records));
    server.set(
        "a.test.",
        RecordType::A,
        address("a.test.", 1, [10, 0, 0, 1]),
    );
    server.set(
        "b.test.",
        RecordType::A,
        Answer::Negative(ResponseCode::ServFail, 0),
    );
    let provider = builder(&server).build().unwrap();
    next(&mut provider.watch(&web())).await.unwrap_err();
    // A target that doesn't exist doesn't affect the others.
    server.set(
        "b.test.",
        RecordType::A,
        Answer::Negative(ResponseCode::NXDomain, 0),
    );
    assert_eq!(instances(&mut provider.watch(&web())).await.len(), 1);
}

#[tokio::test]
async fn search_domains_are_tried_in_order() {
    let server = Server::start().await;
    server.set("web.test.", RecordType::A, addresses(1, &[[10, 0, 0, 1]]));
    let environment = Environment::from_iter([
        ("SERVICE_DISCOVERY_DNS_SERVER", server.address.to_string()),
        (
            "SERVICE_DISCOVERY_DNS_SEARCH",
            "first.example, test".to_owned(),
        ),
        ("SERVICE_DISCOVERY_DNS_PORT", "8080".to_owned()),
        ("SERVICE_DISCOVERY_DNS_UDP", "true".to_owned()),
    ]);
    let provider = DnsProvider::from_environment(&environment).unwrap();
    let all = instances(&mut provider.watch(&web())).await;
    assert_eq!(all[0].url(), "http://10.0.0.1:8080");
    // More than once if the server didn't answer in time.
    assert!(server.queries("web.first.example.") >= 1);
}

/// Registers three instances, one of them failing, and looks them up by SRV records.
async fn assert_finds_registered(http: &str, dns: SocketAddr) {
    let put = async |path: &str, body: serde_json::Value| {
        let url = format!("{http}/v1/{path}");
        let response = http_client().put(url).json(&body).send().await.unwrap();
        response.error_for_status().unwrap();
    };
    for (id, address, status) in [
        ("web-1", "10.0.0.1", "passing"),
        ("web-2", "10.0.0.2", "critical"),
        ("web-3", "fd00::1", "passing"),
    ] {
        let check = json!({ "TTL": "1h", "Status": status });
        let definition = json!({
            "ID": id, "Name": "web", "Address": address, "Port": 8001, "Check": check,
        });
        put("agent/service/register", definition).await;
    }
    let provider = DnsProvider::builder()
        .server(dns)
        .name("{service}.service.consul")
        .min_refresh(Duration::from_millis(50))
        .build()
        .unwrap();
    let mut watch = provider.watch(&web());
    let found = async {
        loop {
            if let ServiceAnswer::Instances(all) = next(&mut watch).await.unwrap()
                && urls(&all) == ["http://10.0.0.1:8001", "http://[fd00::1]:8001"]
            {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TIMEOUT, found).await.unwrap();
    let unknown = next(&mut provider.watch(&"unknown".parse().unwrap())).await;
    assert_eq!(unknown.unwrap(), ServiceAnswer::Unknown);
}

#[tokio::test]
async fn services_of_the_embedded_registry_are_found() {
    let dns = SocketAddr::from(([127, 0, 0, 1], 0));
    let agent = Agent::builder().dns(Some(dns)).start().await.unwrap();
    assert_finds_registered(&agent.url(), agent.dns_addr().unwrap()).await;
}

#[tokio::test]
async fn services_of_a_real_consul_are_found() {
    let [port] = free_ports();
    let consul = Consul::with(json!({ "ports": { "dns": port } })).await;
    let dns = SocketAddr::from(([127, 0, 0, 1], port));
    assert_finds_registered(&format!("http://{}", consul.address()), dns).await;
}
