use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::Instance;

/// An instance as this process sees it: what the registry says, and what we ourselves do with it.
///
/// The second part belongs to the instance's id. It goes on when the registry says something new
/// about the instance, so that no count is lost to an update.
#[derive(Debug)]
pub struct Endpoint {
    instance: Arc<Instance>,
    state: Arc<EndpointState>,
}

/// What outlives an update.
#[derive(Debug, Default)]
struct EndpointState {
    in_flight: AtomicUsize,
}

impl Endpoint {
    pub(crate) fn new(instance: Arc<Instance>) -> Self {
        Self {
            instance,
            state: Arc::default(),
        }
    }

    /// The same endpoint after the registry said something new about it.
    pub(crate) fn updated(&self, instance: Arc<Instance>) -> Self {
        Self {
            instance,
            state: Arc::clone(&self.state),
        }
    }

    /// What the registry says of it.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// How many [`Lease`]s on it are held right now.
    pub fn in_flight(&self) -> usize {
        self.state.in_flight.load(Ordering::Relaxed)
    }
}

/// An endpoint chosen for one piece of work. As long as it is held, the work counts as in flight.
#[derive(Debug)]
#[must_use = "the work counts as in flight only while the lease is held"]
pub struct Lease {
    endpoint: Arc<Endpoint>,
}

impl Lease {
    pub(crate) fn new(endpoint: Arc<Endpoint>) -> Self {
        endpoint.state.in_flight.fetch_add(1, Ordering::Relaxed);
        Self { endpoint }
    }

    /// The endpoint that was chosen.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl Deref for Lease {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.endpoint.instance
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.endpoint
            .state
            .in_flight
            .fetch_sub(1, Ordering::Relaxed);
    }
}
