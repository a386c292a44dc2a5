//! Measures a service of 20,000 endpoints in 200 slices: how soon a pick sees a change of one endpoint,
//! and the CPU time and memory that it takes. Prints the table in `docs/kubernetes-outages.md`.
//!
//! `cargo run --release --manifest-path bench/Cargo.toml --bin kubernetes_scale [CHANGES]`
//!
//! The fake API server is a separate process, so memory and CPU time are those of the client alone.

use std::fs;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{MissedTickBehavior, interval, sleep};
use waypost::ServiceDiscoveryClient;
use waypost::directory::Subscription;
use waypost::provider::kubernetes::KubernetesProvider;
use waypost::snapshot::Snapshot;
use waypost_fake_kubernetes::{ApiServer, manifest};

type Failure = Box<dyn std::error::Error>;

const SLICES: u32 = 200;
const ENDPOINTS: u32 = 100;
const ALL: usize = (SLICES * ENDPOINTS) as usize;
/// A large rollout: the number of updates of slices, and the time that they take.
const ROLLOUT: (u32, Duration) = (3000, Duration::from_secs(24));

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some("serve") {
        return serve().await;
    }
    let changes = argument.map_or(Ok(200), |text| text.parse())?;
    let before = memory("VmRSS")?;
    let mut cluster = Cluster::start().await?;
    let provider = KubernetesProvider::builder().kubeconfig(&cluster.kubeconfig);
    let client = ServiceDiscoveryClient::new(Arc::new(provider.build()?));
    let began = SystemTime::now();
    client.wait_for("web").await?;
    let first = began.elapsed()?;
    let mut web = client.directory().subscribe(&"web".parse()?);
    until(&mut web, ALL).await;
    client.pick("web").await?;
    let resident = memory("VmRSS")? - before;

    let mut times = Vec::new();
    let cpu = cpu_time()?;
    for change in 0..changes {
        // One endpoint of one slice stops being ready, and is ready again with the next change.
        let ready = ALL - usize::from(change % 2 == 0);
        cluster.send(&format!("change {}", change / 2)).await?;
        until(&mut web, ready).await;
        client.pick("web").await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        times.push(now.saturating_sub(cluster.time().await?));
        sleep(Duration::from_millis(20)).await;
    }
    let each = (cpu_time()? - cpu) / changes;
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];

    let cpu = cpu_time()?;
    let before = web.current().freshness().generation();
    cluster.send("rollout").await?;
    let last = cluster.time().await?;
    // Its last change makes two endpoints unready.
    until(&mut web, ALL - 2).await;
    let snapshots = web.current().freshness().generation() - before;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let behind = now.saturating_sub(last);
    let rollout = cpu_time()? - cpu;

    println!("| what | |");
    println!("|---|---|");
    println!("| endpoints, slices | {ALL}, {SLICES} |");
    println!("| from the first request to the first answer | {first:.0?} |");
    println!(
        "| memory for {ALL} endpoints | {:.1} MB |",
        resident as f64 / 1e3
    );
    println!(
        "| from a change of a slice to the first pick that sees it, p50 | {:.1?} |",
        at(0.5)
    );
    println!("| the same, p99 | {:.1?} |", at(0.99));
    println!("| CPU time for each such change | {each:.1?} |");
    let (updates, time) = ROLLOUT;
    println!("| {updates} updates in {time:?}: snapshots published | {snapshots} |");
    println!("| CPU time for all of them | {rollout:.1?} |");
    println!("| a pick sees the last of them after | {behind:.1?} |");
    println!("| peak memory | {:.1} MB |", memory("VmHWM")? as f64 / 1e3);
    cluster.process.kill().await?;
    Ok(())
}

/// Waits until this many endpoints are ready.
async fn until(web: &mut Subscription<Snapshot>, ready: usize) {
    while web.current().ready().len() != ready {
        web.changed().await;
    }
}

/// The process of the fake API server.
struct Cluster {
    process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    kubeconfig: String,
}

impl Cluster {
    async fn start() -> Result<Self, Failure> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = process.stdin.take().ok_or("no input")?;
        let output = process.stdout.take().ok_or("no output")?;
        let mut output = BufReader::new(output).lines();
        let kubeconfig = output.next_line().await?.ok_or("no kubeconfig")?;
        Ok(Self {
            process,
            input,
            output,
            kubeconfig,
        })
    }

    async fn send(&mut self, command: &str) -> Result<(), Failure> {
        Ok(self
            .input
            .write_all(format!("{command}\n").as_bytes())
            .await?)
    }

    /// Waits for the result of the last command: when it changed the last object, since the epoch.
    async fn time(&mut self) -> Result<Duration, Failure> {
        let line = self.output.next_line().await?.ok_or("no time")?;
        Ok(Duration::from_nanos(line.parse()?))
    }
}

/// Runs the fake API server, and carries out the commands on standard input.
async fn serve() -> Result<(), Failure> {
    let server = ApiServer::builder().namespace("demo").start().await?;
    server.put(&manifest::service("demo", "web", &[("http", 80)]));
    let mut slices: Vec<Value> = manifest::many_slices("demo", "web", SLICES, ENDPOINTS).collect();
    for slice in &slices {
        server.put(slice);
    }
    println!("{}", server.kubeconfig().display());
    // Blocks this thread; the server runs on the others of the runtime.
    for command in std::io::stdin().lines() {
        let command = command?;
        let time = match command.split_once(' ') {
            Some(("change", number)) => {
                let number = number.parse::<usize>()? % slices.len();
                toggle(&mut slices[number], 0);
                put(&server, &slices[number])?
            }
            _ => roll_out(&server, &mut slices).await?,
        };
        println!("{}", time.as_nanos());
    }
    Ok(())
}

/// Toggles whether an endpoint is ready.
fn toggle(slice: &mut Value, endpoint: usize) {
    let ready = &mut slice["endpoints"][endpoint]["conditions"]["ready"];
    *ready = (*ready == false).into();
}

fn put(server: &ApiServer, slice: &Value) -> Result<Duration, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    server.put(slice);
    Ok(now)
}

/// Updates all slices in turn, at a constant rate. In the end all endpoints are ready but two.
async fn roll_out(server: &ApiServer, slices: &mut [Value]) -> Result<Duration, Failure> {
    let (updates, time) = ROLLOUT;
    let mut each = interval(time / updates);
    each.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let count = slices.len();
    for update in 0..updates as usize {
        each.tick().await;
        let slice = &mut slices[update % count];
        slice["metadata"]["annotations"]["update"] = update.to_string().into();
        // Each update of a slice toggles one endpoint, each endpoint twice in a row.
        toggle(slice, (update / count / 2) % ENDPOINTS as usize);
        server.put(slice);
    }
    for slice in slices.iter_mut() {
        let endpoints = slice["endpoints"].as_array_mut().into_iter().flatten();
        for endpoint in endpoints {
            endpoint["conditions"]["ready"] = true.into();
        }
    }
    let (last, others) = slices.split_last_mut().ok_or("no slices")?;
    for slice in others {
        server.put(slice);
    }
    toggle(last, 0);
    toggle(last, 1);
    put(server, last)
}

/// A field of `/proc/self/status`, in kB.
fn memory(field: &str) -> Result<u64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(field));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(number.ok_or("no such field")?.parse()?)
}

/// User and system time of this process, with a resolution of 10 ms.
fn cpu_time() -> Result<Duration, Failure> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no name")?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    let (user, system) = (times.next().ok_or("short")??, times.next().ok_or("short")??);
    Ok(Duration::from_millis((user + system) * 10))
}
