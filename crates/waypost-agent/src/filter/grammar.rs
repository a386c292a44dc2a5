//! The grammar, as a parsing expression grammar whose alternatives are tried in Consul's order. An
//! expression that can't be read is answered with what was expected at the farthest place that
//! any alternative reached: every terminal that was tried there.

use super::parser::Parser;
use crate::go::unquote;

/// An expression.
#[derive(Debug)]
pub(super) enum Tree {
    Not(Box<Tree>),
    And(Vec<Tree>),
    Or(Vec<Tree>),
    Match(Match),
}

#[derive(Debug)]
pub(super) struct Match {
    pub selector: Vec<String>,
    pub operator: Operator,
    /// Empty for the operators that have none.
    pub value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    In,
    NotIn,
    IsEmpty,
    IsNotEmpty,
    Matches,
    NotMatches,
}

/// Deeper nesting than this is refused.
const DEEPEST: usize = 64;

/// The operators between a selector and a value, in the order in which they are tried.
const BEFORE_VALUE: &[(&[&str], Operator)] = &[
    (&["=="], Operator::Equal),
    (&["!="], Operator::NotEqual),
    (&["contains"], Operator::In),
    (&["not", "contains"], Operator::NotIn),
    (&["matches"], Operator::Matches),
    (&["not", "matches"], Operator::NotMatches),
];
const AFTER_SELECTOR: &[(&[&str], Operator)] = &[
    (&["is", "empty"], Operator::IsEmpty),
    (&["is", "not", "empty"], Operator::IsNotEmpty),
];
const BEFORE_SELECTOR: &[(&[&str], Operator)] =
    &[(&["in"], Operator::In), (&["not", "in"], Operator::NotIn)];

impl Operator {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Equal => "Equal",
            Self::NotEqual => "Not Equal",
            Self::In => "In",
            Self::NotIn => "Not In",
            Self::IsEmpty => "Is Empty",
            Self::IsNotEmpty => "Is Not Empty",
            Self::Matches => "Matches",
            Self::NotMatches => "Not Matches",
        }
    }
}

/// Reads an expression. The error is what Consul's parser says.
pub(super) fn parse(text: &str) -> Result<Tree, String> {
    let mut parser = Parser::new(text);
    let tree = parser.input();
    match tree {
        Some(tree) if parser.faults.is_empty() => Ok(tree),
        _ => Err(parser.complaint()),
    }
}

impl Parser<'_> {
    fn input(&mut self) -> Option<Tree> {
        let in_parentheses = self.attempt(|p| {
            p.maybe_space();
            p.literal("(").then_some(())?;
            p.maybe_space();
            let tree = p.or()?;
            p.maybe_space();
            p.literal(")").then_some(())?;
            p.maybe_space();
            p.end().then_some(tree)
        });
        in_parentheses.or_else(|| {
            self.attempt(|p| {
                p.maybe_space();
                let tree = p.or()?;
                p.maybe_space();
                p.end().then_some(tree)
            })
        })
    }

    fn or(&mut self) -> Option<Tree> {
        self.joined("or", Self::and, Tree::Or)
    }

    fn and(&mut self) -> Option<Tree> {
        self.joined("and", Self::not, Tree::And)
    }

    /// Operands with a word between them, side by side: however many, they nest no deeper.
    fn joined(
        &mut self,
        word: &str,
        operand: fn(&mut Self) -> Option<Tree>,
        join: fn(Vec<Tree>) -> Tree,
    ) -> Option<Tree> {
        let first = operand(self)?;
        let mut rest = Vec::new();
        while let Some(next) = self.attempt(|p| {
            (p.space() && p.literal(word) && p.space()).then_some(())?;
            operand(p)
        }) {
            rest.push(next);
        }
        if rest.is_empty() {
            return Some(first);
        }
        rest.insert(0, first);
        Some(join(rest))
    }

    fn not(&mut self) -> Option<Tree> {
        let negated = self.attempt(|p| {
            (p.literal("not") && p.space()).then_some(())?;
            p.deeper(Self::not)
        });
        match negated {
            Some(tree) => Some(Tree::Not(Box::new(tree))),
            None => self.grouping(),
        }
    }

    fn grouping(&mut self) -> Option<Tree> {
        let start = self.at;
        if self.literal("(") {
            self.maybe_space();
            if let Some(tree) = self.deeper(Self::or) {
                self.maybe_space();
                if self.literal(")") {
                    return Some(tree);
                }
                self.blame_here("grouping", "Unmatched parentheses");
            }
        }
        self.at = start;
        self.matching()
    }

    fn matching(&mut self) -> Option<Tree> {
        let found = self
            .attempt(|p| {
                let selector = p.selector()?;
                let operator = p.operator(BEFORE_VALUE)?;
                Some((selector, operator, p.value()?))
            })
            .or_else(|| {
                self.attempt(|p| {
                    let selector = p.selector()?;
                    let operator = p.operator(AFTER_SELECTOR)?;
                    Some((selector, operator, String::new()))
                })
            })
            .or_else(|| {
                self.attempt(|p| {
                    let value = p.value()?;
                    let operator = p.operator(BEFORE_SELECTOR)?;
                    let selector = p.selector();
                    if selector.is_none() {
                        p.blame_here("match", "Invalid selector");
                    }
                    Some((selector?, operator, value))
                })
            });
        found.map(|(selector, operator, value)| {
            Tree::Match(Match {
                selector,
                operator,
                value,
            })
        })
    }

    fn operator(&mut self, operators: &[(&[&str], Operator)]) -> Option<Operator> {
        operators.iter().find_map(|(words, operator)| {
            let is_sign = !words[0].starts_with(|c: char| c.is_ascii_alphabetic());
            let takes_value = !words.ends_with(&["empty"]);
            self.attempt(|p| {
                for word in *words {
                    (p.space() || is_sign).then_some(())?;
                    p.literal(word).then_some(())?;
                }
                let ends = !takes_value || p.space() || is_sign;
                ends.then_some(*operator)
            })
        })
    }

    fn selector(&mut self) -> Option<Vec<String>> {
        let mut names = vec![self.identifier()?];
        while let Some(name) = self.member().or_else(|| self.index()) {
            names.push(name);
        }
        Some(names)
    }

    fn member(&mut self) -> Option<String> {
        self.attempt(|p| p.literal(".").then(|| p.identifier())?)
    }

    fn identifier(&mut self) -> Option<String> {
        let start = self.at;
        self.one("[a-zA-Z]", |c| c.is_ascii_alphabetic())
            .then_some(())?;
        while self.one("[a-zA-Z0-9_]", |c| c.is_ascii_alphanumeric() || c == '_') {}
        Some(self.text[start..self.at].to_owned())
    }

    fn index(&mut self) -> Option<String> {
        self.attempt(|p| {
            p.literal("[").then_some(())?;
            p.maybe_space();
            let before = p.at;
            let Some(name) = p.string() else {
                p.at = before;
                p.blame_here("index", "Invalid index");
                return None;
            };
            p.maybe_space();
            if !p.literal("]") {
                p.blame_here("index", "Unclosed index expression");
                return None;
            }
            Some(name)
        })
    }

    fn value(&mut self) -> Option<String> {
        let selector = self.attempt(Self::selector);
        selector
            .map(|names| names.join("."))
            .or_else(|| self.number())
            .or_else(|| self.string())
    }

    fn number(&mut self) -> Option<String> {
        let start = self.at;
        self.attempt(|p| {
            p.literal("-");
            if !p.literal("0") {
                p.one("[1-9]", |c| ('1'..='9').contains(&c)).then_some(())?;
                p.digits();
            }
            let _ = p.attempt(|p| (p.literal(".") && p.digits() > 0).then_some(()));
            let end = p.at;
            let ends = p.space() || p.end() || p.literal(")");
            p.at = end;
            if !ends {
                p.blame_here("number", "Invalid number literal");
            }
            ends.then(|| p.text[start..end].to_owned())
        })
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.one("[0-9]", |c| c.is_ascii_digit()) {}
        self.at - start
    }

    fn string(&mut self) -> Option<String> {
        let start = self.at;
        for quote in ["`", "\""] {
            if !self.literal(quote) {
                continue;
            }
            while self.any_but(quote) {}
            if !self.literal(quote) {
                self.blame_here("string", "Unterminated string literal");
                self.at = start;
                return None;
            }
            let inside = &self.text[start + 1..self.at - 1];
            let unquoted = match quote {
                "`" => Some(inside.replace('\r', "")),
                _ => unquote(inside),
            };
            return Some(unquoted.unwrap_or_else(|| {
                self.blame("string", "invalid syntax", start);
                String::new()
            }));
        }
        None
    }

    fn deeper(&mut self, rule: fn(&mut Self) -> Option<Tree>) -> Option<Tree> {
        if self.depth == DEEPEST {
            self.blame_here("grouping", "Nested too deeply");
            return None;
        }
        self.depth += 1;
        let found = rule(self);
        self.depth -= 1;
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_expected_is_said_as_consul_says_it() {
        for (text, complaint) in [
            (
                "foo bar",
                r#"1:5 (4): no match found, expected: "!=", "==", "contains", "in", "is", "matches", "not" or [ \t\r\n]"#,
            ),
            (
                "a == b)",
                r#"1:7 (6): no match found, expected: ".", "[", [ \t\r\n], [a-zA-Z0-9_] or EOF"#,
            ),
            (
                "(a == b",
                r#"1:8 (7): rule "grouping": Unmatched parentheses"#,
            ),
            (
                "a == 8x",
                r#"1:7 (6): rule "number": Invalid number literal"#,
            ),
            (
                "a == \"b",
                r#"1:8 (7): rule "string": Unterminated string literal"#,
            ),
            ("a[0] == 1", r#"1:3 (2): rule "index": Invalid index"#),
            ("a in 80", r#"1:6 (5): rule "match": Invalid selector"#),
            (
                "a\nb",
                r#"2:1 (2): no match found, expected: "!=", "==", "contains", "in", "is", "matches", "not" or [ \t\r\n]"#,
            ),
        ] {
            assert_eq!(parse(text).map(|_| ()), Err(complaint.to_owned()), "{text}");
        }
    }
}
