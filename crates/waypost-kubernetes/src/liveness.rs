//! Detects an API server that does not respond, and one whose etcd was rolled back.
//!
//! An open watch without events looks the same whether nothing changes, the server hangs or the
//! connection is dead. So the smallest possible LIST is sent every 8 to 10 s. If two in a row get no
//! answer, the server is unresponsive, and probes go out about every second to notice its recovery
//! within 2 s. Each answer also carries the current resource version. If that is lower than one that
//! was seen before, etcd was restored from a backup; a watch from the later version would stay silent
//! until the server reaches it again (kubernetes/kubernetes#107457).
//!
//! | case | noticed after |
//! |---|---|
//! | connections break | at once, by the watches |
//! | the server hangs with open connections | 16 s: one interval, and two timeouts of 3 s |
//! | etcd is restored to an earlier version | 13 s: one interval and one answer |
//! | the server recovers | 1.5 s and one answer |

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use serde::de::IgnoredAny;
use tokio::time::{Instant, sleep_until};

use crate::client::{ApiClient, GetRequest};
use crate::error::RequestError;
use crate::reflector::{WatchProgress, parse_resource_version};
use crate::resources::List;

/// A report of the monitor.
#[derive(Debug)]
pub(crate) enum LivenessEvent {
    /// The server does not respond; reported for each probe that fails.
    Unresponsive(RequestError),
    /// The server still responds, with a state that is not earlier than the one seen before.
    Alive,
    /// The server responds again.
    Recovered,
    /// The server responds with a state that is earlier than the one seen before.
    RolledBack(RequestError),
}

/// A collection to probe, and the progress of its reflector.
pub(crate) struct ProbeTarget {
    pub(crate) path: String,
    pub(crate) progress: Arc<WatchProgress>,
}

/// Probes the API server while it is polled.
pub(crate) struct LivenessMonitor {
    client: Arc<ApiClient>,
    /// The first one is probed. One to which access is denied moves to the end.
    targets: Vec<ProbeTarget>,
    in_flight: FuturesUnordered<BoxFuture<'static, ProbeResult>>,
    next_probe: Instant,
    failures: u32,
    is_unresponsive: bool,
}

struct ProbeResult {
    path: String,
    /// The resource version that the reflector had seen when the probe was sent.
    seen_version: u64,
    /// The server's current resource version.
    version: Result<u64, RequestError>,
}

impl LivenessMonitor {
    const INTERVAL: [Duration; 2] = [Duration::from_secs(8), Duration::from_secs(10)];
    const UNRESPONSIVE_INTERVAL: [Duration; 2] =
        [Duration::from_millis(1000), Duration::from_millis(1500)];
    const TIMEOUT: Duration = Duration::from_secs(3);

    pub(crate) fn new(client: Arc<ApiClient>, targets: Vec<ProbeTarget>) -> Self {
        Self {
            client,
            targets,
            in_flight: FuturesUnordered::new(),
            next_probe: Instant::now() + random_between(Self::INTERVAL),
            failures: 0,
            is_unresponsive: false,
        }
    }

    /// Sends a probe at once, after another request has failed.
    pub(crate) fn probe_now(&mut self) {
        if !self.is_unresponsive && self.in_flight.is_empty() {
            self.next_probe = Instant::now();
        }
    }

    /// The next result of a probe. Cancel safe.
    pub(crate) async fn next(&mut self) -> LivenessEvent {
        loop {
            tokio::select! {
                Some(result) = self.in_flight.next() => {
                    if let Some(event) = self.apply(result) {
                        return event;
                    }
                }
                () = sleep_until(self.next_probe) => self.send_probe(),
            }
        }
    }

    /// Sends a probe. While the server is unresponsive, this does not wait for the result of the
    /// last one, which may hang on a dead connection.
    fn send_probe(&mut self) {
        let interval = if self.is_unresponsive {
            Self::UNRESPONSIVE_INTERVAL
        } else {
            Self::INTERVAL
        };
        self.next_probe = Instant::now() + random_between(interval);
        let Some(ProbeTarget { path, progress }) = self.targets.first() else {
            return;
        };
        let (path, seen_version) = (path.clone(), progress.resource_version());
        let client = Arc::clone(&self.client);
        let probe = async move {
            let get = GetRequest {
                path: &path,
                query: &[("limit", "1")],
                accept: "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            };
            let list = client.get::<List<IgnoredAny>>(get, Self::TIMEOUT).await;
            let version = list.map(|list| parse_resource_version(&list.metadata.resource_version));
            ProbeResult {
                path,
                seen_version,
                version,
            }
        };
        self.in_flight.push(probe.boxed());
    }

    fn apply(&mut self, result: ProbeResult) -> Option<LivenessEvent> {
        let version = match result.version {
            Ok(version) => Some(version),
            Err(error) if error.server_is_up() => {
                self.skip_denied_target(&result.path, &error);
                None
            }
            Err(error) => return self.fail(error),
        };
        self.failures = 0;
        let was_unresponsive = std::mem::replace(&mut self.is_unresponsive, false);
        if was_unresponsive {
            self.in_flight.clear();
            self.next_probe = Instant::now() + random_between(Self::INTERVAL);
        }
        if version.is_some() {
            self.set_relist_after_silence(false);
        }
        match version {
            Some(version) if version != 0 && version < result.seen_version => {
                Some(LivenessEvent::RolledBack(self.client.rolled_back()))
            }
            _ if was_unresponsive => Some(LivenessEvent::Recovered),
            version => version.map(|_| LivenessEvent::Alive),
        }
    }

    fn fail(&mut self, error: RequestError) -> Option<LivenessEvent> {
        self.failures += 1;
        if self.failures == 1 {
            // A single probe can get lost; the next one uses a new connection.
            self.next_probe = Instant::now();
            return None;
        }
        if !std::mem::replace(&mut self.is_unresponsive, true) {
            self.next_probe = Instant::now() + random_between(Self::UNRESPONSIVE_INTERVAL);
        }
        Some(LivenessEvent::Unresponsive(error))
    }

    /// Probes another target next time. As long as no target may be listed, the reflectors must
    /// detect a rollback themselves.
    fn skip_denied_target(&mut self, path: &str, error: &RequestError) {
        let is_current = self.targets.first().is_some_and(|first| first.path == path);
        if error.is_access_denied() && is_current {
            self.targets.rotate_left(1);
            self.set_relist_after_silence(true);
        }
    }

    fn set_relist_after_silence(&self, relist: bool) {
        for target in &self.targets {
            target.progress.set_relist_after_silence(relist);
        }
    }
}

fn random_between([min, max]: [Duration; 2]) -> Duration {
    min + (max - min).mul_f64(fastrand::f64())
}
