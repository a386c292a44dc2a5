//! How the runner learns that a process is healthy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::template::Vars;

/// When a process counts as healthy.
///
/// After the start it is asked every 20 ms, more slowly as time passes; once it is healthy, every
/// [`interval`](Probe::interval). A process that is starting is not called unhealthy before its
/// [`start_timeout`](crate::Process::start_timeout).
///
/// ```
/// use std::time::Duration;
/// use waypost_runner::Probe;
///
/// let probe = Probe::http("/health").interval(Duration::from_secs(5)).failures(2);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Probe {
    kind: Kind,
    timing: Timing,
}

#[derive(Clone, Debug)]
enum Kind {
    Http(String),
    Tcp,
    Running,
    Completed,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) failures: u32,
}

impl Probe {
    /// A GET that answers 2xx. `target` is a path on the main port (`/health`) or a whole address
    /// (`http://{host}:{port:admin}/health`), which may hold placeholders. Only `http` is spoken.
    pub fn http(target: impl Into<String>) -> Self {
        Self::new(Kind::Http(target.into()))
    }

    /// The main port accepts connections.
    pub fn tcp() -> Self {
        Self::new(Kind::Tcp)
    }

    /// The process runs. Nothing is asked of it.
    pub fn running() -> Self {
        Self::new(Kind::Running)
    }

    /// The process has ended with exit code 0. For a step that is done once, such as a migration:
    /// it is not started again, and if it fails it is not tried again.
    pub fn completed() -> Self {
        Self::new(Kind::Completed)
    }

    /// The time between two questions to a healthy process; default: 2 s.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.timing.interval = interval;
        self
    }

    /// How long an answer may take; default: 1 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timing.timeout = timeout;
        self
    }

    /// How many failures in a row make a healthy process unhealthy; default: 3.
    /// One success makes it healthy again.
    pub fn failures(mut self, failures: u32) -> Self {
        self.timing.failures = failures;
        self
    }

    fn new(kind: Kind) -> Self {
        let timing = Timing {
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            failures: 3,
        };
        Self { kind, timing }
    }

    pub(crate) fn timing(&self) -> Timing {
        self.timing
    }

    pub(crate) fn is_completed(&self) -> bool {
        matches!(self.kind, Kind::Completed)
    }

    /// The check of one instance, or what is wrong with this probe.
    pub(crate) fn resolve(&self, vars: Vars<'_>) -> Result<Check, String> {
        let Timing {
            interval,
            timeout,
            failures,
        } = self.timing;
        if interval.is_zero() || timeout.is_zero() {
            return Err("interval and timeout must be longer than 0".to_owned());
        }
        if failures == 0 {
            return Err("failures must be at least 1".to_owned());
        }
        let vars = Vars {
            host: connectable(vars.host),
            ..vars
        };
        match &self.kind {
            Kind::Http(target) if target.starts_with('/') => {
                http_check(&vars.expand(&format!("http://{{host}}:{{port}}{target}"))?)
            }
            Kind::Http(target) => http_check(&vars.expand(target)?),
            Kind::Tcp => {
                let port = vars
                    .ports
                    .main()
                    .ok_or("a TCP probe needs the process to have a port: add .port(…)")?;
                Ok(Check::Tcp {
                    host: vars.host.to_string(),
                    port,
                })
            }
            Kind::Running => Ok(Check::Running),
            Kind::Completed => Ok(Check::Completed),
        }
    }
}

/// A probe whose address is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    Http { host: String, port: u16, uri: Uri },
    Tcp { host: String, port: u16 },
    Running,
    Completed,
}

impl Check {
    /// Asks once. The error says what came instead of the answer.
    pub(crate) async fn ask(&self) -> Result<(), String> {
        match self {
            Self::Running => Ok(()),
            Self::Completed => Err("still at work".to_owned()),
            Self::Tcp { host, port } => connect(host, *port).await.map(drop),
            Self::Http { host, port, uri } => get(host, *port, uri).await,
        }
    }
}

/// A process that listens on every address is asked on the loopback one.
fn connectable(host: IpAddr) -> IpAddr {
    match host {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        host => host,
    }
}

fn http_check(target: &str) -> Result<Check, String> {
    let uri: Uri = target
        .parse()
        .map_err(|error| format!("`{target}` is no address: {error}"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http"), Some(host)) if !host.is_empty() => Ok(Check::Http {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(80),
            uri,
        }),
        _ => Err(format!(
            "`{target}` must be a path such as `/health` or begin with `http://`"
        )),
    }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let connected = TcpStream::connect((host, port)).await;
    connected.map_err(|error| format!("{host}:{port} does not accept connections: {error}"))
}

async fn get(host: &str, port: u16, uri: &Uri) -> Result<(), String> {
    /// As much of an answer as is worth showing.
    const SHOWN: usize = 200;

    let stream = connect(host, port).await?;
    let broken = |error: hyper::Error| format!("{uri} broke off: {error}");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::USER_AGENT, "waypost-runner")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("{uri}: {error}"))?;

    let exchange = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let body = Limited::new(response.into_body(), 64 * 1024)
            .collect()
            .await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let body = String::from_utf8_lossy(&body);
        let shown: String = body.trim().chars().take(SHOWN).collect();
        Err(format!(
            "{uri} answered {status}{}{shown}",
            if shown.is_empty() { "" } else { ": " }
        ))
    };
    // The connection does the reading and writing for as long as the exchange needs it.
    tokio::pin!(exchange);
    tokio::select! {
        outcome = &mut exchange => outcome,
        _ = connection => exchange.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::Transport;
    use crate::ports::{PortSpec, Ports};

    fn resolve(probe: Probe, host: &str) -> Result<Check, String> {
        let ports = &Ports::new(
            &[PortSpec {
                name: None,
                number: 8002,
                transport: Transport::Tcp,
            }],
            1,
        );
        let host = host.parse().unwrap();
        probe.resolve(Vars {
            service: "a",
            instance: "a",
            replica: 1,
            host,
            ports,
        })
    }

    #[test]
    fn a_path_is_asked_on_the_main_port() {
        let http = |host: &str, uri: &'static str| Check::Http {
            host: host.to_owned(),
            port: 8002,
            uri: Uri::from_static(uri),
        };
        let path = || Probe::http("/health?deep=1");
        assert_eq!(
            resolve(path(), "127.0.0.1"),
            Ok(http("127.0.0.1", "http://127.0.0.1:8002/health?deep=1"))
        );
        assert_eq!(
            resolve(path(), "0.0.0.0"),
            Ok(http("127.0.0.1", "http://127.0.0.1:8002/health?deep=1"))
        );
        assert_eq!(
            resolve(path(), "::"),
            Ok(http("::1", "http://[::1]:8002/health?deep=1"))
        );
    }

    #[test]
    fn bad_probes_say_what_would_be_right() {
        for target in [
            "health",
            "https://{host}:{port}/",
            "ftp://x/",
            "http:///x",
            "",
        ] {
            let error = resolve(Probe::http(target), "127.0.0.1").unwrap_err();
            assert!(
                error.contains("`/health`") || error.contains("is no address"),
                "{target}: {error}"
            );
        }
        let error = resolve(Probe::tcp().failures(0), "127.0.0.1").unwrap_err();
        assert_eq!(error, "failures must be at least 1");
        let error = resolve(Probe::tcp().interval(Duration::ZERO), "127.0.0.1").unwrap_err();
        assert_eq!(error, "interval and timeout must be longer than 0");
    }
}
