//! Checks whether a port is free, and finds the process that holds it.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fmt, io};

use serde::Serialize;

/// The transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// TCP only.
    Tcp,
    /// UDP only.
    Udp,
    /// TCP and UDP on the same port number, as for DNS.
    Both,
}

/// A port that a service of the stack needs and that cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TakenPort {
    /// The service or instance that needs it.
    pub service: String,
    /// The port.
    pub port: u16,
    /// The process that listens on it, if it is visible: processes of other users are not.
    pub holder: Option<PortHolder>,
    /// The system's error if the port is not in use but cannot be opened, such as a port below 1024.
    pub error: Option<String>,
}

impl fmt::Display for TakenPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            service,
            port,
            holder,
            error,
        } = self;
        match (holder, error) {
            (Some(holder), _) => write!(f, "port {port} of `{service}` is in use by {holder}"),
            (None, Some(error)) => {
                write!(f, "port {port} of `{service}` cannot be opened: {error}")
            }
            (None, None) => write!(
                f,
                "port {port} of `{service}` is in use by a process that is not visible from here \
                 (another user's or a container's)"
            ),
        }
    }
}

/// The process that listens on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PortHolder {
    /// Its process id.
    pub pid: u32,
    /// Its command line on Linux, its name on other systems.
    pub command: String,
}

impl fmt::Display for PortHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} ({})", self.pid, self.command)
    }
}

/// The ports from which [`free_port`] chooses.
const RANGE: Range<u16> = 20_000..32_768;

/// A port number that is not in use on `host` at the moment, neither for TCP nor for UDP.
///
/// It is taken from 20000–32767. That is below the ephemeral ports, which systems assign to outgoing
/// connections (from 32768 on Linux, from 49152 elsewhere, RFC 6335 section 6), so that no
/// outgoing connection takes the port before a program listens on it.
///
/// ```
/// let port = waypost_runner::free_port("127.0.0.1".parse()?)?;
/// assert!((20_000..32_768).contains(&port));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The system's error if no port can be opened on that address.
pub fn free_port(host: IpAddr) -> io::Result<u16> {
    const TRIES: usize = 1000;
    /// A process returns each port once before it returns one again, so that two programs that don't
    /// listen yet never get the same one.
    static NEXT: LazyLock<AtomicUsize> =
        LazyLock::new(|| AtomicUsize::new(fastrand::usize(..1 << 16)));
    let next = || RANGE.start + (NEXT.fetch_add(1, Ordering::Relaxed) % RANGE.len()) as u16;
    first_free(host, std::iter::repeat_with(next).take(TRIES))
}

/// The first of these ports that is not in use.
fn first_free(host: IpAddr, ports: impl IntoIterator<Item = u16>) -> io::Result<u16> {
    let mut last = Err(io::ErrorKind::AddrInUse.into());
    for port in ports {
        let opened = TcpListener::bind((host, port)).and_then(|_tcp| UdpSocket::bind((host, port)));
        match opened {
            Ok(_) => return Ok(port),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = Err(error),
            Err(error) => return Err(error),
        }
    }
    last
}

/// Checks that a port can be opened. `service` is named in the error.
///
/// # Errors
/// The port is in use, with the process that holds it, or can't be opened for another reason.
pub fn check_port(
    service: &str,
    address: SocketAddr,
    transport: Transport,
) -> Result<(), TakenPort> {
    check(service, address.ip(), address.port(), transport)
}

/// Implements [`check_port`].
pub(crate) fn check(
    service: &str,
    host: IpAddr,
    port: u16,
    transport: Transport,
) -> Result<(), TakenPort> {
    let address = SocketAddr::new(host, port);
    // The standard library sets SO_REUSEADDR for TCP, so a port with connections in TIME_WAIT is
    // not reported as in use.
    let tcp = || {
        TcpListener::bind(address)
            .map(drop)
            .map_err(|error| (error, listeners::Protocol::TCP))
    };
    let udp = || {
        UdpSocket::bind(address)
            .map(drop)
            .map_err(|error| (error, listeners::Protocol::UDP))
    };
    let outcome = match transport {
        Transport::Tcp => tcp(),
        Transport::Udp => udp(),
        Transport::Both => tcp().and_then(|()| udp()),
    };
    outcome.map_err(|(error, protocol)| {
        let in_use = error.kind() == io::ErrorKind::AddrInUse;
        TakenPort {
            service: service.to_owned(),
            port,
            holder: in_use.then(|| holder(address, protocol)).flatten(),
            error: (!in_use).then(|| error.to_string()),
        }
    })
}

fn holder(address: SocketAddr, protocol: listeners::Protocol) -> Option<PortHolder> {
    let overlaps =
        |ip: IpAddr| ip == address.ip() || ip.is_unspecified() || address.ip().is_unspecified();
    let mut candidates: Vec<_> = listeners::get_all()
        .ok()?
        .into_iter()
        .filter(|socket| socket.socket.port() == address.port() && socket.protocol == protocol)
        // An outgoing connection from this port does not hold it.
        .filter(|socket| {
            matches!(
                socket.state,
                listeners::SocketState::Listen | listeners::SocketState::Unknown
            )
        })
        .collect();
    candidates.sort_by_key(|socket| (!overlaps(socket.socket.ip()), socket.process.pid));
    let process = candidates.into_iter().next()?.process;
    let command = command_line(process.pid).unwrap_or(process.name);
    Some(PortHolder {
        pid: process.pid,
        command,
    })
}

#[cfg(target_os = "linux")]
fn command_line(pid: u32) -> Option<String> {
    const LONGEST: usize = 160;
    let raw = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&raw)
        .trim_end_matches('\0')
        .replace('\0', " ");
    let line: String = line
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if line.is_empty() {
        return None;
    }
    Some(match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} …", &line[..end]),
        None => line,
    })
}

#[cfg(not(target_os = "linux"))]
fn command_line(_pid: u32) -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn a_port_in_use_is_reported_with_its_holder() {
        let port = free_port(HOST).unwrap();
        let listener = TcpListener::bind((HOST, port)).unwrap();
        let taken = check("gateway", HOST, port, Transport::Tcp).unwrap_err();
        let holder = taken.holder.as_ref().unwrap();
        assert_eq!(holder.pid, std::process::id());
        let executable = std::env::args().next().unwrap();
        assert!(
            holder
                .command
                .contains(executable.rsplit('/').next().unwrap()),
            "{holder}"
        );
        assert!(
            taken
                .to_string()
                .starts_with(&format!("port {port} of `gateway` is in use by pid "))
        );
        drop(listener);
        assert_eq!(check("gateway", HOST, port, Transport::Tcp), Ok(()));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_command_line_of_a_holder_is_one_line_of_limited_length() {
        let command_of = |argument: &str| {
            let mut child = std::process::Command::new("sh")
                .args(["-c", "echo; read end", "name", argument])
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            // It has written a line, so it is no longer a copy of this process.
            let started = io::Read::read(child.stdout.as_mut().unwrap(), &mut [0]);
            assert_eq!(started.unwrap(), 1);
            let command = command_line(child.id());
            drop(child.stdin.take());
            child.wait().unwrap();
            assert_eq!(command_line(child.id()), None, "it has ended");
            command.unwrap()
        };
        assert_eq!(
            command_of("two\nlines"),
            "sh -c echo; read end name two lines"
        );
        let before = "sh -c echo; read end name ";
        let fits = "ü".repeat(160 - before.len());
        assert_eq!(command_of(&fits), format!("{before}{fits}"));
        assert_eq!(command_of(&format!("{fits}x")), format!("{before}{fits} …"));
    }

    #[test]
    fn a_port_that_is_in_use_for_tcp_or_udp_is_not_chosen() {
        let [tcp, udp, free] = [(); 3].map(|()| free_port(HOST).unwrap());
        let _tcp = TcpListener::bind((HOST, tcp)).unwrap();
        let _udp = UdpSocket::bind((HOST, udp)).unwrap();
        assert_eq!(first_free(HOST, [tcp, udp, free]).unwrap(), free);
        let error = first_free(HOST, [tcp, udp]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let elsewhere = IpAddr::from([192, 0, 2, 1]);
        let mut tried = 0;
        let error = first_free(
            elsewhere,
            [tcp, udp, free].into_iter().inspect(|_| tried += 1),
        );
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
        assert_eq!(tried, 1, "no other port would do");
    }

    #[test]
    fn a_wildcard_listener_holds_the_port_of_every_address() {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let taken = check("gateway", HOST, port, Transport::Tcp).unwrap_err();
        assert_eq!(taken.holder.unwrap().pid, std::process::id());
    }

    #[test]
    fn udp_is_checked_only_if_the_transport_includes_it() {
        let port = free_port(HOST).unwrap();
        let _socket = UdpSocket::bind((HOST, port)).unwrap();
        assert_eq!(check("dns", HOST, port, Transport::Tcp), Ok(()));
        for transport in [Transport::Udp, Transport::Both] {
            let taken = check("dns", HOST, port, transport).unwrap_err();
            assert_eq!(taken.holder.unwrap().pid, std::process::id());
        }
    }

    #[test]
    fn an_address_of_another_host_is_reported_with_the_error() {
        let elsewhere = IpAddr::from([192, 0, 2, 1]);
        let taken = check("web", elsewhere, 0, Transport::Tcp).unwrap_err();
        assert!(taken.to_string().contains("cannot be opened: "), "{taken}");
    }

    #[test]
    fn a_free_port_can_be_opened() {
        let port = free_port(HOST).unwrap();
        assert_eq!(check("web", HOST, port, Transport::Both), Ok(()));
    }
}
