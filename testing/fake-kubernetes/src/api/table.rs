//! The tables that `kubectl get` prints.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::kinds::Kind;

/// So many of a list are shown.
const SHOWN: usize = 3;

/// Name, and whether it is shown only with `-o wide`.
type Column = (&'static str, bool);

pub(super) fn columns(kind: &Kind) -> Value {
    let columns = columns_of(kind).iter().map(|(name, is_wide)| {
        json!({
            "name": name,
            "type": "string",
            "format": if *name == "Name" { "name" } else { "" },
            "description": "",
            "priority": i32::from(*is_wide),
        })
    });
    columns.collect()
}

fn columns_of(kind: &Kind) -> &'static [Column] {
    match kind.plural {
        "services" => &[
            ("Name", false),
            ("Type", false),
            ("Cluster-IP", false),
            ("External-IP", false),
            ("Port(s)", false),
            ("Age", false),
            ("Selector", true),
        ],
        "endpointslices" => &[
            ("Name", false),
            ("AddressType", false),
            ("Ports", false),
            ("Endpoints", false),
            ("Age", false),
        ],
        "namespaces" => &[("Name", false), ("Status", false), ("Age", false)],
        "leases" => &[("Name", false), ("Holder", false), ("Age", false)],
        "roles" | "clusterroles" => &[("Name", false), ("Created At", false)],
        "rolebindings" | "clusterrolebindings" => {
            &[("Name", false), ("Role", false), ("Age", false)]
        }
        _ => &[("Name", false), ("Age", false)],
    }
}

pub(super) fn cells(kind: &Kind, object: &Value) -> Vec<Value> {
    let name = object["metadata"]["name"].clone();
    let age = age(object).into();
    match kind.plural {
        "services" => service(object, name, age),
        "endpointslices" => vec![
            name,
            object["addressType"].clone(),
            slice_ports(object).into(),
            slice_endpoints(object).into(),
            age,
        ],
        "namespaces" => vec![name, object["status"]["phase"].clone(), age],
        "leases" => vec![name, object["spec"]["holderIdentity"].clone(), age],
        "roles" | "clusterroles" => vec![name, object["metadata"]["creationTimestamp"].clone()],
        "rolebindings" | "clusterrolebindings" => {
            let role = &object["roleRef"];
            let of = |field: &str| role[field].as_str().unwrap_or_default().to_owned();
            vec![name, format!("{}/{}", of("kind"), of("name")).into(), age]
        }
        _ => vec![name, age],
    }
}

fn service(object: &Value, name: Value, age: Value) -> Vec<Value> {
    let spec = &object["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let or_none = |text: String| {
        if text.is_empty() {
            "<none>".to_owned()
        } else {
            text
        }
    };
    let ports = spec["ports"].as_array().into_iter().flatten().map(|port| {
        let (number, protocol) = (&port["port"], text(&port["protocol"]));
        match port["nodePort"].as_i64() {
            Some(node) => format!("{number}:{node}/{protocol}"),
            None => format!("{number}/{protocol}"),
        }
    });
    let selector = spec["selector"].as_object().into_iter().flatten();
    let selector = selector.map(|(key, value)| format!("{key}={}", text(value)));
    vec![
        name,
        spec["type"].clone(),
        or_none(text(&spec["clusterIP"])).into(),
        or_none(text(&spec["externalName"])).into(),
        or_none(ports.collect::<Vec<_>>().join(",")).into(),
        age,
        or_none(selector.collect::<Vec<_>>().join(",")).into(),
    ]
}

fn slice_ports(object: &Value) -> String {
    let ports = object["ports"].as_array().into_iter().flatten();
    shorten(ports.map(
        |port| match (port["port"].as_i64(), port["name"].as_str()) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) if !name.is_empty() => name.to_owned(),
            (None, _) => "*".to_owned(),
        },
    ))
}

fn slice_endpoints(object: &Value) -> String {
    let endpoints = object["endpoints"].as_array().into_iter().flatten();
    let addresses = endpoints.flat_map(|it| it["addresses"].as_array().into_iter().flatten());
    shorten(addresses.map(|it| it.as_str().unwrap_or_default().to_owned()))
}

/// The first few, and how many more there are.
fn shorten(values: impl Iterator<Item = String>) -> String {
    let values: Vec<_> = values.collect();
    match values.len() {
        0 => "<unset>".to_owned(),
        many if many > SHOWN => {
            format!("{} + {} more...", values[..SHOWN].join(","), many - SHOWN)
        }
        _ => values.join(","),
    }
}

fn age(object: &Value) -> String {
    let created = object["metadata"]["creationTimestamp"].as_str();
    let created = created.and_then(|it| humantime::parse_rfc3339(it).ok());
    match created {
        Some(created) => short(
            SystemTime::now()
                .duration_since(created)
                .unwrap_or_default(),
        ),
        None => "<unknown>".to_owned(),
    }
}

/// As kubectl shortens durations: the two largest units, while the first is small.
fn short(age: Duration) -> String {
    let seconds = age.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |large: u64, unit: &str, small: u64, below: &str| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{below}"),
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, "d", hours % 24, "h"),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        for (seconds, expected) in [
            (5, "5s"),
            (119, "119s"),
            (185, "3m5s"),
            (900, "15m"),
            (4000, "66m"),
            (11_000, "3h3m"),
            (200_000, "2d7h"),
        ] {
            assert_eq!(short(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn long_lists_are_shortened() {
        let many = (1..=5).map(|it| it.to_string());
        assert_eq!(shorten(many), "1,2,3 + 2 more...");
        assert_eq!(shorten(std::iter::empty()), "<unset>");
    }
}
