//! Registers instances that run outside the cluster: an EndpointSlice for each, and the Service that
//! owns them, without a selector.
//!
//! Objects that Waypost created are labelled; others are never changed. A slice says when it was
//! renewed and how long that is valid, so that other instances of the service can delete the slices of
//! killed processes.

mod objects;
mod pod_manifest;
mod validation;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::Method;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::time::Instant;
use waypost_core::provider::{HeartbeatResponse, InstanceReport};
use waypost_core::{Health, Instance, InstanceId, ProviderError, ProviderErrorKind, Registration};

use self::objects::{
    ExistingObject, MANAGED_BY, Owner, SLICE_MANAGED_BY, WAYPOST, endpoint_slice, service,
    slice_name,
};
use self::validation::{validate_content, validate_host};
use crate::client::{ApiClient, GetRequest};
use crate::error::RequestError;
use crate::namespaces::Namespaces;
use crate::object_key::ObjectKey;
use crate::rbac::{REGISTRATION, RbacAdvisor};
use crate::renewal;
use crate::resources::{EndpointSlice, List, Resource, SERVICE_NAME_LABEL, Service};
use crate::service_ref::resolve_service;

/// Writes the slices of the instances that this process registers.
pub(crate) struct SliceRegistry {
    advisor: Arc<RbacAdvisor>,
    /// The namespace of names that do not include one.
    namespace: Arc<str>,
    cluster_domain: Arc<str>,
    slices: Mutex<HashMap<InstanceId, RegisteredSlice>>,
    /// The Services that were created for instances whose slices could not be written yet.
    created: Mutex<HashMap<InstanceId, ObjectKey>>,
}

/// A slice that this process has written.
#[derive(Clone)]
struct RegisteredSlice {
    owner: Owner,
    /// The health that was reported last.
    is_ready: bool,
    in_maintenance: bool,
    renewed_at: Instant,
}

impl SliceRegistry {
    /// How long ago a slice must have expired to be deleted when another instance registers. The
    /// registration may follow an outage of the API server, in which nothing could be renewed.
    const GRACE_AFTER_OUTAGE: Duration = Duration::from_secs(3600);

    pub(crate) fn new(
        advisor: Arc<RbacAdvisor>,
        namespace: Arc<str>,
        cluster_domain: Arc<str>,
    ) -> Self {
        Self {
            advisor,
            namespace,
            cluster_domain,
            slices: Mutex::default(),
            created: Mutex::default(),
        }
    }

    /// Checks that the instance can be written as a slice. In a pod nothing is accepted.
    pub(crate) fn accepts(&self, registration: &Registration) -> Result<(), ProviderError> {
        if self.client().is_in_cluster() {
            let kind = ProviderErrorKind::Unsupported;
            let advice = pod_manifest::advice(registration);
            return Err(self.client().error(kind, advice));
        }
        let instance = registration.instance();
        self.resolve(instance)?;
        validate_content(instance)
            .map_err(|why| self.rejected(format!("Kubernetes cannot store {why}")))?;
        validate_host(instance.host()).map_err(|why| {
            self.rejected(format!(
                "{} is at {}, {why}; register the address under which the cluster reaches this \
                 machine (--address, or ServiceRegistration::host)",
                instance.id(),
                instance.host()
            ))
        })
    }

    /// Creates the Service, unless it exists, and creates or replaces the slice. If that fails, no
    /// Service without endpoints is left behind.
    pub(crate) async fn register(
        &self,
        registration: &Registration,
        report: &InstanceReport,
    ) -> Result<(), ProviderError> {
        self.accepts(registration)?;
        let id = registration.instance().id();
        let registered = self.write(registration, report).await;
        if registered.is_ok() {
            self.created().remove(id);
        } else {
            self.delete_created_service(id).await;
        }
        registered
    }

    async fn write(
        &self,
        registration: &Registration,
        report: &InstanceReport,
    ) -> Result<(), ProviderError> {
        let instance = registration.instance();
        let service = self.resolve(instance)?;
        let uid = self.ensure_service(&service, instance).await?;
        self.delete_expired_slices(&service, Self::GRACE_AFTER_OUTAGE)
            .await?;
        let slice = RegisteredSlice {
            owner: Owner { service, uid },
            is_ready: report.health != Health::Critical,
            in_maintenance: false,
            renewed_at: Instant::now(),
        };
        self.create_or_replace(registration, &slice).await?;
        if registration.health().is_none() && !registration.checks().is_empty() {
            let id = instance.id();
            tracing::warn!(%id, "Kubernetes runs no health checks outside of pods; the instance is ready while it is registered");
        }
        self.slices().insert(instance.id().clone(), slice);
        Ok(())
    }

    /// Checks that the slice exists; writes it if the health has changed or a renewal is due.
    pub(crate) async fn heartbeat(
        &self,
        registration: &Registration,
        report: &InstanceReport,
    ) -> Result<HeartbeatResponse, ProviderError> {
        let id = registration.instance().id();
        let Some(mut slice) = self.slices().get(id).cloned() else {
            return Ok(HeartbeatResponse::Forgotten);
        };
        let service = slice.owner.service.clone();
        let path = slice_path(&service.namespace, id);
        let is_ready = report.health != Health::Critical;
        let is_renewal_due = slice.renewed_at.elapsed() >= renewal::INTERVAL;
        let stored: Result<ExistingObject, RequestError> =
            if is_ready != slice.is_ready || is_renewal_due {
                (slice.is_ready, slice.renewed_at) = (is_ready, Instant::now());
                let object = slice.object(registration);
                self.client().send(Method::PUT, &path, &object).await
            } else {
                self.get(&path).await
            };
        match stored {
            Ok(stored) if stored.is_slice_of(id) => {}
            Ok(_) => return Ok(HeartbeatResponse::Forgotten),
            Err(error) if error.is_not_found() => return Ok(HeartbeatResponse::Forgotten),
            Err(error) => return Err(self.explain(&service.namespace, error).await),
        }
        if is_renewal_due
            && let Err(error) = self.delete_expired_slices(&service, Duration::ZERO).await
        {
            tracing::debug!(%id, %error, "cannot delete expired slices of other instances");
        }
        self.slices().insert(id.clone(), slice);
        Ok(HeartbeatResponse::Known)
    }

    /// Begins maintenance, or ends it if there is no reason. In maintenance the slice is not ready,
    /// whatever health is reported.
    pub(crate) async fn set_maintenance(
        &self,
        registration: &Registration,
        reason: Option<&str>,
    ) -> Result<(), ProviderError> {
        let id = registration.instance().id();
        let Some(mut slice) = self.slices().get(id).cloned() else {
            return Ok(());
        };
        (slice.in_maintenance, slice.renewed_at) = (reason.is_some(), Instant::now());
        let namespace = Arc::clone(&slice.owner.service.namespace);
        let path = slice_path(&namespace, id);
        let object = slice.object(registration);
        let sent = self
            .client()
            .send::<IgnoredAny>(Method::PUT, &path, &object);
        match sent.await {
            Ok(_) => {
                self.slices().insert(id.clone(), slice);
                Ok(())
            }
            // The next heartbeat will find the slice missing as well.
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(self.explain(&namespace, error).await),
        }
    }

    /// Deletes the slice, and the Service with its last slice.
    pub(crate) async fn deregister(&self, id: &InstanceId) -> Result<(), ProviderError> {
        if self.client().is_in_cluster() {
            let kind = ProviderErrorKind::Unsupported;
            let why = "in a pod, Kubernetes registers and deregisters";
            return Err(self.client().error(kind, why.to_owned()));
        }
        let registered = self
            .slices()
            .get(id)
            .map(|slice| slice.owner.service.namespace.clone());
        let namespace = registered.unwrap_or_else(|| Arc::clone(&self.namespace));
        let deleted = match self.delete_slice(&namespace, id).await {
            Ok(deleted) => deleted,
            Err(error) => return Err(self.explain(&namespace, error).await),
        };
        self.slices().remove(id);
        self.delete_created_service(id).await;
        if let Some(service) = deleted
            && let Err(error) = self.delete_unused_service(&service).await
        {
            tracing::warn!(service = %service.name, %error, "cannot delete the Service without endpoints");
        }
        Ok(())
    }

    /// Whether there is a slice of this instance, in the namespace in which this process registered it,
    /// else in the default one.
    pub(crate) async fn is_registered(&self, id: &InstanceId) -> Result<bool, ProviderError> {
        let registered = self
            .slices()
            .get(id)
            .map(|slice| slice.owner.service.namespace.clone());
        let namespace = registered.unwrap_or_else(|| Arc::clone(&self.namespace));
        match self.get(&slice_path(&namespace, id)).await {
            Ok(stored) => Ok(stored.is_slice_of(id)),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(self.explain(&namespace, error).await),
        }
    }

    /// The address of this machine in the API server's network.
    pub(crate) fn local_address(&self) -> Option<IpAddr> {
        self.client().local_address()
    }

    // --- Services ---

    fn resolve(&self, instance: &Instance) -> Result<ObjectKey, ProviderError> {
        let name = instance.service();
        resolve_service(name, &self.namespace, &self.cluster_domain).ok_or_else(|| {
            self.rejected(format!(
                "{name:?} is not a valid name for a Kubernetes Service; use at most 63 of a-z, 0-9 \
                 and '-', and NAME.NAMESPACE for another namespace"
            ))
        })
    }

    /// Creates the Service, unless it exists, and returns its uid. Fails if it is not managed by
    /// Waypost.
    async fn ensure_service(
        &self,
        service_ref: &ObjectKey,
        instance: &Instance,
    ) -> Result<Arc<str>, ProviderError> {
        let ObjectKey { namespace, name } = service_ref;
        let collection = Service::path(namespace);
        let path = format!("{collection}/{name}");
        let object = service(service_ref, instance);
        let stored: ExistingObject = loop {
            match self.get(&path).await {
                Ok(stored) => break stored,
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(self.explain(namespace, error).await),
            }
            let created = self.client().send(Method::POST, &collection, &object);
            match created.await {
                Ok(created) => {
                    let id = instance.id().clone();
                    self.created().insert(id, service_ref.clone());
                    break created;
                }
                // Another client has just created it.
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(self.explain(namespace, error).await),
            }
        };
        if stored.is_service_of_waypost() {
            return Ok(stored.metadata.uid.into());
        }
        Err(self.rejected(match stored.spec.selector {
            Some(selector) => format!(
                "Service {name} in namespace {namespace} selects pods ({}), so Kubernetes manages \
                 its endpoints; register under another name",
                json!(selector)
            ),
            None => format!(
                "Service {name} in namespace {namespace} is not managed by Waypost; register under \
                 another name, or hand it over: kubectl --namespace {namespace} label service \
                 {name} {MANAGED_BY}={WAYPOST}"
            ),
        }))
    }

    /// Deletes the Service that was created for an instance without a slice.
    async fn delete_created_service(&self, id: &InstanceId) {
        let Some(service) = self.created().get(id).cloned() else {
            return;
        };
        match self.delete_unused_service(&service).await {
            Ok(()) => {
                self.created().remove(id);
            }
            Err(error) => {
                let service = &*service.name;
                tracing::debug!(service, %error, "cannot delete the Service without endpoints");
            }
        }
    }

    /// Deletes the Service if it has no slices and is managed by Waypost.
    async fn delete_unused_service(&self, service: &ObjectKey) -> Result<(), RequestError> {
        if !self.list_slices(service, None).await?.is_empty() {
            return Ok(());
        }
        let path = format!("{}/{}", Service::path(&service.namespace), service.name);
        match self.get(&path).await {
            Ok(stored) if stored.is_service_of_waypost() => self.client().delete(&path).await,
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    // --- slices ---

    async fn create_or_replace(
        &self,
        registration: &Registration,
        slice: &RegisteredSlice,
    ) -> Result<(), ProviderError> {
        let id = registration.instance().id();
        let namespace = &slice.owner.service.namespace;
        let (collection, path) = (EndpointSlice::path(namespace), slice_path(namespace, id));
        let object = slice.object(registration);
        let send = async |method: Method, path: &str| {
            let sent = self.client().send::<IgnoredAny>(method, path, &object);
            sent.await.map(drop)
        };
        let mut written = send(Method::POST, &collection).await;
        if matches!(&written, Err(error) if error.is_conflict()) {
            written = match self.get(&path).await {
                Ok(stored) if !stored.is_slice_of(id) => {
                    let name = slice_name(id);
                    return Err(self.rejected(format!(
                        "EndpointSlice {name} belongs to another instance; register another id"
                    )));
                }
                // The address type is immutable.
                Ok(stored) if object["addressType"] != *stored.address_type => {
                    match self.client().delete(&path).await {
                        Ok(()) => send(Method::POST, &collection).await,
                        Err(error) => Err(error),
                    }
                }
                Ok(_) => send(Method::PUT, &path).await,
                Err(error) => Err(error),
            };
        }
        match written {
            Ok(()) => Ok(()),
            Err(error) => Err(self.explain(namespace, error).await),
        }
    }

    /// Deletes the slice of an instance, and returns its Service. `None` if there is no slice, or if
    /// the one of that name belongs to another instance.
    async fn delete_slice(
        &self,
        namespace: &Arc<str>,
        id: &InstanceId,
    ) -> Result<Option<ObjectKey>, RequestError> {
        let path = slice_path(namespace, id);
        let stored = match self.get(&path).await {
            Ok(stored) if stored.is_slice_of(id) => stored,
            Ok(_) => return Ok(None),
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        self.client().delete(&path).await?;
        let service = stored.metadata.label(SERVICE_NAME_LABEL);
        Ok(service.map(|service| ObjectKey {
            namespace: Arc::clone(namespace),
            name: service.into(),
        }))
    }

    /// Deletes the slices of the service that expired more than `grace` ago.
    async fn delete_expired_slices(
        &self,
        service: &ObjectKey,
        grace: Duration,
    ) -> Result<(), ProviderError> {
        let slices = match self.list_slices(service, Some(WAYPOST)).await {
            Ok(slices) => slices,
            Err(error) => return Err(self.explain(&service.namespace, error).await),
        };
        let now = SystemTime::now();
        for slice in slices.iter().filter(|slice| slice.has_expired(now, grace)) {
            let (name, version) = (&slice.metadata.name, &slice.metadata.resource_version);
            let path = format!("{}/{name}", EndpointSlice::path(&service.namespace));
            // Fails if the slice was renewed meanwhile.
            match self.client().delete_unchanged(&path, version).await {
                Ok(()) => tracing::info!(slice = %name, "deleted an expired EndpointSlice"),
                Err(error) => {
                    tracing::debug!(slice = %name, %error, "cannot delete an expired EndpointSlice");
                }
            }
        }
        Ok(())
    }

    /// The slices of a Service: all, or those of one manager.
    async fn list_slices(
        &self,
        service: &ObjectKey,
        manager: Option<&str>,
    ) -> Result<Vec<ExistingObject>, RequestError> {
        let mut selector = format!("{SERVICE_NAME_LABEL}={}", service.name);
        if let Some(manager) = manager {
            selector.push_str(&format!(",{SLICE_MANAGED_BY}={manager}"));
        }
        let path = EndpointSlice::path(&service.namespace);
        let query = [("labelSelector", selector.as_str())];
        let get = GetRequest::new(&path, &query);
        let list: List<ExistingObject> = self.client().get(get, ApiClient::DEADLINE).await?;
        Ok(list.items.unwrap_or_default())
    }

    // --- requests ---

    fn client(&self) -> &ApiClient {
        self.advisor.client()
    }

    async fn get(&self, path: &str) -> Result<ExistingObject, RequestError> {
        let get = GetRequest::new(path, &[]);
        self.client().get(get, ApiClient::DEADLINE).await
    }

    /// The error with advice on what to do about it.
    async fn explain(&self, namespace: &str, error: RequestError) -> ProviderError {
        let message = error.error.message();
        if error.is_not_found() && message.contains("namespaces \"") {
            return self.rejected(format!(
                "{message}; kubectl create namespace {namespace}, or name another one in \
                 KUBERNETES_NAMESPACE, or as NAME.NAMESPACE"
            ));
        }
        let namespaces = Namespaces::One(namespace.into());
        let advisor = &self.advisor;
        advisor
            .explain(&namespaces, &REGISTRATION, error)
            .await
            .error
    }

    fn rejected(&self, message: String) -> ProviderError {
        self.client().error(ProviderErrorKind::Rejected, message)
    }

    fn created(&self) -> MutexGuard<'_, HashMap<InstanceId, ObjectKey>> {
        self.created.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A panic elsewhere cannot leave the map in an inconsistent state.
    fn slices(&self) -> MutexGuard<'_, HashMap<InstanceId, RegisteredSlice>> {
        self.slices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RegisteredSlice {
    fn object(&self, registration: &Registration) -> Value {
        let is_ready = self.is_ready && !self.in_maintenance;
        endpoint_slice(registration, &self.owner, is_ready)
    }
}

fn slice_path(namespace: &str, id: &InstanceId) -> String {
    format!("{}/{}", EndpointSlice::path(namespace), slice_name(id))
}
