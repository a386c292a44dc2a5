//! No program outlives a runner or shim that is killed.

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::*;

/// The processes of the testbed's runner, including children that ignore SIGTERM and a daemon.
const NAMES: [&str; 5] = [
    "plain",
    "stubborn",
    "stubborn-child",
    "daemon",
    "daemon-child",
];

async fn pids(dir: &Path) -> Vec<u32> {
    let mut pids = Vec::new();
    for name in NAMES {
        let file = dir.join(format!("{name}.pid"));
        pids.push(eventually(name, || pid_in(&file).filter(|&pid| alive(pid))).await);
    }
    pids
}

async fn wait_until_gone(pids: &[u32]) {
    let left = || pids.iter().filter(|&&pid| alive(pid)).count();
    eventually("all processes are gone", || (left() == 0).then_some(())).await;
}

fn runner(dir: &Path) -> std::process::Child {
    Command::new(TESTBED)
        .arg("run")
        .arg(dir)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// The child processes of a process; those of a runner are the shims.
fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let lists = tasks.map(|task| {
        std::fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default()
    });
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .map(|pid| pid.parse().unwrap())
                .collect::<Vec<u32>>()
        })
        .collect()
}

/// The parent of a process; that of a program is its shim.
fn parent(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit(") ").next().unwrap();
    fields.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn no_process_outlives_a_killed_runner() {
    let dir = tempfile::tempdir().unwrap();
    let mut runner = runner(dir.path());
    let mut all = pids(dir.path()).await;
    all.extend(children(runner.id()));
    assert_eq!(all.len(), NAMES.len() + 3);
    runner.kill().unwrap();
    runner.wait().unwrap();
    wait_until_gone(&all).await;
}

#[tokio::test]
async fn no_program_outlives_a_runner_that_is_killed_together_with_its_shims() {
    let dir = tempfile::tempdir().unwrap();
    let mut runner = runner(dir.path());
    let pids = pids(dir.path()).await;
    let shims = children(runner.id());
    kill_9(runner.id());
    shims.iter().for_each(|&pid| kill_9(pid));
    runner.wait().unwrap();
    // Without the shims, only the programs themselves get a signal, not their children.
    wait_until_gone(&[pids[0], pids[1], pids[3]]).await;
    [pids[2], pids[4]]
        .into_iter()
        .filter(|&pid| alive(pid))
        .for_each(kill_9);
}

#[tokio::test]
async fn a_program_whose_shim_was_killed_is_restarted() {
    let (supervisor, _) = start(stack([shell("web", "sleep 600 & wait")]));
    supervisor.ready().await.unwrap();
    let pid = status(&supervisor, "web").pid.unwrap();
    let child = eventually("it has a child", || children(pid).first().copied()).await;
    kill_9(parent(pid));
    let after = eventually("it is restarted", || {
        Some(status(&supervisor, "web"))
            .filter(|status| status.is_ready() && status.pid != Some(pid))
    })
    .await;
    assert_eq!(after.restarts, 1);
    wait_until_gone(&[pid, child]).await;
    supervisor.shutdown().await;
}

#[tokio::test]
async fn a_shim_ignores_a_signal_sent_to_all_processes() {
    let (supervisor, log) = start(stack([graceful("web", 0)]));
    wait_until_ready(&log, &["web"]).await;
    let pid = status(&supervisor, "web").pid.unwrap();
    send_signal(parent(pid), Signal::TERM);
    supervisor.shutdown().await;
    assert_eq!(
        log.texts("web"),
        ["ready", "stopped", "last line without a line end"]
    );
    assert_eq!(
        status(&supervisor, "web").reason.unwrap(),
        "exited with code 0"
    );
}
