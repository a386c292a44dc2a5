//! Which Services' objects an informer follows, and the selectors that request them.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::resources::SERVICE_NAME_LABEL;

/// The Services whose objects are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The Services of these names, in any of the namespaces.
    Services(BTreeSet<Arc<str>>),
    All,
}

/// A query parameter, `labelSelector` or `fieldSelector`, and its value.
pub(crate) type Selector = (&'static str, String);

impl Scope {
    pub(crate) fn empty() -> Self {
        Self::Services(BTreeSet::new())
    }

    pub(crate) fn includes(&self, service: &str) -> bool {
        match self {
            Self::All => true,
            Self::Services(names) => names.contains(service),
        }
    }

    pub(crate) fn is_within(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::All) => true,
            (Self::All, _) => false,
            (Self::Services(these), Self::Services(those)) => these.is_subset(those),
        }
    }

    /// Selects EndpointSlices by the label that names their Service; `None` selects all.
    pub(crate) fn label_selector(&self) -> Option<Selector> {
        let Self::Services(names) = self else {
            return None;
        };
        let names: Vec<_> = names.iter().map(|name| &**name).collect();
        let value = match &names[..] {
            [name] => format!("{SERVICE_NAME_LABEL}={name}"),
            names => format!("{SERVICE_NAME_LABEL} in ({})", names.join(",")),
        };
        Some(("labelSelector", value))
    }

    /// Selects one Service by its name; `None` selects all. A field selector cannot name several.
    pub(crate) fn field_selector(&self) -> Option<Selector> {
        match self {
            Self::Services(names) if names.len() == 1 => {
                Some(("fieldSelector", format!("metadata.name={}", names.first()?)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services(names: &[&str]) -> Scope {
        Scope::Services(names.iter().map(|name| Arc::from(*name)).collect())
    }

    #[test]
    fn a_scope_is_within_another_that_has_all_its_services() {
        let (none, one, two) = (Scope::empty(), services(&["a"]), services(&["a", "b"]));
        for (inner, outer, expected) in [
            (&none, &one, true),
            (&one, &two, true),
            (&two, &one, false),
            (&services(&["c"]), &two, false),
            (&two, &Scope::All, true),
            (&Scope::All, &Scope::All, true),
            (&Scope::All, &two, false),
        ] {
            assert_eq!(inner.is_within(outer), expected, "{inner:?} {outer:?}");
        }
        assert!(two.includes("b") && !two.includes("c") && Scope::All.includes("c"));
    }

    #[test]
    fn slices_are_selected_by_their_label_and_a_service_by_its_name() {
        let label = |scope: &Scope| scope.label_selector().map(|(_, value)| value);
        let field = |scope: &Scope| scope.field_selector().map(|(_, value)| value);
        let one = services(&["a"]);
        assert_eq!(label(&one).as_deref(), Some("kubernetes.io/service-name=a"));
        assert_eq!(field(&one).as_deref(), Some("metadata.name=a"));
        let two = services(&["b", "a"]);
        assert_eq!(
            label(&two).as_deref(),
            Some("kubernetes.io/service-name in (a,b)")
        );
        assert_eq!(field(&two), None);
        assert_eq!((label(&Scope::All), field(&Scope::All)), (None, None));
    }
}
