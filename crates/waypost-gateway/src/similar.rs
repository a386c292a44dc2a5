//! Suggestions for mistyped names.

/// The number of names that are suggested.
const SUGGESTIONS: usize = 3;
/// Names longer than this are not compared.
const MAX_LENGTH: usize = 64;

/// The names most similar to a mistyped one, the most similar first. Unlike a list of all names, they
/// reveal little to strangers.
pub(crate) fn closest<'a>(typed: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    if typed.is_empty() || typed.len() > MAX_LENGTH {
        return Vec::new();
    }
    let allowed = 1 + typed.len() / 4;
    let mut close: Vec<_> = names
        .filter(|name| name.len().abs_diff(typed.len()) <= allowed)
        .map(|name| (strsim::osa_distance(typed, name), name))
        .filter(|(distance, _)| *distance <= allowed)
        .collect();
    close.sort_unstable();
    let closest = close.into_iter().take(SUGGESTIONS);
    closest.map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_name_gets_the_similar_one_and_an_unrelated_name_gets_none() {
        let names = ["auth", "billing", "bill", "orders", "order"];
        let found = |typed| closest(typed, names.into_iter());
        assert_eq!(found("oders"), ["orders", "order"]);
        assert_eq!(found("biling"), ["billing"]);
        assert_eq!(found("ordre"), ["order", "orders"]);
        assert_eq!(found("admin"), [""; 0]);
        assert_eq!(found(""), [""; 0]);
        // One character of three may differ, and two of four.
        for (typed, name, is_similar) in [
            ("abc", "abd", true),
            ("abc", "ade", false),
            ("abc", "abcd", true),
            ("abc", "abcde", false),
            ("abcd", "abef", true),
            ("abcd", "aefg", false),
            ("abcd", "abcdef", true),
            ("abcd", "abcdefg", false),
        ] {
            let found = closest(typed, std::iter::once(name));
            assert_eq!(!found.is_empty(), is_similar, "{typed} {name}");
        }
        let many = ["order1", "order4", "order3", "order2"];
        let found = closest("order", many.into_iter());
        assert_eq!(found, ["order1", "order2", "order3"]);
        for length in [MAX_LENGTH, MAX_LENGTH + 1] {
            let name = "x".repeat(length);
            let found = closest(&name, std::iter::once(&*name));
            assert_eq!(found.len(), usize::from(length <= MAX_LENGTH));
        }
    }
}
