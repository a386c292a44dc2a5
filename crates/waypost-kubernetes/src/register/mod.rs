//! Registering what runs outside of the cluster: a Service without a selector, and an EndpointSlice
//! of its own for each instance.
//!
//! What is written is ours and says so by labels; what isn't ours is never touched. A slice tells
//! when it was renewed last and how long that is good for, so that the others of the service can clear
//! away what a killed process has left.

mod found;
mod manifest;
mod objects;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::Method;
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::time::Instant;
use waypost_core::provider::{Heartbeat, Report};
use waypost_core::{Health, Instance, InstanceId, ProviderError, ProviderErrorKind, Registration};

use self::found::Found;
use self::objects::{MANAGED_BY, OWNER, US, refusal, service, slice, slice_name, unwritable};
use super::access::REGISTER;
use super::connection::{Ask, Connection};
use super::fault::Fault;
use super::place::Place;
use super::renewal;
use super::wire::{List, Object, SERVICE_NAME, Service, Slice};

/// Who registers may come right after an outage of the API server, in which nobody could renew
/// anything. A minute later all who live have.
const OUTAGE: Duration = Duration::from_secs(3600);

/// What this provider has registered.
#[derive(Debug)]
pub(super) struct Registrations {
    connection: Arc<Connection>,
    namespace: Arc<str>,
    cluster_domain: Arc<str>,
    held: Mutex<HashMap<InstanceId, Held>>,
}

/// One instance, as far as the server knows it from us.
#[derive(Clone, Debug)]
struct Held {
    place: Place,
    /// Of the Service; when that is deleted, the slice goes with it.
    uid: Arc<str>,
    is_ready: bool,
    renewed: Instant,
    in_maintenance: bool,
}

impl Registrations {
    pub(super) fn new(
        connection: Arc<Connection>,
        namespace: Arc<str>,
        cluster_domain: Arc<str>,
    ) -> Self {
        Self {
            connection,
            namespace,
            cluster_domain,
            held: Mutex::default(),
        }
    }

    /// Whether a slice may hold this at all. In a pod nothing is registered by us.
    pub(super) fn accepts(&self, registration: &Registration) -> Result<(), ProviderError> {
        if self.connection.is_in_pod() {
            let kind = ProviderErrorKind::Unsupported;
            let instead = manifest::instead_of(registration);
            return Err(self.connection.error(kind, instead));
        }
        let instance = registration.instance();
        self.place(instance)?;
        if let Some(what) = unwritable(instance) {
            return Err(self.rejected(format!("Kubernetes can't hold {what}")));
        }
        match refusal(instance.host()) {
            None => Ok(()),
            Some(why) => Err(self.rejected(format!(
                "{} is at {}, {why}; register the address under which the cluster reaches this \
                 machine (--address, or ServiceRegistration::host)",
                instance.id(),
                instance.host()
            ))),
        }
    }

    pub(super) async fn register(
        &self,
        registration: &Registration,
        report: &Report,
    ) -> Result<(), ProviderError> {
        self.accepts(registration)?;
        let instance = registration.instance();
        let place = self.place(instance)?;
        let uid = self.service(&place, instance).await?;
        self.clear_left_overs(&place, OUTAGE).await?;
        let held = Held {
            place,
            uid,
            is_ready: report.health != Health::Critical,
            renewed: Instant::now(),
            in_maintenance: false,
        };
        self.create_or_replace(registration, &held).await?;
        if registration.health().is_none() && !registration.checks().is_empty() {
            let id = instance.id();
            tracing::warn!(%id, "Kubernetes runs no checks outside of pods: it is ready while it is registered");
        }
        self.held().insert(instance.id().clone(), held);
        Ok(())
    }

    pub(super) async fn heartbeat(
        &self,
        registration: &Registration,
        report: &Report,
    ) -> Result<Heartbeat, ProviderError> {
        let id = registration.instance().id();
        let Some(mut held) = self.held().get(id).cloned() else {
            return Ok(Heartbeat::Forgotten);
        };
        let is_ready = report.health != Health::Critical;
        let is_news = is_ready != held.is_ready;
        let path = slice_path(&held.place, id);
        let is_due = held.renewed.elapsed() >= renewal::EVERY;
        let kept: Result<Found, Fault> = if is_news || is_due {
            (held.is_ready, held.renewed) = (is_ready, Instant::now());
            let slice = slice(registration, &held);
            self.connection.send(Method::PUT, &path, &slice).await
        } else {
            let ask = Ask::new(&path, &[]);
            self.connection.get(ask, Connection::DEADLINE).await
        };
        match kept {
            Ok(kept) if kept.is_of(id) => {
                if is_due
                    && let Err(error) = self.clear_left_overs(&held.place, Duration::ZERO).await
                {
                    tracing::debug!(%id, %error, "what others left is not cleared away");
                }
                self.held().insert(id.clone(), held);
                Ok(Heartbeat::Known)
            }
            Ok(_) => Ok(Heartbeat::Forgotten),
            Err(fault) if fault.code() == 404 => Ok(Heartbeat::Forgotten),
            Err(fault) => Err(self.explained(&held.place.namespace, fault).await),
        }
    }

    /// In maintenance it isn't ready, whatever it reports.
    pub(super) async fn set_maintenance(
        &self,
        registration: &Registration,
        reason: Option<&str>,
    ) -> Result<(), ProviderError> {
        let id = registration.instance().id();
        let Some(mut held) = self.held().get(id).cloned() else {
            return Ok(());
        };
        (held.in_maintenance, held.renewed) = (reason.is_some(), Instant::now());
        let (path, slice) = (slice_path(&held.place, id), slice(registration, &held));
        match self
            .connection
            .send::<IgnoredAny>(Method::PUT, &path, &slice)
            .await
        {
            Ok(_) => {}
            // The heartbeat that follows will notice, too.
            Err(fault) if fault.code() == 404 => return Ok(()),
            Err(fault) => return Err(self.explained(&held.place.namespace, fault).await),
        }
        self.held().insert(id.clone(), held);
        Ok(())
    }

    /// Deletes the slice, and the Service with the last one if that is ours too.
    pub(super) async fn deregister(&self, id: &InstanceId) -> Result<(), ProviderError> {
        if self.connection.is_in_pod() {
            let kind = ProviderErrorKind::Unsupported;
            let why = "in a pod, Kubernetes registers and deregisters";
            return Err(self.connection.error(kind, why.to_owned()));
        }
        let held = self.held().get(id).map(|held| held.place.namespace.clone());
        let namespace = held.unwrap_or_else(|| Arc::clone(&self.namespace));
        let path = format!("{}/{}", Slice::path(&namespace), slice_name(id));
        let ask = Ask::new(&path, &[]);
        let found: Result<Found, Fault> = self.connection.get(ask, Connection::DEADLINE).await;
        let place = match found {
            Err(fault) if fault.code() == 404 => None,
            Err(fault) => return Err(self.explained(&namespace, fault).await),
            // Another may have taken our name after we had been cleared away.
            Ok(found) if !found.is_of(id) => None,
            Ok(found) => {
                if let Err(fault) = self.connection.delete(&path).await {
                    return Err(self.explained(&namespace, fault).await);
                }
                found.metadata.label(SERVICE_NAME).map(|service| Place {
                    namespace,
                    service: service.into(),
                })
            }
        };
        self.held().remove(id);
        if let Some(place) = place
            && let Err(fault) = self.remove_empty_service(&place).await
        {
            tracing::warn!(service = %place.service, %fault, "the Service without endpoints stays");
        }
        Ok(())
    }

    /// This machine's address as the API server's network sees it.
    pub(super) fn local_address(&self) -> Option<IpAddr> {
        self.connection.local_address()
    }

    // --- below: the steps of these ---

    fn place(&self, instance: &Instance) -> Result<Place, ProviderError> {
        let name = instance.service();
        Place::of(name, &self.namespace, &self.cluster_domain).ok_or_else(|| {
            self.rejected(format!(
                "no Service of Kubernetes can be named {name:?}; use at most 63 of a-z, 0-9 and \
                 '-', and NAME.NAMESPACE for another namespace"
            ))
        })
    }

    /// Makes sure that the Service is there and ours, and gives its uid.
    async fn service(&self, place: &Place, instance: &Instance) -> Result<Arc<str>, ProviderError> {
        let all = Service::path(&place.namespace);
        let path = format!("{all}/{}", place.service);
        let found: Found = loop {
            let ask = Ask::new(&path, &[]);
            match self.connection.get(ask, Connection::DEADLINE).await {
                Ok(found) => break found,
                Err(fault) if fault.code() == 404 => {}
                Err(fault) => return Err(self.explained(&place.namespace, fault).await),
            }
            let service = service(place, instance);
            match self.connection.send(Method::POST, &all, &service).await {
                Ok(made) => break made,
                // Somebody was quicker; let's see whether it is ours.
                Err(fault) if fault.code() == 409 => {}
                Err(fault) => return Err(self.explained(&place.namespace, fault).await),
            }
        };
        if found.metadata.label(OWNER) == Some(US) && found.spec.selector.is_none() {
            return Ok(found.metadata.uid.into());
        }
        let (name, namespace) = (&place.service, &place.namespace);
        Err(self.rejected(match found.spec.selector {
            Some(selector) => format!(
                "Service {name} in namespace {namespace} selects pods ({}), so its endpoints are \
                 Kubernetes' business; register under another name",
                json!(selector)
            ),
            None => format!(
                "Service {name} in namespace {namespace} is not ours; register under another \
                 name, or hand it over: kubectl --namespace {namespace} label service {name} \
                 {OWNER}={US}"
            ),
        }))
    }

    async fn create_or_replace(
        &self,
        registration: &Registration,
        held: &Held,
    ) -> Result<(), ProviderError> {
        let id = registration.instance().id();
        let (all, path) = (
            Slice::path(&held.place.namespace),
            slice_path(&held.place, id),
        );
        let slice = slice(registration, held);
        let send = async |method: Method, path: &str| {
            let sent = self.connection.send::<IgnoredAny>(method, path, &slice);
            sent.await.map(drop)
        };
        let mut made = send(Method::POST, &all).await;
        if matches!(&made, Err(fault) if fault.code() == 409) {
            let ask = Ask::new(&path, &[]);
            let found: Result<Found, Fault> = self.connection.get(ask, Connection::DEADLINE).await;
            made = match found {
                Ok(found) if !found.is_of(id) => {
                    let name = slice_name(id);
                    let why = format!("EndpointSlice {name} is not ours; register another id");
                    return Err(self.rejected(why));
                }
                // The type of address can't be changed.
                Ok(found) if slice["addressType"] != *found.address_type => {
                    match self.connection.delete(&path).await {
                        Ok(()) => send(Method::POST, &all).await,
                        Err(fault) => Err(fault),
                    }
                }
                Ok(_) => send(Method::PUT, &path).await,
                Err(fault) => Err(fault),
            };
        }
        match made {
            Ok(()) => Ok(()),
            Err(fault) => Err(self.explained(&held.place.namespace, fault).await),
        }
    }

    /// Deletes the slices of this service whose processes have ended without a word.
    async fn clear_left_overs(&self, place: &Place, grace: Duration) -> Result<(), ProviderError> {
        let slices = match self.slices(place, Some(US)).await {
            Ok(slices) => slices,
            Err(fault) => return Err(self.explained(&place.namespace, fault).await),
        };
        let now = SystemTime::now();
        for slice in slices {
            if !slice.is_left_over(now, grace) {
                continue;
            }
            let metadata = slice.metadata;
            let path = format!("{}/{}", Slice::path(&place.namespace), metadata.name);
            // Not if it has been renewed meanwhile.
            match self
                .connection
                .delete_state(&path, &metadata.resource_version)
                .await
            {
                Ok(()) => {
                    tracing::info!(slice = %metadata.name, "cleared away what a process had left registered");
                }
                Err(fault) => tracing::debug!(slice = %metadata.name, %fault, "not cleared away"),
            }
        }
        Ok(())
    }

    async fn remove_empty_service(&self, place: &Place) -> Result<(), Fault> {
        if !self.slices(place, None).await?.is_empty() {
            return Ok(());
        }
        let path = format!("{}/{}", Service::path(&place.namespace), place.service);
        let ask = Ask::new(&path, &[]);
        let service: Found = match self.connection.get(ask, Connection::DEADLINE).await {
            Err(fault) if fault.code() == 404 => return Ok(()),
            found => found?,
        };
        match service.metadata.label(OWNER) == Some(US) && service.spec.selector.is_none() {
            true => self.connection.delete(&path).await,
            false => Ok(()),
        }
    }

    /// The slices of a Service, all or those of one manager.
    async fn slices(&self, place: &Place, manager: Option<&str>) -> Result<Vec<Found>, Fault> {
        let mut selector = format!("{SERVICE_NAME}={}", place.service);
        if let Some(manager) = manager {
            selector.push_str(&format!(",{MANAGED_BY}={manager}"));
        }
        let path = Slice::path(&place.namespace);
        let query = [("labelSelector", selector.as_str())];
        let ask = Ask::new(&path, &query);
        let list: List<Found> = self.connection.get(ask, Connection::DEADLINE).await?;
        Ok(list.items.unwrap_or_default())
    }

    async fn explained(&self, namespace: &str, fault: Fault) -> ProviderError {
        let said = fault.error.message();
        if fault.code() == 404 && said.contains("namespaces \"") {
            return self.rejected(format!(
                "{said}; kubectl create namespace {namespace}, or name another one in \
                 KUBERNETES_NAMESPACE, or as NAME.NAMESPACE"
            ));
        }
        let explained = self.connection.explain(namespace, &REGISTER, fault).await;
        explained.error
    }

    fn rejected(&self, why: String) -> ProviderError {
        self.connection.error(ProviderErrorKind::Rejected, why)
    }

    /// A map is never half changed, so a panic elsewhere leaves it in order.
    fn held(&self) -> MutexGuard<'_, HashMap<InstanceId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn slice_path(place: &Place, id: &InstanceId) -> String {
    format!("{}/{}", Slice::path(&place.namespace), slice_name(id))
}
