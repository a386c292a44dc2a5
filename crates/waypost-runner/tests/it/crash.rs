//! What ends by itself comes back; what is sick is shown to be.

use waypost_runner::State;

use crate::support::*;

#[tokio::test]
async fn a_killed_replica_comes_back_at_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let (running, _) = start(stack([service("models", dir.path()).replicas(2)]));
    running.ready().await.unwrap();
    let before = status(&running, "models-2");
    let pid = before.pid.unwrap();
    kill_9(pid);
    let after = eventually("it is back", || {
        Some(status(&running, "models-2"))
            .filter(|status| status.is_ready() && status.pid != Some(pid))
    })
    .await;
    assert_eq!((after.port, after.restarts), (before.port, 1));
    assert_eq!(status(&running, "models-1").restarts, 0);
    running.shutdown().await;
}

#[tokio::test]
async fn the_reason_of_a_crash_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (running, log) = start(stack([service("web", dir.path())]));
    running.ready().await.unwrap();
    kill_9(status(&running, "web").pid.unwrap());
    let told = eventually("the crash is told", || {
        log.told().into_iter().find(|line| line.contains("killed"))
    })
    .await;
    assert!(
        told.starts_with("web: starting: killed by SIGKILL; starting again in 1"),
        "{told}"
    );
    running.shutdown().await;
}

#[tokio::test]
async fn crash_after_crash_is_a_crash_loop() {
    let (running, log) = start(stack([shell("web", "echo attempt; exit 1").port(0)]));
    let mut events = running.events();
    let status = loop {
        let status = events.next().await.unwrap();
        if status.state == (State::CrashLooping { crashes: 3 }) {
            break status;
        }
    };
    assert_eq!(status.state.to_string(), "crash-looping (3×)");
    let reason = status.reason.unwrap();
    // 4 s, and up to a fifth more by chance.
    assert!(
        reason.starts_with("exited with code 1; starting again in "),
        "{reason}"
    );
    eventually("each attempt was heard", || {
        (log.texts("web") == ["attempt"; 3]).then_some(())
    })
    .await;
    running.shutdown().await;
    assert_eq!(running.recent_lines("web", 20).unwrap().len(), 3);
    let error = running.recent_lines("wbe", 20).unwrap_err().to_string();
    assert_eq!(
        error,
        "there is no process `wbe` in the stack; it has `web`"
    );
}

#[tokio::test]
async fn a_service_that_fails_its_probe_is_unhealthy_until_it_answers_again() {
    let dir = tempfile::tempdir().unwrap();
    let (running, _) = start(stack([service("web", dir.path())]));
    running.ready().await.unwrap();
    std::fs::write(dir.path().join("sick"), "out of memory\n").unwrap();
    let sick = eventually("it is unhealthy", || {
        Some(status(&running, "web")).filter(|status| status.state == State::Unhealthy)
    })
    .await;
    let reason = sick.reason.unwrap();
    assert!(
        reason.ends_with("/health answered 503 Service Unavailable: out of memory"),
        "{reason}"
    );
    std::fs::remove_file(dir.path().join("sick")).unwrap();
    let well = eventually("it is healthy", || {
        Some(status(&running, "web")).filter(|status| status.is_ready())
    })
    .await;
    assert_eq!((well.restarts, well.pid), (0, sick.pid));
    running.shutdown().await;
}

#[tokio::test]
async fn what_a_crashed_process_leaves_behind_is_not_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("child.pid");
    let script = "sleep 600 & echo $! > child.pid; sleep 0.2; exit 1";
    let (running, _) = start(stack([shell("web", script).dir(dir.path())]));
    let child = eventually("the child runs", || pid_in(&file)).await;
    eventually("the child is gone", || (!alive(child)).then_some(())).await;
    running.shutdown().await;
}

#[tokio::test]
async fn a_restart_takes_one_replica_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let (running, _) = start(stack([
        service("web", dir.path()).replicas(2),
        service("other", dir.path()),
    ]));
    running.ready().await.unwrap();
    let mut events = running.events();
    running.restart("web").await.unwrap();
    let mut told = Vec::new();
    while told
        .last()
        .is_none_or(|last: &String| !last.starts_with("web-2: healthy"))
    {
        let status = events.next().await.unwrap();
        told.push(format!("{}: {status}", status.instance));
    }
    let at = |what: &str| told.iter().position(|line| line.starts_with(what)).unwrap();
    assert!(at("web-1: stopping") < at("web-1: healthy"), "{told:#?}");
    assert!(at("web-1: healthy") < at("web-2: stopping"), "{told:#?}");
    running.shutdown().await;
    assert_eq!(status(&running, "web-1").restarts, 1);
    assert_eq!(status(&running, "other").restarts, 0);
}

#[tokio::test]
async fn a_restart_of_the_unknown_lists_the_known() {
    let (running, _) = start(stack([shell("web", "exec sleep 600").replicas(2)]));
    let error = running.restart("wbe").await.unwrap_err().to_string();
    assert_eq!(
        error,
        "there is no process `wbe` in the stack; it has `web`, `web-1` and `web-2`"
    );
    running.shutdown().await;
}
