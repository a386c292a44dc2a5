//! The setups of Waypost that are measured.

use std::fs;
use std::hint::black_box;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;
use waypost::balance::{BalancerOptions, Key};
use waypost::provider::MemoryProvider;
use waypost::{Balancer, Instance, Outcome, ServiceDiscoveryClient, ServiceName, Weight};

use crate::measure::Stopwatch;

/// A balancer, its client and runtime, and the provider with its instances.
pub(crate) struct Setup {
    pub client: ServiceDiscoveryClient,
    pub balancer: Balancer,
    memory: MemoryProvider,
    runtime: Runtime,
}

pub(crate) fn service() -> ServiceName {
    ServiceName::new("auth").expect("a valid name")
}

fn instance(service: &ServiceName, index: usize, weight: u16) -> Instance {
    let address = format!("10.{}.{}.{}", index >> 16, index >> 8 & 255, index & 255);
    Instance::builder(service.clone(), address.parse().expect("an address"), 8080)
        .weight(Weight::new(weight))
        .build()
        .expect("a valid instance")
}

/// Weights from 1 to 10, so that weighted strategies have work; outlier detection is on.
fn weight(index: usize) -> u16 {
    1 + (index * 7 % 10) as u16
}

pub(crate) fn setup(strategy: &str, instances: usize) -> Setup {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let memory = MemoryProvider::new();
    let all = (0..instances).map(|index| instance(&service(), index, weight(index)));
    memory.replace(&service(), all);
    let (client, balancer) = runtime.block_on(async {
        let client = ServiceDiscoveryClient::builder()
            .provider(memory.clone())
            .strategy_named(strategy)
            .balancing(BalancerOptions::default())
            .build()
            .expect("a client");
        let balancer = client.balancer("auth").expect("a balancer");
        balancer.ready().await.expect("an answer");
        client.pick("auth").await.expect("an instance");
        (client, balancer)
    });
    Setup {
        client,
        balancer,
        memory,
        runtime,
    }
}

impl Setup {
    /// A pick that reads the balancer's state of the endpoint.
    pub(crate) fn pick(&self) {
        let pick = self.balancer.pick().expect("an endpoint");
        black_box(pick.endpoint().weight());
    }

    /// A pick that also reads the instance, as registered.
    pub(crate) fn pick_and_read(&self) {
        black_box(self.balancer.pick().expect("an endpoint").port());
    }

    pub(crate) fn pick_for(&self, key: u64) {
        let pick = self.balancer.pick_for(Key::new(key.to_le_bytes()));
        black_box(pick.expect("an endpoint").endpoint().weight());
    }

    /// A lease and its outcome; the lease samples the clock itself.
    pub(crate) fn outcome(&self) {
        let lease = self.balancer.pick().expect("an endpoint").lease();
        lease.succeeded();
    }

    /// The same for a caller that has already read the clock.
    pub(crate) fn outcome_at(&self, clock: &mut CallersClock) {
        let started = clock.next();
        let lease = self.balancer.pick().expect("an endpoint").lease_at(started);
        lease.record_at(Outcome::Succeeded, started + CallersClock::LATENCY);
    }

    pub(crate) fn url(&self) {
        let url = self.client.service_url("auth", "/users").now_or_never();
        black_box(url.expect("no waiting").expect("an instance"));
    }

    /// CPU time from a change in the provider until picks see it, averaged over many changes. One
    /// thread does all the work, so its CPU time is the whole cost.
    pub(crate) fn change(&self) -> Duration {
        const CHANGES: u16 = 100;
        let generation = || self.balancer.explain_generation();
        let changed: Vec<_> = (0..CHANGES)
            .map(|round| instance(&service(), 5, 100 + round))
            .collect();
        self.runtime.block_on(async {
            let start = Stopwatch::start();
            for changed in changed {
                let before = generation();
                self.memory.insert(changed);
                while generation() == before {
                    tokio::task::yield_now().await;
                }
            }
            start.elapsed() / u32::from(CHANGES)
        })
    }
}

/// A simulated caller's clock: 100,000 requests per second, each with a latency of 1 ms.
pub(crate) struct CallersClock(Instant);

impl CallersClock {
    const LATENCY: Duration = Duration::from_millis(1);

    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    fn next(&mut self) -> Instant {
        self.0 += Duration::from_micros(10);
        self.0
    }
}

trait Generation {
    fn explain_generation(&self) -> u64;
}

impl Generation for Balancer {
    /// The generation of the snapshot that picks use.
    fn explain_generation(&self) -> u64 {
        let pick = self.pick().expect("an endpoint");
        pick.snapshot().freshness().generation()
    }
}

/// Resident memory of 100,000 instances in 1,000 services, with a balancer for each service.
pub(crate) fn resident_bytes_of_many_services() -> u64 {
    let before = resident_bytes();
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let memory = MemoryProvider::new();
    let services: Vec<ServiceName> = (0..1_000)
        .map(|number| ServiceName::new(&format!("service-{number}")).expect("a valid name"))
        .collect();
    for service in &services {
        let all = (0..100).map(|index| instance(service, index, weight(index)));
        memory.replace(service, all);
    }
    runtime.block_on(async {
        let client = ServiceDiscoveryClient::builder().provider(memory);
        let client = client.build().expect("a client");
        for service in &services {
            client.pick(service).await.expect("an instance");
        }
        resident_bytes() - before
    })
}

fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// Makes many calls, for counting instructions from outside. Uses a lease if the strategy needs one.
pub(crate) fn call_often(strategy: &str, instances: usize, calls: usize) {
    let setup = setup(strategy, instances);
    match strategy {
        "least_connections" => (0..calls).for_each(|_| setup.outcome()),
        "p2c_peak_ewma" => {
            let mut clock = CallersClock::start();
            (0..calls).for_each(|_| setup.outcome_at(&mut clock));
        }
        "consistent_hash" => (0..calls as u64).for_each(|key| setup.pick_for(key)),
        _ => (0..calls).for_each(|_| setup.pick()),
    }
}
