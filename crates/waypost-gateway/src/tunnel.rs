//! Upgraded connections such as WebSockets: after `101 Switching Protocols`, bytes are copied both
//! ways.

use http::{HeaderMap, HeaderValue, Version, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;
use waypost::Lease;

use crate::exchange::Exchange;
use crate::headers;
use crate::stream_info::EndReason;

/// The value of `Upgrade` if the request asks to switch to another protocol.
///
/// `h2c` is ignored: requests inside it would bypass the gateway's checks ("h2c smuggling"). RFC
/// 9113 has deprecated it, and a server may ignore any upgrade (RFC 9110, section 7.8).
pub(crate) fn requested_protocol(version: Version, headers: &HeaderMap) -> Option<HeaderValue> {
    let protocol = headers.get(header::UPGRADE)?;
    let upgrades = version == Version::HTTP_11
        && headers::has_token(headers, &header::CONNECTION, "upgrade")
        && !headers::has_token(headers, &header::UPGRADE, "h2c");
    upgrades.then(|| protocol.clone())
}

/// Copies bytes until both sides have closed, or until `closing` is cancelled.
pub(crate) async fn run(
    client: OnUpgrade,
    instance: OnUpgrade,
    mut exchange: Exchange,
    _lease: Lease,
    closing: CancellationToken,
) {
    let copying = async {
        let (client, instance) = futures_util::future::try_join(client, instance).await?;
        let (mut client, mut instance) = (TokioIo::new(client), TokioIo::new(instance));
        copy(&mut client, &mut instance).await
    };
    let copied = tokio::select! {
        copied = copying => copied,
        () = closing.cancelled() => {
            exchange.end = EndReason::Shutdown;
            return;
        }
    };
    exchange.end = EndReason::Tunnel;
    match copied {
        Ok((_, from_instance)) => exchange.response_bytes = from_instance,
        Err(error) => exchange.cause = Some(error.to_string()),
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn copy(
    client: &mut TokioIo<Upgraded>,
    instance: &mut TokioIo<Upgraded>,
) -> Result<(u64, u64), BoxError> {
    Ok(tokio::io::copy_bidirectional(client, instance).await?)
}
