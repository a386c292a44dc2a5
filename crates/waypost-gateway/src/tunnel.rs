//! What a connection becomes after `101 Switching Protocols`, such as a WebSocket: bytes both ways.

use http::{HeaderMap, HeaderValue, Version, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;
use waypost::Lease;

use crate::access_log::{AccessLog, End};
use crate::headers;

/// The protocol that a request wants to switch to.
///
/// `h2c` is not one: over it a client could speak past every rule of the gateway. RFC 9113 has
/// withdrawn it, and a server may ignore any upgrade (RFC 9110, section 7.8).
pub(crate) fn wanted(version: Version, headers: &HeaderMap) -> Option<HeaderValue> {
    let protocol = headers.get(header::UPGRADE)?;
    let asked = version == Version::HTTP_11
        && headers::lists(headers, &header::CONNECTION, "upgrade")
        && !headers::lists(headers, &header::UPGRADE, "h2c");
    asked.then(|| protocol.clone())
}

/// Carries bytes until both sides have ended, or the gateway has to go.
pub(crate) async fn run(
    client: OnUpgrade,
    instance: OnUpgrade,
    mut log: AccessLog,
    _lease: Lease,
    closing: CancellationToken,
) {
    let carry = async {
        let (client, instance) = futures_util::future::try_join(client, instance).await?;
        let (mut client, mut instance) = (TokioIo::new(client), TokioIo::new(instance));
        copy(&mut client, &mut instance).await
    };
    let carried = tokio::select! {
        carried = carry => carried,
        () = closing.cancelled() => {
            log.end = End::Shutdown;
            return;
        }
    };
    log.end = End::Tunnel;
    match carried {
        Ok((_, from_instance)) => log.response_bytes = from_instance,
        Err(error) => log.cause = Some(error.to_string()),
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn copy(
    client: &mut TokioIo<Upgraded>,
    instance: &mut TokioIo<Upgraded>,
) -> Result<(u64, u64), BoxError> {
    Ok(tokio::io::copy_bidirectional(client, instance).await?)
}
