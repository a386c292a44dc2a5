//! Requests to the API server: each is one attempt, has a deadline, and says plainly how it failed.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use http::{HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::{Body, ClientBuilder};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tracing::dispatcher;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;
use waypost_core::provider::TokenFile;
use waypost_core::{ConfigError, ProviderError, ProviderErrorKind};

use super::access::Told;
use super::config::{Loaded, Source, Stamps, bearer};
use super::events::Chunks;
use super::fault::{Fault, Status};

/// The way to one API server with one identity.
///
/// Credentials are taken from their files whenever they may have changed: a token before each
/// request, certificates and the kubeconfig after a failure.
pub(super) struct Connection {
    source: Source,
    server: http::Uri,
    description: Arc<str>,
    client: Mutex<Maker>,
    built: AtomicU64,
    pub(super) told: Told,
}

/// The client, and the making of one.
#[derive(Default)]
struct Maker {
    made: Option<Arc<Built>>,
    /// A credential plugin may hang; then those who come later wait for the same one.
    making: Option<JoinHandle<Result<Built, String>>>,
}

/// A client, and what it was made of.
struct Built {
    number: u64,
    client: Client,
    token: Option<TokenFile>,
    identity: String,
    stamps: Stamps,
    /// The client has a task of its own, which ends with the runtime.
    runtime: tokio::runtime::Id,
}

/// What to ask for. The path needs no escaping; the query is escaped here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask<'a> {
    pub(super) path: &'a str,
    pub(super) query: &'a [(&'a str, &'a str)],
    pub(super) accept: &'static str,
}

impl<'a> Ask<'a> {
    pub(super) fn new(path: &'a str, query: &'a [(&'a str, &'a str)]) -> Self {
        Self {
            path,
            query,
            accept: "application/json",
        }
    }
}

impl Connection {
    /// How long an ordinary request may take.
    pub(super) const DEADLINE: Duration = Duration::from_secs(10);

    /// The configuration must be right now, though it is read again later. Nothing is sent yet.
    pub(super) fn new(source: Source) -> Result<(Self, Loaded), ConfigError> {
        let loaded = source.load()?;
        let server = shown(&loaded.config.cluster_url);
        let connection = Self {
            source,
            server: loaded.config.cluster_url.clone(),
            description: format!("kubernetes at {server}").into(),
            client: Mutex::default(),
            built: AtomicU64::new(0),
            told: Told::default(),
        };
        Ok((connection, loaded))
    }

    pub(super) fn describe(&self) -> &Arc<str> {
        &self.description
    }

    /// Reads JSON.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        ask: Ask<'_>,
        deadline: Duration,
    ) -> Result<T, Fault> {
        let request = request(Method::GET, ask);
        self.json(request.body(Vec::new()), deadline).await
    }

    /// Sends an object with `POST`, `PUT` or, as a merge patch (RFC 7386), `PATCH`, and gives what
    /// became of it.
    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        object: &impl Serialize,
    ) -> Result<T, Fault> {
        let content_type = match method {
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let body = serde_json::to_vec(object)
            .map_err(|cause| self.error(ProviderErrorKind::Rejected, cause.to_string()))?;
        let request = request(method, Ask::new(path, &[]));
        let request = request
            .header(header::CONTENT_TYPE, content_type)
            .body(body);
        self.json(request, Self::DEADLINE).await
    }

    /// Deletes an object. One that isn't there is no error.
    pub(super) async fn delete(&self, path: &str) -> Result<(), Fault> {
        let request = request(Method::DELETE, Ask::new(path, &[]));
        let deleted: Result<serde::de::IgnoredAny, _> =
            self.json(request.body(Vec::new()), Self::DEADLINE).await;
        match deleted {
            Err(fault) if fault.code() == 404 => Ok(()),
            other => other.map(drop),
        }
    }

    /// Deletes an object if it is still in the state of this resource version.
    pub(super) async fn delete_state(&self, path: &str, version: &str) -> Result<(), Fault> {
        let options = serde_json::json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": { "resourceVersion": version },
        });
        let deleted: serde::de::IgnoredAny = self.send(Method::DELETE, path, &options).await?;
        let _ = deleted;
        Ok(())
    }

    /// Whether we are in a pod, with its identity.
    pub(super) fn is_in_pod(&self) -> bool {
        self.source.is_pod()
    }

    /// The address from which this machine reaches the server. Nothing is sent: connecting a UDP
    /// socket only makes the system choose a route.
    pub(super) fn local_address(&self) -> Option<IpAddr> {
        let (host, port) = (self.server.host()?, self.server.port_u16().unwrap_or(443));
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let target = (host, port).to_socket_addrs().ok()?.next()?;
        let any: IpAddr = match target {
            SocketAddr::V4(_) => [0; 4].into(),
            SocketAddr::V6(_) => [0_u16; 8].into(),
        };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(target).ok()?;
        Some(socket.local_addr().ok()?.ip())
    }

    /// Begins an answer that goes on and on; the deadline is for its beginning.
    pub(super) async fn open(&self, ask: Ask<'_>, deadline: Duration) -> Result<Chunks, Fault> {
        let request = request(Method::GET, ask).body(Vec::new());
        self.in_time(deadline, async {
            let response = self.respond(request).await?;
            let mut chunks = response.into_body().into_data_stream();
            let quietly = dispatcher::Dispatch::none();
            let chunks = stream::poll_fn(move |context| {
                dispatcher::with_default(&quietly, || chunks.poll_next_unpin(context))
            });
            Ok(chunks.boxed())
        })
        .await
    }

    // --- below: one request ---

    async fn json<T: DeserializeOwned>(
        &self,
        request: http::Result<Request<Vec<u8>>>,
        deadline: Duration,
    ) -> Result<T, Fault> {
        self.in_time(deadline, async {
            let response = self.respond(request).await?;
            let body = self.body(response.into_body()).await?;
            serde_json::from_slice(&body).map_err(|cause| {
                let message = format!("an answer that can't be read: {cause}");
                self.error(ProviderErrorKind::BadAnswer, message).into()
            })
        })
        .await
    }

    async fn in_time<T>(
        &self,
        deadline: Duration,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        timeout(deadline, work).await.unwrap_or_else(|_| {
            let kind = ProviderErrorKind::TimedOut { after: deadline };
            let message = format!("no answer in {}", humantime::format_duration(deadline));
            Err(self.error(kind, message).into())
        })
    }

    /// The answer, if it is a good one. A 401 may only mean that our credentials were replaced;
    /// then it is tried once more with the new ones.
    async fn respond(
        &self,
        request: http::Result<Request<Vec<u8>>>,
    ) -> Result<Response<Body>, Fault> {
        let request =
            request.map_err(|cause| self.error(ProviderErrorKind::Rejected, cause.to_string()))?;
        let built = self.client().await?;
        let (outcome, sent) = self.attempt(&built, request.clone()).await;
        match outcome {
            Err(fault) if self.reconsider(&built, &fault, sent.as_ref()).await => {
                let built = self.client().await?;
                self.attempt(&built, request).await.0
            }
            outcome => outcome,
        }
    }

    /// One try, and the token that it was made with.
    async fn attempt(
        &self,
        built: &Built,
        request: Request<Vec<u8>>,
    ) -> (Result<Response<Body>, Fault>, Option<HeaderValue>) {
        let mut request = request.map(Body::from);
        let sent = match built.token.as_ref().map(bearer).transpose() {
            Ok(token) => token,
            Err(why) => {
                let error = self.error(ProviderErrorKind::NotAuthorised, why);
                return (Err(error.into()), None);
            }
        };
        if let Some(token) = &sent {
            request
                .headers_mut()
                .insert(header::AUTHORIZATION, token.clone());
        }
        let response = match quietly(built.client.send(request)).await {
            Ok(response) => response,
            Err(cause) => return (Err(self.broken(cause).into()), sent),
        };
        match response.status().is_success() {
            true => (Ok(response), sent),
            false => (Err(self.refused(response, &built.identity).await), sent),
        }
    }

    /// Whether another try at once may do better. Forgets a client whose files have changed.
    async fn reconsider(&self, built: &Built, fault: &Fault, sent: Option<&HeaderValue>) -> bool {
        let files_changed = built.stamps.have_changed();
        let unauthorised = fault.code() == 401;
        // What a credential plugin gave isn't good any more; the next client asks it again.
        let is_worn_out = unauthorised && built.token.is_none();
        if files_changed || is_worn_out {
            self.forget(built).await;
        }
        let now = built.token.as_ref().and_then(|token| bearer(token).ok());
        let token_changed = unauthorised && now.as_ref() != sent;
        files_changed || token_changed
    }

    async fn forget(&self, built: &Built) {
        let mut maker = self.client.lock().await;
        let made = maker.made.as_ref();
        if made.is_some_and(|now| now.number == built.number) {
            maker.made = None;
        }
    }

    async fn client(&self) -> Result<Arc<Built>, Fault> {
        let runtime = tokio::runtime::Handle::current().id();
        let mut maker = self.client.lock().await;
        if let Some(made) = maker.made.as_ref().filter(|made| made.runtime == runtime) {
            return Ok(Arc::clone(made));
        }
        let begin = || {
            let source = self.source.clone();
            let number = self.built.fetch_add(1, Ordering::Relaxed);
            spawn_blocking(move || build(&source, number, runtime))
        };
        let made = maker.making.get_or_insert_with(begin).await;
        maker.making = None;
        let made = made.unwrap_or_else(|cause| Err(cause.to_string()));
        let made = Arc::new(made.map_err(|why| {
            let message = format!("can't log in: {why}");
            self.error(ProviderErrorKind::NotAuthorised, message)
        })?);
        maker.made = Some(Arc::clone(&made));
        Ok(made)
    }

    async fn body(&self, body: Body) -> Result<bytes::Bytes, Fault> {
        match quietly(body.collect()).await {
            Ok(all) => Ok(all.to_bytes()),
            Err(cause) => Err(self.broken(cause).into()),
        }
    }

    async fn refused(&self, response: Response<Body>, identity: &str) -> Fault {
        let code = response.status().as_u16();
        let header = response.headers().get(header::RETRY_AFTER);
        let retry_after = header.and_then(|value| value.to_str().ok()?.parse().ok());
        let body = self.body(response.into_body()).await.unwrap_or_default();
        // What isn't from an API server but from a proxy before it is text.
        let status = serde_json::from_slice(&body).unwrap_or_else(|_| Status {
            message: String::from_utf8_lossy(&body).into_owned(),
            ..Status::default()
        });
        let mut fault = Fault::said(&self.description, Status { code, ..status }, identity);
        fault.retry_after = retry_after.map(Duration::from_secs);
        fault
    }

    /// The failure that an event of a watch tells.
    pub(super) fn said(&self, status: Status) -> Fault {
        Fault::said(&self.description, status, "our credentials")
    }

    /// The error of a connection that can't be made or has broken.
    pub(super) fn broken(&self, cause: kube::Error) -> ProviderError {
        let kind = match &cause {
            kube::Error::Auth(_) => ProviderErrorKind::NotAuthorised,
            _ => ProviderErrorKind::Unreachable,
        };
        let message = match kind {
            ProviderErrorKind::NotAuthorised => "can't log in",
            _ => "no connection",
        };
        self.error(kind, message.to_owned()).because(cause)
    }

    pub(super) fn error(&self, kind: ProviderErrorKind, message: String) -> ProviderError {
        ProviderError::new(Arc::clone(&self.description), kind, message)
    }
}

/// The server's address without what is nobody's business, such as a password.
fn shown(url: &Uri) -> String {
    let scheme = url.scheme_str().unwrap_or("https");
    let host = url.host().unwrap_or_default();
    let port = url.port_u16().map(|port| format!(":{port}"));
    format!("{scheme}://{host}{}", port.unwrap_or_default())
}

/// The client logs each failure as an error. Here that is done once for all, where it is known
/// whether it is news.
fn quietly<F: Future>(work: F) -> impl Future<Output = F::Output> {
    work.with_subscriber(NoSubscriber::default())
}

fn request(method: Method, ask: Ask<'_>) -> http::request::Builder {
    let mut uri = ask.path.to_owned();
    if !ask.query.is_empty() {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(ask.query);
        uri = format!("{uri}?{}", query.finish());
    }
    Request::builder()
        .method(method)
        .uri(uri)
        .header(header::ACCEPT, ask.accept)
        // A compressed watch would come in lumps.
        .header(header::ACCEPT_ENCODING, "identity")
        .header(
            header::USER_AGENT,
            concat!("waypost/", env!("CARGO_PKG_VERSION")),
        )
}

fn build(source: &Source, number: u64, runtime: tokio::runtime::Id) -> Result<Built, String> {
    let loaded = source.load().map_err(|error| error.to_string())?;
    // Where a program has several implementations of TLS, rustls wants to be told which to use.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let stamps = loaded.stamps();
    let builder = ClientBuilder::try_from(loaded.config).map_err(|error| error.to_string())?;
    Ok(Built {
        number,
        client: builder.build(),
        token: loaded.token_file.map(|path| TokenFile::new(path)),
        identity: loaded.identity,
        stamps,
        runtime,
    })
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("to", &self.description)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}
