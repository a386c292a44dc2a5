//! The current value of a watch.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use arc_swap::Guard;

/// The current value of a watch at the time of the call. It is borrowed, which costs less than a reference
/// count; clone the [`Arc`] to keep the value for long.
pub struct Current<P>(Guard<Arc<P>>);

impl<P> Current<P> {
    pub(crate) fn new(value: Guard<Arc<P>>) -> Self {
        Self(value)
    }
}

impl<P> Deref for Current<P> {
    type Target = Arc<P>;

    #[inline]
    fn deref(&self) -> &Arc<P> {
        &self.0
    }
}

impl<P: fmt::Debug> fmt::Debug for Current<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
