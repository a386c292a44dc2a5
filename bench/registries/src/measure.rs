//! The measurements. Each starts a separate registry process.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::Result;
use crate::client::TIMEOUT;
use crate::registry::{Process, Registry};

const STARTS: usize = 10;
const QUERIES_FOR: Duration = Duration::from_secs(2);

/// The duration of measurements for which Consul is slow.
const REGISTRATIONS_FOR: Duration = Duration::from_secs(20);

/// Results: times in milliseconds, memory in MiB, rates per second.
#[derive(Default)]
pub(crate) struct Figures(Vec<(&'static str, f64)>);

/// The measurements that take seconds.
pub(crate) async fn fast(registry: Registry, figures: &mut Figures) -> Result<()> {
    starts(registry, figures).await?;
    registrations(registry, figures).await?;
    queries(registry, figures).await?;
    wake_ups(registry, figures).await
}

/// The measurements with 1,000 to 10,000 instances, which take Consul minutes.
pub(crate) async fn slow(registry: Registry, figures: &mut Figures) -> Result<()> {
    let process = Process::start(registry)?;
    process.ready().await?;
    process.register(16, 0..1_000).await?;
    let filled = process.register(16, 1_000..9_000).await?;
    figures.add(
        "registrations from 1,000 to 9,000, 16 connections, /s",
        filled.rate,
    );
    for (connections, from, row) in [
        (
            1,
            9_000,
            "registrations from 9,000 to 9,500, 1 connection, /s",
        ),
        (
            16,
            9_500,
            "registrations from 9,500 to 10,000, 16 connections, /s",
        ),
    ] {
        let (to, limit) = (from + 500, REGISTRATIONS_FOR);
        let counted = process.register_for(limit, connections, from..to).await?;
        figures.add(row, counted.rate);
        process.register(16, from + counted.count..to).await?;
    }
    figures.add("memory with 10,000 instances, MiB", process.memory()?);
    Ok(())
}

async fn starts(registry: Registry, figures: &mut Figures) -> Result<()> {
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

async fn registrations(registry: Registry, figures: &mut Figures) -> Result<()> {
    for (connections, row) in [
        (1, "registrations from 0 to 500, 1 connection, /s"),
        (16, "registrations from 0 to 500, 16 connections, /s"),
    ] {
        let process = Process::start(registry)?;
        process.ready().await?;
        sleep(Duration::from_secs(1)).await;
        if connections == 1 {
            figures.add("memory idle, MiB", process.memory()?);
        }
        let counted = process.register(connections, 0..500).await?;
        figures.add(row, counted.rate);
        if connections == 16 {
            process.register(connections, 500..1_000).await?;
            figures.add("memory with 1,000 instances, MiB", process.memory()?);
        }
    }
    Ok(())
}

async fn queries(registry: Registry, figures: &mut Figures) -> Result<()> {
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
        client.wait_for_instances(&path, instances).await?;
        let deadline = Instant::now() + QUERIES_FOR;
        let mut tasks = Vec::new();
        for _ in 0..16 {
            let (mut client, path) = (process.connect().await?, path.clone());
            tasks.push(tokio::spawn(async move {
                let mut responses = 0u32;
                while Instant::now() < deadline {
                    client.get(&path).await?;
                    responses += 1;
                }
                Ok::<_, Box<dyn Error + Send + Sync>>(responses)
            }));
        }
        let mut responses = 0;
        for task in tasks {
            responses += task.await??;
        }
        figures.add(row, f64::from(responses) / QUERIES_FOR.as_secs_f64());
    }
    Ok(())
}

async fn wake_ups(registry: Registry, figures: &mut Figures) -> Result<()> {
    let one = wake_ups_of(1, registry, 1, 400).await?;
    figures.add("wake-up of 1 watcher, ms, p50", one.0);
    figures.add("wake-up of 1 watcher, ms, p99", one.1);
    let many = wake_ups_of(1_000, registry, 10, 20).await?;
    figures.add("wake-up of 1,000 watchers, ms, p50", many.0);
    figures.add("wake-up of 1,000 watchers, ms, p99", many.1);
    Ok(())
}

/// The latency from a status change to the response of each blocking query: p50 and p99.
async fn wake_ups_of(
    watchers: usize,
    registry: Registry,
    instances: usize,
    changes: usize,
) -> Result<(f64, f64)> {
    let process = Process::start(registry)?;
    let mut writer = process.ready().await?;
    for n in 0..instances {
        writer.register_as("watched", n).await?;
    }
    writer
        .wait_for_instances("/v1/health/service/watched?passing", instances)
        .await?;
    let zero = Instant::now();
    let changed_at = Arc::new(AtomicU64::new(0));
    let (sender, mut latencies_of_watchers) = mpsc::unbounded_channel();
    let mut tasks = Vec::new();
    for _ in 0..watchers {
        let mut client = process.connect().await?;
        let (changed_at, sender) = (Arc::clone(&changed_at), sender.clone());
        tasks.push(tokio::spawn(async move {
            let mut index = 0;
            loop {
                let path = format!("/v1/health/service/watched?index={index}&wait=5m");
                let response = client.get(&path).await?;
                let now = u64::try_from(zero.elapsed().as_nanos())?;
                let first = index == 0;
                index = response.index;
                // The first response only signals that the watcher is ready.
                let latency = if first {
                    0
                } else {
                    now.saturating_sub(changed_at.load(SeqCst))
                };
                if sender.send(latency).is_err() {
                    return Ok::<_, Box<dyn Error + Send + Sync>>(());
                }
            }
        }));
    }
    for _ in 0..watchers {
        timeout(TIMEOUT, latencies_of_watchers.recv()).await?;
    }
    let mut latencies = Vec::new();
    for change in 0..changes {
        // Until every watcher is waiting again.
        sleep(Duration::from_millis(if watchers > 1 { 300 } else { 10 })).await;
        let verb = if change % 2 == 0 { "warn" } else { "pass" };
        changed_at.store(u64::try_from(zero.elapsed().as_nanos())?, SeqCst);
        writer
            .put(&format!("/v1/agent/check/{verb}/service:watched-0"), "")
            .await?;
        for _ in 0..watchers {
            let latency = timeout(TIMEOUT, latencies_of_watchers.recv()).await?;
            latencies.push(latency.ok_or("a watcher ended")? as f64 / 1e6);
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
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, f64)> {
        self.0.iter().copied()
    }

    fn add(&mut self, what: &'static str, figure: f64) {
        eprintln!("{what}: {}", show(figure));
        self.0.push((what, figure));
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub(crate) fn show(figure: f64) -> String {
    match figure {
        figure if figure >= 100.0 => format!("{figure:.0}"),
        figure if figure >= 10.0 => format!("{figure:.1}"),
        figure => format!("{figure:.2}"),
    }
}
