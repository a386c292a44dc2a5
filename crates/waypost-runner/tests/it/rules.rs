//! Restart rules, stop signals, readiness checks and what programs may do to their output.

use waypost_runner::{InstanceState, Probe, RestartRule, StopSignal};

use crate::support::*;

#[tokio::test]
async fn a_program_is_restarted_according_to_its_rule() {
    let (supervisor, _) = start(stack([
        shell("crash-0", "exit 0").restart(RestartRule::Crash),
        shell("crash-1", "exit 1").restart(RestartRule::Crash),
        shell("always-0", "exit 0").restart(RestartRule::Always),
        shell("never-0", "exit 0").restart(RestartRule::Never),
        shell("never-1", "exit 1").restart(RestartRule::Never),
    ]));
    let state = |name: &str| status(&supervisor, name).state;
    eventually("those that are restarted have been", || {
        let restarts = ["crash-1", "always-0"].map(|name| status(&supervisor, name).restarts);
        restarts.iter().all(|count| *count > 0).then_some(())
    })
    .await;
    for (name, expected) in [
        ("crash-0", InstanceState::Stopped),
        ("never-0", InstanceState::Stopped),
        ("never-1", InstanceState::Failed),
    ] {
        assert_eq!(
            (state(name), status(&supervisor, name).restarts),
            (expected, 0),
            "{name}"
        );
    }
    let reason = status(&supervisor, "never-1").reason.unwrap();
    assert!(reason.starts_with("exited with code 1 after "), "{reason}");
    supervisor.shutdown().await;
}

#[tokio::test]
async fn a_program_is_stopped_by_its_own_signal() {
    let script = "trap 'echo got INT; exit 0' INT; trap 'echo got TERM' TERM; echo ready; while :; do sleep 0.01; done";
    let (supervisor, log) = start(stack([shell("web", script).stop_signal(StopSignal::Int)]));
    wait_until_ready(&log, &["web"]).await;
    supervisor.shutdown().await;
    assert_eq!(log.texts("web"), ["ready", "got INT"]);
}

#[tokio::test]
async fn a_line_of_the_output_makes_an_instance_ready() {
    let dir = tempfile::tempdir().unwrap();
    let script = "echo starting; while ! test -e go; do sleep 0.01; done; echo 'listening on 80'; exec sleep 600";
    let web = shell("web", script)
        .dir(dir.path())
        .ready(Probe::log("^listening on \\d+$"));
    let (supervisor, _) = start(stack([web, shell("after", "exec sleep 600").after("web")]));
    let waiting = eventually("it tells what it waits for", || {
        status(&supervisor, "web").last_check
    })
    .await;
    assert_eq!(
        waiting,
        "no line of its output matches `^listening on \\d+$` yet"
    );
    assert!(matches!(
        status(&supervisor, "after").state,
        InstanceState::Waiting { .. }
    ));
    std::fs::write(dir.path().join("go"), "").unwrap();
    supervisor.ready().await.unwrap();
    supervisor.shutdown().await;
}

#[tokio::test]
async fn a_command_makes_an_instance_ready() {
    let dir = tempfile::tempdir().unwrap();
    let check = [
        "sh",
        "-c",
        "test -e $FLAG || { echo no $FLAG yet >&2; exit 1; }",
    ];
    let web = shell("web", "exec sleep 600")
        .dir(dir.path())
        .env("FLAG", "flag")
        .ready(Probe::exec(check));
    let (supervisor, _) = start(stack([web]));
    let waiting = eventually("it tells what it waits for", || {
        status(&supervisor, "web").last_check
    })
    .await;
    assert_eq!(waiting, "`sh` failed (exit status: 1): no flag yet");
    std::fs::write(dir.path().join("flag"), "").unwrap();
    supervisor.ready().await.unwrap();
    supervisor.shutdown().await;
}

#[tokio::test]
async fn a_program_may_close_its_output() {
    let dir = tempfile::tempdir().unwrap();
    let script = "echo last; exec >&- 2>&-; touch closed; exec sleep 600";
    let (supervisor, log) = start(stack([shell("web", script).dir(dir.path())]));
    eventually("it has closed its output", || {
        dir.path().join("closed").exists().then_some(())
    })
    .await;
    eventually("its line is there", || {
        (log.texts("web") == ["last"]).then_some(())
    })
    .await;
    let web = status(&supervisor, "web");
    assert!(web.is_ready() && alive(web.pid.unwrap()), "{web}");
    supervisor.shutdown().await;
    assert!(!alive(web.pid.unwrap()));
}

#[tokio::test]
async fn the_state_of_an_external_service_follows_its_availability() {
    let port = waypost_runner::free_port("127.0.0.1".parse().unwrap()).unwrap();
    let external = waypost_runner::ServiceSpec::external("db", "127.0.0.1", port)
        .ready(Probe::tcp().interval(std::time::Duration::from_millis(20)))
        .start_timeout(std::time::Duration::from_millis(50));
    let (supervisor, _) = start(stack([external]));
    let is = |state: InstanceState| (status(&supervisor, "db").state == state).then_some(());
    eventually("it is unreachable", || is(InstanceState::Unhealthy)).await;
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    eventually("it is reachable", || is(InstanceState::Healthy)).await;
    drop(listener);
    eventually("it is unreachable again", || is(InstanceState::Unhealthy)).await;
    assert_eq!(status(&supervisor, "db").pid, None);
    supervisor.shutdown().await;
}
