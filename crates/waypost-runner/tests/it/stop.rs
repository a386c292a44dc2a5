//! Everything ends, in order, and in time.

use std::time::Duration;

use tokio::time::Instant;
use waypost_runner::State;

use crate::support::*;

/// What takes less was not waited for until the usual time was over.
const USUAL_GRACE: Duration = Duration::from_secs(10);

const DEAF: &str = "trap '' TERM; echo ready; while :; do sleep 0.02; done";

#[tokio::test]
async fn the_end_is_the_start_backwards() {
    let (running, log) = start(stack([
        polite("registry", 100),
        polite("gateway", 100).after("registry"),
        polite("models", 100).after("registry"),
        polite("ui", 100).after("gateway"),
    ]));
    running.ready().await.unwrap();
    say_ready(&log, &["registry", "gateway", "models", "ui"]).await;
    running.shutdown().await;
    let told = log.told();
    let at = |what: &str| {
        told.iter()
            .position(|line| line == what)
            .unwrap_or_else(|| panic!("{what}: {told:#?}"))
    };
    assert!(at("ui: stopped: exited with code 0") < at("gateway: stopping"));
    assert!(at("gateway: stopped: exited with code 0") < at("registry: stopping"));
    assert!(at("models: stopped: exited with code 0") < at("registry: stopping"));
    for name in ["registry", "gateway", "models", "ui"] {
        assert_eq!(log.texts(name)[1], "bye", "{name}");
    }
    assert!(
        running
            .status()
            .iter()
            .all(|status| status.state == State::Stopped && status.pid.is_none())
    );
}

#[tokio::test]
async fn who_does_not_end_in_time_is_killed() {
    let grace = Duration::from_millis(300);
    let (running, log) = start(stack([shell("deaf", DEAF).stop_grace(grace)]));
    say_ready(&log, &["deaf"]).await;
    let pid = status(&running, "deaf").pid.unwrap();
    let began = Instant::now();
    running.shutdown().await;
    let took = began.elapsed();
    assert!(took >= grace && took < USUAL_GRACE, "{took:?}");
    assert!(!alive(pid));
    let reason = status(&running, "deaf").reason.unwrap();
    assert_eq!(
        reason,
        "did not end within 300 ms of SIGTERM: killed by SIGKILL"
    );
}

#[tokio::test]
async fn a_second_call_means_now() {
    let (running, log) = start(stack([
        shell("first", DEAF),
        shell("second", DEAF).after("first"),
    ]));
    running.ready().await.unwrap();
    say_ready(&log, &["first", "second"]).await;
    let pids: Vec<u32> = running
        .status()
        .iter()
        .filter_map(|status| status.pid)
        .collect();
    // The first call is given up on, as by a `select!` with a second Ctrl-C.
    let gave_up = tokio::time::timeout(Duration::from_millis(100), running.shutdown()).await;
    assert!(gave_up.is_err());
    let began = Instant::now();
    running.shutdown().await;
    let took = began.elapsed();
    assert!(took < USUAL_GRACE, "{took:?}");
    assert!(!pids.iter().any(|&pid| alive(pid)));
}

#[tokio::test]
async fn children_get_the_same_chance_to_end() {
    let script = "$TESTBED polite 300 & $TESTBED polite 300 & exec $TESTBED polite 100";
    let (running, log) = start(stack([shell("parent", script).env("TESTBED", TESTBED)]));
    let ready = || {
        log.texts("parent")
            .iter()
            .filter(|line| line.contains("ready"))
            .count()
            == 3
    };
    eventually("all are ready", || ready().then_some(())).await;
    running.shutdown().await;
    let byes = log
        .texts("parent")
        .iter()
        .filter(|line| line.contains("bye"))
        .count();
    assert_eq!(byes, 3, "{:?}", log.texts("parent"));
}

#[tokio::test]
async fn a_child_that_is_born_after_the_signal_is_not_forgotten() {
    let script = "sleep 600 & trap 'sleep 600 & sleep 0.2; exit 0' TERM; echo ready; wait";
    let (running, log) = start(stack([shell("web", script)]));
    say_ready(&log, &["web"]).await;
    let began = Instant::now();
    running.shutdown().await;
    assert!(
        began.elapsed() < USUAL_GRACE,
        "it was not told, only killed"
    );
}

#[tokio::test]
async fn a_daemon_is_ended_with_its_parent() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("daemon.pid");
    let script = "setsid sh -c 'echo $$ > daemon.pid; exec sleep 600' & exec sleep 600";
    let (running, _) = start(stack([shell("web", script).dir(dir.path())]));
    let daemon = eventually("the daemon runs", || pid_in(&file)).await;
    let began = Instant::now();
    running.shutdown().await;
    assert!(!alive(daemon));
    assert!(
        began.elapsed() < USUAL_GRACE,
        "it was not told, only killed"
    );
}

#[tokio::test]
async fn a_stack_that_is_still_starting_can_be_ended() {
    let (running, _) = start(stack([
        shell("never-ready", "exec sleep 600").port(0),
        shell("waits", "exec sleep 600").after("never-ready"),
        shell("crashes", "exit 1").port(0),
    ]));
    eventually("it crash-loops", || {
        matches!(
            status(&running, "crashes").state,
            State::CrashLooping { .. }
        )
        .then_some(())
    })
    .await;
    let began = Instant::now();
    running.shutdown().await;
    assert!(began.elapsed() < USUAL_GRACE);
    assert!(
        running
            .status()
            .iter()
            .all(|status| status.state == State::Stopped)
    );
    assert!(running.ready().await.is_err());
}

#[tokio::test]
async fn a_dropped_stack_is_killed() {
    let (running, log) = start(stack([shell("deaf", DEAF)]));
    say_ready(&log, &["deaf"]).await;
    let pid = status(&running, "deaf").pid.unwrap();
    drop(running);
    eventually("it is gone", || (!alive(pid)).then_some(())).await;
}
