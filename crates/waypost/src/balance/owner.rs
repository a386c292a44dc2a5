//! What keeps a leased endpoint in memory.

use std::fmt;
use std::sync::Arc;

use crate::shard::{shards, this_shard};
use crate::snapshot::Endpoint;

type List = Arc<[Arc<Endpoint>]>;

/// Of a longer list, a lease that lasts would keep too much in memory.
const LONGEST: usize = 1_024;

/// One core's hold on a list of endpoints. Its leases count themselves here, where no other core
/// does: owners of the endpoint itself would be counted in a line of memory that all cores write.
#[repr(align(64))]
pub(crate) struct Hold(List);

/// Every core's hold on a list that is not too long for it.
pub(crate) struct Holds(Box<[Arc<Hold>]>);

impl Holds {
    pub(crate) fn on(list: &List) -> Self {
        let holds = match list.len() <= LONGEST {
            true => shards(),
            false => 0,
        };
        let hold = |_| Arc::new(Hold(Arc::clone(list)));
        Self((0..holds).map(hold).collect())
    }

    /// Becomes an owner of the endpoint at a place in the list.
    #[inline]
    pub(crate) fn own(&self, index: usize) -> Option<Owner> {
        let hold = self.0.get(this_shard())?;
        let listed = index < hold.0.len();
        listed.then(|| Owner::OfList(Arc::clone(hold), index as u32))
    }
}

/// Keeps an endpoint in memory.
pub(crate) enum Owner {
    OfEndpoint(Arc<Endpoint>),
    /// Together with those that it was chosen from.
    OfList(Arc<Hold>, u32),
}

impl Owner {
    #[inline]
    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        match self {
            Self::OfEndpoint(endpoint) => endpoint,
            Self::OfList(hold, index) => &hold.0[*index as usize],
        }
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint().fmt(f)
    }
}
