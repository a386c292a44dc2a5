//! Ports, and the processes that hold them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use waypost_runner::{TakenPort, Transport, check_port};

use super::finding::Finding;

/// A port that `waypost up` uses.
pub(super) struct Wanted {
    /// The name of the program that uses it.
    pub(super) user: String,
    pub(super) port: u16,
    /// How to choose another port.
    pub(super) option: String,
}

/// Reports whether each port is free, and otherwise which process uses it.
pub(super) fn examine(wanted: &[Wanted]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut free = Vec::new();
    let mut ours = Vec::new();
    for Wanted { user, port, option } in wanted {
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
        let local_v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, *port));
        // On a machine without IPv6, the IPv6 port fails with an error. It counts as free.
        let other = || taken(local_v6).filter(|taken| taken.error.is_none());
        let Some(taken) = taken(local).or_else(other) else {
            free.push(port.to_string());
            continue;
        };
        match (&taken.holder, &taken.error) {
            (Some(holder), _) if is_waypost(&holder.command) => {
                ours.push(format!("{user} on {port}"))
            }
            (_, Some(error)) => {
                let what = format!("port {port} of {user} can't be opened: {error}");
                let advice = format!("choose one from 1024 on with {option}");
                findings.push(Finding::warning("ports", what, advice));
            }
            (holder, None) => {
                let (holder, stop) = match holder {
                    Some(holder) => (
                        holder.to_string(),
                        format!("stop it (kill {}), or ", holder.pid),
                    ),
                    None => (
                        "a process that is not visible from here".to_owned(),
                        String::new(),
                    ),
                };
                let what = format!("port {port} of {user} is in use by {holder}");
                let advice = format!("{stop}choose another port with {option}");
                findings.push(Finding::warning("ports", what, advice));
            }
        }
    }
    if !ours.is_empty() {
        let what = format!("already running: {}", ours.join(", "));
        findings.push(Finding::ok("ports", what));
    }
    if !free.is_empty() {
        findings.push(Finding::ok("ports", format!("free: {}", free.join(", "))));
    }
    findings
}

/// Whether a command line is one of this program.
fn is_waypost(command: &str) -> bool {
    let program = command.split_whitespace().next().unwrap_or_default();
    Path::new(program)
        .file_name()
        .is_some_and(|name| name == "waypost")
}

/// The process that listens on an address of this machine.
pub(super) fn holder_of(address: SocketAddr) -> Option<String> {
    Some(taken(address)?.holder?.to_string())
}

fn taken(address: SocketAddr) -> Option<TakenPort> {
    check_port("", address, Transport::Tcp).err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named_with_its_process_and_the_way_to_choose_another() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = listener.local_addr().unwrap().port();
        let other = std::net::TcpListener::bind("[::1]:0").ok();
        let free = waypost_runner::free_port([127, 0, 0, 1].into()).unwrap();
        let wanted = |user: &str, port: u16| Wanted {
            user: user.to_owned(),
            port,
            option: format!("--port {user}=PORT"),
        };
        let texts = |wanted: &[Wanted]| -> Vec<String> {
            examine(wanted).iter().map(|it| format!("{it:?}")).collect()
        };
        let found = texts(&[wanted("web", taken), wanted("gateway", free)]);
        let pid = std::process::id();
        assert_eq!(found.len(), 2, "{found:#?}");
        for part in [
            "severity: Warning".to_owned(),
            format!("port {taken} of web is in use by pid {pid} ("),
            format!("stop it (kill {pid}), or choose another port with --port web=PORT"),
        ] {
            assert!(found[0].contains(&part), "no {part:?} in {}", found[0]);
        }
        assert!(found[1].contains(&format!("free: {free}")), "{}", found[1]);
        assert!(found[1].contains("severity: Ok"), "{}", found[1]);
        // Programs that connect to localhost may reach this one.
        if let Some(other) = other {
            let port = other.local_addr().unwrap().port();
            let found = texts(&[wanted("registry", port)]);
            assert!(found[0].contains("is in use by pid"), "{found:#?}");
        }
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, taken));
        assert!(
            holder_of(local)
                .unwrap()
                .starts_with(&format!("pid {pid} ("))
        );
        drop(listener);
        assert_eq!(holder_of(local), None);
    }

    #[test]
    fn a_process_of_waypost_is_recognised_by_its_program() {
        for (command, expected) in [
            ("waypost up", true),
            ("/usr/bin/waypost agent --http-port 8500", true),
            ("waypost", true),
            ("/opt/waypost/bin/other", false),
            ("python3 waypost", false),
            ("", false),
        ] {
            assert_eq!(is_waypost(command), expected, "{command}");
        }
    }
}
