//! The endpoints that a strategy chooses from.

use std::sync::Arc;

use crate::endpoint::Endpoint;

/// Up to this many candidates are compared with each other at each pick, with exact in-flight counts.
const FEW: usize = 32;

/// The endpoints that a strategy chooses from, each with its weight after zone preference, slow start
/// and so on. Never empty, and no weight is 0.
#[derive(Clone, Debug)]
pub struct Candidates {
    endpoints: Arc<[Arc<Endpoint>]>,
    /// `None` if all are equal.
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

    /// The number of candidates.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    #[inline]
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// The endpoints, in order of their ids.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// The endpoint with this index.
    ///
    /// # Panics
    /// If the index is not below [`len`](Self::len).
    #[inline]
    pub fn endpoint(&self, index: usize) -> &Arc<Endpoint> {
        &self.endpoints[index]
    }

    pub(super) fn endpoints_shared(&self) -> &Arc<[Arc<Endpoint>]> {
        &self.endpoints
    }

    /// The weights, or `None` if all are equal.
    pub fn weights(&self) -> Option<&[f64]> {
        self.weights.as_deref()
    }

    /// The weight of the endpoint with this index; 1 if all are equal.
    ///
    /// # Panics
    /// If the index is not below [`len`](Self::len).
    #[inline]
    pub fn weight(&self, index: usize) -> f64 {
        self.weights.as_ref().map_or(1.0, |weights| weights[index])
    }

    /// The number of leases held on the endpoint with this index. Exact for up to 32 candidates; with
    /// more, each other core may hold one that isn't counted yet.
    ///
    /// # Panics
    /// If the index is not below [`len`](Self::len).
    #[inline]
    pub fn in_flight(&self, index: usize) -> usize {
        self.endpoints[index].in_flight_estimate()
    }

    /// Whether there are so few that a pick can compare all of them. Their requests in flight are
    /// counted in a shared counter, so that each core knows the exact number.
    #[inline]
    pub(super) fn are_few(&self) -> bool {
        self.len() <= FEW
    }
}
