//! Case folding of names.

/// The key of a name in the catalog. Consul compares names without regard to case.
pub(crate) fn fold_case(name: &str) -> String {
    name.to_lowercase()
}
