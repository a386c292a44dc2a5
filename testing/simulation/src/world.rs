//! Services, clients and a schedule of faults.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::AbortHandle;
use tokio::time::{Instant, advance, sleep, timeout};
use waypost::balance::{BalancerOptions, strategy_named};
use waypost::directory::Directory;
use waypost::{Balancer, Error, Registrar, ServiceName, ServiceRegistration};

use super::registry::{Faults, FaultyRegistry, TTL};

const SERVICES: usize = 5;
const REPLICAS: usize = 3;
/// The strategies of the clients. One client in 50 uses `consistent_hash` instead, whose table takes far longer
/// to build.
const STRATEGIES: [&str; 4] = [
    "round_robin",
    "weighted_random",
    "least_connections",
    "p2c_peak_ewma",
];
/// The timeout of a call.
const TIME_LIMIT: Duration = Duration::from_millis(500);
/// The number of calls that a client makes to each service at the same time.
const CONCURRENT_CALLS: usize = 3;
/// Without faults, a client sees a change in the registry within this time, which is a little longer than
/// the interval of heartbeats.
const SETTLED: Duration = Duration::from_secs(8);

/// How a process responds to calls.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Behaviour {
    Responds,
    RespondsSlowly,
    Hangs,
    Dead,
}

impl Behaviour {
    fn responds(self) -> bool {
        matches!(self, Self::Responds | Self::RespondsSlowly)
    }
}

struct Process {
    service: usize,
    port: u16,
    behaviour: Behaviour,
    since: Instant,
    registrar: Option<Registrar>,
}

impl Process {
    fn id(&self) -> String {
        format!("service-{}-{}", self.service, self.port)
    }
}

struct Client {
    balancers: Vec<Balancer>,
    /// For each service, the generation and the ids of the latest snapshot.
    seen: Vec<(u64, BTreeSet<String>)>,
    /// The failures of each process.
    failures: BTreeMap<u16, Failures>,
}

/// Failed calls to a process that doesn't respond.
#[derive(Clone, Copy)]
struct Failures {
    /// When it stopped responding.
    since: Instant,
    count: u64,
    /// The service's `ejections_overflow` before the first of these failures.
    overflow: u64,
    /// Whether another process of the service was ejected at any of these failures. At most one of three
    /// may be ejected, and the counter doesn't count every ejection that this limit prevents.
    another_is_ejected: bool,
}

/// What a client's balancer has ejected.
struct EjectionState {
    /// The counter `ejections_overflow`: ejections that the limit has prevented.
    overflow: u64,
    ejected: Vec<String>,
}

impl EjectionState {
    fn of(balancer: &Balancer) -> Self {
        let explanation = balancer.explain();
        let ejected = explanation.instances.iter();
        let ejected = ejected.filter(|it| it.ejection.is_some());
        Self {
            overflow: balancer.counters().ejections_overflow,
            ejected: ejected.map(|it| it.id.to_string()).collect(),
        }
    }
}

/// Calls an instance, and returns its process if it doesn't respond in time.
async fn call<'a>(balancer: &Balancer, processes: &'a [Process]) -> Result<(), &'a Process> {
    let Ok(pick) = balancer.pick() else {
        return Ok(());
    };
    let lease = pick.lease();
    drop(pick);
    let process = &processes[usize::from(lease.port() - 1_000)];
    let call = async {
        match process.behaviour {
            Behaviour::Responds => {
                sleep(Duration::from_millis(3)).await;
                lease.succeeded();
            }
            Behaviour::RespondsSlowly => {
                sleep(Duration::from_millis(300)).await;
                lease.succeeded();
            }
            Behaviour::Dead => {
                sleep(Duration::from_millis(1)).await;
                lease.failed();
            }
            Behaviour::Hangs => std::future::pending().await,
        }
    };
    match timeout(TIME_LIMIT, call).await {
        Ok(()) if process.behaviour.responds() => Ok(()),
        _ => Err(process),
    }
}

pub(super) struct World {
    random: fastrand::Rng,
    registry: FaultyRegistry,
    faults: Faults,
    /// When the last fault of the registry ended.
    calm_since: Option<Instant>,
    processes: Vec<Process>,
    clients: Vec<Client>,
    checks: AbortHandle,
}

impl World {
    pub(super) async fn start(seed: u64) -> Self {
        fastrand::seed(seed);
        let mut random = fastrand::Rng::with_seed(seed);
        let registry = FaultyRegistry::new();
        let checks = tokio::spawn(registry.clone().run_checks()).abort_handle();
        let numbered = (0..SERVICES).flat_map(|service| (0..REPLICAS).map(move |_| service));
        let processes = numbered.enumerate().map(|(index, service)| Process {
            service,
            port: 1_000 + index as u16,
            behaviour: Behaviour::Responds,
            since: Instant::now(),
            registrar: None,
        });
        let mut world = Self {
            processes: processes.collect(),
            clients: Vec::new(),
            faults: Faults::default(),
            calm_since: Some(Instant::now()),
            registry,
            checks,
            random: random.fork(),
        };
        for index in 0..world.processes.len() {
            world.register(index);
        }
        for _ in 0..2 {
            let directory = Directory::new(Arc::new(world.registry.clone()));
            let strategy = match random.u8(..50) {
                0 => "consistent_hash",
                _ => STRATEGIES[random.usize(..STRATEGIES.len())],
            };
            let balancer = |service: usize| {
                let name = ServiceName::new(&format!("service-{service}")).unwrap();
                let strategy = strategy_named(strategy).unwrap();
                Balancer::with_options(&directory, &name, strategy, BalancerOptions::default())
            };
            world.clients.push(Client {
                balancers: (0..SERVICES).map(balancer).collect(),
                seen: vec![(0, BTreeSet::new()); SERVICES],
                failures: BTreeMap::new(),
            });
        }
        sleep(SETTLED).await;
        world
    }

    /// Runs about two minutes of faults, ends all faults, and checks that everything recovers.
    pub(super) async fn run(mut self) {
        for _ in 0..self.random.usize(4..12) {
            self.disturb().await;
            let steps = self.random.usize(1..20);
            for _ in 0..steps {
                sleep(Duration::from_millis(self.random.u64(50..1_500))).await;
                self.call_everything().await;
                self.check();
            }
        }
        self.recover().await;
        self.checks.abort();
    }

    fn register(&mut self, index: usize) {
        let process = &mut self.processes[index];
        let name = format!("service-{}", process.service);
        let registration = ServiceRegistration::new(name, process.port)
            .unwrap()
            .host("10.0.0.1".parse().unwrap())
            .id(process.id());
        let registrar = Registrar::start(Arc::new(self.registry.clone()), registration);
        process.registrar = Some(registrar.unwrap());
    }

    /// Starts or ends a random fault.
    async fn disturb(&mut self) {
        let index = self.random.usize(..self.processes.len());
        match self.random.u8(..13) {
            0 => self.change(index, Behaviour::Dead),
            1 => self.change(index, Behaviour::Hangs),
            2 | 3 => self.change(index, Behaviour::Responds),
            4 => {
                self.registry.wipe();
                self.calm_since = Some(Instant::now());
            }
            10 => self.change(index, Behaviour::RespondsSlowly),
            11 => {
                // The machine was suspended: the clock steps, and everything that is due is due at once.
                advance(Duration::from_millis(self.random.u64(1_000..60_000))).await;
                self.calm_since = Some(Instant::now());
            }
            kind => {
                let faults = &mut self.faults;
                match kind {
                    5 => faults.down ^= true,
                    6 => faults.readers_cut ^= true,
                    7 => faults.writers_cut ^= true,
                    8 => faults.answers_lost ^= true,
                    9 => faults.duplicated ^= true,
                    _ => faults.slow ^= true,
                }
                self.registry.set_faults(self.faults);
            }
        }
        if self.faults != Faults::default() {
            self.calm_since = None;
        } else if self.calm_since.is_none() {
            self.calm_since = Some(Instant::now());
        }
    }

    /// Changes how a process behaves, unless that would leave its service with fewer than two others
    /// that respond: then not even a perfect client could avoid failures.
    fn change(&mut self, index: usize, behaviour: Behaviour) {
        let (service, current) = (
            self.processes[index].service,
            self.processes[index].behaviour,
        );
        let others = self.processes.iter().enumerate();
        let mut others = others.filter(|(i, other)| *i != index && other.service == service);
        let others_respond = others.all(|(_, other)| other.behaviour.responds());
        if behaviour == current || !(behaviour.responds() || others_respond) {
            return;
        }
        let process = &mut self.processes[index];
        (process.behaviour, process.since) = (behaviour, Instant::now());
        match (behaviour, process.registrar.take()) {
            (Behaviour::Dead, Some(registrar)) => registrar.abandon(),
            (behaviour, None) if behaviour != Behaviour::Dead => self.register(index),
            (_, registrar) => process.registrar = registrar,
        }
    }

    /// Each client calls each service a few times, all at the same time.
    async fn call_everything(&mut self) {
        let processes = &self.processes;
        for client in &mut self.clients {
            let ejections = client.balancers.iter().enumerate();
            let ejections = ejections.map(|(service, balancer)| {
                let mut of_service = processes.iter().filter(|it| it.service == service);
                let may_fail = of_service.any(|process| !process.behaviour.responds());
                may_fail.then(|| EjectionState::of(balancer))
            });
            let before: Vec<_> = ejections.collect();
            let services = client.balancers.iter().enumerate();
            let calls = services.flat_map(|(service, balancer)| {
                (0..CONCURRENT_CALLS).map(move |_| async move {
                    let process = call(balancer, processes).await.err()?;
                    Some((service, process))
                })
            });
            for (service, process) in join_all(calls).await.into_iter().flatten() {
                let Some(before) = &before[service] else {
                    panic!("{} responds, but a call to it failed", process.id());
                };
                let fresh = Failures {
                    since: process.since,
                    count: 0,
                    overflow: before.overflow,
                    another_is_ejected: false,
                };
                let failures = client.failures.entry(process.port);
                let failures = failures.or_insert(fresh);
                if failures.since != process.since {
                    *failures = fresh;
                }
                failures.count += 1;
                let after = EjectionState::of(&client.balancers[service]);
                let mut ejected = before.ejected.iter().chain(&after.ejected);
                failures.another_is_ejected |= ejected.any(|id| *id != process.id());
            }
        }
    }

    fn check(&mut self) {
        let calm_since = self.calm_since;
        for client in &mut self.clients {
            for (service, balancer) in client.balancers.iter().enumerate() {
                let snapshot = balancer.snapshot();
                let ids: BTreeSet<String> = snapshot
                    .instances()
                    .map(|instance| instance.id().to_string())
                    .collect();
                let freshness = snapshot.freshness();
                let seen = (freshness.generation(), ids);
                if freshness.is_stale() {
                    assert!(freshness.age().is_some());
                    // Errors neither remove nor add instances, and they never make a service unusable.
                    let earlier = &client.seen[service];
                    assert!(
                        seen.0 != earlier.0 || seen == *earlier,
                        "{seen:?} {earlier:?}"
                    );
                    let usable = snapshot.usable();
                    let is_fine =
                        usable.is_ok() || matches!(usable, Err(Error::NoneHealthy { .. }));
                    assert!(is_fine || seen.1.is_empty(), "{usable:?}");
                }
                client.seen[service] = seen;
            }
            // An instance is ejected after five failures, while other calls to it may be in flight. Then each
            // ejection, of at least 27 s, is followed by one trial call.
            for (port, failures) in &client.failures {
                let process = &self.processes[usize::from(port - 1_000)];
                let trials = failures.since.elapsed().as_secs() / 27 + 1;
                let overflow = client.balancers[process.service]
                    .counters()
                    .ejections_overflow;
                let is_comparable = calm_since.is_some_and(|calm| calm < failures.since)
                    && process.since == failures.since
                    && !process.behaviour.responds()
                    && overflow == failures.overflow
                    && !failures.another_is_ejected;
                assert!(
                    !is_comparable || failures.count <= 5 + CONCURRENT_CALLS as u64 - 1 + trials,
                    "{} is {:?} for {:?} and was called {} times",
                    process.id(),
                    process.behaviour,
                    failures.since.elapsed(),
                    failures.count
                );
            }
        }
        let calm = self.calm_since.map(|since| since.elapsed());
        if calm.is_some_and(|calm| calm > SETTLED) {
            self.check_settled();
        }
    }

    /// Checks that clients know all instances if the registry had no fault for a while.
    fn check_settled(&self) {
        for client in &self.clients {
            for (service, balancer) in client.balancers.iter().enumerate() {
                let snapshot = balancer.snapshot();
                assert!(
                    !snapshot.freshness().is_stale(),
                    "{:?}",
                    snapshot.freshness()
                );
                let of_service = self.processes.iter().filter(|p| p.service == service);
                for process in of_service {
                    let listed = snapshot.ready().iter();
                    let mut ids = listed.map(|endpoint| endpoint.instance().id().to_string());
                    let is_ready = ids.any(|id| id == process.id());
                    let for_long = process.since.elapsed();
                    if process.behaviour != Behaviour::Dead && for_long > SETTLED {
                        assert!(
                            is_ready,
                            "{} is registered and not found: {:?}",
                            process.id(),
                            process.registrar.as_ref().map(Registrar::state)
                        );
                    }
                    if process.behaviour == Behaviour::Dead && for_long > TTL + SETTLED {
                        assert!(!is_ready, "{} is dead and still found", process.id());
                    }
                }
            }
        }
    }

    /// Ends all faults, and checks that all instances are found and no request is in flight.
    async fn recover(&mut self) {
        self.faults = Faults::default();
        self.registry.set_faults(self.faults);
        for index in 0..self.processes.len() {
            self.change(index, Behaviour::Responds);
        }
        sleep(TTL + SETTLED + SETTLED).await;
        self.calm_since = Some(Instant::now() - SETTLED * 2);
        self.check_settled();
        for client in &self.clients {
            for balancer in &client.balancers {
                let snapshot = balancer.snapshot();
                assert_eq!(snapshot.ready().len(), REPLICAS);
                for endpoint in snapshot.endpoints() {
                    assert_eq!(endpoint.in_flight(), 0);
                }
                assert!(balancer.pick().is_ok());
            }
        }
    }
}
