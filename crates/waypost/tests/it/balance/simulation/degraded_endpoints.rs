//! Simulates ten endpoints, of which one is slow, one fails and one starts cold, on a paused clock. The
//! scenario is that of Finagle's comparison of load balancers. A program in `bench/` draws a chart of it.

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

/// When the tenth endpoint joins, and for how long it is cold.
const JOINS: Duration = Duration::from_secs(SECONDS / 3);
const COLD: Duration = Duration::from_secs(10);

/// The outcome of a minute of requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) strategy: &'static str,
    pub(crate) ejection: bool,
    pub(crate) failed: usize,
    /// The latency of successful requests.
    pub(crate) p50: Duration,
    pub(crate) p95: Duration,
    pub(crate) p99: Duration,
}

/// Runs each strategy, first without ejection, then with. The outcomes are the same each time.
pub(crate) fn run_all() -> std::io::Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for strategy in STRATEGIES {
        for ejection in [false, true] {
            let mut runtime = Builder::new_current_thread();
            let runtime = runtime.enable_time().start_paused(true).build()?;
            outcomes.push(runtime.block_on(run(strategy, ejection)));
        }
    }
    Ok(outcomes)
}

async fn run(strategy: &'static str, ejection: bool) -> Outcome {
    // The duration of ejections has jitter.
    fastrand::seed(7);
    let memory = MemoryProvider::new();
    (0..9).for_each(|number| memory.insert(instance(number)));
    let outliers = if ejection {
        OutlierDetection::default()
    } else {
        OutlierDetection::off()
    };
    let client = ServiceDiscoveryClient::builder()
        .provider(memory.clone())
        .outlier_detection(outliers);
    let client = client.build().expect("the settings are valid");
    let balancer = Arc::new(client.balancer("shop").expect("the name is valid"));
    balancer.set_strategy(seeded(strategy));
    balancer.ready().await.expect("there are instances");

    let (start, latencies) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
    for request in 0..SECONDS * PER_SECOND {
        if request == JOINS.as_secs() * PER_SECOND {
            memory.insert(instance(9));
        }
        let (balancer, latencies) = (Arc::clone(&balancer), Arc::clone(&latencies));
        tokio::spawn(async move {
            let latency = request_once(&balancer, start, Rng::with_seed(request)).await;
            latencies.lock().expect("no panic").push(latency);
        });
        sleep(Duration::from_secs(1) / PER_SECOND as u32).await;
    }
    sleep(Duration::from_secs(10)).await;

    let requests = std::mem::take(&mut *latencies.lock().expect("no panic"));
    let mut latencies: Vec<Duration> = requests.iter().copied().flatten().collect();
    latencies.sort();
    let at = |percent: usize| latencies[latencies.len() * percent / 100];
    Outcome {
        strategy,
        ejection,
        failed: requests.len() - latencies.len(),
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

/// Sends a request, and returns its latency if it succeeded.
async fn request_once(balancer: &Balancer, start: Instant, rng: Rng) -> Option<Duration> {
    let sent = Instant::now();
    let lease = balancer.pick().ok()?.lease();
    let ok = serve(&lease, start, rng).await;
    if ok {
        lease.succeeded();
    } else {
        lease.failed();
    }
    ok.then(|| sent.elapsed())
}

/// Serves a request at an endpoint, and returns whether it succeeded.
async fn serve(lease: &Lease, start: Instant, mut rng: Rng) -> bool {
    let usual = Duration::from_micros(rng.u64(5_000..15_000));
    // Above 16 concurrent requests, all take longer.
    let load = (lease.endpoint().in_flight() as u32 / 16).max(1);
    match lease.id().as_str() {
        "3" => sleep(usual * 20).await,
        "6" => {
            sleep(Duration::from_millis(1)).await;
            return false;
        }
        "9" if start.elapsed() < JOINS + COLD => sleep(usual * 8).await,
        _ => sleep(usual * load).await,
    }
    true
}
