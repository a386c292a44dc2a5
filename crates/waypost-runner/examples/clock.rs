//! Runs three clocks, each a process of this same program:
//!
//! ```sh
//! cargo run -p waypost-runner --example clock
//! ```
//!
//! `kill -9` one of the clocks, and it is restarted. `kill -9` the runner, and all of them end.

use std::error::Error;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use waypost_runner::{Console, Probe, ServiceSpec, Stack, Supervisor, shim};

fn main() -> Result<(), Box<dyn Error>> {
    // Must come first: this executable also runs as the shim of each program.
    shim::run_if_requested();
    match std::env::args().nth(1) {
        Some(port) => clock(port.parse()?),
        None => up(),
    }
}

#[tokio::main]
async fn up() -> Result<(), Box<dyn Error>> {
    let this = std::env::current_exe()?;
    let stack = Stack::builder()
        .service(
            ServiceSpec::new("clock", &this)
                .args(["{port}"])
                .port(0)
                .replicas(2)
                .ready(Probe::http("/")),
        )
        .service(
            ServiceSpec::new("late", &this)
                .args(["{port}"])
                .port(0)
                .after("clock"),
        )
        .build()?;

    let supervisor = Supervisor::start(stack, Console::stdout())?;
    supervisor.ready().await?;
    for status in supervisor.statuses() {
        let port = status.port.unwrap_or_default();
        let pid = status.pid.unwrap_or_default();
        println!(
            "{} is process {pid}: http://127.0.0.1:{port}/",
            status.instance
        );
    }
    tokio::signal::ctrl_c().await?;
    supervisor.shutdown().await;
    Ok(())
}

/// Responds to every request with its process id, and writes a line every second.
#[tokio::main(flavor = "current_thread")]
async fn clock(port: u16) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let mut second = tokio::time::interval(Duration::from_secs(1));
    for tick in 0.. {
        tokio::select! {
            _ = second.tick() => println!("tick {tick}"),
            accepted = listener.accept() => {
                let response = format!("HTTP/1.0 200 OK\r\n\r\n{}\n", std::process::id());
                // A client that has disconnected is not an error.
                let _ = accepted?.0.write_all(response.as_bytes()).await;
            }
        }
    }
    Ok(())
}
