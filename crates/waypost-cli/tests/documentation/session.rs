//! A shell for the blocks of one page, in a fresh folder and with ports of its own.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// How long a step may take. Steps wait for nothing but programs that start.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// How the shell is kept apart from the rest of the machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Isolation {
    /// Namespaces for network and processes, as root.
    Namespaces,
    /// The same in a namespace of users, without being root.
    UserNamespaces,
    /// None is permitted: the ports are those of the machine, so that pages run one after the other.
    None,
}

impl Isolation {
    pub(crate) async fn strongest() -> Self {
        for isolation in [Self::Namespaces, Self::UserNamespaces] {
            let mut command = isolation.command("true");
            command.stdout(Stdio::null()).stderr(Stdio::null());
            if command.status().await.is_ok_and(|status| status.success()) {
                return isolation;
            }
        }
        Self::None
    }

    /// A command in these namespaces. Its end also ends all programs that it has started.
    fn command(self, program: &str) -> Command {
        const NAMESPACES: [&str; 5] = ["--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
        let mut command = Command::new("unshare");
        match self {
            Self::Namespaces => {
                command.args(NAMESPACES).arg(program);
            }
            Self::UserNamespaces => {
                command.args(["--user", "--map-root-user"]);
                command.args(NAMESPACES).arg(program);
            }
            Self::None => command = Command::new(program),
        }
        command
    }
}

/// A running shell.
#[derive(Debug)]
pub(crate) struct Session {
    shell: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    folder: TempDir,
}

/// What a step has done.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) output: String,
    pub(crate) is_success: bool,
}

impl Session {
    pub(crate) async fn start(isolation: Isolation) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["bin", "home", "page"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let link = |target: &Path, name: &str| {
            std::os::unix::fs::symlink(target, folder.path().join("bin").join(name)).unwrap();
        };
        link(Path::new(env!("CARGO_BIN_EXE_waypost")), "waypost");
        if let Some(consul) = std::env::var_os("CONSUL_BIN") {
            link(Path::new(&consul), "consul");
        }
        // A terminal shows a meter instead of mixing it with the response.
        std::fs::write(folder.path().join("home/.curlrc"), "silent\nshow-error\n").unwrap();
        let cargo = folder.path().join("bin/cargo");
        std::fs::write(&cargo, CARGO).unwrap();
        std::fs::set_permissions(cargo, Permissions::from_mode(0o755)).unwrap();

        let mut command = isolation.command("bash");
        command
            .args(["--noprofile", "--norc"])
            .current_dir(folder.path().join("page"))
            .env_clear()
            .env("HOME", folder.path().join("home"))
            .env("XDG_RUNTIME_DIR", folder.path().join("home"))
            .env("LANG", "C.UTF-8")
            .env("REPOSITORY", repository())
            .env("STEP", folder.path().join("step"))
            .env("PATH", path(folder.path()))
            .env(
                "EXAMPLES",
                Path::new(env!("CARGO_BIN_EXE_waypost")).with_file_name("examples"),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true);
        // The compiler's own folders, for blocks that call it.
        let home = std::env::home_dir().unwrap_or_default();
        for (name, default) in [("RUSTUP_HOME", ".rustup"), ("CARGO_HOME", ".cargo")] {
            let set = std::env::var_os(name).map(PathBuf::from);
            command.env(name, set.unwrap_or_else(|| home.join(default)));
        }
        let mut shell = command.spawn().unwrap();
        let input = shell.stdin.take().unwrap();
        let output = BufReader::new(shell.stdout.take().unwrap()).lines();
        let mut session = Self {
            shell,
            input,
            output,
            folder,
        };
        if isolation != Isolation::None {
            let outcome = session.run(LOOPBACK).await;
            assert!(outcome.is_success, "no loopback: {}", outcome.output);
        }
        session
    }

    /// The folder that the page's commands start in.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().join("page")
    }

    /// Runs commands. The first that fails ends the step; variables, the folder and programs in the background stay.
    pub(crate) async fn run(&mut self, commands: &str) -> Outcome {
        let step = self.folder.path().join("step");
        std::fs::write(&step, commands).unwrap();
        let log = step.with_extension("log");
        // In a subshell `-e` would be lost with its variables; as part of a condition it is ignored. So the shell
        // itself sources the step, and a trap reports what has failed.
        let run = "trap 'echo @@ 1' EXIT\nset -e\n. $STEP >$STEP.log 2>&1 </dev/null\nset +e\n\
                   trap - EXIT\necho @@ 0\n";
        self.send(run, &log).await
    }

    /// Runs one command, which may fail.
    pub(crate) async fn try_run(&mut self, command: &str) -> Outcome {
        let step = self.folder.path().join("step");
        std::fs::write(&step, command).unwrap();
        let log = step.with_extension("log");
        let run = ". $STEP >$STEP.log 2>&1 </dev/null && echo @@ 0 || echo @@ 1\n";
        self.send(run, &log).await
    }

    async fn send(&mut self, script: &str, log: &Path) -> Outcome {
        let mut status = None;
        if self.input.write_all(script.as_bytes()).await.is_ok() {
            let line = timeout(TIME_LIMIT, self.output.next_line()).await;
            status = line.ok().and_then(|line| line.ok().flatten());
        }
        let output = std::fs::read(log).unwrap_or_default();
        let mut output = String::from_utf8_lossy(&output).into_owned();
        if status.is_none() {
            output.push_str("\n(not ended in time)");
        }
        Outcome {
            output,
            is_success: status.as_deref() == Some("@@ 0"),
        }
    }

    /// Ends the shell and, without namespaces, what it has started.
    pub(crate) async fn end(mut self, isolation: Isolation) {
        if isolation == Isolation::None {
            let command = "waypost down; kill $(jobs -p); wait";
            self.try_run(command).await;
        }
        drop(self.input);
        let _ = timeout(TIME_LIMIT, self.shell.wait()).await;
    }
}

/// `cargo run` and `cargo build` with what `cargo test` has built already, instead of building it again in the folder.
const CARGO: &str = r#"#!/bin/sh
name=
case "$1" in
    build) exit 0 ;;
    run) shift ;;
    *) echo "cargo $*: not run by this test" >&2; exit 1 ;;
esac
while [ $# -gt 0 ]; do
    case "$1" in
        --example) name=$2; shift 2 ;;
        --features) shift 2 ;;
        --release) shift ;;
        --) shift; break ;;
        *) echo "cargo run $1: not known to this test" >&2; exit 1 ;;
    esac
done
if [ -z "$name" ]; then exec waypost "$@"; fi
if ! [ -x "$EXAMPLES/$name" ]; then
    echo "$EXAMPLES/$name is missing: cargo build -p waypost --all-features --examples" >&2
    exit 1
fi
exec "$EXAMPLES/$name" "$@"
"#;

/// Gives the new network its loopback interface.
const LOOPBACK: &str = "ip link set lo up 2>/dev/null || python3 - <<'END'
import fcntl, socket, struct
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    SIOCSIFFLAGS, IFF_UP = 0x8914, 1
    fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack('16sh14x', b'lo', IFF_UP))
END
";

fn path(folder: &Path) -> std::ffi::OsString {
    let own = [folder.join("bin")];
    let others = std::env::var_os("PATH").unwrap_or_default();
    let all = own.into_iter().chain(std::env::split_paths(&others));
    std::env::join_paths(all).unwrap()
}

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}
