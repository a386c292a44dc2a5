//! How a grammar is tried on a text: what is found is passed over, what isn't is gone back from, and
//! of what was expected at the farthest place the complaint is made.

use std::collections::BTreeSet;

/// A text, and how far it has been read.
pub(super) struct Parser<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
    pub(super) depth: usize,
    /// Inside of "not followed by": what is expected there is that something does *not* come.
    inverted: bool,
    farthest: usize,
    /// At the farthest place, as they are shown.
    expected: BTreeSet<String>,
    pub(super) faults: Vec<String>,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            depth: 0,
            inverted: false,
            farthest: 0,
            expected: BTreeSet::new(),
            faults: Vec::new(),
        }
    }

    pub(super) fn maybe_space(&mut self) {
        self.space();
    }

    pub(super) fn space(&mut self) -> bool {
        let start = self.at;
        while self.one(r"[ \t\r\n]", |c| " \t\r\n".contains(c)) {}
        self.at > start
    }

    pub(super) fn end(&mut self) -> bool {
        self.unless(|p| p.one(".", |_| true))
    }

    pub(super) fn any_but(&mut self, quote: &str) -> bool {
        self.unless(|p| p.literal(quote)) && self.one(".", |_| true)
    }

    pub(super) fn literal(&mut self, wanted: &str) -> bool {
        let found = self.text[self.at..].starts_with(wanted);
        self.note(found, || format!("{wanted:?}"));
        if found {
            self.at += wanted.len();
        }
        found
    }

    pub(super) fn one(&mut self, shown: &str, fits: impl Fn(char) -> bool) -> bool {
        let next = self.text[self.at..].chars().next();
        let found = next.filter(|c| fits(*c));
        self.note(found.is_some(), || shown.to_owned());
        self.at += found.map_or(0, char::len_utf8);
        found.is_some()
    }

    /// Tries a rule, and goes back if it doesn't hold.
    pub(super) fn attempt<T>(&mut self, rule: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let start = self.at;
        let found = rule(self);
        if found.is_none() {
            self.at = start;
        }
        found
    }

    /// Whether something does not follow.
    pub(super) fn unless(&mut self, rule: impl FnOnce(&mut Self) -> bool) -> bool {
        let start = self.at;
        self.inverted = !self.inverted;
        let found = rule(self);
        self.inverted = !self.inverted;
        self.at = start;
        !found
    }

    /// Takes note of a terminal that was tried here, for the complaint.
    fn note(&mut self, found: bool, shown: impl FnOnce() -> String) {
        if found != self.inverted || self.at < self.farthest {
            return;
        }
        if self.at > self.farthest {
            self.farthest = self.at;
            self.expected.clear();
        }
        let not = if self.inverted { "!" } else { "" };
        self.expected.insert(format!("{not}{}", shown()));
    }

    pub(super) fn blame_here(&mut self, rule: &str, what: &str) {
        self.blame(rule, what, self.at);
    }

    pub(super) fn blame(&mut self, rule: &str, what: &str, at: usize) {
        let fault = format!("{}: rule {rule:?}: {what}", self.place(at));
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    pub(super) fn complaint(mut self) -> String {
        if !self.faults.is_empty() {
            return self.faults.join("\n");
        }
        let place = self.place(self.farthest);
        let or_end = self.expected.remove("!.").then(|| "EOF".to_owned());
        let mut expected: Vec<String> = self.expected.into_iter().chain(or_end).collect();
        let last = expected.pop().unwrap_or_default();
        let list = match expected.is_empty() {
            true => last,
            false => format!("{} or {last}", expected.join(", ")),
        };
        format!("{place}: no match found, expected: {list}")
    }

    /// `line:column (offset)`, as Consul's parser counts.
    fn place(&self, at: usize) -> String {
        let before = &self.text[..at];
        let is_line_end = self.text[at..].starts_with('\n');
        let line = before.matches('\n').count() + 1 + usize::from(is_line_end);
        let column = match is_line_end {
            true => 0,
            false => {
                before
                    .rsplit('\n')
                    .next()
                    .unwrap_or_default()
                    .chars()
                    .count()
                    + 1
            }
        };
        format!("{line}:{column} ({at})")
    }
}
