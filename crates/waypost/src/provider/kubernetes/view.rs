//! All that is followed in one namespace: one watch of EndpointSlices and one of Services, however
//! many services are asked for, and a pulse that tells whether the watches can be believed.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, TryStreamExt};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{
    super::{Answer, Watch},
    connection::Connection,
    fault::Fault,
    join::{self, Context},
    members::Members,
    mirror::{Cover, Mirror, News},
    pulse::{Beat, Probe, Pulse},
    said::{Said, follow, publish},
    sight::{Basis, Sight},
    views::Setup,
    wire::{SERVICE_NAME, Service, Slice},
};
use crate::{
    error::ProviderError,
    model::{Instance, ServiceName},
};

/// A running view; it ends when nobody holds it any more.
pub(super) struct View {
    asked: Arc<Asked>,
    task: JoinHandle<()>,
}

/// Instances that many may share before each gets a list of its own.
type Shared = Option<Arc<Vec<Arc<Instance>>>>;

type Names = BTreeSet<Arc<str>>;

/// The Service that a name means, and where the answers go.
type Question = (Arc<str>, watch::Sender<Said<Shared>>);

/// All that is asked for.
#[derive(Default)]
struct Asked {
    services: Mutex<HashMap<ServiceName, Question>>,
    names: Mutex<Option<watch::Sender<Said<Names>>>>,
    changed: Notify,
}

impl View {
    pub(super) fn begin(
        connection: &Arc<Connection>,
        setup: &Arc<Setup>,
        namespace: &Arc<str>,
    ) -> Arc<Self> {
        let asked = Arc::new(Asked::default());
        let keeper = Keeper::new(connection, setup, namespace, Arc::clone(&asked));
        Arc::new(Self {
            asked,
            task: tokio::spawn(keeper.run()),
        })
    }

    pub(super) fn is_running(&self) -> bool {
        !self.task.is_finished()
    }

    pub(super) fn watch(
        self: &Arc<Self>,
        name: ServiceName,
        service: Arc<str>,
        ended: ProviderError,
    ) -> Watch {
        let said = {
            let mut services = lock(&self.asked.services);
            let (_, sender) = services
                .entry(name)
                .or_insert_with(|| (service, watch::Sender::default()));
            sender.subscribe()
        };
        self.asked.changed.notify_one();
        follow(said, ended, Arc::clone(self))
            .map_ok(|instances| match instances {
                Some(instances) => Answer::Instances(instances.to_vec()),
                None => Answer::Unknown,
            })
            .boxed()
    }

    pub(super) fn watch_names(
        self: &Arc<Self>,
        ended: ProviderError,
    ) -> futures_util::stream::BoxStream<'static, Result<Names, ProviderError>> {
        let said = lock(&self.asked.names).get_or_insert_default().subscribe();
        self.asked.changed.notify_one();
        follow(said, ended, Arc::clone(self))
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task of a view.
struct Keeper {
    asked: Arc<Asked>,
    setup: Arc<Setup>,
    namespace: Arc<str>,
    description: Arc<str>,
    slices: Mirror<Slice>,
    services: Mirror<Service>,
    pulse: Pulse,
    /// How the pulse was missed last, while it is.
    silent: Option<Fault>,
    members: HashMap<ServiceName, (Arc<str>, Members)>,
    /// The Services of which something has changed since it was published.
    dirty: Dirty,
    /// What was told the log of missing rights.
    told: Option<&'static str>,
}

#[derive(Default)]
struct Dirty {
    all: bool,
    names: HashSet<Arc<str>>,
    /// Whether an attempt has failed.
    attempt: bool,
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
    fn new(
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
            told: None,
        }
    }

    async fn run(mut self) {
        let asked = Arc::clone(&self.asked);
        // Those who listen must not wait for a task that is gone.
        let _hang_up = HangUp(Arc::clone(&asked));
        let mut due = Instant::now();
        loop {
            let has_pulse = self.slices.needs_pulse() || self.services.needs_pulse();
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
            News::Failed => self.failed(),
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
            News::Failed => {
                self.failed();
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

    fn failed(&mut self) {
        self.dirty.all = true;
        self.dirty.attempt = true;
        self.pulse.hurry();
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

    // --- what is said of it ---

    fn publish(&mut self) {
        let dirty = std::mem::take(&mut self.dirty);
        let silent = self.silent.as_ref().map(|fault| &fault.error);
        let mut lacks = None;
        let services = lock(&self.asked.services);
        for (name, (service, members)) in &mut self.members {
            let Some((_, sender)) = services.get(name) else {
                continue;
            };
            if !dirty.all && !dirty.names.contains(service) {
                continue;
            }
            let sight = Sight {
                slices: self.slices.reading(self.slices.knows(service)),
                service: self.services.reading(self.services.knows(service)),
            };
            lacks = lacks.or(sight.degraded());
            let object = self.services.get(service);
            members.describe(object, sight.degraded());
            let value = answer(sight.basis(), members, object);
            publish(sender, value, silent.or(sight.fault()), dirty.attempt);
        }
        drop(services);
        if let Some(sender) = &*lock(&self.asked.names) {
            let sight = Sight {
                slices: self.slices.reading(self.slices.knows_all()),
                service: self.services.reading(self.services.knows_all()),
            };
            let value = names(&self.slices, &self.services);
            publish(sender, value, silent.or(sight.fault()), dirty.attempt);
        }
        if lacks.is_some() && std::mem::replace(&mut self.told, lacks) != lacks {
            let namespace = &*self.namespace;
            tracing::warn!(
                namespace,
                reason = lacks,
                "kubernetes discovery is degraded"
            );
        }
    }
}

/// What is to be answered for a service; `None` as long as nothing can be.
fn answer(basis: Basis, members: &Members, service: Option<&Arc<Service>>) -> Option<Shared> {
    let one = |instance: Option<Arc<Instance>>| Some(Some(Arc::new(Vec::from_iter(instance))));
    if basis == Basis::Nothing {
        return None;
    }
    if let Some(service) = service {
        if let Some(target) = service.external_name() {
            return one(join::external(members.context(), service, target));
        }
        if basis == Basis::Service {
            return one(join::by_cluster_dns(members.context(), service));
        }
    }
    // A Service without endpoints is there; without Services, who has no slices isn't.
    let is_there = service.is_some() || members.has_slices();
    Some(is_there.then(|| Arc::new(members.all())))
}

/// The names of all Services, by the slices if there is no other way.
fn names(slices: &Mirror<Slice>, services: &Mirror<Service>) -> Option<Names> {
    if services.knows_all() {
        return Some(
            services
                .all()
                .map(|s| Arc::clone(&s.metadata.name))
                .collect(),
        );
    }
    let by_slices = services.is_refused() && slices.knows_all();
    by_slices.then(|| {
        let named = slices.all().filter_map(|slice| slice.service());
        named.map(Arc::from).collect()
    })
}

/// Selects slices by the label that names their Service.
fn by_label(cover: &Cover) -> Option<(&'static str, String)> {
    let Cover::Only(names) = cover else {
        return None;
    };
    let names: Vec<_> = names.iter().map(|name| &**name).collect();
    let value = match &names[..] {
        [name] => format!("{SERVICE_NAME}={name}"),
        names => format!("{SERVICE_NAME} in ({})", names.join(",")),
    };
    Some(("labelSelector", value))
}

/// Selects one Service by its name; there is no selector for several.
fn by_field(cover: &Cover) -> Option<(&'static str, String)> {
    match cover {
        Cover::Only(names) if names.len() == 1 => {
            Some(("fieldSelector", format!("metadata.name={}", names.first()?)))
        }
        _ => None,
    }
}

/// Ends all streams when the task does.
struct HangUp(Arc<Asked>);

impl Drop for HangUp {
    fn drop(&mut self) {
        lock(&self.0.services).clear();
        lock(&self.0.names).take();
    }
}

/// What is locked is whole at any moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
