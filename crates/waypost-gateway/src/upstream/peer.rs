//! The data that a worker has about an instance: its addresses as header values, and open connections.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::Either;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use waypost::{Host, Instance};

use super::connect;
use super::connection::{Http1, SendError};
use super::tls::ClientTls;
use crate::attempt_error::{AttemptError, AttemptErrorKind};
use crate::request_body::AttemptBody;

/// The number of idle connections that a worker keeps to one instance.
const MAX_IDLE_CONNECTIONS: usize = 256;

/// The number of header lines accepted from an instance that has sent more than hyper's default of
/// 100. hyper is slower with a limit that is set.
const MANY_HEADERS: usize = 1000;
/// How often an HTTP/2 connection is checked with a ping, and how long the response may take.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The ALPN identifiers for each protocol.
const HTTP1_ALPN: &[&[u8]] = &[b"http/1.1"];
const HTTP2_ALPN: &[&[u8]] = &[b"h2"];

/// One worker's data about an instance.
#[derive(Debug)]
pub(crate) struct Peer {
    instance: Arc<Instance>,
    protocol: Result<Protocol, String>,
    /// The instance's own `Host`.
    pub(crate) authority: Option<HeaderValue>,
    /// The instance's id, for a response header.
    pub(crate) id: Option<HeaderValue>,
    tls: Arc<ClientTls>,
    idle: Mutex<Vec<Http1>>,
    http2: tokio::sync::Mutex<Option<http2::SendRequest<AttemptBody>>>,
    has_many_headers: AtomicBool,
    used_at: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Protocol {
    tls: bool,
    http2: bool,
}

/// A connection that a request can be sent on.
#[derive(Debug)]
pub(crate) enum Channel {
    /// Used by one request at a time.
    Http1(Http1),
    /// Shared by many requests.
    Http2 {
        sender: http2::SendRequest<AttemptBody>,
        is_reused: bool,
    },
}

impl Channel {
    /// Sends a request and waits for the head of its response.
    pub(crate) fn send(
        &mut self,
        request: Request<AttemptBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, SendError>> {
        match self {
            Self::Http1(connection) => Either::Left(connection.send(request)),
            Self::Http2 { sender, is_reused } => Either::Right(async move {
                let sent = sender.try_send_request(request).await;
                sent.map_err(|error| SendError::new(error, *is_reused))
            }),
        }
    }

    /// Whether the connection existed before this request.
    pub(crate) fn is_reused(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.is_reused,
            Self::Http2 { is_reused, .. } => *is_reused,
        }
    }

    /// The connection, unless it is shared.
    pub(crate) fn into_http1(self) -> Option<Http1> {
        match self {
            Self::Http1(connection) => Some(connection),
            Self::Http2 { .. } => None,
        }
    }
}

impl Peer {
    pub(crate) fn new(instance: Arc<Instance>, tls: Arc<ClientTls>, cluster_only: bool) -> Self {
        Self {
            protocol: protocol(&instance).and_then(|protocol| {
                check_address(&instance, cluster_only)?;
                Ok(protocol)
            }),
            authority: HeaderValue::from_str(&instance.authority()).ok(),
            id: HeaderValue::from_str(instance.id().as_str()).ok(),
            tls,
            idle: Mutex::default(),
            http2: tokio::sync::Mutex::default(),
            has_many_headers: AtomicBool::new(false),
            used_at: AtomicU64::new(0),
            instance,
        }
    }

    /// Whether the instance is called with TLS.
    pub(crate) fn uses_tls(&self) -> bool {
        self.protocol.as_ref().is_ok_and(|protocol| protocol.tls)
    }

    /// A path below the path of the instance's URL.
    pub(crate) fn below_path_prefix(&self, path: PathAndQuery) -> PathAndQuery {
        let prefix = self.instance.path_prefix();
        if prefix.is_empty() {
            return path;
        }
        let whole = format!("{prefix}{path}");
        whole.parse().unwrap_or(path)
    }

    /// Accepts more header lines from now on. Returns false if it did so before.
    pub(crate) fn expect_many_headers(&self) -> bool {
        !self.has_many_headers.swap(true, Ordering::Relaxed)
    }

    pub(super) fn used_at(&self) -> u64 {
        self.used_at.load(Ordering::Relaxed)
    }

    /// Returns an idle connection or opens a new one. `now` is in milliseconds since the worker started.
    pub(crate) async fn channel(
        &self,
        now: u64,
        connect_timeout: Duration,
    ) -> Result<Channel, AttemptError> {
        self.used_at.store(now, Ordering::Relaxed);
        let protocol = self
            .protocol
            .as_ref()
            .map_err(|cause| AttemptError::new(AttemptErrorKind::NotCallable, cause.clone()))?;
        // Rare operations are boxed, so that the future of each request is small.
        if protocol.http2 {
            return Box::pin(self.http2(protocol.tls, connect_timeout)).await;
        }
        while let Some(mut connection) = self.take_idle() {
            // The connection was ready when it became idle.
            if connection.idle_since == now || connection.is_ready() {
                connection.is_reused = true;
                return Ok(Channel::Http1(connection));
            }
        }
        Box::pin(self.connect_http1(protocol.tls, connect_timeout))
            .await
            .map(Channel::Http1)
    }

    async fn connect_http1(&self, tls: bool, timeout: Duration) -> Result<Http1, AttemptError> {
        let tls = tls.then_some((&*self.tls, HTTP1_ALPN));
        let stream = connect::connect(&self.instance, tls, timeout).await?;
        let has_many_headers = self.has_many_headers.load(Ordering::Relaxed);
        Http1::start(stream, has_many_headers.then_some(MANY_HEADERS)).await
    }

    /// Keeps a connection for another request if it can be used again.
    pub(crate) fn release(&self, mut connection: Http1, now: u64) {
        if connection.is_ready_again() {
            connection.idle_since = now;
            let mut idle = self.idle();
            if idle.len() < MAX_IDLE_CONNECTIONS {
                idle.push(connection);
            }
        }
    }

    /// Closes the connections that became idle before `limit`.
    pub(super) fn close_idle(&self, limit: u64) {
        self.idle()
            .retain(|connection| connection.idle_since >= limit);
    }

    /// Sets the target of a request: a path for HTTP/1.1, a whole URI for HTTP/2.
    pub(crate) fn set_target(
        &self,
        request: &mut Request<AttemptBody>,
        path: PathAndQuery,
        is_http2: bool,
    ) -> Result<(), AttemptError> {
        if !is_http2 {
            *request.uri_mut() = Uri::from(path);
            return Ok(());
        }
        let host = request.headers_mut().remove(http::header::HOST);
        let host = host.or_else(|| self.authority.clone());
        let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let scheme = if self.uses_tls() {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        };
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(scheme);
        parts.authority = authority;
        parts.path_and_query = Some(path);
        *request.uri_mut() = Uri::from_parts(parts)
            .map_err(|error| AttemptError::new(AttemptErrorKind::NotCallable, error.to_string()))?;
        *request.version_mut() = http::Version::HTTP_2;
        Ok(())
    }

    fn take_idle(&self) -> Option<Http1> {
        self.idle().pop()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Http1>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The HTTP/2 connection. While it is being opened, other requests wait for it instead of opening
    /// another one.
    async fn http2(&self, tls: bool, timeout: Duration) -> Result<Channel, AttemptError> {
        let mut shared = self.http2.lock().await;
        if let Some(sender) = shared.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(Channel::Http2 {
                sender: sender.clone(),
                is_reused: true,
            });
        }
        let tls = tls.then_some((&*self.tls, HTTP2_ALPN));
        let stream = connect::connect(&self.instance, tls, timeout).await?;
        let handshake = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .adaptive_window(true)
            .handshake(TokioIo::new(stream))
            .await;
        let (sender, connection) = handshake
            .map_err(|error| AttemptError::from_hyper(AttemptErrorKind::Connect, &error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "HTTP/2 connection to an instance failed");
            }
        });
        *shared = Some(sender.clone());
        Ok(Channel::Http2 {
            sender,
            is_reused: false,
        })
    }
}

/// Rejects addresses that an instance in a cluster can't have. A name from outside of the cluster, such
/// as an `ExternalName` Service's, could resolve to any address of this machine or of the cloud.
fn check_address(instance: &Instance, cluster_only: bool) -> Result<(), String> {
    if !cluster_only {
        return Ok(());
    }
    match instance.host() {
        Host::Ip(ip) if is_cluster_address(*ip) => Ok(()),
        Host::Name(name) if name.contains(".svc.") => Ok(()),
        host => Err(format!(
            "{host} is not the address of an instance in a cluster"
        )),
    }
}

fn is_cluster_address(ip: IpAddr) -> bool {
    let is_link_local = match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let ip = ip.to_canonical();
    !(is_link_local || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast())
}

/// The protocol of an instance, from its scheme, tags or metadata.
fn protocol(instance: &Instance) -> Result<Protocol, String> {
    let asks_for_http2 = instance
        .meta("protocol")
        .or_else(|| instance.meta("appProtocol"))
        .or_else(|| instance.meta("app_protocol"))
        .is_some_and(is_http2)
        || instance.tags().any(is_http2);
    let (tls, http2) = match instance.scheme() {
        "http" | "ws" => (false, asks_for_http2),
        "https" | "wss" => (true, asks_for_http2),
        "h2c" | "grpc" => (false, true),
        "h2" | "grpcs" => (true, true),
        other => {
            return Err(format!(
                "the scheme {other:?} is not http, https, h2c, h2, grpc or grpcs"
            ));
        }
    };
    Ok(Protocol { tls, http2 })
}

/// Whether a value in metadata, tags or Kubernetes' `appProtocol` means HTTP/2.
fn is_http2(name: &str) -> bool {
    matches!(
        name,
        "h2" | "h2c" | "http2" | "grpc" | "kubernetes.io/h2c" | "protocol=h2c" | "protocol=grpc"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_in_a_cluster_has_no_address_of_this_machine_or_of_the_cloud() {
        for (address, expected) in [
            ("10.1.2.3", true),
            ("192.168.0.1", true),
            ("fd00::1", true),
            ("::ffff:10.1.2.3", true),
            ("127.0.0.1", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("0.0.0.0", false),
            ("::", false),
            ("169.254.169.254", false),
            ("::ffff:169.254.169.254", false),
            ("fe80::1", false),
            ("224.0.0.1", false),
            ("ff02::1", false),
        ] {
            let ip: IpAddr = address.parse().unwrap();
            assert_eq!(is_cluster_address(ip), expected, "{address}");
        }
    }

    fn instance(url: &str, tags: &[&str], meta: &[(&str, &str)]) -> Instance {
        let builder = Instance::from_url("a".parse().unwrap(), url).unwrap();
        let builder = builder.tags(tags.iter().copied());
        builder.metadata(meta.iter().copied()).build().unwrap()
    }

    #[test]
    fn the_protocol_is_that_of_the_scheme_the_metadata_or_the_tags() {
        let (plain, tls) = (Some((false, false)), Some((true, false)));
        let (h2c, h2) = (Some((false, true)), Some((true, true)));
        for (scheme, tags, meta, expected) in [
            ("http", "", ("", ""), plain),
            ("ws", "", ("", ""), plain),
            ("https", "", ("", ""), tls),
            ("wss", "", ("", ""), tls),
            ("h2c", "", ("", ""), h2c),
            ("grpc", "", ("", ""), h2c),
            ("h2", "", ("", ""), h2),
            ("grpcs", "", ("", ""), h2),
            ("tcp", "", ("", ""), None),
            ("http", "grpc", ("", ""), h2c),
            ("http", "protocol=h2c", ("", ""), h2c),
            ("https", "h2", ("", ""), h2),
            ("http", "web", ("", ""), plain),
            ("http", "", ("protocol", "h2c"), h2c),
            ("http", "", ("protocol", "http"), plain),
            ("http", "", ("appProtocol", "kubernetes.io/h2c"), h2c),
            ("http", "", ("app_protocol", "http2"), h2c),
            ("http", "", ("other", "h2c"), plain),
        ] {
            let tags: &[&str] = if tags.is_empty() { &[] } else { &[tags] };
            let meta: &[_] = if meta.0.is_empty() { &[] } else { &[meta] };
            let instance = instance(&format!("{scheme}://192.0.2.1:80"), tags, meta);
            let found = protocol(&instance).ok();
            let found = found.map(|protocol| (protocol.tls, protocol.http2));
            assert_eq!(found, expected, "{scheme} {tags:?} {meta:?}");
        }
    }

    #[test]
    fn in_a_cluster_only_its_own_addresses_and_names_are_called() {
        for (url, is_in_cluster) in [
            ("http://10.0.0.1:80", true),
            ("http://127.0.0.1:80", false),
            ("http://orders.shop.svc.cluster.local:80", true),
            ("http://metadata.google.internal:80", false),
        ] {
            let instance = Arc::new(instance(url, &[], &[]));
            assert!(check_address(&instance, false).is_ok());
            assert_eq!(
                check_address(&instance, true).is_ok(),
                is_in_cluster,
                "{url}"
            );
            let tls = Arc::new(ClientTls::new(None).unwrap());
            let peer = Peer::new(instance, tls, true);
            assert_eq!(peer.protocol.is_ok(), is_in_cluster, "{url}");
        }
    }

    #[test]
    fn the_path_of_a_url_comes_before_the_path_of_a_request() {
        for (url, path, expected) in [
            ("http://192.0.2.1:80", "/a?b", "/a?b"),
            ("http://192.0.2.1:80/base", "/a?b", "/base/a?b"),
        ] {
            let tls = Arc::new(ClientTls::new(None).unwrap());
            let peer = Peer::new(Arc::new(instance(url, &[], &[])), tls, false);
            let path = peer.below_path_prefix(path.parse().unwrap());
            assert_eq!(path, expected);
            assert!(!peer.uses_tls());
        }
    }

    #[test]
    fn a_request_over_http2_names_scheme_and_host_in_its_target() {
        let host = HeaderValue::from_static("shop.example");
        for (url, host, is_http2, expected) in [
            ("http://192.0.2.1:80", Some(&host), false, "/a"),
            (
                "h2c://192.0.2.1:80",
                Some(&host),
                true,
                "http://shop.example/a",
            ),
            ("h2c://192.0.2.1:81", None, true, "http://192.0.2.1:81/a"),
            (
                "h2://192.0.2.1:443",
                Some(&host),
                true,
                "https://shop.example/a",
            ),
        ] {
            let tls = Arc::new(ClientTls::new(None).unwrap());
            let peer = Peer::new(Arc::new(instance(url, &[], &[])), tls, false);
            let mut request = Request::new(AttemptBody::whole(bytes::Bytes::new()));
            if let Some(host) = host {
                request.headers_mut().insert("host", host.clone());
            }
            let path = PathAndQuery::from_static("/a");
            peer.set_target(&mut request, path, is_http2).unwrap();
            assert_eq!(request.uri().to_string(), expected);
            assert_eq!(request.headers().contains_key("host"), !is_http2);
        }
    }
}
