//! Compares printed output with the output in a page.

/// Whether `actual` is what the page shows. `…` in a line of the page stands for any text, and a line of `…`
/// alone for any lines. The amount of white space doesn't matter, since columns depend on their content. With
/// `numbers_vary`, all numbers are equal.
pub(crate) fn matches(expected: &str, actual: &str, numbers_vary: bool) -> bool {
    let prepare = |text: &str| -> Vec<String> {
        let lines = text.lines().map(|line| normalised(line, numbers_vary));
        lines.filter(|line| !line.is_empty()).collect()
    };
    lines_match(&prepare(expected), &prepare(actual))
}

fn lines_match(expected: &[String], actual: &[String]) -> bool {
    match (expected.split_first(), actual.split_first()) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some((first, rest)), _) if first == "…" => {
            (0..=actual.len()).any(|skipped| lines_match(rest, &actual[skipped..]))
        }
        (Some(_), None) => false,
        (Some((first, expected)), Some((line, actual))) => {
            line_matches(first, line) && lines_match(expected, actual)
        }
    }
}

fn line_matches(expected: &str, actual: &str) -> bool {
    let mut parts = expected.split('…');
    let Some(mut rest) = actual.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut last = None;
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        last = Some(part);
        rest = &rest[at + part.len()..];
    }
    // An ellipsis at the end stands for the rest of the line.
    rest.is_empty() || last.is_some_and(|part| part.is_empty() || actual.ends_with(part))
}

fn normalised(line: &str, numbers_vary: bool) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    if !numbers_vary {
        return words.join(" ");
    }
    let mut shown: Vec<String> = Vec::new();
    for word in words {
        let word = number_free(word);
        // `3s` or `0.5 %`, or `-` as long as there is no figure.
        let is_unit = ["%", "s", "ms"].contains(&word.as_str());
        if is_unit && shown.last().is_some_and(|last| last == "0") {
            continue;
        }
        shown.push(match word.as_str() {
            "-" | "0s" | "0M" => "0".to_owned(),
            _ => word,
        });
    }
    shown.join(" ")
}

/// The word with `0` instead of each number.
fn number_free(word: &str) -> String {
    let mut shown = String::new();
    let mut in_number = false;
    for c in word.chars() {
        if c.is_ascii_digit() || (in_number && c == '.') {
            if !in_number {
                shown.push('0');
            }
            in_number = true;
        } else {
            in_number = false;
            shown.push(c);
        }
    }
    shown
}

#[test]
fn ellipses_stand_for_text_and_for_lines() {
    assert!(matches("pid … runs", "pid 12 runs\n", false));
    assert!(!matches("pid … runs", "pid 12 ended\n", false));
    assert!(matches("a\n…\nd", "a\nb\nc\nd", false));
    assert!(matches("ab…", "abc", false));
    assert!(!matches("a", "a\nb", false));
    assert!(matches(
        "NAME   UP\nweb    3s",
        "NAME UP\nweb 3s\n\n",
        false
    ));
}

#[test]
fn numbers_are_compared_unless_they_vary() {
    assert!(!matches("in 0.5 s", "in 12 s", false));
    assert!(matches("in 0.5 s", "in 12 s", true));
    assert!(matches("up 3s  -  8 %", "up 12s 5M -", true));
    assert!(!matches("2 ready", "3 failed", true));
}
