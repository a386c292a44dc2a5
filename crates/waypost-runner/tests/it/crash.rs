//! Crashes, restarts and unhealthy services.

use waypost_runner::InstanceState;

use crate::support::*;

#[tokio::test]
async fn a_killed_replica_is_restarted_on_the_same_port() {
    let dir = tempfile::tempdir().unwrap();
    let (supervisor, _) = start(stack([service("models", dir.path()).replicas(2)]));
    supervisor.ready().await.unwrap();
    let before = status(&supervisor, "models-2");
    let pid = before.pid.unwrap();
    kill_9(pid);
    let after = eventually("it is restarted", || {
        Some(status(&supervisor, "models-2"))
            .filter(|status| status.is_ready() && status.pid != Some(pid))
    })
    .await;
    assert_eq!((after.port, after.restarts), (before.port, 1));
    assert_eq!(status(&supervisor, "models-1").restarts, 0);
    supervisor.shutdown().await;
}

#[tokio::test]
async fn the_reason_for_a_crash_is_logged() {
    let dir = tempfile::tempdir().unwrap();
    let (supervisor, log) = start(stack([service("web", dir.path())]));
    supervisor.ready().await.unwrap();
    kill_9(status(&supervisor, "web").pid.unwrap());
    let event = eventually("the crash is logged", || {
        log.events()
            .into_iter()
            .find(|line| line.contains("killed"))
    })
    .await;
    assert!(
        event.starts_with("web: starting: killed by SIGKILL")
            && event.contains("; restarting in 1"),
        "{event}"
    );
    supervisor.shutdown().await;
}

#[tokio::test]
async fn repeated_crashes_are_a_crash_loop() {
    let (supervisor, log) = start(stack([shell("web", "echo attempt; exit 1").port(0)]));
    let mut events = supervisor.events();
    let status = loop {
        let status = events.next().await.unwrap();
        if status.state == (InstanceState::CrashLooping { crashes: 3 }) {
            break status;
        }
    };
    assert_eq!(status.state.to_string(), "crash-looping (3×)");
    let text = status.to_string();
    assert!(
        text.starts_with("crash-looping (3×): exited with code 1 after "),
        "{text}"
    );
    // 4 s, lengthened by up to 20 %.
    assert!(text.contains("; restarting in 4"), "{text}");
    eventually("the output of each attempt is logged", || {
        (log.texts("web") == ["attempt"; 3]).then_some(())
    })
    .await;
    supervisor.shutdown().await;
    assert_eq!(supervisor.recent_lines("web", 20).unwrap().len(), 3);
    let error = supervisor.recent_lines("wbe", 20).unwrap_err().to_string();
    assert_eq!(error, "unknown service `wbe` (known: `web`)");
}

#[tokio::test]
async fn a_service_that_fails_its_probe_is_unhealthy_until_the_probe_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    let (supervisor, _) = start(stack([service("web", dir.path())]));
    supervisor.ready().await.unwrap();
    std::fs::write(dir.path().join("unhealthy"), "out of memory\n").unwrap();
    let unhealthy = eventually("it is unhealthy", || {
        Some(status(&supervisor, "web")).filter(|status| status.state == InstanceState::Unhealthy)
    })
    .await;
    let reason = unhealthy.reason.unwrap();
    assert!(
        reason.ends_with("/health returned 503 Service Unavailable: out of memory"),
        "{reason}"
    );
    std::fs::remove_file(dir.path().join("unhealthy")).unwrap();
    let healthy = eventually("it is healthy", || {
        Some(status(&supervisor, "web")).filter(|status| status.is_ready())
    })
    .await;
    assert_eq!((healthy.restarts, healthy.pid), (0, unhealthy.pid));
    supervisor.shutdown().await;
}

#[tokio::test]
async fn children_of_a_crashed_program_are_killed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("child.pid");
    let script = "sleep 600 & echo $! > child.pid; sleep 0.2; exit 1";
    let (supervisor, _) = start(stack([shell("web", script).dir(dir.path())]));
    let child = eventually("the child runs", || pid_in(&file)).await;
    eventually("the child is gone", || (!alive(child)).then_some(())).await;
    supervisor.shutdown().await;
}

#[tokio::test]
async fn replicas_are_restarted_one_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let (supervisor, _) = start(stack([
        service("web", dir.path()).replicas(2),
        service("other", dir.path()),
    ]));
    supervisor.ready().await.unwrap();
    let mut events = supervisor.events();
    supervisor.restart("web").await.unwrap();
    let mut logged = Vec::new();
    while logged
        .last()
        .is_none_or(|last: &String| !last.starts_with("web-2: healthy"))
    {
        let status = events.next().await.unwrap();
        logged.push(format!("{}: {status}", status.instance));
    }
    let at = |what: &str| {
        logged
            .iter()
            .position(|line| line.starts_with(what))
            .unwrap()
    };
    assert!(at("web-1: stopping") < at("web-1: healthy"), "{logged:#?}");
    assert!(at("web-1: healthy") < at("web-2: stopping"), "{logged:#?}");
    supervisor.shutdown().await;
    assert_eq!(status(&supervisor, "web-1").restarts, 1);
    assert_eq!(status(&supervisor, "other").restarts, 0);
}

#[tokio::test]
async fn a_restart_of_an_unknown_service_lists_the_known_ones() {
    let (supervisor, _) = start(stack([shell("web", "exec sleep 600").replicas(2)]));
    let error = supervisor.restart("wbe").await.unwrap_err().to_string();
    assert_eq!(
        error,
        "unknown service `wbe` (known: `web`, `web-1`, `web-2`)"
    );
    supervisor.shutdown().await;
}
