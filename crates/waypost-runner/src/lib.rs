//! Local process runner: starts a set of services on one machine, checks their health, restarts the
//! ones that crash and stops them in reverse order.
//!
//! Each service is described by a [`ServiceSpec`]. [`StackBuilder::build`] validates the descriptions
//! together, and [`Supervisor::start`] starts them. The [`Supervisor`] reports the status of every
//! instance, restarts, scales and stops them.
//!
//! ```no_run
//! use waypost_runner::{Console, Probe, ServiceSpec, Stack, Supervisor, shim};
//!
//! # #[allow(clippy::needless_doctest_main)]
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // Must come first: this executable also runs as the shim of each program.
//!     shim::run_if_requested();
//!     up()
//! }
//!
//! #[tokio::main]
//! async fn up() -> Result<(), Box<dyn std::error::Error>> {
//!     let stack = Stack::builder()
//!         .service(
//!             ServiceSpec::new("registry", "waypost")
//!                 .args(["agent", "--http-port", "{port}"])
//!                 .port(8500)
//!                 .ready(Probe::http("/v1/catalog/services")),
//!         )
//!         .service(
//!             ServiceSpec::new("ai-models", "waypost")
//!                 .args(["service", "ai-models", "--port", "{port}"])
//!                 .env("SERVICE_REGISTRY_PORT", "8500")
//!                 .port(8002)
//!                 .replicas(3)
//!                 .after("registry")
//!                 .ready(Probe::http("/health")),
//!         )
//!         .build()?;
//!     let supervisor = Supervisor::start(stack, Console::stdout())?;
//!     let outcome = tokio::select! {
//!         ready = supervisor.ready() => ready,
//!         _ = tokio::signal::ctrl_c() => Ok(()),
//!     };
//!     if outcome.is_ok() {
//!         println!("all healthy; press Ctrl-C to stop");
//!         tokio::signal::ctrl_c().await?;
//!     }
//!     // A second Ctrl-C kills everything at once.
//!     tokio::select! {
//!         () = supervisor.shutdown() => {}
//!         _ = tokio::signal::ctrl_c() => supervisor.shutdown().await,
//!     }
//!     Ok(outcome?)
//! }
//! ```
//!
//! # Lifecycle of an instance
//! An instance is one replica of a service. Each has its own task, which writes its status to a
//! common table. [`Supervisor::statuses`] reads the table and [`Supervisor::events`] subscribes to
//! its changes, each with its reason and time.
//!
//! ```text
//! waiting → starting → healthy ⇄ unhealthy
//!              ▲           │ crash   │ crash
//!              └─ delay ◄──┴─────────┘
//!
//! any state → stopping → stopped
//! ```
//!
//! - *Waiting* for the services that it depends on ([`ServiceSpec::after`]).
//! - *Starting* until its [`Probe`] succeeds for the first time. If that takes longer than
//!   [`ServiceSpec::start_timeout`], the instance is unhealthy.
//! - *Unhealthy* after three consecutive failures of the probe. The program is left running: the
//!   cause may be temporary, or a debugger may be attached.
//! - A *crash* is any exit that was not requested. The program is restarted after 1, 2, 4 … 30 s,
//!   each delay lengthened by a random 0 to 20 %, so that programs that crashed together do not
//!   restart together. During the delay the instance is *starting* after a first crash, and
//!   *crash-looping* after repeated ones. After 60 s of health the delay starts at 1 s again.
//! - A one-time task ([`Probe::completed`]) ends as *completed* or *failed* and is not restarted.
//! - At shutdown, an instance gets SIGTERM only after everything that depends on it has exited.
//!
//! # Guarantees
//! - **No program outlives the runner**, even if the runner is killed by SIGKILL; see [`shim`]. Every
//!   program leads its own process group, so a Ctrl-C in the terminal reaches only the runner.
//! - **Ports are checked before anything starts.** A port that is in use is reported with the process
//!   that holds it. Every replica listens on its own port; there is no proxy in between.
//! - **Output is fair.** A program that writes 100,000 lines per second does not delay the output of
//!   others. Lines longer than 64 KiB are truncated, and any bytes are accepted. See [`LogSink`].
//!
//! # Platforms
//! Linux is fully supported. On other Unix systems a program that daemonizes can escape, and the
//! holder of a port is reported without its arguments. Windows is not supported.

pub mod control;
pub mod shim;
pub mod stack_file;

pub use error::{BuildError, SupervisorError};
pub use log::{Console, KeptLine, Level, Line, LogFiles, LogSink, Stream, printable};
pub use port::{PortHolder, TakenPort, Transport, check_port, free_port};
pub use probe::Probe;
pub use service::{RestartRule, ServiceDetails, ServiceSpec, StopSignal, VariableSource};
pub use stack::{Stack, StackBuilder};
pub use status::{Events, ExitStatus, InstanceState, InstanceStatus};
pub use supervisor::Supervisor;
pub use watch::WatchSpec;

mod backoff;
mod build;
mod child;
mod error;
mod event_logger;
mod health;
mod instance;
mod log;
mod order;
mod port;
mod ports;
mod probe;
mod service;
mod stack;
mod status;
mod status_table;
mod supervisor;
mod template;
mod text;
mod usage;
mod watch;
