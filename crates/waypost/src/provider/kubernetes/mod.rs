//! Kubernetes: the endpoints of Services, by its API.

#![allow(dead_code)] // registration, which writes, comes next

mod access;
mod builder;
mod config;
mod connection;
mod events;
mod fault;
mod join;
mod members;
mod mirror;
mod place;
mod ports;
mod pulse;
mod reflector;
mod register;
mod said;
mod sight;
mod token;
mod view;
mod views;
mod wire;

use std::{fmt, net::IpAddr, sync::Arc};

pub use builder::KubernetesBuilder;
#[allow(unused_imports)]
pub(crate) use config::pod_without_token;

use futures_util::{FutureExt, future::BoxFuture};

use self::{connection::Connection, register::Registrations, views::Views};
use super::{Heartbeat, NamesWatch, Provider, Registry, Report, Watch};
use crate::{
    environment::Environment,
    error::{Error, ProviderError},
    model::{InstanceId, ServiceName},
    registrar::Registration,
};

/// Finds the endpoints of Services by the API of Kubernetes.
#[derive(Clone)]
pub struct KubernetesProvider {
    views: Arc<Views>,
    registrations: Arc<Registrations>,
}

impl KubernetesProvider {
    /// Begins a provider that takes what isn't set from this process's environment.
    pub fn builder() -> KubernetesBuilder {
        KubernetesBuilder::of(&Environment::of_this_process())
    }

    /// The cluster and namespace that the environment names; see [`settings`](crate::settings).
    ///
    /// # Errors
    /// If a variable or a file is bad.
    pub fn from_environment(environment: &Environment) -> Result<Self, Error> {
        KubernetesBuilder::of(environment).build()
    }

    /// The way to the API server.
    fn connection(&self) -> &Arc<Connection> {
        self.views.connection()
    }
}

impl fmt::Debug for KubernetesProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubernetesProvider")
            .field("connection", self.connection())
            .finish_non_exhaustive()
    }
}

impl Provider for KubernetesProvider {
    fn describe(&self) -> Arc<str> {
        Arc::clone(self.connection().describe())
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        self.views.watch(service)
    }

    fn watch_names(&self) -> NamesWatch {
        self.views.watch_names()
    }

    fn registry(&self) -> Result<&dyn Registry, ProviderError> {
        Ok(self)
    }
}

/// For what runs outside of the cluster. In a pod nothing is accepted, with the reason and what to
/// put into the pod's manifests instead.
impl Registry for KubernetesProvider {
    fn accepts(&self, registration: &Registration) -> Result<(), ProviderError> {
        self.registrations.accepts(registration)
    }

    fn register<'a>(
        &'a self,
        registration: &'a Registration,
        report: &'a Report,
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        self.registrations.register(registration, report).boxed()
    }

    fn deregister<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<(), ProviderError>> {
        self.registrations.deregister(id).boxed()
    }

    fn heartbeat<'a>(
        &'a self,
        registration: &'a Registration,
        report: Report,
    ) -> BoxFuture<'a, Result<Heartbeat, ProviderError>> {
        let registrations = &self.registrations;
        async move { registrations.heartbeat(registration, &report).await }.boxed()
    }

    fn set_maintenance<'a>(
        &'a self,
        registration: &'a Registration,
        reason: Option<&'a str>,
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        self.registrations
            .set_maintenance(registration, reason)
            .boxed()
    }

    fn local_address(&self) -> Option<IpAddr> {
        self.registrations.local_address()
    }
}
