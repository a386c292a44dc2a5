//! Consul's lenient reading of JSON bodies, and its strict refusal of what it can't read.
//!
//! Field names are compared without regard to case, `null` leaves a field as it is, what follows
//! the first value is ignored. A wrong type or an unknown field is refused with the words of Go's
//! JSON decoder, since clients show them to people; of several faults the first in the body wins.

mod authorization;
mod catalog;
mod check;
mod coordinate;
mod json;
mod operation;
mod service;
mod session;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

pub(crate) use authorization::authorizations;
pub(crate) use catalog::{CatalogDeregistration, CatalogRegistration, fault_of_uuid};
pub(crate) use check::{CheckDefinition, CheckKind, CheckUpdate};
pub(crate) use coordinate::CoordinateUpdate;
pub(crate) use json::Json;
pub(crate) use operation::operations;
pub(crate) use service::{ServiceDefinition, fault_of_meta};
pub(crate) use session::SessionDefinition;

/// What is wrong with a body; shown in Consul's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A value of another type than was wanted.
    Type {
        found: String,
        wanted: &'static str,
        /// Of which field, as Go calls it.
        field: Option<String>,
    },
    /// Anything else.
    Words(String),
}

/// A type that can be read from a JSON value.
pub(crate) trait Decode: Sized + Default {
    /// Reads the value, which is not `null`.
    fn decode(json: Json<'_>) -> Result<Self, Fault>;
}

/// The fields of an object, to be taken one by one. What is left at the end was unknown.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    /// What Go calls the structure in front of a field's name.
    context: &'static str,
    /// With their places in the body.
    left: Vec<(usize, Cow<'a, str>, Json<'a>)>,
    /// The first fault, by place in the body.
    fault: Option<(usize, Fault)>,
}

/// Reads the first JSON value of a body.
pub(crate) fn parse(body: &[u8]) -> Result<Json<'_>, Fault> {
    Json::parse(body).map_err(Fault::Words)
}

impl<'a> Fields<'a> {
    /// The fields of `json`, which must be an object; `null` is one without fields. `go_type` is
    /// what was wanted when it is something else altogether.
    pub(crate) fn of(
        json: Json<'a>,
        context: &'static str,
        go_type: &'static str,
    ) -> Result<Self, Fault> {
        let entries = match json {
            Json::Object(entries) => entries,
            Json::Null => Vec::new(),
            other => return Err(Fault::mismatch(&other, go_type)),
        };
        let left = entries.into_iter().enumerate();
        Ok(Self {
            context,
            left: left
                .map(|(place, (name, json))| (place, name, json))
                .collect(),
            fault: None,
        })
    }

    /// Takes a field, or its type's default if it is missing or can't be read.
    pub(crate) fn take<T: Decode>(&mut self, name: &str) -> T {
        self.take_any(&[name]).unwrap_or_default()
    }

    /// Takes a field that goes by several names; the last in the body wins, as in Go.
    pub(crate) fn take_any<T: Decode>(&mut self, names: &[&str]) -> Option<T> {
        self.take_with(names, |json| T::decode(json).map(Some))
    }

    /// Takes a field that is read by `decode`.
    pub(crate) fn take_with<T: Default>(
        &mut self,
        names: &[&str],
        decode: impl FnOnce(Json<'a>) -> Result<T, Fault>,
    ) -> T {
        let Some((place, json)) = self.take_json(names) else {
            return T::default();
        };
        decode(json).unwrap_or_else(|fault| {
            let own = fault.or_in_field(self.context, names[0]);
            self.blame(place, own);
            T::default()
        })
    }

    /// Takes a field whose type has a decoder of its own in Consul: Go then blames this field for
    /// whatever is of a wrong type inside it.
    pub(crate) fn take_opaque<T: Default>(
        &mut self,
        names: &[&str],
        decode: impl FnOnce(Json<'a>) -> Result<T, Fault>,
    ) -> T {
        self.take_with(names, |json| decode(json).map_err(Fault::without_field))
    }

    /// Checks that nothing was wrong and nothing is left.
    pub(crate) fn finish(mut self) -> Result<(), Fault> {
        if let Some((place, name, _)) = self.left.first() {
            let words = format!("json: unknown field {name:?}");
            self.blame(*place, Fault::Words(words));
        }
        self.finish_leniently()
    }

    /// Checks that nothing was wrong; what is left doesn't matter.
    pub(crate) fn finish_leniently(self) -> Result<(), Fault> {
        self.fault.map_or(Ok(()), |(_, fault)| Err(fault))
    }

    /// The field's last value that isn't `null`, and where it stands.
    fn take_json(&mut self, names: &[&str]) -> Option<(usize, Json<'a>)> {
        let mut found = None;
        self.left.retain_mut(|(place, name, json)| {
            let taken = names.iter().any(|wanted| wanted.eq_ignore_ascii_case(name));
            if taken && *json != Json::Null {
                found = Some((*place, std::mem::replace(json, Json::Null)));
            }
            !taken
        });
        found
    }

    fn blame(&mut self, place: usize, fault: Fault) {
        if self.fault.as_ref().is_none_or(|(first, _)| place < *first) {
            self.fault = Some((place, fault));
        }
    }
}

impl Fault {
    pub(crate) fn mismatch(found: &Json<'_>, wanted: &'static str) -> Self {
        Self::Type {
            found: found.kind().to_owned(),
            wanted,
            field: None,
        }
    }

    /// Blames a field of a structure, unless a field inside is blamed already.
    fn or_in_field(mut self, context: &str, name: &str) -> Self {
        if let Self::Type { field, .. } = &mut self {
            field.get_or_insert_with(|| format!("{context}.{name}"));
        }
        self
    }

    fn without_field(mut self) -> Self {
        if let Self::Type { field, .. } = &mut self {
            *field = None;
        }
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Words(words) => f.write_str(words),
            Self::Type {
                found,
                wanted,
                field: None,
            } => write!(
                f,
                "json: cannot unmarshal {found} into Go value of type {wanted}"
            ),
            Self::Type {
                found,
                wanted,
                field: Some(field),
            } => write!(
                f,
                "json: cannot unmarshal {found} into Go struct field {field} of type {wanted}"
            ),
        }
    }
}

impl Decode for String {
    fn decode(json: Json<'_>) -> Result<Self, Fault> {
        match json {
            Json::String(text) => Ok(text.into_owned()),
            other => Err(Fault::mismatch(&other, "string")),
        }
    }
}

impl Decode for bool {
    fn decode(json: Json<'_>) -> Result<Self, Fault> {
        match json {
            Json::Bool(value) => Ok(value),
            other => Err(Fault::mismatch(&other, "bool")),
        }
    }
}

impl Decode for i64 {
    fn decode(json: Json<'_>) -> Result<Self, Fault> {
        match json {
            Json::Number(number) => number.parse().map_err(|_| Fault::Type {
                found: format!("number {number}"),
                wanted: "int",
                field: None,
            }),
            other => Err(Fault::mismatch(&other, "int")),
        }
    }
}

impl Decode for u64 {
    fn decode(json: Json<'_>) -> Result<Self, Fault> {
        match json {
            Json::Number(number) => number.parse().map_err(|_| Fault::Type {
                found: format!("number {number}"),
                wanted: "uint64",
                field: None,
            }),
            other => Err(Fault::mismatch(&other, "uint64")),
        }
    }
}

impl Decode for Vec<String> {
    fn decode(json: Json<'_>) -> Result<Self, Fault> {
        match json {
            Json::Array(items) => items.into_iter().map(or_default).collect(),
            other => Err(Fault::mismatch(&other, "[]string")),
        }
    }
}

impl Decode for BTreeMap<String, String> {
    fn decode(json: Json<'_>) -> Result<Self, Fault> {
        decode_map(json, "map[string]string")
    }
}

impl Decode for BTreeMap<String, Vec<String>> {
    fn decode(json: Json<'_>) -> Result<Self, Fault> {
        decode_map(json, "map[string][]string")
    }
}

fn decode_map<T: Decode>(
    json: Json<'_>,
    go_type: &'static str,
) -> Result<BTreeMap<String, T>, Fault> {
    match json {
        Json::Object(entries) => entries
            .into_iter()
            .map(|(key, value)| Ok((key.into_owned(), or_default(value)?)))
            .collect(),
        other => Err(Fault::mismatch(&other, go_type)),
    }
}

/// `null` inside a list or a map is the type's default.
fn or_default<T: Decode>(json: Json<'_>) -> Result<T, Fault> {
    match json {
        Json::Null => Ok(T::default()),
        json => T::decode(json),
    }
}
