//! Builds, and restarts when files change.

use std::fs;
use std::path::Path;

use waypost_runner::{InstanceState, ServiceSpec, WatchSpec};

use crate::support::*;

/// A service whose build copies `source` to its program. The build fails if `source` contains `broken`.
fn built(name: &str, dir: &Path) -> ServiceSpec {
    let build = format!("! grep broken source && cp source {name}.sh");
    ServiceSpec::new(name, "sh")
        .args([format!("{name}.sh")])
        .dir(dir)
        .build(["sh", "-c", &build])
        .watch(WatchSpec::new(dir).paths(["source"]))
}

fn write(dir: &Path, text: &str) {
    replace(dir, "source", &format!("echo {text}; exec sleep 600\n"));
}

/// Replaces a file atomically, so that there is one change, and no reader sees half a file.
fn replace(dir: &Path, name: &str, text: &str) {
    let new = dir.join("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, dir.join(name)).unwrap();
}

async fn until_written(log: &Recorder, instance: &str, text: &str) {
    eventually(text, || {
        log.texts(instance)
            .iter()
            .any(|line| line == text)
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_change_builds_and_restarts_its_service_alone() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "one");
    let other = shell("other", "exec sleep 600").after("web");
    let (supervisor, log) = start(stack([built("web", dir.path()).replicas(2), other]));
    supervisor.ready().await.unwrap();
    until_written(&log, "web-1", "one").await;
    until_written(&log, "web-2", "one").await;
    let builds = || {
        let events = log.events();
        events
            .iter()
            .filter(|event| *event == "web: building")
            .count()
    };
    assert_eq!(builds(), 1, "{:#?}", log.events());

    write(dir.path(), "two");
    until_written(&log, "web-1", "two").await;
    until_written(&log, "web-2", "two").await;
    assert_eq!(builds(), 2, "{:#?}", log.events());
    assert!(log.events().contains(&"web: source changed".to_owned()));
    assert_eq!(status(&supervisor, "other").restarts, 0);
    supervisor.shutdown().await;
}

#[tokio::test]
async fn a_failed_build_leaves_the_program_of_the_previous_build_running() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "one");
    let (supervisor, log) = start(stack([built("web", dir.path())]));
    supervisor.ready().await.unwrap();
    let pid = status(&supervisor, "web").pid;
    write(dir.path(), "broken");
    let failed = eventually("the build fails", || {
        Some(status(&supervisor, "web")).filter(|status| status.build_error.is_some())
    })
    .await;
    assert_eq!((failed.pid, failed.state), (pid, InstanceState::Healthy));
    assert_eq!(
        failed.build_error.as_deref(),
        Some("the build failed: exited with code 1")
    );
    write(dir.path(), "three");
    until_written(&log, "web", "three").await;
    eventually("the error is gone", || {
        status(&supervisor, "web")
            .build_error
            .is_none()
            .then_some(())
    })
    .await;
    supervisor.shutdown().await;
}

#[tokio::test]
async fn a_first_build_that_fails_is_repeated_after_a_change() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "broken");
    let (supervisor, log) = start(stack([built("web", dir.path())]));
    let error = supervisor.ready().await.unwrap_err().to_string();
    assert!(
        error.contains("the build failed: exited with code 1"),
        "{error}"
    );
    assert_eq!(status(&supervisor, "web").state, InstanceState::Failed);
    write(dir.path(), "repaired");
    until_written(&log, "web", "repaired").await;
    supervisor.shutdown().await;
}

#[tokio::test]
async fn instances_share_a_failed_build_and_a_restart_builds_again() {
    let dir = tempfile::tempdir().unwrap();
    let build = "echo x >> builds; test -e source";
    let web = shell("web", "exec sleep 600")
        .replicas(2)
        .dir(dir.path())
        .build(["sh", "-c", build]);
    let (supervisor, _) = start(stack([web]));
    let failed = || {
        let states = ["web-1", "web-2"].map(|name| status(&supervisor, name).state);
        (states == [InstanceState::Failed, InstanceState::Failed]).then_some(())
    };
    eventually("both have failed", failed).await;
    let builds = || fs::read_to_string(dir.path().join("builds")).unwrap().len() / 2;
    assert_eq!(builds(), 1);
    let error = supervisor.restart("web-1").await.unwrap_err().to_string();
    assert!(
        error.contains("the build failed: exited with code 1"),
        "{error}"
    );
    assert_eq!(builds(), 2);
    fs::write(dir.path().join("source"), "").unwrap();
    supervisor.restart("web").await.unwrap();
    // A build that has succeeded is not repeated.
    assert_eq!(builds(), 3);
    supervisor.shutdown().await;
}

#[tokio::test]
async fn a_cascading_change_restarts_the_dependent_services() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config"), "1").unwrap();
    let watch = WatchSpec::new(dir.path()).paths(["config"]).cascade(true);
    let (supervisor, _) = start(stack([
        shell("web", "exec sleep 600").watch(watch),
        shell("after", "exec sleep 600").after("web"),
        shell("stopped", "exec sleep 600").after("web"),
    ]));
    supervisor.ready().await.unwrap();
    supervisor.stop_service("stopped").await.unwrap();
    replace(dir.path(), "config", "2");
    eventually("both are restarted", || {
        let restarts = ["web", "after"].map(|name| status(&supervisor, name).restarts);
        (restarts == [1, 1]).then_some(())
    })
    .await;
    assert_eq!(status(&supervisor, "stopped").state, InstanceState::Stopped);
    supervisor.shutdown().await;
}

#[tokio::test]
async fn a_build_ends_with_the_stack() {
    let dir = tempfile::tempdir().unwrap();
    let build = ["sh", "-c", "echo $$ > build.pid; exec sleep 600"];
    let (supervisor, _) = start(stack([shell("web", "true").dir(dir.path()).build(build)]));
    let file = dir.path().join("build.pid");
    let pid = eventually("it is being built", || pid_in(&file)).await;
    assert_eq!(status(&supervisor, "web").state, InstanceState::Building);
    supervisor.shutdown().await;
    eventually("it is gone", || (!alive(pid)).then_some(())).await;
}
