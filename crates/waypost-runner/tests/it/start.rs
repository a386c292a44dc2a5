//! Starting a stack, and the errors when a start fails.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use waypost_runner::{
    InstanceState, Probe, ServiceSpec, SupervisorError, Transport, check_port, free_port,
};

use crate::support::*;

#[tokio::test]
async fn a_service_waits_for_its_dependencies() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("unhealthy"), "warming up").unwrap();
    let (supervisor, log) = start(stack([
        service("ui", dir.path()).after("gateway"),
        service("gateway", dir.path()).after("registry"),
        service("registry", dir.path()),
    ]));
    eventually("the registry runs", || status(&supervisor, "registry").pid).await;
    assert_eq!(
        status(&supervisor, "registry").state,
        InstanceState::Starting
    );
    let waiting = status(&supervisor, "ui");
    assert_eq!(
        waiting.state,
        InstanceState::Waiting {
            on: vec!["gateway".to_owned()]
        }
    );
    assert_eq!(waiting.state.to_string(), "waiting for gateway");
    assert_eq!(waiting.pid, None);

    std::fs::remove_file(dir.path().join("unhealthy")).unwrap();
    supervisor.ready().await.unwrap();
    assert!(
        supervisor
            .statuses()
            .iter()
            .all(|status| status.state == InstanceState::Healthy)
    );

    supervisor.shutdown().await;
    let events = log.events();
    let at = |what: &str| {
        events
            .iter()
            .position(|line| line.starts_with(what))
            .unwrap_or_else(|| panic!("{what}: {events:#?}"))
    };
    assert!(at("registry: healthy: after ") < at("gateway: starting"));
    assert!(at("gateway: healthy: after ") < at("ui: starting"));
}

#[tokio::test]
async fn after_started_does_not_wait_for_health() {
    let (supervisor, _) = start(stack([
        shell("slow", "exec sleep 600").port(0).ready(Probe::tcp()),
        shell("fast", "exec sleep 600").after_started("slow"),
    ]));
    eventually("fast is healthy", || {
        status(&supervisor, "fast").is_ready().then_some(())
    })
    .await;
    assert_eq!(status(&supervisor, "slow").state, InstanceState::Starting);
    supervisor.shutdown().await;
}

#[tokio::test]
async fn a_one_time_task_completes_before_its_dependents_start() {
    let dir = tempfile::tempdir().unwrap();
    let (supervisor, log) = start(stack([
        shell("migrate", "sleep 0.1; echo done > migrated")
            .dir(dir.path())
            .ready(Probe::completed()),
        shell("web", "cat migrated; exec sleep 600")
            .dir(dir.path())
            .after("migrate"),
    ]));
    supervisor.ready().await.unwrap();
    assert_eq!(
        status(&supervisor, "migrate").state,
        InstanceState::Completed
    );
    eventually("web has read the result", || {
        (log.texts("web") == ["done"]).then_some(())
    })
    .await;
    supervisor.restart("migrate").await.unwrap();
    assert_eq!(status(&supervisor, "migrate").restarts, 1);
    supervisor.shutdown().await;
}

#[tokio::test]
async fn a_one_time_task_that_fails_is_not_retried_and_its_dependents_wait() {
    let (supervisor, _) = start(stack([
        shell("migrate", "echo no such table >&2; exit 4").ready(Probe::completed()),
        shell("web", "exec sleep 600").after("migrate"),
    ]));
    let error = supervisor.ready().await.unwrap_err();
    let error = error.to_string();
    let begin = "`migrate` did not become healthy: exited with code 4 after ";
    let end = " ms; last lines of its output:\n    no such table";
    assert!(error.starts_with(begin) && error.ends_with(end), "{error}");
    assert_eq!(status(&supervisor, "migrate").state, InstanceState::Failed);
    assert_eq!(
        status(&supervisor, "web").state,
        InstanceState::Waiting {
            on: vec!["migrate".to_owned()]
        }
    );
    supervisor.shutdown().await;
}

#[tokio::test]
async fn a_crash_at_the_start_is_reported_with_the_last_20_lines() {
    let script = "seq 1 30; printf '\\033[31mred\\033[0m' >&2; exit 3";
    let (supervisor, _) = start(stack([shell("models", script).port(0).replicas(1)]));
    let SupervisorError::NotHealthy {
        instance,
        reason,
        last_lines,
    } = supervisor.ready().await.unwrap_err()
    else {
        panic!("unexpected error");
    };
    assert_eq!(instance, "models-1");
    assert!(reason.starts_with("exited with code 3 after "), "{reason}");
    assert_eq!(last_lines.len(), 20);
    assert!(
        last_lines.contains(&"red".to_owned()) && last_lines.contains(&"30".to_owned()),
        "{last_lines:?}"
    );
    supervisor.shutdown().await;
}

#[tokio::test]
async fn a_start_timeout_is_reported_with_the_result_of_the_probe() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("unhealthy"), "no model loaded").unwrap();
    // Long enough for a start and one check on a busy machine.
    let start_timeout = Duration::from_secs(10);
    let (supervisor, _) = start(stack([
        service("models", dir.path()).start_timeout(start_timeout)
    ]));
    let error = supervisor.ready().await.unwrap_err().to_string();
    assert!(
        error.starts_with(
            "`models` did not become healthy: not healthy within 10 s: GET http://127.0.0.1:"
        ),
        "{error}"
    );
    assert!(error.contains("/health returned 503 Service Unavailable: no model loaded; last lines of its output:\n    listening on "), "{error}");
    assert_eq!(
        status(&supervisor, "models").state,
        InstanceState::Unhealthy
    );
    // It can still become healthy.
    std::fs::remove_file(dir.path().join("unhealthy")).unwrap();
    eventually("it is healthy", || {
        status(&supervisor, "models").is_ready().then_some(())
    })
    .await;
    supervisor.shutdown().await;
}

#[tokio::test]
async fn a_program_that_cannot_be_run_is_reported() {
    for (service, expected) in [
        (
            ServiceSpec::new("web", "no-such-program"),
            "cannot run `no-such-program`: No such file or directory",
        ),
        (
            ServiceSpec::new("web", "/etc/passwd"),
            "cannot run `/etc/passwd`: Permission denied",
        ),
        (
            shell("web", "true").dir("/no/such/dir"),
            "cannot start in /no/such/dir: No such file",
        ),
    ] {
        let (supervisor, _) = start(stack([service.port(0)]));
        let error = supervisor.ready().await.unwrap_err().to_string();
        assert!(
            error.starts_with("`web` did not become healthy: ") && error.contains(expected),
            "{error}"
        );
        supervisor.shutdown().await;
    }
}

#[tokio::test]
async fn a_shim_executable_that_does_not_call_the_shim_is_reported() {
    let (supervisor, _) =
        start(stack([shell("web", "exec sleep 600").port(0)]).shim_executable("/bin/true"));
    let error = supervisor.ready().await.unwrap_err().to_string();
    assert!(
        error.contains("`main` must begin with `waypost_runner::shim::run_if_requested()`"),
        "{error}"
    );
    supervisor.shutdown().await;
}

/// Between the shim and the program, as when the limit of processes is reached.
#[tokio::test]
async fn the_reason_why_a_shim_can_not_start_the_program_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let shim = dir.path().join("shim");
    // The socket to the runner is its standard input.
    std::fs::write(&shim, "#!/bin/sh\necho 'failed no more processes' >&0\n").unwrap();
    std::fs::set_permissions(&shim, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (supervisor, _) = start(stack([shell("web", "true").port(0)]).shim_executable(shim));
    let error = supervisor.ready().await.unwrap_err().to_string();
    let expected = "`web` did not become healthy: no more processes;";
    assert!(error.starts_with(expected), "{error}");
    supervisor.shutdown().await;
}

#[test]
fn a_main_that_does_not_call_the_shim_does_not_start_itself_recursively() {
    let dir = tempfile::tempdir().unwrap();
    let mut runner = std::process::Command::new(TESTBED);
    let output = runner.env("RUN_WITHOUT_SHIM", dir.path()).output().unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("`main` must begin with"), "{error}");
}

#[tokio::test]
async fn ports_in_use_are_reported_with_their_holders_before_anything_starts() {
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
    let SupervisorError::PortsTaken(ports) = &error else {
        panic!("{error}")
    };
    assert_eq!(ports.len(), 2);
    let me = std::process::id();
    let message = error.to_string();
    assert!(
        message.contains(&format!(
            "port {first} of `registry` is in use by pid {me} ("
        )),
        "{message}"
    );
    assert!(
        message.contains(&format!("\nport {second} of `dns` is in use by pid {me} (")),
        "{message}"
    );
    assert!(!dir.path().join("started").exists());
}

/// Two processes may listen on the same port of two addresses.
#[tokio::test]
async fn the_holder_of_a_port_is_the_process_that_listens_on_that_address() {
    let dir = tempfile::tempdir().unwrap();
    let [local, other] = [1, 2].map(|last| IpAddr::from([127, 0, 0, last]));
    let (supervisor, _) = start(stack([service("web", dir.path())]));
    supervisor.ready().await.unwrap();
    let web = status(&supervisor, "web");
    let port = web.port.unwrap();
    let _listener = TcpListener::bind((other, port)).unwrap();
    let holder = |host: IpAddr, port: u16| {
        let taken = check_port("web", SocketAddr::new(host, port), Transport::Tcp);
        taken.unwrap_err().holder.unwrap()
    };
    assert_eq!(holder(local, port).pid, web.pid.unwrap());
    assert_eq!(holder(other, port).pid, std::process::id());
    // Both together hold the port of all addresses.
    let all = holder([0, 0, 0, 0].into(), port).pid;
    assert!([web.pid.unwrap(), std::process::id()].contains(&all));

    // An outgoing connection from a port doesn't hold it.
    let listener = TcpListener::bind((local, 0)).unwrap();
    let ours = free_port(local).unwrap();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(local, ours)).unwrap();
    let connection = socket.connect(listener.local_addr().unwrap());
    let connection = connection.await.unwrap();
    let taken = check_port("web", SocketAddr::new(local, ours), Transport::Tcp);
    assert!(taken.is_err_and(|taken| taken.holder.is_none()));
    drop(connection);
    supervisor.shutdown().await;
}
