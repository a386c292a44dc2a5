//! Scaling a service up and down.

use std::collections::HashSet;
use std::time::Duration;

use waypost_runner::{Probe, free_port};

use crate::support::*;

#[tokio::test]
async fn the_first_replica_gets_the_fixed_port_and_the_others_get_their_own() {
    let fixed = free_port("127.0.0.1".parse().unwrap()).unwrap();
    let script = "echo $NAME is $REPLICA on $PORT; exec sleep 600";
    let models = shell("models", script)
        .env("NAME", "{name}")
        .env("REPLICA", "{replica}")
        .env("PORT", "{port}")
        .port(fixed)
        .ready(Probe::running());
    let (supervisor, log) = start(stack([models.replicas(3)]));
    supervisor.ready().await.unwrap();
    let status = supervisor.statuses();
    let ports: HashSet<u16> = status.iter().filter_map(|status| status.port).collect();
    assert_eq!(
        (status.len(), ports.len(), status[0].port),
        (3, 3, Some(fixed))
    );
    for (index, status) in status.iter().enumerate() {
        let (replica, port) = (index + 1, status.port.unwrap());
        assert_eq!(status.instance, format!("models-{replica}"));
        let expected = format!("models-{replica} is {replica} on {port}");
        eventually(&expected, || {
            (log.texts(&status.instance) == [expected.clone()]).then_some(())
        })
        .await;
    }
    supervisor.shutdown().await;
}

#[tokio::test]
async fn a_running_service_is_scaled_up_and_down() {
    let dir = tempfile::tempdir().unwrap();
    let (supervisor, _) = start(stack([
        service("models", dir.path()),
        service("web", dir.path()),
    ]));
    supervisor.ready().await.unwrap();
    let names = || -> Vec<String> {
        supervisor
            .statuses()
            .into_iter()
            .map(|status| status.instance)
            .collect()
    };
    let first = status(&supervisor, "models").pid;

    supervisor.scale("models", 3).await.unwrap();
    assert_eq!(names(), ["models", "web", "models-2", "models-3"]);
    assert!(supervisor.statuses().iter().all(|status| status.is_ready()));
    assert_eq!(status(&supervisor, "models").pid, first);
    let last = status(&supervisor, "models-3").pid.unwrap();

    supervisor.scale("models", 2).await.unwrap();
    assert_eq!(names(), ["models", "web", "models-2"]);
    assert!(!alive(last));

    supervisor.scale("models", 0).await.unwrap();
    assert_eq!(names(), ["web"]);
    supervisor.scale("models", 1).await.unwrap();
    assert!(status(&supervisor, "models").is_ready());

    let error = supervisor.scale("modles", 2).await.unwrap_err().to_string();
    assert_eq!(error, "unknown service `modles` (known: `models`, `web`)");
    supervisor.shutdown().await;
    let error = supervisor.scale("models", 2).await.unwrap_err().to_string();
    assert_eq!(error, "the stack is shutting down");
}

#[tokio::test]
async fn a_dropped_call_does_not_affect_the_next_one() {
    let (supervisor, log) = start(stack([graceful("web", 2_000).replicas(2)]));
    wait_until_ready(&log, &["web-1", "web-2"]).await;
    let before = status(&supervisor, "web-2").pid;
    let scaling_down = supervisor.scale("web", 1);
    let dropped = tokio::time::timeout(Duration::from_millis(50), scaling_down).await;
    assert!(dropped.is_err());
    supervisor.scale("web", 2).await.unwrap();
    let after = status(&supervisor, "web-2");
    assert!(after.is_ready() && after.pid != before, "{after:?}");
    supervisor.shutdown().await;
}

#[tokio::test]
async fn a_replica_does_not_get_the_name_of_another_service() {
    let sleep = |name: &str| shell(name, "exec sleep 600");
    let (supervisor, _) = start(stack([sleep("web"), sleep("web-2")]));
    let error = supervisor.scale("web", 2).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "a replica of `web` would be named `web-2`, but that name is in use"
    );
    assert_eq!(supervisor.statuses().len(), 2);
    supervisor.shutdown().await;
}
