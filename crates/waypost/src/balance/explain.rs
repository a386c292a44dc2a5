//! Explains which instances are picked, for diagnosis.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use waypost_core::{Health, InstanceId, ServiceName};

use super::BalancerOptions;
use super::picker::PreparedPicker;
use super::weighing::{Selection, weigh};
use crate::endpoint::Endpoint;
use crate::outlier::{BalanceCounters, EjectionCause, EjectionStatus};

/// Which endpoints of a service are picked and which are not, and why; see
/// [`Balancer::explain`](crate::Balancer::explain).
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The service.
    pub service: ServiceName,
    /// The strategy's name.
    pub strategy: &'static str,
    /// The provider of the instances.
    pub provider: Arc<str>,
    /// Incremented by each answer that changed something.
    pub generation: u64,
    /// The age of the answer in seconds; `None` before the first.
    pub age_seconds: Option<f64>,
    /// The provider's failure since that answer, if there is one.
    pub failure: Option<String>,
    /// Why nothing can be picked, if nothing can.
    pub error: Option<String>,
    /// Whether ejections are ignored because too few endpoints are healthy.
    pub panic: bool,
    /// How many endpoints are healthy and not ejected.
    pub healthy: usize,
    /// How many endpoints there are, except drained and draining ones.
    pub known: usize,
    /// Each instance, in order of their ids.
    pub instances: Vec<ExplainedInstance>,
    /// The number of decisions of each kind.
    pub counters: BalanceCounters,
}

/// One instance, and whether it is picked.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ExplainedInstance {
    /// Its id.
    pub id: InstanceId,
    /// Its URL.
    pub url: String,
    /// Its zone.
    pub zone: Option<String>,
    /// Its health in the registry.
    pub health: Health,
    /// Whether it is picked, and if not, why.
    pub selection: Selection,
    /// Its ejection, if it is ejected or gets trial requests.
    pub ejection: Option<ExplainedEjection>,
    /// The result of active checks from this process, if there are any.
    pub check: Option<ExplainedCheck>,
    /// Its weight after each step, in order.
    pub weights: Vec<WeightStep>,
    /// Its share of the picks by weight, from 0 to 1; strategies that use load or keys deviate from
    /// it.
    pub share: f64,
    /// The number of requests in flight.
    pub in_flight: usize,
    /// Its average latency in seconds, if measured.
    pub latency_seconds: Option<f64>,
    /// Successful requests in the last 10 to 20 s. In each 10 s, at most 1,000 are counted, plus
    /// 1,000 for each failure.
    pub succeeded: u32,
    /// Failed requests in the same time.
    pub failed: u32,
}

/// The result of active checks of one endpoint.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ExplainedCheck {
    /// Whether the latest check passed.
    pub passing: bool,
    /// How many checks in a row had this result.
    pub in_a_row: u32,
    /// Why the latest check failed.
    pub failure: Option<Arc<str>>,
}

/// The ejection of one endpoint.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ExplainedEjection {
    /// Why it was ejected.
    pub cause: Option<EjectionCause>,
    /// The seconds until it expires: 0 if it has, `None` if it lasts until checks pass.
    pub seconds_left: Option<f64>,
    /// Number of consecutive ejections.
    pub times: u32,
}

/// The weight after one step.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct WeightStep {
    /// `registry`, `outlier_detection`, `slow_start`, `zone` or `subset`; steps that are off or
    /// change nothing are left out.
    pub after: &'static str,
    /// The weight.
    pub weight: f64,
}

pub(super) fn explain(picker: &PreparedPicker, options: &BalancerOptions) -> Explanation {
    let (snapshot, now) = (picker.snapshot(), Instant::now());
    let mut steps: Vec<(&'static str, Vec<f64>)> = Vec::new();
    let weighed = weigh(
        snapshot,
        &*picker.strategy,
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
            selection: weighed.selections[index],
            share: weighed.weights[index] / total.max(f64::MIN_POSITIVE),
            weights: steps.iter().map(weight_after).collect(),
            ..about(endpoint, now)
        }
    };
    let freshness = snapshot.freshness();
    Explanation {
        service: snapshot.service().clone(),
        strategy: picker.strategy.name(),
        provider: freshness.provider().into(),
        generation: freshness.generation(),
        age_seconds: freshness.age().map(|age| age.as_secs_f64()),
        failure: freshness
            .failure()
            .map(|failure| failure.error().to_string()),
        error: match &options.selector {
            Some(selector) => snapshot.usable_matching(selector).err(),
            None => snapshot.usable().err(),
        }
        .map(|error| error.to_string()),
        panic: weighed.panic,
        healthy: weighed.healthy,
        known: weighed.known,
        instances: snapshot.endpoints().iter().enumerate().map(one).collect(),
        counters: BalanceCounters {
            ejected_now: snapshot.group().detector.ejected_count() as u64,
            ..snapshot.group().detector.events().counters()
        },
    }
}

fn about(endpoint: &Endpoint, now: Instant) -> ExplainedInstance {
    let (instance, state) = (endpoint.instance(), endpoint.state());
    let (view, detector) = (endpoint.view(now), &state.group.detector);
    let ejection = |left: Option<u64>| ExplainedEjection {
        cause: detector.cause(view.id),
        seconds_left: left.map(|left| Duration::from_millis(left).as_secs_f64()),
        times: state.ejection.consecutive(),
    };
    let (succeeded, failed) = state.outcomes.recent_counts();
    ExplainedInstance {
        id: instance.id().clone(),
        url: instance.url().to_owned(),
        zone: instance.zone().map(str::to_owned),
        health: instance.health(),
        selection: Selection::Used,
        ejection: match view.status() {
            EjectionStatus::Active => None,
            EjectionStatus::Ejected(until) => Some(ejection(until.map(|until| until - view.now))),
            EjectionStatus::HalfOpen => Some(ejection(Some(0))),
        },
        check: detector.check_results(view).map(|results| ExplainedCheck {
            passing: results.failure.is_none(),
            in_a_row: results.consecutive,
            failure: results.failure,
        }),
        weights: Vec::new(),
        share: 0.0,
        in_flight: endpoint.in_flight(),
        latency_seconds: endpoint.latency().map(|latency| latency.as_secs_f64()),
        succeeded,
        failed,
    }
}
