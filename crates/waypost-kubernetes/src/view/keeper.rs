//! The task of a view: it takes in what is asked for and what is told.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep_until};
use waypost_core::ServiceName;

use super::{Asked, HangUp, lock};
use crate::connection::Connection;
use crate::cover::{Cover, by_field, by_label};
use crate::fault::Fault;
use crate::join::Context;
use crate::members::Members;
use crate::mirror::{Mirror, News};
use crate::pulse::{Beat, Probe, Pulse};
use crate::views::Setup;
use crate::wire::{Service, Slice};

/// The task of a view.
pub(super) struct Keeper {
    pub(super) asked: Arc<Asked>,
    setup: Arc<Setup>,
    pub(super) namespace: Arc<str>,
    pub(super) description: Arc<str>,
    pub(super) slices: Mirror<Slice>,
    pub(super) services: Mirror<Service>,
    pulse: Pulse,
    /// How the pulse was missed last, while it is.
    pub(super) silent: Option<Fault>,
    pub(super) members: HashMap<ServiceName, (Arc<str>, Members)>,
    /// The Services of which something has changed since it was published.
    pub(super) dirty: Dirty,
    /// Whether slices were followed when it was looked last, so that renewals can be missed.
    is_followed: bool,
    /// What was told the log of missing rights.
    pub(super) told: Option<&'static str>,
}

#[derive(Default)]
pub(super) struct Dirty {
    pub(super) all: bool,
    pub(super) names: HashSet<Arc<str>>,
    /// Whether an attempt has failed.
    pub(super) attempt: bool,
}

impl Dirty {
    fn is_anything(&self) -> bool {
        self.all || !self.names.is_empty()
    }
}

/// Up to so many services are selected by their labels; from there on it is the whole namespace.
const FEW: usize = 8;

/// So many changes are taken in before they are published.
const BATCH: usize = 256;

/// A change is published at once, those that follow it this soon together: each answer is a whole
/// one, and to make and take in one of 20,000 instances costs milliseconds.
const PAUSE: Duration = Duration::from_millis(20);

impl Keeper {
    pub(super) fn new(
        connection: &Arc<Connection>,
        setup: &Arc<Setup>,
        namespace: &Arc<str>,
        asked: Arc<Asked>,
    ) -> Self {
        let slices = Mirror::new(connection, namespace, by_label);
        let services = Mirror::new(connection, namespace, by_field);
        let probes = vec![
            Probe {
                path: slices.path(),
                marks: Arc::clone(&slices.marks),
            },
            Probe {
                path: services.path(),
                marks: Arc::clone(&services.marks),
            },
        ];
        Self {
            asked,
            setup: Arc::clone(setup),
            namespace: Arc::clone(namespace),
            description: Arc::clone(connection.describe()),
            slices,
            services,
            pulse: Pulse::new(Arc::clone(connection), probes),
            silent: None,
            members: HashMap::new(),
            dirty: Dirty::default(),
            is_followed: false,
            told: None,
        }
    }

    pub(super) async fn run(mut self) {
        let asked = Arc::clone(&self.asked);
        // Those who listen must not wait for a task that is gone.
        let _hang_up = HangUp(Arc::clone(&asked));
        let mut due = Instant::now();
        loop {
            let has_pulse = self.slices.needs_pulse() || self.services.needs_pulse();
            let lease_due = self.next_lease_due();
            tokio::select! {
                () = asked.changed.notified() => self.look_who_asks(),
                change = self.slices.next() => {
                    let news = self.slices.take(change);
                    self.slices_changed(news);
                }
                change = self.services.next() => {
                    let news = self.services.take(change);
                    self.services_changed(news);
                }
                beat = self.pulse.next(), if has_pulse => self.heard(beat),
                () = sleep_until(due), if self.dirty.is_anything() => {}
                () = sleep_until(lease_due.unwrap_or(due)), if lease_due.is_some() => self.end_leases(),
            }
            self.take_what_is_there();
            if self.dirty.is_anything() && due <= Instant::now() {
                self.publish();
                due = Instant::now() + PAUSE;
            }
        }
    }

    /// Takes in all that has come already, so that a burst is published once.
    fn take_what_is_there(&mut self) {
        for _ in 0..BATCH {
            let slice = self.slices.next().now_or_never();
            let service = self.services.next().now_or_never();
            if slice.is_none() && service.is_none() {
                return;
            }
            if let Some(change) = slice {
                let news = self.slices.take(change);
                self.slices_changed(news);
            }
            if let Some(change) = service {
                let news = self.services.take(change);
                self.services_changed(news);
            }
        }
    }

    // --- what is asked for ---

    fn look_who_asks(&mut self) {
        let mut wanted = BTreeSet::new();
        {
            let mut services = lock(&self.asked.services);
            services.retain(|_, (_, sender)| sender.receiver_count() > 0);
            self.members.retain(|name, _| services.contains_key(name));
            for (name, (service, _)) in &*services {
                wanted.insert(Arc::clone(service));
                if !self.members.contains_key(name) {
                    let members = self.first_members(name, service);
                    self.members
                        .insert(name.clone(), (Arc::clone(service), members));
                    self.dirty.names.insert(Arc::clone(service));
                }
            }
        }
        let wants_names = {
            let mut names = lock(&self.asked.names);
            if names
                .as_ref()
                .is_some_and(|names| names.receiver_count() == 0)
            {
                *names = None;
            }
            names.is_some()
        };
        self.dirty.all |= wants_names;
        let few = |limit: usize| match wanted.len() > limit {
            true => Cover::All,
            false => Cover::Only(wanted.clone()),
        };
        self.services
            .want(if wants_names { Cover::All } else { few(1) });
        // Without Services the slices tell the names.
        let by_slices = wants_names && self.services.is_refused();
        self.slices
            .want(if by_slices { Cover::All } else { few(FEW) });
    }

    fn first_members(&self, name: &ServiceName, service: &Arc<str>) -> Members {
        let mut members = Members::new(Context {
            name: name.clone(),
            namespace: Arc::clone(&self.namespace),
            setup: Arc::clone(&self.setup),
            service: self.services.get(service).cloned(),
            hinted: false,
            degraded: None,
        });
        let all = self.slices.all();
        members.replace(all.filter(|slice| slice.service() == Some(&**service)));
        members
    }

    // --- what is told ---

    fn slices_changed(&mut self, news: News<Slice>) {
        match news {
            News::None => self.dirty.all = true,
            News::Failed => self.failed(self.slices.is_alive()),
            News::Frozen => {
                self.slices_changed(News::All);
                self.slices_changed(News::Failed);
            }
            News::All => {
                let mut by_service: HashMap<&str, Vec<&Arc<Slice>>> = HashMap::new();
                for slice in self.slices.all() {
                    let service = slice.service().unwrap_or_default();
                    by_service.entry(service).or_default().push(slice);
                }
                for (service, members) in self.members.values_mut() {
                    let slices = by_service.get(&**service);
                    members.replace(slices.into_iter().flatten().copied());
                }
                self.dirty.all = true;
            }
            News::One(before, after) => {
                let left = before.as_deref().and_then(Slice::service);
                let joined = after.as_deref().and_then(Slice::service);
                for (service, members) in self.members.values_mut() {
                    let service = Some(&**service);
                    match (&before, &after) {
                        (_, Some(slice)) if service == joined => members.put(slice),
                        (Some(slice), _) if service == left => members.remove(&slice.metadata.name),
                        _ => continue,
                    }
                    self.dirty.names.extend(service.map(Arc::from));
                }
            }
        }
    }

    fn services_changed(&mut self, news: News<Service>) {
        match news {
            News::None | News::All => self.dirty.all = true,
            // All is dirty after a failure, too.
            News::Failed | News::Frozen => {
                self.failed(self.services.is_alive());
                if self.services.is_refused() {
                    // The names must come from elsewhere.
                    self.asked.changed.notify_one();
                }
            }
            News::One(before, after) => {
                let name = after.or(before).map(|s| Arc::clone(&s.metadata.name));
                self.dirty.names.extend(name);
            }
        }
    }

    /// An attempt failed. Whether the server lives is asked at once, unless it has just refused.
    fn failed(&mut self, is_alive: bool) {
        self.dirty.all = true;
        self.dirty.attempt = true;
        if !is_alive {
            self.pulse.hurry();
        }
    }

    fn heard(&mut self, beat: Beat) {
        self.dirty.all = true;
        match beat {
            Beat::Silent(fault) => {
                self.silent = Some(fault);
                self.dirty.attempt = true;
            }
            Beat::Back => {
                self.silent = None;
                self.slices.reflector().inspect(|r| r.resume());
                self.services.reflector().inspect(|r| r.resume());
            }
            Beat::WentBack => {
                self.silent = None;
                tracing::warn!(
                    provider = &*self.description,
                    namespace = &*self.namespace,
                    "the API server knows less than before, as after a restore of its etcd; \
                     all is listed again"
                );
                self.slices.reflector().inspect(|r| r.start_over());
                self.services.reflector().inspect(|r| r.start_over());
            }
        }
    }
    // --- what must be renewed ---

    /// When to look for instances that aren't renewed any more. Without the API server nobody can
    /// renew anything, so the time begins anew with its return.
    fn next_lease_due(&mut self) -> Option<Instant> {
        let is_followed = self.silent.is_none() && self.slices.is_followed();
        let was_followed = std::mem::replace(&mut self.is_followed, is_followed);
        let mut members = self.members.values_mut().map(|(_, members)| members);
        if is_followed && !was_followed {
            members.by_ref().for_each(Members::extend_leases);
        }
        let members = self.members.values().filter(|_| is_followed);
        members.filter_map(|(_, members)| members.next_due()).min()
    }

    fn end_leases(&mut self) {
        let now = Instant::now();
        for (service, members) in self.members.values_mut() {
            if members.end_leases(now) {
                self.dirty.names.insert(Arc::clone(service));
            }
        }
    }
}
