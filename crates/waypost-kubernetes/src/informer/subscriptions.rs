//! The subscriptions to Services, and the channels that serve them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use waypost_core::ServiceName;

use super::state::{Instances, Interest, Names, Updates};
use crate::latest::{Latest, publish};
use crate::object_key::ObjectKey;

/// The subscriptions of an informer. A subscriber is gone when it has dropped its receiver.
#[derive(Default)]
pub(super) struct Subscriptions {
    services: Mutex<HashMap<ServiceName, ServiceChannel>>,
    names: Mutex<Option<watch::Sender<Latest<Names>>>>,
    changed: Notify,
}

struct ServiceChannel {
    service: ObjectKey,
    sender: watch::Sender<Latest<Instances>>,
}

impl Subscriptions {
    /// Subscribes to the Service that `name` refers to.
    pub(super) fn subscribe(
        &self,
        name: ServiceName,
        service: ObjectKey,
    ) -> watch::Receiver<Latest<Instances>> {
        let receiver = lock(&self.services)
            .entry(name)
            .or_insert_with(|| ServiceChannel {
                service,
                sender: watch::Sender::default(),
            })
            .sender
            .subscribe();
        self.changed.notify_one();
        receiver
    }

    /// Subscribes to the names of all Services.
    pub(super) fn subscribe_names(&self) -> watch::Receiver<Latest<Names>> {
        let receiver = lock(&self.names).get_or_insert_default().subscribe();
        self.changed.notify_one();
        receiver
    }

    /// Waits for a new subscription.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The current subscriptions. Removes channels without subscribers.
    pub(super) fn interest(&self) -> Interest {
        let mut services = lock(&self.services);
        services.retain(|_, channel| channel.sender.receiver_count() > 0);
        let mut names = lock(&self.names);
        names.take_if(|sender| sender.receiver_count() == 0);
        let channels = services.iter();
        let channels = channels.map(|(name, channel)| (name.clone(), channel.service.clone()));
        Interest {
            services: channels.collect(),
            names: names.is_some(),
        }
    }

    /// Sends updates to their subscribers.
    pub(super) fn publish(&self, updates: Updates) {
        let cause = &updates.cause;
        let services = lock(&self.services);
        for (name, update) in updates.services {
            if let Some(channel) = services.get(&name) {
                let error = update.error.as_ref();
                publish(&channel.sender, update.value, error, cause);
            }
        }
        drop(services);
        if let Some(update) = updates.names
            && let Some(sender) = &*lock(&self.names)
        {
            publish(sender, update.value, update.error.as_ref(), cause);
        }
    }

    /// Ends all subscriptions.
    pub(super) fn close(&self) {
        lock(&self.services).clear();
        lock(&self.names).take();
    }
}

/// A panic elsewhere cannot leave the locked value in an inconsistent state.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
