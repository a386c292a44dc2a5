//! The server as a test uses it: its objects, users, requests and failures.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::auth::credentials::{ADMIN, User};
use crate::auth::rbac::{grant, grant_name};
use crate::certificates::Authority;
use crate::cluster::{Cluster, Settings};
use crate::error::Error;
use crate::faults::Faults;
use crate::http::status::Status;
use crate::kind::Kind;
use crate::kubeconfig::{Login, kubeconfig};
use crate::manifest;
use crate::request_log::Request;
use crate::serve::{Shutdown, serve};
use crate::store::Backup;
use crate::store::object::{Key, Object};

/// The number of connections that the system holds for a server that does not accept them.
const BACKLOG: u32 = 1024;

/// A running server. It ends when it is dropped.
pub struct ApiServer {
    cluster: Arc<Cluster>,
    address: SocketAddr,
    tls: TlsAcceptor,
    authority: Authority,
    namespace: String,
    /// Keeps the port while the server does not listen.
    _reserved: TcpSocket,
    is_frozen: watch::Sender<bool>,
    running: Mutex<Option<Running>>,
    /// The logins by the name of the context.
    logins: Mutex<HashMap<String, Login>>,
    folder: TempDir,
    kubeconfig: PathBuf,
}

/// A server that listens or has open watches.
struct Running {
    shutdown: Shutdown,
    task: JoinHandle<()>,
}

impl ApiServer {
    /// A builder with the defaults of a real API server.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Where the server listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `https://127.0.0.1:PORT`
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The certificate of the authority that issued the server's own, as PEM.
    #[must_use]
    pub fn ca_pem(&self) -> String {
        self.authority.pem()
    }

    /// A kubeconfig of the user `admin`, who has all permissions.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The faults that can be switched on and off.
    pub fn faults(&self) -> &Faults {
        &self.cluster.faults
    }

    // --- Requests ---

    /// All requests for objects since the start or since they were forgotten, oldest first.
    pub fn requests(&self) -> Vec<Request> {
        self.cluster.requests.all()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.cluster.requests.clear();
    }

    /// The number of open watches.
    pub fn open_watches(&self) -> usize {
        self.cluster.requests.open_watches()
    }

    // --- Objects ---

    /// Creates an object, or replaces the one with its name, and returns its revision. Creates the
    /// namespace if it doesn't exist. This works while etcd is frozen.
    ///
    /// # Panics
    /// If the server refuses the object.
    pub fn put(&self, manifest: &Value) -> u64 {
        let kind = Kind::of_manifest(manifest);
        let kind = kind.unwrap_or_else(|| panic!("this kind is not supported\n{manifest:#}"));
        match self.put_object(kind, manifest.clone()) {
            Ok(object) => object.revision,
            Err(status) => panic!("{}\n{manifest:#}", status.message),
        }
    }

    /// Deletes an object; returns whether there was one. To delete a namespace, leave `namespace` empty;
    /// its deletion takes a while ([`Builder::namespace_deletion`]).
    pub fn delete(&self, plural: &str, namespace: &str, name: &str) -> bool {
        let key = Key::new(namespace, name);
        kind(plural).is_some_and(|it| self.cluster.delete(it, &key, None).is_ok())
    }

    /// An object as it is stored, without `kind` and `apiVersion`.
    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = Key::new(namespace, name);
        let store = self.cluster.store();
        store.get(kind(plural)?, &key).map(|it| it.value())
    }

    /// The revision of the last change.
    pub fn revision(&self) -> u64 {
        self.cluster.store().revision()
    }

    fn put_object(&self, kind: Kind, mut object: Value) -> Result<Arc<Object>, Status> {
        if kind.is_namespaced() {
            let namespace = &mut object["metadata"]["namespace"];
            if namespace.is_null() {
                *namespace = self.namespace.as_str().into();
            }
            let name = Key::of(&object).namespace;
            let key = Key::new("", &name);
            if !self.contains(Kind::Namespace, &key) {
                let namespace = manifest::namespace(&name);
                self.cluster.create(Kind::Namespace, namespace)?;
            }
        }
        if self.contains(kind, &Key::of(&object)) {
            self.cluster.replace(kind, object)
        } else {
            self.cluster.create(kind, object)
        }
    }

    fn contains(&self, kind: Kind, key: &Key) -> bool {
        self.cluster.store().get(kind, key).is_some()
    }

    // --- Users ---

    /// Adds a user without permissions, and returns the user's token.
    /// `system:serviceaccount:NAMESPACE:NAME` is a service account.
    pub fn add_user(&self, name: &str) -> String {
        let token = self.add_token(name);
        let login = Login::Token(token.clone());
        self.logins().insert(name.to_owned(), login);
        token
    }

    /// An additional token for a user.
    pub fn add_token(&self, user: &str) -> String {
        let token = self.cluster.new_id();
        let credentials = &self.cluster.credentials;
        credentials.add_token(&token, User::new(user));
        token
    }

    /// Refuses a token from now on. Open watches continue.
    pub fn revoke_token(&self, token: &str) {
        self.cluster.credentials.remove_token(token);
    }

    /// Grants a user these rules in a namespace, replacing an earlier grant there. If `namespace` is empty,
    /// they apply in all namespaces and to objects without one. They have the form of a Role's rules:
    /// `[{"apiGroups": …, "resources": …, "verbs": …}]`.
    ///
    /// # Panics
    /// If the rules are invalid.
    pub fn grant(&self, user: &str, namespace: &str, rules: &Value) {
        for object in grant(user, namespace, rules) {
            self.put(&object);
        }
    }

    /// Revokes what [`grant`](Self::grant) gave a user for this namespace. Open watches continue.
    pub fn revoke(&self, user: &str, namespace: &str) {
        let bindings = if namespace.is_empty() {
            "clusterrolebindings"
        } else {
            "rolebindings"
        };
        self.delete(bindings, namespace, &grant_name(user));
    }

    /// Writes a kubeconfig of a user with the user's token. `admin-certificate` is the user `admin`
    /// with a client certificate, and `anonymous` has no credentials.
    ///
    /// # Errors
    /// If there is no such user or the file cannot be written.
    pub fn kubeconfig_of(&self, context: &str) -> Result<PathBuf, Error> {
        let login = self.logins().get(context).cloned();
        let login = login.ok_or_else(|| Error::UnknownContext(context.to_owned()))?;
        let text = kubeconfig(&self.url(), &self.ca_pem(), &self.namespace, &login);
        let file = format!("kubeconfig-{}", context.replace([':', '/'], "-"));
        let path = self.folder.path().join(file);
        match write_private(&path, &text) {
            Ok(()) => Ok(path),
            Err(source) => Err(Error::File { path, source }),
        }
    }

    fn add_first_users(&self) -> Result<(), Error> {
        self.add_user(ADMIN);
        let issued = self.authority.issue_for_user(ADMIN)?;
        let credentials = &self.cluster.credentials;
        credentials.add_certificate(issued.der.to_vec(), User::new(ADMIN));
        let certificate = Login::Certificate {
            certificate: issued.pem,
            key: issued.key_pem,
        };
        self.logins().extend([
            (format!("{ADMIN}-certificate"), certificate),
            ("anonymous".to_owned(), Login::Anonymous),
        ]);
        Ok(())
    }

    // --- The process ---

    /// Ends the server as SIGKILL does: all connections break, and it no longer listens.
    pub async fn kill(&self) {
        let running = self.running().take();
        if let Some(running) = running {
            running.task.abort();
            running.shutdown.watching.cancel();
            // The result is that the task was cancelled.
            let _ = running.task.await;
        }
        self.is_frozen.send_replace(false);
    }

    /// Starts a server that was killed or terminated, at the same address and with the same objects.
    /// As after every start, no watch can begin at an earlier revision.
    ///
    /// # Errors
    /// If the server cannot listen at the address.
    pub async fn restart(&self) -> Result<(), Error> {
        self.kill().await;
        self.expire_history();
        self.listen()
    }

    /// Ends the server as SIGTERM does: it no longer listens, open watches continue for a while
    /// ([`Builder::termination_tail`]) and then end cleanly. Completes when all watches have ended.
    pub async fn terminate(&self) {
        let running = self.running().take();
        let Some(mut running) = running else {
            return;
        };
        running.shutdown.listening.cancel();
        let tail = self.cluster.settings.termination_tail;
        if tokio::time::timeout(tail, &mut running.task).await.is_err() {
            running.shutdown.watching.cancel();
            let _ = running.task.await;
        }
    }

    /// Stops the process as SIGSTOP does: no data is sent or received, connections stay open, and new
    /// ones are accepted by the system but not by the server.
    pub fn freeze(&self) {
        self.is_frozen.send_replace(true);
    }

    /// Lets a frozen server continue.
    pub fn thaw(&self) {
        self.is_frozen.send_replace(false);
    }

    /// Ends all open watches cleanly, as if their time (`timeoutSeconds`) were over.
    pub fn end_watches(&self) {
        self.cluster.watch_end.notify_waiters();
    }

    /// Answers 410 to watches that begin before the current revision, as after many changes. Open
    /// watches continue.
    pub fn expire_history(&self) {
        self.cluster.store().expire();
    }

    /// A snapshot of all objects.
    pub fn backup(&self) -> Backup {
        self.cluster.store().backup()
    }

    /// Restores a snapshot and its revision, as when etcd is restored and the server is restarted.
    ///
    /// # Errors
    /// If the server cannot listen at the address.
    pub async fn restore(&self, backup: &Backup) -> Result<(), Error> {
        self.kill().await;
        self.restore_without_restart(backup);
        self.listen()
    }

    /// Restores a snapshot without breaking connections: open watches are silent until the revision
    /// passes theirs. Clients behind a load balancer see this if their watches are on a server that was
    /// not restarted, and their other requests go to one that was.
    pub fn restore_without_restart(&self, backup: &Backup) {
        self.cluster.store().restore(backup);
    }

    fn listen(&self) -> Result<(), Error> {
        let address = self.address;
        let bind = |source| Error::Bind { address, source };
        let listener = bound_socket(address).and_then(|it| it.listen(BACKLOG));
        let shutdown = Shutdown::default();
        let serving = serve(
            Arc::clone(&self.cluster),
            listener.map_err(bind)?,
            self.tls.clone(),
            self.is_frozen.subscribe(),
            shutdown.clone(),
        );
        let task = tokio::spawn(serving);
        *self.running() = Some(Running { shutdown, task });
        Ok(())
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn logins(&self) -> MutexGuard<'_, HashMap<String, Login>> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if let Some(running) = self.running().take() {
            running.shutdown.watching.cancel();
            running.task.abort();
        }
    }
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// The settings of a server before it is started.
#[derive(Debug)]
pub struct Builder {
    namespace: String,
    settings: Settings,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            namespace: "default".to_owned(),
            settings: Settings::default(),
        }
    }
}

impl Builder {
    /// The namespace of all kubeconfigs, which exists from the start. The default is `default`.
    #[must_use]
    pub fn namespace(mut self, name: &str) -> Self {
        name.clone_into(&mut self.namespace);
        self
    }

    /// The time between two bookmarks of a watch. The default is 60 s, as in the API server.
    #[must_use]
    pub fn bookmark_interval(mut self, interval: Duration) -> Self {
        self.settings.bookmark_interval = interval;
        self
    }

    /// How long open watches continue after [`terminate`](ApiServer::terminate). The default is 60 s,
    /// as in the API server.
    #[must_use]
    pub fn termination_tail(mut self, tail: Duration) -> Self {
        self.settings.termination_tail = tail;
        self
    }

    /// Closes a watch if its reader takes nothing for this time while more than this number of
    /// changes wait. The default is 250 ms and 100 changes.
    #[must_use]
    pub fn slow_reader(mut self, max_stall: Duration, changes: usize) -> Self {
        self.settings.slow_reader = (max_stall, changes);
        self
    }

    /// How long the deletion of a namespace takes. The default is 5 s.
    #[must_use]
    pub fn namespace_deletion(mut self, time: Duration) -> Self {
        self.settings.namespace_deletion = time;
        self
    }

    /// Starts the server on the current Tokio runtime, at a free port of 127.0.0.1.
    ///
    /// # Errors
    /// If there is no free port, or a file cannot be written.
    pub async fn start(self) -> Result<ApiServer, Error> {
        let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        let bind = |source| Error::Bind {
            address: any,
            source,
        };
        let reserved = bound_socket(any).map_err(bind)?;
        let address = reserved.local_addr().map_err(bind)?;
        let authority = Authority::new()?;
        let tls = authority.server_config(address.ip())?;
        let folder = tempfile::tempdir().map_err(|source| Error::File {
            path: std::env::temp_dir(),
            source,
        })?;
        let mut server = ApiServer {
            cluster: Arc::new(Cluster::new(self.settings)),
            address,
            tls: TlsAcceptor::from(Arc::new(tls)),
            authority,
            namespace: self.namespace,
            _reserved: reserved,
            is_frozen: watch::Sender::new(false),
            running: Mutex::new(None),
            logins: Mutex::default(),
            folder,
            kubeconfig: PathBuf::new(),
        };
        server.put(&manifest::namespace(&server.namespace));
        server.add_first_users()?;
        server.kubeconfig = server.kubeconfig_of(ADMIN)?;
        server.listen()?;
        Ok(server)
    }
}

fn kind(plural: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|it| it.plural() == plural)
}

/// A socket that is bound to an address with `SO_REUSEADDR`.
fn bound_socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Writes a file that only its owner can read, since it holds keys.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(text.as_bytes())
}
