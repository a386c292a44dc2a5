//! From nothing to all healthy, or to an error that says why not.

use std::net::TcpListener;
use std::time::Duration;

use tokio::time::Instant;
use waypost_runner::{Probe, Process, StackError, State, Transport};

use crate::support::*;

#[tokio::test]
async fn each_waits_for_those_it_comes_after() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("sick"), "warming up").unwrap();
    let (running, log) = start(stack([
        service("ui", dir.path()).after("gateway"),
        service("gateway", dir.path()).after("registry"),
        service("registry", dir.path()),
    ]));
    eventually("the registry runs", || status(&running, "registry").pid).await;
    assert_eq!(status(&running, "registry").state, State::Starting);
    let waits = status(&running, "ui");
    assert_eq!(
        waits.state,
        State::Waiting {
            on: vec!["gateway".to_owned()]
        }
    );
    assert_eq!(waits.state.to_string(), "waiting on gateway");
    assert_eq!(waits.pid, None);

    std::fs::remove_file(dir.path().join("sick")).unwrap();
    let began = Instant::now();
    running.ready().await.unwrap();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(
        running
            .status()
            .iter()
            .all(|status| status.state == State::Healthy)
    );

    running.shutdown().await;
    let told = log.told();
    let at = |what: &str| {
        told.iter()
            .position(|line| line.starts_with(what))
            .unwrap_or_else(|| panic!("{what}: {told:#?}"))
    };
    assert!(at("registry: healthy: after ") < at("gateway: starting"));
    assert!(at("gateway: healthy: after ") < at("ui: starting"));
}

#[tokio::test]
async fn started_is_enough_where_that_is_asked() {
    let (running, _) = start(stack([
        shell("slow", "exec sleep 600").port(0).ready(Probe::tcp()),
        shell("fast", "exec sleep 600").after_started("slow"),
    ]));
    eventually("fast is healthy", || {
        status(&running, "fast").is_ready().then_some(())
    })
    .await;
    assert_eq!(status(&running, "slow").state, State::Starting);
    running.shutdown().await;
}

#[tokio::test]
async fn a_step_that_is_done_once_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    let (running, log) = start(stack([
        shell("migrate", "sleep 0.1; echo done > migrated")
            .dir(dir.path())
            .ready(Probe::completed()),
        shell("web", "cat migrated; exec sleep 600")
            .dir(dir.path())
            .after("migrate"),
    ]));
    running.ready().await.unwrap();
    assert_eq!(status(&running, "migrate").state, State::Completed);
    eventually("web has read the result", || {
        (log.texts("web") == ["done"]).then_some(())
    })
    .await;
    running.restart("migrate").await.unwrap();
    assert_eq!(status(&running, "migrate").restarts, 1);
    running.shutdown().await;
}

#[tokio::test]
async fn a_step_that_fails_is_not_tried_again_and_holds_up_the_others() {
    let (running, _) = start(stack([
        shell("migrate", "echo no such table >&2; exit 4").ready(Probe::completed()),
        shell("web", "exec sleep 600").after("migrate"),
    ]));
    let error = running.ready().await.unwrap_err();
    let expected =
        "`migrate` did not become healthy: exited with code 4; its last lines:\n    no such table";
    assert_eq!(error.to_string(), expected);
    assert_eq!(status(&running, "migrate").state, State::Failed);
    assert_eq!(
        status(&running, "web").state,
        State::Waiting {
            on: vec!["migrate".to_owned()]
        }
    );
    running.shutdown().await;
}

#[tokio::test]
async fn a_crash_at_the_start_tells_which_why_and_its_last_20_lines() {
    let script = "seq 1 30; printf '\\033[31mred\\033[0m' >&2; exit 3";
    let (running, _) = start(stack([shell("models", script).port(0).replicas(1)]));
    let StackError::NotHealthy {
        instance,
        reason,
        last_lines,
    } = running.ready().await.unwrap_err()
    else {
        panic!("another error");
    };
    assert_eq!(
        (instance.as_str(), reason.as_str()),
        ("models-1", "exited with code 3")
    );
    assert_eq!(last_lines.len(), 20);
    assert!(
        last_lines.contains(&"red".to_owned()) && last_lines.contains(&"30".to_owned()),
        "{last_lines:?}"
    );
    running.shutdown().await;
}

#[tokio::test]
async fn a_start_that_takes_too_long_says_what_the_probe_saw() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("sick"), "no model loaded").unwrap();
    // Enough to be started and asked once, on any machine.
    let patience = Duration::from_secs(3);
    let (running, _) = start(stack([
        service("models", dir.path()).start_timeout(patience)
    ]));
    let error = running.ready().await.unwrap_err().to_string();
    assert!(
        error.starts_with(
            "`models` did not become healthy: not healthy within 3 s: http://127.0.0.1:"
        ),
        "{error}"
    );
    assert!(error.contains("/health answered 503 Service Unavailable: no model loaded; its last lines:\n    listening on "), "{error}");
    assert_eq!(status(&running, "models").state, State::Unhealthy);
    // It may still get there.
    std::fs::remove_file(dir.path().join("sick")).unwrap();
    eventually("it is healthy", || {
        status(&running, "models").is_ready().then_some(())
    })
    .await;
    running.shutdown().await;
}

#[tokio::test]
async fn a_program_that_cannot_be_run_is_named() {
    for (process, expected) in [
        (
            Process::new("web", "no-such-program"),
            "cannot run `no-such-program`: No such file or directory",
        ),
        (
            Process::new("web", "/etc/passwd"),
            "cannot run `/etc/passwd`: Permission denied",
        ),
        (
            shell("web", "true").dir("/no/such/dir"),
            "cannot be started in /no/such/dir: No such file",
        ),
    ] {
        let (running, _) = start(stack([process.port(0)]));
        let error = running.ready().await.unwrap_err().to_string();
        assert!(
            error.starts_with("`web` did not become healthy: ") && error.contains(expected),
            "{error}"
        );
        running.shutdown().await;
    }
}

#[tokio::test]
async fn a_main_that_forgot_the_shim_is_told_so() {
    let (running, _) =
        start(stack([shell("web", "exec sleep 600").port(0)]).supervisor("/bin/true"));
    let error = running.ready().await.unwrap_err().to_string();
    assert!(
        error.contains("`main` must begin with `waypost_runner::shim::run_if_asked()`"),
        "{error}"
    );
    running.shutdown().await;
}

#[test]
fn a_main_that_forgot_the_shim_does_not_start_itself_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut runner = std::process::Command::new(TESTBED);
    let output = runner.env("FORGETFUL", dir.path()).output().unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("`main` must begin with"), "{error}");
}

#[tokio::test]
async fn taken_ports_are_told_with_their_holders_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let taken = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let [first, second] = taken
        .each_ref()
        .map(|listener| listener.local_addr().unwrap().port());
    let marker = || shell("free", "touch started; exec sleep 600").dir(dir.path());
    let builder = stack([
        marker(),
        shell("registry", "exec sleep 600").port(first),
        shell("dns", "exec sleep 600").named_port("dns", second, Transport::Both),
    ]);
    let error = try_start(builder).unwrap_err();
    let StackError::PortsTaken(ports) = &error else {
        panic!("{error}")
    };
    assert_eq!(ports.len(), 2);
    let me = std::process::id();
    let message = error.to_string();
    assert!(
        message.contains(&format!(
            "port {first} for `registry` is taken by pid {me} ("
        )),
        "{message}"
    );
    assert!(
        message.contains(&format!("\nport {second} for `dns` is taken by pid {me} (")),
        "{message}"
    );
    assert!(!dir.path().join("started").exists());
}
