//! Test support: a gateway, servers behind it, and clients in front of it.

mod client;
mod gateway;
mod issuer;
mod origin;
mod process;
mod registry;
mod routed;

use std::time::Duration;

pub(crate) use client::{FullResponse, RawClient};
pub(crate) use gateway::{TestGateway, instance};
pub(crate) use issuer::{Issuer, KeyServer, seconds_from_now};
pub(crate) use origin::{Body, Origin, RawOrigin, body, streamed, unused_address};
pub(crate) use process::GatewayProcess;
pub(crate) use registry::FlakyRegistry;
pub(crate) use routed::Routed;

/// The time limit of every wait.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Awaits a future, and panics after [`DEADLINE`].
pub(crate) async fn with_deadline<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {DEADLINE:?} for {what}"),
    }
}

/// Waits until a condition holds, and panics after [`DEADLINE`].
pub(crate) async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    with_deadline(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// Lets time pass, during which nothing is sent. The gateway must run in the test's runtime.
pub(crate) async fn pass_time(time: Duration) {
    tokio::time::pause();
    tokio::time::sleep(time).await;
    tokio::time::resume();
}
