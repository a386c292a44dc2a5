//! The counts of one worker since the last collection.

use std::sync::{Arc, Mutex, PoisonError};

use crate::stream_info::{EndReason, StreamInfo};

use super::latency::Latencies;

/// The number of callers, and of instances, of a service that are counted by name within a second.
const MAX_NAMES: usize = 64;

/// The counts of one worker, by the index of the service.
#[derive(Default)]
pub(crate) struct WorkerCounts(Mutex<Vec<Option<Named>>>);

struct Named {
    name: Arc<str>,
    counts: ServiceCounts,
}

/// The requests to one service.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceCounts {
    pub(crate) requests: u64,
    pub(crate) failures: u64,
    pub(crate) retries: u64,
    /// By the first digit of the status. Requests without a response are at index 0.
    pub(crate) by_class: [u64; 6],
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) client_closed: u64,
    pub(crate) latencies: Latencies,
    pub(crate) callers: ByName<u64>,
    /// By the id of the instance.
    pub(crate) instances: ByName<InstanceCounts>,
}

/// The requests to one instance.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct InstanceCounts {
    pub(crate) requests: u64,
    pub(crate) failures: u64,
}

impl WorkerCounts {
    /// Counts a request that has ended.
    pub(crate) fn record(&self, info: &StreamInfo) {
        let Some(service) = &info.service else {
            return;
        };
        let mut services = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let index = service.index();
        if services.len() <= index {
            services.resize_with(index + 1, || None);
        }
        let Some(entry) = services.get_mut(index) else {
            return;
        };
        entry
            .get_or_insert_with(|| Named {
                name: service.name().as_str().into(),
                counts: ServiceCounts::default(),
            })
            .counts
            .record(info);
    }

    /// Passes the counts on and starts again at zero.
    pub(super) fn take(&self, mut each: impl FnMut(&Arc<str>, &ServiceCounts)) {
        let mut services = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for named in services.iter_mut().flatten() {
            if named.counts.requests > 0 {
                each(&named.name, &named.counts);
                named.counts.clear();
            }
        }
    }

    /// Passes the counts on and keeps them.
    pub(super) fn peek(&self, mut each: impl FnMut(&Arc<str>, &ServiceCounts)) {
        let services = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for named in services.iter().flatten() {
            each(&named.name, &named.counts);
        }
    }
}

impl ServiceCounts {
    fn record(&mut self, info: &StreamInfo) {
        let has_failed = info.has_failed();
        self.requests += 1;
        self.failures += u64::from(has_failed);
        self.retries += u64::from(info.attempts.saturating_sub(1));
        let class = info.status.map_or(0, |status| status.as_u16() / 100);
        if let Some(count) = self.by_class.get_mut(usize::from(class)) {
            *count += 1;
        }
        self.request_bytes += info.request_body.as_ref().map_or(0, |body| body.bytes());
        self.response_bytes += info.response_bytes;
        self.client_closed += u64::from(info.end == EndReason::ClientClosed);
        self.latencies
            .record(info.first_byte.unwrap_or_else(|| info.elapsed()));
        if let Some(caller) = info.caller.as_ref().and_then(|name| name.to_str().ok()) {
            *self.callers.slot(caller) += 1;
        }
        if let Some(instance) = &info.instance {
            let counts = self.instances.slot(instance.id().as_str());
            counts.requests += 1;
            counts.failures += u64::from(has_failed);
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failures += other.failures;
        self.retries += other.retries;
        for (count, more) in self.by_class.iter_mut().zip(other.by_class) {
            *count += more;
        }
        self.request_bytes += other.request_bytes;
        self.response_bytes += other.response_bytes;
        self.client_closed += other.client_closed;
        self.latencies.add(&other.latencies);
        for (name, count) in &other.callers.0 {
            *self.callers.slot(name) += count;
        }
        for (name, counts) in &other.instances.0 {
            let sum = self.instances.slot(name);
            sum.requests += counts.requests;
            sum.failures += counts.failures;
        }
    }

    /// Resets the counts to zero. Keeps the memory, which the next second needs.
    fn clear(&mut self) {
        let mut callers = std::mem::take(&mut self.callers);
        callers.0.clear();
        let mut instances = std::mem::take(&mut self.instances);
        instances.0.retain_mut(|(_, counts)| {
            let is_used = counts.requests > 0;
            *counts = InstanceCounts::default();
            is_used
        });
        *self = Self {
            callers,
            instances,
            ..Self::default()
        };
    }
}

/// Counts for a small number of names. Comparing the names is faster than hashing them.
#[derive(Clone, Debug, Default)]
pub(crate) struct ByName<T>(pub(crate) Vec<(Box<str>, T)>);

impl<T: Default> ByName<T> {
    pub(crate) fn get(&self, name: &str) -> Option<&T> {
        let found = self.0.iter().find(|(known, _)| **known == *name);
        found.map(|(_, counts)| counts)
    }

    /// The count for a name, or for `other` if there are too many names.
    fn slot(&mut self, name: &str) -> &mut T {
        let position = |name: &str| self.0.iter().position(|(known, _)| **known == *name);
        let at = match position(name) {
            Some(at) => at,
            None if self.0.len() < MAX_NAMES => self.push(name),
            None => match position("other") {
                Some(at) => at,
                None => self.push("other"),
            },
        };
        &mut self.0[at].1
    }

    fn push(&mut self, name: &str) -> usize {
        self.0.push((name.into(), T::default()));
        self.0.len() - 1
    }
}
