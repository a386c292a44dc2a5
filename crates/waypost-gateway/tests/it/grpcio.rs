//! grpcio, the Python library, with the gateway between it and tonic's server.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::grpc;
use crate::support::with_deadline;

/// A Python with grpcio, which `cargo xtask setup` installs. `None` if there is none; in CI that is a failure.
async fn python() -> Option<PathBuf> {
    let installed = "../../target/tools/py-consul-1.8.0/bin/python";
    let python = match std::env::var_os("WAYPOST_PYTHON") {
        Some(path) => path.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join(installed),
    };
    let import = Command::new(&python).args(["-c", "import grpc"]).output();
    if import.await.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    let missing = format!(
        "no Python with grpcio at {}. Run `cargo xtask setup`.",
        python.display()
    );
    assert!(std::env::var_os("CI").is_none(), "{missing}");
    eprintln!("{missing}");
    None
}

#[tokio::test]
async fn grpcio_calls_a_service_through_the_gateway() {
    let Some(python) = python().await else {
        return;
    };
    let (gateway, cancelled) = grpc::start().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/grpcio.py");
    let mut process = Command::new(python)
        .arg(script)
        .arg(gateway.address.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("a process");
    let mut input = process.stdin.take().expect("its input");
    let output = process.stdout.take().expect("its output");
    let mut lines = BufReader::new(output).lines();
    for check in [
        "unary",
        "client_stream",
        "server_stream",
        "bidirectional",
        "status",
        "deadline_in_the_request",
        "cancellation",
        "deadline",
    ] {
        let passed = with_deadline(check, lines.next_line()).await.expect("text");
        assert_eq!(
            passed.as_deref(),
            Some(check),
            "the script says why on stderr"
        );
        if matches!(check, "deadline_in_the_request" | "cancellation") {
            with_deadline("the cancellation", cancelled.notified()).await;
            input.write_all(b"\n").await.expect("a running script");
        }
    }
    let status = with_deadline("the script's end", process.wait()).await;
    assert!(status.expect("a status").success());
}
