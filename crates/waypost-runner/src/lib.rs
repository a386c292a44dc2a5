//! Runs a stack of services on one machine: starts, watches, restarts and ends their processes.
//!
//! Describe each [`Process`]; [`StackBuilder::build`] refuses what can't work; [`Stack::start`]
//! gives a handle, [`Running`], to wait for health, to look, to restart, to scale and to shut down.
//!
//! ```no_run
//! use waypost_runner::{Console, Probe, Process, Stack, shim};
//!
//! # #[allow(clippy::needless_doctest_main)]
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // First of all: some of this program's processes are supervisors of others.
//!     shim::run_if_asked();
//!     up()
//! }
//!
//! #[tokio::main]
//! async fn up() -> Result<(), Box<dyn std::error::Error>> {
//!     let stack = Stack::builder()
//!         .process(
//!             Process::new("registry", "waypost")
//!                 .args(["agent", "--http-port", "{port}"])
//!                 .port(8500)
//!                 .ready(Probe::http("/v1/catalog/services")),
//!         )
//!         .process(
//!             Process::new("ai-models", "waypost")
//!                 .args(["service", "ai-models", "--port", "{port}"])
//!                 .env("SERVICE_REGISTRY_PORT", "8500")
//!                 .port(8002)
//!                 .replicas(3)
//!                 .after("registry")
//!                 .ready(Probe::http("/health")),
//!         )
//!         .build()?;
//!     let running = stack.start(Console::stdout())?;
//!     let outcome = tokio::select! {
//!         ready = running.ready() => ready,
//!         _ = tokio::signal::ctrl_c() => Ok(()),
//!     };
//!     if outcome.is_ok() {
//!         println!("all healthy; end with Ctrl-C");
//!         tokio::signal::ctrl_c().await?;
//!     }
//!     // A second Ctrl-C means now.
//!     tokio::select! {
//!         () = running.shutdown() => {}
//!         _ = tokio::signal::ctrl_c() => running.shutdown().await,
//!     }
//!     Ok(outcome?)
//! }
//! ```
//!
//! # The life of an instance
//! An instance is one replica of a process; each has its own actor, and all write one table.
//! [`Running::status`] reads the table and [`Running::events`] tells each change of it, always with
//! the reason and the time.
//!
//! ```text
//!              ┌────────────── crash ──────────────┐
//!              ▼                                   │
//! waiting → starting → healthy ⇄ unhealthy → stopping → stopped
//!                 ▲       │
//!   crash-looping ┴─ crash again
//! ```
//!
//! - *Waiting* names the processes that are waited for ([`Process::after`]).
//! - *Starting* is not unhealthy. The probe is asked every 20 ms at first, so that a fast process is
//!   not waited for, then every 0.5 s at most. Only a start that exceeds
//!   [`Process::start_timeout`] is called unhealthy, with what the probe saw.
//! - *Unhealthy* means three failures of the probe in a row. The process is left alone: it is shown
//!   to be sick, and a debugger may be attached to it.
//! - A *crash* is any end that nobody asked for. It is started again after 1, 2, 4 … 30 s,
//!   each longer by up to a fifth by chance, so that processes which fell together don't rise
//!   together. After 60 s of health crashes are forgiven.
//! - The end goes backwards: a process gets SIGTERM only when all that come after it are gone.
//!
//! # What is promised
//! - **Nobody is left behind**, however the runner ends, even by `kill -9`: see [`shim`]. Every
//!   program leads a process group of its own, so a Ctrl-C in the terminal reaches the runner alone.
//! - **Ports are looked at before anything starts.** A taken one is reported with the pid and command
//!   of its holder. Every replica is reachable on a port of its own; there is no proxy in between.
//! - **Output is fair.** Who writes 100,000 lines a second delays no line of the others; lines over
//!   64 KiB are cut and marked; any bytes are survived. See [`LogSink`].
//!
//! Linux is the home of this crate. On other Unix systems a process that makes itself a daemon can
//! escape, and holders of ports are named without their arguments. Windows is not supported.

mod attempt;
mod backoff;
mod board;
mod child;
mod error;
mod fleet;
mod health;
mod instance;
mod log;
mod order;
pub mod port;
mod ports;
mod probe;
mod process;
mod running;
pub mod shim;
mod stack;
mod status;
mod template;

pub use error::{BuildError, StackError};
pub use log::{Console, Line, LogSink, Stream};
pub use port::{Holder, TakenPort, Transport};
pub use probe::Probe;
pub use process::Process;
pub use running::Running;
pub use stack::{Stack, StackBuilder};
pub use status::{Events, State, Status};
