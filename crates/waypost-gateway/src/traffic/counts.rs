//! The counts of one worker since the last collection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::exchange::{EndReason, Exchange};

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
    pub(crate) callers: HashMap<Box<str>, u64>,
    /// By the id of the instance.
    pub(crate) instances: HashMap<Box<str>, InstanceCounts>,
}

/// The requests to one instance.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct InstanceCounts {
    pub(crate) requests: u64,
    pub(crate) failures: u64,
}

impl WorkerCounts {
    /// Counts a request that has ended.
    pub(crate) fn record(&self, exchange: &Exchange, duration: Duration) {
        let Some(service) = &exchange.service else {
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
            .record(exchange, duration);
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
    fn record(&mut self, exchange: &Exchange, duration: Duration) {
        let has_failed = exchange.has_failed();
        self.requests += 1;
        self.failures += u64::from(has_failed);
        self.retries += u64::from(exchange.attempts.saturating_sub(1));
        let class = exchange.status.map_or(0, |status| status.as_u16() / 100);
        if let Some(count) = self.by_class.get_mut(usize::from(class)) {
            *count += 1;
        }
        self.request_bytes += exchange
            .request_body
            .as_ref()
            .map_or(0, |body| body.bytes());
        self.response_bytes += exchange.response_bytes;
        self.client_closed += u64::from(exchange.end == EndReason::ClientClosed);
        self.latencies
            .record(exchange.first_byte.unwrap_or(duration));
        if let Some(caller) = exchange.caller.as_ref().and_then(|name| name.to_str().ok()) {
            *slot(&mut self.callers, caller) += 1;
        }
        if let Some(instance) = &exchange.instance {
            let counts = slot(&mut self.instances, instance.id().as_str());
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
        for (name, count) in &other.callers {
            *slot(&mut self.callers, name) += count;
        }
        for (name, counts) in &other.instances {
            let sum = slot(&mut self.instances, name);
            sum.requests += counts.requests;
            sum.failures += counts.failures;
        }
    }

    /// Resets the counts to zero. Keeps the memory, which the next second needs.
    fn clear(&mut self) {
        let mut callers = std::mem::take(&mut self.callers);
        callers.clear();
        let mut instances = std::mem::take(&mut self.instances);
        instances.retain(|_, counts| {
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

/// The count for a name, or for `other` if there are too many names.
fn slot<'a, T: Default>(counts: &'a mut HashMap<Box<str>, T>, name: &str) -> &'a mut T {
    let name = if counts.contains_key(name) || counts.len() < MAX_NAMES {
        name
    } else {
        "other"
    };
    if !counts.contains_key(name) {
        counts.insert(name.into(), T::default());
    }
    counts
        .get_mut(name)
        .expect("inserted above if it was missing")
}
