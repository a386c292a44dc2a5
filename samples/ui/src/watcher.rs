//! Watches all services of the registry, and publishes their latest state.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;
use waypost::ServiceName;
use waypost::directory::Directory;
use waypost::snapshot::{Catalog, Snapshot};

use crate::overview::Overview;

/// The latest overview; `None` until the registry has responded or failed for the first time.
pub(crate) type Overviews = watch::Receiver<Option<Overview>>;

/// Watches all services in a background task. The task ends when all receivers are dropped.
pub(crate) fn watch_services(directory: &Directory) -> Overviews {
    let (sender, receiver) = watch::channel(None);
    let watcher = Watcher {
        directory: directory.clone(),
        services: BTreeMap::new(),
    };
    tokio::spawn(async move {
        tokio::select! {
            () = watcher.run(&sender) => {}
            () = sender.closed() => {}
        }
    });
    receiver
}

struct Watcher {
    directory: Directory,
    services: BTreeMap<ServiceName, WatchedService>,
}

/// A watched service. Dropping it ends its subscription.
struct WatchedService {
    latest: Option<Arc<Snapshot>>,
    _task: AbortOnDropHandle<()>,
}

impl Watcher {
    async fn run(mut self, overviews: &watch::Sender<Option<Overview>>) {
        let mut catalogs = self.directory.subscribe_catalog();
        let (sender, mut snapshots) = mpsc::channel::<Arc<Snapshot>>(64);
        loop {
            tokio::select! {
                catalog = catalogs.changed() => self.watch_all_of(&catalog, &sender),
                Some(snapshot) = snapshots.recv() => {
                    if let Some(service) = self.services.get_mut(snapshot.service()) {
                        service.latest = Some(snapshot);
                    }
                }
            }
            let catalog = Arc::clone(&catalogs.current());
            if catalog.freshness().is_known() || catalog.freshness().failure().is_some() {
                let services = self.services.values();
                let services = services.filter_map(|service| service.latest.clone());
                overviews.send_replace(Some(Overview {
                    services: services.collect(),
                    catalog,
                }));
            }
        }
    }

    /// Subscribes to the services that are new in the catalog, and drops those that are gone.
    fn watch_all_of(&mut self, catalog: &Catalog, snapshots: &mpsc::Sender<Arc<Snapshot>>) {
        self.services
            .retain(|name, _| catalog.names().contains(name));
        for name in catalog.names() {
            self.services.entry(name.clone()).or_insert_with(|| {
                let mut subscription = self.directory.subscribe(name);
                let snapshots = snapshots.clone();
                let task = tokio::spawn(async move {
                    while snapshots.send(subscription.changed().await).await.is_ok() {}
                });
                WatchedService {
                    latest: None,
                    _task: AbortOnDropHandle::new(task),
                }
            });
        }
    }
}
