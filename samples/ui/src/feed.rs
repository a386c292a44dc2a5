//! Follows every service that the registry knows, and keeps the newest picture of them all.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;
use waypost::{Catalog, Directory, ServiceName, Snapshot};

use crate::picture::Picture;

/// The newest picture, and news of each further one. It's empty until the registry has answered
/// or failed for the first time.
pub(crate) type Pictures = watch::Receiver<Option<Picture>>;

/// Begins to follow; ends when nobody holds the pictures any more.
pub(crate) fn follow(directory: &Directory) -> Pictures {
    let (sender, receiver) = watch::channel(None);
    let feed = Feed {
        directory: directory.clone(),
        followed: BTreeMap::new(),
    };
    tokio::spawn(async move {
        tokio::select! {
            () = feed.run(&sender) => {}
            () = sender.closed() => {}
        }
    });
    receiver
}

struct Feed {
    directory: Directory,
    followed: BTreeMap<ServiceName, Followed>,
}

/// One service. Its task ends when this is dropped, and its watch with it.
struct Followed {
    newest: Option<Arc<Snapshot>>,
    _task: AbortOnDropHandle<()>,
}

impl Feed {
    async fn run(mut self, pictures: &watch::Sender<Option<Picture>>) {
        let mut catalogs = self.directory.subscribe_catalog();
        let (sender, mut snapshots) = mpsc::channel::<Arc<Snapshot>>(64);
        loop {
            tokio::select! {
                catalog = catalogs.changed() => self.follow_all_of(&catalog, &sender),
                Some(snapshot) = snapshots.recv() => {
                    if let Some(followed) = self.followed.get_mut(snapshot.service()) {
                        followed.newest = Some(snapshot);
                    }
                }
            }
            let catalog = Arc::clone(&catalogs.current());
            if catalog.freshness().is_known() || catalog.freshness().failure().is_some() {
                let services = self
                    .followed
                    .values()
                    .filter_map(|followed| followed.newest.clone())
                    .collect();
                pictures.send_replace(Some(Picture { catalog, services }));
            }
        }
    }

    fn follow_all_of(&mut self, catalog: &Catalog, snapshots: &mpsc::Sender<Arc<Snapshot>>) {
        self.followed
            .retain(|name, _| catalog.names().contains(name));
        for name in catalog.names() {
            self.followed.entry(name.clone()).or_insert_with(|| {
                let mut service = self.directory.subscribe(name);
                let snapshots = snapshots.clone();
                let task = tokio::spawn(async move {
                    while snapshots.send(service.changed().await).await.is_ok() {}
                });
                Followed {
                    newest: None,
                    _task: AbortOnDropHandle::new(task),
                }
            });
        }
    }
}
