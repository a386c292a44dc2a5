//! Keeps a leased endpoint in memory without sharing a reference count between cores.

use std::fmt;
use std::sync::Arc;

use crate::endpoint::Endpoint;
use crate::shard::{shards, this_shard};

type EndpointList = Arc<[Arc<Endpoint>]>;

/// The maximum length of a list that leases share. A lease would keep a longer list in memory.
const MAX_SHARED: usize = 1_024;

/// One core's reference to a list of endpoints. Leases of that core count their references here: the
/// reference count of the endpoint itself would be a cache line that all cores write.
#[repr(align(64))]
pub(crate) struct SharedList(EndpointList);

/// A reference to a list for each core; empty if the list is too long.
pub(crate) struct PerCoreLists(Box<[Arc<SharedList>]>);

impl PerCoreLists {
    pub(crate) fn new(list: &EndpointList) -> Self {
        let cores = if list.len() <= MAX_SHARED {
            shards()
        } else {
            0
        };
        let share = |_| Arc::new(SharedList(Arc::clone(list)));
        Self((0..cores).map(share).collect())
    }

    /// Holds the endpoint at `index`, if the list is shared and contains that index.
    #[inline]
    pub(crate) fn hold(&self, index: usize) -> Option<HeldEndpoint> {
        let list = self.0.get(this_shard())?;
        let is_listed = index < list.0.len();
        is_listed.then(|| HeldEndpoint::InList(Arc::clone(list), index as u32))
    }
}

/// An endpoint that is kept in memory.
pub(crate) enum HeldEndpoint {
    /// By its own reference count.
    Own(Arc<Endpoint>),
    /// By a reference to the list that it is in, at this index.
    InList(Arc<SharedList>, u32),
}

impl HeldEndpoint {
    #[inline]
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        match self {
            Self::Own(endpoint) => endpoint,
            Self::InList(list, index) => &list.0[*index as usize],
        }
    }
}

impl fmt::Debug for HeldEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint().fmt(f)
    }
}
