use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Nothing that a test waits for takes longer, even on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// The command, in an environment that says nothing about discovery.
pub(crate) fn waypost(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waypost"));
    command
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

/// A program that runs beside the test, with what it has printed so far.
pub(crate) struct Program {
    child: Child,
    printed: watch::Receiver<String>,
    readers: JoinSet<()>,
}

impl Program {
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (printed, output) = watch::channel(String::new());
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let other = printed.clone();
        let mut readers = JoinSet::new();
        readers.spawn(collect(stdout, printed));
        readers.spawn(collect(stderr, other));
        Self {
            child,
            printed: output,
            readers,
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().unwrap().try_into().unwrap()
    }

    /// Waits until it has printed a text.
    pub(crate) async fn says(&mut self, text: &str) {
        let mut printed = self.printed.clone();
        let said = timeout(SOON, printed.wait_for(|output| output.contains(text)));
        let said = said.await.is_ok_and(|said| said.is_ok());
        assert!(said, "it didn't say {text:?}, but:\n{}", self.output());
    }

    pub(crate) fn output(&self) -> String {
        self.printed.borrow().clone()
    }

    pub(crate) fn interrupt(&self) {
        signal(self.pid(), Signal::INT);
    }

    /// Waits for its end and its last words, and gives its exit code.
    pub(crate) async fn ends(&mut self) -> Option<i32> {
        let status = timeout(SOON, self.child.wait()).await;
        let heard_all = async { while self.readers.join_next().await.is_some() {} };
        timeout(SOON, heard_all)
            .await
            .expect("its output ends with it");
        status.expect("it ends in time").unwrap().code()
    }
}

async fn collect(
    reader: BufReader<impl tokio::io::AsyncRead + Unpin>,
    printed: watch::Sender<String>,
) {
    let mut lines = reader.lines();
    while let Ok(Some(line)) = lines.next_line().await {
        printed.send_modify(|output| {
            output.push_str(&line);
            output.push('\n');
        });
    }
}

pub(crate) fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Whether a process is there and no zombie.
pub(crate) fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    test_kill_process(Pid::from_raw(pid).unwrap()).is_ok()
        && !matches!(state, Some('Z' | 'X') | None)
}

/// All processes below this one.
pub(crate) fn descendants(pid: i32) -> Vec<i32> {
    let mut found = Vec::new();
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        for task in std::fs::read_dir(format!("/proc/{parent}/task"))
            .into_iter()
            .flatten()
            // One that ends while it is looked at.
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

/// The one process below `pid` whose command line has these words.
pub(crate) fn descendant(pid: i32, words: &str) -> i32 {
    let of = |pid: &i32| read(Path::new(&format!("/proc/{pid}/cmdline"))).replace('\0', " ");
    let all = descendants(pid);
    let found: Vec<_> = all
        .iter()
        .filter(|pid| of(pid).contains(words) && !of(pid).contains("__stack"))
        .collect();
    assert_eq!(
        found.len(),
        1,
        "{words}: {:?}",
        all.iter().map(of).collect::<Vec<_>>()
    );
    *found[0]
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Waits until something holds.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    match timeout(SOON, looking).await {
        Ok(found) => found,
        Err(_) => panic!("not within {SOON:?}: {what}"),
    }
}

/// An HTTP client for tests.
pub(crate) fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .timeout(SOON)
        .build()
        .unwrap()
}

/// The status and the body of an address, followed through redirects.
pub(crate) async fn get(url: &str) -> (u16, String) {
    let reply = http().get(url).send().await.unwrap();
    (reply.status().as_u16(), reply.text().await.unwrap())
}

pub(crate) async fn get_json(url: &str) -> Value {
    let (status, body) = get(url).await;
    assert_eq!(status, 200, "{url}: {body}");
    serde_json::from_str(&body).unwrap()
}
