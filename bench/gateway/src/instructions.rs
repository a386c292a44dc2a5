//! Counts the instructions of a request with callgrind: the difference between two runs with different
//! numbers of requests, so that starting the program doesn't count.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;

use crate::proxies::{self, Origin, Process};

const FEW: u64 = 500;
const MANY: u64 = 2500;
/// The programs that are counted.
pub(crate) const PROGRAMS: [&str; 3] = ["hyper", "waypost", "waypost without log"];
/// How far a count may be from the report's: 3 %.
const TOLERANCE: f64 = 0.03;

/// The programs whose counts differ from those in a report, with the reasons.
pub(crate) fn differences(
    report: &str,
    origin: &Origin,
    folder: &Path,
) -> Result<Vec<String>, String> {
    let mut differences = Vec::new();
    for name in PROGRAMS {
        let start = format!("| {name} | ");
        // Other tables of the report have such rows too, with more columns.
        let rows = report.lines().filter_map(|line| line.strip_prefix(&start));
        let said = rows
            .filter_map(|row| row.trim_end_matches(" |").parse::<f64>().ok())
            .next()
            .ok_or_else(|| format!("the report has no row \"{start}INSTRUCTIONS |\""))?;
        let count = per_request(name, origin, folder)? as f64;
        println!("{name}: {count} instructions, the report says {said}");
        if (count - said).abs() > said * TOLERANCE {
            differences.push(format!(
                "{name}: {count} instructions, the report says {said}"
            ));
        }
    }
    Ok(differences)
}

/// The instructions in user space that a proxy executes for one request over a kept connection.
pub(crate) fn per_request(name: &str, origin: &Origin, folder: &Path) -> Result<u64, String> {
    let few = count(name, origin, folder, FEW)?;
    let many = count(name, origin, folder, MANY)?;
    Ok(many.saturating_sub(few) / (MANY - FEW))
}

fn count(name: &str, origin: &Origin, folder: &Path, requests: u64) -> Result<u64, String> {
    let port = proxies::free_port()?;
    let proxy = proxies::program(name, port, &origin.port.to_string(), folder)?;
    let out = folder.join(format!("callgrind.{requests}"));
    let mut command = Command::new("valgrind");
    command
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(proxy.get_program())
        .args(proxy.get_args());
    let mut process = Process::start(&mut command)?;
    proxies::wait_for(port)?;
    let path = if name.starts_with("waypost") {
        "/origin/"
    } else {
        "/"
    };
    send(port, path, requests).map_err(|error| format!("{name}: {error}"))?;
    process.terminate();
    let written = fs::read_to_string(&out).map_err(|error| error.to_string())?;
    if let Ok(kept) = std::env::var("KEEP_PROFILE") {
        let _ = fs::copy(
            &out,
            format!("{kept}.{}.{requests}", name.replace(' ', "-")),
        );
    }
    written
        .lines()
        .find_map(|line| {
            line.strip_prefix("totals: ")
                .or(line.strip_prefix("summary: "))
        })
        .and_then(|total| total.trim().parse().ok())
        .ok_or_else(|| "callgrind wrote no total".to_owned())
}

/// Sends requests one after the other.
fn send(port: u16, path: &str, requests: u64) -> std::io::Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    let request = proxies::request(path, port);
    (0..requests).try_for_each(|_| proxies::exchange(&mut stream, &request))
}
