//! Tests with unmodified clients of Consul. `cargo xtask setup` installs them.

mod dig;
mod haproxy;
mod libraries;
mod prometheus;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::raw_http::Request;

const SOON: Duration = Duration::from_secs(60);

/// The program in an environment variable, in the tools of this workspace or in `$PATH`. Panics if
/// there is none, because a skipped test would go unnoticed.
fn program(variable: &str, tool: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = vec![tools().join(tool)];
    candidates.extend(std::env::split_paths(&path).map(|folder| folder.join(tool)));
    candidates.push(Path::new("/usr/sbin").join(tool));
    let found = candidates.into_iter().find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{tool} not found. Run `cargo xtask setup`."))
}

/// The directory in which `cargo xtask setup` installs tools.
fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools")
}

/// Starts a process that is killed at the end of the test.
fn start(command: &mut Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Waits until `condition` returns a value.
async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < deadline, "timed out: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Sends a request that must succeed.
async fn put(agent: SocketAddr, token: &str, target: &str, body: &str) {
    let mut request = Request::new("PUT", target, body);
    if !token.is_empty() {
        let header = ("X-Consul-Token".to_owned(), token.to_owned());
        request.headers.push(header);
    }
    let response = request.send(agent).await.unwrap();
    assert_eq!(response.status, "200 OK", "{target}: {}", response.text());
}
