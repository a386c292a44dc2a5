//! `/v1/waypost`: the history of checks, and the services as events.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flate2::write::GzDecoder;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use waypost_agent::Agent;

use crate::raw_http::Request;

const SOON: Duration = Duration::from_secs(50);
const REGISTER: &str = "/v1/agent/service/register";
const WEB: &str = r#"{"Name":"web","Port":80,"Check":{"TTL":"10s","Status":"passing"}}"#;

async fn put(agent: &Agent, target: &str, body: &str) {
    let request = Request::new("PUT", target, body);
    let response = request.send(agent.http_addr()).await.unwrap();
    assert_eq!(response.status, "200 OK", "{target}: {}", response.text());
}

/// The checks of a service, without that of the node.
async fn checks(agent: &Agent, service: &str) -> Vec<Value> {
    let target = format!("/v1/waypost/checks?service={service}");
    let request = Request::new("GET", &target, "");
    let response = request.send(agent.http_addr()).await.unwrap();
    assert_eq!(response.status, "200 OK");
    let all: Vec<Value> = serde_json::from_str(&response.text()).unwrap();
    let mut all = all.into_iter();
    assert_eq!(all.next().unwrap()["CheckID"], "serfHealth");
    all.collect()
}

/// The seconds between two times as in RFC 3339.
fn seconds(from: &Value, to: &Value) -> u64 {
    let [from, to] = [from, to].map(|it| humantime::parse_rfc3339(it.as_str().unwrap()).unwrap());
    to.duration_since(from).unwrap().as_secs_f64().round() as u64
}

#[tokio::test(start_paused = true)]
async fn the_history_of_a_check_has_each_change_of_its_status_with_time_and_output() {
    let agent = Agent::start().await.unwrap();
    put(&agent, REGISTER, WEB).await;
    sleep(Duration::from_secs(4)).await;
    put(&agent, "/v1/agent/check/warn/service:web?note=slow", "").await;
    put(&agent, "/v1/agent/check/warn/service:web?note=slower", "").await;
    sleep(Duration::from_secs(12)).await;

    let checks = checks(&agent, "web").await;
    assert_eq!(checks.len(), 1, "{checks:?}");
    let check = &checks[0];
    assert_eq!(check["CheckID"], "service:web");
    assert_eq!(check["Definition"], json!({"TTL": "10s"}));
    assert_eq!(check["Status"], "critical");
    let history = check["History"].as_array().unwrap();
    let statuses: Vec<_> = history.iter().map(|it| &it["Status"]).collect();
    assert_eq!(statuses, ["passing", "warning", "critical"]);
    assert_eq!(history[1]["Output"], "slow");
    assert!(
        history[2]["Output"]
            .as_str()
            .unwrap()
            .starts_with("TTL expired"),
        "{history:?}"
    );
    assert_eq!(seconds(&history[0]["Time"], &history[1]["Time"]), 4);
    assert_eq!(seconds(&history[1]["Time"], &history[2]["Time"]), 10);
    assert_eq!(check["LastChanged"], history[2]["Time"]);
    // Two reports and the expiry.
    assert_eq!(check["Runs"], 3);
    assert_eq!(seconds(&check["LastRun"], &check["NextRun"]), 10);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_changes_no_status_yet_is_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let agent = Agent::start().await.unwrap();
    let body = json!({"Name": "web", "Check": {
        "TCP": listener.local_addr().unwrap().to_string(), "Interval": "10s",
        "FailuresBeforeCritical": 1000,
    }});
    put(&agent, REGISTER, &body.to_string()).await;
    while checks(&agent, "web").await[0]["Status"] != "passing" {
        sleep(Duration::from_secs(1)).await;
    }
    drop(listener);
    let before = checks(&agent, "web").await[0]["Runs"].as_u64().unwrap();
    sleep(Duration::from_secs(35)).await;
    let check = checks(&agent, "web").await.remove(0);
    assert_eq!(check["Status"], "passing");
    assert!(check["Runs"].as_u64() >= Some(before + 2), "{check}");
    assert_eq!(seconds(&check["LastRun"], &check["NextRun"]), 10);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_runs_at_no_interval_has_no_next_run() {
    let agent = Agent::start().await.unwrap();
    put(&agent, REGISTER, WEB).await;
    let body = r#"{"Name":"shop","Check":{"AliasService":"web"}}"#;
    put(&agent, REGISTER, body).await;
    for (report, status) in [("fail", "critical"), ("pass", "passing")] {
        let target = format!("/v1/agent/check/{report}/service:web");
        put(&agent, &target, "").await;
        while checks(&agent, "shop").await[0]["Status"] != status {
            sleep(Duration::from_millis(10)).await;
        }
    }
    let check = checks(&agent, "shop").await.remove(0);
    assert!(check["Runs"].as_u64() >= Some(2), "{check}");
    assert_eq!(check["NextRun"], Value::Null, "{check}");
}

#[tokio::test(start_paused = true)]
async fn a_check_that_is_registered_again_keeps_its_history() {
    let agent = Agent::start().await.unwrap();
    put(&agent, REGISTER, WEB).await;
    put(&agent, "/v1/agent/service/deregister/web", "").await;
    put(&agent, REGISTER, WEB).await;
    let checks = checks(&agent, "web").await;
    let history = checks[0]["History"].as_array().unwrap();
    let statuses: Vec<_> = history.iter().map(|it| &it["Status"]).collect();
    assert_eq!(statuses, ["passing", "removed", "passing"]);
}

#[tokio::test]
async fn a_definition_shows_what_is_checked_but_no_secret() {
    let agent = Agent::start().await.unwrap();
    let body = r#"{"Name":"web","Check":{"HTTP":"http://me:secret1@127.0.0.1:1/health",
        "Header":{"X-Key":["secret2"]},"Body":"secret3","Method":"POST","Interval":"90s"}}"#;
    put(&agent, REGISTER, body).await;
    let checks = checks(&agent, "web").await;
    let expected = json!({
        "HTTP": "http://me:***@127.0.0.1:1/health", "Method": "POST", "Interval": "1m30s",
    });
    assert_eq!(checks[0]["Definition"], expected);
    assert!(!checks[0].to_string().contains("secret"), "{checks:?}");
}

#[tokio::test]
async fn a_query_for_the_checks_of_a_service_waits_for_a_change_of_that_service() {
    let agent = Agent::start().await.unwrap();
    put(&agent, REGISTER, WEB).await;
    let target = "/v1/waypost/checks?service=web";
    let address = agent.http_addr();
    let now = Request::new("GET", target, "").send(address).await.unwrap();
    let index = now.header("X-Consul-Index").unwrap();
    let target = format!("{target}&index={index}&wait=10m");
    let query = Request::new("GET", &target, "");
    let mut waiting = tokio::spawn(async move { query.send(address).await.unwrap() });
    put(&agent, REGISTER, r#"{"Name":"other"}"#).await;
    let early = timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(early.is_err(), "woken by another service");
    put(&agent, "/v1/agent/check/fail/service:web", "").await;
    let response = timeout(SOON, waiting).await.unwrap().unwrap();
    assert!(response.text().contains("critical"), "{}", response.text());
}

#[tokio::test]
async fn a_check_of_another_node_has_a_history_too() {
    let agent = Agent::start().await.unwrap();
    for status in ["passing", "critical"] {
        let body = format!(
            r#"{{"Node":"db1","Address":"10.0.0.7","Service":{{"Service":"db"}},"Check":
            {{"CheckID":"db","ServiceID":"db","Status":"{status}","Definition":{{"TCP":"10.0.0.7:5432"}}}}}}"#
        );
        put(&agent, "/v1/catalog/register", &body).await;
    }
    let request = Request::new("GET", "/v1/waypost/checks?service=db", "");
    let response = request.send(agent.http_addr()).await.unwrap();
    let checks: Value = serde_json::from_str(&response.text()).unwrap();
    assert_eq!(checks[0]["History"].as_array().unwrap().len(), 2);
    assert_eq!(checks[0]["Runs"], 0, "this agent doesn't run it");
    assert_eq!(checks[0]["LastRun"], Value::Null);
    assert_eq!(checks[0]["Definition"]["TCP"], "10.0.0.7:5432");
}

#[tokio::test]
async fn events_begin_with_all_services_and_continue_with_changed_services() {
    let began = SystemTime::now();
    let agent = Agent::start().await.unwrap();
    put(&agent, REGISTER, WEB).await;
    let mut events = Events::start(&agent, "", false).await;
    let first = events.next().await;
    assert_eq!(first.name, "snapshot");
    let names: Vec<_> = first.data["services"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["name"])
        .collect();
    assert_eq!(names, ["consul", "web"]);
    let web = &first.data["services"][1]["instances"][0];
    assert_eq!(
        (&web["status"], &web["port"]),
        (&json!("passing"), &json!(80))
    );
    assert_eq!(web["history"].as_array().unwrap().len(), 1);
    assert_eq!(web["why"], Value::Null);
    let (started, _) = first.id.split_once('.').unwrap();
    let started = UNIX_EPOCH + Duration::from_millis(started.parse().unwrap());
    assert!(began <= started + Duration::from_millis(1) && started <= SystemTime::now());

    put(&agent, "/v1/agent/check/fail/service:web?note=no+disk", "").await;
    let failed = events.next().await;
    assert_eq!(
        (failed.name.as_str(), &failed.data["name"]),
        ("service", &json!("web"))
    );
    let instance = &failed.data["instances"][0];
    assert_eq!(instance["status"], "critical");
    assert_eq!(instance["why"]["output"], "no disk");
    assert_eq!(instance["history"][1][1], "critical");

    put(&agent, "/v1/agent/service/deregister/web", "").await;
    let removed = events.next().await;
    assert_eq!(
        (removed.name.as_str(), &removed.data["name"]),
        ("removed", &json!("web"))
    );
}

/// The statuses in the history of the only instance of a service.
async fn history(agent: &Agent, service: &str) -> Vec<String> {
    let snapshot = Events::start(agent, "", false).await.next().await.data;
    let services = snapshot["services"].as_array().unwrap();
    let service = services.iter().find(|it| it["name"] == service).unwrap();
    let changes = service["instances"][0]["history"].as_array().unwrap();
    let times: Vec<_> = changes.iter().map(|it| it[0].as_u64()).collect();
    assert!(times.is_sorted(), "{changes:?}");
    let statuses = changes.iter().map(|it| it[1].as_str().unwrap().to_owned());
    statuses.collect()
}

#[tokio::test(start_paused = true)]
async fn the_history_of_an_instance_is_that_of_its_worst_check() {
    let agent = Agent::start().await.unwrap();
    let two = r#"{"Name":"web","Checks":[
        {"CheckID":"a","TTL":"9h","Status":"passing"},{"CheckID":"b","TTL":"9h"}]}"#;
    put(&agent, REGISTER, two).await;
    assert_eq!(history(&agent, "web").await, ["critical"], "one change");
    let mut expected = vec!["critical"];
    for (report, status) in [
        ("pass/b", Some("passing")),
        ("warn/a", Some("warning")),
        ("warn/b", None),
        ("fail/b", Some("critical")),
        ("pass/a", None),
        ("warn/b", Some("warning")),
    ] {
        sleep(Duration::from_secs(1)).await;
        put(&agent, &format!("/v1/agent/check/{report}"), "").await;
        expected.extend(status);
        assert_eq!(history(&agent, "web").await, expected, "{report}");
    }
    sleep(Duration::from_secs(1)).await;
    put(&agent, "/v1/agent/service/deregister/web", "").await;
    sleep(Duration::from_secs(1)).await;
    put(&agent, REGISTER, two).await;
    expected.extend(["removed", "critical"]);
    assert_eq!(history(&agent, "web").await, expected);
}

#[tokio::test(start_paused = true)]
async fn the_history_of_an_instance_covers_the_last_changes_of_a_quarter_of_an_hour() {
    let agent = Agent::start().await.unwrap();
    let body = r#"{"Name":"web","Check":{"CheckID":"c","TTL":"9h","Status":"passing"}}"#;
    put(&agent, REGISTER, body).await;
    let report = async |report: &str| {
        sleep(Duration::from_secs(1)).await;
        put(&agent, &format!("/v1/agent/check/{report}/c"), "").await;
    };
    for _ in 0..35 {
        report("fail").await;
        report("pass").await;
    }
    let all = history(&agent, "web").await;
    assert_eq!(all.len(), 60);
    assert_eq!(all[59], "passing");
    sleep(Duration::from_secs(14 * 60)).await;
    report("warn").await;
    sleep(Duration::from_secs(2 * 60)).await;
    // What it was at the beginning of the time, and the change since.
    assert_eq!(history(&agent, "web").await, ["passing", "warning"]);
    sleep(Duration::from_secs(14 * 60)).await;
    assert_eq!(history(&agent, "web").await, ["warning"]);
}

#[tokio::test]
async fn the_figures_of_the_agent_count_its_services_and_checks() {
    let agent = Agent::start().await.unwrap();
    put(&agent, REGISTER, WEB).await;
    put(&agent, REGISTER, r#"{"Name":"pay","Check":{"TTL":"10s"}}"#).await;
    let body = r#"{"Name":"shop","Check":{"AliasService":"web"}}"#;
    put(&agent, REGISTER, body).await;
    let response = Request::new("GET", "/v1/agent/self", "");
    let response = response.send(agent.http_addr()).await.unwrap();
    let info: Value = serde_json::from_str(&response.text()).unwrap();
    let expected = json!({
        "check_monitors": "0", "check_ttls": "2", "checks": "3", "services": "3",
    });
    assert_eq!(info["Stats"]["agent"], expected);
}

#[tokio::test]
async fn a_sidecar_keeps_the_port_that_it_asks_for() {
    let agent = Agent::start().await.unwrap();
    for (port, expected) in [(1, 1), (0, 21_000), (20_000, 20_000)] {
        let name = format!("web{port}");
        let body = json!({"Name": name, "Port": 80,
            "Connect": {"SidecarService": {"Port": port}}});
        put(&agent, REGISTER, &body.to_string()).await;
        let target = format!("/v1/agent/service/{name}-sidecar-proxy");
        let request = Request::new("GET", &target, "");
        let response = request.send(agent.http_addr()).await.unwrap();
        let sidecar: Value = serde_json::from_str(&response.text()).unwrap();
        assert_eq!(sidecar["Port"], expected);
    }
}

#[tokio::test]
async fn events_continue_after_a_disconnect_with_the_changes_since() {
    let agent = Agent::start().await.unwrap();
    put(&agent, REGISTER, WEB).await;
    put(&agent, REGISTER, r#"{"Name":"gone"}"#).await;
    put(&agent, REGISTER, r#"{"Name":"quiet"}"#).await;
    let id = Events::start(&agent, "", false).await.next().await.id;
    put(&agent, "/v1/agent/service/deregister/gone", "").await;
    put(&agent, "/v1/agent/check/fail/service:web", "").await;

    let mut resumed = Events::start(&agent, &format!("?after={id}"), false).await;
    let names = resumed.next().await;
    assert_eq!(names.name, "names");
    assert_eq!(names.data["names"], json!(["consul", "quiet", "web"]));
    assert_eq!(resumed.next().await.data["name"], "web");
    // The id of an agent that ran before is not valid.
    let mut anew = Events::start(&agent, "?after=1.99999", false).await;
    assert_eq!(anew.next().await.name, "snapshot");
    let wrong = Request::new("GET", "/v1/waypost/events?after=x", "");
    let wrong = wrong.send(agent.http_addr()).await.unwrap();
    assert_eq!(wrong.status, "400 Bad Request");
    assert!(
        wrong.text().contains("use the id of an event"),
        "{}",
        wrong.text()
    );
}

#[tokio::test]
async fn compressed_events_arrive_at_once() {
    let agent = Agent::start().await.unwrap();
    let mut events = Events::start(&agent, "", true).await;
    assert_eq!(events.next().await.name, "snapshot");
    put(&agent, REGISTER, WEB).await;
    assert_eq!(events.next().await.data["name"], "web");
}

/// A stream of server-sent events.
struct Events {
    chunks: BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    decoder: Option<GzDecoder<Vec<u8>>>,
    rest: String,
}

struct Event {
    name: String,
    id: String,
    data: Value,
}

impl Events {
    async fn start(agent: &Agent, query: &str, gzip: bool) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = format!("{}/v1/waypost/events{query}", agent.url());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request = client.get(url);
        if gzip {
            request = request.header("accept-encoding", "gzip");
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers().contains_key("content-encoding"), gzip);
        Self {
            chunks: response.bytes_stream().boxed(),
            decoder: gzip.then(|| GzDecoder::new(Vec::new())),
            rest: String::new(),
        }
    }

    async fn next(&mut self) -> Event {
        loop {
            if let Some((event, rest)) = self.rest.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.rest = rest;
                let field = |name: &str| {
                    let mut lines = event.lines();
                    lines
                        .find_map(|line| line.strip_prefix(name))
                        .map(str::to_owned)
                };
                if let Some(name) = field("event: ") {
                    let data = serde_json::from_str(&field("data: ").unwrap()).unwrap();
                    let id = field("id: ").unwrap();
                    return Event { name, id, data };
                }
                continue;
            }
            let chunk = timeout(SOON, self.chunks.next()).await.unwrap();
            let mut chunk = chunk.expect("the stream should continue").unwrap().to_vec();
            if let Some(decoder) = &mut self.decoder {
                decoder.write_all(&chunk).unwrap();
                decoder.flush().unwrap();
                chunk = std::mem::take(decoder.get_mut());
            }
            self.rest.push_str(&String::from_utf8(chunk).unwrap());
        }
    }
}
