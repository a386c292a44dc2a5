//! Measures how soon a change in a real Consul affects the next pick, compared with the response of a
//! plain blocking query, and the CPU time of idle watches. Prints the tables in `docs/consul.md`.
//!
//! `cargo run --release --manifest-path bench/Cargo.toml --bin consul_latency [CHANGES] [IDLE_SECONDS]`

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};
use waypost::directory::Directory;
use waypost::provider::Provider;
use waypost::provider::consul::ConsulProvider;
use waypost::{Error, ServiceDiscoveryClient, ServiceName};
use waypost_testkit::{Consul, http_client};

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let changes = arguments.next().transpose()?.unwrap_or(200);
    let idle = arguments.next().transpose()?.unwrap_or(30);
    println!("| watched services | connections | changes | what | p50 ms | p99 ms |");
    println!("|---|---|---|---|---|---|");
    measure(1, 100, changes, idle).await?;
    measure(1000, 1100, changes, idle).await
}

async fn measure(services: u64, connections: u64, changes: u64, idle: u64) -> Result<(), Failure> {
    // By default, Consul allows a client 200 connections.
    let consul = Consul::with(json!({ "limits": { "http_max_conns_per_client": 4000 } })).await;
    let http = http_client();
    let put = async |path: String, body: serde_json::Value| {
        let sent = http.put(consul.url(&path)).json(&body).send().await;
        sent.and_then(reqwest::Response::error_for_status).map(drop)
    };
    let register = async |service: &str, id: &str, port: u64| {
        let body = json!({ "Name": service, "ID": id, "Address": "127.0.0.1", "Port": port });
        put("/v1/agent/service/register".into(), body).await
    };
    register("target", "stays", 1).await?;
    // A blocking query for an unknown name returns with each change of any service.
    for number in 1..services {
        register(&format!("quiet-{number}"), &format!("quiet-{number}"), 1).await?;
    }
    let provider = ConsulProvider::builder()
        .address(&consul.address())
        .connections(connections as usize);
    let provider: Arc<dyn Provider> = Arc::new(provider.build()?);
    let client = ServiceDiscoveryClient::new(Arc::clone(&provider));
    let directory = client.directory();
    let mut held = hold(directory, services).await?;
    held.push(directory.subscribe(&ServiceName::new("target")?));
    client.pick("target").await?;

    let (mut ours, mut consuls) = (Vec::new(), Vec::new());
    for _ in 0..changes {
        register("target", "leaves", 2).await?;
        while directory
            .lookup(&ServiceName::new("target")?)
            .await?
            .ready()
            .len()
            < 2
        {
            sleep(Duration::from_micros(200)).await;
        }
        let index = index_of(&http, &consul).await?;
        // Slowly enough that changes are not rate-limited.
        sleep(Duration::from_millis(100)).await;
        // A plain blocking query.
        let query = format!("/v1/health/service/target?index={index}&wait=60s");
        let plain = http.get(consul.url(&query)).send();
        let plain = tokio::spawn(async move {
            let reply = plain.await?.bytes().await?;
            Ok::<_, reqwest::Error>((Instant::now(), reply.len()))
        });
        sleep(Duration::from_millis(20)).await;

        let mut subscription = directory.subscribe(&ServiceName::new("target")?);
        let picked = tokio::spawn(async move {
            while subscription.current().ready().len() > 1 {
                subscription.changed().await;
            }
            Instant::now()
        });
        tokio::task::yield_now().await;
        let start = Instant::now();
        put("/v1/agent/service/deregister/leaves".into(), json!(null)).await?;
        consuls.push(plain.await??.0 - start);
        ours.push(picked.await? - start);
    }
    for (what, times) in [
        ("Consul's query", &mut consuls),
        ("our next pick", &mut ours),
    ] {
        times.sort();
        let at = |share: f64| {
            let index = (times.len() as f64 * share) as usize;
            times[index.min(times.len() - 1)].as_secs_f64() * 1000.0
        };
        let (p50, p99) = (at(0.5), at(0.99));
        println!("| {services} | {connections} | {changes} | {what} | {p50:.2} | {p99:.2} |");
    }

    let (confirmed, cpu) = (confirmations(directory), cpu_time());
    sleep(Duration::from_secs(idle)).await;
    let spent = cpu_time().saturating_sub(cpu);
    println!(
        "|  |  |  | idle for {idle} s | {:.2} % of a core | {} answers |",
        spent.as_secs_f64() / idle.max(1) as f64 * 100.0,
        confirmations(directory) - confirmed,
    );
    drop(held);
    Ok(())
}

/// Watches a number of services that do not change.
async fn hold(
    directory: &Directory,
    services: u64,
) -> Result<Vec<waypost::directory::Subscription<waypost::snapshot::Snapshot>>, Error> {
    let mut held = Vec::new();
    for number in 1..services {
        let name = ServiceName::new(&format!("quiet-{number}"))?;
        directory.lookup(&name).await?;
        held.push(directory.subscribe(&name));
    }
    Ok(held)
}

async fn index_of(http: &reqwest::Client, consul: &Consul) -> Result<u64, Failure> {
    let reply = http
        .get(consul.url("/v1/health/service/target"))
        .send()
        .await?;
    let index = reply.headers().get("x-consul-index").ok_or("no index")?;
    Ok(index.to_str()?.parse()?)
}

fn confirmations(directory: &Directory) -> u64 {
    directory
        .status()
        .iter()
        .map(waypost::provider::ProviderStatus::answers)
        .sum()
}

/// User and system time of this process, with a resolution of 10 ms.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    let ticks = fields.split(' ').skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
