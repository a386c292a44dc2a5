//! The task of an informer: it waits for events, applies them to the state, carries out the actions
//! and publishes the updates.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep_until};

use super::publisher::Publisher;
use super::state::{Action, Event, State};
use super::subscriptions::Subscriptions;
use crate::clock::Now;
use crate::liveness::{LivenessMonitor, ProbeTarget};
use crate::namespaces::Namespaces;
use crate::options::DiscoveryOptions;
use crate::rbac::RbacAdvisor;
use crate::reflector::{Reflector, ReflectorEvent, WatchProgress};
use crate::resources::{EndpointSlice, Resource, Service};
use crate::scope::Selector;

pub(super) struct Task {
    provider: Arc<str>,
    namespaces: Namespaces,
    subscriptions: Arc<Subscriptions>,
    slices: Source<EndpointSlice>,
    services: Source<Service>,
    liveness: LivenessMonitor,
    state: State,
    publisher: Publisher,
}

impl Task {
    /// The minimum time between two updates. A change is published at once; further changes within
    /// this time are published together. An update is a complete answer, and building and comparing
    /// one of 20,000 instances takes milliseconds.
    const PUBLISH_INTERVAL: Duration = Duration::from_millis(20);

    /// At most this many events of each kind are applied before updates are published.
    const BATCH: usize = 256;

    pub(super) fn new(
        advisor: &Arc<RbacAdvisor>,
        options: &Arc<DiscoveryOptions>,
        namespaces: &Namespaces,
        subscriptions: &Arc<Subscriptions>,
    ) -> Self {
        let slices = Source::new(advisor, namespaces);
        let services = Source::new(advisor, namespaces);
        let client = advisor.client();
        let targets = vec![slices.probe_target(), services.probe_target()];
        Self {
            provider: Arc::clone(client.describe()),
            namespaces: namespaces.clone(),
            subscriptions: Arc::clone(subscriptions),
            slices,
            services,
            liveness: LivenessMonitor::new(Arc::clone(client), targets),
            state: State::new(options),
            publisher: Publisher::new(subscriptions, namespaces),
        }
    }

    pub(super) async fn run(mut self) {
        let mut next_publish = Instant::now();
        loop {
            let expiry = self.state.next_expiry();
            let event = tokio::select! {
                () = self.subscriptions.changed() => {
                    Some(Event::Subscriptions(self.subscriptions.interest()))
                },
                event = self.slices.next() => Some(Event::Slices(event)),
                event = self.services.next() => Some(Event::Services(event)),
                event = self.liveness.next(), if self.state.needs_liveness_probes() => {
                    Some(Event::Liveness(event))
                }
                () = sleep_until(expiry.unwrap_or(next_publish)), if expiry.is_some() => {
                    Some(Event::Expiry)
                }
                () = sleep_until(next_publish), if self.state.has_updates() => None,
            };
            if let Some(event) = event {
                self.apply(event);
            }
            self.apply_ready_events();
            if self.state.has_updates() && next_publish <= Instant::now() {
                let updates = self.state.take_updates();
                self.publisher.publish(updates);
                next_publish = Instant::now() + Self::PUBLISH_INTERVAL;
            }
        }
    }

    /// Applies the events that have arrived already, so that a burst is published once.
    fn apply_ready_events(&mut self) {
        for _ in 0..Self::BATCH {
            let slices = self.slices.next().now_or_never();
            let services = self.services.next().now_or_never();
            if slices.is_none() && services.is_none() {
                return;
            }
            let events = [slices.map(Event::Slices), services.map(Event::Services)];
            for event in events.into_iter().flatten() {
                self.apply(event);
            }
        }
    }

    fn apply(&mut self, event: Event) {
        for action in self.state.apply(event, Now::read()) {
            self.carry_out(action);
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::FollowSlices(scope) => self.slices.follow(scope.label_selector()),
            Action::FollowServices(scope) => self.services.follow(scope.field_selector()),
            Action::ProbeNow => self.liveness.probe_now(),
            Action::ReopenWatches => {
                self.slices
                    .reflector
                    .iter()
                    .for_each(Reflector::reopen_watch);
                self.services
                    .reflector
                    .iter()
                    .for_each(Reflector::reopen_watch);
            }
            Action::Relist => {
                tracing::warn!(
                    provider = &*self.provider,
                    "the API server's resource version went backwards, as after a restore of etcd; \
                     listing everything in {} again",
                    self.namespaces
                );
                self.slices.reflector.iter().for_each(Reflector::relist);
                self.services.reflector.iter().for_each(Reflector::relist);
            }
        }
    }
}

/// The reflector of one kind of object; `None` until objects of that kind are followed.
struct Source<T> {
    advisor: Arc<RbacAdvisor>,
    namespaces: Namespaces,
    progress: Arc<WatchProgress>,
    reflector: Option<Reflector<T>>,
}

impl<T: Resource> Source<T> {
    fn new(advisor: &Arc<RbacAdvisor>, namespaces: &Namespaces) -> Self {
        Self {
            advisor: Arc::clone(advisor),
            namespaces: namespaces.clone(),
            progress: Arc::default(),
            reflector: None,
        }
    }

    fn probe_target(&self) -> ProbeTarget {
        ProbeTarget {
            path: T::path_in(&self.namespaces),
            progress: Arc::clone(&self.progress),
        }
    }

    /// Follows these objects instead of the previous ones.
    fn follow(&mut self, selector: Option<Selector>) {
        let Self {
            advisor,
            namespaces,
            progress,
            ..
        } = self;
        self.reflector = Some(Reflector::for_discovery(
            advisor, namespaces, selector, progress,
        ));
    }

    /// The next event; never, if nothing is followed. Cancel safe.
    async fn next(&mut self) -> ReflectorEvent<T> {
        match &mut self.reflector {
            Some(reflector) => reflector.next().await,
            None => std::future::pending().await,
        }
    }
}
