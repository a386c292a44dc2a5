//! A routes file as values with positions, parsed from YAML or TOML, and a deserialiser that reads routes
//! from them.
//!
//! The deserialisers of the two libraries describe a wrong value by its Rust type (`expected struct
//! Timeouts`), each in its own way. This one says what to write instead. It reports
//! an unknown key as [`Problem::UnknownKey`], so that the caller can suggest what was meant. Each type is also
//! compiled for one deserialiser instead of one per library.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::ops::{Range, RangeInclusive};
use std::path::Path;

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_saphyr::Spanned;
use toml::de::{DeTable, DeValue};
use waypost::{ConfigError, parse_yaml};

/// The number of keys that an error names as examples.
const MAX_EXAMPLES: usize = 4;

/// A parsed file.
pub(super) struct Document<'t> {
    path: &'t Path,
    text: &'t str,
    syntax: Syntax,
    root: Node,
}

/// TOML if the file's name ends in `.toml`, otherwise YAML. Errors use its terms.
#[derive(Clone, Copy, PartialEq)]
enum Syntax {
    Yaml,
    Toml,
}

/// A value in a file.
pub(super) struct Node {
    /// Where it begins, in bytes. For an alias in YAML, the position of the alias.
    start: usize,
    /// The text of a scalar, in bytes.
    span: Range<usize>,
    value: Value,
}

enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    String(String),
    List(Vec<Node>),
    Table(Vec<(Key, Node)>),
}

struct Key {
    start: usize,
    name: String,
}

/// What is wrong with a value, and where.
#[derive(Debug)]
pub(super) struct ReadError {
    /// In bytes. `None` until the reader of the value around it adds its position.
    start: Option<usize>,
    pub(super) problem: Problem,
}

#[derive(Debug)]
pub(super) enum Problem {
    /// A key that its table doesn't have.
    UnknownKey {
        key: String,
        known: &'static [&'static str],
    },
    Other(String),
}

impl<'t> Document<'t> {
    /// # Errors
    /// If the text is not YAML or TOML.
    pub(super) fn parse(path: &'t Path, text: &'t str) -> Result<Self, ConfigError> {
        let is_toml = path.extension().is_some_and(|ending| ending == "toml");
        let (syntax, root) = if is_toml {
            let table = DeTable::parse(text).map_err(|error| {
                let start = error.span().map_or(0, |span| span.start);
                located(path, line_and_column(text, start), &error.message())
            })?;
            let span = table.span();
            let root = Node::from_toml(span, DeValue::Table(table.into_inner()));
            (Syntax::Toml, root)
        } else {
            (Syntax::Yaml, parse_yaml(path.display(), text)?)
        };
        Ok(Self {
            path,
            text,
            syntax,
            root,
        })
    }

    /// The items of the list at the only key that the file may have. An empty file has no items.
    ///
    /// # Errors
    /// If the file has another key, or no list.
    pub(super) fn list(&self, key: &'static [&'static str; 1]) -> Result<&[Node], ReadError> {
        let [name] = *key;
        let expected = |node: &Node| {
            let example = match self.syntax {
                Syntax::Yaml => format!("`{name}:` and a list whose items begin with `- `"),
                Syntax::Toml => format!("tables that each begin with [[{name}]]"),
            };
            ReadError::at(node.start, format!("expected {example}"))
        };
        let entries = match &self.root.value {
            Value::Null => return Ok(&[]),
            Value::Table(entries) => entries,
            _ => return Err(expected(&self.root)),
        };
        if let Some((unknown, _)) = entries.iter().find(|(key, _)| key.name != name) {
            return Err(ReadError::unknown_key(unknown, key));
        }
        match entries.first().map(|(_, list)| (list, &list.value)) {
            None | Some((_, Value::Null)) => Ok(&[]),
            Some((_, Value::List(items))) => Ok(items),
            Some((other, _)) => Err(expected(other)),
        }
    }

    /// # Errors
    /// If the value doesn't describe a `T`.
    pub(super) fn read<T: DeserializeOwned>(&self, node: &Node) -> Result<T, ReadError> {
        let reader = Reader {
            text: self.text,
            syntax: self.syntax,
            node,
        };
        T::deserialize(reader).map_err(|error| error.within(node.start))
    }

    /// The line and the column of a value, from 1.
    pub(super) fn position(&self, node: &Node) -> (u64, u64) {
        line_and_column(self.text, node.start)
    }

    /// An error of this file. `describe` words the problem.
    pub(super) fn error(
        &self,
        error: &ReadError,
        describe: impl FnOnce(&Problem) -> String,
    ) -> ConfigError {
        let start = error.start.unwrap_or(self.root.start);
        let position = line_and_column(self.text, start);
        located(self.path, position, &describe(&error.problem))
    }
}

/// The keys of the tables that a struct is read from.
pub(super) fn keys<T: DeserializeOwned>() -> &'static [&'static str] {
    // A key that no struct has: the error lists those that it has.
    let unknown = Key {
        start: 0,
        name: String::new(),
    };
    let node = Node::new(0, Value::Null);
    let reader = Reader {
        text: "",
        syntax: Syntax::Yaml,
        node: &Node::new(0, Value::Table(vec![(unknown, node)])),
    };
    match T::deserialize(reader).map_err(|error| error.problem) {
        Err(Problem::UnknownKey { known, .. }) => known,
        _ => &[],
    }
}

/// An error at a line and column of a file.
pub(super) fn located(
    path: &Path,
    (line, column): (u64, u64),
    problem: &dyn Display,
) -> ConfigError {
    let location = format!("{}:{line}:{column}", path.display());
    ConfigError::new(location, problem.to_string())
}

/// The line and the column in characters, from 1, of a position in bytes.
fn line_and_column(text: &str, at: usize) -> (u64, u64) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() as u64 + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (line, before[start..].chars().count() as u64 + 1)
}

impl Node {
    fn new(start: usize, value: Value) -> Self {
        Self {
            start,
            span: 0..0,
            value,
        }
    }

    fn from_toml(span: Range<usize>, value: DeValue<'_>) -> Self {
        let value = match value {
            DeValue::String(text) => Value::String(text.into_owned()),
            DeValue::Boolean(value) => Value::Bool(value),
            DeValue::Integer(number) => {
                let number = i128::from_str_radix(number.as_str(), number.radix());
                // More than 128 bits are out of the range of every number of a file.
                Value::Integer(number.unwrap_or(i128::MAX))
            }
            DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Datetime(time) => Value::String(time.to_string()),
            DeValue::Array(items) => {
                let items = items.into_iter();
                let items = items.map(|item| Self::from_toml(item.span(), item.into_inner()));
                Value::List(items.collect())
            }
            DeValue::Table(entries) => {
                let entry = |(key, value): (toml::Spanned<_>, toml::Spanned<DeValue<'_>>)| {
                    let start = key.span().start;
                    let name: Cow<'_, str> = key.into_inner();
                    let name = name.into_owned();
                    let value = Self::from_toml(value.span(), value.into_inner());
                    (Key { start, name }, value)
                };
                let mut entries: Vec<_> = entries.into_iter().map(entry).collect();
                entries.sort_by_key(|(key, _)| key.start);
                Value::Table(entries)
            }
        };
        Self {
            start: span.start,
            span,
            value,
        }
    }
}

/// Reads YAML.
impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        let text = spanned.defined.span();
        let start = text.byte_offset().unwrap_or_default() as usize;
        let end = start + text.byte_len().unwrap_or_default() as usize;
        let referenced = spanned.referenced.span().byte_offset();
        Ok(Self {
            start: referenced.map_or(start, |offset| offset as usize),
            span: start..end,
            value: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<String>::deserialize(deserializer)?;
        Ok(Self {
            start: spanned.referenced.span().byte_offset().unwrap_or_default() as usize,
            name: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;

        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Integer(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(Value::Integer(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value::Float(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value::String(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Value::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
                let mut table = Vec::new();
                while let Some(entry) = entries.next_entry()? {
                    table.push(entry);
                }
                Ok(Value::Table(table))
            }
        }

        deserializer.deserialize_any(ValueVisitor)
    }
}

impl ReadError {
    fn new(message: impl Into<String>) -> Self {
        Self {
            start: None,
            problem: Problem::Other(message.into()),
        }
    }

    fn at(start: usize, message: impl Into<String>) -> Self {
        Self::new(message).within(start)
    }

    fn unknown_key(key: &Key, known: &'static [&'static str]) -> Self {
        Self {
            start: Some(key.start),
            problem: Problem::UnknownKey {
                key: key.name.clone(),
                known,
            },
        }
    }

    /// Adds the position of a value in which the error arose, unless it is already more precise.
    fn within(mut self, start: usize) -> Self {
        self.start.get_or_insert(start);
        self
    }
}

impl std::error::Error for ReadError {}

impl Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            Problem::UnknownKey { key, .. } => write!(f, "unknown key {key:?}"),
            Problem::Other(message) => f.write_str(message),
        }
    }
}

impl de::Error for ReadError {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(match found {
            Unexpected::Str(text) => format!("expected {expected}, not {text:?}"),
            Unexpected::Unit => format!("there is no value; expected {expected}"),
            Unexpected::Seq => format!("expected {expected}, not a list"),
            Unexpected::Bool(value) => format!("expected {expected}, not {value}"),
            _ => format!("expected {expected}"),
        })
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        Self::new(format!(
            "{variant:?} is unknown; use one of {}",
            known.join(", ")
        ))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("the key `{field}` is missing"))
    }
}

/// Deserialises a value.
#[derive(Clone, Copy)]
struct Reader<'a> {
    text: &'a str,
    syntax: Syntax,
    node: &'a Node,
}

impl<'a> Reader<'a> {
    fn child(self, node: &'a Node) -> Self {
        Self { node, ..self }
    }

    fn expected<T>(&self, what: &str) -> Result<T, ReadError> {
        let is_missing = matches!(self.node.value, Value::Null);
        let prefix = if is_missing {
            "there is no value; "
        } else {
            ""
        };
        Err(ReadError::new(format!("{prefix}expected {what}")))
    }

    fn integer(&self, range: RangeInclusive<i128>) -> Result<i128, ReadError> {
        match self.node.value {
            Value::Integer(number) if range.contains(&number) => Ok(number),
            _ if *range.end() >= i128::from(u64::MAX) => {
                self.expected("a whole number of 0 or more")
            }
            _ => self.expected(&format!(
                "a whole number from {} to {}",
                range.start(),
                range.end()
            )),
        }
    }

    /// The entries of a table. `keys` are examples for the error.
    fn table(&self, keys: &[&str]) -> Result<&'a [(Key, Node)], ReadError> {
        if let Value::Table(entries) = &self.node.value {
            return Ok(entries);
        }
        let name = match self.syntax {
            Syntax::Yaml => "mapping",
            Syntax::Toml => "table",
        };
        match keys {
            [] => self.expected(&format!("a {name} of names to values")),
            keys => {
                let examples = keys[..keys.len().min(MAX_EXAMPLES)].join(", ");
                self.expected(&format!("a {name} with keys such as {examples}"))
            }
        }
    }
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(number) => match (u64::try_from(*number), i64::try_from(*number)) {
                (Ok(number), _) => visitor.visit_u64(number),
                (_, Ok(number)) => visitor.visit_i64(number),
                _ => visitor.visit_i128(*number),
            },
            Value::Float(number) => visitor.visit_f64(*number),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Table(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.node.value {
            Value::Bool(value) => visitor.visit_bool(value),
            _ => self.expected("true or false"),
        }
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let number = self.integer(0..=u32::MAX.into())?;
        visitor.visit_u32(u32::try_from(number).unwrap_or(u32::MAX))
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let number = self.integer(0..=u64::MAX.into())?;
        visitor.visit_u64(u64::try_from(number).unwrap_or(u64::MAX))
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.node.value {
            Value::Float(number) => visitor.visit_f64(number),
            Value::Integer(number) => visitor.visit_f64(number as f64),
            _ => self.expected("a number"),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::String(text) => visitor.visit_borrowed_str(text),
            // `version: 1.10` means the text 1.10 and not the number 1.1.
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) if self.syntax == Syntax::Yaml => {
                match self.text.get(self.node.span.clone()) {
                    Some(text) => visitor.visit_borrowed_str(text),
                    None => self.expected("a string in quotes"),
                }
            }
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {
                self.expected("a string in quotes")
            }
            _ => self.expected("a string"),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::String(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            _ => self.expected(&format!("one of {}", known.join(", "))),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::List(items) => visitor.visit_seq(Items(self, items.iter())),
            _ => self.expected("a list, such as [a, b]"),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let entries = self.table(&[])?;
        visitor.visit_map(Entries(self, entries.iter(), None))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let entries = self.table(known)?;
        let unknown = |(key, _): &&(Key, Node)| !known.contains(&key.name.as_str());
        if let Some((key, _)) = entries.iter().find(unknown) {
            return Err(ReadError::unknown_key(key, known));
        }
        visitor.visit_map(Entries(self, entries.iter(), None))
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u128 f32 char bytes byte_buf unit unit_struct tuple
        tuple_struct identifier ignored_any
    }
}

struct Items<'a>(Reader<'a>, std::slice::Iter<'a, Node>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ReadError> {
        let Some(node) = self.1.next() else {
            return Ok(None);
        };
        let item = seed.deserialize(self.0.child(node));
        item.map(Some).map_err(|error| error.within(node.start))
    }
}

/// The entries of a table, and the value that comes next.
struct Entries<'a>(
    Reader<'a>,
    std::slice::Iter<'a, (Key, Node)>,
    Option<&'a Node>,
);

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ReadError> {
        let Some((key, node)) = self.1.next() else {
            return Ok(None);
        };
        self.2 = Some(node);
        let name = seed.deserialize(key.name.as_str().into_deserializer());
        name.map(Some)
            .map_err(|error: ReadError| error.within(key.start))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let Some(node) = self.2.take() else {
            return Err(ReadError::new("a value was read before its key"));
        };
        let value = seed.deserialize(self.0.child(node));
        value.map_err(|error| error.within(node.start))
    }
}
