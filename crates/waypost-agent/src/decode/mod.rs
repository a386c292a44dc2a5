//! Consul's lenient reading of JSON bodies, and its strict refusal of what it can't read.
//!
//! Field names are compared without regard to case, `null` leaves a field as it is, what follows
//! the first value is ignored. A wrong type or an unknown field is refused with the words of Go's
//! JSON decoder, since clients show them to people; of several faults the first in the body wins.

mod check;
mod json;
mod service;

pub(crate) use check::{CheckDefinition, CheckKind, CheckUpdate};
pub(crate) use json::Json;
pub(crate) use service::ServiceDefinition;

use std::collections::BTreeMap;

/// What is wrong with a body, in Consul's words.
pub(crate) type Fault = String;

/// A type that can be read from a JSON value.
pub(crate) trait Decode: Sized + Default {
    /// What Go calls it.
    const GO_TYPE: &'static str;

    /// Reads the value, which is not `null`.
    fn decode(json: Json) -> Result<Self, Mismatch>;
}

/// A value of another type than was wanted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    found: String,
    wanted: &'static str,
}

/// The fields of an object, to be taken one by one. What is left at the end was unknown.
#[derive(Debug)]
pub(crate) struct Fields {
    context: &'static str,
    /// With their places in the body.
    left: Vec<(usize, String, Json)>,
    /// The first fault, by place in the body.
    fault: Option<(usize, Fault)>,
}

/// Reads the first JSON value of a body.
pub(crate) fn parse(body: &[u8]) -> Result<Json, Fault> {
    Json::parse(body)
}

impl Fields {
    /// The fields of `json`, which must be an object; `null` is one without fields. `context` is
    /// what Go calls the structure in its messages, `go_type` when it is something else altogether.
    pub(crate) fn of(
        json: Json,
        context: &'static str,
        go_type: &'static str,
    ) -> Result<Self, Fault> {
        let entries = match json {
            Json::Object(entries) => entries,
            Json::Null => Vec::new(),
            other => {
                let kind = other.kind();
                return Err(format!(
                    "json: cannot unmarshal {kind} into Go value of type {go_type}"
                ));
            }
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
        let (place, json) = self.take_json(names)?;
        match T::decode(json) {
            Ok(value) => Some(value),
            Err(Mismatch { found, wanted }) => {
                let context = self.context;
                let name = names[0];
                self.blame(
                    place,
                    format!(
                        "json: cannot unmarshal {found} into Go struct field {context}.{name} of type {wanted}"
                    ),
                );
                None
            }
        }
    }

    /// Takes a field that has a structure of its own, read by `decode`.
    pub(crate) fn take_with<T: Default>(
        &mut self,
        names: &[&str],
        decode: impl FnOnce(Json) -> Result<T, Fault>,
    ) -> T {
        let Some((place, json)) = self.take_json(names) else {
            return T::default();
        };
        decode(json).unwrap_or_else(|fault| {
            self.blame(place, fault);
            T::default()
        })
    }

    /// Checks that nothing was wrong and nothing is left.
    pub(crate) fn finish(mut self) -> Result<(), Fault> {
        if let Some((place, name, _)) = self.left.first() {
            let (place, fault) = (*place, format!("json: unknown field {name:?}"));
            self.blame(place, fault);
        }
        match self.fault {
            Some((_, fault)) => Err(fault),
            None => Ok(()),
        }
    }

    /// The field's last value that isn't `null`, and where it stands.
    fn take_json(&mut self, names: &[&str]) -> Option<(usize, Json)> {
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

impl Mismatch {
    fn new(found: &Json, wanted: &'static str) -> Self {
        Self {
            found: found.kind().to_owned(),
            wanted,
        }
    }
}

impl Decode for String {
    const GO_TYPE: &'static str = "string";

    fn decode(json: Json) -> Result<Self, Mismatch> {
        match json {
            Json::String(text) => Ok(text),
            other => Err(Mismatch::new(&other, Self::GO_TYPE)),
        }
    }
}

impl Decode for bool {
    const GO_TYPE: &'static str = "bool";

    fn decode(json: Json) -> Result<Self, Mismatch> {
        match json {
            Json::Bool(value) => Ok(value),
            other => Err(Mismatch::new(&other, Self::GO_TYPE)),
        }
    }
}

impl Decode for i64 {
    const GO_TYPE: &'static str = "int";

    fn decode(json: Json) -> Result<Self, Mismatch> {
        match json {
            Json::Number(number) => number.as_i64().ok_or_else(|| Mismatch {
                found: format!("number {number}"),
                wanted: Self::GO_TYPE,
            }),
            other => Err(Mismatch::new(&other, Self::GO_TYPE)),
        }
    }
}

impl Decode for Vec<String> {
    const GO_TYPE: &'static str = "[]string";

    fn decode(json: Json) -> Result<Self, Mismatch> {
        match json {
            Json::Array(items) => items.into_iter().map(or_default).collect(),
            other => Err(Mismatch::new(&other, Self::GO_TYPE)),
        }
    }
}

impl Decode for BTreeMap<String, String> {
    const GO_TYPE: &'static str = "map[string]string";

    fn decode(json: Json) -> Result<Self, Mismatch> {
        decode_map(json, Self::GO_TYPE)
    }
}

impl Decode for BTreeMap<String, Vec<String>> {
    const GO_TYPE: &'static str = "map[string][]string";

    fn decode(json: Json) -> Result<Self, Mismatch> {
        decode_map(json, Self::GO_TYPE)
    }
}

fn decode_map<T: Decode>(
    json: Json,
    go_type: &'static str,
) -> Result<BTreeMap<String, T>, Mismatch> {
    match json {
        Json::Object(entries) => entries
            .into_iter()
            .map(|(key, value)| Ok((key, or_default(value)?)))
            .collect(),
        other => Err(Mismatch::new(&other, go_type)),
    }
}

/// `null` inside a list or a map is the type's default.
fn or_default<T: Decode>(json: Json) -> Result<T, Mismatch> {
    match json {
        Json::Null => Ok(T::default()),
        json => T::decode(json),
    }
}
