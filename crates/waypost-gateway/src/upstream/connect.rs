//! Connects to an instance.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use waypost::{Host, Instance};

use super::stream::UpstreamStream;
use super::tls::ClientTls;
use crate::attempt_error::{AttemptError, AttemptErrorKind};
use crate::transport::Transport;

/// The idle time after which TCP keep-alive probes are sent.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Opens a connection, with TLS if the instance's scheme requires it.
pub(super) async fn connect(
    instance: &Instance,
    tls: Option<(&ClientTls, &[&[u8]])>,
    timeout: Duration,
) -> Result<UpstreamStream, AttemptError> {
    let connecting = async {
        let stream = connect_tcp(instance).await.map_err(connect_error)?;
        match tls {
            None => Ok(UpstreamStream::new(Transport::Plain(stream))),
            Some((tls, protocols)) => tls.connect(instance, stream, protocols).await,
        }
    };
    match tokio::time::timeout(timeout, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(AttemptError::new(
            AttemptErrorKind::ConnectTimeout,
            format!("no connection within {timeout:?}"),
        )),
    }
}

async fn connect_tcp(instance: &Instance) -> io::Result<TcpStream> {
    let stream = match (instance.socket_addr(), instance.host()) {
        (Some(address), _) => TcpStream::connect(address).await?,
        (None, Host::Name(name)) => connect_to_any(name, instance.port()).await?,
        (None, host) => return Err(io::Error::other(format!("{host} has no address"))),
    };
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    Ok(stream)
}

/// Tries the addresses of a name one after the other.
async fn connect_to_any(name: &str, port: u16) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((name, port)).await?.collect();
    TcpStream::connect(&*addresses).await
}

fn connect_error(error: io::Error) -> AttemptError {
    let kind = match error.raw_os_error() {
        // No file descriptor, local port or memory is left. The instance is not the cause, and another
        // instance would not help.
        Some(code) if is_shortage(code) => AttemptErrorKind::Shortage,
        _ if error.kind() == io::ErrorKind::TimedOut => AttemptErrorKind::ConnectTimeout,
        _ => AttemptErrorKind::Connect,
    };
    AttemptError::new(kind, error.to_string())
}

fn is_shortage(code: i32) -> bool {
    let shortages = [
        rustix::io::Errno::MFILE,
        rustix::io::Errno::NFILE,
        rustix::io::Errno::NOBUFS,
        rustix::io::Errno::NOMEM,
        rustix::io::Errno::ADDRNOTAVAIL,
    ];
    shortages.iter().any(|errno| errno.raw_os_error() == code)
}
