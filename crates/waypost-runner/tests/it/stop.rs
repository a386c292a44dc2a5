//! Stopping a stack, in order and in time.

use std::time::Duration;

use tokio::time::Instant;
use waypost_runner::InstanceState;

use crate::support::*;

/// So long that a shutdown within the time limit of a test can't have waited for it, even on a busy machine.
const LONG_GRACE: Duration = Duration::from_secs(10 * 60);

const IGNORES_TERM: &str = "trap '' TERM; echo ready; while :; do sleep 0.02; done";

#[tokio::test]
async fn services_are_stopped_in_reverse_order() {
    let (supervisor, log) = start(stack([
        graceful("registry", 100),
        graceful("gateway", 100).after("registry"),
        graceful("models", 100).after("registry"),
        graceful("ui", 100).after("gateway"),
    ]));
    supervisor.ready().await.unwrap();
    wait_until_ready(&log, &["registry", "gateway", "models", "ui"]).await;
    supervisor.shutdown().await;
    let events = log.events();
    let at = |what: &str| {
        events
            .iter()
            .position(|line| line == what)
            .unwrap_or_else(|| panic!("{what}: {events:#?}"))
    };
    assert!(at("ui: stopped: exited with code 0") < at("gateway: stopping"));
    assert!(at("gateway: stopped: exited with code 0") < at("registry: stopping"));
    assert!(at("models: stopped: exited with code 0") < at("registry: stopping"));
    for name in ["registry", "gateway", "models", "ui"] {
        assert_eq!(log.texts(name)[1], "stopped", "{name}");
    }
    assert!(
        supervisor
            .statuses()
            .iter()
            .all(|status| status.state == InstanceState::Stopped && status.pid.is_none())
    );
}

#[tokio::test]
async fn a_program_that_does_not_exit_in_time_is_killed() {
    let grace = Duration::from_millis(300);
    let (supervisor, log) = start(stack([shell("stubborn", IGNORES_TERM).stop_grace(grace)]));
    wait_until_ready(&log, &["stubborn"]).await;
    let pid = status(&supervisor, "stubborn").pid.unwrap();
    let began = Instant::now();
    supervisor.shutdown().await;
    let took = began.elapsed();
    assert!(took >= grace, "{took:?}");
    assert!(!alive(pid));
    let reason = status(&supervisor, "stubborn").reason.unwrap();
    assert_eq!(
        reason,
        "did not exit within 300 ms of SIGTERM: killed by SIGKILL"
    );
}

#[tokio::test]
async fn a_second_shutdown_call_kills_everything_at_once() {
    let (supervisor, log) = start(stack([
        shell("first", IGNORES_TERM).stop_grace(LONG_GRACE),
        shell("second", IGNORES_TERM)
            .stop_grace(LONG_GRACE)
            .after("first"),
    ]));
    supervisor.ready().await.unwrap();
    wait_until_ready(&log, &["first", "second"]).await;
    let pids: Vec<u32> = supervisor
        .statuses()
        .iter()
        .filter_map(|status| status.pid)
        .collect();
    // The first call is dropped, as by a `select!` with a second Ctrl-C.
    let dropped = tokio::time::timeout(Duration::from_millis(100), supervisor.shutdown()).await;
    assert!(dropped.is_err());
    let began = Instant::now();
    supervisor.shutdown().await;
    let took = began.elapsed();
    assert!(took < LONG_GRACE, "{took:?}");
    assert!(!pids.iter().any(|&pid| alive(pid)));
}

#[tokio::test]
async fn children_can_exit_gracefully_as_well() {
    let script = "$TESTBED graceful 300 & $TESTBED graceful 300 & exec $TESTBED graceful 100";
    let (supervisor, log) = start(stack([shell("parent", script).env("TESTBED", TESTBED)]));
    let ready = || {
        log.texts("parent")
            .iter()
            .filter(|line| line.contains("ready"))
            .count()
            == 3
    };
    eventually("all programs are ready", || ready().then_some(())).await;
    supervisor.shutdown().await;
    let stopped = log
        .texts("parent")
        .iter()
        .filter(|line| line.contains("stopped"))
        .count();
    assert_eq!(stopped, 3, "{:?}", log.texts("parent"));
}

#[tokio::test]
async fn a_child_that_is_started_after_the_signal_gets_one_too() {
    let script = "sleep 600 & trap 'sleep 600 & sleep 0.2; exit 0' TERM; echo ready; wait";
    let (supervisor, log) = start(stack([shell("web", script).stop_grace(LONG_GRACE)]));
    wait_until_ready(&log, &["web"]).await;
    let began = Instant::now();
    supervisor.shutdown().await;
    assert!(
        began.elapsed() < LONG_GRACE,
        "it got no SIGTERM, only SIGKILL"
    );
}

#[tokio::test]
async fn a_daemon_is_stopped_with_its_parent() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("daemon.pid");
    let script = "setsid sh -c 'echo $$ > daemon.pid; exec sleep 600' & exec sleep 600";
    let web = shell("web", script).dir(dir.path());
    let (supervisor, _) = start(stack([web.stop_grace(LONG_GRACE)]));
    let daemon = eventually("the daemon runs", || pid_in(&file)).await;
    let began = Instant::now();
    supervisor.shutdown().await;
    assert!(!alive(daemon));
    assert!(
        began.elapsed() < LONG_GRACE,
        "it got no SIGTERM, only SIGKILL"
    );
}

#[tokio::test]
async fn a_stack_that_is_still_starting_can_be_stopped() {
    let (supervisor, _) = start(stack([
        shell("never-ready", "exec sleep 600")
            .port(0)
            .stop_grace(LONG_GRACE),
        shell("waits", "exec sleep 600").after("never-ready"),
        shell("crashes", "exit 1").port(0),
    ]));
    eventually("it crash-loops", || {
        matches!(
            status(&supervisor, "crashes").state,
            InstanceState::CrashLooping { .. }
        )
        .then_some(())
    })
    .await;
    let began = Instant::now();
    supervisor.shutdown().await;
    assert!(began.elapsed() < LONG_GRACE);
    assert!(
        supervisor
            .statuses()
            .iter()
            .all(|status| status.state == InstanceState::Stopped)
    );
    assert!(supervisor.ready().await.is_err());
}

#[tokio::test]
async fn a_dropped_supervisor_kills_its_programs() {
    let (supervisor, log) = start(stack([shell("stubborn", IGNORES_TERM)]));
    wait_until_ready(&log, &["stubborn"]).await;
    let pid = status(&supervisor, "stubborn").pid.unwrap();
    drop(supervisor);
    eventually("it is gone", || (!alive(pid)).then_some(())).await;
}
