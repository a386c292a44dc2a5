//! Sends the same requests to a real Consul and to the agent. The responses must be the same byte
//! for byte, except for ids, times and index numbers (see [`normalize`]).
//!
//! The cases are in `cases/*.txt`, in the format of [`scenario`].

pub(crate) mod normalize;
mod random_scenarios;
mod scenario;

use std::collections::HashMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use waypost_agent::Agent;

use crate::raw_http::{Request, Response};
use crate::real_consul::Consul;
use normalize::{FREE_ENDINGS, NormalizedResponse, Side};
use scenario::{Case, Step};

const NODE: &str = "n1";

/// Consul updates its catalog after it has responded to a registration, so a different response is
/// repeated for this long.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(45);
const RETRY_DELAY: Duration = Duration::from_millis(20);

const SCENARIOS: &[(&str, &str)] = &[
    ("agent", include_str!("cases/agent.txt")),
    ("agent-check", include_str!("cases/agent-check.txt")),
    ("agent-health", include_str!("cases/agent-health.txt")),
    ("agent-service", include_str!("cases/agent-service.txt")),
    ("blocking", include_str!("cases/blocking.txt")),
    ("catalog", include_str!("cases/catalog.txt")),
    (
        "catalog-register",
        include_str!("cases/catalog-register.txt"),
    ),
    ("decoding", include_str!("cases/decoding.txt")),
    ("event", include_str!("cases/event.txt")),
    ("filter", include_str!("cases/filter.txt")),
    ("health", include_str!("cases/health.txt")),
    ("http", include_str!("cases/http.txt")),
    ("internal", include_str!("cases/internal.txt")),
    ("kv", include_str!("cases/kv.txt")),
    ("maintenance", include_str!("cases/maintenance.txt")),
    ("unsupported", include_str!("cases/unsupported.txt")),
    ("running-checks", include_str!("cases/running-checks.txt")),
    ("session", include_str!("cases/session.txt")),
    ("status", include_str!("cases/status.txt")),
    ("txn", include_str!("cases/txn.txt")),
    // Last, because Consul stores its coordinates about 15 seconds after its start.
    ("coordinate", include_str!("cases/coordinate.txt")),
];

/// Both registries and the result of the comparison.
struct Comparison {
    consul: Side,
    agent: Side,
    cases: usize,
    accepted: Vec<String>,
    failures: Vec<String>,
    /// The last response by target, for random scenarios. There the agent's index may stay the same
    /// where Consul's increases unnecessarily, but must increase when the response changes.
    last_responses: Option<HashMap<String, NormalizedResponse>>,
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_match_a_real_consul() {
    let consul = Consul::start(NODE).await;
    let agent = Agent::builder().node_name(NODE).start().await.unwrap();
    let mut comparison = Comparison::of(&consul, &agent).await;
    let only = std::env::var("CASES").ok();
    for (name, text) in SCENARIOS {
        if only.as_ref().is_none_or(|only| only == name) {
            comparison.run(name, text).await;
        }
    }
    println!(
        "{} cases compared, {} of them with an accepted difference:\n{}\
         errors of which only the beginning is compared:\n{}",
        comparison.cases,
        comparison.accepted.len(),
        comparison.accepted.concat(),
        FREE_ENDINGS
            .iter()
            .map(|(beginning, reason)| format!("  {beginning}…\n    {reason}\n"))
            .collect::<String>()
    );
    let failures = &comparison.failures;
    assert!(
        failures.is_empty(),
        "{} responses differ:\n{}",
        failures.len(),
        failures.concat()
    );
    agent.shutdown().await;
}

impl Comparison {
    async fn of(consul: &Consul, agent: &Agent) -> Self {
        Self {
            consul: Side::consul(consul).await,
            agent: Side::agent(agent.http_addr()).await,
            cases: 0,
            accepted: Vec::new(),
            failures: Vec::new(),
            last_responses: None,
        }
    }

    async fn run(&mut self, name: &str, text: &str) {
        for step in scenario::parse(name, text) {
            match step {
                Step::Scenario => self.clear().await,
                Step::Compare(case) => self.compare(&case).await,
                Step::Until(request, wanted) => {
                    for side in [&self.consul, &self.agent] {
                        let (request, wanted) = (side.fill(&request), side.fill_text(&wanted));
                        until(side.address, &request, &wanted).await;
                    }
                }
            }
        }
        self.clear().await;
    }

    async fn compare(&mut self, case: &Case) {
        self.cases += 1;
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        let (consul, agent) = loop {
            let mut consul = self.consul.ask(&case.request).await;
            let mut agent = self.agent.ask(&case.request).await;
            if self.last_responses.is_some() {
                consul.remove_index();
                agent.remove_index();
            }
            // Only reads without an expected difference are repeated.
            let may_settle = case.request.method == "GET" && case.differs.is_none();
            if consul == agent || !may_settle || Instant::now() > deadline {
                break (consul, agent);
            }
            sleep(RETRY_DELAY).await;
        };
        self.consul.remember(&case.request, &consul);
        self.agent.remember(&case.request, &agent);
        let what = format!(
            "{} {} {}",
            case.location, case.request.method, case.request.target
        );
        if let Some(last) = &mut self.last_responses
            && let Some(before) = last.insert(case.request.target.clone(), agent.clone())
            && let Some(error) = agent.index_error_after(&before)
        {
            self.failures.push(format!("\n{what}\n  {error}\n"));
        }
        match (&case.differs, consul == agent) {
            (None, true) => {}
            (Some(reason), false) => self.accepted.push(format!("  {what}\n    {reason}\n")),
            (None, false) => self.failures.push(describe(case, &what, &consul, &agent)),
            (Some(_), true) => {
                let text = format!("\n{what}\n  no longer differs: remove `differs`\n");
                self.failures.push(text);
            }
        }
    }

    /// Removes everything that has been registered.
    async fn clear(&mut self) {
        for side in [&self.consul, &self.agent] {
            let disable = "/v1/agent/maintenance?enable=false";
            send(side.address, &Request::new("PUT", disable, "")).await;
            for (list, remove) in [
                ("/v1/agent/services", "/v1/agent/service/deregister/"),
                ("/v1/agent/checks", "/v1/agent/check/deregister/"),
            ] {
                let listed = send(side.address, &Request::new("GET", list, "")).await;
                let listed: serde_json::Map<String, serde_json::Value> =
                    serde_json::from_slice(&listed.body).unwrap();
                for id in listed.keys() {
                    let target = format!("{remove}{}", scenario::escape(id));
                    send(side.address, &Request::new("PUT", &target, "")).await;
                }
            }
            for node in nodes(side.address).await {
                let body = format!(r#"{{"Node":{node:?}}}"#);
                let deregister = Request::new("PUT", "/v1/catalog/deregister", &body);
                send(side.address, &deregister).await;
            }
            let keys = Request::new("DELETE", "/v1/kv/?recurse", "");
            send(side.address, &keys).await;
            let sessions = Request::new("GET", "/v1/session/list", "");
            let sessions = send(side.address, &sessions).await;
            let sessions: Vec<serde_json::Value> = serde_json::from_slice(&sessions.body).unwrap();
            for session in sessions {
                let id = session["ID"].as_str().unwrap();
                let target = format!("/v1/session/destroy/{id}");
                send(side.address, &Request::new("PUT", &target, "")).await;
            }
            let services = Request::new("GET", "/v1/catalog/services", "");
            until(side.address, &services, "{\"consul\":[]}").await;
        }
    }
}

/// The nodes that a case has created.
async fn nodes(side: SocketAddr) -> Vec<String> {
    let listed = send(side, &Request::new("GET", "/v1/catalog/nodes", "")).await;
    let listed: Vec<serde_json::Value> = serde_json::from_slice(&listed.body).unwrap();
    let names = listed.iter().filter_map(|node| node["Node"].as_str());
    let created = names.filter(|name| *name != NODE);
    created.map(str::to_owned).collect()
}

async fn send(to: SocketAddr, request: &Request) -> Response {
    match request.send(to).await {
        Ok(response) => response,
        Err(error) => panic!("{} {} to {to}: {error}", request.method, request.target),
    }
}

/// Repeats a request until the response contains `wanted`.
pub(crate) async fn until(side: SocketAddr, request: &Request, wanted: &str) {
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    loop {
        let response = send(side, request).await.text();
        if response.contains(wanted) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{} of {side} never contained {wanted:?}. Last response: {response}",
            request.target
        );
        sleep(RETRY_DELAY).await;
    }
}

fn describe(
    case: &Case,
    what: &str,
    consul: &NormalizedResponse,
    agent: &NormalizedResponse,
) -> String {
    let mut text = format!("\n{what} {}\n", case.request.body);
    let mut compare = |name: &str, consul: &str, agent: &str| {
        if consul != agent {
            let _ = writeln!(text, "  {name}\n    Consul: {consul}\n    agent:  {agent}");
        }
    };
    compare("status", &consul.status, &agent.status);
    compare(
        "headers",
        &format!("{:?}", consul.headers),
        &format!("{:?}", agent.headers),
    );
    compare("body", &consul.body, &agent.body);
    text
}
