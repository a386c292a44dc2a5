//! Simulates ten endpoints, of which one hangs and one is slow, under callers that give up after half a
//! second. Compares the strategies with tower's P2C over peak EWMA in one run, and prints the table in
//! `docs/load-balancing.md`.
//!
//! `cargo run --release --manifest-path bench/Cargo.toml --bin hanging_endpoint`
//!
//! The clock is simulated and the seeds are fixed, so the result is the same each time.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use fastrand::Rng;
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep, timeout};
use tower::balance::p2c::Balance;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, PeakEwma};
use tower::{Service, ServiceExt};
use waypost::balance::{LeastConnections, P2cPeakEwma, Random, RoundRobin, Strategy};
use waypost::provider::MemoryProvider;
use waypost::{Balancer, Instance, ServiceDiscoveryClient, ServiceName};

const ENDPOINTS: u8 = 10;
const HANGING: u8 = 6;
const SLOW: u8 = 3;

const SECONDS: u64 = 60;
const PER_SECOND: u64 = 200;
/// The time that a caller waits for a response.
const TIME_LIMIT: Duration = Duration::from_millis(500);
/// The warm-up: requests that begin earlier aren't counted.
const WARM_UP: Duration = Duration::from_secs(SECONDS / 3);

/// The faults of the endpoints.
#[derive(Clone, Copy)]
enum Fault {
    OneHangs,
    OneHangsOneIsSlow,
}

fn main() -> std::io::Result<()> {
    println!(
        "| | one hangs: failed | p99 | one hangs, one is slow: failed | p99 |\n|---|---|---|---|---|"
    );
    for strategy in [
        "`round_robin`",
        "`random`",
        "`least_connections`",
        "`p2c_peak_ewma`",
        "tower's P2C over peak EWMA",
    ] {
        print!("| {strategy} |");
        for fault in [Fault::OneHangs, Fault::OneHangsOneIsSlow] {
            let mut runtime = Builder::new_current_thread();
            let runtime = runtime.enable_time().start_paused(true).build()?;
            let latencies = runtime.block_on(run(strategy, fault));
            print!(" {} |", summary(&latencies));
        }
        println!();
    }
    Ok(())
}

/// The share of requests that failed, and the 99th percentile of the others.
fn summary(latencies: &[Option<Duration>]) -> String {
    let mut succeeded: Vec<Duration> = latencies.iter().copied().flatten().collect();
    succeeded.sort();
    let failed = (latencies.len() - succeeded.len()) as f64 / latencies.len() as f64;
    let p99 = succeeded[succeeded.len() * 99 / 100];
    format!("{:.2} % | {} ms", failed * 100.0, p99.as_millis())
}

/// Sends requests at a constant rate. Returns the latency of each, or `None` if it failed.
async fn run(strategy: &str, fault: Fault) -> Vec<Option<Duration>> {
    // The duration of ejections has jitter.
    fastrand::seed(7);
    let endpoints = (0..ENDPOINTS).map(|number| Endpoint { number, fault });
    let mut callers = match ours(strategy) {
        Some(strategy) => Callers::Ours(balancer(strategy).await, endpoints.collect()),
        None => Callers::Tower(tower(endpoints)),
    };
    let latencies = Arc::new(Mutex::new(Vec::new()));
    for request in 0..SECONDS * PER_SECOND {
        let (call, latencies) = (callers.call(request).await, Arc::clone(&latencies));
        let is_counted = request >= WARM_UP.as_secs() * PER_SECOND;
        tokio::spawn(async move {
            let sent = Instant::now();
            let is_answered = timeout(TIME_LIMIT, call).await.is_ok();
            if is_counted {
                let latency = is_answered.then(|| sent.elapsed());
                latencies.lock().expect("no panic").push(latency);
            }
        });
        sleep(Duration::from_secs(1) / PER_SECOND as u32).await;
    }
    sleep(TIME_LIMIT).await;
    std::mem::take(&mut *latencies.lock().expect("no panic"))
}

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

enum Callers {
    Ours(Arc<Balancer>, Vec<Endpoint>),
    Tower(Balance<ServiceList<Vec<PeakEwma<Endpoint>>>, u64>),
}

impl Callers {
    /// Chooses an endpoint for a request. The caller drops the future to give up.
    async fn call(&mut self, request: u64) -> Call {
        match self {
            Self::Ours(balancer, endpoints) => {
                let lease = balancer.pick().expect("there are endpoints").lease();
                let number: usize = lease.id().as_str().parse().expect("a number");
                let response = endpoints[number].serve(request);
                Box::pin(async move {
                    response.await;
                    lease.succeeded();
                })
            }
            Self::Tower(balance) => {
                let balance = balance.ready().await.expect("there are endpoints");
                let response = balance.call(request);
                Box::pin(async move {
                    let _ = response.await;
                })
            }
        }
    }
}

fn ours(strategy: &str) -> Option<Box<dyn Strategy>> {
    Some(match strategy {
        "`round_robin`" => Box::new(RoundRobin::starting_at(0)),
        "`random`" => Box::new(Random::seeded(1)),
        "`least_connections`" => Box::new(LeastConnections::seeded(1)),
        "`p2c_peak_ewma`" => Box::new(P2cPeakEwma::seeded(1)),
        _ => return None,
    })
}

async fn balancer(strategy: Box<dyn Strategy>) -> Arc<Balancer> {
    let memory = MemoryProvider::new();
    let service = ServiceName::new("shop").expect("a name");
    for number in 0..ENDPOINTS {
        let host = format!("10.0.0.{number}").parse().expect("an address");
        let instance = Instance::builder(service.clone(), host, 80).id(number.to_string());
        memory.insert(instance.build().expect("an instance"));
    }
    let client = ServiceDiscoveryClient::builder().provider(memory);
    let client = client.build().expect("the settings are valid");
    let balancer = Arc::new(client.balancer("shop").expect("the name is valid"));
    balancer.set_strategy(strategy);
    balancer.ready().await.expect("there are instances");
    balancer
}

fn tower(
    endpoints: impl Iterator<Item = Endpoint>,
) -> Balance<ServiceList<Vec<PeakEwma<Endpoint>>>, u64> {
    // The values proposed in tower's documentation.
    let (initial, decay) = (Duration::from_millis(50), 10e9);
    let measured = endpoints
        .map(|endpoint| PeakEwma::new(endpoint, initial, decay, CompleteOnResponse::default()));
    let list = ServiceList::new(measured.collect::<Vec<_>>());
    Balance::from_rng(list, Seeded(Rng::with_seed(1)))
}

struct Seeded(Rng);

impl tower::util::rng::Rng for Seeded {
    fn next_u64(&mut self) -> u64 {
        self.0.u64(..)
    }
}

#[derive(Clone, Copy)]
struct Endpoint {
    number: u8,
    fault: Fault,
}

impl Endpoint {
    fn serve(self, request: u64) -> impl Future<Output = ()> + Send {
        let usual = Duration::from_micros(Rng::with_seed(request).u64(5_000..15_000));
        async move {
            match (self.number, self.fault) {
                (HANGING, _) => pending().await,
                (SLOW, Fault::OneHangsOneIsSlow) => sleep(usual * 20).await,
                _ => sleep(usual).await,
            }
        }
    }
}

impl Service<u64> for Endpoint {
    type Response = ();
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<(), Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        let response = self.serve(request);
        Box::pin(async move {
            response.await;
            Ok(())
        })
    }
}
