//! How an agent is to be, and its start.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use tokio::net::TcpListener;

use crate::agent::Agent;
use crate::app::App;
use crate::checks::Runner;
use crate::faults::Faults;
use crate::guard::Guard;
use crate::http::Door;
use crate::ids;
use crate::monitor::Monitor;
use crate::registration::Registration;
use crate::store::{Node, Store};
use crate::targets::Targets;
use crate::upkeep;
use crate::{Error, decode, dns, http, persistence};

/// How an [`Agent`] is to be.
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
    hosts: Vec<String>,
    scripts: bool,
    targets: Targets,
}

impl Builder {
    pub(crate) fn new() -> Self {
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
            hosts: Vec::new(),
            scripts: false,
            targets: Targets::default(),
        }
    }

    /// Where the HTTP API is to be. The default is a free port of 127.0.0.1.
    #[must_use]
    pub fn http(mut self, address: SocketAddr) -> Self {
        self.http = address;
        self
    }

    /// A Unix socket where the HTTP API is to be too: clients take `unix://` and its path as an
    /// address. The default is none. Who may call there is up to the rights of its folder.
    #[must_use]
    pub fn http_socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.http_socket = Some(path.into());
        self
    }

    /// Where DNS is to be served, over UDP and TCP, if at all. The default is nowhere; Consul's
    /// own port is 8600.
    #[must_use]
    pub fn dns(mut self, address: Option<SocketAddr>) -> Self {
        self.dns = address;
        self
    }

    /// The address of the node, where instances are that name no address of their own. The default
    /// is the address that the HTTP API is bound to, or 127.0.0.1 if it is bound to all of them:
    /// which of several would be the right one can't be guessed.
    #[must_use]
    pub fn advertise(mut self, address: IpAddr) -> Self {
        self.advertise = Some(address);
        self
    }

    /// The folder to keep services, checks, keys and sessions in, which is made if need be. Every
    /// change is on disk before it is acknowledged. The default is in memory only.
    #[must_use]
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(path.into());
        self
    }

    /// The token that every request must carry, where Consul's clients put theirs. The default is
    /// none. An agent that others than this machine can reach must have one.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// A name with a dot in it by which clients may call the agent, beside addresses, `localhost`
    /// and names without a dot. Requests for other names are refused, since a web page from
    /// elsewhere could have sent them (DNS rebinding). With a token every name is allowed.
    #[must_use]
    pub fn allow_host(mut self, name: impl Into<String>) -> Self {
        self.hosts.push(name.into());
        self
    }

    /// Whether clients may register checks that run programs (Consul's `enable_script_checks`). The
    /// default is no: whoever can reach the agent could run any program as its user.
    #[must_use]
    pub fn enable_script_checks(mut self, enable: bool) -> Self {
        self.scripts = enable;
        self
    }

    /// The only places where health checks may look: networks such as `10.0.0.0/8`, addresses and
    /// host names. The default is everywhere.
    #[must_use]
    pub fn check_targets<T: Into<String>>(mut self, allowed: impl IntoIterator<Item = T>) -> Self {
        let allowed: Vec<String> = allowed.into_iter().map(Into::into).collect();
        self.targets = Targets::only(&allowed);
        self
    }

    /// The name of the node. The default is the host's name.
    #[must_use]
    pub fn node_name(mut self, name: impl Into<String>) -> Self {
        self.node_name = Some(name.into());
        self
    }

    /// The id of the node, a UUID. The default is another one every time.
    #[must_use]
    pub fn node_id(mut self, id: impl Into<String>) -> Self {
        self.node_id = Some(id.into());
        self
    }

    /// Something that the node says of itself, for `?node-meta` and filters to find. The rules are
    /// those of an instance's metadata. The default is nothing.
    #[must_use]
    pub fn node_meta(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.node_meta.insert(key.into(), value.into());
        self
    }

    /// The name of the datacenter. The default is `dc1`, as Consul's.
    #[must_use]
    pub fn datacenter(mut self, name: impl Into<String>) -> Self {
        self.datacenter = name.into();
        self
    }

    /// The seed of everything random: ids, jitter. The default is another one every time.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Starts the agent on the current Tokio runtime.
    ///
    /// # Errors
    /// If the address can't be had, or something was asked for that can't be given.
    pub async fn start(self) -> Result<Agent, Error> {
        if let Some(what) = decode::fault_of_meta(&self.node_meta) {
            return Err(Error::NodeMeta { what });
        }
        if let Some(id) = &self.node_id
            && (id.is_empty() || ids::check_node_id(id).is_err())
        {
            return Err(Error::NodeId { id: id.clone() });
        }
        let bound = [Some(self.http), self.dns];
        let wide = bound
            .into_iter()
            .flatten()
            .find(|it| !it.ip().is_loopback());
        if let (Some(address), None) = (wide, &self.token) {
            return Err(Error::Unprotected { address });
        }
        let bind = |address| move |source: io::Error| Error::Bind { address, source };
        let listener = TcpListener::bind(self.http)
            .await
            .map_err(bind(self.http))?;
        let http_addr = listener.local_addr().map_err(bind(self.http))?;
        let resolver = match self.dns {
            Some(address) => Some(dns::bind(address).await.map_err(bind(address))?),
            None => None,
        };
        let dns_addr = resolver
            .as_ref()
            .and_then(|sockets| sockets.local_addr().ok());
        let mut doors = vec![Door::Port(listener)];
        if let Some(path) = &self.http_socket {
            let socket = Door::socket(path).await;
            doors.push(socket.map_err(|source| Error::Socket {
                path: path.clone(),
                source,
            })?);
        }
        let kept = match &self.data_dir {
            Some(folder) => Some(persistence::open(folder).await?),
            None => None,
        };
        let app = Arc::new(self.assemble());
        let mut tasks = Vec::new();
        if let Some((log, kept)) = kept {
            app.store.restore(&kept);
            app.registration.restore(&kept);
            tasks.push(tokio::spawn(
                persistence::keep(Arc::clone(&app.store), log).await?,
            ));
        }
        for door in doors {
            let serving = http::serve(Arc::clone(&app), door);
            tasks.push(tokio::spawn(async {
                serving.await;
            }));
        }
        tasks.extend(upkeep::start(&app));
        if let Some(sockets) = resolver {
            let serving = dns::serve(Arc::clone(&app), sockets);
            tasks.push(tokio::spawn(async {
                serving.await;
            }));
        }
        Ok(Agent {
            http_addr,
            dns_addr,
            app,
            tasks,
        })
    }

    pub(crate) fn assemble(self) -> App {
        let mut random = self
            .seed
            .map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let node_name = self.node_name.unwrap_or_else(host_name);
        let node_id = self.node_id.unwrap_or_else(|| ids::random(&mut random));
        let address = self.advertise.unwrap_or_else(|| advertised(self.http.ip()));
        let address = address.to_string();
        let mut node_meta = self.node_meta;
        node_meta.insert("consul-network-segment".to_owned(), String::new());
        let node = Node {
            id: node_id.clone(),
            name: node_name.clone(),
            address: address.clone(),
            datacenter: self.datacenter.clone(),
            tagged_addresses: Some(tagged(&address)),
            meta: Some(node_meta.clone()),
            ..Node::default()
        };
        let store = Arc::new(Store::new(node));
        upkeep::introduce_self(&store, &node_name);
        let monitor = Arc::new(Monitor::default());
        let runner = Runner::new(random.fork()).allowing(self.scripts, self.targets);
        App {
            registration: Registration::new(node_name.clone(), Arc::clone(&store), runner)
                .telling(Arc::clone(&monitor)),
            node_name,
            node_id,
            node_meta,
            datacenter: self.datacenter,
            address,
            store,
            faults: Faults::default(),
            monitor,
            started: SystemTime::now(),
            guard: Guard::new(self.token, self.hosts),
            left: tokio::sync::watch::Sender::new(false),
            random: Mutex::new(random),
        }
    }
}

/// The address that others are told: an agent that listens everywhere is at least here.
fn advertised(bound: IpAddr) -> IpAddr {
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

/// An address under the names by which Consul tells networks apart: here they are all one.
fn tagged(address: &str) -> BTreeMap<String, String> {
    let tags = ["lan", "lan_ipv4", "wan", "wan_ipv4"];
    tags.map(|tag| (tag.to_owned(), address.to_owned())).into()
}
