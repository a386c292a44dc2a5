//! What the tests are made of: a gateway, servers behind it, and clients in front of it.

mod client;
mod gateway;
mod origin;
mod registry;

use std::time::Duration;

pub(crate) use client::{Answer, RawClient};
pub(crate) use gateway::{TestGateway, instance};
pub(crate) use origin::{Origin, RawOrigin, body, nobody, streamed};
pub(crate) use registry::FlakyRegistry;

/// No test waits longer than this for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for something that has to happen.
pub(crate) async fn soon<T>(what: &str, happens: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, happens).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    soon(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}
