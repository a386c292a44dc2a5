use waypost_core::ProviderError;

use super::fault::Fault;

/// What can be seen of a service: its slices and itself, which one needs different rights for.
pub(super) struct Sight<'a> {
    pub(super) slices: Reading<'a>,
    pub(super) service: Reading<'a>,
}

/// How it is with the reading of one kind of object.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    /// Whether it was read, be it a while ago.
    pub(super) known: bool,
    pub(super) fault: Option<&'a Fault>,
}

/// What an answer can be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Basis {
    /// The slices, and the Service with them.
    Both,
    /// The slices alone.
    Slices,
    /// The Service alone.
    Service,
    /// Nothing as yet.
    Nothing,
}

impl Sight<'_> {
    pub(super) fn basis(&self) -> Basis {
        match (self.slices.known, self.service.known) {
            (true, true) => Basis::Both,
            (true, false) if self.service.is_refused() => Basis::Slices,
            (false, true) if self.slices.is_refused() => Basis::Service,
            _ => Basis::Nothing,
        }
    }

    /// What we lack, in words, if it is by our rights that we lack it.
    pub(super) fn degraded(&self) -> Option<&'static str> {
        match self.basis() {
            Basis::Slices => Some("the Service may not be read"),
            Basis::Service => Some(
                "the EndpointSlices may not be read; this is the Service's name in the cluster",
            ),
            Basis::Both | Basis::Nothing => None,
        }
    }

    /// Why what is known may be out of date, or why nothing is known. A right that is missing is no
    /// failure as long as the other kind makes an answer.
    pub(super) fn fault(&self) -> Option<&ProviderError> {
        let outage = [self.slices, self.service]
            .into_iter()
            .find(|reading| reading.fault.is_some() && !reading.is_refused());
        let fault = match (self.slices.is_refused(), self.service.is_refused()) {
            _ if outage.is_some() => outage?.fault,
            (true, true) => self.slices.fault,
            // It was read before: what it says now, nobody tells. But as long as the other kind is
            // on its way, there is nothing yet of which that could be said.
            (true, false) if self.basis() != Basis::Nothing && self.slices.known => {
                self.slices.fault
            }
            _ => None,
        };
        fault.map(|fault| &fault.error)
    }
}

impl Reading<'_> {
    fn is_refused(&self) -> bool {
        self.fault.is_some_and(Fault::is_refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Status;

    #[test]
    fn a_missing_right_is_a_failure_only_if_the_other_kind_does_not_help() {
        let of = |code| {
            let status = Status {
                code,
                ..Status::default()
            };
            Fault::said("test", status, "me")
        };
        let (refused, outage) = (of(403), of(503));
        // Known and fault, of the slices and of the Service.
        let yes = (true, None);
        let not_yet = (false, None);
        let no = (false, Some(&refused));
        let frozen = (true, Some(&refused));
        let down = (true, Some(&outage));
        let never = (false, Some(&outage));
        for (slices, service, basis, code) in [
            (yes, yes, Basis::Both, None),
            (yes, not_yet, Basis::Nothing, None),
            (not_yet, yes, Basis::Nothing, None),
            (yes, no, Basis::Slices, None),
            (no, yes, Basis::Service, None),
            (no, not_yet, Basis::Nothing, None),
            (not_yet, no, Basis::Nothing, None),
            (no, no, Basis::Nothing, Some("403")),
            (frozen, not_yet, Basis::Nothing, None),
            (frozen, yes, Basis::Both, Some("403")),
            (frozen, no, Basis::Slices, Some("403")),
            (yes, frozen, Basis::Both, None),
            (down, yes, Basis::Both, Some("503")),
            (yes, down, Basis::Both, Some("503")),
            (yes, never, Basis::Nothing, Some("503")),
            (down, no, Basis::Slices, Some("503")),
            (never, never, Basis::Nothing, Some("503")),
        ] {
            let [slices, service] =
                [slices, service].map(|(known, fault)| Reading { known, fault });
            let sight = Sight { slices, service };
            assert_eq!(sight.basis(), basis);
            let said = sight.fault().map(|error| error.message().to_owned());
            assert_eq!(said.is_some(), code.is_some(), "{said:?} {code:?}");
            let code = code.unwrap_or_default();
            assert!(said.unwrap_or_default().starts_with(code), "{code}");
        }
    }
}
