//! Server-side apply: fields belong to those who applied them. Lists belong as a whole to one.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::merge::merge;
use crate::app::now;
use crate::http::Status;
use crate::kinds::Kind;

/// What nobody owns.
const UNOWNED: [&str; 4] = ["name", "namespace", "resourceVersion", "uid"];

/// Paths to leaves, and their values.
type Leaves = BTreeMap<Vec<String>, Value>;

/// The object that a first apply makes.
pub(super) fn first(kind: &Kind, configuration: &Value, manager: &str) -> Value {
    let mut object = configuration.clone();
    object["metadata"]["managedFields"] = json!([entry(kind, configuration, manager)]);
    object
}

/// The object that a further apply makes: what the manager applied before and doesn't now goes.
pub(super) fn again(
    kind: &Kind,
    mut object: Value,
    configuration: &Value,
    manager: &str,
    force: bool,
) -> Result<Value, Status> {
    let wanted = leaves(configuration);
    let entries = object["metadata"]["managedFields"].as_array().cloned();
    let mut entries = entries.unwrap_or_default();
    let mut conflicts = Vec::new();
    for entry in entries.iter_mut().filter(|it| it["manager"] != manager) {
        let owner = entry["manager"].as_str().unwrap_or_default().to_owned();
        let owned = owned(&entry["fieldsV1"]);
        let taken: Vec<&Vec<String>> = owned
            .iter()
            .filter(|path| {
                wanted
                    .get(*path)
                    .is_some_and(|it| at(&object, path) != Some(it))
            })
            .collect();
        if force {
            let left: Vec<_> = owned.iter().filter(|it| !taken.contains(it)).collect();
            entry["fieldsV1"] = fields(left.into_iter());
        } else {
            conflicts.extend(taken.iter().map(|path| (owner.clone(), dotted(path))));
        }
    }
    if !conflicts.is_empty() {
        return Err(Status::apply_conflict(&conflicts));
    }
    let own = entries.iter().position(|it| it["manager"] == manager);
    if let Some(own) = own {
        let before = owned(&entries[own]["fieldsV1"]);
        let others: Vec<_> = entries
            .iter()
            .enumerate()
            .filter(|(place, _)| *place != own)
            .flat_map(|(_, entry)| owned(&entry["fieldsV1"]))
            .collect();
        for path in &before {
            if !wanted.contains_key(path) && !others.contains(path) {
                remove(&mut object, path);
            }
        }
    }
    merge(&mut object, configuration);
    let mut new = entry(kind, configuration, manager);
    match own {
        // Without a change the time stays, or every apply would be one.
        Some(own) if entries[own]["fieldsV1"] == new["fieldsV1"] => {
            new["time"] = entries[own]["time"].clone();
            entries[own] = new;
        }
        Some(own) => entries[own] = new,
        None => entries.push(new),
    }
    object["metadata"]["managedFields"] = entries.into();
    Ok(object)
}

fn entry(kind: &Kind, configuration: &Value, manager: &str) -> Value {
    json!({
        "manager": manager,
        "operation": "Apply",
        "apiVersion": kind.api_version(),
        "time": now(),
        "fieldsType": "FieldsV1",
        "fieldsV1": fields(leaves(configuration).keys()),
    })
}

/// All that is no object, or is an empty one.
fn leaves(object: &Value) -> Leaves {
    fn walk(value: &Value, path: &mut Vec<String>, into: &mut Leaves) {
        match value.as_object().filter(|it| !it.is_empty()) {
            Some(map) => {
                for (name, value) in map {
                    let is_unowned = *path == ["metadata"] && UNOWNED.contains(&name.as_str());
                    if !is_unowned {
                        path.push(name.clone());
                        walk(value, path, into);
                        path.pop();
                    }
                }
            }
            None => {
                into.insert(path.clone(), value.clone());
            }
        }
    }
    let mut found = Leaves::new();
    walk(object, &mut Vec::new(), &mut found);
    found
}

/// Paths as `managedFields` has them: `{"f:spec":{"f:type":{}}}`.
fn fields<'a>(paths: impl Iterator<Item = &'a Vec<String>>) -> Value {
    let mut root = json!({});
    for path in paths {
        let mut place = &mut root;
        for name in path {
            place = &mut place[format!("f:{name}")];
            if place.is_null() {
                *place = json!({});
            }
        }
    }
    root
}

fn owned(fields: &Value) -> Vec<Vec<String>> {
    let leaves = leaves(fields).into_keys();
    let name = |it: String| it.strip_prefix("f:").map(str::to_owned).unwrap_or(it);
    leaves
        .map(|path| path.into_iter().map(name).collect())
        .collect()
}

fn at<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, name| value.get(name))
}

fn remove(object: &mut Value, path: &[String]) {
    let Some((name, parents)) = path.split_last() else {
        return;
    };
    let parent = parents
        .iter()
        .try_fold(object, |value, name| value.get_mut(name));
    if let Some(map) = parent.and_then(Value::as_object_mut) {
        let map: &mut Map<String, Value> = map;
        map.remove(name);
    }
}

fn dotted(path: &[String]) -> String {
    path.iter()
        .fold(String::new(), |text, name| text + "." + name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind() -> &'static Kind {
        Kind::find("", "v1", "services").unwrap()
    }

    fn spec(object: Value) -> Value {
        json!({ "metadata": { "name": "web" }, "spec": object })
    }

    #[test]
    fn what_is_no_longer_applied_goes() {
        let object = first(
            kind(),
            &spec(json!({ "type": "NodePort", "clusterIP": "None" })),
            "me",
        );
        let object = again(
            kind(),
            object,
            &spec(json!({ "type": "NodePort" })),
            "me",
            false,
        );
        assert_eq!(object.unwrap()["spec"], json!({ "type": "NodePort" }));
    }

    #[test]
    fn what_belongs_to_another_is_changed_only_by_force() {
        let object = first(kind(), &spec(json!({ "type": "NodePort" })), "me");
        let other = spec(json!({ "type": "ClusterIP" }));
        let refused = again(kind(), object.clone(), &other, "you", false).unwrap_err();
        assert_eq!(
            refused.message,
            "Apply failed with 1 conflict: conflict with \"me\": .spec.type"
        );
        let forced = again(kind(), object, &other, "you", true).unwrap();
        assert_eq!(forced["spec"]["type"], "ClusterIP");
        // The former owner may now leave it out without removing it.
        let left = again(kind(), forced, &spec(json!({})), "me", false).unwrap();
        assert_eq!(left["spec"]["type"], "ClusterIP");
    }
}
