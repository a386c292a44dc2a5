//! Kubernetes: the endpoints of Services, by its API.

#![allow(dead_code)] // the parts come one after the other

mod builder;
mod config;
mod connection;
mod fault;
mod place;
mod token;
mod views;

use std::{fmt, sync::Arc};

pub use builder::KubernetesBuilder;
#[allow(unused_imports)]
pub(crate) use config::pod_without_token;

use self::{connection::Connection, views::Views};
use super::{NamesWatch, Provider, Watch};
use crate::{environment::Environment, error::Error, model::ServiceName};

/// Finds the endpoints of Services by the API of Kubernetes.
#[derive(Clone)]
pub struct KubernetesProvider {
    views: Arc<Views>,
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
}
