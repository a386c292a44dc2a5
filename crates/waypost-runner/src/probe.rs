//! The readiness probe of a service, and the check that it becomes for one instance.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use regex::Regex;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::Instant;

use crate::template::Variables;

/// Decides when an instance counts as healthy.
///
/// A starting instance is checked every 20 ms for 2 s, then less and less often, up to every 0.5 s;
/// a healthy one every [`interval`](Probe::interval). A starting instance does not count as
/// unhealthy before its [`start_timeout`](crate::ServiceSpec::start_timeout).
///
/// ```
/// use std::time::Duration;
/// use waypost_runner::Probe;
///
/// let probe = Probe::http("/health").interval(Duration::from_secs(5)).failures(2);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Probe {
    kind: Kind,
    timing: Timing,
}

#[derive(Clone, Debug)]
enum Kind {
    Http(String),
    Tcp,
    Log(String),
    Exec(Vec<String>),
    Running(Duration),
    Completed,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) failures: u32,
}

impl Probe {
    /// A GET request is answered with a 2xx status. `target` is a path on the main port (`/health`)
    /// or a URL (`http://{host}:{port:admin}/health`), and may contain placeholders. Only `http` is
    /// supported.
    pub fn http(target: impl Into<String>) -> Self {
        Self::new(Kind::Http(target.into()))
    }

    /// The main port accepts connections.
    pub fn tcp() -> Self {
        Self::new(Kind::Tcp)
    }

    /// A line of the program's output matches this regular expression. The instance stays healthy from
    /// then on.
    pub fn log(pattern: impl Into<String>) -> Self {
        Self::new(Kind::Log(pattern.into()))
    }

    /// This command exits with code 0. It runs in the folder and with the variables of the program. The
    /// words may contain placeholders.
    pub fn exec(words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::new(Kind::Exec(words.into_iter().map(Into::into).collect()))
    }

    /// The program has been started. Nothing else is checked.
    pub fn running() -> Self {
        Self::running_for(Duration::ZERO)
    }

    /// The program has been running for this long. A program that can't start usually ends sooner.
    pub fn running_for(duration: Duration) -> Self {
        Self::new(Kind::Running(duration))
    }

    /// The program has exited with code 0. For a one-time task such as a migration, which is neither
    /// restarted after it has completed nor retried if it fails.
    pub fn completed() -> Self {
        Self::new(Kind::Completed)
    }

    /// The time between two checks of a healthy instance; default: 2 s.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.timing.interval = interval;
        self
    }

    /// How long a check may take; default: 1 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timing.timeout = timeout;
        self
    }

    /// How many consecutive failures make a healthy instance unhealthy; default: 3.
    /// One success makes it healthy again.
    pub fn failures(mut self, failures: u32) -> Self {
        self.timing.failures = failures;
        self
    }

    fn new(kind: Kind) -> Self {
        let timing = Timing {
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            failures: 3,
        };
        Self { kind, timing }
    }

    pub(crate) fn timing(&self) -> Timing {
        self.timing
    }

    /// Whether an instance is ready as soon as it was started.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.kind, Kind::Running(_))
    }

    /// Whether this is the probe of a one-time task.
    pub(crate) fn is_completed(&self) -> bool {
        matches!(self.kind, Kind::Completed)
    }

    /// The check for one instance.
    ///
    /// # Errors
    /// What is wrong with the probe.
    pub(crate) fn check(
        &self,
        variables: &Variables<'_>,
        env: &[(String, String)],
        dir: Option<&Path>,
    ) -> Result<Check, String> {
        let Timing {
            interval,
            timeout,
            failures,
        } = self.timing;
        if interval.is_zero() || timeout.is_zero() {
            return Err("interval and timeout must be longer than 0".to_owned());
        }
        if failures == 0 {
            return Err("failures must be at least 1".to_owned());
        }
        let variables = Variables {
            host: connectable(&variables.host),
            ..variables.clone()
        };
        match &self.kind {
            Kind::Http(target) if target.starts_with('/') => {
                http_check(&variables.expand(&format!("http://{{host}}:{{port}}{target}"))?)
            }
            Kind::Http(target) => http_check(&variables.expand(target)?),
            Kind::Tcp => {
                let port = variables.ports.main();
                Ok(Check::Tcp {
                    host: variables.host,
                    port: port.ok_or("a TCP probe is used, but the service has no main port")?,
                })
            }
            Kind::Log(pattern) => {
                let pattern = Regex::new(pattern)
                    .map_err(|error| format!("`{pattern}` is not a regular expression: {error}"))?;
                Ok(Check::Log(LogMatch(Arc::new((
                    pattern,
                    AtomicBool::new(false),
                )))))
            }
            Kind::Exec(words) => {
                let words = words.iter().map(|word| variables.expand(word));
                Ok(Check::Exec(ExecCheck {
                    words: words.collect::<Result<_, _>>()?,
                    env: env.to_vec(),
                    dir: dir.map(Path::to_owned),
                }))
            }
            Kind::Running(duration) => Ok(Check::Running(Instant::now() + *duration)),
            Kind::Completed => Ok(Check::Completed),
        }
    }
}

/// A probe with the address of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    Http {
        host: String,
        port: u16,
        uri: Uri,
    },
    Tcp {
        host: String,
        port: u16,
    },
    Log(LogMatch),
    Exec(ExecCheck),
    /// Ready from this time on.
    Running(Instant),
    Completed,
}

impl Check {
    /// The check that looks for a line of the output.
    pub(crate) fn log(&self) -> Option<LogMatch> {
        match self {
            Self::Log(log) => Some(log.clone()),
            _ => None,
        }
    }

    /// Checks once.
    ///
    /// # Errors
    /// Why the check failed.
    pub(crate) async fn run(&self) -> Result<(), String> {
        match self {
            Self::Running(since) if Instant::now() >= *since => Ok(()),
            Self::Running(_) => Err("it has just been started".to_owned()),
            // Completion is noticed when the program exits.
            Self::Completed => Err("not completed yet".to_owned()),
            Self::Tcp { host, port } => connect(host, *port).await.map(drop),
            Self::Log(log) => log.check(),
            Self::Exec(command) => command.run().await,
            Self::Http { host, port, uri } => get(host, *port, uri).await,
        }
    }
}

/// Looks for a line in the output of one run of a program. Clones refer to the same run.
#[derive(Clone, Debug)]
pub(crate) struct LogMatch(Arc<(Regex, AtomicBool)>);

impl LogMatch {
    /// Takes a line of the output.
    pub(crate) fn line(&self, text: &str) {
        let (pattern, is_found) = &*self.0;
        if !is_found.load(Ordering::Relaxed) && pattern.is_match(text) {
            is_found.store(true, Ordering::Relaxed);
        }
    }

    fn check(&self) -> Result<(), String> {
        let (pattern, is_found) = &*self.0;
        if is_found.load(Ordering::Relaxed) {
            Ok(())
        } else {
            Err(format!("no line of its output matches `{pattern}` yet"))
        }
    }
}

impl PartialEq for LogMatch {
    fn eq(&self, other: &Self) -> bool {
        self.0.0.as_str() == other.0.0.as_str()
    }
}

impl Eq for LogMatch {}

/// A command that checks a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExecCheck {
    words: Vec<String>,
    env: Vec<(String, String)>,
    dir: Option<PathBuf>,
}

impl ExecCheck {
    async fn run(&self) -> Result<(), String> {
        let Some((program, args)) = self.words.split_first() else {
            return Err("the command is empty".to_owned());
        };
        let mut command = Command::new(program);
        command
            .args(args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        let output = command.output().await;
        let output = output.map_err(|error| format!("cannot run `{program}`: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        let text = [output.stderr, output.stdout].concat();
        let text = String::from_utf8_lossy(&text);
        let last = text
            .lines()
            .rev()
            .map(str::trim)
            .find(|line| !line.is_empty());
        Err(match last {
            Some(line) => format!("`{program}` failed ({}): {line}", output.status),
            None => format!("`{program}` failed ({})", output.status),
        })
    }
}

/// A program that listens on every address is checked on the loopback address.
fn connectable(host: &str) -> String {
    match host.parse() {
        Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => Ipv4Addr::LOCALHOST.to_string(),
        Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => Ipv6Addr::LOCALHOST.to_string(),
        _ => host.to_owned(),
    }
}

fn http_check(target: &str) -> Result<Check, String> {
    let uri: Uri = target
        .parse()
        .map_err(|error| format!("`{target}` is not a valid URL: {error}"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http"), Some(host)) if !host.is_empty() => Ok(Check::Http {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(80),
            uri,
        }),
        _ => Err(format!(
            "`{target}` must be a path such as `/health` or begin with `http://`"
        )),
    }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let connected = TcpStream::connect((host, port)).await;
    connected.map_err(|error| format!("cannot connect to {host}:{port}: {error}"))
}

async fn get(host: &str, port: u16, uri: &Uri) -> Result<(), String> {
    /// How many characters of a response are quoted in the error.
    const QUOTED: usize = 200;
    /// How many bytes of a response are read.
    const BODY_LIMIT: usize = 64 * 1024;

    let stream = connect(host, port).await?;
    let failed = |error: hyper::Error| format!("GET {uri} failed: {error}");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::USER_AGENT, "waypost-runner")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("GET {uri} failed: {error}"))?;

    let exchange = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let body = Limited::new(response.into_body(), BODY_LIMIT);
        let body = body.collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let body = String::from_utf8_lossy(&body);
        let quoted: String = body.trim().chars().take(QUOTED).collect();
        let separator = if quoted.is_empty() { "" } else { ": " };
        Err(format!("GET {uri} returned {status}{separator}{quoted}"))
    };
    // Polling the connection does the I/O of the exchange.
    tokio::pin!(exchange);
    tokio::select! {
        result = &mut exchange => result,
        _ = connection => exchange.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::Transport;
    use crate::ports::{PortSpec, Ports};

    fn check(probe: Probe, host: &str) -> Result<Check, String> {
        let ports = &Ports::new(
            &[PortSpec {
                name: None,
                number: 8002,
                transport: Transport::Tcp,
            }],
            1,
        );
        let variables = Variables {
            service: "a",
            instance: "a",
            replica: 1,
            host: host.to_owned(),
            ports,
        };
        probe.check(&variables, &[], None)
    }

    #[test]
    fn only_a_line_that_matches_makes_an_instance_ready() {
        let Ok(Check::Log(found)) = check(Probe::log("^listening on "), "localhost") else {
            panic!("not a check of the output");
        };
        found.line("not listening on 80");
        let missing = "no line of its output matches `^listening on ` yet";
        assert_eq!(found.check(), Err(missing.to_owned()));
        found.line("listening on 80");
        assert_eq!(found.check(), Ok(()));
        found.line("a client connected");
        assert_eq!(found.check(), Ok(()));
    }

    #[tokio::test]
    async fn a_command_succeeds_by_its_exit_code_and_fails_with_its_last_line() {
        for (script, expected) in [
            ("exit 0", Ok(())),
            ("exit 3", Err("`sh` failed (exit status: 3)")),
            (
                "echo out; echo; exit 1",
                Err("`sh` failed (exit status: 1): out"),
            ),
            // What it says at the end of its output counts.
            (
                "echo ' err ' >&2; echo out; exit 1",
                Err("`sh` failed (exit status: 1): out"),
            ),
            (
                "echo \"$A $PWD\"; exit 1",
                Err("`sh` failed (exit status: 1): 1 /"),
            ),
        ] {
            let command = ExecCheck {
                words: ["sh", "-c", script].map(str::to_owned).to_vec(),
                env: vec![("A".to_owned(), "1".to_owned())],
                dir: Some(PathBuf::from("/")),
            };
            let result = Check::Exec(command).run().await;
            assert_eq!(result, expected.map_err(str::to_owned), "{script}");
        }
        let missing = |words: &[&str]| ExecCheck {
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            env: Vec::new(),
            dir: None,
        };
        let error = missing(&["no-such-program"]).run().await.unwrap_err();
        assert!(
            error.starts_with("cannot run `no-such-program`: "),
            "{error}"
        );
        assert_eq!(
            missing(&[]).run().await.unwrap_err(),
            "the command is empty"
        );
    }

    #[tokio::test]
    async fn an_http_check_fails_with_the_status_and_the_beginning_of_the_response() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let long = "x".repeat(300);
        for (status, body, expected) in [
            ("200 OK", "", None),
            ("204 No Content", "", None),
            (
                "301 Moved Permanently",
                "",
                Some("301 Moved Permanently".to_owned()),
            ),
            (
                "503 Service Unavailable",
                " no database\n",
                Some("503 Service Unavailable: no database".to_owned()),
            ),
            (
                "500 Internal Server Error",
                &long,
                Some(format!("500 Internal Server Error: {}", &long[..200])),
            ),
        ] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let target = format!("http://{address}/health?deep=1");
            let check = http_check(&target).unwrap();
            let respond = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let count = stream.read(&mut request).await.unwrap();
                let length = body.len();
                let response =
                    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
                stream.write_all(response.as_bytes()).await.unwrap();
                String::from_utf8_lossy(&request[..count]).into_owned()
            };
            let (result, request) = tokio::join!(check.run(), respond);
            assert!(
                request.starts_with("GET /health?deep=1 HTTP/1.1\r\n"),
                "{request}"
            );
            assert!(
                request.contains(&format!("host: {address}\r\n")),
                "{request}"
            );
            let expected = expected.map(|text| format!("GET {target} returned {text}"));
            assert_eq!(result.err(), expected);
            drop(listener);
            let refused = check.run().await.unwrap_err();
            let expected = format!("cannot connect to {address}: ");
            assert!(refused.starts_with(&expected), "{refused}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_program_counts_as_running_after_the_given_time() {
        let Ok(check) = check(Probe::running_for(Duration::from_millis(500)), "localhost") else {
            panic!("it is valid");
        };
        assert_eq!(
            check.run().await,
            Err("it has just been started".to_owned())
        );
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(check.run().await, Ok(()));
        let completed = Check::Completed.run().await;
        assert_eq!(completed, Err("not completed yet".to_owned()));
    }

    #[test]
    fn a_path_is_requested_from_the_main_port() {
        let http = |host: &str, uri: &'static str| Check::Http {
            host: host.to_owned(),
            port: 8002,
            uri: Uri::from_static(uri),
        };
        let path = || Probe::http("/health?deep=1");
        assert_eq!(
            check(path(), "127.0.0.1"),
            Ok(http("127.0.0.1", "http://127.0.0.1:8002/health?deep=1"))
        );
        assert_eq!(
            check(path(), "0.0.0.0"),
            Ok(http("127.0.0.1", "http://127.0.0.1:8002/health?deep=1"))
        );
        assert_eq!(
            check(path(), "::"),
            Ok(http("::1", "http://[::1]:8002/health?deep=1"))
        );
    }

    #[test]
    fn an_invalid_probe_is_rejected_with_the_valid_forms() {
        for target in [
            "health",
            "https://{host}:{port}/",
            "ftp://x/",
            "http:///x",
            "",
        ] {
            let error = check(Probe::http(target), "127.0.0.1").unwrap_err();
            assert!(
                error.contains("`/health`") || error.contains("is not a valid URL"),
                "{target}: {error}"
            );
        }
        let error = check(Probe::log("("), "127.0.0.1").unwrap_err();
        assert!(
            error.starts_with("`(` is not a regular expression: "),
            "{error}"
        );
        let error = check(Probe::tcp().failures(0), "127.0.0.1").unwrap_err();
        assert_eq!(error, "failures must be at least 1");
        let error = check(Probe::tcp().interval(Duration::ZERO), "127.0.0.1").unwrap_err();
        assert_eq!(error, "interval and timeout must be longer than 0");
    }
}
