//! The origin and the proxies in front of it.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The time limit for a program to listen. Under valgrind it takes long.
const START: Duration = Duration::from_secs(60);

/// All proxies that can be started, with one thread each.
pub(crate) const NAMES: [&str; 5] = [
    "nginx",
    "haproxy",
    "hyper",
    "waypost",
    "waypost without log",
];
/// The gateway with two threads.
pub(crate) const TWO_WORKERS: &str = "waypost with two workers";

/// The body of each response of the origin.
pub(crate) const BODY: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

/// An nginx that answers each request with 64 bytes.
pub(crate) struct Origin {
    pub(crate) port: u16,
    _process: Process,
}

impl Origin {
    pub(crate) fn start(folder: &Path) -> Result<Self, String> {
        let port = free_port()?;
        let server = format!(
            "server {{ listen 127.0.0.1:{port} reuseport backlog=1024; location / {{ return 200 '{BODY}'; }} }}"
        );
        let process = nginx("origin", &server, folder)?;
        wait_for(port)?;
        Ok(Self {
            port,
            _process: process,
        })
    }
}

/// A proxy in front of the origin.
pub(crate) struct Proxy {
    name: String,
    port: u16,
    path: &'static str,
    process: Process,
}

impl Proxy {
    pub(crate) fn start(name: &str, origin: u16, folder: &Path) -> Result<Self, String> {
        Self::start_with(name, origin, None, folder)
    }

    /// Its clients use TLS if there is a certificate.
    pub(crate) fn start_with(
        name: &str,
        origin: u16,
        tls: Option<&Certificate>,
        folder: &Path,
    ) -> Result<Self, String> {
        let port = free_port()?;
        let process = match name {
            "nginx" => nginx("proxy", &nginx_server(port, origin, tls), folder)?,
            "haproxy" => haproxy(port, origin, tls, folder)?,
            _ => {
                let mut command = program(name, port, &origin.to_string(), folder)?;
                command.args(tls.iter().flat_map(|tls| [&tls.certificate, &tls.key]));
                Process::start(&mut command)?
            }
        };
        wait_for(port)?;
        let path = if name.starts_with("waypost") {
            "/origin/"
        } else {
            "/"
        };
        Ok(Self {
            name: name.to_owned(),
            port,
            path,
            process,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The ids of the threads whose names begin with `prefix`.
    pub(crate) fn threads(&self, prefix: &str) -> Result<Vec<u32>, String> {
        let folder = format!("/proc/{}/task", self.process.0.id());
        let entries = fs::read_dir(&folder).map_err(|error| format!("{folder}: {error}"))?;
        let named = entries.flatten().filter(|entry| {
            let name = fs::read_to_string(entry.path().join("comm"));
            name.is_ok_and(|name| name.starts_with(prefix))
        });
        let ids = named.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Ok(ids.collect())
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}{}", self.port, self.path)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The path of the origin's root.
    pub(crate) fn path(&self) -> &'static str {
        self.path
    }

    /// The memory that its processes use, in kilobytes. Pages that they share count in part for each.
    pub(crate) fn memory(&self) -> Result<u64, String> {
        let sizes = self.process.family()?.into_iter().map(|pid| {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
            let rollup = rollup.unwrap_or_default();
            let size = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
            size.and_then(|size| size.trim().trim_end_matches(" kB").parse::<u64>().ok())
        });
        sizes
            .sum::<Option<u64>>()
            .ok_or_else(|| "no size of a process".to_owned())
    }

    /// The user and system time that the proxy has used.
    pub(crate) fn cpu_micros(&self) -> Result<f64, String> {
        let ticks: u64 = self.process.family()?.into_iter().map(ticks).sum();
        Ok(ticks as f64 * 1e6 / rustix::param::clock_ticks_per_second() as f64)
    }
}

/// Another program of this package. `cargo run` builds only the one that it runs.
pub(crate) fn sibling(name: &str) -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let path = own.with_file_name(name);
    if path.exists() {
        return Ok(path);
    }
    Err(format!(
        "{} is missing; build all programs first: \
         cargo build --profile dist --manifest-path bench/Cargo.toml -p gateway --bins",
        path.display()
    ))
}

/// The command of one of this package's programs.
pub(crate) fn program(
    name: &str,
    port: u16,
    origin: &str,
    folder: &Path,
) -> Result<Command, String> {
    let log = folder.join("access.log");
    let (binary, log) = match name {
        "hyper" => ("bare", None),
        "waypost" | TWO_WORKERS => ("ours", log.to_str()),
        "waypost without log" => ("ours", Some("off")),
        _ => return Err(format!("{name:?} is none of {NAMES:?}")),
    };
    let mut command = Command::new(sibling(binary)?);
    command.args([&port.to_string(), origin]);
    if let Some(log) = log {
        let workers = if name == TWO_WORKERS { "2" } else { "1" };
        command.args([workers, log]);
    }
    Ok(command)
}

/// A certificate for `localhost`, and its key, in PEM files.
pub(crate) struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
    /// Both, for haproxy.
    both: PathBuf,
}

impl Certificate {
    /// Writes the files to a folder.
    pub(crate) fn new(certificate: &str, key: &str, folder: &Path) -> io::Result<Self> {
        let files = Self {
            certificate: folder.join("certificate.pem"),
            key: folder.join("key.pem"),
            both: folder.join("both.pem"),
        };
        fs::write(&files.certificate, certificate)?;
        fs::write(&files.key, key)?;
        fs::write(&files.both, [certificate, key].concat())?;
        Ok(files)
    }
}

fn nginx_server(port: u16, origin: u16, tls: Option<&Certificate>) -> String {
    let (ssl, certificate) = match tls {
        None => ("", String::new()),
        Some(tls) => {
            let (certificate, key) = (tls.certificate.display(), tls.key.display());
            let lines = format!("ssl_certificate {certificate}; ssl_certificate_key {key};");
            (" ssl", lines)
        }
    };
    format!(
        "upstream origin {{ server 127.0.0.1:{origin}; keepalive 64; keepalive_requests 1000000; }}
         server {{ listen 127.0.0.1:{port}{ssl}; {certificate} access_log off; keepalive_requests 1000000;
         client_max_body_size 0; proxy_request_buffering off; proxy_max_temp_file_size 0;
         location / {{ proxy_pass http://origin; proxy_http_version 1.1;
         proxy_set_header Connection ''; proxy_set_header Host $host;
         proxy_set_header X-Forwarded-For $remote_addr; }} }}"
    )
}

fn nginx(name: &str, server: &str, folder: &Path) -> Result<Process, String> {
    let file = folder.join(format!("{name}.conf"));
    let prefix = folder.display();
    let config = format!(
        "worker_processes 1; worker_rlimit_nofile 20000; daemon off; pid {prefix}/{name}.pid; error_log {prefix}/{name}.log;
         events {{ worker_connections 8192; }}
         http {{ access_log off; client_body_temp_path {prefix}; proxy_temp_path {prefix};
         fastcgi_temp_path {prefix}; uwsgi_temp_path {prefix}; scgi_temp_path {prefix};
         keepalive_requests 1000000; {server} }}"
    );
    fs::write(&file, config).map_err(|error| error.to_string())?;
    Process::start(Command::new("nginx").arg("-c").arg(&file))
}

fn haproxy(
    port: u16,
    origin: u16,
    tls: Option<&Certificate>,
    folder: &Path,
) -> Result<Process, String> {
    let file: PathBuf = folder.join("haproxy.cfg");
    let ssl = tls.map_or(String::new(), |tls| {
        format!(" ssl crt {}", tls.both.display())
    });
    let config = format!(
        "global\n nbthread 1\n maxconn 8192\n\
         defaults\n mode http\n timeout client 60s\n timeout server 60s\n timeout connect 5s\n \
         option forwardfor\n http-reuse always\n\
         frontend f\n bind 127.0.0.1:{port}{ssl}\n default_backend b\n\
         backend b\n server s 127.0.0.1:{origin}\n"
    );
    fs::write(&file, config).map_err(|error| error.to_string())?;
    Process::start(Command::new("haproxy").arg("-f").arg(&file))
}

/// A program. It is stopped on drop.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn start(command: &mut Command) -> Result<Self, String> {
        let program = command.get_program().to_string_lossy().into_owned();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(Self)
            .map_err(|error| format!("{program}: {error}"))
    }

    /// Its id and those of its children, such as nginx' workers.
    fn family(&self) -> Result<Vec<u32>, String> {
        let parent = self.0.id();
        let children = format!("/proc/{parent}/task/{parent}/children");
        let children = fs::read_to_string(children).map_err(|error| error.to_string())?;
        let children = children.split_whitespace().filter_map(|id| id.parse().ok());
        Ok(std::iter::once(parent).chain(children).collect())
    }

    /// Stops it at once.
    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Stops it gracefully, so that it can write its measurements.
    pub(crate) fn terminate(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.0.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.terminate();
    }
}

/// The clock ticks that a process has used; 0 if it has ended.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may contain spaces. User and system time are the fields 14 and 15.
    let (_, fields) = stat.rsplit_once(')').unwrap_or_default();
    let times = fields.split_whitespace().skip(11).take(2);
    times.filter_map(|time| time.parse::<u64>().ok()).sum()
}

pub(crate) fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = listener.and_then(|listener| listener.local_addr());
    address
        .map(|address| address.port())
        .map_err(|error| error.to_string())
}

pub(crate) fn wait_for(port: u16) -> Result<(), String> {
    let began = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        if began.elapsed() > START {
            return Err(format!("nothing listens on port {port}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A request with the headers that wrk sends.
pub(crate) fn request(path: &str, port: u16) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n")
}

/// Sends a request and reads the response of the origin.
pub(crate) fn exchange(stream: &mut (impl Read + Write), request: &str) -> io::Result<()> {
    stream.write_all(request.as_bytes())?;
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    while !received.ends_with(BODY.as_bytes()) {
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => received.extend_from_slice(buffer.get(..count).unwrap_or_default()),
        }
    }
    Ok(())
}
