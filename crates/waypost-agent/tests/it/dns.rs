//! The DNS interface: the same queries to a real Consul and to the agent, and tests of the agent
//! alone.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, sleep, timeout};
use waypost_agent::{Agent, Builder};

use crate::raw_http::Request;
use crate::real_consul::Consul;

const NODE: &str = "n1";
const SOON: Duration = Duration::from_secs(30);

const SERVICES: &[&str] = &[
    r#"{"ID":"web1","Name":"web","Tags":["v1","Prod"],"Address":"10.1.2.3","Port":8080,"Weights":{"Passing":10,"Warning":3},"Check":{"TTL":"1h","Status":"passing"}}"#,
    r#"{"ID":"web2","Name":"web","Tags":["v2","a.b"],"Address":"10.1.2.4","Port":8081,"Weights":{"Passing":10,"Warning":3},"Check":{"TTL":"1h","Status":"warning"}}"#,
    r#"{"ID":"web3","Name":"web","Address":"10.1.2.5","Port":8082,"Check":{"TTL":"1h","Status":"critical"}}"#,
    r#"{"Name":"plain","Port":80}"#,
    r#"{"Name":"six","Address":"fe80::1","Port":80}"#,
    r#"{"Name":"host","Address":"www.example.org","Port":80}"#,
    r#"{"Name":"alias","Address":"web.service.consul","Port":80}"#,
    r#"{"Name":"alias-of-node","Address":"n1.node.consul","Port":80}"#,
    r#"{"Name":"alias-of-nothing","Address":"nope.service.consul","Port":80}"#,
    r#"{"Name":"loop","Address":"loop.service.consul","Port":80}"#,
    r#"{"ID":"mixed1","Name":"mixed","Address":"www.example.org","Port":80}"#,
    r#"{"ID":"mixed2","Name":"mixed","Address":"10.9.9.5","Port":80}"#,
    r#"{"ID":"both4","Name":"both","Address":"10.9.9.4","Port":80}"#,
    r#"{"ID":"both6","Name":"both","Address":"fe80::2","Port":80}"#,
    r#"{"Name":"dotted.name","Address":"10.9.9.9","Port":80}"#,
    r#"{"Name":"dead","Address":"10.9.9.8","Port":80,"Check":{"TTL":"1h","Status":"critical"}}"#,
    r#"{"Name":"zero","Address":"10.9.9.7"}"#,
    r#"{"Name":"far","Address":"10.9.9.3","Port":70000}"#,
    r#"{"ID":"same1","Name":"same","Address":"10.9.9.6","Port":1}"#,
    r#"{"ID":"same2","Name":"same","Address":"10.9.9.6","Port":2}"#,
    r#"{"ID":"same3","Name":"same","Address":"10.9.9.6","Port":2}"#,
    r#"{"Name":"Upper","Address":"10.9.9.2","Port":1}"#,
];

const NAMES: &[&str] = &[
    "web.service.consul.",
    "WEB.Service.CONSUL.",
    "web.service.dc1.consul.",
    "web.service.dc2.consul.",
    "v1.web.service.consul.",
    "prod.web.service.dc1.consul.",
    "a.b.web.service.consul.",
    "v9.web.service.consul.",
    "_web._tcp.service.consul.",
    "_web._tcp.consul.",
    "_web._udp.service.consul.",
    "_web._v1.service.dc1.consul.",
    "_web._v9.service.consul.",
    "_web.service.consul.",
    "_web._tcp._x.service.consul.",
    "plain.service.consul.",
    "six.service.consul.",
    "host.service.consul.",
    "alias.service.consul.",
    "alias-of-node.service.consul.",
    "alias-of-nothing.service.consul.",
    "loop.service.consul.",
    "mixed.service.consul.",
    "both.service.consul.",
    "dotted.name.service.consul.",
    "dead.service.consul.",
    "zero.service.consul.",
    "far.service.consul.",
    "same.service.consul.",
    "upper.service.consul.",
    "nope.service.consul.",
    "consul.service.consul.",
    "n1.node.consul.",
    "N1.node.dc1.consul.",
    "n1.node.dc2.consul.",
    "nope.node.consul.",
    "x.n1.node.consul.",
    "0a010203.addr.consul.",
    "0A010203.addr.dc1.consul.",
    "fe800000000000000000000000000001.addr.consul.",
    "zz.addr.consul.",
    "zzzzzzzz.addr.consul.",
    "0a010203.x.addr.consul.",
    "web.connect.consul.",
    "web.ingress.consul.",
    "web.query.consul.",
    "consul.",
    "service.consul.",
    "node.consul.",
    "ns.consul.",
    "a.b.c.consul.",
    "1.0.0.127.in-addr.arpa.",
    "3.2.1.10.in-addr.arpa.",
    "6.9.9.10.in-addr.arpa.",
    "99.99.99.10.in-addr.arpa.",
    "0.127.in-addr.arpa.",
    "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.e.f.ip6.arpa.",
    "consul.arpa.",
    "www.example.org.",
    "consul.example.org.",
];

const KINDS: &[RecordType] = &[
    RecordType::A,
    RecordType::AAAA,
    RecordType::SRV,
    RecordType::ANY,
    RecordType::TXT,
    RecordType::CNAME,
    RecordType::SOA,
    RecordType::NS,
    RecordType::PTR,
    RecordType::MX,
];

/// How a query is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Transport {
    Udp,
    UdpWithEdns(u16),
    Tcp,
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_match_a_real_consul() {
    let consul = Consul::start(NODE).await;
    let agent = agent().await;
    for body in SERVICES {
        register(consul.http, body).await;
        register(agent.http_addr(), body).await;
    }
    for i in 1..=100 {
        let body = format!(r#"{{"ID":"many{i}","Name":"many","Address":"10.5.5.{i}","Port":80}}"#);
        register(consul.http, &body).await;
        register(agent.http_addr(), &body).await;
    }
    wait_for(consul.http, "many", "\"many100\"").await;
    let dns = agent.dns_addr().unwrap();
    let (mut cases, mut failures) = (0, Vec::new());
    for name in NAMES {
        for kind in KINDS {
            for transport in [Transport::Udp, Transport::UdpWithEdns(1232), Transport::Tcp] {
                cases += 1;
                let query = query(name, *kind);
                let theirs = ask(consul.dns, &query, transport).await;
                let ours = ask(dns, &query, transport).await;
                let theirs = normalize(theirs, consul.server_port);
                let ours = normalize(ours, 8300);
                if theirs != ours {
                    failures.push(format!(
                        "\n{name} {kind} {transport:?}\n  Consul: {theirs:#?}\n  agent: {ours:#?}"
                    ));
                }
            }
        }
    }
    // The instances are chosen at random, so only their number is compared.
    for kind in [RecordType::A, RecordType::SRV, RecordType::AAAA] {
        for transport in [
            Transport::Udp,
            Transport::UdpWithEdns(0),
            Transport::UdpWithEdns(512),
            Transport::UdpWithEdns(600),
            Transport::UdpWithEdns(1232),
            Transport::UdpWithEdns(1400),
            Transport::UdpWithEdns(4096),
            Transport::UdpWithEdns(65_535),
            Transport::Tcp,
        ] {
            cases += 1;
            let query = query("many.service.consul.", kind);
            let theirs = ask(consul.dns, &query, transport).await;
            let ours = ask(dns, &query, transport).await;
            if !is_similar(&theirs, &ours) {
                failures.push(format!(
                    "\nmany {kind} {transport:?}\n  Consul: {}\n  agent:  {}",
                    shape(&theirs),
                    shape(&ours)
                ));
            }
        }
    }
    println!("{cases} DNS queries compared");
    assert!(
        failures.is_empty(),
        "{} differ:{}",
        failures.len(),
        failures.concat()
    );
}

#[tokio::test]
async fn answers_are_in_random_order() {
    let agent = agent().await;
    for i in 1..=4 {
        let body = format!(r#"{{"ID":"{i}","Name":"web","Address":"10.0.0.{i}"}}"#);
        register(agent.http_addr(), &body).await;
    }
    let query = query("web.service.consul.", RecordType::A);
    let mut firsts = HashSet::new();
    for _ in 0..200 {
        let response = ask(
            agent.dns_addr().unwrap(),
            &query,
            Transport::UdpWithEdns(1232),
        )
        .await;
        assert_eq!(response.answers.len(), 4);
        firsts.insert(response.answers[0].to_string());
    }
    assert_eq!(firsts.len(), 4, "every instance is sometimes first");
}

#[tokio::test]
async fn a_critical_instance_is_missing_from_the_next_response() {
    let agent = agent().await;
    let body = r#"{"Name":"web","Address":"10.0.0.1","Check":{"TTL":"1h","Status":"passing"}}"#;
    register(agent.http_addr(), body).await;
    let query = query("web.service.consul.", RecordType::A);
    let dns = agent.dns_addr().unwrap();
    assert_eq!(ask(dns, &query, Transport::Udp).await.answers.len(), 1);
    let fail = Request::new("PUT", "/v1/agent/check/fail/service:web", "");
    fail.send(agent.http_addr()).await.unwrap();
    let response = ask(dns, &query, Transport::Udp).await;
    assert_eq!(response.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn injected_faults_affect_dns() {
    let agent = agent().await;
    register(agent.http_addr(), r#"{"Name":"web"}"#).await;
    let query = query("web.service.consul.", RecordType::A);
    let dns = agent.dns_addr().unwrap();
    agent.faults().fail(true);
    let response = ask(dns, &query, Transport::Udp).await;
    assert_eq!(response.metadata.response_code, ResponseCode::ServFail);
    agent.faults().heal();
    agent.faults().empty(true);
    let response = ask(dns, &query, Transport::Tcp).await;
    assert_eq!(response.metadata.response_code, ResponseCode::NXDomain);
    agent.faults().heal();
    assert_eq!(ask(dns, &query, Transport::Udp).await.answers.len(), 1);
}

#[tokio::test]
async fn malformed_messages_and_responses_are_ignored() {
    let agent = agent().await;
    register(agent.http_addr(), SERVICES[0]).await;
    let dns = agent.dns_addr().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let good = query("v1.web.service.consul.", RecordType::SRV)
        .to_vec()
        .unwrap();
    for _ in 0..5_000 {
        let mut bytes = good.clone();
        if random.bool() {
            bytes = (0..random.usize(..100)).map(|_| random.u8(..)).collect();
        } else {
            for _ in 0..random.usize(1..6) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            bytes.truncate(random.usize(..=bytes.len()));
        }
        socket.send_to(&bytes, dns).await.unwrap();
    }
    let mut response = Message::response(1, OpCode::Query);
    response.add_query(Query::query(Name::root(), RecordType::A));
    let quiet = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    quiet
        .send_to(&response.to_vec().unwrap(), dns)
        .await
        .unwrap();
    let fine = query("web.service.consul.", RecordType::A);
    let again = async {
        // The operating system may have dropped datagrams, but later queries are answered.
        while timeout(
            Duration::from_millis(500),
            exchange(dns, &fine, Transport::Udp),
        )
        .await
        .is_err()
        {}
    };
    timeout(SOON, again).await.unwrap();
    let mut buffer = [0; 512];
    assert!(
        quiet.try_recv(&mut buffer).is_err(),
        "a response was answered"
    );
}

#[tokio::test]
async fn the_error_for_a_port_in_use_names_the_address() {
    let first = agent().await;
    let taken = first.dns_addr();
    let error = Agent::builder().dns(taken).start().await.unwrap_err();
    assert!(
        error.to_string().contains(&taken.unwrap().to_string()),
        "{error}"
    );
}

async fn agent() -> Agent {
    dns_agent(NODE).start().await.unwrap()
}

/// An agent that serves DNS on a free port.
pub(crate) fn dns_agent(node: &str) -> Builder {
    let dns = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    Agent::builder().node_name(node).dns(dns)
}

async fn register(to: SocketAddr, body: &str) {
    let request = Request::new("PUT", "/v1/agent/service/register", body);
    let response = request.send(to).await.unwrap();
    assert_eq!(response.status, "200 OK", "{}", response.text());
}

async fn wait_for(at: SocketAddr, service: &str, text: &str) {
    let request = Request::new("GET", &format!("/v1/health/service/{service}"), "");
    let deadline = Instant::now() + SOON;
    while !request.send(at).await.unwrap().text().contains(text) {
        assert!(
            Instant::now() < deadline,
            "{service} never contained {text}"
        );
        sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    let mut query = Query::query(Name::from_ascii(name).unwrap(), kind);
    query.set_query_class(DNSClass::IN);
    message.add_query(query);
    message
}

pub(crate) async fn ask(to: SocketAddr, query: &Message, transport: Transport) -> Message {
    let bytes = timeout(SOON, exchange(to, query, transport)).await;
    let bytes =
        bytes.unwrap_or_else(|_| panic!("no response from {to} over {transport:?} to {query}"));
    let response = Message::from_vec(&bytes).unwrap();
    assert_eq!(response.metadata.id, query.metadata.id);
    response
}

async fn exchange(to: SocketAddr, query: &Message, transport: Transport) -> Vec<u8> {
    let mut query = query.clone();
    if let Transport::UdpWithEdns(size) = transport {
        let mut edns = Edns::new();
        edns.set_max_payload(size);
        query.edns = Some(edns);
    }
    let question = query.to_vec().unwrap();
    if let Transport::Tcp = transport {
        let mut stream = TcpStream::connect(to).await.unwrap();
        let length = u16::try_from(question.len()).unwrap().to_be_bytes();
        stream
            .write_all(&[&length, question.as_slice()].concat())
            .await
            .unwrap();
        let length = stream.read_u16().await.unwrap();
        let mut response = vec![0; usize::from(length)];
        stream.read_exact(&mut response).await.unwrap();
        return response;
    }
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&question, to).await.unwrap();
    let mut response = vec![0; 65_536];
    let length = socket.recv(&mut response).await.unwrap();
    response.truncate(length);
    response
}

/// A response in a form that can be compared: sorted, and without the serial number of the SOA
/// record.
#[derive(Debug, PartialEq)]
pub(crate) struct NormalizedMessage {
    head: String,
    queries: Vec<String>,
    answers: Vec<String>,
    authorities: Vec<String>,
    additionals: Vec<String>,
}

pub(crate) fn normalize(message: Message, server_port: u16) -> NormalizedMessage {
    let texts = |records: &[Record]| {
        let mut texts: Vec<_> = records
            .iter()
            .map(|record| text(record, server_port))
            .collect();
        texts.sort();
        texts
    };
    NormalizedMessage {
        head: head(&message),
        queries: message.queries.iter().map(ToString::to_string).collect(),
        answers: texts(&message.answers),
        authorities: texts(&message.authorities),
        additionals: texts(&message.additionals),
    }
}

fn text(record: &Record, server_port: u16) -> String {
    let mut record = record.clone();
    match &mut record.data {
        RData::SOA(soa) => soa.serial = 0,
        RData::SRV(srv) if srv.port == server_port => srv.port = 0,
        _ => {}
    }
    record.to_string()
}

fn head(message: &Message) -> String {
    let head = &message.metadata;
    format!(
        "{:?} aa={} tc={} rd={} ra={} ad={} cd={} edns={:?}",
        head.response_code,
        head.authoritative,
        head.truncation,
        head.recursion_desired,
        head.recursion_available,
        head.authentic_data,
        head.checking_disabled,
        message.edns.as_ref().map(Edns::max_payload),
    )
}

/// Whether both messages have about the same number of answers. The agent's encoder makes slightly
/// longer messages of many different names, so that fewer records fit.
fn is_similar(theirs: &Message, ours: &Message) -> bool {
    let (expected, count) = (theirs.answers.len(), ours.answers.len());
    if expected == count || expected < 20 {
        return shape(theirs) == shape(ours);
    }
    let extras = ours.additionals.len();
    head(theirs) == head(ours)
        && count <= expected
        && count * 100 >= expected * 85
        && extras == count
}

fn shape(message: &Message) -> String {
    let kinds = |records: &[Record]| {
        let mut kinds: Vec<_> = records
            .iter()
            .map(|r| r.record_type().to_string())
            .collect();
        kinds.sort();
        kinds.join(" ")
    };
    format!(
        "{}, {} [{}], {}, {} [{}]",
        head(message),
        message.answers.len(),
        kinds(&message.answers),
        message.authorities.len(),
        message.additionals.len(),
        kinds(&message.additionals),
    )
}
