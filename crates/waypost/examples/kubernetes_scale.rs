//! How soon a pick knows of a change, and what it costs, in a cluster with many endpoints.
//!
//! A stand-in for the API server holds 200 slices of 100 endpoints each of one service; then single
//! endpoints change, 3,000 times in 24 s. Told are the times from a change to the first snapshot
//! that has it, and what the client's threads and memory cost. Server and client are one process,
//! so the memory is that of both.
//!
//! `cargo run --release --example kubernetes_scale --all-features`

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, interval};
use waypost::{Directory, Health, KubernetesProvider};
use waypost_kube_standin::{ApiServer, manifest};

const SLICES: u32 = 200;
const ENDPOINTS: u32 = 100;
const CHANGES: usize = 3000;
const PERIOD: Duration = Duration::from_millis(8);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The server has a runtime of its own, so that the client's threads can be told apart.
    let serving = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("server")
        .enable_all()
        .build()?;
    let server = serving.block_on(ApiServer::builder().namespace("demo").start())?;
    server.put(&manifest::service("demo", "web", &[("http", 80)]));
    let mut slices: Vec<_> = manifest::many_slices("demo", "web", SLICES, ENDPOINTS).collect();
    for slice in &slices {
        server.put(slice);
    }
    let before = resident_kib();
    let looking = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    looking.block_on(async {
        let builder = KubernetesProvider::builder().kubeconfig(server.kubeconfig());
        let directory = Directory::new(Arc::new(builder.build()?));
        let web = "web".parse()?;
        let started = Instant::now();
        let snapshot = directory.lookup(&web).await?;
        let count = snapshot.instances().len();
        println!("{count} endpoints known after {:?}", started.elapsed());
        println!(
            "resident: {} KiB more",
            resident_kib().saturating_sub(before)
        );
        drop(snapshot);

        let mut subscription = directory.subscribe(&web);
        let cpu = thread_cpu();
        let mut ticks = interval(PERIOD);
        let mut waits = Vec::with_capacity(CHANGES);
        let started = Instant::now();
        for number in 0..CHANGES {
            ticks.tick().await;
            let slice = number * 7 % SLICES as usize;
            let place = number * 13 % ENDPOINTS as usize;
            let ready = &mut slices[slice]["endpoints"][place]["conditions"]["ready"];
            let is_ready = *ready != true;
            *ready = is_ready.into();
            let id = slices[slice]["endpoints"][place]["targetRef"]["name"].clone();
            let changed = slices[slice].clone();
            let put = Instant::now();
            server.put(&changed);
            loop {
                let snapshot = subscription.changed().await;
                let endpoints = snapshot.endpoints();
                let id = id.as_str().unwrap_or_default();
                let at = endpoints.binary_search_by(|e| e.instance().id().as_str().cmp(id));
                let health = at.map(|at| endpoints[at].instance().health());
                if health
                    == Ok(if is_ready {
                        Health::Passing
                    } else {
                        Health::Critical
                    })
                {
                    waits.push(put.elapsed());
                    break;
                }
            }
        }
        waits.sort();
        let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize];
        println!("{CHANGES} changes in {:?}", started.elapsed());
        println!(
            "known after: median {:?}, p99 {:?}, most {:?}",
            at(0.5),
            at(0.99),
            at(1.0)
        );
        let cpu = (thread_cpu() - cpu) / CHANGES as u32;
        println!("the client's thread, with the putting: {cpu:?} of CPU for a change");
        println!(
            "resident: {} KiB more",
            resident_kib().saturating_sub(before)
        );
        Ok(())
    })
}

/// What this process has in memory now, by `/proc`.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}

/// How long this thread has run, by `/proc`.
fn thread_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = text
        .split_whitespace()
        .next()
        .and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(first.unwrap_or(0))
}
