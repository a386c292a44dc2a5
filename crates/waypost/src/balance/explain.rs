use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use waypost_core::{Health, InstanceId, ServiceName};

use super::BalancerOptions;
use super::table::Table;
use super::weighing::{Fate, weigh};
use crate::conduct::{BalanceCounters, EjectionCause, Status};
use crate::snapshot::Endpoint;

/// Why endpoints of a service are picked or not; see [`Balancer::explain`](crate::Balancer::explain).
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The service.
    pub service: ServiceName,
    /// The strategy's name.
    pub strategy: &'static str,
    /// Who was asked for the instances.
    pub provider: Arc<str>,
    /// Counts the answers that said something new.
    pub generation: u64,
    /// How old the answer may be, in seconds; `None` before the first.
    pub age_seconds: Option<f64>,
    /// What has gone wrong since the answer.
    pub failure: Option<String>,
    /// Why nothing can be picked, if that is so.
    pub error: Option<String>,
    /// Whether ejections are disregarded since too few endpoints are healthy.
    pub panic: bool,
    /// How many endpoints are healthy and not ejected.
    pub healthy: usize,
    /// How many are known, drained and draining ones apart.
    pub known: usize,
    /// Each instance, in order of their ids.
    pub instances: Vec<ExplainedInstance>,
    /// What has happened so far.
    pub counters: BalanceCounters,
}

/// One instance and what became of it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ExplainedInstance {
    /// Its id.
    pub id: InstanceId,
    /// Where it is.
    pub url: String,
    /// Its zone.
    pub zone: Option<String>,
    /// What the registry says of its health.
    pub health: Health,
    /// What became of it.
    pub fate: Fate,
    /// Its ejection, if it is ejected or being probed.
    pub ejection: Option<ExplainedEjection>,
    /// What this process's own checks say of it, if it makes some.
    pub check: Option<ExplainedCheck>,
    /// Its weight after each transform, in their order.
    pub weights: Vec<WeightStep>,
    /// Its share of the picks, from 0 to 1, by weight; strategies that look at load or keys shift
    /// it from pick to pick.
    pub share: f64,
    /// How many leases on it are held.
    pub in_flight: usize,
    /// Its average latency, if measured.
    pub latency_seconds: Option<f64>,
    /// Its successes and failures in the last 10 to 20 s. In each half, no more than 1,000
    /// successes are counted, and as many more for each failure.
    pub succeeded: u32,
    /// See `succeeded`.
    pub failed: u32,
}

/// What checks from this process say.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ExplainedCheck {
    /// Whether the latest one passed.
    pub passing: bool,
    /// How many in a row came out so.
    pub in_a_row: u32,
    /// What was wrong, if something was.
    pub failure: Option<Arc<str>>,
}

/// An ejection.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ExplainedEjection {
    /// What for.
    pub cause: Option<EjectionCause>,
    /// For how many more seconds; 0 if it is being probed, `None` if until its checks pass.
    pub seconds_left: Option<f64>,
    /// The how manieth in close succession.
    pub times: u32,
}

/// The weight after one transform.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct WeightStep {
    /// `registry`, `outlier_detection`, `slow_start`, `zone` or `subset`; those that are off or
    /// have nothing to do are left out.
    pub after: &'static str,
    /// What it is then.
    pub weight: f64,
}

pub(super) fn explain(table: &Table, options: &BalancerOptions) -> Explanation {
    let (snapshot, now) = (&table.snapshot, Instant::now());
    let mut steps: Vec<(&'static str, Vec<f64>)> = Vec::new();
    let weighed = weigh(
        snapshot,
        &*table.strategy,
        options,
        now,
        |after, weights| {
            steps.push((after, weights.to_vec()));
        },
    );
    let total: f64 = weighed.weights.iter().sum();
    let one = |(index, endpoint): (usize, &Arc<Endpoint>)| {
        let weight_after = |(after, weights): &(&'static str, Vec<f64>)| WeightStep {
            after,
            weight: weights[index],
        };
        ExplainedInstance {
            fate: weighed.fates[index],
            share: weighed.weights[index] / total.max(f64::MIN_POSITIVE),
            weights: steps.iter().map(weight_after).collect(),
            ..about(endpoint, now)
        }
    };
    let freshness = snapshot.freshness();
    Explanation {
        service: snapshot.service().clone(),
        strategy: table.strategy.name(),
        provider: freshness.provider().into(),
        generation: freshness.generation(),
        age_seconds: freshness.age().map(|age| age.as_secs_f64()),
        failure: freshness
            .failure()
            .map(|failure| failure.error().to_string()),
        error: snapshot.usable().err().map(|error| error.to_string()),
        panic: weighed.panic,
        healthy: weighed.healthy,
        known: weighed.known,
        instances: snapshot.endpoints().iter().enumerate().map(one).collect(),
        counters: snapshot.fleet().counters(),
    }
}

fn about(endpoint: &Endpoint, now: Instant) -> ExplainedInstance {
    let (instance, state) = (endpoint.instance(), endpoint.state());
    let millis = state.fleet.millis(now);
    let ejection = |left: Option<u64>| ExplainedEjection {
        cause: state.fleet.cause(instance.id()),
        seconds_left: left.map(|left| Duration::from_millis(left).as_secs_f64()),
        times: state.conduct.times(),
    };
    let (succeeded, failed) = state.conduct.recent_counts();
    ExplainedInstance {
        id: instance.id().clone(),
        url: instance.url().to_owned(),
        zone: instance.zone().map(str::to_owned),
        health: instance.health(),
        fate: Fate::Used,
        ejection: match state.conduct.status(millis) {
            Status::Active => None,
            Status::Ejected(until) => Some(ejection(until.map(|until| until - millis))),
            Status::HalfOpen => Some(ejection(Some(0))),
        },
        check: state
            .fleet
            .checks(instance.id())
            .map(|checks| ExplainedCheck {
                passing: checks.failure.is_none(),
                in_a_row: checks.in_a_row,
                failure: checks.failure,
            }),
        weights: Vec::new(),
        share: 0.0,
        in_flight: endpoint.in_flight(),
        latency_seconds: endpoint.latency().map(|latency| latency.as_secs_f64()),
        succeeded,
        failed,
    }
}
