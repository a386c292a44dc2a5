//! The kinds of objects on which an answer about a service can be based, and the failure to report with it.
//!
//! Reading EndpointSlices and reading Services are separate permissions, and either request can fail
//! while the other succeeds. [`SyncState`] is the state of one of the two kinds; [`basis`] and
//! [`failing`] are the truth tables over both.

/// Whether one kind of object has been listed, and how the latest request for it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SyncState {
    /// Not listed yet, nothing has failed.
    Pending,
    /// Listed and followed.
    Synced,
    /// Listed, but a request has failed since.
    Stale,
    /// Never listed: requests fail.
    Unavailable,
    /// Listed, but the server denies access now.
    Revoked,
    /// Never listed: the server denies access.
    Denied,
}

/// The kinds of objects on which an answer is based.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Basis {
    SlicesAndService,
    /// The Service may not be read.
    SlicesOnly,
    /// The EndpointSlices may not be read.
    ServiceOnly,
    /// There is no answer yet.
    Nothing,
}

/// One of the two kinds of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    EndpointSlice,
    Service,
}

/// What an answer can be based on. A kind that was listed once is used, however long ago that was. A
/// kind that was never listed is waited for, unless access to it is denied.
pub(crate) fn basis(slices: SyncState, service: SyncState) -> Basis {
    use SyncState::{Denied, Revoked, Stale, Synced};
    match (slices, service) {
        (Synced | Stale | Revoked, Synced | Stale | Revoked) => Basis::SlicesAndService,
        (Synced | Stale | Revoked, Denied) => Basis::SlicesOnly,
        (Denied, Synced | Stale | Revoked) => Basis::ServiceOnly,
        _ => Basis::Nothing,
    }
}

/// The kind whose error is reported: why the answer may be out of date, or why there is none. A missing
/// permission is not a failure if the other kind suffices for an answer.
pub(crate) fn failing(slices: SyncState, service: SyncState) -> Option<Kind> {
    use SyncState::{Denied, Revoked, Stale, Synced, Unavailable};
    match (slices, service) {
        (Stale | Unavailable, _) => Some(Kind::EndpointSlice),
        (_, Stale | Unavailable) => Some(Kind::Service),
        (Denied | Revoked, Denied | Revoked) => Some(Kind::EndpointSlice),
        // The endpoints may have changed since access to them was denied.
        (Revoked, Synced) => Some(Kind::EndpointSlice),
        _ => None,
    }
}

impl Basis {
    /// The data that is missing from answers on this basis, for logs and for the metadata of instances.
    pub(crate) fn degraded(self) -> Option<&'static str> {
        match self {
            Self::SlicesOnly => Some("no permission to read the Service"),
            Self::ServiceOnly => {
                Some("no permission to read EndpointSlices; this is the Service's cluster DNS name")
            }
            Self::SlicesAndService | Self::Nothing => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_permission_is_a_failure_only_if_the_other_kind_does_not_suffice() {
        use SyncState::{Denied, Pending, Revoked, Stale, Synced, Unavailable};
        let slice = Some(Kind::EndpointSlice);
        let other = Some(Kind::Service);
        for (slices, service, expected, error) in [
            (Synced, Synced, Basis::SlicesAndService, None),
            (Synced, Pending, Basis::Nothing, None),
            (Pending, Synced, Basis::Nothing, None),
            (Synced, Denied, Basis::SlicesOnly, None),
            (Denied, Synced, Basis::ServiceOnly, None),
            (Denied, Pending, Basis::Nothing, None),
            (Pending, Denied, Basis::Nothing, None),
            (Denied, Denied, Basis::Nothing, slice),
            (Revoked, Pending, Basis::Nothing, None),
            (Revoked, Synced, Basis::SlicesAndService, slice),
            (Revoked, Denied, Basis::SlicesOnly, slice),
            (Synced, Revoked, Basis::SlicesAndService, None),
            (Stale, Synced, Basis::SlicesAndService, slice),
            (Synced, Stale, Basis::SlicesAndService, other),
            (Synced, Unavailable, Basis::Nothing, other),
            (Stale, Denied, Basis::SlicesOnly, slice),
            (Unavailable, Unavailable, Basis::Nothing, slice),
        ] {
            let row = format!("{slices:?}, {service:?}");
            assert_eq!(basis(slices, service), expected, "{row}");
            assert_eq!(failing(slices, service), error, "{row}");
        }
    }
}
