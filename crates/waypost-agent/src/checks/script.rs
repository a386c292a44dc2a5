//! Script checks, whose status is the exit code of a program: 0 is passing, 1 is warning, anything
//! else is critical. They are disabled by default, because a client that can register one can run any
//! program as the user of this process.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::timeout;

use super::result::{critical, output_max_size};
use crate::go_compat;
use crate::store::{CheckDefinition, CheckResult, CheckStatus};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) async fn probe(check: &CheckDefinition) -> CheckResult {
    let limit = check.timeout().unwrap_or(DEFAULT_TIMEOUT);
    match timeout(limit, run(check)).await {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => critical(error.to_string()),
        Err(_) => {
            let shown =
                go_compat::show_duration(i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX));
            critical(format!("Timed out ({shown}) running check"))
        }
    }
}

/// Runs the program, and kills it if the future is dropped.
async fn run(check: &CheckDefinition) -> std::io::Result<CheckResult> {
    let [program, arguments @ ..] = check.script_args.as_slice() else {
        return Err(std::io::Error::other("no program to run"));
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let limit = output_max_size(check);
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (out, err, status) = tokio::join!(tail(out, limit), tail(err, limit), child.wait());
    let mut bytes = out?;
    bytes.extend(err?);
    let output = String::from_utf8_lossy(&bytes).into_owned();
    let status = match status?.code() {
        Some(0) => CheckStatus::Passing,
        Some(1) => CheckStatus::Warning,
        _ => CheckStatus::Critical,
    };
    Ok(CheckResult { status, output })
}

/// The last `limit` bytes of the output, so that endless output doesn't fill the memory.
async fn tail(from: Option<impl AsyncRead + Unpin>, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let Some(mut from) = from else {
        return Ok(kept);
    };
    let mut chunk = [0; 4096];
    loop {
        let read = from.read(&mut chunk).await?;
        if read == 0 {
            return Ok(kept);
        }
        kept.extend_from_slice(&chunk[..read]);
        if kept.len() > limit {
            kept.drain(..kept.len() - limit);
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_exit_code_is_the_status_and_the_end_of_a_long_output_is_kept() {
        use CheckStatus::{Critical, Passing, Warning};

        for (script, limit, status, output) in [
            ("echo fine", 0, Passing, "fine\n"),
            ("echo odd; exit 1", 0, Warning, "odd\n"),
            ("echo bad >&2; exit 2", 0, Critical, "bad\n"),
            ("printf abcdef", 4, Passing, "cdef"),
        ] {
            let check = CheckDefinition {
                script_args: ["/bin/sh", "-c", script].map(String::from).into(),
                output_max_size: limit,
                ..CheckDefinition::default()
            };
            let result = probe(&check).await;
            assert_eq!(result.status, status, "{script}");
            assert_eq!(result.output, output, "{script}");
        }
    }
}
