//! A stack of three clocks, each a process of this same program. Try it:
//!
//! ```sh
//! cargo run -p waypost-runner --example clock
//! ```
//!
//! `kill -9` one of the clocks and see it come back; kill the runner and see all of them go.

use std::error::Error;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use waypost_runner::{Console, Probe, Process, Stack, shim};

fn main() -> Result<(), Box<dyn Error>> {
    // Before the runtime: some of this program's processes only supervise others.
    shim::run_if_asked();
    match std::env::args().nth(1) {
        Some(port) => clock(port.parse()?),
        None => up(),
    }
}

#[tokio::main]
async fn up() -> Result<(), Box<dyn Error>> {
    let this = std::env::current_exe()?;
    let stack = Stack::builder()
        .process(
            Process::new("clock", &this)
                .args(["{port}"])
                .port(0)
                .replicas(2)
                .ready(Probe::http("/")),
        )
        .process(
            Process::new("late", &this)
                .args(["{port}"])
                .port(0)
                .after("clock"),
        )
        .build()?;

    let running = stack.start(Console::stdout())?;
    running.ready().await?;
    for status in running.status() {
        let port = status.port.unwrap_or_default();
        let pid = status.pid.unwrap_or_default();
        println!(
            "{} is process {pid}: http://127.0.0.1:{port}/",
            status.instance
        );
    }
    tokio::signal::ctrl_c().await?;
    running.shutdown().await;
    Ok(())
}

/// Answers every request with its pid, and says every second that it is still there.
#[tokio::main(flavor = "current_thread")]
async fn clock(port: u16) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let mut second = tokio::time::interval(Duration::from_secs(1));
    for tick in 0.. {
        tokio::select! {
            _ = second.tick() => println!("tick {tick}"),
            accepted = listener.accept() => {
                let answer = format!("HTTP/1.0 200 OK\r\n\r\n{}\n", std::process::id());
                // A caller that has gone away is no reason to end.
                let _ = accepted?.0.write_all(answer.as_bytes()).await;
            }
        }
    }
    Ok(())
}
