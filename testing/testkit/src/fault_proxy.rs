//! A TCP proxy that injects faults.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// How a [`FaultProxy`] changes a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Forwards it unchanged.
    None,
    /// Delays it by this time.
    Delay(Duration),
    /// Resets the connection.
    Reset,
    /// Forwards this number of bytes, then closes the connection.
    Truncate(usize),
    /// Sends this status and body instead.
    Respond(u16, String),
    /// Sends a body that never ends.
    Endless,
    /// Forwards it byte by byte, with this time between bytes.
    Trickle(Duration),
    /// Sends nothing.
    Hang,
}

/// A proxy on 127.0.0.1 between clients and a server.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    task: JoinHandle<()>,
}

impl FaultProxy {
    /// Starts a proxy for the server at this address, without faults.
    ///
    /// # Panics
    /// If it can't listen.
    pub async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("the proxy should listen");
        let address = listener
            .local_addr()
            .expect("a listener should have an address");
        let (fault, faults) = watch::channel(Fault::None);
        let task = tokio::spawn(async move {
            // Dropping the set closes all connections.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (server, faults) = (server.clone(), faults.clone());
                connections.spawn(async move {
                    // The client notices an error itself.
                    let _ = serve(client, server, faults).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            fault,
            task,
        }
    }

    /// The address of the proxy.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Injects this fault from now on. Closes all open connections.
    pub fn inject(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut client: TcpStream,
    server: String,
    mut faults: watch::Receiver<Fault>,
) -> io::Result<()> {
    let fault = faults.borrow_and_update().clone();
    tokio::select! {
        done = serve_with(&mut client, server, fault) => done,
        _ = faults.changed() => Ok(()),
    }
}

async fn serve_with(client: &mut TcpStream, server: String, fault: Fault) -> io::Result<()> {
    match fault {
        Fault::None => {
            let mut server = TcpStream::connect(server).await?;
            tokio::io::copy_bidirectional(client, &mut server).await?;
        }
        Fault::Delay(time) => {
            let mut server = TcpStream::connect(server).await?;
            sleep(time).await;
            tokio::io::copy_bidirectional(client, &mut server).await?;
        }
        Fault::Reset => client.set_zero_linger()?,
        Fault::Truncate(bytes) => {
            let response = request(client, &server).await?;
            let length = bytes.min(response.len());
            client.write_all(&response[..length]).await?;
        }
        Fault::Trickle(pause) => {
            let response = request(client, &server).await?;
            for byte in response {
                client.write_all(&[byte]).await?;
                client.flush().await?;
                sleep(pause).await;
            }
        }
        Fault::Respond(status, body) => {
            read_request(client).await?;
            let response = format!(
                "{}content-length: {}\r\n\r\n{body}",
                head(status),
                body.len()
            );
            client.write_all(response.as_bytes()).await?;
        }
        Fault::Endless => {
            read_request(client).await?;
            let start = format!("{}transfer-encoding: chunked\r\n\r\n", head(200));
            client.write_all(start.as_bytes()).await?;
            client.write_all(b"1\r\n[\r\n").await?;
            loop {
                client.write_all(b"4\r\n    \r\n").await?;
                sleep(Duration::from_millis(1)).await;
            }
        }
        Fault::Hang => {
            read_request(client).await?;
            std::future::pending::<()>().await;
        }
    }
    Ok(())
}

fn head(status: u16) -> String {
    format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nx-consul-index: 7\r\n\
         x-consul-knownleader: true\r\nconnection: close\r\n"
    )
}

async fn read_request(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut request = vec![0; 64 * 1024];
    let length = client.read(&mut request).await?;
    request.truncate(length);
    Ok(request)
}

/// Forwards one request, and returns the part of the response that arrives first.
async fn request(client: &mut TcpStream, server: &str) -> io::Result<Vec<u8>> {
    let request = read_request(client).await?;
    let mut server = TcpStream::connect(server).await?;
    server.write_all(&request).await?;
    let mut response = vec![0; 1 << 20];
    let length = server.read(&mut response).await?;
    response.truncate(length);
    Ok(response)
}
