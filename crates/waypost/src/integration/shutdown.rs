//! The signals that terminate a process.

use std::io;

use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Waits for SIGTERM, SIGINT (Ctrl-C), or SIGHUP, which a terminal sends when it is closed.
///
/// SIGHUP is not handled if the process was started with it ignored, as `nohup` does. This is detected
/// on Linux only; elsewhere SIGHUP always counts.
///
/// From the moment of the call, and not only from the first poll, the signals no longer terminate the
/// process. So call it before doing anything that must be undone at the end. Outside of a Tokio
/// runtime, they are handled from the first poll on.
pub fn shutdown_signal() -> impl Future<Output = ()> + Send + 'static {
    let listening = Handle::try_current().is_ok().then(Signals::listen);
    async move {
        match listening.unwrap_or_else(Signals::listen) {
            Ok(mut signals) => signals.received().await,
            // Without handlers, the signals terminate the process.
            Err(_) => std::future::pending().await,
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// `None` if SIGHUP was ignored when the process started.
    hangup: Option<Signal>,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        let hangup = if is_hangup_ignored() {
            None
        } else {
            Some(signal(SignalKind::hangup())?)
        };
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup,
        })
    }

    async fn received(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = hangup => {}
        }
    }
}

/// Whether SIGHUP is ignored. Once a handler is installed, it is not.
fn is_hangup_ignored() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores_hangup(&status))
}

/// Reads the mask of ignored signals in the format of Linux' `/proc/PID/status`. SIGHUP is number 1,
/// the lowest bit.
fn ignores_hangup(status: &str) -> bool {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        let status = |mask| format!("Name:\twaypost\nSigBlk:\t0000000000000001\nSigIgn:\t{mask}\n");
        assert!(ignores_hangup(&status("0000000000001001")));
        assert!(!ignores_hangup(&status("0000000000001000")));
        assert!(!ignores_hangup(""));
    }
}
