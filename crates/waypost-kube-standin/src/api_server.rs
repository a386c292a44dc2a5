//! A server: how it is built, started, fed, and ended in every way that servers end.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::access::{MASTERS, User, grant, grant_name};
use crate::app::{App, Settings};
use crate::certificates::Authority;
use crate::http::{Endings, serve};
use crate::kinds::Kind;
use crate::kubeconfig::{self, Context, Login};
use crate::store::{Backup, Key};
use crate::{Error, Faults, Request, api};

/// The user that may do everything, and the name of its context.
pub const ADMIN: &str = "admin";

/// How many connects the system holds for a server that doesn't accept them.
const BACKLOG: u32 = 1024;

/// What a server is to be like.
#[derive(Debug)]
pub struct Builder {
    address: SocketAddr,
    namespace: String,
    kubeconfig: Option<PathBuf>,
    seed: Option<u64>,
    settings: Settings,
}

/// A running stand-in. It ends when dropped.
pub struct ApiServer {
    app: Arc<App>,
    address: SocketAddr,
    tls: TlsAcceptor,
    authority: Authority,
    namespace: String,
    /// Keeps the port while nobody listens at it.
    _reserved: TcpSocket,
    shut: watch::Sender<bool>,
    running: Mutex<Option<Running>>,
    contexts: Mutex<Vec<Context>>,
    folder: TempDir,
    kubeconfig: PathBuf,
}

struct Running {
    endings: Endings,
    task: JoinHandle<()>,
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// Where it is to listen. The default is a free port of 127.0.0.1.
    #[must_use]
    pub fn address(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// The namespace that all contexts start in, which is created if need be. The default is
    /// `default`.
    #[must_use]
    pub fn namespace(mut self, name: &str) -> Self {
        name.clone_into(&mut self.namespace);
        self
    }

    /// Where to write the kubeconfig with all contexts. The default is a temporary file.
    #[must_use]
    pub fn kubeconfig(mut self, path: impl Into<PathBuf>) -> Self {
        self.kubeconfig = Some(path.into());
        self
    }

    /// The time between two bookmarks of a watch. The default is 60 s, as in the API server.
    #[must_use]
    pub fn bookmark_interval(mut self, interval: Duration) -> Self {
        self.settings.bookmark_interval = interval;
        self
    }

    /// How long watches outlive [`terminate`](ApiServer::terminate). The default is 60 s, as in
    /// the API server.
    #[must_use]
    pub fn termination_tail(mut self, tail: Duration) -> Self {
        self.settings.termination_tail = tail;
        self
    }

    /// Cuts off the watch of a reader that has taken nothing for so long while more than so many
    /// changes wait for it. The default is 250 ms and 100 changes.
    #[must_use]
    pub fn slow_reader(mut self, patience: Duration, changes: usize) -> Self {
        self.settings.slow_reader = (patience, changes);
        self
    }

    /// How long a namespace takes to go. The default is 5 s.
    #[must_use]
    pub fn namespace_deletion(mut self, time: Duration) -> Self {
        self.settings.namespace_deletion = time;
        self
    }

    /// Whether endpoints may be at loopback addresses. The API server refuses them; a test whose
    /// endpoints are real processes of this machine needs them. The default is no.
    #[must_use]
    pub fn allow_loopback(mut self, allow: bool) -> Self {
        self.settings.allow_loopback = allow;
        self
    }

    /// The seed of everything random. The default is another one every time.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Starts the server on the current Tokio runtime.
    ///
    /// # Errors
    /// If the address can't be had, or a file can't be written.
    pub async fn start(self) -> Result<ApiServer, Error> {
        let bind = |address| move |source: io::Error| Error::Bind { address, source };
        let reserved = socket(self.address).map_err(bind(self.address))?;
        let address = reserved.local_addr().map_err(bind(self.address))?;
        let authority = Authority::new()?;
        let tls = authority.server_config(address.ip())?;
        let random = self
            .seed
            .map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let folder = tempfile::tempdir().map_err(|source| Error::File {
            path: std::env::temp_dir(),
            source,
        })?;
        let default = folder.path().join("kubeconfig");
        let server = ApiServer {
            app: Arc::new(App::new(self.settings, random)),
            address,
            tls: TlsAcceptor::from(Arc::new(tls)),
            authority,
            namespace: self.namespace,
            _reserved: reserved,
            shut: watch::Sender::new(false),
            running: Mutex::new(None),
            contexts: Mutex::default(),
            folder,
            kubeconfig: self.kubeconfig.unwrap_or(default),
        };
        server.populate()?;
        server.listen()?;
        Ok(server)
    }
}

impl ApiServer {
    /// What a server is to be like.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            namespace: "default".to_owned(),
            kubeconfig: None,
            seed: None,
            settings: Settings::default(),
        }
    }

    /// One that is as usual, on a free port.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn start() -> Result<Self, Error> {
        Self::builder().start().await
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `https://127.0.0.1:PORT`
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The certificate of the authority that the server's own is from, as PEM.
    #[must_use]
    pub fn ca_pem(&self) -> String {
        self.authority.pem()
    }

    /// The kubeconfig with all contexts; the current one is [`ADMIN`]'s.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A kubeconfig whose current context is that of this user, or `USER-certificate` for the one
    /// that shows a certificate, or `anonymous`.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn kubeconfig_of(&self, context: &str) -> Result<PathBuf, Error> {
        let path = self
            .folder
            .path()
            .join(format!("kubeconfig-{}", context.replace([':', '/'], "-")));
        self.write_kubeconfig(&path, context)?;
        Ok(path)
    }

    /// Adds a user that may do nothing yet, with a context of its name in the kubeconfig, and gives
    /// its token. `system:serviceaccount:NAMESPACE:NAME` is a service account.
    ///
    /// # Errors
    /// If no certificate can be made, or the kubeconfig can't be written.
    pub fn add_user(&self, name: &str) -> Result<String, Error> {
        self.add_user_in(name, &[])
    }

    fn add_user_in(&self, name: &str, groups: &[&str]) -> Result<String, Error> {
        let user = User::new(name, groups);
        let token = self.add_token(name, None);
        let issued = self.authority.issue_for_user(&user)?;
        let certificates = &self.app.credentials;
        certificates.add_certificate(issued.der.to_vec(), user);
        let context = |name: String, login| Context {
            name,
            namespace: self.namespace.clone(),
            login,
        };
        let certificate = Login::Certificate {
            certificate: issued.pem,
            key: issued.key_pem,
        };
        self.contexts().extend([
            context(name.to_owned(), Login::Token(token.clone())),
            context(format!("{name}-certificate"), certificate),
        ]);
        self.write_kubeconfig(&self.kubeconfig, ADMIN)?;
        Ok(token)
    }

    /// One more token of a user, which is taken for so long, or for ever. (The API server takes
    /// an expired token for up to 70 s more; this one doesn't.)
    pub fn add_token(&self, user: &str, lifetime: Option<Duration>) -> String {
        let groups: &[&str] = if user == ADMIN { &[MASTERS] } else { &[] };
        let token = self.app.uid();
        let until = lifetime.map(|it| Instant::now() + it);
        let credentials = &self.app.credentials;
        credentials.add_token(&token, User::new(user, groups), until);
        token
    }

    /// Takes a token no more. Watches that are open go on.
    pub fn revoke_token(&self, token: &str) {
        self.app.credentials.remove_token(token);
    }

    /// Lets a user do this, in a namespace or everywhere, and nothing else there that was granted
    /// so before. `rules` are those of a Role: `[{"apiGroups": …, "resources": …, "verbs": …}]`.
    ///
    /// # Panics
    /// If the rules are none.
    pub fn grant(&self, user: &str, namespace: Option<&str>, rules: &Value) {
        for object in grant(&User::new(user, &[]), namespace, rules) {
            self.put(&object);
        }
    }

    /// Takes back what was granted to a user there. Watches that are open go on.
    pub fn revoke(&self, user: &str, namespace: Option<&str>) {
        let name = grant_name(&User::new(user, &[]));
        match namespace {
            Some(namespace) => {
                self.delete("rolebindings", namespace, &name);
            }
            None => {
                self.delete("clusterrolebindings", "", &name);
            }
        }
    }

    /// Creates an object or replaces the one of its name, as an administrator would; its namespace
    /// is created if need be. Gives its revision. (Faults of etcd don't stop this.)
    ///
    /// # Panics
    /// If it is no object that the server knows or takes, with the server's own words.
    pub fn put(&self, manifest: &Value) -> u64 {
        self.try_put(manifest)
            .unwrap_or_else(|reason| panic!("{reason}\n{manifest:#}"))
    }

    /// The same without panics: an error is what the server says.
    ///
    /// # Errors
    /// If it is no object that the server knows or takes.
    pub fn try_put(&self, manifest: &Value) -> Result<u64, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = text(&manifest["kind"]);
        let kind = Kind::of(&text(&manifest["apiVersion"]), &name)
            .ok_or_else(|| format!("no such kind: {} {name}", manifest["apiVersion"]))?;
        let mut object = manifest.clone();
        let mut namespace = String::new();
        if kind.is_namespaced {
            namespace = text(&manifest["metadata"]["namespace"]);
            if namespace.is_empty() {
                namespace.clone_from(&self.namespace);
            }
            object["metadata"]["namespace"] = namespace.as_str().into();
            self.create_namespace(&namespace)?;
        }
        let key = Key::new(&namespace, &text(&manifest["metadata"]["name"]));
        let exists = self.app.store.read().get(kind, &key).is_some();
        let stored = if exists {
            api::update_object(&self.app, kind, object)
        } else {
            api::create_object(&self.app, kind, object)
        };
        stored.map(|it| it.revision).map_err(|it| it.message)
    }

    /// Deletes an object, and what belongs to it; false if there is none. The namespace is empty
    /// for kinds that have none.
    pub fn delete(&self, plural: &str, namespace: &str, name: &str) -> bool {
        let kind = crate::kinds::KINDS.iter().find(|it| it.plural == plural);
        kind.is_some_and(|kind| {
            let mut state = self.app.store.read();
            let key = Key::new(namespace, name);
            self.app.remove(&mut state, kind, &key).is_some()
        })
    }

    /// An object as it is stored, without `kind` and `apiVersion`.
    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let kind = crate::kinds::KINDS.iter().find(|it| it.plural == plural)?;
        let state = self.app.store.read();
        let found = state.get(kind, &Key::new(namespace, name))?;
        Some(found.value())
    }

    /// The revision of the last change.
    pub fn revision(&self) -> u64 {
        self.app.store.read().revision()
    }

    /// The faults that can be switched on and off.
    pub fn faults(&self) -> &Faults {
        &self.app.faults
    }

    /// All requests for objects, oldest first: since the start or since they were forgotten.
    pub fn requests(&self) -> Vec<Request> {
        self.app.requests.all()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.app.requests.forget();
    }

    /// How many watches are open.
    pub fn open_watches(&self) -> usize {
        self.app.requests.open_watches()
    }

    /// Kills the process, so to speak: all connections end in the middle of whatever they were
    /// about, and nobody listens any more.
    pub async fn kill(&self) {
        let running = self.running().take();
        if let Some(running) = running {
            running.task.abort();
            running.endings.watching.cancel();
            // Ends with "cancelled", which is what was asked for.
            let _ = running.task.await;
        }
        self.shut.send_replace(false);
    }

    /// Starts a server that was killed or terminated, at the same address and with what etcd
    /// keeps. As after every start, nobody can watch from a revision before this one.
    ///
    /// # Errors
    /// If the address can't be had.
    pub async fn restart(&self) -> Result<(), Error> {
        self.kill().await;
        self.app.store.expire();
        self.listen()
    }

    /// Terminates the process, so to speak: nobody listens any more, open watches go on for a
    /// while ([`Builder::termination_tail`]) and then end cleanly. Resolves when all has ended.
    pub async fn terminate(&self) {
        let running = self.running().take();
        let Some(mut running) = running else {
            return;
        };
        running.endings.listening.cancel();
        let tail = self.app.settings.termination_tail;
        if tokio::time::timeout(tail, &mut running.task).await.is_err() {
            running.endings.watching.cancel();
            let _ = running.task.await;
        }
    }

    /// Stops the process as SIGSTOP does: not a byte goes in or out, connections stay open, and new
    /// ones are taken by the system but not by the server.
    pub fn freeze(&self) {
        self.shut.send_replace(true);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.shut.send_replace(false);
    }

    /// Lets nobody watch from a revision before the current one (410), as when too much has changed
    /// since. Watches that are open go on.
    pub fn expire_history(&self) {
        self.app.store.expire();
    }

    /// All objects as they are now, as a snapshot of etcd.
    pub fn backup(&self) -> Backup {
        self.app.store.backup()
    }

    /// Goes back to a backup, as when etcd is restored from a snapshot: the server starts anew, and
    /// the revision is the one that was then.
    ///
    /// # Errors
    /// If the address can't be had.
    pub async fn restore(&self, backup: &Backup) -> Result<(), Error> {
        self.kill().await;
        self.app.store.restore(backup);
        self.listen()
    }

    fn listen(&self) -> Result<(), Error> {
        let address = self.address;
        let bind = |source| Error::Bind { address, source };
        let listener = socket(address)
            .and_then(|it| it.listen(BACKLOG))
            .map_err(bind)?;
        let endings = Endings::default();
        let serving = serve(
            Arc::clone(&self.app),
            listener,
            self.tls.clone(),
            self.shut.subscribe(),
            endings.clone(),
        );
        let task = tokio::spawn(serving);
        *self.running() = Some(Running { endings, task });
        Ok(())
    }

    /// What a cluster has from its first day on.
    fn populate(&self) -> Result<(), Error> {
        for namespace in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            self.put(&crate::manifest::namespace(namespace));
        }
        self.put(&crate::manifest::namespace(&self.namespace));
        self.put(&crate::manifest::service(
            "default",
            "kubernetes",
            &[("https", 443)],
        ));
        self.add_user_in(ADMIN, &[MASTERS])?;
        self.contexts().push(Context {
            name: "anonymous".to_owned(),
            namespace: self.namespace.clone(),
            login: Login::Anonymous,
        });
        self.write_kubeconfig(&self.kubeconfig, ADMIN)
    }

    fn create_namespace(&self, name: &str) -> Result<(), String> {
        let namespaces = Kind::find("", "v1", "namespaces").ok_or("no namespaces")?;
        let exists = self
            .app
            .store
            .read()
            .get(namespaces, &Key::new("", name))
            .is_some();
        if exists {
            return Ok(());
        }
        api::create_object(&self.app, namespaces, crate::manifest::namespace(name))
            .map(drop)
            .map_err(|it| it.message)
    }

    fn write_kubeconfig(&self, path: &Path, current: &str) -> Result<(), Error> {
        let text = kubeconfig::write(&self.url(), &self.ca_pem(), &self.contexts(), current);
        // It holds keys, though of nothing that lasts.
        write_private(path, &text).map_err(|source| Error::File {
            path: path.to_owned(),
            source,
        })
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn contexts(&self) -> MutexGuard<'_, Vec<Context>> {
        self.contexts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if let Some(running) = self.running().take() {
            running.endings.watching.cancel();
            running.task.abort();
        }
    }
}

/// A socket at an address that another of ours may have too, as long as only one listens.
fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(text.as_bytes())
}
