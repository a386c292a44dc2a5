//! Faults that are switched on and off while the server runs.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU16};

use http::StatusCode;
use tokio::sync::watch;

/// The faults that can be switched on and off while the server runs. Those of the process (killed,
/// terminated, frozen) are methods of [`ApiServer`](crate::ApiServer).
#[derive(Debug)]
pub struct Faults {
    is_etcd_frozen: watch::Sender<bool>,
    is_watch_list_disabled: AtomicBool,
    is_watch_list_failing: AtomicBool,
    is_gateway_api_missing: AtomicBool,
    /// 0 for none.
    failing_with: AtomicU16,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            is_etcd_frozen: watch::Sender::new(false),
            is_watch_list_disabled: AtomicBool::new(false),
            is_watch_list_failing: AtomicBool::new(false),
            is_gateway_api_missing: AtomicBool::new(false),
            failing_with: AtomicU16::new(0),
        }
    }
}

impl Faults {
    /// Freezes etcd: writes and consistent reads hang; reads from the watch cache succeed.
    pub fn freeze_etcd(&self, on: bool) {
        self.is_etcd_frozen.send_replace(on);
    }

    /// Disables the feature WatchList, as in an older server: `sendInitialEvents` gets 422.
    pub fn disable_watch_list(&self, on: bool) {
        self.is_watch_list_disabled.store(on, Relaxed);
    }

    /// Makes each streamed list fail in its stream, as with an etcd that is too old for it.
    pub fn fail_watch_list(&self, on: bool) {
        self.is_watch_list_failing.store(on, Relaxed);
    }

    /// Answers 404 to requests for the Gateway API's objects, as without its CustomResourceDefinitions.
    /// Open watches continue.
    pub fn uninstall_gateway_api(&self, on: bool) {
        self.is_gateway_api_missing.store(on, Relaxed);
    }

    /// Answers each request for objects with this status: 429, 500 or 503. `None` ends this.
    pub fn fail_with(&self, code: Option<u16>) {
        self.failing_with.store(code.unwrap_or(0), Relaxed);
    }

    /// Switches all of these off.
    pub fn heal(&self) {
        self.freeze_etcd(false);
        self.disable_watch_list(false);
        self.fail_watch_list(false);
        self.uninstall_gateway_api(false);
        self.fail_with(None);
    }

    /// Waits until etcd is not frozen.
    pub(crate) async fn etcd(&self) {
        // It cannot fail: the sender lives as long as `self`.
        let _ = self.is_etcd_frozen.subscribe().wait_for(|it| !it).await;
    }

    pub(crate) fn is_watch_list_disabled(&self) -> bool {
        self.is_watch_list_disabled.load(Relaxed)
    }

    pub(crate) fn is_watch_list_failing(&self) -> bool {
        self.is_watch_list_failing.load(Relaxed)
    }

    pub(crate) fn has_gateway_api(&self) -> bool {
        !self.is_gateway_api_missing.load(Relaxed)
    }

    pub(crate) fn failure(&self) -> Option<StatusCode> {
        StatusCode::from_u16(self.failing_with.load(Relaxed)).ok()
    }
}
