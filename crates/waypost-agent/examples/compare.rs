//! Measures this registry and `consul agent -dev` in turn, on this machine, and prints a table in
//! Markdown.
//!
//! ```text
//! cargo build --release -p waypost-agent --examples
//! cargo run --release -p waypost-agent --example compare > docs/registry-benchmarks.md
//! ```
//!
//! `--quick` leaves out the 10,000 instances, which take Consul minutes. It needs Linux (memory is read from `/proc`) and a `consul` on the path or in `$CONSUL_BIN`.
//! The other side of each measurement is this program, on the same processors.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const STARTS: usize = 10;
const STARTS_WITHIN: Duration = Duration::from_secs(30);
const QUERIES_FOR: Duration = Duration::from_secs(3);
const SERVICES: usize = 100;

/// Whose turn it is.
#[derive(Clone, Copy)]
enum Registry {
    Waypost,
    Consul,
}

/// What is measured of one of them; times in milliseconds, memory in MiB.
#[derive(Default)]
struct Figures(Vec<(&'static str, f64)>);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let ours = measure(Registry::Waypost, quick).await?;
    let theirs = measure(Registry::Consul, quick).await?;
    println!("# The embedded registry beside Consul\n");
    println!(
        "Made by `cargo run --release -p waypost-agent --example compare`: this registry and\n\
         `consul agent -dev` 1.8.7 in turn, on the same machine ({} processors), with the\n\
         measuring program on the same processors. Absolute figures move with the machine; the\n\
         ratios are what counts.\n",
        std::thread::available_parallelism()?
    );
    println!("| what | Waypost | Consul | better by |\n| --- | ---: | ---: | ---: |");
    for ((what, ours), (_, theirs)) in ours.0.iter().zip(&theirs.0) {
        let better = if what.ends_with("/s") {
            ours / theirs
        } else {
            theirs / ours
        };
        println!(
            "| {what} | {} | {} | {better:.1} × |",
            show(*ours),
            show(*theirs)
        );
    }
    Ok(())
}

fn show(figure: f64) -> String {
    match figure {
        figure if figure >= 100.0 => format!("{figure:.0}"),
        figure if figure >= 10.0 => format!("{figure:.1}"),
        figure => format!("{figure:.2}"),
    }
}

/// `quick` leaves out the 10,000 instances, which take Consul minutes.
async fn measure(registry: Registry, quick: bool) -> Result<Figures> {
    let mut figures = Figures::default();
    measure_starts(registry, &mut figures).await?;
    measure_registrations(registry, quick, &mut figures).await?;
    measure_queries(registry, &mut figures).await?;
    measure_wake_ups(registry, &mut figures).await?;
    Ok(figures)
}

// === The measurements ===

async fn measure_starts(registry: Registry, figures: &mut Figures) -> Result<()> {
    let (mut ready, mut registered) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let start = Instant::now();
        let process = Process::start(registry)?;
        let mut client = process.connect().await?;
        client.get("/v1/status/leader").await?;
        ready.push(millis(start.elapsed()));
        client.register(0).await?;
        registered.push(millis(start.elapsed()));
    }
    figures.add("exec to first answer, ms, median", median(&mut ready));
    figures.add(
        "exec to first registration, ms, median",
        median(&mut registered),
    );
    Ok(())
}

async fn measure_registrations(
    registry: Registry,
    quick: bool,
    figures: &mut Figures,
) -> Result<()> {
    let process = Process::start(registry)?;
    let mut client = process.ready().await?;
    sleep(Duration::from_secs(1)).await;
    figures.add("memory idle, MiB", process.memory()?);
    figures.add(
        "registrations from 0 to 500, 1 connection, /s",
        client.register_all(0, 500).await?,
    );
    process.register_by(16, 500, 1_000).await?;
    figures.add("memory with 1,000 instances, MiB", process.memory()?);
    if quick {
        return Ok(());
    }
    let rate = process.register_by(16, 1_000, 9_000).await?;
    figures.add(
        "registrations from 1,000 to 9,000, 16 connections, /s",
        rate,
    );
    let rate = client.register_all(9_000, 9_500).await?;
    figures.add("registrations from 9,000 to 9,500, 1 connection, /s", rate);
    let rate = process.register_by(16, 9_500, 10_000).await?;
    figures.add(
        "registrations from 9,500 to 10,000, 16 connections, /s",
        rate,
    );
    figures.add("memory with 10,000 instances, MiB", process.memory()?);
    Ok(())
}

async fn measure_queries(registry: Registry, figures: &mut Figures) -> Result<()> {
    let rows = [
        (1, "health queries of 1 instance, 16 connections, /s"),
        (10, "health queries of 10 instances, 16 connections, /s"),
        (100, "health queries of 100 instances, 16 connections, /s"),
    ];
    let process = Process::start(registry)?;
    let mut client = process.ready().await?;
    for (instances, row) in rows {
        for n in 0..instances {
            client.register_as(&format!("q{instances}"), n).await?;
        }
        let path = format!("/v1/health/service/q{instances}?passing");
        client.until_there(&path, instances).await?;
        let deadline = Instant::now() + QUERIES_FOR;
        let mut tasks = Vec::new();
        for _ in 0..16 {
            let (mut client, path) = (process.connect().await?, path.clone());
            tasks.push(tokio::spawn(async move {
                let mut answers = 0u32;
                while Instant::now() < deadline {
                    client.get(&path).await?;
                    answers += 1;
                }
                Ok::<_, Box<dyn Error + Send + Sync>>(answers)
            }));
        }
        let mut answers = 0;
        for task in tasks {
            answers += task.await??;
        }
        figures.add(row, f64::from(answers) / QUERIES_FOR.as_secs_f64());
    }
    Ok(())
}

async fn measure_wake_ups(registry: Registry, figures: &mut Figures) -> Result<()> {
    let one = wake_ups(registry, 1, 1, 200).await?;
    figures.add("wake-up of 1 watcher, ms, p50", one.0);
    figures.add("wake-up of 1 watcher, ms, p99", one.1);
    let many = wake_ups(registry, 1_000, 10, 30).await?;
    figures.add("wake-up of 1,000 watchers, ms, p50", many.0);
    figures.add("wake-up of 1,000 watchers, ms, p99", many.1);
    Ok(())
}

/// The time from a change of status to its arrival at each watcher: p50 and p99.
async fn wake_ups(
    registry: Registry,
    watchers: usize,
    instances: usize,
    changes: usize,
) -> Result<(f64, f64)> {
    let process = Process::start(registry)?;
    let mut writer = process.ready().await?;
    for n in 0..instances {
        writer.register_as("watched", n).await?;
    }
    writer
        .until_there("/v1/health/service/watched?passing", instances)
        .await?;
    let zero = Instant::now();
    let changed_at = Arc::new(AtomicU64::new(0));
    let (told, mut hears) = mpsc::unbounded_channel();
    let mut tasks = Vec::new();
    for _ in 0..watchers {
        let mut client = process.connect().await?;
        let (changed_at, told) = (Arc::clone(&changed_at), told.clone());
        tasks.push(tokio::spawn(async move {
            let mut index = 0;
            loop {
                let path = format!("/v1/health/service/watched?index={index}&wait=5m");
                let answer = client.get(&path).await?;
                let now = u64::try_from(zero.elapsed().as_nanos())?;
                let first = index == 0;
                index = answer.index;
                let latency = match first {
                    // Only says that it waits from now on.
                    true => 0,
                    false => now.saturating_sub(changed_at.load(SeqCst)),
                };
                if told.send(latency).is_err() {
                    return Ok::<_, Box<dyn Error + Send + Sync>>(());
                }
            }
        }));
    }
    for _ in 0..watchers {
        timeout(STARTS_WITHIN, hears.recv()).await?;
    }
    let mut latencies = Vec::new();
    for change in 0..changes {
        // Until all wait again.
        sleep(Duration::from_millis(if watchers > 1 { 500 } else { 20 })).await;
        let verb = if change % 2 == 0 { "warn" } else { "pass" };
        changed_at.store(u64::try_from(zero.elapsed().as_nanos())?, SeqCst);
        writer
            .put(&format!("/v1/agent/check/{verb}/service:watched-0"), "")
            .await?;
        for _ in 0..watchers {
            let heard = timeout(STARTS_WITHIN, hears.recv()).await?;
            latencies.push(heard.ok_or("a watcher ended")? as f64 / 1e6);
        }
    }
    for task in tasks {
        task.abort();
    }
    latencies.sort_by(f64::total_cmp);
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
    Ok((at(0.5), at(0.99)))
}

impl Figures {
    fn add(&mut self, what: &'static str, figure: f64) {
        eprintln!("{what}: {}", show(figure));
        self.0.push((what, figure));
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

// === The registries ===

/// A running registry. It ends when this is dropped.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    fn start(registry: Registry) -> Result<Self> {
        let mut command = match registry {
            Registry::Waypost => Command::new(std::env::current_exe()?.with_file_name("agent")),
            Registry::Consul => {
                Command::new(std::env::var_os("CONSUL_BIN").map_or("consul".into(), PathBuf::from))
            }
        };
        let [http, serf_lan, serf_wan, server] = free_ports()?;
        match registry {
            Registry::Waypost => command.arg(format!("127.0.0.1:{http}")),
            Registry::Consul => command
                .args([
                    "agent",
                    "-dev",
                    "-log-level=info",
                    "-dns-port=-1",
                    "-grpc-port=-1",
                ])
                .arg(format!("-http-port={http}"))
                .arg(format!("-serf-lan-port={serf_lan}"))
                .arg(format!("-serf-wan-port={serf_wan}"))
                .arg(format!("-server-port={server}"))
                .arg("-hcl=limits { http_max_conns_per_client = 5000 }"),
        };
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self {
            child,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, http)),
        })
    }

    async fn connect(&self) -> Result<Client> {
        let deadline = Instant::now() + STARTS_WITHIN;
        loop {
            match TcpStream::connect(self.address).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(Client(BufReader::new(stream)));
                }
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) => sleep(Duration::from_millis(1)).await,
            }
        }
    }

    /// A client, once the registry takes registrations.
    async fn ready(&self) -> Result<Client> {
        let mut client = self.connect().await?;
        client.put("/v1/agent/service/deregister/none", "").await?;
        client
            .until_there("/v1/health/service/consul?passing", 1)
            .await?;
        Ok(client)
    }

    /// Resident memory, in MiB.
    fn memory(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(kib.ok_or("no VmRSS")?.parse::<f64>()? / 1024.0)
    }

    /// Registers instances `from..to` by several connections; how many a second.
    async fn register_by(&self, connections: usize, from: usize, to: usize) -> Result<f64> {
        let mut tasks = Vec::new();
        let start = Instant::now();
        for connection in 0..connections {
            let mut client = self.connect().await?;
            tasks.push(tokio::spawn(async move {
                for n in (from..to).skip(connection).step_by(connections) {
                    client.register(n).await?;
                }
                Ok::<_, Box<dyn Error + Send + Sync>>(())
            }));
        }
        for task in tasks {
            task.await??;
        }
        Ok((to - from) as f64 / start.elapsed().as_secs_f64())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ports that were free a moment ago, all different.
fn free_ports() -> Result<[u16; 4]> {
    let mut listeners = Vec::new();
    for _ in 0..4 {
        listeners.push(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
    }
    let mut ports = [0; 4];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

// === Their client ===

/// A connection that is kept alive.
struct Client(BufReader<TcpStream>);

struct Answer {
    index: u64,
    body: Vec<u8>,
}

impl Client {
    async fn register(&mut self, n: usize) -> Result<()> {
        self.register_as(&format!("service-{}", n % SERVICES), n)
            .await
    }

    async fn register_as(&mut self, service: &str, n: usize) -> Result<()> {
        let body = format!(
            r#"{{"ID":"{service}-{n}","Name":"{service}","Port":{},"Tags":["v1"],"Check":{{"TTL":"1h","Status":"passing"}}}}"#,
            1024 + n
        );
        self.put("/v1/agent/service/register", &body).await?;
        Ok(())
    }

    /// Registers `from..to`; how many a second.
    async fn register_all(&mut self, from: usize, to: usize) -> Result<f64> {
        let start = Instant::now();
        for n in from..to {
            self.register(n).await?;
        }
        Ok((to - from) as f64 / start.elapsed().as_secs_f64())
    }

    /// Asks until the answer has so many instances.
    async fn until_there(&mut self, path: &str, instances: usize) -> Result<()> {
        let deadline = Instant::now() + STARTS_WITHIN;
        while Instant::now() < deadline {
            let answer = self.get(path).await?;
            let found: Vec<serde_json::Value> = serde_json::from_slice(&answer.body)?;
            if found.len() == instances {
                return Ok(());
            }
            sleep(Duration::from_millis(5)).await;
        }
        Err(format!("{path} never had {instances} instances").into())
    }

    async fn get(&mut self, path: &str) -> Result<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.exchange(&request).await
    }

    async fn put(&mut self, path: &str, body: &str) -> Result<Answer> {
        let length = body.len();
        let request = format!(
            "PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        self.exchange(&request).await
    }

    async fn exchange(&mut self, request: &str) -> Result<Answer> {
        self.0.write_all(request.as_bytes()).await?;
        let status = self.line().await?;
        let (mut length, mut chunked, mut index) = (0, false, 0);
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(": ") else {
                break;
            };
            match name {
                "Content-Length" => length = value.parse()?,
                "Transfer-Encoding" => chunked = value == "chunked",
                "X-Consul-Index" => index = value.parse()?,
                _ => {}
            }
        }
        let mut body = Vec::new();
        while chunked {
            let size = usize::from_str_radix(&self.line().await?, 16)?;
            self.read(&mut body, size).await?;
            self.line().await?;
            chunked = size > 0;
        }
        self.read(&mut body, length).await?;
        if !status.starts_with("HTTP/1.1 200") {
            let text = String::from_utf8_lossy(&body);
            return Err(format!("{status}: {text}").into());
        }
        Ok(Answer { index, body })
    }

    async fn read(&mut self, into: &mut Vec<u8>, length: usize) -> Result<()> {
        let start = into.len();
        into.resize(start + length, 0);
        self.0.read_exact(&mut into[start..]).await?;
        Ok(())
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line).await? == 0 {
            return Err("the connection was closed".into());
        }
        Ok(line.trim_end().to_owned())
    }
}
