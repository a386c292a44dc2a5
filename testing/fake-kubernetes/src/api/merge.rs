//! Merge patches: JSON's (RFC 7396), and Kubernetes' strategic one, which merges some lists.

use serde_json::Value;

/// The lists that are merged, by what tells their items apart; others are replaced.
const MERGED: [(&str, &str); 3] = [
    ("metadata.ownerReferences", "uid"),
    ("spec.ports", "port"),
    ("spec.containers", "name"),
];

/// RFC 7396.
pub(super) fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        into.clone_from(patch);
        return;
    };
    if !into.is_object() {
        *into = Value::Object(serde_json::Map::new());
    }
    if let Some(map) = into.as_object_mut() {
        for (name, value) in patch {
            if value.is_null() {
                map.remove(name);
            } else {
                merge(map.entry(name.as_str()).or_insert(Value::Null), value);
            }
        }
    }
}

/// The same, but lists of things with keys are merged by these.
pub(super) fn merge_strategically(into: &mut Value, patch: &Value) {
    merge_at(into, patch, "");
}

fn merge_at(into: &mut Value, patch: &Value, path: &str) {
    let Value::Object(patch) = patch else {
        into.clone_from(patch);
        return;
    };
    if patch.get("$patch").is_some_and(|it| it == "replace") {
        let mut patch = patch.clone();
        patch.remove("$patch");
        *into = Value::Object(patch);
        return;
    }
    if !into.is_object() {
        *into = Value::Object(serde_json::Map::new());
    }
    let Some(map) = into.as_object_mut() else {
        return;
    };
    for (name, value) in patch {
        let below = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().map(Vec::as_slice).unwrap_or_default();
            if let Some(list) = map.get_mut(list).and_then(Value::as_array_mut) {
                list.retain(|it| !gone.contains(it));
            }
        } else if name.starts_with('$') {
            // The order of lists and which keys to keep: kinds of ours don't need them.
        } else if value.is_null() {
            map.remove(name);
        } else if let Some((key, items)) = merged(&below).zip(value.as_array()) {
            merge_list(
                map.entry(name.as_str()).or_insert(Value::Null),
                items,
                key,
                &below,
            );
        } else {
            merge_at(
                map.entry(name.as_str()).or_insert(Value::Null),
                value,
                &below,
            );
        }
    }
}

fn merged(path: &str) -> Option<&'static str> {
    let found = MERGED.iter().find(|(it, _)| *it == path);
    found.map(|(_, key)| *key)
}

fn merge_list(into: &mut Value, items: &[Value], key: &str, path: &str) {
    if !into.is_array() {
        *into = Value::Array(Vec::new());
    }
    let Some(list) = into.as_array_mut() else {
        return;
    };
    for item in items {
        let place = list.iter().position(|it| it[key] == item[key]);
        match (item["$patch"].as_str(), place) {
            (Some("delete"), Some(place)) => {
                list.remove(place);
            }
            (Some("delete"), None) => {}
            (_, Some(place)) => merge_at(&mut list[place], item, path),
            (_, None) => list.push(item.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merges_objects_and_replaces_lists() {
        let mut object = json!({ "a": { "b": 1, "c": [1, 2] }, "d": 1 });
        merge(
            &mut object,
            &json!({ "a": { "c": [3] }, "d": null, "e": 2 }),
        );
        assert_eq!(object, json!({ "a": { "b": 1, "c": [3] }, "e": 2 }));
    }

    #[test]
    fn merges_ports_by_their_number() {
        let mut service = json!({ "spec": { "ports": [
            { "name": "http", "port": 80 }, { "name": "admin", "port": 81 },
        ]}});
        let patch = json!({ "spec": {
            "$setElementOrder/ports": [{ "port": 80 }, { "port": 82 }],
            "ports": [
                { "port": 80, "name": "web" },
                { "port": 81, "$patch": "delete" },
                { "port": 82, "name": "grpc" },
            ],
        }});
        merge_strategically(&mut service, &patch);
        assert_eq!(
            service,
            json!({ "spec": { "ports": [
                { "name": "web", "port": 80 }, { "name": "grpc", "port": 82 },
            ]}})
        );
    }
}
