//! The HTTP server of the dashboard, in the process of `waypost up`.

use std::net::SocketAddr;

use data_encoding::HEXLOWER;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;
use waypost::integration::axum::CrossOriginProtection;
use waypost_dashboard::server::{Config, ServicePage, router};
use waypost_runner::control::{BrowserAccess, Control, browser_router};

use crate::command::listen::listen_error;
use crate::error::CommandError;
use crate::random::random;

/// The name under which the gateway registers.
const GATEWAY: &str = "api-gateway";

/// A server that ends when this is dropped.
pub(super) struct Dashboard {
    /// The link for the user, with the token of this session.
    pub(super) link: String,
    _server: AbortOnDropHandle<()>,
}

impl Dashboard {
    /// Starts the server. `option` is the option that sets its port, for errors; `pages` are the pages
    /// of the stack's services.
    pub(super) async fn start(
        address: SocketAddr,
        option: &str,
        control: Control,
        registry_address: &str,
        pages: Vec<ServicePage>,
    ) -> Result<Self, CommandError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| listen_error(address, &error, option))?;
        let token = HEXLOWER.encode(&random::<16>()?);
        let mut config = Config::new(&format!("http://{registry_address}"), &token);
        config.has_stack = true;
        let has_gateway = control.stack().gateway.is_some();
        config.gateway = has_gateway.then(|| GATEWAY.to_owned());
        config.pages = pages;
        let pages = router(config).map_err(CommandError::other)?;
        let app = CrossOriginProtection::new().protect(pages);
        let app = app.merge(browser_router(control, BrowserAccess::new(&token)));
        let server: JoinHandle<()> = tokio::spawn(async move {
            // It ends only when it is aborted.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self {
            // A fragment is sent to no server and is in no log.
            link: format!("http://localhost:{}/#token={token}", address.port()),
            _server: AbortOnDropHandle::new(server),
        })
    }
}
