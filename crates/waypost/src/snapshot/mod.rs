//! What is known at one moment: a [`Snapshot`] of a service, with an [`Endpoint`] for each of its
//! instances, or the [`Catalog`] of all names; and how much it can be trusted.

mod catalog;
mod endpoint;
mod freshness;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub use catalog::Catalog;
pub use endpoint::Endpoint;
pub(crate) use endpoint::Standing;
pub use freshness::{Failure, Freshness};

use waypost_core::{Error, Instance, InstanceId, ProviderError, ServiceName};

use crate::conduct::{Fleet, OutlierDetection};

/// All that is known of one service at one moment. It never changes; news comes as another one.
#[derive(Clone, Debug)]
pub struct Snapshot {
    service: ServiceName,
    state: State,
    freshness: Freshness,
    /// The same for all snapshots of a service.
    fleet: Arc<Fleet>,
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
    /// All instances, by id.
    all: Arc<[Arc<Endpoint>]>,
    /// Those that take new work, by id; the same list if that is all.
    ready: Arc<[Arc<Endpoint>]>,
}

impl Snapshot {
    pub(crate) fn pending(service: ServiceName, provider: Arc<str>) -> Self {
        Self {
            fleet: Arc::new(Fleet::new(service.clone(), OutlierDetection::default())),
            service,
            state: State::Pending,
            freshness: Freshness::never(provider),
        }
    }

    /// The same, but with these rules of ejection; to be said before the first answer.
    pub(crate) fn with_outlier_detection(mut self, options: OutlierDetection) -> Self {
        self.fleet = Arc::new(Fleet::new(self.service.clone(), options));
        self
    }

    /// The same, but an error once it is stale for longer than this.
    pub(crate) fn expiring(mut self, max_stale: Option<Duration>) -> Self {
        self.freshness.max_stale = max_stale;
        self
    }

    /// What was known at an earlier time.
    pub(crate) fn remembered(&self, instances: Vec<Arc<Instance>>, at: Instant) -> Self {
        let mut known = self.answered(Some(instances));
        known.freshness.confirmed_at = Some(at);
        known
    }

    /// The next snapshot, after the provider answered. `None` is "no such service".
    ///
    /// A service that was known before and is unknown now has lost its last instance: some
    /// registries, Consul among them, can't tell the two apart, but we remember.
    pub(crate) fn answered(&self, answer: Option<Vec<Arc<Instance>>>) -> Self {
        let (state, news) = match (&self.state, answer) {
            (State::Pending, None) => (State::Unknown, true),
            (State::Unknown, None) => (State::Unknown, false),
            (State::Known(known), None) => self.replaced(known, Vec::new()),
            (State::Known(known), Some(instances)) => self.replaced(known, instances),
            (_, Some(instances)) => {
                let known = Known::new(None, instances, &self.fleet);
                (State::Known(Arc::new(known)), true)
            }
        };
        let next = Self {
            service: self.service.clone(),
            state,
            freshness: self.freshness.confirmed(news),
            fleet: Arc::clone(&self.fleet),
        };
        let is_known = |id: &InstanceId| {
            let all = next.endpoints();
            all.binary_search_by(|endpoint| endpoint.instance().id().cmp(id))
                .is_ok()
        };
        self.fleet.resized(next.ready().len(), is_known);
        next
    }

    fn replaced(&self, known: &Arc<Known>, instances: Vec<Arc<Instance>>) -> (State, bool) {
        let next = Known::new(Some(&known.all), instances, &self.fleet);
        let mut pairs = next.all.iter().zip(known.all.iter());
        let same = next.all.len() == known.all.len() && pairs.all(|(a, b)| Arc::ptr_eq(a, b));
        match same {
            true => (State::Known(Arc::clone(known)), false),
            false => (State::Known(Arc::new(next)), true),
        }
    }

    /// The next snapshot, after an attempt failed: the same instances, now stale.
    pub(crate) fn failed(&self, error: ProviderError) -> Self {
        Self {
            freshness: self.freshness.failed(error),
            ..self.clone()
        }
    }

    /// The service that this is about.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// Who says so, how old it is, and whether the provider fails now.
    pub fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// Whether the provider has answered that it knows the service.
    pub fn is_known(&self) -> bool {
        matches!(self.state, State::Known(_))
    }

    /// All instances in order of their ids, whatever their health.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        match &self.state {
            State::Known(known) => &known.all,
            State::Pending | State::Unknown => &[],
        }
    }

    /// All instances in order of their ids, whatever their health.
    pub fn instances(&self) -> impl ExactSizeIterator<Item = &Arc<Instance>> {
        self.endpoints().iter().map(|endpoint| endpoint.instance())
    }

    /// The endpoints that take new work, in order of their ids: the healthy ones of weight over 0.
    /// When there is none of these, those that are draining or drained; never a critical one.
    pub fn ready(&self) -> &[Arc<Endpoint>] {
        match &self.state {
            State::Known(known) => &known.ready,
            State::Pending | State::Unknown => &[],
        }
    }

    /// [`ready`](Self::ready), to be kept.
    pub(crate) fn ready_shared(&self) -> Arc<[Arc<Endpoint>]> {
        match &self.state {
            State::Known(known) => Arc::clone(&known.ready),
            State::Pending | State::Unknown => Arc::new([]),
        }
    }

    pub(crate) fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    /// [`ready`](Self::ready), or the reason why nothing is.
    pub fn usable(&self) -> Result<&[Arc<Endpoint>], Error> {
        match self.ready() {
            [] => Err(self.why_not_usable()),
            _ if self.freshness.is_expired() => {
                Err(self.freshness.expired(Some(self.service.clone())))
            }
            ready => Ok(ready),
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
    /// Takes over what goes on from `before`: an unchanged instance keeps its endpoint, a changed
    /// one keeps what we know of it.
    fn new(
        before: Option<&[Arc<Endpoint>]>,
        mut instances: Vec<Arc<Instance>>,
        fleet: &Arc<Fleet>,
    ) -> Self {
        // A registry that names an id twice is wrong, but the answer must not depend on the order
        // in which it does: the healthier one counts.
        let order = |a: &Arc<Instance>, b: &Arc<Instance>| {
            let by_id = a.id().cmp(b.id());
            by_id.then_with(|| a.health().cmp(&b.health()))
        };
        // Both lists are in order of ids, so one walk along both finds what belongs together. Most
        // answers change little: whoever is the very same object needs no second look, so that ten
        // thousand instances of which one changed are taken over in a fraction of a millisecond.
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
                Some(before) => {
                    let after = before.updated(instance);
                    let is_down = |of: &Endpoint| of.standing() == Standing::Critical;
                    if is_down(before) != is_down(&after) {
                        fleet.release(after.instance().id(), &after.state().conduct);
                    }
                    Arc::new(after)
                }
                None => Arc::new(Endpoint::new(instance, fleet, before.is_none())),
            });
        }
        let all: Arc<[_]> = all.into();
        let ready = ready(&all);
        Self { all, ready }
    }
}

fn ready(all: &Arc<[Arc<Endpoint>]>) -> Arc<[Arc<Endpoint>]> {
    for standing in [Standing::Ready, Standing::Drained, Standing::Draining] {
        let wanted = all
            .iter()
            .filter(|endpoint| endpoint.standing() == standing);
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
    use crate::conduct::CountedBy;

    fn instance(
        id: &str,
        edit: impl FnOnce(crate::InstanceBuilder) -> crate::InstanceBuilder,
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
    fn an_update_keeps_what_is_in_flight() {
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
    fn the_same_answer_is_no_news() {
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
    fn an_id_named_twice_counts_once_whatever_the_order() {
        let sick = instance("a", |i| i.health(Health::Critical));
        let well = instance("a", |i| i.health(Health::Passing));
        for pair in [[&sick, &well], [&well, &sick]] {
            let snapshot = pending().answered(Some(pair.map(Arc::clone).to_vec()));
            assert_eq!(snapshot.endpoints().len(), 1);
            assert_eq!(snapshot.ready().len(), 1);
        }
    }
}
