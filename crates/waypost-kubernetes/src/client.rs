//! Requests to the API server. Each is a single attempt with a deadline; retrying is up to the
//! caller.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use data_encoding::BASE64;
use futures_util::{StreamExt, stream};
use http::{HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::{Body, ClientBuilder};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::sync::{Mutex, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout};
use tracing::dispatcher;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;
use waypost_core::provider::TokenFile;
use waypost_core::{ConfigError, ProviderError, ProviderErrorKind};

use crate::config::{ClientConfig, ConfigSource, Credentials, FileStamps, bearer, bearer_of};
use crate::error::{ApiStatus, RequestError};
use crate::watch_stream::Chunks;

/// A client of one API server with one identity.
///
/// Credentials are read from their files again whenever they may have changed: a token before each
/// request, certificates and the kubeconfig after a failure. A credential plugin is run once for all
/// requests, and again when its credentials have expired or were rejected.
pub(crate) struct ApiClient {
    source: ConfigSource,
    server: Uri,
    description: Arc<str>,
    current: Mutex<CurrentClient>,
    built: AtomicU64,
    /// The credential plugin that is running, for error messages.
    running_plugin: Arc<watch::Sender<Option<String>>>,
}

/// The HTTP client in use, or the one that is being built.
#[derive(Default)]
struct CurrentClient {
    client: Option<Arc<HttpClient>>,
    /// A credential plugin may hang; all requests wait for the same one.
    building: Option<JoinHandle<Result<HttpClient, String>>>,
    /// Why the latest client could not be built, and when. Requests that waited for it meanwhile get
    /// the same error.
    failure: Option<(Instant, String)>,
}

/// An HTTP client, and the configuration from which it was built.
struct HttpClient {
    number: u64,
    client: Client,
    token: Token,
    built_at: Instant,
    /// When the credentials of a plugin expire.
    expires_at: Option<Instant>,
    identity: String,
    /// Where the trusted CA certificates come from.
    ca: String,
    stamps: FileStamps,
    /// The runtime of the client's background task, which ends with it.
    runtime: tokio::runtime::Id,
}

/// The bearer token of a client.
enum Token {
    None,
    File(TokenFile),
    /// From a credential plugin.
    Fixed(HeaderValue),
}

impl Token {
    fn header(&self) -> Result<Option<HeaderValue>, String> {
        match self {
            Self::None => Ok(None),
            Self::File(file) => bearer(file).map(Some),
            Self::Fixed(header) => Ok(Some(header.clone())),
        }
    }

    fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }
}

/// A GET request. The path must not need escaping; the query is escaped when it is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GetRequest<'a> {
    pub(crate) path: &'a str,
    pub(crate) query: &'a [(&'a str, &'a str)],
    pub(crate) accept: &'static str,
}

impl<'a> GetRequest<'a> {
    /// A request for JSON.
    pub(crate) fn new(path: &'a str, query: &'a [(&'a str, &'a str)]) -> Self {
        Self {
            path,
            query,
            accept: "application/json",
        }
    }
}

impl ApiClient {
    /// The deadline of an ordinary request.
    pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
    /// How long the failure to build a client is reported without another attempt.
    const REUSE_FAILURE: Duration = Duration::from_secs(1);
    /// The shortest time between two runs of a credential plugin that succeeds.
    const MIN_CREDENTIALS_AGE: Duration = Duration::from_secs(10);

    /// Reads the configuration. It is read again after failures, but must be valid now. Sends nothing.
    pub(crate) fn new(source: ConfigSource) -> Result<(Self, ClientConfig), ConfigError> {
        let config = source.load()?;
        let server = config.kube.cluster_url.clone();
        let client = Self {
            source,
            description: format!("kubernetes at {}", displayed(&server)).into(),
            server,
            current: Mutex::default(),
            built: AtomicU64::new(0),
            running_plugin: Arc::new(watch::Sender::new(None)),
        };
        Ok((client, config))
    }

    pub(crate) fn describe(&self) -> &Arc<str> {
        &self.description
    }

    /// Reads an object as JSON.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        get: GetRequest<'_>,
        deadline: Duration,
    ) -> Result<T, RequestError> {
        self.request_json(get_request(get), deadline).await
    }

    /// Sends an object with `POST`, `PUT` or `DELETE`, and returns the response.
    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        object: &impl Serialize,
    ) -> Result<T, RequestError> {
        let body = serde_json::to_vec(object)
            .map_err(|cause| self.error(ProviderErrorKind::Rejected, cause.to_string()))?;
        let request = request_builder(method, path, "application/json")
            .header(header::CONTENT_TYPE, "application/json")
            .body(body);
        self.request_json(request, Self::DEADLINE).await
    }

    /// Changes parts of an object by a JSON merge patch (RFC 7396).
    pub(crate) async fn merge_patch(
        &self,
        path: &str,
        patch: &impl Serialize,
    ) -> Result<(), RequestError> {
        let body = serde_json::to_vec(patch)
            .map_err(|cause| self.error(ProviderErrorKind::Rejected, cause.to_string()))?;
        let request = request_builder(Method::PATCH, path, "application/json")
            .header(header::CONTENT_TYPE, "application/merge-patch+json")
            .body(body);
        self.request_json::<IgnoredAny>(request, Self::DEADLINE)
            .await
            .map(drop)
    }

    /// Deletes an object. It is not an error if it doesn't exist.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), RequestError> {
        let request = request_builder(Method::DELETE, path, "application/json").body(Vec::new());
        match self
            .request_json::<IgnoredAny>(request, Self::DEADLINE)
            .await
        {
            Err(error) if error.is_not_found() => Ok(()),
            deleted => deleted.map(drop),
        }
    }

    /// Deletes an object, if it has not changed since this resource version.
    pub(crate) async fn delete_unchanged(
        &self,
        path: &str,
        resource_version: &str,
    ) -> Result<(), RequestError> {
        let options = serde_json::json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": { "resourceVersion": resource_version },
        });
        self.send::<IgnoredAny>(Method::DELETE, path, &options)
            .await
            .map(drop)
    }

    /// Opens a response that is read as it arrives. The deadline is for its headers.
    pub(crate) async fn open(
        &self,
        get: GetRequest<'_>,
        deadline: Duration,
    ) -> Result<Chunks, RequestError> {
        self.within(deadline, async {
            let response = self.respond(get_request(get)).await?;
            let mut chunks = response.into_body().into_data_stream();
            let no_subscriber = dispatcher::Dispatch::none();
            let chunks = stream::poll_fn(move |context| {
                dispatcher::with_default(&no_subscriber, || chunks.poll_next_unpin(context))
            });
            Ok(chunks.boxed())
        })
        .await
    }

    /// Whether this process runs in a pod, with the identity of its service account.
    pub(crate) fn is_in_cluster(&self) -> bool {
        self.source.is_in_cluster()
    }

    /// The local address from which this machine reaches the API server. Nothing is sent: connecting
    /// a UDP socket only makes the system choose a route.
    pub(crate) fn local_address(&self) -> Option<IpAddr> {
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

    // --- errors ---

    pub(crate) fn error(&self, kind: ProviderErrorKind, message: String) -> ProviderError {
        ProviderError::new(Arc::clone(&self.description), kind, message)
    }

    /// The error of a connection that failed or broke.
    pub(crate) fn connection_error(&self, cause: kube::Error) -> ProviderError {
        let (kind, message) = match &cause {
            kube::Error::Auth(_) => (ProviderErrorKind::NotAuthorised, "authentication failed"),
            _ => (ProviderErrorKind::Unreachable, "connection failed"),
        };
        self.error(kind, message.to_owned()).with_source(cause)
    }

    /// The error that an event of a watch carries.
    pub(crate) fn status_error(&self, status: ApiStatus) -> RequestError {
        RequestError::from_status(&self.description, status, "our credentials")
    }

    /// The error after a rollback of etcd, until everything has been listed again.
    pub(crate) fn rolled_back(&self) -> RequestError {
        let message = "the server's resource version went backwards, as after a restore of etcd";
        self.error(ProviderErrorKind::Unreachable, message.to_owned())
            .into()
    }

    // --- one request ---

    async fn request_json<T: DeserializeOwned>(
        &self,
        request: http::Result<Request<Vec<u8>>>,
        deadline: Duration,
    ) -> Result<T, RequestError> {
        self.within(deadline, async {
            let response = self.respond(request).await?;
            let body = self.read_body(response.into_body()).await?;
            serde_json::from_slice(&body).map_err(|cause| {
                let message = format!("unreadable response: {cause}");
                self.error(ProviderErrorKind::InvalidResponse, message)
                    .into()
            })
        })
        .await
    }

    async fn within<T>(
        &self,
        deadline: Duration,
        work: impl Future<Output = Result<T, RequestError>>,
    ) -> Result<T, RequestError> {
        timeout(deadline, work).await.unwrap_or_else(|_| {
            let kind = ProviderErrorKind::TimedOut { after: deadline };
            let time = humantime::format_duration(deadline);
            let message = match &*self.running_plugin.borrow() {
                Some(plugin) => format!("{plugin} has not finished in {time}"),
                None => format!("no response in {time}"),
            };
            Err(self.error(kind, message).into())
        })
    }

    /// The response, if it is a success. After a 401 the request is sent once more if the credentials
    /// were replaced meanwhile.
    async fn respond(
        &self,
        request: http::Result<Request<Vec<u8>>>,
    ) -> Result<Response<Body>, RequestError> {
        let request =
            request.map_err(|cause| self.error(ProviderErrorKind::Rejected, cause.to_string()))?;
        let client = self.client().await?;
        let (outcome, sent_token) = self.attempt(&client, request.clone()).await;
        match outcome {
            Err(error) if self.refresh(&client, &error, sent_token.as_ref()).await => {
                let client = self.client().await?;
                self.attempt(&client, request).await.0
            }
            outcome => outcome,
        }
    }

    /// Sends the request once. Also returns the token that it was sent with.
    async fn attempt(
        &self,
        client: &HttpClient,
        request: Request<Vec<u8>>,
    ) -> (Result<Response<Body>, RequestError>, Option<HeaderValue>) {
        let mut request = request.map(Body::from);
        let token = match client.token.header() {
            Ok(token) => token,
            Err(why) => {
                let error = self.error(ProviderErrorKind::NotAuthorised, why);
                return (Err(error.into()), None);
            }
        };
        if let Some(token) = &token {
            request
                .headers_mut()
                .insert(header::AUTHORIZATION, token.clone());
        }
        let response = match without_logs(client.client.send(request)).await {
            Ok(response) => response,
            Err(cause) if is_untrusted(&cause) => {
                let message = format!("the server's certificate is not trusted by {}", client.ca);
                let error = self.error(ProviderErrorKind::Unreachable, message);
                return (Err(error.with_source(cause).into()), token);
            }
            Err(cause) => return (Err(self.connection_error(cause).into()), token),
        };
        let outcome = if response.status().is_success() {
            Ok(response)
        } else {
            Err(self.refusal(response, &client.identity).await)
        };
        (outcome, token)
    }

    /// Drops the client if its files have changed or its credentials were rejected, and returns
    /// whether another attempt right away may succeed.
    async fn refresh(
        &self,
        client: &HttpClient,
        error: &RequestError,
        sent_token: Option<&HeaderValue>,
    ) -> bool {
        let files_changed = client.stamps.have_changed();
        let is_unauthorized = error.code() == Some(401);
        // Without a token file, the credentials may come from a plugin. Building a new client runs the
        // plugin again.
        let is_outdated = client.built_at.elapsed() >= Self::MIN_CREDENTIALS_AGE;
        if files_changed || (is_unauthorized && !client.token.is_file() && is_outdated) {
            self.drop_client(client).await;
        }
        let token = client.token.header().ok().flatten();
        let token_changed = is_unauthorized && token.as_ref() != sent_token;
        files_changed || token_changed
    }

    async fn drop_client(&self, client: &HttpClient) {
        let mut current = self.current.lock().await;
        let is_current = |now: &Arc<HttpClient>| now.number == client.number;
        if current.client.as_ref().is_some_and(is_current) {
            current.client = None;
        }
    }

    async fn client(&self) -> Result<Arc<HttpClient>, RequestError> {
        let runtime = tokio::runtime::Handle::current().id();
        let mut current = self.current.lock().await;
        let is_usable = |client: &&Arc<HttpClient>| {
            client.runtime == runtime && client.expires_at.is_none_or(|at| Instant::now() < at)
        };
        if let Some(client) = current.client.as_ref().filter(is_usable) {
            return Ok(Arc::clone(client));
        }
        let not_authorised = |why: &str| {
            let message = format!("authentication failed: {why}");
            RequestError::from(self.error(ProviderErrorKind::NotAuthorised, message))
        };
        let failure = current.failure.as_ref();
        if let Some((_, why)) = failure.filter(|(at, _)| at.elapsed() < Self::REUSE_FAILURE)
            && current.building.is_none()
        {
            return Err(not_authorised(why));
        }
        let begin = || {
            let source = self.source.clone();
            let number = self.built.fetch_add(1, Ordering::Relaxed);
            let running = Arc::clone(&self.running_plugin);
            tokio::spawn(HttpClient::build(source, number, runtime, running))
        };
        let built = current.building.get_or_insert_with(begin).await;
        current.building = None;
        match built.unwrap_or_else(|cause| Err(cause.to_string())) {
            Ok(client) => {
                let client = Arc::new(client);
                current.client = Some(Arc::clone(&client));
                current.failure = None;
                Ok(client)
            }
            Err(why) => {
                let error = not_authorised(&why);
                current.failure = Some((Instant::now(), why));
                Err(error)
            }
        }
    }

    async fn read_body(&self, body: Body) -> Result<bytes::Bytes, RequestError> {
        match without_logs(body.collect()).await {
            Ok(body) => Ok(body.to_bytes()),
            Err(cause) => Err(self.connection_error(cause).into()),
        }
    }

    async fn refusal(&self, response: Response<Body>, identity: &str) -> RequestError {
        let code = response.status().as_u16();
        let retry_after = response.headers().get(header::RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        let body = self
            .read_body(response.into_body())
            .await
            .unwrap_or_default();
        // The load filter and proxies before the API server answer with plain text.
        let status = serde_json::from_slice(&body).unwrap_or_else(|_| ApiStatus {
            message: String::from_utf8_lossy(&body).into_owned(),
            ..ApiStatus::default()
        });
        let status = ApiStatus { code, ..status };
        let mut error = RequestError::from_status(&self.description, status, identity);
        error.retry_after = retry_after.map(Duration::from_secs);
        error
    }
}

impl fmt::Debug for ApiClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiClient")
            .field("server", &self.description)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl HttpClient {
    /// Reads the configuration, runs the credential plugin if there is one, and builds the client.
    async fn build(
        source: ConfigSource,
        number: u64,
        runtime: tokio::runtime::Id,
        running_plugin: Arc<watch::Sender<Option<String>>>,
    ) -> Result<Self, String> {
        let config = spawn_blocking(move || source.load()).await;
        let config = config.map_err(|cause| cause.to_string())?;
        let config = config.map_err(|error| error.to_string())?;
        let credentials = match &config.plugin {
            Some(plugin) => {
                running_plugin.send_replace(Some(plugin.to_string()));
                let credentials = plugin.run().await;
                running_plugin.send_replace(None);
                Some(credentials?)
            }
            None => None,
        };
        let building = spawn_blocking(move || Self::with(config, credentials, number, runtime));
        building.await.map_err(|cause| cause.to_string())?
    }

    fn with(
        mut config: ClientConfig,
        credentials: Option<Credentials>,
        number: u64,
        runtime: tokio::runtime::Id,
    ) -> Result<Self, String> {
        // If a program enables several crypto backends of rustls, one has to be chosen explicitly.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let built_at = Instant::now();
        let stamps = config.stamps();
        let mut token = config
            .token_file
            .map_or(Token::None, |path| Token::File(TokenFile::new(path)));
        let mut expires_at = None;
        if let Some(credentials) = credentials {
            if let Some(plain) = &credentials.token {
                token = Token::Fixed(bearer_of(plain)?);
            }
            if let Some((certificate, key)) = credentials.certificate() {
                let auth = &mut config.kube.auth_info;
                auth.client_certificate = None;
                auth.client_certificate_data = Some(BASE64.encode(certificate.as_bytes()));
                auth.client_key = None;
                auth.client_key_data = Some(BASE64.encode(key.as_bytes()).into());
            }
            let valid_for = credentials.valid_for(SystemTime::now());
            let valid_for = valid_for.map(|time| time.max(ApiClient::MIN_CREDENTIALS_AGE));
            expires_at = valid_for.and_then(|time| built_at.checked_add(time));
        }
        let builder = ClientBuilder::try_from(config.kube).map_err(|error| error.to_string())?;
        Ok(Self {
            number,
            client: builder.build(),
            token,
            built_at,
            expires_at,
            identity: config.identity,
            ca: config.ca,
            stamps,
            runtime,
        })
    }
}

/// Whether the server's certificate was rejected.
fn is_untrusted(error: &kube::Error) -> bool {
    let error: &dyn std::error::Error = error;
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.any(|cause| cause.to_string().contains("invalid peer certificate"))
}

/// The server's address without user and password.
fn displayed(url: &Uri) -> String {
    let scheme = url.scheme_str().unwrap_or("https");
    let host = url.host().unwrap_or_default();
    let port = url.port_u16().map(|port| format!(":{port}"));
    format!("{scheme}://{host}{}", port.unwrap_or_default())
}

/// Runs `work` without a log subscriber: kube logs each failure as an error, but Waypost logs an
/// outage once, when it begins.
fn without_logs<F: Future>(work: F) -> impl Future<Output = F::Output> {
    work.with_subscriber(NoSubscriber::default())
}

fn get_request(get: GetRequest<'_>) -> http::Result<Request<Vec<u8>>> {
    let mut uri = get.path.to_owned();
    if !get.query.is_empty() {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(get.query);
        uri = format!("{uri}?{}", query.finish());
    }
    request_builder(Method::GET, &uri, get.accept).body(Vec::new())
}

fn request_builder(method: Method, uri: &str, accept: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(uri)
        .header(header::ACCEPT, accept)
        // Compression would delay the events of a watch.
        .header(header::ACCEPT_ENCODING, "identity")
        .header(
            header::USER_AGENT,
            concat!("waypost/", env!("CARGO_PKG_VERSION")),
        )
}

#[cfg(test)]
mod tests {
    use waypost_core::Environment;
    use waypost_fake_kubernetes::ApiServer;

    use super::*;
    use crate::config::KUBECONFIG;

    fn client(kubeconfig: &std::path::Path) -> ApiClient {
        let path = kubeconfig.display().to_string();
        let environment = Environment::from_iter([(KUBECONFIG, path)]);
        let source = ConfigSource::from_environment(&environment).unwrap();
        ApiClient::new(source).unwrap().0
    }

    #[tokio::test]
    async fn an_object_that_does_not_exist_is_as_good_as_deleted() {
        let server = ApiServer::builder()
            .namespace("demo")
            .start()
            .await
            .unwrap();
        let path = "/api/v1/namespaces/demo/services/gone";
        client(server.kubeconfig()).delete(path).await.unwrap();
        // Any other failure is one.
        server.add_user("reader");
        let reader = client(&server.kubeconfig_of("reader").unwrap());
        let error = reader.delete(path).await.unwrap_err();
        assert!(error.is_access_denied(), "{error}");
        let error = reader.delete_unchanged(path, "1").await.unwrap_err();
        assert!(error.is_access_denied(), "{error}");
    }

    #[test]
    fn the_address_of_the_server_is_shown_without_user_and_password() {
        for (url, expected) in [
            (
                "https://ann:secret@10.0.0.1:6443/path",
                "https://10.0.0.1:6443",
            ),
            ("http://k8s", "http://k8s"),
            ("https://[::1]:6443", "https://[::1]:6443"),
        ] {
            assert_eq!(displayed(&url.parse().unwrap()), expected);
        }
    }
}
