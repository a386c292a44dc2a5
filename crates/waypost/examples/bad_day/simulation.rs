//! Ten endpoints, one slow, one failing and one that starts cold, as Finagle's authors tried their
//! balancers, on a clock that stands still until everybody waits.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep};
use waypost::balance::{LeastConnections, P2cPeakEwma, Random, RoundRobin, Strategy};
use waypost::outlier::OutlierDetection;
use waypost::provider::MemoryProvider;
use waypost::{Balancer, Instance, Lease, ServiceDiscoveryClient, ServiceName};

/// The strategies that are compared.
pub(crate) const STRATEGIES: [&str; 4] = [
    "round_robin",
    "random",
    "least_connections",
    "p2c_peak_ewma",
];

const SECONDS: u64 = 60;
const PER_SECOND: u64 = 300;

/// When the tenth joins, and for how long it is cold.
const JOINS: Duration = Duration::from_secs(SECONDS / 3);
const COLD: Duration = Duration::from_secs(10);

/// What came of a minute's requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Day {
    pub(crate) strategy: &'static str,
    pub(crate) ejection: bool,
    pub(crate) failed: usize,
    /// Of those that succeeded.
    pub(crate) p50: Duration,
    pub(crate) p95: Duration,
    pub(crate) p99: Duration,
}

/// Each strategy without and with ejection, in this order; the same each time.
pub(crate) fn days() -> std::io::Result<Vec<Day>> {
    let mut days = Vec::new();
    for strategy in STRATEGIES {
        for ejection in [false, true] {
            let mut runtime = Builder::new_current_thread();
            let runtime = runtime.enable_time().start_paused(true).build()?;
            days.push(runtime.block_on(day(strategy, ejection)));
        }
    }
    Ok(days)
}

async fn day(strategy: &'static str, ejection: bool) -> Day {
    // Ejections last a little more or less by chance.
    fastrand::seed(7);
    let memory = MemoryProvider::new();
    (0..9).for_each(|number| memory.insert(instance(number)));
    let outliers = match ejection {
        true => OutlierDetection::default(),
        false => OutlierDetection::off(),
    };
    let client = ServiceDiscoveryClient::builder()
        .provider(memory.clone())
        .outlier_detection(outliers);
    let client = client.build().expect("the settings are good");
    let balancer = Arc::new(client.balancer("shop").expect("the name is good"));
    balancer.set_strategy(seeded(strategy));
    balancer.ready().await.expect("there are instances");

    let (begun, taken) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
    for request in 0..SECONDS * PER_SECOND {
        if request == JOINS.as_secs() * PER_SECOND {
            memory.insert(instance(9));
        }
        let (balancer, taken) = (Arc::clone(&balancer), Arc::clone(&taken));
        tokio::spawn(async move {
            let request = one(&balancer, begun, Rng::with_seed(request)).await;
            taken.lock().expect("no panic").push(request);
        });
        sleep(Duration::from_secs(1) / PER_SECOND as u32).await;
    }
    sleep(Duration::from_secs(10)).await;

    let taken = std::mem::take(&mut *taken.lock().expect("no panic"));
    let mut latencies: Vec<Duration> = taken.iter().copied().flatten().collect();
    latencies.sort();
    let at = |percent: usize| latencies[latencies.len() * percent / 100];
    Day {
        strategy,
        ejection,
        failed: taken.len() - latencies.len(),
        p50: at(50),
        p95: at(95),
        p99: at(99),
    }
}

fn instance(number: u8) -> Instance {
    let service = ServiceName::new("shop").expect("a name");
    let host = format!("10.0.0.{number}").parse().expect("an address");
    let builder = Instance::builder(service, host, 80).id(number.to_string());
    builder.build().expect("an instance")
}

fn seeded(strategy: &str) -> Box<dyn Strategy> {
    match strategy {
        "round_robin" => Box::new(RoundRobin::starting_at(0)),
        "random" => Box::new(Random::seeded(1)),
        "least_connections" => Box::new(LeastConnections::seeded(1)),
        _ => Box::new(P2cPeakEwma::seeded(1)),
    }
}

/// How long it took, if it succeeded.
async fn one(balancer: &Balancer, begun: Instant, rng: Rng) -> Option<Duration> {
    let started = Instant::now();
    let lease = balancer.pick().ok()?.lease();
    let ok = serve(&lease, begun, rng).await;
    match ok {
        true => lease.succeeded(),
        false => lease.failed(),
    }
    ok.then(|| started.elapsed())
}

/// What an endpoint does with a request.
async fn serve(lease: &Lease, begun: Instant, mut rng: Rng) -> bool {
    let usual = Duration::from_micros(rng.u64(5_000..15_000));
    // More than it can do at once takes longer for all.
    let crowded = (lease.endpoint().in_flight() as u32 / 16).max(1);
    match lease.id().as_str() {
        "3" => sleep(usual * 20).await,
        "6" => {
            sleep(Duration::from_millis(1)).await;
            return false;
        }
        "9" if begun.elapsed() < JOINS + COLD => sleep(usual * 8).await,
        _ => sleep(usual * crowded).await,
    }
    true
}
