//! Routes from the Gateway API of Kubernetes: `HTTPRoute` objects that are attached to a Gateway of our
//! class.
//!
//! ```text
//!  objects ──► controller ──► resolve ──► routes ──► the route table
//!  watched         ▲          pure    ├─► certificates ──► server TLS
//!                  │                  └─► changes ──► status writer
//!  secrets ────────┘
//!  read by name
//! ```
//!
//! The rules are those of the Gateway API v1 (<https://gateway-api.sigs.k8s.io/reference/spec/>).

mod certificates;
mod conditions;
mod controller;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod listeners;
mod objects;
mod resolve;
mod rules;
mod secrets;
mod snapshot;
mod status_writer;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use waypost::provider::kubernetes::KubernetesProvider;

pub(crate) use self::controller::follow;

/// The name of this controller, which a GatewayClass has in `spec.controllerName`.
const CONTROLLER: &str = "waypost.dev/gateway";

/// Takes routes from the Gateway API of a Kubernetes cluster. Start from [`new`](Self::new) and change
/// fields:
///
/// ```no_run
/// use waypost::provider::kubernetes::KubernetesProvider;
/// use waypost_gateway::{Config, GatewayApi};
///
/// let provider = KubernetesProvider::builder().build()?;
/// let mut config = Config::default();
/// config.gateway_api = Some(GatewayApi::new(provider, "waypost"));
/// # Ok::<(), waypost::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GatewayApi {
    /// The cluster, which must also be the one in which the gateway discovers services.
    pub provider: KubernetesProvider,
    /// The name of the GatewayClass whose Gateways are served. Its `controllerName` must be
    /// `waypost.dev/gateway`.
    pub class: String,
    /// Whether clients connect with TLS, so that listeners must be HTTPS, even if
    /// [`Config::tls`](crate::Config::tls) is empty. Listeners name the Secrets with their certificates in
    /// `certificateRefs`. False by default.
    pub tls: bool,
    /// How often these Secrets are read to notice renewed certificates. 30 s by default. A Secret that can't
    /// be used is read again sooner: after 5 s, and then at doubling intervals.
    pub secret_interval: Duration,
    /// The port that listeners must have: the port at which clients reach this gateway. 80 by default.
    pub port: u16,
    /// The addresses at which clients reach this gateway, for the status of Gateways. None by default.
    pub addresses: Vec<String>,
    /// The file in which the objects are kept, for a gateway that starts while the API server is down.
    /// None by default.
    pub snapshot_file: Option<PathBuf>,
}

impl GatewayApi {
    /// Serves the Gateways of a class.
    pub fn new(provider: KubernetesProvider, class: impl Into<String>) -> Self {
        Self {
            provider,
            class: class.into(),
            tls: false,
            secret_interval: Duration::from_secs(30),
            port: 80,
            addresses: Vec::new(),
            snapshot_file: None,
        }
    }
}

/// What the translation depends on, apart from the objects.
#[derive(Clone, Debug)]
struct Settings {
    class: String,
    /// Whether clients connect with TLS.
    has_tls: bool,
    /// Whether the gateway has certificates in files.
    has_files: bool,
    port: u16,
    addresses: Vec<String>,
    /// The namespace of service names that have none.
    namespace: String,
    allows_external_names: bool,
}

impl Settings {
    /// The protocol that listeners must have.
    fn protocol(&self) -> &'static str {
        if self.has_tls { "HTTPS" } else { "HTTP" }
    }
}
