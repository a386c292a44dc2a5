//! Is a port free, and if not, who holds it?

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use serde::Serialize;

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// TCP only.
    Tcp,
    /// UDP only.
    Udp,
    /// TCP and UDP on one number, as DNS servers do.
    Both,
}

/// A port that a process of the stack needs and can't have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenPort {
    /// The process that needs it.
    pub process: String,
    /// The port.
    pub port: u16,
    /// Who listens on it, where that can be seen: the processes of other users can't.
    pub holder: Option<Holder>,
    /// Set if nobody holds the port, but the system refuses it (such as a port below 1024).
    pub refusal: Option<String>,
}

impl fmt::Display for TakenPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            process,
            port,
            holder,
            refusal,
        } = self;
        match (holder, refusal) {
            (Some(holder), _) => write!(f, "port {port} for `{process}` is taken by {holder}"),
            (None, Some(refusal)) => {
                write!(f, "port {port} for `{process}` can't be opened: {refusal}")
            }
            (None, None) => {
                write!(
                    f,
                    "port {port} for `{process}` is taken by a process that can't be seen from here (another user's or a container's)"
                )
            }
        }
    }
}

/// The process that listens on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its command line where the system shows it, else its name.
    pub command: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} ({})", self.pid, self.command)
    }
}

/// A number that nobody uses on `host` at this moment, for TCP and for UDP.
///
/// It is taken from 20000–32767, below the ports that systems give to outgoing connections (from
/// 32768 on Linux, from 49152 elsewhere, RFC 6335), so that none of these takes it before a process
/// has been started to listen there.
///
/// # Errors
/// The system's answer if no port can be opened there.
pub fn free(host: IpAddr) -> io::Result<u16> {
    const TRIES: u32 = 1000;
    let mut last = Ok(0);
    for _ in 0..TRIES {
        let port = fastrand::u16(20_000..32_768);
        let opened = TcpListener::bind((host, port)).and_then(|_tcp| UdpSocket::bind((host, port)));
        match opened {
            Ok(_) => return Ok(port),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = Err(error),
            Err(error) => return Err(error),
        }
    }
    last
}

/// Can `process` listen on this port?
pub(crate) fn check(
    process: &str,
    host: IpAddr,
    port: u16,
    transport: Transport,
) -> Result<(), TakenPort> {
    let address = SocketAddr::new(host, port);
    // The standard library sets SO_REUSEADDR for TCP, so connections that are fading away
    // (TIME_WAIT) don't make a port look taken.
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
            process: process.to_owned(),
            port,
            holder: if in_use {
                holder(address, protocol)
            } else {
                None
            },
            refusal: if in_use {
                None
            } else {
                Some(error.to_string())
            },
        }
    })
}

fn holder(address: SocketAddr, protocol: listeners::Protocol) -> Option<Holder> {
    let overlaps =
        |ip: IpAddr| ip == address.ip() || ip.is_unspecified() || address.ip().is_unspecified();
    let mut candidates: Vec<_> = listeners::get_all()
        .ok()?
        .into_iter()
        .filter(|socket| socket.socket.port() == address.port() && socket.protocol == protocol)
        // Connections that merely start from this port don't hold it.
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
    Some(Holder {
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
    match line.char_indices().nth(LONGEST) {
        _ if line.is_empty() => None,
        Some((cut, _)) => Some(format!("{} …", &line[..cut])),
        None => Some(line),
    }
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
    fn a_taken_port_names_its_holder() {
        let port = free(HOST).unwrap();
        let listener = TcpListener::bind((HOST, port)).unwrap();
        let taken = check("gateway", HOST, port, Transport::Tcp).unwrap_err();
        let holder = taken.holder.as_ref().unwrap();
        assert_eq!(holder.pid, std::process::id());
        let me = std::env::args().next().unwrap();
        assert!(
            holder.command.contains(me.rsplit('/').next().unwrap()),
            "{holder}"
        );
        assert!(
            taken
                .to_string()
                .starts_with(&format!("port {port} for `gateway` is taken by pid "))
        );
        drop(listener);
        assert_eq!(check("gateway", HOST, port, Transport::Tcp), Ok(()));
    }

    #[test]
    fn a_wildcard_listener_takes_the_port_too() {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let taken = check("gateway", HOST, port, Transport::Tcp).unwrap_err();
        assert_eq!(taken.holder.unwrap().pid, std::process::id());
    }

    #[test]
    fn udp_is_checked_only_where_it_is_spoken() {
        let port = free(HOST).unwrap();
        let _socket = UdpSocket::bind((HOST, port)).unwrap();
        assert_eq!(check("dns", HOST, port, Transport::Tcp), Ok(()));
        for transport in [Transport::Udp, Transport::Both] {
            let taken = check("dns", HOST, port, transport).unwrap_err();
            assert_eq!(taken.holder.unwrap().pid, std::process::id());
        }
    }

    #[test]
    fn an_address_that_is_not_ours_is_refused_with_the_reason() {
        let elsewhere = IpAddr::from([192, 0, 2, 1]);
        let taken = check("web", elsewhere, 0, Transport::Tcp).unwrap_err();
        assert!(taken.to_string().contains("can't be opened: "), "{taken}");
    }

    #[test]
    fn free_ports_are_free() {
        let port = free(HOST).unwrap();
        assert_eq!(check("web", HOST, port, Transport::Both), Ok(()));
    }
}
