//! More of a process, and fewer.

use std::collections::HashSet;

use crate::support::*;

#[tokio::test]
async fn the_first_replica_has_the_fixed_port_and_every_one_is_its_own_instance() {
    let fixed = waypost_runner::port::free("127.0.0.1".parse().unwrap()).unwrap();
    let script = "echo $NAME is $REPLICA on $PORT; exec sleep 600";
    let models = shell("models", script)
        .env("NAME", "{name}")
        .env("REPLICA", "{replica}")
        .env("PORT", "{port}")
        .port(fixed)
        .ready(waypost_runner::Probe::running());
    let (running, log) = start(stack([models.replicas(3)]));
    running.ready().await.unwrap();
    let status = running.status();
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
    running.shutdown().await;
}

#[tokio::test]
async fn a_running_process_is_scaled_up_and_down() {
    let dir = tempfile::tempdir().unwrap();
    let (running, _) = start(stack([
        service("models", dir.path()),
        service("web", dir.path()),
    ]));
    running.ready().await.unwrap();
    let names = || -> Vec<String> {
        running
            .status()
            .into_iter()
            .map(|status| status.instance)
            .collect()
    };
    let first = status(&running, "models").pid;

    running.scale("models", 3).await.unwrap();
    assert_eq!(names(), ["models", "web", "models-2", "models-3"]);
    assert!(running.status().iter().all(|status| status.is_ready()));
    assert_eq!(status(&running, "models").pid, first);
    let last = status(&running, "models-3").pid.unwrap();

    running.scale("models", 2).await.unwrap();
    assert_eq!(names(), ["models", "web", "models-2"]);
    assert!(!alive(last));

    running.scale("models", 0).await.unwrap();
    assert_eq!(names(), ["web"]);
    running.scale("models", 1).await.unwrap();
    assert!(status(&running, "models").is_ready());

    let error = running.scale("modles", 2).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "there is no process `modles` in the stack; it has `models` and `web`"
    );
    running.shutdown().await;
    let error = running.scale("models", 2).await.unwrap_err().to_string();
    assert_eq!(error, "the stack is being shut down");
}

#[tokio::test]
async fn a_replica_does_not_take_the_name_of_another_process() {
    let sleep = |name: &str| shell(name, "exec sleep 600");
    let (running, _) = start(stack([sleep("web"), sleep("web-2")]));
    let error = running.scale("web", 2).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "a replica of `web` would be named `web-2`, which another process is named"
    );
    assert_eq!(running.status().len(), 2);
    running.shutdown().await;
}
