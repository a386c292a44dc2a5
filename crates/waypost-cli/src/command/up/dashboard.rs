//! The HTTP server of the dashboard, in the process of `waypost up`.

use std::net::SocketAddr;

use axum::Router;
use data_encoding::HEXLOWER;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;
use waypost_runner::control::{BrowserAccess, Control, browser_router};

use crate::command::listen::listen_error;
use crate::error::CommandError;
use crate::random::random;

/// The server. It is stopped on drop.
pub(super) struct Dashboard {
    /// The link for the user, with the token of this session.
    pub(super) link: String,
    _server: AbortOnDropHandle<()>,
}

impl Dashboard {
    pub(super) async fn start(address: SocketAddr, control: Control) -> Result<Self, CommandError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| listen_error(address, &error, "--port dashboard=PORT"))?;
        let token = HEXLOWER.encode(&random::<16>()?);
        let router: Router = browser_router(control, BrowserAccess::new(&token));
        let server: JoinHandle<()> = tokio::spawn(async move {
            // The server never ends by itself.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self {
            // A fragment is never sent to a server, so the token doesn't appear in logs.
            link: format!("http://localhost:{}/#token={token}", address.port()),
            _server: AbortOnDropHandle::new(server),
        })
    }
}
