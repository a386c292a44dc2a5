//! The forms in which objects are given: whole, their metadata alone, or a table.

use serde_json::{Value, json};

use super::table;
use crate::http::{Call, Form, Status};
use crate::kinds::Kind;
use crate::store::Object;

/// How one request wants objects.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    pub kind: &'static Kind,
    form: Form,
    /// What a table has beside its cells.
    include: Include,
}

#[derive(Clone, Copy, Debug)]
enum Include {
    None,
    Metadata,
    Object,
}

const META: &str = "meta.k8s.io/v1";

impl Shown {
    pub(super) fn of(call: &Call, kind: &'static Kind) -> Result<Self, Status> {
        let include = match call.query.get("includeObject") {
            "None" => Include::None,
            "Object" => Include::Object,
            _ => Include::Metadata,
        };
        let form = match call.form()? {
            Form::Discovery => return Err(Status::not_acceptable()),
            form => form,
        };
        Ok(Self {
            kind,
            form,
            include,
        })
    }

    /// One object; a watch sends a table's columns but once.
    pub(super) fn one(self, object: &Object, with_columns: bool) -> Vec<u8> {
        match self.form {
            Form::Table => {
                let revision = object.revision.to_string();
                let mut table =
                    self.table([object].into_iter(), json!({ "resourceVersion": revision }));
                if !with_columns {
                    table["columnDefinitions"] = Value::Null;
                }
                table.to_string().into_bytes()
            }
            Form::Metadata => metadata(object).to_string().into_bytes(),
            _ => object.whole(self.kind),
        }
    }

    /// A list with this metadata.
    pub(super) fn list<'a>(
        self,
        objects: impl Iterator<Item = &'a Object> + Clone,
        meta: Value,
    ) -> Vec<u8> {
        match self.form {
            Form::Table => self.table(objects, meta).to_string().into_bytes(),
            Form::Metadata => json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": META,
                "metadata": meta,
                "items": objects.map(metadata).collect::<Value>(),
            })
            .to_string()
            .into_bytes(),
            _ => self.plain_list(objects, &meta),
        }
    }

    fn plain_list<'a>(
        self,
        objects: impl Iterator<Item = &'a Object> + Clone,
        meta: &Value,
    ) -> Vec<u8> {
        let head = format!(
            r#"{{"kind":"{}List","apiVersion":"{}","metadata":{meta},"items":["#,
            self.kind.name,
            self.kind.api_version()
        );
        let length: usize = objects.clone().map(|it| it.json.len() + 1).sum();
        let mut list = Vec::with_capacity(head.len() + length + 2);
        list.extend_from_slice(head.as_bytes());
        for (number, object) in objects.enumerate() {
            if number > 0 {
                list.push(b',');
            }
            list.extend_from_slice(&object.json);
        }
        list.extend_from_slice(b"]}");
        list
    }

    /// An object that says only how far a watch has come.
    pub(super) fn bookmark(self, revision: u64, ends_initial: bool) -> Vec<u8> {
        let mut meta = json!({ "resourceVersion": revision.to_string() });
        if ends_initial {
            meta["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let Kind { name, zero, .. } = self.kind;
        let api_version = self.kind.api_version();
        match self.form {
            Form::Table => self.bookmark_table(&meta).to_string().into_bytes(),
            Form::Metadata => json!({
                "kind": "PartialObjectMetadata", "apiVersion": META, "metadata": meta,
            })
            .to_string()
            .into_bytes(),
            _ => format!(
                r#"{{"kind":"{name}","apiVersion":"{api_version}","metadata":{meta}{zero}}}"#
            )
            .into_bytes(),
        }
    }

    fn bookmark_table(self, meta: &Value) -> Value {
        let revision = json!({ "resourceVersion": meta["resourceVersion"] });
        let object = json!({
            "kind": "PartialObjectMetadata", "apiVersion": META, "metadata": meta,
        });
        json!({
            "kind": "Table",
            "apiVersion": META,
            "metadata": revision,
            "columnDefinitions": null,
            "rows": [{ "cells": [], "object": object }],
        })
    }

    fn table<'a>(self, objects: impl Iterator<Item = &'a Object>, meta: Value) -> Value {
        let rows = objects.map(|object| {
            let mut row = json!({ "cells": table::cells(self.kind, &object.value()) });
            match self.include {
                Include::None => {}
                Include::Metadata => row["object"] = metadata(object),
                Include::Object => {
                    let mut value = object.value();
                    value["kind"] = self.kind.name.into();
                    value["apiVersion"] = self.kind.api_version().into();
                    row["object"] = value;
                }
            }
            row
        });
        json!({
            "kind": "Table",
            "apiVersion": META,
            "metadata": meta,
            "columnDefinitions": table::columns(self.kind),
            "rows": rows.collect::<Value>(),
        })
    }
}

fn metadata(object: &Object) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": META,
        "metadata": object.value()["metadata"].take(),
    })
}
