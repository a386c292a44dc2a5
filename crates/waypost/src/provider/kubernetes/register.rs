//! Registering what runs outside of the cluster: a Service without a selector, and an EndpointSlice
//! of its own for each instance.
//!
//! What is written is ours and says so by labels; what isn't ours is never touched. A slice tells
//! when it was renewed last and how long that is good for, so that the next who registers the
//! service can clear away what a killed process has left.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use http::Method;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    access::{Access, REGISTER},
    connection::{Ask, Connection},
    fault::Fault,
    manifest,
    place::Place,
    record::{self, EXPIRES_AFTER, INSTANCE, Labels, MANAGED_BY, RENEWED_AT, Record, US},
};
use crate::{
    error::{ProviderError, ProviderErrorKind},
    model::{Health, Host, Instance, InstanceId},
    provider::{Heartbeat, Report},
    registrar::Registration,
};

/// How often a slice is renewed, if nothing else is written. Each renewal is news to all who watch.
const RENEW: Duration = Duration::from_secs(60);

const OWNER: &str = "app.kubernetes.io/managed-by";
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What this provider has registered.
#[derive(Debug)]
pub(super) struct Registrations {
    connection: Arc<Connection>,
    access: Arc<Access>,
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
        access: Arc<Access>,
        namespace: Arc<str>,
        cluster_domain: Arc<str>,
    ) -> Self {
        Self {
            connection,
            access,
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
        self.clear_left_overs(&place).await?;
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
        let kept: Result<Found, Fault> = if is_news || held.renewed.elapsed() >= RENEW {
            (held.is_ready, held.renewed) = (is_ready, Instant::now());
            let slice = slice(registration, &held);
            self.connection.send(Method::PUT, &path, &slice).await
        } else {
            let ask = Ask::new(&path, &[]);
            self.connection.get(ask, Connection::DEADLINE).await
        };
        match kept {
            Ok(kept) if kept.is_of(id) => {
                self.held().insert(id.clone(), held);
                Ok(Heartbeat::Known)
            }
            Ok(_) => Ok(Heartbeat::Forgotten),
            Err(fault) if fault.code() == 404 => Ok(Heartbeat::Forgotten),
            Err(fault) => Err(self.explained(&held.place, fault).await),
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
            Err(fault) => return Err(self.explained(&held.place, fault).await),
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
        let path = format!("{}/{}", slices_path(&namespace), slice_name(id));
        let ask = Ask::new(&path, &[]);
        let found: Result<Found, Fault> = self.connection.get(ask, Connection::DEADLINE).await;
        let place = match found {
            Err(fault) if fault.code() == 404 => None,
            Err(fault) => return Err(self.access.explain(&namespace, &REGISTER, fault).await),
            // Another may have taken our name after we had been cleared away.
            Ok(found) if !found.is_of(id) => None,
            Ok(found) => {
                let deleted = self.connection.delete(&path).await;
                let explain = |fault| self.access.explain(&namespace, &REGISTER, fault);
                if let Err(fault) = deleted {
                    return Err(explain(fault).await);
                }
                found.label(SERVICE_NAME).map(|service| Place {
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
        let all = format!("/api/v1/namespaces/{}/services", place.namespace);
        let path = format!("{all}/{}", place.service);
        let found: Found = loop {
            let ask = Ask::new(&path, &[]);
            match self.connection.get(ask, Connection::DEADLINE).await {
                Ok(found) => break found,
                Err(fault) if fault.code() == 404 => {}
                Err(fault) => return Err(self.explained(place, fault).await),
            }
            let service = service(place, instance);
            match self.connection.send(Method::POST, &all, &service).await {
                Ok(made) => break made,
                // Somebody was quicker; let's see whether it is ours.
                Err(fault) if fault.code() == 409 => {}
                Err(fault) => return Err(self.explained(place, fault).await),
            }
        };
        if found.label(OWNER) == Some(US) && found.spec.selector.is_none() {
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
            slices_path(&held.place.namespace),
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
            Err(fault) => Err(self.explained(&held.place, fault).await),
        }
    }

    /// Deletes the slices of this service whose processes have ended without a word.
    async fn clear_left_overs(&self, place: &Place) -> Result<(), ProviderError> {
        let slices = match self.slices(place, Some(US)).await {
            Ok(slices) => slices,
            Err(fault) => return Err(self.explained(place, fault).await),
        };
        let now = SystemTime::now();
        for slice in slices {
            let metadata = slice.metadata;
            if !record::is_left_over(metadata.annotations.as_ref(), now) {
                continue;
            }
            let path = format!("{}/{}", slices_path(&place.namespace), metadata.name);
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
        let (namespace, name) = (&place.namespace, &place.service);
        let path = format!("/api/v1/namespaces/{namespace}/services/{name}");
        let ask = Ask::new(&path, &[]);
        let service: Found = match self.connection.get(ask, Connection::DEADLINE).await {
            Err(fault) if fault.code() == 404 => return Ok(()),
            found => found?,
        };
        match service.label(OWNER) == Some(US) && service.spec.selector.is_none() {
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
        let path = slices_path(&place.namespace);
        let query = [("labelSelector", selector.as_str())];
        let ask = Ask::new(&path, &query);
        let list: FoundList = self.connection.get(ask, Connection::DEADLINE).await?;
        Ok(list.items.unwrap_or_default())
    }

    async fn explained(&self, place: &Place, fault: Fault) -> ProviderError {
        self.access
            .explain(&place.namespace, &REGISTER, fault)
            .await
    }

    fn rejected(&self, why: String) -> ProviderError {
        self.connection.error(ProviderErrorKind::Rejected, why)
    }

    /// A map is never half changed, so a panic elsewhere leaves it in order.
    fn held(&self) -> MutexGuard<'_, HashMap<InstanceId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// --- what is written ---

fn service(place: &Place, instance: &Instance) -> Value {
    let ports: Vec<_> = ports(instance)
        .map(|(name, port)| json!({ "name": name, "port": port, "targetPort": port }))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": &*place.service, "labels": { OWNER: US } },
        "spec": { "ports": ports },
    })
}

fn slice(registration: &Registration, held: &Held) -> Value {
    let instance = registration.instance();
    let is_ready = held.is_ready && !held.in_maintenance;
    let mut endpoint = json!({
        "addresses": [instance.host().bare()],
        "conditions": { "ready": is_ready, "serving": is_ready, "terminating": false },
    });
    if let Some(zone) = instance.zone() {
        endpoint["zone"] = zone.into();
    }
    let ports: Vec<_> = ports(instance)
        .map(|(name, port)| json!({ "name": name, "port": port, "protocol": "TCP" }))
        .collect();
    let renewed = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let mut annotations = json!({
        INSTANCE: json!(Record::of(instance)).to_string(),
        RENEWED_AT: renewed,
    });
    // As with other registries, what has no check is there until it is taken back.
    let is_watched = registration.health().is_some() || !registration.checks().is_empty();
    if let Some(after) = registration
        .deregister_critical_after()
        .filter(|_| is_watched)
    {
        let after = after.max(3 * RENEW);
        annotations[EXPIRES_AFTER] = humantime::format_duration(after).to_string().into();
    }
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": slice_name(instance.id()),
            "namespace": &*held.place.namespace,
            "labels": { SERVICE_NAME: &*held.place.service, MANAGED_BY: US },
            "annotations": annotations,
            "ownerReferences": [{
                "apiVersion": "v1",
                "kind": "Service",
                "name": &*held.place.service,
                "uid": &*held.uid,
            }],
        },
        "addressType": address_type(instance.host()),
        "endpoints": [endpoint],
        "ports": ports,
    })
}

/// The instance's port under the name of its scheme, then those that have names of their own.
fn ports(instance: &Instance) -> impl Iterator<Item = (&str, u16)> {
    let main = (instance.scheme(), instance.port());
    let others = instance.ports().filter(move |(name, _)| *name != main.0);
    std::iter::once(main).chain(others)
}

fn address_type(host: &Host) -> &'static str {
    match host {
        Host::Ip(IpAddr::V4(_)) => "IPv4",
        Host::Ip(IpAddr::V6(_)) => "IPv6",
        Host::Name(_) => "FQDN",
    }
}

/// Why the API server refuses an address, in the words of its own rules.
fn refusal(host: &Host) -> Option<&'static str> {
    let ip = match host {
        Host::Ip(ip) => *ip,
        Host::Name(name) if !name.trim_end_matches('.').contains('.') => {
            return Some("a name that only this machine understands: it has no dot");
        }
        Host::Name(_) => return None,
    };
    let is_link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    match ip {
        ip if ip.is_loopback() => Some("a loopback address, which leads every pod to itself"),
        ip if ip.is_unspecified() => Some("which is no address to connect to"),
        ip if ip.is_multicast() => Some("a multicast address"),
        _ if is_link_local => Some("a link-local address, which is good on one wire only"),
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => {
            Some("an IPv4 address written as IPv6; write it as IPv4")
        }
        _ => None,
    }
}

/// A name for the slice of an instance: readable, and different for different ids.
fn slice_name(id: &InstanceId) -> String {
    const LONGEST: usize = 253 - "waypost--12345678".len();
    let id = id.as_str();
    let tame = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9' | '-') => c,
        _ => '-',
    };
    let mut name: String = id.chars().map(tame).take(LONGEST).collect();
    name.truncate(name.trim_end_matches('-').len());
    let name = name.trim_start_matches('-');
    match name == id {
        true => format!("waypost-{name}"),
        false => format!("waypost-{name}-{:08x}", crc32fast::hash(id.as_bytes())),
    }
}

fn slices_path(namespace: &str) -> String {
    format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices")
}

fn slice_path(place: &Place, id: &InstanceId) -> String {
    format!("{}/{}", slices_path(&place.namespace), slice_name(id))
}

// --- what is read of it ---

/// A Service or an EndpointSlice.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    metadata: FoundMetadata,
    #[serde(default)]
    spec: FoundSpec,
    #[serde(default)]
    address_type: Box<str>,
}

#[derive(Deserialize)]
struct FoundList {
    items: Option<Vec<Found>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct FoundMetadata {
    name: Box<str>,
    uid: Box<str>,
    resource_version: Box<str>,
    labels: Option<Labels>,
    annotations: Option<Labels>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct FoundSpec {
    selector: Option<Labels>,
}

impl Found {
    fn label(&self, key: &str) -> Option<&str> {
        Some(self.metadata.labels.as_ref()?.get(key)?)
    }

    /// Whether it is our slice of this instance.
    fn is_of(&self, id: &InstanceId) -> bool {
        let metadata = &self.metadata;
        let record = Record::in_slice(metadata.labels.as_ref(), metadata.annotations.as_ref());
        record.is_some_and(|record| record.id() == id.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_has_a_name_of_its_own_that_the_api_server_takes() {
        let long = "x".repeat(400);
        let ids = [
            "billing-1",
            "Billing-1",
            "billing_1",
            "-billing-1-",
            "größe:80",
            "-",
            "",
            &long,
        ];
        let names: std::collections::BTreeSet<_> = ids
            .iter()
            .map(|id| slice_name(&InstanceId::new(*id)))
            .collect();
        assert_eq!(names.len(), ids.len(), "{names:?}");
        assert!(names.contains("waypost-billing-1"));
        for name in names {
            let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(name.len() <= 253 && name.chars().all(is_inner), "{name}");
            assert!(!name.ends_with('-'), "{name}");
        }
    }

    #[test]
    fn addresses_that_lead_nowhere_are_told_with_the_reason() {
        for (host, word) in [
            ("127.0.0.1", "loopback"),
            ("::1", "loopback"),
            ("169.254.1.1", "link-local"),
            ("fe80::1", "link-local"),
            ("0.0.0.0", "no address"),
            ("224.0.0.1", "multicast"),
            ("::ffff:10.0.0.1", "IPv4"),
            ("localhost", "no dot"),
        ] {
            let why = refusal(&host.parse().unwrap()).unwrap();
            assert!(why.contains(word), "{host}: {why}");
        }
        for host in ["10.0.0.7", "2001:db8::1", "db.example.com"] {
            assert_eq!(refusal(&host.parse().unwrap()), None, "{host}");
        }
    }
}
