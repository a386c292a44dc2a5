//! What a server does wrong while it runs.

use std::sync::atomic::{AtomicBool, AtomicU16, Ordering::Relaxed};

use http::StatusCode;
use tokio::sync::watch;

/// The faults that can be switched on and off while the server runs. Those of the process itself
/// (killed, terminated, stopped) are methods of [`ApiServer`](crate::ApiServer).
#[derive(Debug)]
pub struct Faults {
    etcd_frozen: watch::Sender<bool>,
    continue_expired: AtomicBool,
    watch_list_off: AtomicBool,
    watch_list_fails: AtomicBool,
    /// 0 is none.
    failing_with: AtomicU16,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            etcd_frozen: watch::Sender::new(false),
            continue_expired: AtomicBool::new(false),
            watch_list_off: AtomicBool::new(false),
            watch_list_fails: AtomicBool::new(false),
            failing_with: AtomicU16::new(0),
        }
    }
}

impl Faults {
    /// Freezes etcd: writes and consistent reads hang, and what is answered from the watch cache
    /// goes on.
    pub fn freeze_etcd(&self, on: bool) {
        self.etcd_frozen.send_replace(on);
    }

    /// Lets no list be gone on with: every `continue` token gets 410 and another token, as after
    /// a compaction without a watch cache.
    pub fn expire_continue(&self, on: bool) {
        self.continue_expired.store(on, Relaxed);
    }

    /// Switches the feature WatchList off, as in an older server: `sendInitialEvents` gets 422.
    pub fn disable_watch_list(&self, on: bool) {
        self.watch_list_off.store(on, Relaxed);
    }

    /// Lets every streamed list fail in its stream, as with an etcd that is too old for them.
    pub fn fail_watch_list(&self, on: bool) {
        self.watch_list_fails.store(on, Relaxed);
    }

    /// Answers every request for objects with this status: 429, 500 or 503. None is as usual.
    pub fn fail_with(&self, code: Option<u16>) {
        self.failing_with.store(code.unwrap_or(0), Relaxed);
    }

    /// Takes back all of these.
    pub fn heal(&self) {
        self.freeze_etcd(false);
        self.expire_continue(false);
        self.disable_watch_list(false);
        self.fail_watch_list(false);
        self.fail_with(None);
    }

    /// Resolves as soon as etcd answers.
    pub(crate) async fn etcd(&self) {
        // The sender lives as long as this does.
        let _ = self.etcd_frozen.subscribe().wait_for(|it| !it).await;
    }

    pub(crate) fn is_continue_expired(&self) -> bool {
        self.continue_expired.load(Relaxed)
    }

    pub(crate) fn is_watch_list_off(&self) -> bool {
        self.watch_list_off.load(Relaxed)
    }

    pub(crate) fn does_watch_list_fail(&self) -> bool {
        self.watch_list_fails.load(Relaxed)
    }

    pub(crate) fn failure(&self) -> Option<StatusCode> {
        StatusCode::from_u16(self.failing_with.load(Relaxed)).ok()
    }
}
