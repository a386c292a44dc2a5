//! The text of a stack file, with the positions of its parts and its problems.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};
use serde::forward_to_deserialize_any;
use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue};

use super::tables::Tables;

/// Something that is wrong with a stack file. It displays as `FILE:LINE:COLUMN: MESSAGE`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The problem, and how to correct it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            column,
            message,
        } = self;
        write!(f, "{}:{line}:{column}: {message}", file.display())
    }
}

/// A part of a path to a value: a key of a table or an index of an array.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

impl<'a> From<&'a str> for Step<'a> {
    fn from(key: &'a str) -> Self {
        Self::Key(key)
    }
}

impl From<usize> for Step<'_> {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// A parsed TOML document. It collects the problems.
pub(super) struct Document<'t> {
    file: &'t Path,
    text: &'t str,
    tables: Tables,
    root: Spanned<DeTable<'t>>,
    problems: Vec<Problem>,
}

/// A type whose values are tables of a stack file. Its tables are read key by key, so that each key can
/// have an error of its own.
pub(super) trait Section: DeserializeOwned + Default {
    /// Reads the value of a key that is itself a section, in order to find every error in it. Returns
    /// false if the value of this key is anything else.
    fn nested(_key: &str, _table: &Spanned<DeTable<'_>>, _document: &mut Errors<'_>) -> bool {
        false
    }
}

/// Collects errors by position.
pub(super) struct Errors<'t> {
    file: &'t Path,
    text: &'t str,
    tables: Tables,
    problems: Vec<Problem>,
}

impl Errors<'_> {
    fn push(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.problems
            .push(problem(self.file, self.text, span.start, message.into()));
    }
}

impl<'t> Document<'t> {
    /// Parses the text. Syntax errors are among the problems. `tables` says where keys in the wrong table belong.
    pub(super) fn parse(file: &'t Path, text: &'t str, tables: Tables) -> Self {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut problems: Vec<Problem> = errors
            .iter()
            .map(|error| {
                let start = error.span().map_or(0, |span| span.start);
                problem(file, text, start, error.message().to_owned())
            })
            .collect();
        // One mistake often causes several errors of the parser on the same line.
        let mut lines = HashSet::new();
        problems.retain(|problem| lines.insert(problem.line));
        Self {
            file,
            text,
            tables,
            root,
            problems,
        }
    }

    /// Reads the keys of the document other than `elsewhere`. A key with an error is left out, and the
    /// error is added to the problems.
    pub(super) fn read<T: Section>(&mut self, elsewhere: &str) -> T {
        let mut table = self.root.get_ref().clone();
        table.remove(elsewhere);
        let table = Spanned::new(self.root.span(), table);
        self.collect(|errors| read_table(&table, errors))
    }

    /// Reads the tables below a key, in the order of the file. A table with an error is `None`, and the
    /// error is added to the problems.
    pub(super) fn read_each<T: Section>(&mut self, key: &str) -> Vec<(String, Option<T>)> {
        let Some(tables) = self.root.get_ref().get(key).cloned() else {
            return Vec::new();
        };
        let span = tables.span();
        self.collect(|errors| {
            let DeValue::Table(tables) = tables.into_inner() else {
                errors.push(span, format!("expected tables such as [{key}.NAME]"));
                return Vec::new();
            };
            let mut tables: Vec<_> = tables.into_iter().collect();
            tables.sort_by_key(|(name, _)| name.span().start);
            let read = |(name, value): (Spanned<DeString<'_>>, Spanned<DeValue<'_>>)| {
                let name = name.get_ref();
                let span = value.span();
                let before = errors.problems.len();
                let DeValue::Table(table) = value.into_inner() else {
                    let is_key = field_names::<T>().contains(&&**name);
                    errors.push(
                        span,
                        if is_key {
                            format!("`{name}` belongs in a table such as [{key}.NAME]")
                        } else {
                            format!("expected a table: [{key}.{name}]")
                        },
                    );
                    return (name.to_string(), None);
                };
                let table = read_table(&Spanned::new(span, table), errors);
                let is_good = errors.problems.len() == before;
                (name.to_string(), is_good.then_some(table))
            };
            tables.into_iter().map(read).collect()
        })
    }

    fn collect<T>(&mut self, read: impl FnOnce(&mut Errors<'_>) -> T) -> T {
        let mut errors = Errors {
            file: self.file,
            text: self.text,
            tables: self.tables.clone(),
            problems: std::mem::take(&mut self.problems),
        };
        let value = read(&mut errors);
        self.problems = errors.problems;
        value
    }

    /// Adds a problem with the value at a path, or with the nearest part of the path that exists.
    pub(super) fn problem(&mut self, path: &[Step<'_>], message: impl Into<String>) {
        let start = position(&self.root, path);
        self.problems
            .push(problem(self.file, self.text, start, message.into()));
    }

    /// Adds a problem of another file that this one refers to.
    pub(super) fn add(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// All problems, in the order of the file.
    pub(super) fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort();
        self.problems.dedup();
        self.problems
    }
}

/// Reads a table key by key.
pub(super) fn read_table<T: Section>(table: &Spanned<DeTable<'_>>, errors: &mut Errors<'_>) -> T {
    let known = field_names::<T>();
    let mut good = DeTable::new();
    for (key, value) in table.get_ref() {
        if !known.is_empty() && !known.contains(&&**key.get_ref()) {
            let tables = &errors.tables;
            let message = tables.unknown_key(key.get_ref(), value.get_ref(), known);
            errors.push(key.span(), message);
            continue;
        }
        let before = errors.problems.len();
        let is_section = match value.get_ref() {
            DeValue::Table(nested) => {
                let nested = Spanned::new(value.span(), nested.clone());
                T::nested(key.get_ref(), &nested, errors)
            }
            _ => false,
        };
        if !is_section {
            let mut single = DeTable::new();
            single.insert(key.clone(), value.clone());
            if let Err(error) = deserialize::<T>(single, table.span()) {
                let span = error.span().unwrap_or_else(|| value.span());
                errors.push(span, sentence(error.message()));
            }
        }
        if errors.problems.len() == before {
            good.insert(key.clone(), value.clone());
        }
    }
    // Each key was already read successfully on its own.
    deserialize(good, table.span()).unwrap_or_default()
}

fn deserialize<T: DeserializeOwned>(
    table: DeTable<'_>,
    span: Range<usize>,
) -> Result<T, toml::de::Error> {
    T::deserialize(toml::de::Deserializer::from(Spanned::new(span, table)))
}

/// A message of serde without line breaks.
fn sentence(message: &str) -> String {
    message.trim().replace('\n', "; ")
}

fn problem(file: &Path, text: &str, start: usize, message: String) -> Problem {
    let before = text.get(..start.min(text.len())).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    Problem {
        file: file.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        message,
    }
}

/// Where the value at a path begins. A table that has no braces begins at its header.
fn position(root: &Spanned<DeTable<'_>>, path: &[Step<'_>]) -> usize {
    let mut start = root.span().start;
    let mut table = Some(root.get_ref());
    let mut array = None;
    for step in path {
        let value = match step {
            Step::Key(key) => {
                let entry = table.and_then(|table| {
                    table
                        .iter()
                        .find(|(known, _)| known.get_ref().as_ref() == *key)
                });
                let Some((key, value)) = entry else { break };
                start = match value.get_ref() {
                    DeValue::Table(_) => key.span().start,
                    _ => value.span().start,
                };
                value
            }
            Step::Index(index) => {
                let Some(value) = array.and_then(|array: &DeArray<'_>| array.get(*index)) else {
                    break;
                };
                start = value.span().start;
                value
            }
        };
        table = value.get_ref().as_table();
        array = value.get_ref().as_array();
    }
    start
}

/// The keys of a section, as its `Deserialize` implementation requests them. Empty if it accepts any key.
pub(super) fn field_names<T: DeserializeOwned>() -> &'static [&'static str] {
    struct Asked<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Asked<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(Self::Error::custom("only structs have names of fields"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            self.deserialize_any(visitor)
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut fields: &'static [&'static str] = &[];
    // It always fails, but only after it has passed on the names.
    let _ = T::deserialize(Asked(&mut fields));
    fields
}
