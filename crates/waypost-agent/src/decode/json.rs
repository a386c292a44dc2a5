//! Deserializes JSON by the rules of Go's `encoding/json`.
//!
//! Where Go's rules differ from serde's, [`from_slice`] follows Go's:
//!
//! - Field names are compared without regard to case.
//! - If a field occurs more than once, the last value that is not `null` is used.
//! - `null` stands for the zero value of any type: `""`, 0, `false`, an empty list or map, an
//!   object without fields, `None`.
//! - Bytes that are not UTF-8 and unpaired surrogate escapes are read as U+FFFD.
//! - Anything after the first value is ignored.
//!
//! Values nested more than 128 levels deep are refused (Go allows 10,000).

use std::borrow::Cow;
use std::{fmt, vec};

use serde::de::{
    Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, Error, IntoDeserializer,
    MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::Number;

const NEGATIVE_ZERO: u64 = (-0.0_f64).to_bits();

/// Why a body was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("invalid JSON: {0}")]
    Syntax(#[from] serde_json::Error),
    /// For example a value of the wrong type or an unknown field.
    #[error(transparent)]
    Value(#[from] ValueError),
}

/// What is wrong with a value, and the path to it, such as `Checks[1].TTL: invalid type`.
#[derive(Debug)]
pub(crate) struct ValueError {
    /// The fields and indices, the innermost first. Each array or object around the value adds its own.
    path: Vec<Step>,
    message: String,
}

#[derive(Debug)]
enum Step {
    Field(Cow<'static, str>),
    Index(usize),
}

/// Reads the first JSON value of a body.
pub(crate) fn from_slice<T: DeserializeOwned>(body: &[u8]) -> Result<T, DecodeError> {
    let text = String::from_utf8_lossy(body);
    let text = replace_unpaired_surrogates(&text);
    let json = Json::deserialize(&mut serde_json::Deserializer::from_str(&text))?;
    Ok(T::deserialize(json)?)
}

impl ValueError {
    fn within(mut self, step: Step) -> Self {
        self.path.push(step);
        self
    }
}

impl std::error::Error for ValueError {}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, step) in self.path.iter().rev().enumerate() {
            match step {
                Step::Field(name) if depth == 0 => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        let separator = if self.path.is_empty() { "" } else { ": " };
        write!(f, "{separator}{}", self.message)
    }
}

impl Error for ValueError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            path: Vec::new(),
            message: message.to_string(),
        }
    }
}

/// A JSON value that keeps all fields of an object, in their order and with repetitions.
#[derive(Clone, Debug, PartialEq)]
enum Json {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json, E> {
        let number = Number::from_f64(value);
        number
            .map(Json::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element()? {
            array.push(item);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            object.push(entry);
        }
        Ok(Json::Object(object))
    }
}

impl Json {
    fn not_an_object(&self) -> ValueError {
        let found = match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::Array(_) => "list",
            Self::Object(_) => "object",
        };
        ValueError::invalid_type(Unexpected::Other(found), &"an object")
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Null | Self::Bool(false) => true,
            Self::Bool(true) | Self::Number(_) => false,
            Self::String(text) => text.is_empty(),
            Self::Array(items) => items.is_empty(),
            Self::Object(entries) => entries.is_empty(),
        }
    }
}

/// Implements methods of `Deserializer` for types of which `null` is the zero value.
macro_rules! null_is_zero {
    ($($method:ident => $visit:ident($zero:expr);)*) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
                match self {
                    Self::Null => visitor.$visit($zero),
                    json => json.deserialize_any(visitor),
                }
            }
        )*
    };
}

impl<'de> Deserializer<'de> for Json {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Bool(value) => visitor.visit_bool(value),
            Self::Number(number) => {
                if let Some(value) = number.as_u64() {
                    visitor.visit_u64(value)
                } else if let Some(value) = number.as_i64() {
                    visitor.visit_i64(value)
                } else {
                    visitor.visit_f64(number.as_f64().unwrap_or_default())
                }
            }
            Self::String(text) => visitor.visit_string(text),
            Self::Array(items) => visitor.visit_seq(Items::new(items)),
            Self::Object(entries) => {
                let entries = entries.into_iter();
                let owned = entries.map(|(name, value)| (Cow::Owned(name), value));
                visitor.visit_map(Entries::new(owned.collect()))
            }
        }
    }

    null_is_zero! {
        deserialize_bool => visit_bool(false);
        deserialize_u64 => visit_u64(0);
        deserialize_f64 => visit_f64(0.0);
        deserialize_str => visit_str("");
        deserialize_string => visit_str("");
        deserialize_seq => visit_seq(Items::new(Vec::new()));
        deserialize_map => visit_map(Entries::new(Vec::new()));
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self {
            Self::Null => visitor.visit_i64(0),
            // serde_json parses `-0` as a float, Go as an integer.
            Self::Number(number) if number.as_f64().map(f64::to_bits) == Some(NEGATIVE_ZERO) => {
                visitor.visit_i64(0)
            }
            json => json.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self {
            Self::Null => visitor.visit_none(),
            json => visitor.visit_some(json),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        let entries = match self {
            Self::Object(entries) => match_fields(entries, fields),
            Self::Null => Vec::new(),
            other => return Err(other.not_an_object()),
        };
        visitor.visit_map(Entries::new(entries))
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u32 u128 f32 char bytes byte_buf unit unit_struct newtype_struct
        tuple tuple_struct enum identifier ignored_any
    }
}

/// Reads the items of an array. Errors get the index of their item.
struct Items(std::iter::Enumerate<vec::IntoIter<Json>>);

impl Items {
    fn new(items: Vec<Json>) -> Self {
        Self(items.into_iter().enumerate())
    }
}

impl<'de> SeqAccess<'de> for Items {
    type Error = ValueError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ValueError> {
        let Some((index, item)) = self.0.next() else {
            return Ok(None);
        };
        let item = seed.deserialize(item).map(Some);
        item.map_err(|error| error.within(Step::Index(index)))
    }
}

/// Reads the entries of an object. Errors get the name of their entry.
struct Entries {
    rest: vec::IntoIter<(Cow<'static, str>, Json)>,
    /// The entry whose key was read last.
    current: Option<(Cow<'static, str>, Json)>,
}

impl Entries {
    fn new(entries: Vec<(Cow<'static, str>, Json)>) -> Self {
        Self {
            rest: entries.into_iter(),
            current: None,
        }
    }
}

impl<'de> MapAccess<'de> for Entries {
    type Error = ValueError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ValueError> {
        let Some((name, value)) = self.rest.next() else {
            return Ok(None);
        };
        let key = seed.deserialize((&*name).into_deserializer()).map(Some);
        let key = key.map_err(|error: ValueError| error.within(Step::Field(name.clone())));
        self.current = Some((name, value));
        key
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, ValueError> {
        let Some((name, value)) = self.current.take() else {
            return Err(ValueError::custom("a value was read before its key"));
        };
        let value = seed.deserialize(value);
        value.map_err(|error| error.within(Step::Field(name)))
    }
}

/// Renames the entries of an object to the fields of a type, so that each field occurs once at most.
/// Entries that match no field come last.
///
/// Fields whose names differ only in underscores, such as `ServiceID` and `service_id`, are aliases.
/// If both occur, the one that is listed first is used unless it is empty, as in Consul.
fn match_fields(
    entries: Vec<(String, Json)>,
    fields: &'static [&'static str],
) -> Vec<(Cow<'static, str>, Json)> {
    let mut known: Vec<Option<Json>> = vec![None; fields.len()];
    let mut unknown = Vec::new();
    for (name, value) in entries {
        let field = fields.iter().position(|it| it.eq_ignore_ascii_case(&name));
        match field {
            Some(field) if known[field].is_none() || value != Json::Null => {
                known[field] = Some(value);
            }
            Some(_) => {}
            None => unknown.push((Cow::Owned(name), value)),
        }
    }
    let without_underscores = |name: &&str| name.replace('_', "").to_ascii_lowercase();
    let plain: Vec<String> = fields.iter().map(without_underscores).collect();
    for alias in 0..fields.len() {
        let first = plain.iter().position(|name| *name == plain[alias]);
        if let Some(first) = first.filter(|first| *first < alias)
            && known[first].as_ref().is_none_or(Json::is_empty)
            && let Some(value) = known[alias].take()
        {
            known[first] = Some(value);
        } else if first != Some(alias) {
            known[alias] = None;
        }
    }
    let known = fields.iter().zip(known);
    let known = known.filter_map(|(name, value)| Some((Cow::Borrowed(*name), value?)));
    known.chain(unknown).collect()
}

/// Replaces escapes such as `\ud83d` that are not one half of a surrogate pair by `\ufffd`.
fn replace_unpaired_surrogates(text: &str) -> Cow<'_, str> {
    let unit = |text: &str| {
        let digits = text.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let mut replaced = Cow::Borrowed("");
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        replaced += before;
        let (length, by) = match (unit(escape), escape.get(6..).and_then(unit)) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => (12, None),
            (Some(0xd800..0xe000), _) => (6, Some("\\ufffd")),
            // The backslash and what it escapes.
            _ => (
                1 + escape[1..].chars().next().map_or(0, char::len_utf8),
                None,
            ),
        };
        let (escape, after) = escape.split_at(length);
        replaced += by.unwrap_or(escape);
        rest = after;
    }
    if replaced.is_empty() {
        return Cow::Borrowed(text);
    }
    replaced += rest;
    replaced
}

/// Deserializes a field as `Some`, even if it is `null`, so that `None` means that it is missing.
pub(super) fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
    struct Record {
        name: String,
        port: i64,
        #[serde(alias = "with_alias")]
        with_alias: bool,
        tags: Vec<String>,
        meta: BTreeMap<String, i64>,
        inner: Option<Box<Record>>,
        #[serde(deserialize_with = "present")]
        given: Option<Option<i64>>,
    }

    fn read(body: &str) -> Result<Record, String> {
        from_slice(body.as_bytes()).map_err(|error| error.to_string())
    }

    fn named(name: &str) -> Result<Record, String> {
        Ok(Record {
            name: name.to_owned(),
            ..Record::default()
        })
    }

    #[test]
    fn field_names_match_without_regard_to_case() {
        assert_eq!(read(r#"{"nAME":"a"}"#), named("a"));
        let inner = read(r#"{"INNER":{"name":"a"}}"#).unwrap().inner;
        assert_eq!(inner.map(|inner| *inner), named("a").ok());
        let meta = read(r#"{"meta":{"Key":1,"key":2}}"#).unwrap().meta;
        assert_eq!(meta.len(), 2, "keys of maps are kept as they are");
    }

    #[test]
    fn the_last_value_of_a_repeated_field_is_used_unless_it_is_null() {
        assert_eq!(read(r#"{"Name":"a","name":"b","NAME":null}"#), named("b"));
    }

    #[test]
    fn the_first_of_two_aliases_is_used_unless_it_is_empty() {
        for (body, expected) in [
            (r#"{"WithAlias":true,"with_alias":false}"#, true),
            (r#"{"With_Alias":true,"withALIAS":false}"#, true),
            (r#"{"with_alias":true}"#, true),
        ] {
            assert_eq!(read(body).unwrap().with_alias, expected, "{body}");
        }
        assert!(read(r#"{"WithAli_as":true}"#).is_err());
    }

    #[test]
    fn null_is_the_zero_value_of_every_type() {
        let body = r#"{"Name":null,"Port":null,"WithAlias":null,"Tags":null,"Meta":null,
            "Inner":null}"#;
        assert_eq!(read(body), Ok(Record::default()));
        assert_eq!(read("null"), Ok(Record::default()));
        let record = read(r#"{"Tags":[null],"Meta":{"a":null},"Given":null}"#).unwrap();
        assert_eq!(record.tags, [""]);
        assert_eq!(record.meta["a"], 0);
        assert_eq!(record.given, Some(None));
    }

    #[test]
    fn only_the_first_value_of_a_body_is_read() {
        assert_eq!(read(r#" {"Name":"a"} and {"Name": more"#), named("a"));
    }

    #[test]
    fn invalid_utf8_and_unpaired_surrogates_are_replaced() {
        for (text, expected) in [
            (r"a\n\u00e9\ud83d\ude00", "a\né😀"),
            (r"\ud83dx\ude00\ud83d", "\u{fffd}x\u{fffd}\u{fffd}"),
            (r"\ud83d\ud83d\ude00", "\u{fffd}😀"),
            (r"\\ud83d", r"\ud83d"),
        ] {
            assert_eq!(read(&format!(r#"{{"Name":"{text}"}}"#)), named(expected));
        }
        let name: String = from_slice(b"\"a\xff\"").unwrap();
        assert_eq!(name, "a\u{fffd}");
    }

    #[test]
    fn negative_zero_is_an_integer() {
        assert_eq!(read(r#"{"Port":-0}"#), Ok(Record::default()));
    }

    #[test]
    fn errors_name_the_path_of_the_field() {
        for (body, error) in [
            (
                r#"{"inner":{"tags":["a",1]}}"#,
                "Inner.Tags[1]: invalid type: integer `1`, expected a string",
            ),
            (
                r#"{"Meta":{"a":1.5}}"#,
                "Meta.a: invalid type: floating point `1.5`, expected i64",
            ),
            (
                r#"{"Port":9223372036854775808}"#,
                "Port: invalid value: integer `9223372036854775808`, expected i64",
            ),
            (
                r#"{"Inner":[]}"#,
                "Inner: invalid type: list, expected an object",
            ),
            (r#"[]"#, "invalid type: list, expected an object"),
            (
                r#"{"Name":"a""#,
                "invalid JSON: EOF while parsing an object at line 1 column 11",
            ),
        ] {
            assert_eq!(read(body), Err(error.to_owned()), "{body}");
        }
        let unknown = read(r#"{"Inner":{"Nope":1}}"#).unwrap_err();
        assert!(
            unknown.starts_with("Inner.Nope: unknown field `Nope`, expected"),
            "{unknown}"
        );
    }

    #[test]
    fn bodies_that_end_early_or_nest_deeply_are_refused() {
        for body in [
            "", "{", "[1,", "\"a", "\"\\", "\"\\u1", "-", "1.", "tr", "{\"a\":",
        ] {
            assert!(from_slice::<Json>(body.as_bytes()).is_err(), "{body}");
        }
        let deep = "[".repeat(100_000);
        assert!(from_slice::<Json>(deep.as_bytes()).is_err());
    }
}
