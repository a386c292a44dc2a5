//! Which keys belong in which table of a stack file, for the errors of keys in the wrong table.

use toml::de::DeValue;

use crate::text::closest;

/// The tables of a stack file: the place of each, worded to follow "belongs", such as `in [waypost]`, and its keys.
#[derive(Clone, Debug)]
pub(super) struct Tables(pub(super) Vec<(&'static str, &'static [&'static str])>);

impl Tables {
    /// The error for a key that isn't among the `known` keys of its table. It says what would be right.
    pub(super) fn unknown_key(&self, key: &str, value: &DeValue<'_>, known: &[&str]) -> String {
        if let Some(places) = self.places(key) {
            return format!("`{key}` belongs {places}");
        }
        if let Some(meant) = closest(key, known.iter().copied()) {
            return format!("unknown key `{key}`; did you mean `{meant}`?");
        }
        if is_service(value) {
            return format!("unknown key `{key}`; the table of a service is [services.{key}]");
        }
        let all = self.0.iter().flat_map(|(_, keys)| *keys).copied();
        if let Some(meant) = closest(key, all)
            && let Some(places) = self.places(meant)
        {
            return format!("unknown key `{key}`; did you mean `{meant}`, which belongs {places}?");
        }
        format!(
            "unknown key `{key}`; the keys here are {}",
            known.join(", ")
        )
    }

    /// The places of the tables that have this key. `None` if there are none.
    fn places(&self, key: &str) -> Option<String> {
        let tables = self.0.iter().filter(|(_, keys)| keys.contains(&key));
        let places: Vec<_> = tables.map(|(place, _)| *place).collect();
        (!places.is_empty()).then(|| places.join(" or "))
    }
}

/// Whether a value is a table with keys of a service.
fn is_service(value: &DeValue<'_>) -> bool {
    let has = |key| {
        value
            .as_table()
            .is_some_and(|table| table.contains_key(key))
    };
    has("run") || has("external")
}
