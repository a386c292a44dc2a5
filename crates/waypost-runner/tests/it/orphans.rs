//! Whoever is killed without warning, nobody is left behind.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::*;

/// The processes of the testbed's runner, with stubborn children and a daemon.
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

async fn gone(pids: &[u32]) {
    let left = || pids.iter().filter(|&&pid| alive(pid)).count();
    eventually("all are gone", || (left() == 0).then_some(())).await;
}

fn runner(dir: &Path) -> std::process::Child {
    Command::new(TESTBED)
        .arg("run")
        .arg(dir)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// The supervisors of a runner.
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

#[tokio::test]
async fn nothing_outlives_a_killed_runner() {
    let dir = tempfile::tempdir().unwrap();
    let mut runner = runner(dir.path());
    let mut all = pids(dir.path()).await;
    all.extend(children(runner.id()));
    assert_eq!(all.len(), NAMES.len() + 3);
    runner.kill().unwrap();
    runner.wait().unwrap();
    gone(&all).await;
}

#[tokio::test]
async fn nothing_outlives_a_runner_that_is_killed_together_with_the_supervisors() {
    let dir = tempfile::tempdir().unwrap();
    let mut runner = runner(dir.path());
    let pids = pids(dir.path()).await;
    let supervisors = children(runner.id());
    kill_9(runner.id());
    supervisors.iter().for_each(|&pid| kill_9(pid));
    runner.wait().unwrap();
    // Without any supervisor only the programs themselves hear of it, not what they started.
    gone(&[pids[0], pids[1], pids[3]]).await;
    [pids[2], pids[4]]
        .into_iter()
        .filter(|&pid| alive(pid))
        .for_each(kill_9);
}

#[tokio::test]
async fn a_program_whose_supervisor_was_killed_is_started_anew() {
    let (running, _) = start(stack([shell("web", "sleep 600 & wait")]));
    running.ready().await.unwrap();
    let pid = status(&running, "web").pid.unwrap();
    let child = eventually("it has a child", || children(pid).first().copied()).await;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let supervisor = stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap();
    kill_9(supervisor.parse().unwrap());
    let after = eventually("it is back", || {
        Some(status(&running, "web")).filter(|status| status.is_ready() && status.pid != Some(pid))
    })
    .await;
    assert_eq!(after.restarts, 1);
    gone(&[pid, child]).await;
    running.shutdown().await;
}

#[tokio::test]
async fn supervisors_outlive_a_signal_for_everybody() {
    let (running, log) = start(stack([polite("web", 0)]));
    say_ready(&log, &["web"]).await;
    let pid = status(&running, "web").pid.unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let supervisor: i32 = stat
        .rsplit(") ")
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let supervisor = rustix::process::Pid::from_raw(supervisor).unwrap();
    rustix::process::kill_process(supervisor, rustix::process::Signal::TERM).unwrap();
    running.shutdown().await;
    assert_eq!(log.texts("web"), ["ready", "bye", "a last word"]);
    assert_eq!(
        status(&running, "web").reason.unwrap(),
        "exited with code 0"
    );
}
