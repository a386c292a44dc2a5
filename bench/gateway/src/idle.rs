//! The memory of idle client connections, each of which has sent one request.

use std::io;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::proxies::{self, Certificate, NAMES, Origin, Proxy};

pub(crate) fn run(connections: u32, with_tls: bool, folder: &Path) -> Result<(), String> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        ..limit
    };
    // Proxies inherit the limit.
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised)
        .map_err(|error| format!("the limit of open files: {error}"))?;
    let origin = Origin::start(folder)?;
    let tls = with_tls.then(|| Tls::new(folder)).transpose()?;
    println!(
        "| proxy | before | with {connections} idle connections | per connection |\n|---|---|---|---|"
    );
    // The minimal proxy has no TLS.
    for name in NAMES.iter().filter(|name| !with_tls || **name != "hyper") {
        let certificate = tls.as_ref().map(|tls| &tls.certificate);
        let proxy = Proxy::start_with(name, origin.port, certificate, folder)?;
        let open = || used_connection(&proxy, tls.as_ref());
        let mut connected = vec![open()?];
        let before = proxy.memory()?;
        for _ in 1..connections {
            connected.push(open()?);
        }
        let after = proxy.memory()?;
        let each = after.saturating_sub(before) as f64 / f64::from(connections);
        println!("| {name} | {before} kB | {after} kB | {each:.2} kB |");
    }
    Ok(())
}

/// An open connection.
enum Connected {
    Plain {
        _stream: TcpStream,
    },
    Tls {
        _stream: Box<StreamOwned<ClientConnection, TcpStream>>,
    },
}

/// A connection that has received one response.
fn used_connection(proxy: &Proxy, tls: Option<&Tls>) -> Result<Connected, String> {
    let connect = || -> io::Result<Connected> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port()))?;
        let request = proxies::request(proxy.path(), proxy.port());
        let Some(tls) = tls else {
            proxies::exchange(&mut stream, &request)?;
            return Ok(Connected::Plain { _stream: stream });
        };
        let name = "localhost".try_into().map_err(io::Error::other)?;
        let session = ClientConnection::new(Arc::clone(&tls.client), name);
        let session = session.map_err(io::Error::other)?;
        let mut stream = Box::new(StreamOwned::new(session, stream));
        proxies::exchange(&mut stream, &request)?;
        Ok(Connected::Tls { _stream: stream })
    };
    connect().map_err(|error| format!("{}: {error}", proxy.name()))
}

/// A certificate and the configuration of clients that trust it.
struct Tls {
    certificate: Certificate,
    client: Arc<ClientConfig>,
}

impl Tls {
    fn new(folder: &Path) -> Result<Self, String> {
        let made = || -> Result<Self, Box<dyn std::error::Error>> {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
            let key = made.signing_key.serialize_pem();
            let mut roots = RootCertStore::empty();
            roots.add(made.cert.der().clone())?;
            let client = ClientConfig::builder_with_provider(ring::default_provider().into())
                .with_safe_default_protocol_versions()?
                .with_root_certificates(roots)
                .with_no_client_auth();
            Ok(Self {
                certificate: Certificate::new(&made.cert.pem(), &key, folder)?,
                client: Arc::new(client),
            })
        };
        made().map_err(|error| format!("a certificate: {error}"))
    }
}
