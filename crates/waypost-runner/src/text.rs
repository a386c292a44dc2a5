//! Lists, durations and suggestions as they appear in messages.

use std::time::Duration;

/// Names in quotes, separated by commas: `` `a`, `b`, `c` ``.
pub(crate) fn quoted(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// A duration rounded for reading: `30 ms`, `2.5 s`, `12 s`.
pub(crate) fn rounded(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        ..1.0 => format!("{} ms", duration.as_millis()),
        1.0..9.95 if seconds.fract() >= 0.05 => format!("{seconds:.1} s"),
        _ => format!("{seconds:.0} s"),
    }
}

/// The candidate closest to the word, if the word is likely a typing error of it: one error is allowed
/// per three letters, and at least one.
pub(crate) fn closest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| {
            let distance = strsim::osa_distance(&word, &candidate.to_lowercase());
            (distance, candidate)
        })
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_at_most_two_digits_below_ten_seconds() {
        for (millis, expected) in [
            (30, "30 ms"),
            (999, "999 ms"),
            (1000, "1 s"),
            (2500, "2.5 s"),
            (3020, "3 s"),
            (3060, "3.1 s"),
            (9940, "9.9 s"),
            (9999, "10 s"),
            (10_000, "10 s"),
            (12_345, "12 s"),
        ] {
            assert_eq!(rounded(Duration::from_millis(millis)), expected);
        }
    }

    #[test]
    fn a_name_is_suggested_for_one_error_in_three_letters() {
        let names = ["orders", "order-history", "db", "web"];
        for (word, expected) in [
            ("order", Some("orders")),
            ("ORDERS", Some("orders")),
            ("odrers", Some("orders")),
            ("oredrz", Some("orders")),
            ("ozzzrs", None),
            ("wbe", Some("web")),
            ("wxx", None),
            ("b", Some("db")),
            ("order-hstry", Some("order-history")),
            ("x", None),
        ] {
            assert_eq!(closest(word, names), expected, "{word}");
        }
        assert_eq!(quoted(&["a".to_owned(), "b".to_owned()]), "`a`, `b`");
    }
}
