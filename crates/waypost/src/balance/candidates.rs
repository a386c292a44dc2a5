use std::sync::Arc;

use crate::snapshot::Endpoint;

/// Up to so many candidates can be compared with each other at each pick.
const EXACT: usize = 32;

/// The endpoints that a strategy chooses among, each with the weight that is left of its own after
/// zones, slow start and so on. Never empty, and no weight is 0.
#[derive(Clone, Debug)]
pub struct Candidates {
    endpoints: Arc<[Arc<Endpoint>]>,
    /// `None` if all are the same.
    weights: Option<Box<[f64]>>,
}

impl Candidates {
    pub(crate) fn new(endpoints: Arc<[Arc<Endpoint>]>, weights: Vec<f64>) -> Self {
        let even = weights.windows(2).all(|pair| pair[0] == pair[1]);
        Self {
            endpoints,
            weights: (!even).then(|| weights.into()),
        }
    }

    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    #[inline]
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// All of them, in order of their ids.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// One of them.
    ///
    /// # Panics
    /// If there are not so many.
    #[inline]
    pub fn endpoint(&self, index: usize) -> &Arc<Endpoint> {
        &self.endpoints[index]
    }

    pub(super) fn endpoints_shared(&self) -> &Arc<[Arc<Endpoint>]> {
        &self.endpoints
    }

    /// The weights, or `None` if all are the same.
    pub fn weights(&self) -> Option<&[f64]> {
        self.weights.as_deref()
    }

    /// The weight of one; 1 if all are the same.
    #[inline]
    pub fn weight(&self, index: usize) -> f64 {
        self.weights.as_ref().map_or(1.0, |weights| weights[index])
    }

    /// How many leases on one are held right now. Exact while there are up to 32 candidates; of
    /// more, each other core may hold one that this core doesn't know of yet.
    #[inline]
    pub fn in_flight(&self, index: usize) -> usize {
        self.endpoints[index].in_flight_here()
    }

    /// Whether requests in flight are counted by all cores at once, so that each knows exactly.
    #[inline]
    pub(super) fn counts_exactly(&self) -> bool {
        self.len() <= EXACT
    }
}
