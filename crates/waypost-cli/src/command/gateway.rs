//! `waypost gateway`

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use clap::builder::ArgPredicate;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket};
use waypost::integration::shutdown_signal;
use waypost::provider::kubernetes::KubernetesProvider;
use waypost::settings::{ProviderKind, Settings};
use waypost::{ServiceDiscoveryClient, ServiceName};
use waypost_gateway::{AccessLog, AccessLogFormat, Config, GatewayApi, TlsCertificate};

use super::inherited::inherited_listener;
use super::listen::listen_error;
use crate::error::{CommandError, CommandResult};
use crate::output::counted;
use crate::runtime::run_server;
use crate::terminal::announce;

/// Run the API gateway, which forwards /NAME/... to a healthy instance of service NAME
#[derive(Args)]
pub(crate) struct Gateway {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value_t = Ipv4Addr::LOCALHOST.into())]
    bind: IpAddr,
    /// Port to listen on
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Address of the internal pages: /internal/services, /internal/routes, /internal/traffic, /metrics;
    /// "off" for none [default: 127.0.0.1:8001, or any free port if that is in use]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = parse_internal)]
    internal: Option<Internal>,
    /// Log requests to this file; "-" for stderr, "off" for nowhere
    #[arg(long, value_name = "FILE", default_value = "-")]
    access_log: String,
    /// Format of the access log
    #[arg(long, value_name = "FORMAT", value_parser = ["text", "json"], default_value = "text")]
    access_log_format: String,
    /// Share the port with another gateway that also has this option, so that this gateway can replace it
    /// without losing a request
    #[arg(long)]
    reuse_port: bool,
    /// Number of threads that serve clients [default: number of cores]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// PEM file with the certificate that clients get, and its chain; can be repeated for other names, each
    /// with a --tls-key
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Vec<PathBuf>,
    /// PEM file with the private key of a certificate, in the order of --tls-cert
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Vec<PathBuf>,
    /// File of routes: TOML if its name ends in .toml, else YAML. It is read again when it changes
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,
    /// Also read routes from the tags or metadata of instances: waypost.path=/PATH, waypost.host=HOST
    /// and waypost.strip=true; watches every service
    #[arg(long)]
    routes_from_tags: bool,
    /// In Kubernetes, take routes from the HTTPRoutes of the Gateways of this class, whose controllerName is
    /// waypost.dev/gateway. Services then get a route /NAME/... only if named with --only
    #[arg(long, value_name = "NAME")]
    gateway_class: Option<String>,
    /// Serve HTTPS listeners of Gateways, with certificates from the Secrets in their certificateRefs; the
    /// gateway needs permission to get these Secrets
    #[arg(long, requires = "gateway_class")]
    gateway_tls: bool,
    /// Port that the listeners of Gateways must have: the port at which clients reach this gateway; with
    /// --gateway-tls or --tls-cert, 443 by default
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = 80,
        default_value_ifs([
            ("tls_cert", ArgPredicate::IsPresent, "443"),
            ("gateway_tls", ArgPredicate::Equals("true".into()), "443"),
        ]),
        requires = "gateway_class"
    )]
    gateway_port: u16,
    /// Address at which clients reach this gateway, for the status of Gateways; can be repeated
    #[arg(long, value_name = "ADDRESS", requires = "gateway_class")]
    gateway_address: Vec<String>,
    /// Check a routes file and exit
    #[arg(long, value_name = "FILE", conflicts_with = "routes")]
    check: Option<PathBuf>,
    /// Give only this service a route /NAME/...; can be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<ServiceName>,
    /// Give this service no route /NAME/...; can be repeated
    #[arg(long, value_name = "NAME")]
    hide: Vec<ServiceName>,
    /// Give no service a route /NAME/...; use only the routes file
    #[arg(long, conflicts_with_all = ["only", "hide"])]
    no_discovered_routes: bool,
    /// Whether the gateway registers itself: "auto" means not in Kubernetes
    #[arg(long, value_name = "WHEN", value_parser = ["auto", "always", "never"], default_value = "auto")]
    register: String,
    /// In Kubernetes, also call loopback and link-local addresses, and the names of ExternalName
    /// Services
    #[arg(long)]
    allow_external_names: bool,
    /// Largest request body in bytes [default: unlimited]
    #[arg(long, value_name = "BYTES")]
    max_body: Option<u64>,
    /// Trust the Forwarded and X-Forwarded-* headers of proxies in this network; can be repeated
    #[arg(long, value_name = "ADDRESS/BITS")]
    trust: Vec<ipnet::IpNet>,
}

/// Where the internal pages are served.
#[derive(Clone, Copy)]
enum Internal {
    Off,
    At(SocketAddr),
}

const DEFAULT_INTERNAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8001);

impl Gateway {
    pub(super) fn run(self) -> CommandResult {
        let inherited = inherited_listener()?;
        run_server(self.serve(inherited))
    }

    /// `inherited` is the listener that the service manager has handed over.
    async fn serve(self, inherited: Option<std::net::TcpListener>) -> CommandResult {
        if let Some(file) = &self.check {
            let count = waypost_gateway::check_routes(file)
                .map_err(|error| CommandError::Invalid(error.to_string()))?;
            let verb = if count == 1 { "is" } else { "are" };
            let routes = counted(count, "route");
            announce(format_args!("{}: {routes} {verb} valid", file.display()));
            return Ok(ExitCode::SUCCESS);
        }
        raise_descriptor_limit();
        let shutdown = shutdown_signal();
        // The fallback of ENVIRONMENT=development is a gateway, so it can't be used here.
        let settings = Settings::of_this_process()?;
        let provider = settings.chosen_provider()?;
        let client = ServiceDiscoveryClient::builder()
            .shared_provider(Arc::clone(&provider))
            .environment(settings.environment().clone())
            .build()?;
        let mut config = Config::default();
        config.access_log = self.access_log()?;
        config.list_routes = match &inherited {
            Some(listener) => listener.local_addr()?.ip().is_loopback(),
            None => self.bind.is_loopback(),
        };
        config.error_details = config.list_routes;
        // The service manager keeps an inherited listener open, too.
        config.reuse_port = self.reuse_port && inherited.is_none();
        if let Some(threads) = self.threads {
            config.worker_threads = threads.into();
        }
        let is_kubernetes = settings.kind() == ProviderKind::Kubernetes;
        config.register = match self.register.as_str() {
            "always" => true,
            "never" => false,
            _ => !is_kubernetes,
        };
        config.cluster_addresses_only = is_kubernetes && !self.allow_external_names;
        config.max_body = self.max_body;
        config.tls = self.tls()?;
        config.discovered_routes =
            !self.no_discovered_routes && (self.gateway_class.is_none() || !self.only.is_empty());
        config.gateway_api = self.gateway_api(&settings)?;
        config.routes_file = self.routes.clone();
        config.routes_from_tags = self.routes_from_tags;
        let internal = self.bind_internal().await?;
        config.only = self.only;
        config.hidden.extend(self.hide);
        config.trusted_proxies = self.trust;

        let (address, reuse_port) = (SocketAddr::new(self.bind, self.port), self.reuse_port);
        let is_inherited = inherited.is_some();
        let listener = match inherited {
            Some(listener) => TcpListener::from_std(listener)?,
            None => listen(address, reuse_port)
                .map_err(|error| listen_error(address, &error, "--port"))?,
        };
        let has_tls = self.gateway_tls || !config.tls.is_empty();
        let scheme = if has_tls { "https" } else { "http" };
        announce(format_args!(
            "gateway: {scheme}://{} (registry: {})",
            listener.local_addr()?,
            provider.describe()
        ));
        if is_inherited {
            tracing::info!("the listener comes from LISTEN_FDS; --bind and --port are ignored");
        }
        if !config.register {
            tracing::info!("the gateway does not register itself; see --register");
        }
        let mut gateway = waypost_gateway::Gateway::new(client, config);
        if let Some(internal) = internal {
            let address = internal.local_addr()?;
            announce(format_args!("internal pages: http://{address}/"));
            if !address.ip().is_loopback() {
                tracing::warn!(
                    "the internal pages at {address} show all services to everyone who can reach them"
                );
            }
            gateway = gateway.with_internal(internal);
        }
        gateway.serve(listener, shutdown).await?;
        Ok(ExitCode::SUCCESS)
    }

    fn gateway_api(&self, settings: &Settings) -> Result<Option<GatewayApi>, CommandError> {
        let Some(class) = &self.gateway_class else {
            return Ok(None);
        };
        if settings.kind() != ProviderKind::Kubernetes {
            return Err(CommandError::Invalid(format!(
                "--gateway-class needs services from Kubernetes, but they come from {} ({}); set \
                 SERVICE_DISCOVERY_PROVIDER=kubernetes",
                settings.kind().as_str(),
                settings.reason()
            )));
        }
        let provider = KubernetesProvider::from_environment(settings.environment())?;
        let mut api = GatewayApi::new(provider, class);
        api.tls = self.gateway_tls;
        api.port = self.gateway_port;
        api.addresses.clone_from(&self.gateway_address);
        let snapshot_file = settings.directory_options()?.snapshot_file;
        api.snapshot_file = snapshot_file.map(|file| file.with_extension("http-routes.json"));
        Ok(Some(api))
    }

    fn tls(&self) -> Result<Vec<TlsCertificate>, CommandError> {
        let (certificates, keys) = (self.tls_cert.len(), self.tls_key.len());
        if certificates != keys {
            return Err(CommandError::Invalid(format!(
                "each --tls-cert needs a --tls-key: {certificates} and {keys} are given"
            )));
        }
        let pairs = self.tls_cert.iter().zip(&self.tls_key);
        Ok(pairs
            .map(|(certificate, key)| TlsCertificate {
                certificate: certificate.clone(),
                key: key.clone(),
            })
            .collect())
    }

    fn access_log(&self) -> Result<Option<AccessLog>, CommandError> {
        let format = match self.access_log_format.as_str() {
            "json" => AccessLogFormat::Json,
            _ => AccessLogFormat::Text,
        };
        match self.access_log.as_str() {
            "off" => Ok(None),
            "-" => Ok(Some(AccessLog::to_stderr(format))),
            file => match AccessLog::to_file(Path::new(file), format) {
                Ok(log) => Ok(Some(log)),
                Err(error) => Err(CommandError::Invalid(format!(
                    "--access-log {file}: {error}"
                ))),
            },
        }
    }

    async fn bind_internal(&self) -> Result<Option<TcpListener>, CommandError> {
        let address = match self.internal {
            Some(Internal::Off) => return Ok(None),
            Some(Internal::At(address)) => address,
            None => DEFAULT_INTERNAL,
        };
        match TcpListener::bind(address).await {
            Ok(listener) => Ok(Some(listener)),
            Err(error) if self.internal.is_none() && error.kind() == ErrorKind::AddrInUse => {
                Ok(Some(TcpListener::bind((address.ip(), 0)).await?))
            }
            Err(error) => Err(listen_error(address, &error, "--internal")),
        }
    }
}

/// The number of connections that wait to be accepted.
const BACKLOG: u32 = 4096;

/// Listens like `TcpListener::bind`, but with a longer backlog, and optionally on a shared port.
fn listen(address: SocketAddr, reuse_port: bool) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    if reuse_port {
        socket.set_reuseport(true)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn parse_internal(text: &str) -> Result<Internal, String> {
    if text == "off" {
        return Ok(Internal::Off);
    }
    let address = text.parse();
    address
        .map(Internal::At)
        .map_err(|_| "expected ADDRESS:PORT, such as 127.0.0.1:8001, or \"off\"".to_owned())
}

/// Lets the process open as many files as it may. Each request can need two.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::debug!(%error, "the limit of open files can't be raised");
    }
}
