//! The state of an informer and its reducer.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use tokio::time::Instant;
use waypost_core::{Instance, ProviderError, ServiceName};

use crate::clock::Now;
use crate::endpoint_set::EndpointSet;
use crate::error::RequestError;
use crate::latest::Cause;
use crate::liveness::LivenessEvent;
use crate::mapping::{MappingContext, map_cluster_dns, map_external_name};
use crate::object_key::ObjectKey;
use crate::options::DiscoveryOptions;
use crate::ports::PortChoice;
use crate::reflector::ReflectorEvent;
use crate::resources::{EndpointSlice, ObjectMeta, Service};
use crate::scope::Scope;
use crate::service_ref::port_of;
use crate::store::{Delta, Store};
use crate::sync_state::{Basis, Kind, SyncState, basis, failing};

/// The instances of a service, shared by its subscribers; `None` if there is no such service.
pub(super) type Instances = Option<Arc<Vec<Arc<Instance>>>>;

/// The names of all Services.
pub(super) type Names = BTreeSet<ObjectKey>;

/// The objects that have subscribers.
#[derive(Debug, Default)]
pub(super) struct Interest {
    /// The names with subscribers, and the Service that each refers to.
    pub(super) services: BTreeMap<ServiceName, ObjectKey>,
    /// Whether the list of all names has subscribers.
    pub(super) names: bool,
}

/// An input of [`State::apply`].
pub(super) enum Event {
    Subscriptions(Interest),
    Slices(ReflectorEvent<EndpointSlice>),
    Services(ReflectorEvent<Service>),
    Liveness(LivenessEvent),
    /// The time that [`State::next_expiry`] returned has come.
    Expiry,
}

/// The action that the task takes after [`State::apply`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    FollowSlices(Scope),
    FollowServices(Scope),
    ProbeNow,
    ReopenWatches,
    Relist,
}

/// What has changed since the last call of [`State::take_updates`].
pub(super) struct Updates {
    pub(super) services: Vec<(ServiceName, Update<Instances>)>,
    pub(super) names: Option<Update<Names>>,
    pub(super) cause: Cause,
    /// The objects that are missing from answers because of missing permissions.
    pub(super) degraded: Option<&'static str>,
}

pub(super) struct Update<T> {
    /// `None` if there is no answer yet.
    pub(super) value: Option<T>,
    /// Why the value may be outdated, or why there is none.
    pub(super) error: Option<ProviderError>,
}

/// The state of an informer.
pub(super) struct State {
    options: Arc<DiscoveryOptions>,
    interest: Interest,
    slices: Store<EndpointSlice>,
    services: Store<Service>,
    /// The endpoints of each name with subscribers, and the Service that it refers to.
    endpoint_sets: HashMap<ServiceName, (ObjectKey, EndpointSet)>,
    /// The error of the latest liveness probe, while the server does not respond.
    unresponsive: Option<RequestError>,
    /// Whether slices were followed after the last event, so that renewals could arrive.
    was_following: bool,
    pending: Pending,
}

/// What has changed since the last updates were taken.
#[derive(Default)]
struct Pending {
    all: bool,
    services: HashSet<ObjectKey>,
    cause: Cause,
}

impl State {
    /// The maximum number of Services whose slices are selected by label. If there are more, all slices
    /// are followed.
    const MAX_SELECTED: usize = 8;

    pub(super) fn new(options: &Arc<DiscoveryOptions>) -> Self {
        Self {
            options: Arc::clone(options),
            interest: Interest::default(),
            slices: Store::new(),
            services: Store::new(),
            endpoint_sets: HashMap::new(),
            unresponsive: None,
            was_following: false,
            pending: Pending::default(),
        }
    }

    /// Applies an event to the state, and returns the actions to carry out.
    pub(super) fn apply(&mut self, event: Event, now: Now) -> Vec<Action> {
        let actions = match event {
            Event::Subscriptions(interest) => self.set_interest(interest, now),
            Event::Slices(event) => self.apply_to_slices(event, now),
            Event::Services(event) => self.apply_to_services(event),
            Event::Liveness(event) => self.apply_liveness(event),
            Event::Expiry => {
                self.expire(now.monotonic);
                Vec::new()
            }
        };
        self.restart_expiry_after_outage(now.monotonic);
        actions
    }

    /// When [`Event::Expiry`] is due. Nothing expires while slices are not followed, because no
    /// renewal could arrive.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let sets = self.endpoint_sets.values().filter(|_| self.is_following());
        sets.filter_map(|(_, set)| set.next_expiry()).min()
    }

    pub(super) fn needs_liveness_probes(&self) -> bool {
        self.slices.needs_liveness_probes() || self.services.needs_liveness_probes()
    }

    pub(super) fn has_updates(&self) -> bool {
        self.pending.all || !self.pending.services.is_empty()
    }

    /// The current answers for all that has changed.
    pub(super) fn take_updates(&mut self) -> Updates {
        let pending = std::mem::take(&mut self.pending);
        let mut services = Vec::new();
        let mut degraded = None;
        for (name, (service, set)) in &mut self.endpoint_sets {
            if !pending.all && !pending.services.contains(service) {
                continue;
            }
            let states = (
                self.slices.sync_state(&service.name),
                self.services.sync_state(&service.name),
            );
            let basis = basis(states.0, states.1);
            degraded = degraded.or(basis.degraded());
            let object = self.services.get(service);
            set.set_service(object, basis.degraded());
            let value = instances(basis, set, object);
            services.push((name.clone(), (states, value)));
        }
        let services = services.into_iter().map(|(name, (states, value))| {
            let error = self.error(states);
            (name, Update { value, error })
        });
        Updates {
            services: services.collect(),
            names: self.interest.names.then(|| self.names_update()),
            cause: pending.cause,
            degraded,
        }
    }

    // --- subscriptions ---

    fn set_interest(&mut self, interest: Interest, now: Now) -> Vec<Action> {
        self.endpoint_sets
            .retain(|name, _| interest.services.contains_key(name));
        for (name, service) in &interest.services {
            if !self.endpoint_sets.contains_key(name) {
                let set = self.new_endpoint_set(name, service, now);
                let entry = (service.clone(), set);
                self.endpoint_sets.insert(name.clone(), entry);
                self.pending.services.insert(service.clone());
            }
        }
        self.pending.all |= interest.names;
        self.interest = interest;
        self.follow_interest()
    }

    fn new_endpoint_set(&self, name: &ServiceName, service: &ObjectKey, now: Now) -> EndpointSet {
        let mut set = EndpointSet::new(MappingContext {
            name: name.clone(),
            namespace: Arc::clone(&service.namespace),
            options: Arc::clone(&self.options),
            service: self.services.get(service).cloned(),
            port: PortChoice::Default,
            named_port: port_of(name).map(Into::into),
            use_hints: false,
            degraded: None,
        });
        let slices = self.slices.objects();
        let slices = slices.filter(|slice| slice.belongs_to(service));
        set.replace(slices, now);
        set
    }

    /// Widens what is followed to what has subscribers. If Services may not be read, their names are
    /// taken from the slices.
    fn follow_interest(&mut self) -> Vec<Action> {
        let services = self.interest.services.values();
        let services: BTreeSet<_> = services.map(|service| Arc::clone(&service.name)).collect();
        let all_names = self.interest.names;
        let names_from_slices = all_names && self.services.is_access_denied();
        let scope = |all: bool, max: usize| {
            if all || services.len() > max {
                Scope::All
            } else {
                Scope::Services(services.clone())
            }
        };
        let mut actions = Vec::new();
        // A field selector cannot name several Services.
        let service_scope = scope(all_names, 1);
        if self.services.request(&service_scope) {
            actions.push(Action::FollowServices(service_scope));
        }
        let slice_scope = scope(names_from_slices, Self::MAX_SELECTED);
        if self.slices.request(&slice_scope) {
            actions.push(Action::FollowSlices(slice_scope));
        }
        actions
    }

    // --- objects ---

    fn apply_to_slices(&mut self, event: ReflectorEvent<EndpointSlice>, now: Now) -> Vec<Action> {
        self.note(&event);
        match self.slices.apply(event) {
            Delta::None => self.pending.all = true,
            Delta::Replaced => {
                let mut by_service: HashMap<_, Vec<&Arc<EndpointSlice>>> = HashMap::new();
                for slice in self.slices.objects() {
                    let service = slice.service().unwrap_or_default();
                    let service = (&*slice.metadata.namespace, service);
                    by_service.entry(service).or_default().push(slice);
                }
                for (service, set) in self.endpoint_sets.values_mut() {
                    let slices = by_service.get(&(&*service.namespace, &*service.name));
                    set.replace(slices.into_iter().flatten().copied(), now);
                }
                self.pending.all = true;
            }
            Delta::Object { before, after } => {
                // A changed label moves a slice to another Service.
                for (service, set) in self.endpoint_sets.values_mut() {
                    match (&before, &after) {
                        (_, Some(slice)) if slice.belongs_to(service) => set.apply(slice, now),
                        (Some(slice), _) if slice.belongs_to(service) => {
                            set.delete(&slice.metadata.name);
                        }
                        _ => continue,
                    }
                    self.pending.services.insert(service.clone());
                }
            }
        }
        let error = self.slices.error().map(RequestError::server_is_up);
        error
            .map(|server_is_up| self.note_failure(server_is_up))
            .unwrap_or_default()
    }

    fn apply_to_services(&mut self, event: ReflectorEvent<Service>) -> Vec<Action> {
        self.note(&event);
        match self.services.apply(event) {
            Delta::None | Delta::Replaced => self.pending.all = true,
            Delta::Object { before, after } => {
                let name = after.or(before).map(|s| s.metadata.key());
                self.pending.services.extend(name);
            }
        }
        let error = self.services.error().map(RequestError::server_is_up);
        let mut actions = error
            .map(|server_is_up| self.note_failure(server_is_up))
            .unwrap_or_default();
        if self.services.is_access_denied() {
            actions.extend(self.follow_interest());
        }
        actions
    }

    /// Records what an event says about the server, apart from failures.
    fn note<T>(&mut self, event: &ReflectorEvent<T>) {
        let cause = &mut self.pending.cause;
        match event {
            ReflectorEvent::Confirmed => cause.is_confirmation = true,
            ReflectorEvent::Listed {
                rolled_back: Some(error),
                ..
            } => cause.interruption = Some(error.error.clone()),
            _ => {}
        }
    }

    /// Handles a failed attempt: the server is probed, unless it has just answered.
    fn note_failure(&mut self, server_is_up: bool) -> Vec<Action> {
        self.pending.cause.is_new_attempt = true;
        if server_is_up {
            Vec::new()
        } else {
            vec![Action::ProbeNow]
        }
    }

    fn apply_liveness(&mut self, event: LivenessEvent) -> Vec<Action> {
        self.pending.all = true;
        match event {
            LivenessEvent::Unresponsive(error) => {
                self.unresponsive = Some(error);
                self.pending.cause.is_new_attempt = true;
                Vec::new()
            }
            LivenessEvent::Alive => {
                self.pending.cause.is_confirmation = true;
                Vec::new()
            }
            LivenessEvent::Recovered => {
                self.unresponsive = None;
                vec![Action::ReopenWatches]
            }
            LivenessEvent::RolledBack(error) => {
                // This is an outage until everything is listed again: until then, answers may be
                // incomplete.
                self.unresponsive = None;
                self.slices.fail(&error);
                self.services.fail(&error);
                self.pending.cause.is_new_attempt = true;
                self.pending.cause.interruption = Some(error.error);
                vec![Action::Relist]
            }
        }
    }

    // --- expiry ---

    fn expire(&mut self, now: Instant) {
        for (service, set) in self.endpoint_sets.values_mut() {
            if set.expire(now) {
                self.pending.services.insert(service.clone());
            }
        }
    }

    /// Without the API server nothing can be renewed, so an outage does not count.
    fn restart_expiry_after_outage(&mut self, now: Instant) {
        let is_following = self.is_following();
        if is_following && !self.was_following {
            for (_, set) in self.endpoint_sets.values_mut() {
                set.restart_expiry(now);
            }
        }
        self.was_following = is_following;
    }

    fn is_following(&self) -> bool {
        self.unresponsive.is_none() && self.slices.is_followed()
    }

    // --- answers ---

    fn error(&self, (slices, service): (SyncState, SyncState)) -> Option<ProviderError> {
        let failing = || match failing(slices, service)? {
            Kind::EndpointSlice => self.slices.error(),
            Kind::Service => self.services.error(),
        };
        let error = self.unresponsive.as_ref().or_else(failing)?;
        Some(error.error.clone())
    }

    fn names_update(&self) -> Update<Names> {
        let states = (
            self.slices.sync_state_of_all(),
            self.services.sync_state_of_all(),
        );
        Update {
            value: self.names(),
            error: self.error(states),
        }
    }

    fn names(&self) -> Option<Names> {
        if self.services.has_listed_all() {
            let selector = &self.options.listed_services;
            let services = self.services.objects().map(|service| &service.metadata);
            let services = services.filter(|s| selector.matches(s.labels.as_ref()));
            return Some(services.map(ObjectMeta::key).collect());
        }
        if self.services.is_access_denied() && self.slices.has_listed_all() {
            let service_of = |slice: &Arc<EndpointSlice>| {
                Some(ObjectKey {
                    namespace: Arc::clone(&slice.metadata.namespace),
                    name: slice.service()?.into(),
                })
            };
            return Some(self.slices.objects().filter_map(service_of).collect());
        }
        None
    }
}

/// The answer for a service; `None` if there is none yet.
fn instances(basis: Basis, set: &EndpointSet, service: Option<&Arc<Service>>) -> Option<Instances> {
    let one = |instance: Option<Arc<Instance>>| Some(Some(Arc::new(Vec::from_iter(instance))));
    if basis == Basis::Nothing {
        return None;
    }
    if let Some(service) = service {
        if let Some(target) = service.external_name() {
            return one(map_external_name(set.context(), service, target));
        }
        if basis == Basis::ServiceOnly {
            return one(map_cluster_dns(set.context(), service));
        }
    }
    // A Service without endpoints exists. If Services may not be read, one without slices does not.
    let exists = service.is_some() || set.has_slices();
    Some(exists.then(|| Arc::new(set.instances())))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use waypost_core::Health;

    use super::*;
    use crate::error::ApiStatus;

    fn state() -> State {
        State::new(&Arc::new(DiscoveryOptions::in_demo()))
    }

    fn in_demo(name: &str) -> ObjectKey {
        ObjectKey {
            namespace: "demo".into(),
            name: name.into(),
        }
    }

    fn apply(state: &mut State, event: Event) -> Vec<Action> {
        state.apply(event, Now::read())
    }

    fn subscribe(state: &mut State, services: &[&str], names: bool) -> Vec<Action> {
        let service = |name: &&str| (name.parse().unwrap(), in_demo(name));
        let interest = Interest {
            services: services.iter().map(service).collect(),
            names,
        };
        apply(state, Event::Subscriptions(interest))
    }

    fn list_slices(state: &mut State, slices: &[(&str, &str)]) -> Vec<Action> {
        let slice = |(name, service): &(&str, &str)| {
            object(json!({
                "metadata": {
                    "name": name,
                    "namespace": "demo",
                    "labels": { "kubernetes.io/service-name": service },
                },
                "endpoints": [{ "addresses": ["10.0.0.1"] }],
            }))
        };
        let event = ReflectorEvent::Listed {
            objects: slices.iter().map(slice).collect(),
            watch_error: None,
            rolled_back: None,
        };
        apply(state, Event::Slices(event))
    }

    fn list_services(state: &mut State, services: &[&str]) -> Vec<Action> {
        let service =
            |name: &&str| object(json!({ "metadata": { "name": name, "namespace": "demo" } }));
        let event = ReflectorEvent::Listed {
            objects: services.iter().map(service).collect(),
            watch_error: None,
            rolled_back: None,
        };
        apply(state, Event::Services(event))
    }

    fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn status(code: u16) -> RequestError {
        let status = ApiStatus {
            code,
            ..ApiStatus::default()
        };
        RequestError::from_status("test", status, "me")
    }

    /// The number of instances of each service with an update, and the error.
    fn updates(state: &mut State) -> Vec<(String, Option<usize>, Option<String>)> {
        let update = |(name, update): (ServiceName, Update<Instances>)| {
            let instances = update.value.flatten().map(|instances| instances.len());
            let error = update.error.map(|error| error.message().to_owned());
            (name.as_str().to_owned(), instances, error)
        };
        state
            .take_updates()
            .services
            .into_iter()
            .map(update)
            .collect()
    }

    #[test]
    fn an_answer_needs_slices_and_service() {
        let mut state = state();
        let web = || Scope::Services(["web".into()].into());
        let follow = [Action::FollowServices(web()), Action::FollowSlices(web())];
        assert_eq!(subscribe(&mut state, &["web"], false), follow);
        list_slices(&mut state, &[("web-1", "web")]);
        assert_eq!(updates(&mut state), [("web".into(), None, None)]);
        list_services(&mut state, &["web"]);
        assert_eq!(updates(&mut state), [("web".into(), Some(1), None)]);
        assert!(!state.has_updates());
    }

    #[test]
    fn a_changed_slice_updates_its_service_only() {
        let mut state = state();
        subscribe(&mut state, &["shop", "web"], false);
        list_slices(&mut state, &[("shop-1", "shop"), ("web-1", "web")]);
        list_services(&mut state, &["shop", "web"]);
        assert_eq!(updates(&mut state).len(), 2);
        let deleted = ReflectorEvent::Deleted(in_demo("web-1"));
        apply(&mut state, Event::Slices(deleted));
        assert_eq!(updates(&mut state), [("web".into(), Some(0), None)]);
    }

    #[test]
    fn a_failure_keeps_the_instances_and_probes_the_server_unless_it_answered() {
        let mut state = state();
        subscribe(&mut state, &["web"], false);
        list_slices(&mut state, &[("web-1", "web")]);
        list_services(&mut state, &["web"]);
        for (code, actions) in [(503, vec![Action::ProbeNow]), (429, vec![])] {
            let failed = ReflectorEvent::Failed(status(code));
            assert_eq!(apply(&mut state, Event::Slices(failed)), actions);
            assert_eq!(
                updates(&mut state),
                [("web".into(), Some(1), Some(format!("{code}: ")))]
            );
        }
        apply(&mut state, Event::Slices(ReflectorEvent::Resumed));
        assert_eq!(updates(&mut state), [("web".into(), Some(1), None)]);
    }

    #[test]
    fn names_are_taken_from_slices_if_access_to_services_is_denied() {
        let mut state = state();
        let follow = vec![Action::FollowServices(Scope::All)];
        assert_eq!(subscribe(&mut state, &[], true), follow);
        let denied = ReflectorEvent::Failed(status(403));
        let follow = vec![Action::FollowSlices(Scope::All)];
        assert_eq!(apply(&mut state, Event::Services(denied)), follow);
        list_slices(&mut state, &[("a-1", "a"), ("a-2", "a"), ("b-1", "b")]);
        let names = state.take_updates().names.unwrap();
        assert_eq!(names.value, Some(["a", "b"].map(in_demo).into()));
        assert!(names.error.is_none());
    }

    #[test]
    fn an_unresponsive_server_is_reported_until_it_recovers() {
        let mut state = state();
        subscribe(&mut state, &["web"], false);
        list_slices(&mut state, &[("web-1", "web")]);
        list_services(&mut state, &["web"]);
        let unresponsive = LivenessEvent::Unresponsive(status(504));
        assert_eq!(apply(&mut state, Event::Liveness(unresponsive)), []);
        let stale = [("web".into(), Some(1), Some("504: ".into()))];
        assert_eq!(updates(&mut state), stale);
        let recovered = apply(&mut state, Event::Liveness(LivenessEvent::Recovered));
        assert_eq!(recovered, [Action::ReopenWatches]);
        assert_eq!(updates(&mut state), [("web".into(), Some(1), None)]);
    }

    /// The answer after a rollback may lack instances that have not registered again yet.
    #[test]
    fn a_rollback_is_an_outage_until_everything_is_listed_again() {
        let rolled_back = || LivenessEvent::RolledBack(status(500));
        let stale = [("web".into(), Some(1), Some("500: ".into()))];
        for was_unresponsive in [false, true] {
            let mut state = state();
            subscribe(&mut state, &["web"], false);
            list_slices(&mut state, &[("web-1", "web")]);
            list_services(&mut state, &["web"]);
            if was_unresponsive {
                let unresponsive = LivenessEvent::Unresponsive(status(504));
                apply(&mut state, Event::Liveness(unresponsive));
            }
            let actions = apply(&mut state, Event::Liveness(rolled_back()));
            assert_eq!(actions, [Action::Relist]);
            assert_eq!(updates(&mut state), stale);
            list_slices(&mut state, &[]);
            list_services(&mut state, &["web"]);
            assert_eq!(updates(&mut state), [("web".into(), Some(0), None)]);

            // Subscribers are notified even if the rollback is over at once.
            apply(&mut state, Event::Liveness(rolled_back()));
            list_slices(&mut state, &[]);
            list_services(&mut state, &["web"]);
            assert!(state.take_updates().cause.interruption.is_some());
        }
    }

    /// A list with an instance of `web` that has to be renewed every 10 minutes.
    fn renewed_instance() -> Event {
        let slice = object(json!({
            "metadata": {
                "name": "waypost-a",
                "namespace": "demo",
                "labels": { "kubernetes.io/service-name": "web" },
                "annotations": {
                    "waypost.dev/renewed-at": "2999-01-01T00:00:00Z",
                    "waypost.dev/expires-after": "10m",
                },
            },
            "endpoints": [{ "addresses": ["10.0.0.1"] }],
        }));
        Event::Slices(ReflectorEvent::Listed {
            objects: vec![slice],
            watch_error: None,
            rolled_back: None,
        })
    }

    #[test]
    fn an_instance_that_is_not_renewed_in_time_is_an_update_of_its_service() {
        let mut state = state();
        subscribe(&mut state, &["web"], false);
        apply(&mut state, renewed_instance());
        list_services(&mut state, &["web"]);
        let health = |state: &mut State| {
            let (_, update) = state.take_updates().services.into_iter().next().unwrap();
            update.value.flatten().unwrap()[0].health()
        };
        assert_eq!(health(&mut state), Health::Passing);
        let now = Now {
            monotonic: state.next_expiry().unwrap(),
            ..Now::read()
        };
        state.apply(Event::Expiry, now);
        assert_eq!(health(&mut state), Health::Critical);
        assert_eq!(state.next_expiry(), None);
    }

    /// A list may show it before a probe does.
    #[test]
    fn a_list_of_an_earlier_version_interrupts_all_answers() {
        let listed = |rolled_back: Option<RequestError>| ReflectorEvent::Listed {
            objects: Vec::new(),
            watch_error: None,
            rolled_back,
        };
        for (rolled_back, is_interruption) in [(None, false), (Some(status(500)), true)] {
            let mut state = state();
            subscribe(&mut state, &["web"], false);
            apply(&mut state, Event::Slices(listed(rolled_back)));
            let interruption = state.take_updates().cause.interruption;
            assert_eq!(interruption.is_some(), is_interruption);
        }
    }

    #[test]
    fn the_time_until_an_instance_expires_begins_again_only_after_an_outage() {
        let mut state = state();
        subscribe(&mut state, &["web"], false);
        let begin = Now::read();
        state.apply(renewed_instance(), begin);
        let expiry = state.next_expiry().unwrap();
        let after = |seconds: u64| Now {
            monotonic: begin.monotonic + std::time::Duration::from_secs(seconds),
            ..begin
        };
        state.apply(Event::Slices(ReflectorEvent::Confirmed), after(60));
        assert_eq!(state.next_expiry(), Some(expiry), "it was not renewed");
        let unresponsive = || Event::Liveness(LivenessEvent::Unresponsive(status(504)));
        for seconds in [70, 80] {
            state.apply(unresponsive(), after(seconds));
            assert_eq!(state.next_expiry(), None, "no renewal could arrive");
        }
        state.apply(Event::Liveness(LivenessEvent::Recovered), after(90));
        let again = state.next_expiry().unwrap();
        assert!(again > expiry, "{:?}", again - expiry);
        state.apply(Event::Slices(ReflectorEvent::Confirmed), after(100));
        assert_eq!(state.next_expiry(), Some(again));
    }

    #[test]
    fn a_bookmark_and_an_answered_probe_confirm_all_answers() {
        let confirmations: [fn() -> Event; 3] = [
            || Event::Slices(ReflectorEvent::Confirmed),
            || Event::Services(ReflectorEvent::Confirmed),
            || Event::Liveness(LivenessEvent::Alive),
        ];
        for confirmation in confirmations {
            let mut state = state();
            subscribe(&mut state, &["web"], false);
            list_slices(&mut state, &[("web-1", "web")]);
            list_services(&mut state, &["web"]);
            assert!(!state.take_updates().cause.is_confirmation);
            apply(&mut state, confirmation());
            let updates = state.take_updates();
            assert!(updates.cause.is_confirmation);
            assert_eq!(updates.services.len(), 1);
        }
    }
}
