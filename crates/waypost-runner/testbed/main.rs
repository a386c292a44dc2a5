//! The programs that the tests run: a small service, several that write output, and a runner.

use std::io;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use waypost_runner::{Console, Probe, ServiceSpec, Stack, Supervisor};

fn main() -> io::Result<()> {
    // A program that starts a stack but does not call the shim first.
    if let Some(dir) = std::env::var_os("RUN_WITHOUT_SHIM") {
        return run(PathBuf::from(dir));
    }
    waypost_runner::shim::run_if_requested();
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", port, dir] => serve(port, Path::new(dir)),
        ["flood", lines_per_second] => flood(lines_per_second.parse().map_err(io::Error::other)?),
        ["tick", count] => tick(count.parse().map_err(io::Error::other)?),
        ["graceful", millis] => graceful(Duration::from_millis(
            millis.parse().map_err(io::Error::other)?,
        )),
        ["run", dir] => run(PathBuf::from(dir)),
        _ => Err(io::Error::other(
            "usage: serve PORT DIR | flood LINES_PER_SECOND | tick COUNT | graceful MILLISECONDS | run DIR",
        )),
    }
}

/// An HTTP service. While the file `DIR/unhealthy` exists, it responds with 503 and its content.
fn serve(port: &str, dir: &Path) -> io::Result<()> {
    let port: u16 = port.parse().map_err(io::Error::other)?;
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    println!("listening on {port}");
    let respond = |mut stream: TcpStream| -> io::Result<()> {
        let _ = stream.read(&mut [0; 4096])?;
        let (status, body) = match std::fs::read_to_string(dir.join("unhealthy")) {
            Ok(problem) => ("503 Service Unavailable", problem),
            Err(_) => ("200 OK", format!("{}\n", std::process::id())),
        };
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
    };
    listener
        .incoming()
        .flatten()
        .for_each(|stream| drop(respond(stream)));
    Ok(())
}

/// Writes lines of about 80 bytes. With a rate of 0, it writes as fast as they are read.
fn flood(lines_per_second: u64) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for line in 0_u64.. {
        writeln!(out, "{line:020} {}", "x".repeat(60))?;
        if lines_per_second > 0 && line % (lines_per_second / 100) == 0 {
            out.flush()?;
            pause(Duration::from_millis(10));
        }
    }
    Ok(())
}

/// Writes the time every 10 ms.
fn tick(count: u32) -> io::Result<()> {
    for _ in 0..count {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_err(io::Error::other)?;
        println!("{}", now.as_micros());
        pause(Duration::from_millis(10));
    }
    pause(Duration::from_secs(600));
    Ok(())
}

/// Exits some time after SIGTERM, after a last line on both streams.
#[tokio::main(flavor = "current_thread")]
async fn graceful(delay: Duration) -> io::Result<()> {
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    println!("ready");
    term.recv().await;
    tokio::time::sleep(delay).await;
    println!("stopped");
    eprint!("last line without a line end");
    Ok(())
}

/// A runner of three services: a plain one, one that ignores SIGTERM and so does its child in the
/// same group, and one whose child has daemonized. Each writes its process ids to files in `DIR`.
#[tokio::main(flavor = "current_thread")]
async fn run(dir: PathBuf) -> io::Result<()> {
    let script = |name: &str, script: &str| {
        ServiceSpec::new(name, "sh")
            .args(["-c", script])
            .dir(&dir)
            .ready(Probe::running())
    };
    let stack = Stack::builder()
        .service(script("plain", "echo $$ > plain.pid; exec sleep 600"))
        .service(script(
            "stubborn",
            "trap '' TERM; sleep 600 & echo $! > stubborn-child.pid; echo $$ > stubborn.pid; wait",
        ))
        .service(script(
            "daemon",
            "setsid sh -c 'trap \"\" TERM; echo $$ > daemon-child.pid; exec sleep 600' &
             echo $$ > daemon.pid; exec sleep 600",
        ));
    let stack = stack.build().map_err(io::Error::other)?;
    let supervisor = Supervisor::start(stack, Console::stdout()).map_err(io::Error::other)?;
    supervisor.ready().await.map_err(io::Error::other)?;
    std::future::pending().await
}

#[allow(
    clippy::disallowed_methods,
    reason = "a program of its own, without a runtime"
)]
fn pause(duration: Duration) {
    std::thread::sleep(duration);
}
