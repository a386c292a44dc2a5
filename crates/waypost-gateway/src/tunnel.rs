//! Upgraded connections such as WebSockets: after `101 Switching Protocols`, bytes are copied both
//! ways, until neither side has sent anything for as long as the route's idle timeout.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use data_encoding::BASE64;
use http::{Extensions, HeaderValue, Method, Request, Version, header};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use waypost::Lease;

use crate::exchange::Exchange;
use crate::headers;
use crate::stream_info::EndReason;

/// Whether the client wants to switch protocols on a stream of an HTTP/2 connection.
pub(crate) fn is_over_http2(extensions: &Extensions) -> bool {
    extensions.get::<Protocol>().is_some()
}

/// The value of `Upgrade` if the request asks to switch to another protocol.
///
/// `h2c` is ignored: requests inside it would bypass the gateway's checks ("h2c smuggling"). RFC
/// 9113 has deprecated it, and a server may ignore any upgrade (RFC 9110, section 7.8).
pub(crate) fn requested_protocol<B>(request: &Request<B>) -> Option<HeaderValue> {
    let headers = request.headers();
    let protocol = headers::find(headers, &header::UPGRADE)?;
    let may_upgrade = request.version() == Version::HTTP_11 || is_over_http2(request.extensions());
    let upgrades = may_upgrade
        && headers::has_token(headers, &header::CONNECTION, "upgrade")
        && !headers::has_token(headers, &header::UPGRADE, "h2c");
    upgrades.then(|| protocol.clone())
}

/// Whether a request opens a WebSocket over HTTP/2 (RFC 8441).
pub(crate) fn is_websocket_connect<B>(request: &Request<B>) -> bool {
    let protocol = request.extensions().get::<Protocol>();
    *request.method() == Method::CONNECT
        && protocol.is_some_and(|name| name.as_str() == "websocket")
}

/// Turns a request that opens a WebSocket over HTTP/2 into the handshake of HTTP/1.1, which instances
/// understand. The protocol stays in the extensions.
pub(crate) fn into_handshake<B>(request: &mut Request<B>) {
    *request.method_mut() = Method::GET;
    let key = BASE64.encode(&fastrand::u128(..).to_ne_bytes());
    let headers = request.headers_mut();
    let websocket = HeaderValue::from_static("websocket");
    headers.insert(header::UPGRADE, websocket);
    let upgrade = HeaderValue::from_static("upgrade");
    headers.insert(header::CONNECTION, upgrade);
    if let Ok(key) = HeaderValue::try_from(key) {
        headers.insert(header::SEC_WEBSOCKET_KEY, key);
    }
}

/// Copies bytes until both sides have closed, until neither has sent any for `idle`, or until `closing`
/// is cancelled.
pub(crate) async fn run(
    client: OnUpgrade,
    instance: OnUpgrade,
    mut exchange: Exchange,
    _lease: Lease,
    idle: Duration,
    closing: CancellationToken,
) {
    let activity = Activity::new();
    let copying = async {
        let (client, instance) = futures_util::future::try_join(client, instance).await?;
        let [client, instance] = [client, instance].map(TokioIo::new);
        copy(activity.observe(client), activity.observe(instance)).await
    };
    let copied = tokio::select! {
        copied = copying => copied,
        () = activity.ended(idle) => {
            exchange.end = EndReason::IdleTimeout;
            return;
        }
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

async fn copy<T>(mut client: Observed<T>, mut instance: Observed<T>) -> Result<(u64, u64), BoxError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    Ok(tokio::io::copy_bidirectional(&mut client, &mut instance).await?)
}

/// When either side of a tunnel last sent something.
#[derive(Clone)]
struct Activity(Arc<Mutex<Instant>>);

impl Activity {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Records what is read from a connection.
    fn observe<T>(&self, connection: T) -> Observed<T> {
        Observed {
            connection,
            activity: self.clone(),
        }
    }

    /// Returns when nothing has been read for `idle`.
    async fn ended(&self, idle: Duration) {
        loop {
            let last = *self.last();
            tokio::time::sleep_until(last + idle).await;
            if *self.last() == last {
                return;
            }
        }
    }

    fn last(&self) -> MutexGuard<'_, Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One side of a tunnel.
struct Observed<T> {
    connection: T,
    activity: Activity,
}

impl<T: AsyncRead + Unpin> AsyncRead for Observed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.connection).poll_read(context, buffer);
        if buffer.filled().len() > before {
            *self.activity.last() = Instant::now();
        }
        result
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Observed<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[test]
    fn only_a_complete_request_of_http_1_1_switches_protocols() {
        for (version, connection, upgrade, switches) in [
            (Version::HTTP_11, "keep-alive, Upgrade", "websocket", true),
            (Version::HTTP_11, "upgrade", "chat/2", true),
            (Version::HTTP_11, "keep-alive", "websocket", false),
            (Version::HTTP_11, "", "websocket", false),
            (Version::HTTP_11, "upgrade", "", false),
            (Version::HTTP_11, "upgrade", "h2c", false),
            (Version::HTTP_11, "upgrade", "websocket, H2C", false),
            (Version::HTTP_10, "upgrade", "websocket", false),
            (Version::HTTP_2, "upgrade", "websocket", false),
        ] {
            let mut request = Request::builder().version(version);
            for (name, value) in [("connection", connection), ("upgrade", upgrade)] {
                if !value.is_empty() {
                    request = request.header(name, value);
                }
            }
            let request = request.body(()).unwrap();
            let protocol = requested_protocol(&request);
            let expected = switches.then(|| HeaderValue::from_static(upgrade));
            assert_eq!(protocol, expected, "{version:?} {connection} {upgrade}");
        }
        let mut over_http2 = Request::builder()
            .version(Version::HTTP_2)
            .body(())
            .unwrap();
        into_handshake(&mut over_http2);
        assert_eq!(requested_protocol(&over_http2), None);
        let websocket = Protocol::from_static("websocket");
        over_http2.extensions_mut().insert(websocket);
        assert_eq!(requested_protocol(&over_http2).unwrap(), "websocket");
    }

    #[test]
    fn a_websocket_over_http2_is_a_connect_with_that_protocol() {
        for (method, protocol, expected) in [
            (Method::CONNECT, Some("websocket"), true),
            (Method::CONNECT, Some("connect-udp"), false),
            (Method::CONNECT, None, false),
            (Method::GET, Some("websocket"), false),
        ] {
            let mut request = Request::builder().method(method).body(()).unwrap();
            if let Some(name) = protocol {
                request.extensions_mut().insert(Protocol::from_static(name));
            }
            assert_eq!(is_websocket_connect(&request), expected, "{protocol:?}");
            assert_eq!(is_over_http2(request.extensions()), protocol.is_some());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_is_idle_once_neither_side_has_sent_anything_for_that_time() {
        let activity = Activity::new();
        let (mut client, of_client) = duplex(64);
        let (mut instance, of_instance) = duplex(64);
        let copying = copy(activity.observe(of_client), activity.observe(of_instance));
        let copying = tokio::spawn(async { copying.await.ok() });
        let idle = Duration::from_secs(10);
        let started = Instant::now();
        let ended = tokio::spawn({
            let activity = activity.clone();
            async move {
                activity.ended(idle).await;
                started.elapsed()
            }
        });
        for seconds in [9, 18] {
            tokio::time::sleep_until(started + Duration::from_secs(seconds)).await;
            client.write_all(b"a").await.unwrap();
            assert_eq!(instance.read_u8().await.unwrap(), b'a');
        }
        tokio::time::sleep_until(started + Duration::from_secs(27)).await;
        instance.write_all(b"b").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'b');
        assert_eq!(ended.await.unwrap(), Duration::from_secs(37));
        copying.abort();
    }
}
