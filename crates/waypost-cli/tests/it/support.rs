//! Runs the command as a child process, and inspects processes and HTTP endpoints.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use waypost_testkit::free_ports;

/// The time limit for any event that a test expects, long enough for a busy machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// The command, with no variables that configure service discovery.
pub(crate) fn waypost(arguments: &[&str]) -> Command {
    // A runner of the tests may ignore SIGHUP, as nohup does, and processes inherit that.
    let mut command = Command::new("/usr/bin/env");
    command
        .arg("--default-signal=HUP")
        .arg(env!("CARGO_BIN_EXE_waypost"))
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true);
    for name in ["PATH", "HOME", "CONSUL_BIN"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// A program that runs during the test, with its output so far.
pub(crate) struct Program {
    child: Child,
    output: watch::Receiver<String>,
    readers: JoinSet<()>,
}

impl Program {
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, output) = watch::channel(String::new());
        let mut readers = JoinSet::new();
        readers.spawn(collect(child.stdout.take().unwrap(), sender.clone()));
        readers.spawn(collect(child.stderr.take().unwrap(), sender));
        Self {
            child,
            output,
            readers,
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().unwrap().try_into().unwrap()
    }

    /// Waits until the output contains a text.
    pub(crate) async fn wait_for_output(&mut self, text: &str) {
        let mut output = self.output.clone();
        let found = timeout(TIMEOUT, output.wait_for(|output| output.contains(text)));
        let is_found = found.await.is_ok_and(|found| found.is_ok());
        assert!(is_found, "no {text:?} in the output:\n{}", self.output());
    }

    pub(crate) fn output(&self) -> String {
        self.output.borrow().clone()
    }

    pub(crate) fn interrupt(&self) {
        signal(self.pid(), Signal::INT);
    }

    /// Waits until it has exited and all its output is read; returns the exit code.
    pub(crate) async fn wait_for_exit(&mut self) -> Option<i32> {
        let status = timeout(TIMEOUT, self.child.wait()).await;
        let all_read = async { while self.readers.join_next().await.is_some() {} };
        timeout(TIMEOUT, all_read)
            .await
            .expect("the output should end with the program");
        status.expect("the program should exit").unwrap().code()
    }
}

async fn collect(reader: impl AsyncRead + Unpin, output: watch::Sender<String>) {
    let mut lines = BufReader::new(reader).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        output.send_modify(|output| {
            output.push_str(&line);
            output.push('\n');
        });
    }
}

pub(crate) fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Whether a process exists and is not a zombie.
pub(crate) fn is_running(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    test_kill_process(Pid::from_raw(pid).unwrap()).is_ok()
        && !matches!(state, Some('Z' | 'X') | None)
}

/// All descendants of a process.
pub(crate) fn descendants(pid: i32) -> Vec<i32> {
    let mut found = Vec::new();
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        for task in std::fs::read_dir(format!("/proc/{parent}/task"))
            .into_iter()
            .flatten()
            // A task may exit in the meantime.
            .flatten()
        {
            let children = task.path().join("children");
            for child in read(&children).split_whitespace() {
                let child = child.parse().unwrap();
                found.push(child);
                parents.push(child);
            }
        }
    }
    found
}

/// The only descendant of `pid` whose command line contains `words`, other than its shim.
pub(crate) fn descendant(pid: i32, words: &str) -> i32 {
    let command_line =
        |pid: &i32| read(Path::new(&format!("/proc/{pid}/cmdline"))).replace('\0', " ");
    let all = descendants(pid);
    let found: Vec<_> = all
        .iter()
        .filter(|pid| command_line(pid).contains(words) && !command_line(pid).contains("__runner-"))
        .collect();
    assert_eq!(
        found.len(),
        1,
        "{words}: {:?}",
        all.iter().map(command_line).collect::<Vec<_>>()
    );
    *found[0]
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Polls until `look` returns a value.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    match timeout(TIMEOUT, looking).await {
        Ok(found) => found,
        Err(_) => panic!("not within {TIMEOUT:?}: {what}"),
    }
}

/// An HTTP client for tests.
pub(crate) fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .timeout(TIMEOUT)
        .build()
        .unwrap()
}

/// The status and body of a GET request; follows redirects.
pub(crate) async fn get(url: &str) -> (u16, String) {
    let response = http().get(url).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

pub(crate) async fn get_json(url: &str) -> Value {
    let (status, body) = get(url).await;
    assert_eq!(status, 200, "{url}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// An embedded registry that runs during the test.
pub(crate) struct Registry {
    pub(crate) agent: Program,
    /// Such as `127.0.0.1:8500`.
    pub(crate) address: String,
}

impl Registry {
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[]).await
    }

    pub(crate) async fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let [port] = free_ports().map(|port| port.to_string());
        let mut command = waypost(&["agent", "--http-port", &port, "--dns-port", "0"]);
        command.args(arguments).envs(variables.iter().copied());
        let mut agent = Program::start(command);
        agent.wait_for_output("/ui/").await;
        Self {
            agent,
            address: format!("127.0.0.1:{port}"),
        }
    }

    /// A command that uses this registry.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = waypost(arguments);
        command.env("CONSUL_HTTP_ADDR", &self.address);
        command
    }

    /// Runs a command that uses this registry.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Finished {
        Finished::of(self.command(arguments)).await
    }

    /// Registers an instance by a definition in Consul's format.
    pub(crate) async fn register(&self, definition: Value) {
        let url = format!("http://{}/v1/agent/service/register", self.address);
        let response = http().put(url).json(&definition).send().await.unwrap();
        let status = response.status();
        assert_eq!(status, 200, "{}", response.text().await.unwrap());
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        get_json(&format!("http://{}{path}", self.address)).await
    }

    /// The instances of a service, healthy or not.
    pub(crate) async fn instances(&self, service: &str) -> Vec<Value> {
        let path = format!("/v1/health/service/{service}");
        self.get(&path).await.as_array().unwrap().clone()
    }
}

/// The result of a command.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    pub(crate) async fn of(mut command: Command) -> Self {
        let output = command.output().await.unwrap();
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}
