use std::time::SystemTime;

use tokio::time::Instant;

use super::{
    renewal::{OVERDUE, Renewal},
    wire::Slice,
};

/// How long we believe in an instance that must be renewed, by our own clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    renewal: Renewal,
    until: Instant,
    pub(super) is_over: bool,
}

impl Lease {
    /// That of a slice, after the one it had. A new renewal is a new lease. When a slice is seen for
    /// the first time, only what it says of itself can tell how old it is.
    pub(super) fn of(slice: &Slice, before: Option<Self>) -> Option<Self> {
        let renewal = Renewal::of(&slice.metadata)?;
        let until = Instant::now() + OVERDUE;
        Some(match before {
            Some(before) if before.renewal == renewal => before,
            _ => Self {
                renewal,
                until,
                is_over: before.is_none() && renewal.has_expired(SystemTime::now()),
            },
        })
    }

    /// When it will be over, if it isn't.
    pub(super) fn due(self) -> Option<Instant> {
        (!self.is_over).then_some(self.until)
    }

    pub(super) fn ended(self) -> Self {
        Self {
            is_over: true,
            ..self
        }
    }

    /// As if it had been renewed now, unless it is over.
    pub(super) fn extended(self) -> Self {
        Self {
            until: Instant::now() + OVERDUE,
            ..self
        }
    }
}
