//! Persistence in a data directory: acknowledged changes survive restarts and crashes.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};
use waypost_agent::{Agent, Error};
use waypost_testkit::free_ports;

use crate::raw_http::Request;

const SOON: Duration = Duration::from_secs(30);
const ADDRESS: &str = "WAYPOST_TEST_ADDRESS";
const FOLDER: &str = "WAYPOST_TEST_FOLDER";

async fn agent(folder: &Path) -> Result<Agent, Error> {
    let builder = Agent::builder().node_name("n1").data_dir(folder);
    builder.start().await
}

async fn put(address: SocketAddr, target: &str, body: &str) -> String {
    let response = Request::new("PUT", target, body)
        .send(address)
        .await
        .unwrap();
    assert_eq!(response.status, "200 OK", "{target}: {}", response.text());
    response.text()
}

async fn get(address: SocketAddr, target: &str) -> Value {
    let response = Request::new("GET", target, "").send(address).await.unwrap();
    serde_json::from_slice(&response.body).unwrap_or(Value::Null)
}

async fn index(address: SocketAddr, target: &str) -> u64 {
    let response = Request::new("GET", target, "").send(address).await.unwrap();
    response.header("X-Consul-Index").unwrap().parse().unwrap()
}

#[tokio::test]
async fn the_state_is_the_same_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let first = agent(folder.path()).await.unwrap();
    let http = first.http_addr();
    let service = r#"{"ID":"web-1","Name":"web","Tags":["a"],"Port":80,"Meta":{"k":"v"},
        "Check":{"TTL":"1h","Notes":"n"}}"#;
    put(http, "/v1/agent/service/register", service).await;
    put(http, "/v1/agent/service/register", r#"{"Name":"gone"}"#).await;
    put(http, "/v1/agent/service/deregister/gone", "").await;
    put(http, "/v1/agent/check/warn/service:web-1?note=slow", "").await;
    put(
        http,
        "/v1/agent/check/register",
        r#"{"Name":"disk","TTL":"1h"}"#,
    )
    .await;
    put(
        http,
        "/v1/agent/service/maintenance/web-1?enable=true&reason=why",
        "",
    )
    .await;
    put(http, "/v1/kv/a?flags=7", "one").await;
    put(http, "/v1/kv/b", "two").await;
    let delete = Request::new("DELETE", "/v1/kv/b", "");
    delete.send(http).await.unwrap();
    let session = put(http, "/v1/session/create", r#"{"Name":"s","TTL":"1h"}"#).await;
    let session: Value = serde_json::from_str(&session).unwrap();
    let id = session["ID"].as_str().unwrap();
    assert_eq!(
        put(http, &format!("/v1/kv/lock?acquire={id}"), "x").await,
        "true"
    );
    let register = "/v1/catalog/register";
    for body in [
        r#"{"Node":"Ext","Address":"10.0.0.1","NodeMeta":{"external":"true"},
            "Service":{"ID":"db-1","Service":"db","Port":5432},
            "Checks":[{"CheckID":"ping","Name":"ping","Status":"warning","ServiceID":"db-1"}]}"#,
        r#"{"Node":"ext","Address":"10.0.0.1","Service":{"ID":"db-2","Service":"db"}}"#,
        r#"{"Node":"left","Address":"10.0.0.2","Service":{"Service":"db"}}"#,
    ] {
        put(http, register, body).await;
    }
    let deregister = "/v1/catalog/deregister";
    put(http, deregister, r#"{"Node":"left"}"#).await;
    put(http, deregister, r#"{"Node":"ext","ServiceID":"DB-2"}"#).await;
    let lists = [
        "/v1/catalog/service/db",
        "/v1/health/service/db",
        "/v1/agent/services",
        "/v1/agent/checks",
        "/v1/kv/?recurse",
        "/v1/session/list",
    ];
    let mut before = Vec::new();
    for list in lists {
        before.push(get(http, list).await);
    }
    let watched = [
        "/v1/kv/?keys",
        "/v1/kv/b",
        "/v1/session/list",
        "/v1/health/service/web",
    ];
    let mut indexes = Vec::new();
    for target in watched {
        indexes.push(index(http, target).await);
    }
    first.shutdown().await;

    for round in 0..3 {
        let next = agent(folder.path()).await.unwrap();
        let http = next.http_addr();
        for (list, before) in lists.iter().zip(&before) {
            let (mut now, mut before) = (get(http, list).await, before.clone());
            // Keys keep their indexes, because clients store them. Services get new ones.
            if !list.starts_with("/v1/kv") {
                without_indexes(&mut now);
                without_indexes(&mut before);
            }
            assert_eq!(now, before, "{list} after restart {round}");
        }
        for (target, before) in watched.iter().zip(&indexes) {
            assert!(
                index(http, target).await >= *before,
                "the index of {target} went back"
            );
        }
        next.shutdown().await;
    }
}

fn without_indexes(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("CreateIndex");
            fields.remove("ModifyIndex");
            fields.values_mut().for_each(without_indexes);
        }
        Value::Array(items) => items.iter_mut().for_each(without_indexes),
        _ => {}
    }
}

#[tokio::test]
async fn checks_continue_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let [port] = free_ports();
    let builder = Agent::builder().node_name("n1").data_dir(folder.path());
    let builder = builder.http((Ipv4Addr::LOCALHOST, port).into());
    let first = builder.start().await.unwrap();
    let body = format!(
        r#"{{"Name":"web","Check":{{"TCP":"{}","Interval":"1h"}}}}"#,
        first.http_addr()
    );
    put(first.http_addr(), "/v1/agent/service/register", &body).await;
    let old = first.http_addr();
    wait_for(old, "/v1/health/service/web?passing", "service:web").await;
    first.shutdown().await;
    let second = agent(folder.path()).await.unwrap();
    // The checked address is closed now, and the restored check must notice.
    assert_ne!(second.http_addr(), old);
    wait_for(
        second.http_addr(),
        "/v1/health/state/critical",
        "service:web",
    )
    .await;
}

async fn wait_for(address: SocketAddr, target: &str, text: &str) {
    let seen = async {
        while !get(address, target).await.to_string().contains(text) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, seen).await.unwrap();
}

#[tokio::test]
async fn a_data_directory_is_locked_by_one_agent() {
    let folder = TempDir::new().unwrap();
    let first = agent(folder.path()).await.unwrap();
    let error = agent(folder.path()).await.unwrap_err().to_string();
    assert!(error.contains("another agent"), "{error}");
    first.shutdown().await;
    agent(folder.path()).await.unwrap();
}

#[tokio::test]
async fn a_truncated_write_is_discarded_and_other_damage_is_an_error() {
    let folder = TempDir::new().unwrap();
    let first = agent(folder.path()).await.unwrap();
    for i in 0..10 {
        put(first.http_addr(), &format!("/v1/kv/{i}"), "value").await;
    }
    first.shutdown().await;
    let file = folder.path().join("registry.log");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 3]).unwrap();
    let second = agent(folder.path()).await.unwrap();
    let keys = get(second.http_addr(), "/v1/kv/?keys").await;
    assert_eq!(keys.as_array().unwrap().len(), 10, "{keys}");
    second.shutdown().await;

    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let error = agent(folder.path()).await.unwrap_err().to_string();
    assert!(error.contains("registry.log"), "{error}");
    assert!(error.contains("damaged at offset "), "{error}");
    assert_eq!(
        std::fs::read(&file).unwrap(),
        bytes,
        "the damaged file was changed"
    );
}

#[tokio::test]
async fn the_journal_is_compacted() {
    let folder = TempDir::new().unwrap();
    let first = agent(folder.path()).await.unwrap();
    let value = "x".repeat(400_000);
    for i in 0..30 {
        put(first.http_addr(), "/v1/kv/same", &format!("{i}{value}")).await;
    }
    first.shutdown().await;
    let size = std::fs::metadata(folder.path().join("registry.log"))
        .unwrap()
        .len();
    assert!(size < 8_000_000, "{size} bytes for one key of 400 kB");
    let second = agent(folder.path()).await.unwrap();
    let response = Request::new("GET", "/v1/kv/same?raw", "")
        .send(second.http_addr())
        .await;
    assert!(response.unwrap().text().starts_with("29x"));
}

/// A key or service that a writer changes repeatedly. `None` is an absent one.
#[derive(Default)]
struct Item {
    /// The last acknowledged value.
    acknowledged: Option<u64>,
    /// A value that was written but not acknowledged. It may or may not be persisted.
    unacknowledged: Option<Option<u64>>,
}

/// Kills the process with SIGKILL during writes.
#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_write_is_lost_when_the_process_is_killed() {
    const ROUNDS: u64 = 100;
    const WRITERS: u64 = 4;
    const ITEMS: u64 = 6;
    let folder = TempDir::new().unwrap();
    let mut random = fastrand::Rng::with_seed(42);
    let mut items: BTreeMap<String, Item> = BTreeMap::new();
    let (mut acknowledged, mut interrupted) = (0, 0);
    for round in 0..ROUNDS {
        let process = Process::start(folder.path()).await;
        let keys = values_of_keys(process.address).await;
        let services = ports_of_services(process.address).await;
        for (name, item) in &mut items {
            let found = match name.strip_prefix("kv-") {
                Some(_) => keys.get(name),
                None => services.get(name),
            };
            let found = found.copied();
            let is_valid = found == item.acknowledged || Some(found) == item.unacknowledged;
            assert!(
                is_valid,
                "round {round}: {name} is {found:?}, acknowledged was {:?}, unacknowledged {:?}",
                item.acknowledged, item.unacknowledged
            );
            interrupted += u64::from(item.unacknowledged.is_some());
            item.acknowledged = found;
            item.unacknowledged = None;
        }
        let answered = Arc::new(AtomicU64::new(0));
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            let own: Vec<_> = (0..ITEMS)
                .map(|i| match i % 2 {
                    0 => format!("kv-{writer}-{i}"),
                    _ => format!("service-{writer}-{i}"),
                })
                .map(|name| {
                    let item = items.remove(&name).unwrap_or_default();
                    (name, item)
                })
                .collect();
            let seed = random.u64(..);
            let answered = Arc::clone(&answered);
            let writing = write_until_killed(process.address, own, seed, answered);
            writers.push(tokio::spawn(writing));
        }
        // Afterwards most writers are in the middle of a write.
        let enough = random.u64(0..60);
        let some_writes = async {
            while answered.load(Relaxed) < enough {
                yield_now().await;
            }
        };
        timeout(SOON, some_writes).await.unwrap();
        process.kill();
        for writer in writers {
            let (own, count) = timeout(SOON, writer).await.unwrap().unwrap();
            acknowledged += count;
            items.extend(own);
        }
    }
    println!("{ROUNDS} kills, {acknowledged} acknowledged writes, {interrupted} interrupted");
    assert!(acknowledged > ROUNDS * 10, "only {acknowledged} writes");
    assert!(interrupted > 0, "no write was ever interrupted");
}

async fn write_until_killed(
    address: SocketAddr,
    mut own: Vec<(String, Item)>,
    seed: u64,
    answered: Arc<AtomicU64>,
) -> (Vec<(String, Item)>, u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut count = 0;
    loop {
        let at = random.usize(..own.len());
        let (name, item) = &mut own[at];
        let value = random.bool().then(|| random.u64(1..60_000));
        let is_key = name.starts_with("kv-");
        let request = match (is_key, value) {
            (true, Some(value)) => {
                Request::new("PUT", &format!("/v1/kv/{name}"), &value.to_string())
            }
            (true, None) => Request::new("DELETE", &format!("/v1/kv/{name}"), ""),
            (false, Some(port)) => {
                let body = format!(r#"{{"Name":"{name}","Port":{port},"Check":{{"TTL":"1h"}}}}"#);
                Request::new("PUT", "/v1/agent/service/register", &body)
            }
            (false, None) => {
                Request::new("PUT", &format!("/v1/agent/service/deregister/{name}"), "")
            }
        };
        item.unacknowledged = Some(value);
        match request.send(address).await {
            Ok(response) => {
                assert_eq!(response.status, "200 OK", "{}", response.text());
                item.acknowledged = value;
                item.unacknowledged = None;
                count += 1;
                answered.fetch_add(1, Relaxed);
            }
            Err(_) => return (own, count),
        }
    }
}

async fn values_of_keys(address: SocketAddr) -> BTreeMap<String, u64> {
    let mut values = BTreeMap::new();
    for key in get(address, "/v1/kv/?keys").await.as_array().unwrap() {
        let key = key.as_str().unwrap();
        let raw = Request::new("GET", &format!("/v1/kv/{key}?raw"), "");
        let value = raw.send(address).await.unwrap().text();
        values.insert(key.to_owned(), value.parse().unwrap());
    }
    values
}

async fn ports_of_services(address: SocketAddr) -> BTreeMap<String, u64> {
    let services = get(address, "/v1/agent/services").await;
    let services = services.as_object().unwrap().iter();
    services
        .map(|(id, service)| (id.clone(), service["Port"].as_u64().unwrap()))
        .collect()
}

/// An agent in a separate process. Dropping this kills the process.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    async fn start(folder: &Path) -> Self {
        let [port] = free_ports();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "persistence::process", "--ignored"])
            .env(ADDRESS, address.to_string())
            .env(FOLDER, folder)
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let process = Self { child, address };
        let deadline = Instant::now() + SOON;
        let leader = Request::new("GET", "/v1/status/leader", "");
        while leader.send(address).await.is_err() {
            assert!(Instant::now() < deadline, "the process doesn't start");
            sleep(Duration::from_millis(2)).await;
        }
        process
    }

    /// Sends SIGKILL.
    fn kill(self) {}
}

impl Drop for Process {
    fn drop(&mut self) {
        // These fail only if the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program that a [`Process`] runs.
#[tokio::test]
#[ignore = "started as a process by other tests"]
async fn process() {
    let (Ok(address), Some(folder)) = (std::env::var(ADDRESS), std::env::var_os(FOLDER)) else {
        return;
    };
    let builder = Agent::builder().http(address.parse().unwrap());
    let agent = builder.data_dir(folder).start().await.unwrap();
    std::future::pending::<()>().await;
    agent.shutdown().await;
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_user_can_read_the_data_directory() {
    use std::os::unix::fs::PermissionsExt;

    let parent = TempDir::new().unwrap();
    let folder = parent.path().join("data");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let files = ["registry.log", "registry.lock"].map(|name| folder.join(name));
    for _ in 0..2 {
        let agent = agent(&folder).await.unwrap();
        put(agent.http_addr(), "/v1/kv/a", "1").await;
        agent.shutdown().await;
        assert_eq!(mode(&folder), 0o700);
        for file in &files {
            assert_eq!(mode(file), 0o600, "{}", file.display());
            // The permissions with which an earlier version created it.
            let public = std::fs::Permissions::from_mode(0o644);
            std::fs::set_permissions(file, public).unwrap();
        }
    }
}

#[tokio::test]
async fn a_full_disk_refuses_changes_until_there_is_space() {
    let folder = TempDir::new().unwrap();
    let first = agent(folder.path()).await.unwrap();
    let http = first.http_addr();
    let send = async |method: &str, target: &str, body: &str| {
        let request = Request::new(method, target, body);
        request.send(http).await.unwrap().status
    };
    let web = r#"{"Name":"web","Tags":["a"],"Check":{"TTL":"1h"}}"#;
    put(http, "/v1/kv/a", "old").await;
    put(http, "/v1/kv/gone", "old").await;
    put(http, "/v1/agent/service/register", web).await;
    let external = r#"{"Node":"n2","Address":"10.0.0.2","Service":{"Service":"db"},
        "Check":{"CheckID":"up","ServiceID":"db","Status":"passing"}}"#;
    put(http, "/v1/catalog/register", external).await;
    let before = index(http, "/v1/kv/?recurse").await;

    first.faults().full_disk(true);
    for (method, target, body) in [
        ("PUT", "/v1/kv/a", "new"),
        ("PUT", "/v1/kv/b", "new"),
        ("DELETE", "/v1/kv/gone", ""),
        ("PUT", "/v1/session/create", r#"{"TTL":"1h"}"#),
        (
            "PUT",
            "/v1/agent/service/register",
            r#"{"Name":"web","Tags":["b"]}"#,
        ),
        (
            "PUT",
            "/v1/agent/service/register",
            r#"{"Name":"api","Check":{"TTL":"1h"}}"#,
        ),
        ("PUT", "/v1/agent/service/deregister/web", ""),
        ("PUT", "/v1/catalog/deregister", r#"{"Node":"n2"}"#),
        (
            "PUT",
            "/v1/catalog/deregister",
            r#"{"Node":"n2","ServiceID":"db"}"#,
        ),
        (
            "PUT",
            "/v1/catalog/register",
            r#"{"Node":"n3","Address":"10.0.0.3"}"#,
        ),
    ] {
        let status = send(method, target, body).await;
        assert_eq!(status, "500 Internal Server Error", "{target} {body}");
    }
    let check = async |folder: &str| {
        assert_eq!(get(http, "/v1/kv/a").await[0]["Value"], "b2xk", "{folder}");
        assert_eq!(get(http, "/v1/kv/b").await, Value::Null);
        assert_eq!(get(http, "/v1/kv/gone").await[0]["Value"], "b2xk");
        assert_eq!(
            get(http, "/v1/session/list").await,
            Value::Array(Vec::new())
        );
        let services = get(http, "/v1/catalog/services").await;
        let expected = serde_json::json!({"consul": [], "web": ["a"], "db": []});
        assert_eq!(services, expected);
        let checks = get(http, "/v1/health/checks/db").await;
        assert_eq!(checks.as_array().unwrap().len(), 1);
        assert_eq!(
            get(http, "/v1/catalog/nodes")
                .await
                .as_array()
                .unwrap()
                .len(),
            2
        );
    };
    check("full").await;
    assert!(index(http, "/v1/kv/?recurse").await > before);
    // The result is kept although it can't be written, and the check still runs.
    send("PUT", "/v1/agent/check/pass/service:web", "").await;
    let passing = get(http, "/v1/health/service/web?passing").await;
    assert_eq!(passing.as_array().unwrap().len(), 1);

    first.faults().heal();
    put(http, "/v1/kv/b", "new").await;
    put(http, "/v1/agent/service/register", r#"{"Name":"api"}"#).await;
    first.shutdown().await;
    let second = agent(folder.path()).await.unwrap();
    let http = second.http_addr();
    assert_eq!(get(http, "/v1/kv/a").await[0]["Value"], "b2xk");
    assert_eq!(get(http, "/v1/kv/b").await[0]["Value"], "bmV3");
    let passing = get(http, "/v1/health/service/web?passing").await;
    assert_eq!(passing.as_array().unwrap().len(), 1);
}
