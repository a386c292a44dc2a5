//! A service with one page. On it one asks the AI models, through the gateway, sees which instance
//! answered, and watches all services live.
//!
//! It is a sample of a service built on `waypost`: it finds the gateway by name, shows what the
//! registry knows, and goes on with the last known picture, saying how old it is, while the
//! registry can't be reached.
//!
//! | Path | |
//! |---|---|
//! | `GET /` | the page, all of it from this program |
//! | `/api/…` | the models' API, passed on through the gateway |
//! | `GET /events` | the live services as server-sent events |

mod events;
mod feed;
mod page;
mod picture;
mod problem;
mod proxy;
mod run;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::{any, get};
use http::Uri;
use tokio_util::sync::CancellationToken;
use waypost::integration::axum::ServeError;
use waypost::{ServiceDiscoveryClient, ServiceName};

use problem::Problem;
use proxy::Proxy;
pub use run::{Config, run, run_until};

/// The name under which the service registers.
pub const SERVICE_NAME: &str = "ui";

/// The port it listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 3000;

/// The services that the page calls, by name.
#[derive(Clone, Debug)]
pub struct Peers {
    /// The gateway: `api-gateway` unless set.
    pub gateway: String,
    /// The models, as the gateway knows them: `ai-models` unless set.
    pub models: String,
}

impl Default for Peers {
    fn default() -> Self {
        Self {
            gateway: "api-gateway".into(),
            models: "ai-models".into(),
        }
    }
}

/// Why the service could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name isn't valid, or the registry's settings aren't.
    #[error(transparent)]
    Discovery(#[from] waypost::Error),
    /// The HTTP client can't be made, for instance as no certificates are installed.
    #[error("the HTTP client can't be made: {0}")]
    Client(#[from] reqwest::Error),
    /// The port is taken, or the address isn't one of this machine.
    #[error("can't listen on {address}: {cause}")]
    Listen {
        /// Where it wanted to listen.
        address: SocketAddr,
        /// What the system says.
        cause: std::io::Error,
    },
    /// The listener failed.
    #[error(transparent)]
    Serve(ServeError),
}

/// Everything the service answers, save for health checks; [`run`] adds the rest of a service. Must
/// be called within a Tokio runtime.
///
/// # Errors
/// If a name isn't valid or the HTTP client can't be made. A gateway or a registry that can't be
/// found is no error: the page shows it.
pub fn router(client: &ServiceDiscoveryClient, peers: &Peers) -> Result<Router, Error> {
    router_until(client, peers, CancellationToken::new())
}

/// As [`router`], with live pictures that end when the service leaves.
fn router_until(
    client: &ServiceDiscoveryClient,
    peers: &Peers,
    leaving: CancellationToken,
) -> Result<Router, Error> {
    let models = ServiceName::new(peers.models.as_str()).map_err(waypost::Error::from)?;
    let proxy = Proxy::new(client.balancer(peers.gateway.as_str())?, &models)?;
    let live = events::Live {
        pictures: feed::follow(client.directory()),
        leaving,
    };
    Ok(Router::new()
        .route(
            "/api/{*path}",
            any(proxy::proxy).with_state(Arc::new(proxy)),
        )
        .route("/events", get(events::events).with_state(live))
        .merge(page::router())
        .fallback(|uri: Uri| async move { Problem::no_such_path(uri.path()) }))
}
