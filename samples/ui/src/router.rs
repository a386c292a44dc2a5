//! The routes of the service.

use std::sync::Arc;

use axum::Router;
use axum::routing::{any, get};
use http::Uri;
use tokio_util::sync::CancellationToken;
use waypost::integration::axum::CrossOriginProtection;
use waypost::{ServiceDiscoveryClient, ServiceName};

use crate::error::Error;
use crate::events::EventsState;
use crate::problem::Problem;
use crate::proxy::Proxy;
use crate::{events, page, proxy, watcher};

/// The names of the services that the page calls.
#[derive(Clone, Debug)]
pub struct Peers {
    /// The gateway. Default: `api-gateway`.
    pub gateway: String,
    /// The AI models. Default: `ai-models`.
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

/// All routes of the service, without the health checks. Requests of web pages of other sites are
/// refused. Must be called within a Tokio runtime.
///
/// # Errors
/// If a name is not valid or the HTTP client can't be created. An unreachable registry or gateway
/// is not an error: the page shows it.
pub fn router(client: &ServiceDiscoveryClient, peers: &Peers) -> Result<Router, Error> {
    let app = router_until(client, peers, CancellationToken::new())?;
    Ok(CrossOriginProtection::new().protect(app))
}

/// Like [`router`], but without protection from web pages of other sites. The event streams end when
/// `shutdown` is cancelled.
pub(crate) fn router_until(
    client: &ServiceDiscoveryClient,
    peers: &Peers,
    shutdown: CancellationToken,
) -> Result<Router, Error> {
    let models = ServiceName::new(peers.models.as_str()).map_err(waypost::Error::from)?;
    let proxy = Proxy::new(client.balancer(peers.gateway.as_str())?, &models)?;
    let events_state = EventsState {
        overviews: watcher::watch_services(client.directory()),
        shutdown,
    };
    Ok(Router::new()
        .route(
            "/api/{*path}",
            any(proxy::proxy).with_state(Arc::new(proxy)),
        )
        .route("/events", get(events::events).with_state(events_state))
        .merge(page::router())
        .fallback(|uri: Uri| async move { Problem::no_such_path(uri.path()) }))
}
