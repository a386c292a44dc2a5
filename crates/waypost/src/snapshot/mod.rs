//! Everything known at one moment: a [`Snapshot`] of a service, with an [`Endpoint`] for each of its
//! instances, or the [`Catalog`] of all names; and its [`Freshness`].
//!
//! These are values: building one changes nothing else.

mod catalog;
mod freshness;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use waypost_core::{Error, Instance, InstanceId, ProviderError, ServiceName};

use crate::endpoint::{EndpointGroup, RegistryState};
use crate::outlier::OutlierDetection;
use crate::selector::Selector;

pub use self::catalog::Catalog;
pub use self::freshness::{Failure, Freshness};
pub use crate::endpoint::Endpoint;

/// Everything known about one service at one moment. It is immutable; a change creates another snapshot.
#[derive(Clone, Debug)]
pub struct Snapshot {
    service: ServiceName,
    state: State,
    freshness: Freshness,
    /// Shared by all snapshots of the service.
    group: Arc<EndpointGroup>,
}

#[derive(Clone, Debug)]
enum State {
    /// The provider has not answered yet.
    Pending,
    /// The provider doesn't know the name.
    Unknown,
    Known(Arc<Known>),
}

#[derive(Debug)]
struct Known {
    /// All endpoints, by id.
    all: Arc<[Arc<Endpoint>]>,
    /// The endpoints that take new work, by id; the same list if all do.
    ready: Arc<[Arc<Endpoint>]>,
}

impl Snapshot {
    pub(crate) fn pending(service: ServiceName, provider: Arc<str>) -> Self {
        Self {
            group: Arc::new(EndpointGroup::new(
                service.clone(),
                OutlierDetection::default(),
            )),
            service,
            state: State::Pending,
            freshness: Freshness::never(provider),
        }
    }

    /// This snapshot with other rules for ejections; called before the first answer.
    pub(crate) fn with_outlier_detection(mut self, options: OutlierDetection) -> Self {
        self.group = Arc::new(EndpointGroup::new(self.service.clone(), options));
        self
    }

    /// This snapshot, but unusable once it has been stale for longer than `max_stale`.
    pub(crate) fn expiring(mut self, max_stale: Option<Duration>) -> Self {
        self.freshness.max_stale = max_stale;
        self
    }

    /// A snapshot of the instances that were known at an earlier time.
    pub(crate) fn remembered(&self, instances: Vec<Arc<Instance>>, at: Instant) -> Self {
        let mut known = self.answered(Some(instances));
        known.freshness.confirmed_at = Some(at);
        known
    }

    /// The next snapshot, after an answer of the provider. `None` means that the service is unknown.
    ///
    /// A service that was known before and is unknown now has lost its last instance: some
    /// registries, such as Consul, don't distinguish the two.
    pub(crate) fn answered(&self, answer: Option<Vec<Arc<Instance>>>) -> Self {
        let (state, changed) = match (&self.state, answer) {
            (State::Pending, None) => (State::Unknown, true),
            (State::Unknown, None) => (State::Unknown, false),
            (State::Known(known), None) => self.replaced(known, Vec::new()),
            (State::Known(known), Some(instances)) => self.replaced(known, instances),
            (_, Some(instances)) => {
                let known = Known::new(None, instances, &self.group);
                (State::Known(Arc::new(known)), true)
            }
        };
        Self {
            service: self.service.clone(),
            state,
            freshness: self.freshness.confirmed(changed),
            group: Arc::clone(&self.group),
        }
    }

    fn replaced(&self, known: &Arc<Known>, instances: Vec<Arc<Instance>>) -> (State, bool) {
        let next = Known::new(Some(&known.all), instances, &self.group);
        let mut pairs = next.all.iter().zip(known.all.iter());
        let same = next.all.len() == known.all.len() && pairs.all(|(a, b)| Arc::ptr_eq(a, b));
        if same {
            (State::Known(Arc::clone(known)), false)
        } else {
            (State::Known(Arc::new(next)), true)
        }
    }

    /// The next snapshot, after an attempt failed: the same instances, now stale.
    pub(crate) fn failed(&self, error: ProviderError) -> Self {
        Self {
            freshness: self.freshness.failed(error),
            ..self.clone()
        }
    }

    /// The service.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The provider, the age of the answer, and whether the provider is failing.
    pub fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// Whether the provider knows the service.
    pub fn is_known(&self) -> bool {
        matches!(self.state, State::Known(_))
    }

    /// All instances in order of their ids, regardless of health.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        match &self.state {
            State::Known(known) => &known.all,
            State::Pending | State::Unknown => &[],
        }
    }

    /// The endpoint with this id.
    pub(crate) fn endpoint(&self, id: &InstanceId) -> Option<&Arc<Endpoint>> {
        let all = self.endpoints();
        let index = all.binary_search_by(|endpoint| endpoint.instance().id().cmp(id));
        index.ok().map(|index| &all[index])
    }

    /// All instances in order of their ids, regardless of health.
    pub fn instances(&self) -> impl ExactSizeIterator<Item = &Arc<Instance>> + Clone {
        self.endpoints().iter().map(|endpoint| endpoint.instance())
    }

    /// The endpoints that take new work, in order of their ids: the healthy ones with a weight above 0;
    /// if there are none, the drained or the draining ones. Never a critical one.
    pub fn ready(&self) -> &[Arc<Endpoint>] {
        match &self.state {
            State::Known(known) => &known.ready,
            State::Pending | State::Unknown => &[],
        }
    }

    /// [`ready`](Self::ready) as a shared list.
    pub(crate) fn ready_shared(&self) -> Arc<[Arc<Endpoint>]> {
        match &self.state {
            State::Known(known) => Arc::clone(&known.ready),
            State::Pending | State::Unknown => Arc::new([]),
        }
    }

    pub(crate) fn group(&self) -> &Arc<EndpointGroup> {
        &self.group
    }

    /// Like [`ready`](Self::ready), but never empty.
    ///
    /// # Errors
    /// If there are none, with the reason; [`Error::Stale`] if they are older than
    /// [`DirectoryOptions::max_stale`](crate::directory::DirectoryOptions).
    pub fn usable(&self) -> Result<&[Arc<Endpoint>], Error> {
        match self.ready() {
            [] => Err(self.why_not_usable()),
            _ if self.freshness.is_expired() => {
                Err(self.freshness.expired(Some(self.service.clone())))
            }
            ready => Ok(ready),
        }
    }

    /// Like [`usable`](Self::usable), of the instances that a selector accepts.
    ///
    /// # Errors
    /// [`Error::NoMatch`] if it accepts none of the service's instances, [`Error::NoneHealthy`] if those
    /// that it accepts are critical; otherwise as [`usable`](Self::usable).
    pub fn usable_matching(&self, selector: &Selector) -> Result<Vec<Arc<Endpoint>>, Error> {
        let matching = || self.matching(selector);
        let best = matching().map(|endpoint| endpoint.registry_state()).min();
        match best {
            None | Some(RegistryState::Critical) => Err(self.why_none_matches(selector)),
            Some(_) if self.freshness.is_expired() => {
                Err(self.freshness.expired(Some(self.service.clone())))
            }
            best => Ok(matching()
                .filter(|endpoint| Some(endpoint.registry_state()) == best)
                .cloned()
                .collect()),
        }
    }

    fn matching<'a>(&'a self, selector: &'a Selector) -> impl Iterator<Item = &'a Arc<Endpoint>> {
        let all = self.endpoints().iter();
        all.filter(|endpoint| selector.matches(endpoint.instance()))
    }

    /// Why no instance that the selector accepts can be used.
    #[cold]
    pub(crate) fn why_none_matches(&self, selector: &Selector) -> Error {
        let service = self.service.clone();
        let provider = Arc::clone(&self.freshness.provider);
        let age = self.freshness.age().unwrap_or_default();
        match self.matching(selector).count() {
            _ if self.endpoints().is_empty() => self.why_not_usable(),
            0 => Error::NoMatch {
                service,
                provider,
                age,
                wanted: selector.to_string().into(),
                available: selector.describe_available(self.instances()).into(),
            },
            instances => Error::NoneHealthy {
                service,
                provider,
                age,
                instances,
            },
        }
    }

    #[cold]
    pub(crate) fn why_not_usable(&self) -> Error {
        let service = self.service.clone();
        let provider = Arc::clone(&self.freshness.provider);
        let age = self.freshness.age().unwrap_or_default();
        match (&self.state, &self.freshness.failure) {
            (State::Pending, Some(failure)) => Error::from_provider(Some(service), &failure.error),
            (State::Pending, None) => Error::TimedOut {
                service: Some(service),
                provider,
                waited: Duration::ZERO,
                cause: None,
            },
            (State::Unknown, _) => Error::UnknownService {
                service,
                provider,
                age,
            },
            (State::Known(known), _) if known.all.is_empty() => Error::NoInstances {
                service,
                provider,
                age,
            },
            (State::Known(known), _) => Error::NoneHealthy {
                service,
                provider,
                age,
                instances: known.all.len(),
            },
        }
    }
}

impl Known {
    /// Merges the answer with the endpoints `before`: an unchanged instance keeps its endpoint, a
    /// changed one keeps its state.
    fn new(
        before: Option<&[Arc<Endpoint>]>,
        mut instances: Vec<Arc<Instance>>,
        group: &Arc<EndpointGroup>,
    ) -> Self {
        // A registry that lists an id twice is wrong, but the result must not depend on the order:
        // the healthier instance is kept.
        let order = |a: &Arc<Instance>, b: &Arc<Instance>| {
            let by_id = a.id().cmp(b.id());
            by_id.then_with(|| a.health().cmp(&b.health()))
        };
        // Both lists are sorted by id, so one pass merges them. Most answers change little, and an
        // instance that is the same object needs no comparison, so ten thousand instances of which
        // one has changed are merged in a fraction of a millisecond.
        let mut earlier = before.unwrap_or_default();
        let same = |endpoint: &Arc<Endpoint>, instance: &Arc<Instance>| {
            Arc::ptr_eq(endpoint.instance(), instance)
        };
        let unchanged = earlier.iter().zip(&instances);
        let unchanged = unchanged.take_while(|(e, i)| same(e, i)).count();
        let rest = &mut instances[unchanged.saturating_sub(1)..];
        if !rest.is_sorted_by(|a, b| a.id() < b.id()) {
            instances.sort_by(order);
            instances.dedup_by(|later, first| later.id() == first.id());
        }
        let mut all = Vec::with_capacity(instances.len());
        for instance in instances {
            if earlier.first().is_some_and(|next| same(next, &instance)) {
                all.push(Arc::clone(&earlier[0]));
                earlier = &earlier[1..];
                continue;
            }
            let gone = earlier.iter();
            let gone = gone
                .take_while(|e| e.instance().id() < instance.id())
                .count();
            earlier = &earlier[gone..];
            let known = earlier
                .first()
                .filter(|e| e.instance().id() == instance.id());
            earlier = &earlier[usize::from(known.is_some())..];
            all.push(match known {
                Some(same) if *same.instance() == instance => Arc::clone(same),
                Some(before) => Arc::new(before.updated(instance)),
                None => Arc::new(Endpoint::new(instance, group, before.is_none())),
            });
        }
        let all: Arc<[_]> = all.into();
        let ready = ready(&all);
        Self { all, ready }
    }
}

fn ready(all: &Arc<[Arc<Endpoint>]>) -> Arc<[Arc<Endpoint>]> {
    for state in [
        RegistryState::Ready,
        RegistryState::Drained,
        RegistryState::Draining,
    ] {
        let wanted = all
            .iter()
            .filter(|endpoint| endpoint.registry_state() == state);
        match wanted.clone().count() {
            0 => {}
            count if count == all.len() => return Arc::clone(all),
            _ => return wanted.cloned().collect(),
        }
    }
    Arc::new([])
}

#[cfg(test)]
mod tests {
    use waypost_core::{Health, Weight};

    use super::*;
    use crate::endpoint::CountedBy;

    fn instance(
        id: &str,
        edit: impl FnOnce(waypost_core::InstanceBuilder) -> waypost_core::InstanceBuilder,
    ) -> Arc<Instance> {
        let service = ServiceName::new("auth").unwrap();
        let builder = Instance::builder(service, "10.0.0.1".parse().unwrap(), 80).id(id);
        Arc::new(edit(builder).build().unwrap())
    }

    fn pending() -> Snapshot {
        Snapshot::pending(ServiceName::new("auth").unwrap(), "test".into())
    }

    fn ids(endpoints: &[Arc<Endpoint>]) -> Vec<&str> {
        endpoints
            .iter()
            .map(|e| e.instance().id().as_str())
            .collect()
    }

    #[test]
    fn an_update_keeps_requests_in_flight() {
        let first = pending().answered(Some(vec![instance("a", |i| i), instance("b", |i| i)]));
        first.ready()[0].begin(CountedBy::this_core());
        let heavier = instance("a", |i| i.weight(Weight::new(9)).meta("k", "v"));
        let second = first.answered(Some(vec![instance("b", |i| i), heavier]));

        assert_eq!(second.endpoints()[0].in_flight(), 1);
        assert_eq!(second.endpoints()[0].instance().weight(), Weight::new(9));
        assert!(Arc::ptr_eq(&first.endpoints()[1], &second.endpoints()[1]));
        first.ready()[0].end(CountedBy::this_core());
        assert_eq!(second.endpoints()[0].in_flight(), 0);
    }

    #[test]
    fn an_equal_answer_is_no_change() {
        let first = pending().answered(Some(vec![instance("a", |i| i), instance("b", |i| i)]));
        let again = first.answered(Some(vec![instance("b", |i| i), instance("a", |i| i)]));
        assert_eq!(
            again.freshness().generation(),
            first.freshness().generation()
        );
    }

    #[test]
    fn drained_and_draining_instances_are_the_last_resort() {
        let passing = instance("ok", |i| i.health(Health::Passing));
        let drained = instance("drained", |i| i.weight(Weight::DRAINED));
        let draining = instance("leaving", |i| i.health(Health::Draining));
        let critical = instance("sick", |i| i.health(Health::Critical));
        let of = |instances: &[&Arc<Instance>]| {
            let all = instances.iter().map(|i| Arc::clone(i)).collect();
            let snapshot = pending().answered(Some(all));
            ids(snapshot.ready()).join(" ")
        };
        assert_eq!(of(&[&passing, &drained, &draining, &critical]), "ok");
        assert_eq!(of(&[&drained, &draining, &critical]), "drained");
        assert_eq!(of(&[&draining, &critical]), "leaving");
        assert_eq!(of(&[&critical]), "");
    }

    #[test]
    fn losing_the_last_instance_is_not_the_same_as_an_unknown_name() {
        let unknown = pending().answered(None);
        assert!(matches!(
            unknown.usable(),
            Err(Error::UnknownService { .. })
        ));
        let gone = pending()
            .answered(Some(vec![instance("a", |i| i)]))
            .answered(None);
        assert!(matches!(gone.usable(), Err(Error::NoInstances { .. })));
        let sick = gone.answered(Some(vec![instance("a", |i| i.health(Health::Critical))]));
        assert!(matches!(
            sick.usable(),
            Err(Error::NoneHealthy { instances: 1, .. })
        ));
    }

    #[test]
    fn a_failure_removes_nothing() {
        let known = pending().answered(Some(vec![instance("a", |i| i)]));
        let error = ProviderError::unreachable("test", "down");
        let stale = known.failed(error.clone()).failed(error);
        assert_eq!(ids(stale.ready()), ["a"]);
        assert!(stale.freshness().is_stale());
        assert_eq!(stale.freshness().failure().unwrap().attempts(), 2);
        assert!(!stale.answered(None).freshness().is_stale());
    }

    #[test]
    fn a_duplicate_id_counts_once_regardless_of_order() {
        let sick = instance("a", |i| i.health(Health::Critical));
        let well = instance("a", |i| i.health(Health::Passing));
        for pair in [[&sick, &well], [&well, &sick]] {
            let snapshot = pending().answered(Some(pair.map(Arc::clone).to_vec()));
            assert_eq!(snapshot.endpoints().len(), 1);
            assert_eq!(snapshot.ready().len(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_too_old_is_not_used_with_or_without_a_selector() {
        let max = std::time::Duration::from_secs(10);
        let known = pending().expiring(Some(max));
        let known = known.answered(Some(vec![instance("a", |i| i.tag("x"))]));
        let failed = known.failed(ProviderError::unreachable("test", "the cause"));
        let selector = Selector::new().tag("x");
        tokio::time::advance(max).await;
        assert_eq!(failed.usable().unwrap().len(), 1);
        assert_eq!(failed.usable_matching(&selector).unwrap().len(), 1);
        tokio::time::advance(std::time::Duration::from_millis(1)).await;
        for error in [
            failed.usable().unwrap_err(),
            failed.usable_matching(&selector).unwrap_err(),
        ] {
            assert!(matches!(error, Error::Stale { .. }), "{error}");
        }
        // Without a failure, the watch is live.
        assert_eq!(known.usable_matching(&selector).unwrap().len(), 1);
    }
}
