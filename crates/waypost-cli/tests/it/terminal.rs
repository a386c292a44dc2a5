//! `waypost up` on a terminal.

use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use waypost_testkit::free_ports;

use crate::support::*;

/// A program on a terminal of 80 columns and 24 rows.
struct OnTerminal {
    child: Child,
    keyboard: File,
    printed: watch::Receiver<String>,
}

impl OnTerminal {
    fn start(mut command: Command) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let name = ptsname(&controller, Vec::new()).unwrap();
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&controller, size).unwrap();
        let open = || {
            let path = Path::new(name.to_str().unwrap());
            let terminal = File::options().read(true).write(true).open(path).unwrap();
            Stdio::from(OwnedFd::from(terminal))
        };
        // `setsid --ctty` makes it the terminal of the program, in the foreground.
        command.stdin(open()).stdout(open()).stderr(open());
        let child = command.spawn().unwrap();
        drop(command);
        let keyboard = File::from(controller);
        let mut screen = keyboard.try_clone().unwrap();
        let (sender, printed) = watch::channel(String::new());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            let mut read = Vec::new();
            // Linux reports EIO when the last process has closed the terminal.
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                read.extend_from_slice(&buffer[..count]);
                // A character may arrive in two parts.
                sender.send_replace(String::from_utf8_lossy(&read).into_owned());
            }
        });
        Self {
            child,
            keyboard,
            printed,
        }
    }

    async fn until(&mut self, text: &str) -> String {
        let found = self.printed.wait_for(|printed| printed.contains(text));
        let found = tokio::time::timeout(TIMEOUT, found).await;
        let found = found.map(|found| found.map(|printed| printed.clone()));
        match found {
            Ok(Ok(printed)) => printed,
            _ => panic!("no {text:?} in {:?}", *self.printed.borrow()),
        }
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }
}

/// `waypost up` of two services in this folder.
fn up(dir: &Path) -> Command {
    let [registry, gateway, dashboard, page] = free_ports();
    let text = format!(
        "name = \"shop\"\n[waypost]\nregistry-port = {registry}\ngateway = {gateway}\n\
         dashboard = {dashboard}\n\
         [services.worker]\nrun = \"sh -c 'echo INFO begun; echo ERROR no mail; sleep 600'\"\n\
         [services.payments]\nrun = \"sh -c 'echo Error: no key >&2; exit 3'\"\n\
         port = {page}\nopen = true\n"
    );
    std::fs::write(dir.join("waypost.toml"), text).unwrap();
    let browser = dir.join("browser");
    std::fs::write(&browser, "#!/bin/sh\necho \"$1\" >> opened\n").unwrap();
    std::fs::set_permissions(&browser, Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("setsid");
    command
        .args(["--wait", "--ctty", env!("CARGO_BIN_EXE_waypost"), "up"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("XDG_RUNTIME_DIR", dir.join("run"))
        .env("TERM", "xterm")
        .env("BROWSER", browser)
        .current_dir(dir)
        .kill_on_drop(true);
    command
}

#[tokio::test]
async fn a_terminal_shows_a_table_then_the_output_above_a_footer_and_handles_keys() {
    let dir = tempfile::tempdir().unwrap();
    let mut terminal = OnTerminal::start(up(dir.path()));
    terminal.until("q or Ctrl-C stops all").await;
    for text in [
        "shop · ",
        "\x1b[32m✓\x1b[0m worker",
        "\x1b[31m✗\x1b[0m payments",
        "exited with code 3 after",
        "Error: no key",
        "waypost logs payments",
        "Dashboard  http://localhost:",
        "INFO begun",
        "3 of 4 ready",
    ] {
        terminal.until(text).await;
    }
    eventually("the page of the service is opened", async || {
        let opened = std::fs::read_to_string(dir.path().join("opened")).ok()?;
        opened.starts_with("http://localhost:").then_some(())
    })
    .await;
    terminal.press("lll");
    let printed = terminal.until("── level error ──").await;
    let shown = printed
        .rsplit("── level error ──")
        .next()
        .unwrap()
        .to_owned();
    assert!(!shown.contains("INFO begun"), "{shown}");
    terminal.press("03");
    terminal.until("── worker ──").await;
    terminal.press("0/begun\r");
    let printed = terminal.until("── \"begun\" ──").await;
    let of_worker = printed.rsplit("── worker ──").next().unwrap();
    let of_worker = of_worker.split("── everything ──").next().unwrap();
    assert!(of_worker.contains("ERROR no mail"), "{of_worker}");
    assert!(!of_worker.contains("no key"), "{of_worker}");
    terminal.press("c");
    terminal.until("\x1b[2J").await;
    terminal.press("q");
    terminal.until("stopping in reverse order").await;
    let status = tokio::time::timeout(TIMEOUT, terminal.child.wait()).await;
    assert_eq!(status.unwrap().unwrap().code(), Some(0));
}

#[tokio::test]
async fn no_color_disables_colours_and_a_dumb_terminal_gets_plain_lines() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = up(dir.path());
    command.env("NO_COLOR", "1");
    let mut terminal = OnTerminal::start(command);
    let printed = terminal.until("q or Ctrl-C stops all").await;
    let is_colour = |sequence: &&str| {
        let end = sequence.find(|c: char| c.is_ascii_alphabetic());
        end.is_some_and(|end| sequence[end..].starts_with('m'))
    };
    let coloured: Vec<_> = printed.split("\x1b[").skip(1).filter(is_colour).collect();
    assert!(coloured.is_empty(), "{coloured:?}");
    terminal.press("q");
    terminal.child.wait().await.unwrap();

    let dir = tempfile::tempdir().unwrap();
    let mut command = up(dir.path());
    command.env("TERM", "dumb");
    let mut terminal = OnTerminal::start(command);
    terminal.until("Ctrl-C stops all").await;
    let printed = terminal.until("worker   | INFO begun").await;
    assert!(!printed.contains('\x1b'), "{printed}");
    // As when the window is closed.
    let pid = terminal.child.id().unwrap().try_into().unwrap();
    let all = descendants(pid);
    drop(terminal);
    eventually("everything has ended", async || {
        all.iter().all(|pid| !is_running(*pid)).then_some(())
    })
    .await;
}
