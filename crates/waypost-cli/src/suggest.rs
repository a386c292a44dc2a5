//! "Did you mean": finds the closest valid word.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Commands of similar programs, and their equivalents in Waypost.
const ELSEWHERE: [(&str, &str); 7] = [
    ("serve", "waypost up"),
    ("get", "waypost instances NAME"),
    ("show", "waypost instances NAME"),
    ("describe", "waypost instances NAME"),
    ("health", "waypost doctor"),
    ("diagnose", "waypost doctor"),
    ("install", "waypost registry install"),
];

/// The candidate that is closest to the word, if it is close enough: at most one typing error for every
/// three letters, but at least one is allowed.
pub(crate) fn closest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Replaces clap's suggestions, which include words that only share a prefix.
pub(crate) fn improve(mut error: clap::Error) -> clap::Error {
    let text = |value: &ContextValue| match value {
        ContextValue::String(text) => vec![text.clone()],
        ContextValue::Strings(texts) => texts.clone(),
        _ => Vec::new(),
    };
    let word_kind = match error.kind() {
        ErrorKind::InvalidSubcommand => ContextKind::InvalidSubcommand,
        ErrorKind::UnknownArgument => ContextKind::InvalidArg,
        ErrorKind::InvalidValue => ContextKind::InvalidValue,
        _ => return error,
    };
    let Some(word) = error.get(word_kind).map(text).and_then(|mut it| it.pop()) else {
        return error;
    };
    for kind in [
        ContextKind::SuggestedSubcommand,
        ContextKind::SuggestedArg,
        ContextKind::SuggestedValue,
    ] {
        if let Some(suggested) = error.remove(kind) {
            let suggested = text(&suggested);
            if let Some(meant) = closest(&word, suggested.iter().map(String::as_str)) {
                error.insert(kind, ContextValue::String(meant.to_owned()));
            }
        }
    }
    let elsewhere = ELSEWHERE.iter().find(|(name, _)| *name == word);
    if error.kind() == ErrorKind::InvalidSubcommand
        && let Some((_, here)) = elsewhere
    {
        error.remove(ContextKind::SuggestedSubcommand);
        let tip = format!("use {here}").into();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    }
    error
}

/// The number of insertions, deletions, substitutions and swaps of adjacent letters that turn one word
/// into the other (optimal string alignment), ignoring case.
fn distance(a: &str, b: &str) -> usize {
    let letters = |word: &str| word.to_lowercase().chars().collect::<Vec<_>>();
    let (a, b) = (letters(a), letters(b));
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let substitution = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = substitution.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_word_is_found_and_a_distant_one_is_not() {
        let services = ["ai-models", "api-gateway", "billing", "ui"];
        for (word, meant) in [
            ("ai-model", Some("ai-models")),
            ("ai-modles", Some("ai-models")),
            ("Billing", Some("billing")),
            ("gateway", None),
            ("iu", Some("ui")),
            ("restart", None),
            ("", None),
        ] {
            assert_eq!(closest(word, services), meant, "{word}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
