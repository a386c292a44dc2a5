//! A balancer over instances that the test sets, without a registry.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use waypost::balance::{BalancerOptions, Strategy};
use waypost::directory::{Directory, DirectoryOptions};
use waypost::outlier::OutlierDetection;
use waypost::provider::ServiceAnswer;
use waypost::{Balancer, Instance, InstanceBuilder};

use crate::scripted::{ScriptedProvider, auth};

/// All strategies, by name.
pub(super) const STRATEGIES: [&str; 7] = [
    "round_robin",
    "smooth_weighted_round_robin",
    "random",
    "weighted_random",
    "least_connections",
    "p2c_peak_ewma",
    "consistent_hash",
];

pub(super) struct Fixture {
    pub(super) script: ScriptedProvider,
    pub(super) balancer: Balancer,
}

pub(super) fn instance(
    id: &str,
    edit: impl FnOnce(InstanceBuilder) -> InstanceBuilder,
) -> Arc<Instance> {
    let builder = Instance::builder(auth(), "10.0.0.1".parse().unwrap(), 80).id(id);
    Arc::new(edit(builder).build().unwrap())
}

/// Instances `i000`, `i001` …
pub(super) fn many(count: usize) -> Vec<Arc<Instance>> {
    (0..count)
        .map(|index| instance(&format!("i{index:03}"), |i| i))
        .collect()
}

pub(super) fn plain(ids: &[&str]) -> Vec<Arc<Instance>> {
    ids.iter().map(|id| instance(id, |i| i)).collect()
}

pub(super) fn weighted(weights: &[(&str, u16)]) -> Vec<Arc<Instance>> {
    let one =
        |(id, weight): &(&str, u16)| instance(id, |i| i.weight(waypost::Weight::new(*weight)));
    weights.iter().map(one).collect()
}

impl Fixture {
    pub(super) async fn new(instances: Vec<Arc<Instance>>, strategy: impl Strategy) -> Self {
        let (balancing, outliers) = (BalancerOptions::default(), OutlierDetection::default());
        Self::with(instances, strategy, balancing, outliers).await
    }

    pub(super) async fn with(
        instances: Vec<Arc<Instance>>,
        strategy: impl Strategy,
        balancing: BalancerOptions,
        outlier_detection: OutlierDetection,
    ) -> Self {
        let script = ScriptedProvider::default();
        script.set_first_item(Ok(ServiceAnswer::Instances(instances)));
        let mut options = DirectoryOptions::default();
        options.outlier_detection = outlier_detection;
        let directory = Directory::with_options(Arc::new(script.clone()), options);
        let strategy = Box::new(strategy);
        let balancer = Balancer::with_options(&directory, &auth(), strategy, balancing);
        balancer.ready().await.unwrap();
        Self { script, balancer }
    }

    /// Changes the instances, and waits until the balancer has the change.
    pub(super) async fn update(&self, instances: Vec<Arc<Instance>>) {
        self.script.send(Ok(ServiceAnswer::Instances(instances)));
        settle().await;
    }

    pub(super) fn picks(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.pick()).collect()
    }

    pub(super) fn pick(&self) -> String {
        self.balancer.pick().unwrap().id().to_string()
    }

    pub(super) fn counts(&self, count: usize) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for id in self.picks(count) {
            *counts.entry(id).or_default() += 1;
        }
        counts
    }

    /// Sends requests until this many requests to `id` have failed.
    pub(super) fn fail(&self, id: &str, times: usize) {
        let mut left = times;
        for _ in 0..100_000 {
            if left == 0 {
                return;
            }
            let pick = self.balancer.pick().unwrap();
            if pick.id().as_str() == id {
                pick.lease().failed();
                left -= 1;
            }
        }
        panic!("{id} is never picked");
    }

    pub(super) fn selection(&self, id: &str) -> waypost::balance::Selection {
        let explanation = self.balancer.explain();
        let mut instances = explanation.instances.iter();
        instances.find(|i| i.id.as_str() == id).unwrap().selection
    }
}

/// Lets the balancer's task run; with the clock paused that takes no time.
pub(super) async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

/// The chi-square statistic of counts, given the expected shares.
pub(super) fn chi_square(counts: &BTreeMap<String, usize>, shares: &[(&str, f64)]) -> f64 {
    let all: usize = counts.values().sum();
    let total: f64 = shares.iter().map(|(_, share)| share).sum();
    let one = |(id, share): &(&str, f64)| {
        let expected = all as f64 * share / total;
        let seen = counts.get(*id).copied().unwrap_or(0) as f64;
        (seen - expected).powi(2) / expected
    };
    shares.iter().map(one).sum()
}
