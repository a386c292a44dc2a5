//! A service of 20,000 endpoints in 200 slices: how soon a change of one endpoint is in the next
//! pick, and what it costs. Makes the table in `docs/kubernetes-outages.md`.
//!
//! `cargo run --release -p waypost --features kubernetes --example kubernetes_scale [CHANGES]`
//!
//! The fake API server is a process of its own, so that memory and processor time are those
//! of the client alone.

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
/// What a large rollout looks like: so many updates of slices in this time.
const STORM: (u32, Duration) = (3000, Duration::from_secs(24));

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
    let cpu = processor_time()?;
    for change in 0..changes {
        // One endpoint of one slice stops being ready, and is ready again with the next change.
        let wanted = ALL - usize::from(change % 2 == 0);
        cluster.send(&format!("change {}", change / 2)).await?;
        until(&mut web, wanted).await;
        client.pick("web").await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        times.push(now.saturating_sub(cluster.time().await?));
        sleep(Duration::from_millis(20)).await;
    }
    let each = (processor_time()? - cpu) / changes;
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];

    let cpu = processor_time()?;
    let before = web.current().freshness().generation();
    cluster.send("storm").await?;
    let last = cluster.time().await?;
    // Its last change makes two endpoints unready.
    until(&mut web, ALL - 2).await;
    let snapshots = web.current().freshness().generation() - before;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let behind = now.saturating_sub(last);
    let storm = processor_time()? - cpu;

    println!("| what | |");
    println!("|---|---|");
    println!("| endpoints, slices | {ALL}, {SLICES} |");
    println!("| from the first question to the first answer | {first:.0?} |");
    println!("| memory for them | {:.1} MB |", resident as f64 / 1e3);
    println!(
        "| from a slice's change to the next pick, p50 | {:.1?} |",
        at(0.5)
    );
    println!("| the same, p99 | {:.1?} |", at(0.99));
    println!("| processor time for each such change | {each:.1?} |");
    let (updates, time) = STORM;
    println!("| {updates} updates in {time:?}: snapshots that they became | {snapshots} |");
    println!("| processor time for all of them | {storm:.1?} |");
    println!("| the last of them picked after | {behind:.1?} |");
    println!(
        "| most memory at any time | {:.1} MB |",
        memory("VmHWM")? as f64 / 1e3
    );
    cluster.process.kill().await?;
    Ok(())
}

async fn until(web: &mut Subscription<Snapshot>, ready: usize) {
    while web.current().ready().len() != ready {
        web.changed().await;
    }
}

/// The process with the fake API server.
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

    /// When the last command was carried out.
    async fn time(&mut self) -> Result<Duration, Failure> {
        let line = self.output.next_line().await?.ok_or("no time")?;
        Ok(Duration::from_nanos(line.parse()?))
    }
}

/// Serves the cluster and changes it as it is told.
async fn serve() -> Result<(), Failure> {
    let server = ApiServer::builder().namespace("demo").start().await?;
    server.put(&manifest::service("demo", "web", &[("http", 80)]));
    let mut slices: Vec<Value> = manifest::many_slices("demo", "web", SLICES, ENDPOINTS).collect();
    for slice in &slices {
        server.put(slice);
    }
    println!("{}", server.kubeconfig().display());
    // This thread waits while those of the runtime serve.
    for command in std::io::stdin().lines() {
        let command = command?;
        let time = match command.split_once(' ') {
            Some(("change", number)) => {
                let number = number.parse::<usize>()? % slices.len();
                turn(&mut slices[number], 0);
                put(&server, &slices[number])?
            }
            _ => storm(&server, &mut slices).await?,
        };
        println!("{}", time.as_nanos());
    }
    Ok(())
}

/// An endpoint that was ready isn't any more, and the other way round.
fn turn(slice: &mut Value, endpoint: usize) {
    let ready = &mut slice["endpoints"][endpoint]["conditions"]["ready"];
    *ready = (*ready == false).into();
}

fn put(server: &ApiServer, slice: &Value) -> Result<Duration, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    server.put(slice);
    Ok(now)
}

/// All slices change again and again, at an even pace, and end as they were but for two endpoints.
async fn storm(server: &ApiServer, slices: &mut [Value]) -> Result<Duration, Failure> {
    let (updates, time) = STORM;
    let mut each = interval(time / updates);
    each.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let count = slices.len();
    for update in 0..updates as usize {
        each.tick().await;
        let slice = &mut slices[update % count];
        slice["metadata"]["annotations"]["update"] = update.to_string().into();
        // Sooner or later each endpoint of each slice.
        turn(slice, (update / count / 2) % ENDPOINTS as usize);
        server.put(slice);
    }
    // Some were left turned by an odd number of updates.
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
    turn(last, 0);
    turn(last, 1);
    put(server, last)
}

/// A field of `/proc/self/status`, in kB.
fn memory(field: &str) -> Result<u64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(field));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(number.ok_or("no such field")?.parse()?)
}

/// User and system time of this process, in steps of 10 ms.
fn processor_time() -> Result<Duration, Failure> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no name")?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    let (user, system) = (times.next().ok_or("short")??, times.next().ok_or("short")??);
    Ok(Duration::from_millis((user + system) * 10))
}
