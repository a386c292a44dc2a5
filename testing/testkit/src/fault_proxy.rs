use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// What a [`FaultProxy`] does to an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: all is passed on.
    None,
    /// It is held back for this time.
    Delay(Duration),
    /// The connection is reset at once.
    Reset,
    /// Only so many bytes of it are passed on, then the connection ends.
    Truncate(usize),
    /// It is replaced by this status and body, with the headers of a good one.
    Answer(u16, String),
    /// It never ends.
    Endless,
    /// It comes byte by byte, with this time between two.
    Drip(Duration),
    /// It never begins.
    Silence,
}

/// A proxy on 127.0.0.1 that makes faults between a client and a server.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    task: JoinHandle<()>,
}

impl FaultProxy {
    /// Stands before the server at this address, making no fault yet.
    ///
    /// # Panics
    /// If it can't listen.
    pub async fn before(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener");
        let (fault, faults) = watch::channel(Fault::None);
        let task = tokio::spawn(async move {
            // The connections end with the proxy.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (server, faults) = (server.clone(), faults.clone());
                connections.spawn(async move {
                    // However it ends, the client sees it.
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

    /// Where it listens.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Makes this fault from now on. Connections made before are cut.
    pub fn make(&self, fault: Fault) {
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
            let answer = pass_request(client, &server).await?;
            client.write_all(&answer[..bytes.min(answer.len())]).await?;
        }
        Fault::Drip(pause) => {
            let answer = pass_request(client, &server).await?;
            for byte in answer {
                client.write_all(&[byte]).await?;
                client.flush().await?;
                sleep(pause).await;
            }
        }
        Fault::Answer(status, body) => {
            read_request(client).await?;
            let answer = format!(
                "{}content-length: {}\r\n\r\n{body}",
                head(status),
                body.len()
            );
            client.write_all(answer.as_bytes()).await?;
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
        Fault::Silence => {
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

/// Passes one request on and gives the whole first answer, as far as it comes in one go.
async fn pass_request(client: &mut TcpStream, server: &str) -> io::Result<Vec<u8>> {
    let request = read_request(client).await?;
    let mut server = TcpStream::connect(server).await?;
    server.write_all(&request).await?;
    let mut answer = vec![0; 1 << 20];
    let length = server.read(&mut answer).await?;
    answer.truncate(length);
    Ok(answer)
}
