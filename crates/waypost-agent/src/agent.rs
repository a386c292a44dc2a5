//! The agent and its builder.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::agent_services::AgentServices;
use crate::app::App;
use crate::auth::Auth;
use crate::check_targets::CheckTargets;
use crate::checks::CheckRunner;
use crate::error::Error;
use crate::faults::Faults;
use crate::http::Listener;
use crate::monitor::Monitor;
use crate::store::{Node, Store};
use crate::{background, dns, http, ids, metadata, persistence};

/// A running registry. Dropping it stops it; [`shutdown`](Self::shutdown) also waits until it has
/// stopped.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), waypost_agent::Error> {
/// let agent = waypost_agent::Agent::start().await?;
/// println!("Consul's HTTP API is at {}", agent.url());
/// agent.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Agent {
    http_addr: SocketAddr,
    dns_addr: Option<SocketAddr>,
    app: Arc<App>,
    tasks: Vec<JoinHandle<()>>,
}

/// Configures and starts an [`Agent`].
#[derive(Debug)]
pub struct Builder {
    http: SocketAddr,
    http_socket: Option<PathBuf>,
    dns: Option<SocketAddr>,
    advertise: Option<IpAddr>,
    data_dir: Option<PathBuf>,
    token: Option<String>,
    node_name: Option<String>,
    node_id: Option<String>,
    node_meta: BTreeMap<String, String>,
    datacenter: String,
    seed: Option<u64>,
    allowed_hosts: Vec<String>,
    enable_script_checks: bool,
    check_targets: CheckTargets,
    max_connections: Option<usize>,
}

impl Agent {
    /// Starts an agent for a test: on a free port of 127.0.0.1, in memory, without DNS. This takes
    /// less than 5 ms.
    ///
    /// # Errors
    /// If no port can be bound.
    pub async fn start() -> Result<Self, Error> {
        Self::builder().start().await
    }

    /// A builder with the defaults of [`Agent::start`].
    #[must_use]
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// The address of the HTTP API.
    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// The URL of the HTTP API without a trailing slash, such as `http://127.0.0.1:8500`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.http_addr)
    }

    /// The address of the DNS server, for UDP and TCP. `None` if there is none.
    #[must_use]
    pub fn dns_addr(&self) -> Option<SocketAddr> {
        self.dns_addr
    }

    /// Fault injection for tests.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.app.faults
    }

    /// Waits until a client requests that the agent leaves (`/v1/agent/leave`). From then on, the agent
    /// accepts no further connections, and the caller should [`shutdown`](Self::shutdown) it.
    pub async fn left(&self) {
        let mut leave_requested = self.app.leave_requested.subscribe();
        // Fails only if the sender is dropped, and `self` owns it.
        let _ = leave_requested.wait_for(|requested| *requested).await;
    }

    /// Persists all changes, stops the agent and waits until its ports are free.
    pub async fn shutdown(mut self) {
        if let Err(error) = self.app.store.persisted().await {
            tracing::error!(%error, "failed to persist all changes before shutdown");
        }
        self.stop();
        for task in self.tasks.drain(..) {
            // The error is that the task was cancelled.
            let _ = task.await;
        }
    }

    fn stop(&self) {
        self.app.agent_services.stop();
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Builder {
    fn new() -> Self {
        Self {
            http: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            http_socket: None,
            dns: None,
            advertise: None,
            data_dir: None,
            token: None,
            node_name: None,
            node_id: None,
            node_meta: BTreeMap::new(),
            datacenter: "dc1".to_owned(),
            seed: None,
            allowed_hosts: Vec::new(),
            enable_script_checks: false,
            check_targets: CheckTargets::default(),
            max_connections: None,
        }
    }

    /// The address of the HTTP API. The default is a free port of 127.0.0.1.
    #[must_use]
    pub fn http(mut self, address: SocketAddr) -> Self {
        self.http = address;
        self
    }

    /// A Unix socket on which the HTTP API is served as well. Clients use `unix://` and the path as
    /// the address. Access is controlled by the permissions of the directory. The default is none.
    #[must_use]
    pub fn http_socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.http_socket = Some(path.into());
        self
    }

    /// The address of the DNS server, for UDP and TCP. The default, `None`, starts no DNS server.
    /// Consul's port is 8600.
    #[must_use]
    pub fn dns(mut self, address: Option<SocketAddr>) -> Self {
        self.dns = address;
        self
    }

    /// The address of the node, which is the address of instances that are registered without one.
    /// The default is the address of the HTTP API, or 127.0.0.1 if that is an unspecified address:
    /// the right one of several interfaces can't be guessed.
    #[must_use]
    pub fn advertise(mut self, address: IpAddr) -> Self {
        self.advertise = Some(address);
        self
    }

    /// The directory in which services, checks, keys and sessions are persisted. It is created if
    /// it doesn't exist. Every change is on disk before it is acknowledged. The default is to keep
    /// everything in memory.
    #[must_use]
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(path.into());
        self
    }

    /// The token that every request must have, in any place where Consul accepts a token. The default
    /// is none; an empty token counts as none. A token is required if the agent is reachable from other
    /// machines.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Allows requests for a host name with a dot. IP addresses, `localhost` and names without a
    /// dot are always allowed. Other names are rejected, because a web page could use them to send
    /// requests (DNS rebinding). With a token, every name is allowed.
    #[must_use]
    pub fn allow_host(mut self, name: impl Into<String>) -> Self {
        self.allowed_hosts.push(name.into());
        self
    }

    /// Whether clients may register checks that run programs (Consul's `enable_script_checks`). The
    /// default is no, because every client could run any program as the user of the agent.
    #[must_use]
    pub fn enable_script_checks(mut self, enable: bool) -> Self {
        self.enable_script_checks = enable;
        self
    }

    /// The only targets that health checks may connect to: networks such as `10.0.0.0/8`, IP
    /// addresses and host names. The default is every target.
    #[must_use]
    pub fn check_targets<T: Into<String>>(mut self, allowed: impl IntoIterator<Item = T>) -> Self {
        let allowed: Vec<String> = allowed.into_iter().map(Into::into).collect();
        self.check_targets = CheckTargets::only(&allowed);
        self
    }

    /// The name of the node. The default is the host name.
    #[must_use]
    pub fn node_name(mut self, name: impl Into<String>) -> Self {
        self.node_name = Some(name.into());
        self
    }

    /// The id of the node, a UUID. The default is a random one.
    #[must_use]
    pub fn node_id(mut self, id: impl Into<String>) -> Self {
        self.node_id = Some(id.into());
        self
    }

    /// Adds metadata to the node, for `?node-meta` and filters. The same rules apply as for the
    /// metadata of an instance. The default is none.
    #[must_use]
    pub fn node_meta(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.node_meta.insert(key.into(), value.into());
        self
    }

    /// The name of the datacenter. The default is `dc1`, as in Consul.
    #[must_use]
    pub fn datacenter(mut self, name: impl Into<String>) -> Self {
        self.datacenter = name.into();
        self
    }

    /// The seed of the random number generator, which determines ids and jitter. The default is a
    /// random seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The maximum number of connections that each listener serves at the same time. Further ones
    /// wait. At most three quarters may belong to clients that haven't made an allowed request yet;
    /// beyond that, the oldest of these is closed for a new one. The default is 16,384, or fewer if the
    /// process may not open as many files.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = Some(connections.max(1));
        self
    }

    /// Starts the agent on the current Tokio runtime.
    ///
    /// # Errors
    /// If a setting is invalid, an address can't be bound, or the data directory can't be used.
    pub async fn start(self) -> Result<Agent, Error> {
        self.validate()?;
        let bind_error = |address| move |source: io::Error| Error::Bind { address, source };
        let listener = TcpListener::bind(self.http)
            .await
            .map_err(bind_error(self.http))?;
        let http_addr = listener.local_addr().map_err(bind_error(self.http))?;
        let dns_sockets = match self.dns {
            Some(address) => Some(dns::bind(address).await.map_err(bind_error(address))?),
            None => None,
        };
        let dns_addr = dns_sockets
            .as_ref()
            .and_then(|sockets| sockets.local_addr().ok());
        let mut listeners = vec![Listener::Tcp(listener)];
        if let Some(path) = &self.http_socket {
            let listener = Listener::bind_unix(path).await;
            listeners.push(listener.map_err(|source| Error::Socket {
                path: path.clone(),
                source,
            })?);
        }
        let journal = match &self.data_dir {
            Some(directory) => Some(persistence::open(directory).await?),
            None => None,
        };
        let app = Arc::new(self.into_app());
        let mut tasks = Vec::new();
        if let Some((file, restored)) = journal {
            app.store.restore(&restored);
            app.agent_services.restore(&restored);
            let journal = persistence::start(Arc::clone(&app), file).await?;
            tasks.push(tokio::spawn(journal));
        }
        for listener in listeners {
            let server = http::serve(Arc::clone(&app), listener);
            tasks.push(tokio::spawn(async {
                server.await;
            }));
        }
        tasks.extend(background::start(&app));
        if let Some(sockets) = dns_sockets {
            let server = dns::serve(Arc::clone(&app), sockets);
            tasks.push(tokio::spawn(async {
                server.await;
            }));
        }
        Ok(Agent {
            http_addr,
            dns_addr,
            app,
            tasks,
        })
    }

    fn validate(&self) -> Result<(), Error> {
        metadata::validate(&self.node_meta).map_err(|message| Error::NodeMeta { message })?;
        if let Some(id) = &self.node_id
            && (id.is_empty() || ids::check_node_id(id).is_err())
        {
            return Err(Error::NodeId { id: id.clone() });
        }
        let addresses = [Some(self.http), self.dns];
        let mut reachable = addresses.into_iter().flatten();
        let reachable = reachable.find(|address| !address.ip().is_loopback());
        let has_token = self.token.as_ref().is_some_and(|token| !token.is_empty());
        match (reachable, has_token) {
            (Some(address), false) => Err(Error::Unprotected { address }),
            _ => Ok(()),
        }
    }

    /// The state of the agent before it listens anywhere.
    pub(crate) fn into_app(self) -> App {
        let mut random = self
            .seed
            .map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let node_name = self.node_name.unwrap_or_else(host_name);
        let node_id = self.node_id.unwrap_or_else(|| ids::random(&mut random));
        let address = self
            .advertise
            .unwrap_or_else(|| default_address(self.http.ip()))
            .to_string();
        let mut node_meta = self.node_meta;
        node_meta.insert("consul-network-segment".to_owned(), String::new());
        let node = Node {
            id: node_id.clone(),
            name: node_name.clone(),
            address: address.clone(),
            datacenter: self.datacenter.clone(),
            tagged_addresses: Some(tagged_addresses(&address)),
            meta: Some(node_meta.clone()),
            ..Node::default()
        };
        let store = Arc::new(Store::new(node));
        background::register_server(&store, &node_name);
        let runner = CheckRunner::new(random.fork())
            .with_permissions(self.enable_script_checks, self.check_targets);
        App {
            agent_services: AgentServices::new(node_name.clone(), Arc::clone(&store), runner),
            node_name,
            node_id,
            node_meta,
            datacenter: self.datacenter,
            address,
            store,
            faults: Faults::default(),
            monitor: Monitor::default(),
            started: SystemTime::now(),
            auth: Auth::new(self.token, self.allowed_hosts),
            leave_requested: tokio::sync::watch::Sender::new(false),
            random: Mutex::new(random),
            large_bodies: Arc::new(Semaphore::new(http::MAX_LARGE_BODIES)),
            unfinished_heads: Arc::default(),
            max_connections: self
                .max_connections
                .unwrap_or_else(http::default_max_connections),
            evaluations: Arc::new(Semaphore::new(http::MAX_EVALUATIONS)),
        }
    }
}

/// The node address of an agent that listens on `bound`.
fn default_address(bound: IpAddr) -> IpAddr {
    if bound.is_unspecified() {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else {
        bound
    }
}

fn host_name() -> String {
    let name = gethostname::gethostname().to_string_lossy().into_owned();
    if name.is_empty() {
        "localhost".to_owned()
    } else {
        name
    }
}

/// The address under each of Consul's names for networks. All of them have the same address here.
fn tagged_addresses(address: &str) -> BTreeMap<String, String> {
    let tags = ["lan", "lan_ipv4", "wan", "wan_ipv4"];
    tags.map(|tag| (tag.to_owned(), address.to_owned())).into()
}
