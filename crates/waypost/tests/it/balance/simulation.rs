//! Ten endpoints, one slow, one failing and one that starts cold, as Finagle's authors tried their
//! balancers. The clock is paused, so that a minute of traffic takes a moment.
//!
//! `cargo test -p waypost --all-features simulation -- --nocapture` prints the table that is in
//! `docs/load-balancing.md`.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use fastrand::Rng;
use tokio::time::{Instant, sleep};
use waypost::{
    Balancer, BalancerOptions, Lease, LeastConnections, OutlierDetection, P2cPeakEwma, Random,
    RoundRobin, Strategy,
};

use super::fixture::{Fixture, many};

const SECONDS: u64 = 60;
const PER_SECOND: u64 = 300;

#[derive(Clone, Copy, Debug)]
struct Result {
    failed: usize,
    p50: Duration,
    p95: Duration,
    p99: Duration,
}

#[tokio::test(start_paused = true)]
async fn simulation_of_a_bad_day() {
    println!(
        "| strategy | ejection | failed | p50 | p95 | p99 | p95 drawn |\n|---|---|---|---|---|---|---|"
    );
    let (mut without, mut with_ejection) = (Vec::new(), Vec::new());
    for name in [
        "round_robin",
        "random",
        "least_connections",
        "p2c_peak_ewma",
    ] {
        without.push(day(name, false).await);
        with_ejection.push(day(name, true).await);
    }
    let round_robin = without[0];
    // Without ejection a tenth of all requests meets the failing one, and one in ten the slow one.
    assert!(round_robin.failed > 1_500, "{round_robin:?}");
    assert!(
        round_robin.p95 > Duration::from_millis(100),
        "{round_robin:?}"
    );
    for result in &with_ejection {
        assert!(result.failed < 100, "{result:?}");
    }
    // Latency-aware choice avoids the slow one, and the failing one without any ejection.
    let ewma = (without[3], with_ejection[3]);
    assert!(ewma.0.failed < 100, "{ewma:?}");
    assert!(ewma.1.p95 < Duration::from_millis(40), "{ewma:?}");
    assert!(ewma.1.p99 < round_robin.p99, "{ewma:?}");
}

async fn day(strategy: &str, ejection: bool) -> Result {
    let outliers = match ejection {
        true => OutlierDetection::default(),
        false => OutlierDetection::off(),
    };
    let options = BalancerOptions::default();
    let fixture = Fixture::with(many(9), RoundRobin::new(), options, outliers).await;
    let balancer = Arc::new(fixture.balancer);
    balancer.set_strategy(seeded(strategy));
    let (begun, taken) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
    for request in 0..SECONDS * PER_SECOND {
        if request == SECONDS * PER_SECOND / 3 {
            // The tenth joins, and is cold.
            let all = waypost::provider::Answer::Instances(many(10));
            fixture.script.tell(Ok(all));
        }
        let (balancer, taken) = (Arc::clone(&balancer), Arc::clone(&taken));
        tokio::spawn(async move {
            let request = one(&balancer, begun, Rng::with_seed(request)).await;
            taken.lock().unwrap().push(request);
        });
        sleep(Duration::from_secs(1) / PER_SECOND as u32).await;
    }
    sleep(Duration::from_secs(10)).await;
    let taken = std::mem::take(&mut *taken.lock().unwrap());
    let failed = taken.iter().filter(|(ok, _)| !ok).count();
    let mut latencies: Vec<_> = taken
        .iter()
        .filter(|(ok, _)| *ok)
        .map(|(_, l)| *l)
        .collect();
    latencies.sort();
    let at = |share: f64| latencies[(latencies.len() as f64 * share) as usize];
    let result = Result {
        failed,
        p50: at(0.5),
        p95: at(0.95),
        p99: at(0.99),
    };
    let [p50, p95, p99] = [result.p50, result.p95, result.p99].map(|latency| latency.as_millis());
    let bar = "█".repeat((p95 / 8) as usize);
    let ejects = if ejection { "on" } else { "off" };
    println!("| `{strategy}` | {ejects} | {failed} | {p50} ms | {p95} ms | {p99} ms | {bar} |");
    result
}

fn seeded(strategy: &str) -> Box<dyn Strategy> {
    match strategy {
        "round_robin" => Box::new(RoundRobin::starting_at(0)),
        "random" => Box::new(Random::seeded(1)),
        "least_connections" => Box::new(LeastConnections::seeded(1)),
        _ => Box::new(P2cPeakEwma::seeded(1)),
    }
}

async fn one(balancer: &Balancer, begun: Instant, rng: Rng) -> (bool, Duration) {
    let started = Instant::now();
    let lease = balancer.pick().unwrap().lease();
    let ok = serve(&lease, begun, rng).await;
    match ok {
        true => lease.succeeded(),
        false => lease.failed(),
    }
    (ok, started.elapsed())
}

/// What an endpoint does with a request.
async fn serve(lease: &Lease, begun: Instant, mut rng: Rng) -> bool {
    let usual = Duration::from_micros(rng.u64(5_000..15_000));
    // More than it can do at once takes longer for all.
    let crowded = (lease.endpoint().in_flight() as u32 / 16).max(1);
    match lease.id().as_str() {
        "i003" => sleep(usual * 20).await,
        "i006" => {
            sleep(Duration::from_millis(1)).await;
            return false;
        }
        "i009" if begun.elapsed() < Duration::from_secs(SECONDS / 3 + 10) => {
            sleep(usual * 8).await;
        }
        _ => sleep(usual * crowded).await,
    }
    true
}
