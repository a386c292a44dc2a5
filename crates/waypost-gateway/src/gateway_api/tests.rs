//! Tests of the translation: objects as a user writes them, and the routes and conditions that follow.

use std::slice::from_ref;

use serde_json::{Value, json};
use waypost::provider::kubernetes::objects::ObjectKey;

use super::Settings;
use super::fuzz::settings;
use super::objects::Objects;
use super::resolve::{Resolution, resolve};
use super::rules::duration;
use super::secrets::{Secret, Secrets};
use crate::routes::ValuePattern;
use crate::server_tls::ListenerCertificates;

fn metadata(namespace: &str, name: &str) -> Value {
    json!({ "namespace": namespace, "name": name, "resourceVersion": "7", "generation": 3 })
}

fn listener(name: &str, hostname: Option<&str>) -> Value {
    let mut listener = json!({ "name": name, "port": 80, "protocol": "HTTP" });
    if let Some(hostname) = hostname {
        listener["hostname"] = hostname.into();
    }
    listener
}

fn service(namespace: &str, name: &str, ports: &[(&str, u16)]) -> Value {
    let ports = ports
        .iter()
        .map(|(name, port)| json!({ "name": name, "port": port }));
    json!({ "metadata": metadata(namespace, name), "spec": { "ports": ports.collect::<Value>() } })
}

/// A route of the namespace `shop` that is attached to the Gateway `front`.
fn route(name: &str, hostnames: &[&str], rules: Value) -> Value {
    json!({
        "metadata": metadata("shop", name),
        "spec": { "parentRefs": [{ "name": "front" }], "hostnames": hostnames, "rules": rules },
    })
}

fn to_orders() -> Value {
    json!([{ "backendRefs": [{ "name": "orders", "port": 80 }] }])
}

/// Objects with a class, a Gateway with these listeners and the Service `orders`.
fn objects(listeners: &[Value], routes: &[Value]) -> Value {
    json!({
        "classes": [{
            "metadata": metadata("", "waypost"), "spec": { "controllerName": "waypost.dev/gateway" },
        }],
        "gateways": [{
            "metadata": metadata("shop", "front"),
            "spec": { "gatewayClassName": "waypost", "listeners": listeners },
        }],
        "routes": routes,
        "services": [service("shop", "orders", &[("", 80)])],
    })
}

fn resolved(objects: Value) -> Resolution {
    let objects: Objects = serde_json::from_value(objects).unwrap();
    resolve(&objects, &Secrets::new(), &settings())
}

/// The new status of an object.
fn status<'a>(resolution: &'a Resolution, name: &str) -> &'a Value {
    let mut changes = resolution.changes.iter();
    let change = changes.find(|change| &*change.key.name == name);
    &change
        .unwrap_or_else(|| panic!("no change of {name}"))
        .status
}

/// The status and the reason of a condition.
fn condition<'a>(conditions: &'a Value, kind: &str) -> (&'a str, &'a str) {
    let mut conditions = conditions.as_array().unwrap().iter();
    let found = conditions.find(|it| it["type"] == kind);
    let found = found.unwrap_or_else(|| panic!("no condition {kind}"));
    (
        found["status"].as_str().unwrap(),
        found["reason"].as_str().unwrap(),
    )
}

/// A condition of the only parent of a route.
fn parent_condition<'a>(resolution: &'a Resolution, route: &str, kind: &str) -> (&'a str, &'a str) {
    condition(&status(resolution, route)["parents"][0]["conditions"], kind)
}

fn hosts(resolution: &Resolution) -> Vec<String> {
    let hosts = resolution.routes.iter().map(|route| &route.host);
    hosts
        .map(|host| host.as_ref().map_or("*".into(), ToString::to_string))
        .collect()
}

#[test]
fn a_route_of_an_accepted_gateway_is_used_and_everything_gets_its_status() {
    let resolution = resolved(objects(
        &[listener("http", None)],
        &[route("a", &[], to_orders())],
    ));
    assert_eq!(resolution.routes.len(), 1);
    assert_eq!(
        resolution.routes[0].action.backends,
        [("orders".parse().unwrap(), 1)]
    );
    let class = status(&resolution, "waypost");
    assert_eq!(
        condition(&class["conditions"], "Accepted"),
        ("True", "Accepted")
    );
    let gateway = status(&resolution, "front");
    assert_eq!(
        condition(&gateway["conditions"], "Accepted"),
        ("True", "Accepted")
    );
    assert_eq!(
        condition(&gateway["conditions"], "Programmed"),
        ("True", "Programmed")
    );
    let listener = &gateway["listeners"][0];
    assert_eq!(listener["attachedRoutes"], 1);
    assert_eq!(
        condition(&listener["conditions"], "Conflicted"),
        ("False", "NoConflicts")
    );
    let parent = &status(&resolution, "a")["parents"][0];
    assert_eq!(parent["controllerName"], "waypost.dev/gateway");
    assert_eq!(parent["parentRef"], json!({ "name": "front" }));
    assert_eq!(parent["conditions"][0]["observedGeneration"], 3);
    assert_eq!(
        parent_condition(&resolution, "a", "Accepted"),
        ("True", "Accepted")
    );
    assert_eq!(
        parent_condition(&resolution, "a", "ResolvedRefs"),
        ("True", "ResolvedRefs")
    );
}

#[test]
fn a_status_that_is_written_already_is_no_change() {
    let mut input = objects(&[listener("http", None)], &[route("a", &[], to_orders())]);
    for change in resolved(input.clone()).changes {
        let list = match change.kind.plural() {
            "gatewayclasses" => "classes",
            "gateways" => "gateways",
            _ => "routes",
        };
        input[list][0]["status"] = change.status;
    }
    assert_eq!(resolved(input).changes, []);
}

#[test]
fn gateways_of_other_classes_and_classes_of_other_controllers_are_left_alone() {
    for (field, value) in [
        ("/classes/0/spec/controllerName", "example.org/other"),
        ("/gateways/0/spec/gatewayClassName", "other"),
    ] {
        let mut input = objects(&[listener("http", None)], &[route("a", &[], to_orders())]);
        *input.pointer_mut(field).unwrap() = value.into();
        let resolution = resolved(input);
        assert!(resolution.routes.is_empty());
        let changed = resolution.changes.iter().map(|change| change.kind.plural());
        assert!(changed.into_iter().all(|plural| plural == "gatewayclasses"));
    }
}

#[test]
fn only_entries_of_our_own_gateways_are_replaced() {
    let mut input = objects(&[listener("http", None)], &[route("a", &[], to_orders())]);
    let other_class = json!({
        "metadata": metadata("shop", "inner"), "spec": { "gatewayClassName": "other" },
    });
    input["gateways"].as_array_mut().unwrap().push(other_class);
    input["routes"][0]["spec"]["parentRefs"] = json!([{ "name": "front" }, { "name": "inner" }]);
    let entry = |controller: &str, gateway: &str| json!({ "controllerName": controller, "parentRef": { "name": gateway }, "conditions": [] });
    let kept = [
        entry("example.org/other", "gone"),
        entry("waypost.dev/gateway", "inner"),
    ];
    let mut present = kept.to_vec();
    present.push(entry("waypost.dev/gateway", "gone"));
    present.push(entry("waypost.dev/gateway", "front"));
    input["routes"][0]["status"] = json!({ "parents": present });
    let resolution = resolved(input);
    let parents = status(&resolution, "a")["parents"].as_array().unwrap();
    assert_eq!(parents.len(), 3);
    assert_eq!(parents[..2], kept);
    assert_eq!(parents[2]["parentRef"]["name"], "front");
}

#[test]
fn hostnames_are_those_of_route_and_listener_together() {
    for (of_listener, of_route, expected) in [
        (None, &[][..], &["*"][..]),
        (None, &["a.example"], &["a.example"]),
        (Some("a.example"), &[], &["a.example"]),
        (
            Some("*.example"),
            &["a.example", "b.other", "*.b.example"],
            &["a.example", "*.b.example"],
        ),
        (Some("a.example"), &["*.example"], &["a.example"]),
        (Some("*.a.example"), &["*.example"], &["*.a.example"]),
        (Some("a.example"), &["b.example"], &[]),
        (Some("*.example"), &["example"], &[]),
    ] {
        let routes = [route("a", of_route, to_orders())];
        let resolution = resolved(objects(&[listener("http", of_listener)], &routes));
        assert_eq!(hosts(&resolution), expected, "{of_listener:?} {of_route:?}");
        let accepted = parent_condition(&resolution, "a", "Accepted");
        let is_matching = if expected.is_empty() {
            ("False", "NoMatchingListenerHostname")
        } else {
            ("True", "Accepted")
        };
        assert_eq!(accepted, is_matching);
    }
}

#[test]
fn a_request_belongs_to_the_most_specific_listener() {
    let listeners = [
        listener("all", None),
        listener("below", Some("*.example")),
        listener("one", Some("a.example")),
    ];
    let mut all = route("all", &[], to_orders());
    all["spec"]["parentRefs"][0]["sectionName"] = "all".into();
    let resolution = resolved(objects(&listeners, &[all]));
    let except: Vec<_> = (resolution.routes[0].except_hosts.iter())
        .map(ToString::to_string)
        .collect();
    assert_eq!(except, ["*.example", "a.example"]);
    let mut below = route("below", &[], to_orders());
    below["spec"]["parentRefs"][0]["sectionName"] = "below".into();
    let resolution = resolved(objects(&listeners, &[below]));
    assert_eq!(
        resolution.routes[0].except_hosts[0].to_string(),
        "a.example"
    );
}

#[test]
fn namespaces_of_routes_are_limited_by_the_listener() {
    for (allowed, is_allowed) in [
        (json!({}), false),
        (json!({ "namespaces": { "from": "Same" } }), false),
        (json!({ "namespaces": { "from": "All" } }), true),
        (
            json!({ "namespaces": { "from": "Selector", "selector": {
                "matchLabels": { "team": "pay" },
                "matchExpressions": [{ "key": "old", "operator": "DoesNotExist" }],
            } } }),
            true,
        ),
        (
            json!({ "namespaces": { "from": "Selector", "selector": {
                "matchExpressions": [{ "key": "team", "operator": "NotIn", "values": ["pay"] }],
            } } }),
            false,
        ),
        (
            json!({ "namespaces": { "from": "Selector", "selector": { "matchExpressions": [
                { "key": "team", "operator": "Exists" },
                { "key": "team", "operator": "In", "values": ["shop", "pay"] },
            ] } } }),
            true,
        ),
        (
            json!({ "namespaces": { "from": "Selector", "selector": { "matchExpressions": [
                { "key": "team", "operator": "NotIn", "values": ["shop"] },
                { "key": "old", "operator": "NotIn", "values": ["yes"] },
            ] } } }),
            true,
        ),
        (
            json!({ "namespaces": { "from": "Selector", "selector": {
                "matchExpressions": [{ "key": "team", "operator": "In", "values": ["shop"] }],
            } } }),
            false,
        ),
        (
            json!({ "namespaces": { "from": "Selector", "selector": {
                "matchExpressions": [{ "key": "old", "operator": "Exists" }],
            } } }),
            false,
        ),
        (
            json!({ "namespaces": { "from": "Selector", "selector": {
                "matchExpressions": [{ "key": "team", "operator": "DoesNotExist" }],
            } } }),
            false,
        ),
        (
            json!({ "namespaces": { "from": "Selector", "selector": {
                "matchLabels": { "team": "shop" },
            } } }),
            false,
        ),
        (
            json!({ "namespaces": { "from": "Selector", "selector": { "matchExpressions": [
                { "key": "team", "operator": "Matches", "values": ["pay"] },
            ] } } }),
            false,
        ),
        (
            json!({ "namespaces": { "from": "All" }, "kinds": [{ "kind": "GRPCRoute" }] }),
            false,
        ),
    ] {
        let mut http = listener("http", None);
        http["allowedRoutes"] = allowed.clone();
        let mut other = route("a", &[], json!([]));
        other["metadata"] = metadata("pay", "a");
        other["spec"]["parentRefs"][0]["namespace"] = "shop".into();
        let mut input = objects(&[http], &[other]);
        input["namespaces"] =
            json!([{ "metadata": { "name": "pay", "labels": { "team": "pay" } } }]);
        let resolution = resolved(input);
        let expected = if is_allowed {
            ("True", "Accepted")
        } else {
            ("False", "NotAllowedByListeners")
        };
        assert_eq!(
            parent_condition(&resolution, "a", "Accepted"),
            expected,
            "{allowed}"
        );
    }
}

#[test]
fn a_listener_that_names_kinds_of_routes_must_name_the_supported_one() {
    const GROUP: &str = "gateway.networking.k8s.io";
    let grpc = json!({ "kind": "GRPCRoute" });
    let in_group = |group: &str| json!({ "group": group, "kind": "HTTPRoute" });
    let invalid = ("False", "InvalidRouteKinds");
    for (kinds, is_allowed, resolved_refs) in [
        (json!([]), true, ("True", "ResolvedRefs")),
        (json!([in_group(GROUP)]), true, ("True", "ResolvedRefs")),
        (json!([in_group(GROUP), grpc]), true, invalid),
        (json!([grpc]), false, invalid),
        (json!([in_group("example.org")]), false, invalid),
    ] {
        let mut http = listener("http", None);
        http["allowedRoutes"]["kinds"] = kinds.clone();
        let resolution = resolved(objects(&[http], &[route("a", &[], to_orders())]));
        let listener = &status(&resolution, "front")["listeners"][0];
        let found = condition(&listener["conditions"], "ResolvedRefs");
        assert_eq!(found, resolved_refs, "{kinds}");
        let supported = if is_allowed {
            json!([in_group(GROUP)])
        } else {
            json!([])
        };
        assert_eq!(listener["supportedKinds"], supported, "{kinds}");
        assert_eq!(resolution.routes.len(), usize::from(is_allowed), "{kinds}");
    }
}

#[test]
fn a_gateway_that_asks_for_an_address_must_have_it() {
    let ours = json!([
        { "type": "IPAddress", "value": "192.0.2.1" },
        { "type": "Hostname", "value": "shop.example" },
    ]);
    let unusable = ("False", "AddressNotUsable");
    for (asked, expected) in [
        (json!([]), ("True", "Programmed")),
        (json!([{ "value": "192.0.2.1" }]), ("True", "Programmed")),
        (json!([{ "type": "Hostname" }]), ("True", "Programmed")),
        (json!([{ "value": "192.0.2.2" }]), unusable),
        (json!([ours[0], { "value": "192.0.2.2" }]), unusable),
    ] {
        let mut input = objects(&[listener("http", None)], &[]);
        input["gateways"][0]["spec"]["addresses"] = asked.clone();
        let settings = Settings {
            addresses: vec!["192.0.2.1".into(), "shop.example".into()],
            ..settings()
        };
        let input = serde_json::from_value(input).unwrap();
        let resolution = resolve(&input, &Secrets::new(), &settings);
        let gateway = status(&resolution, "front");
        let programmed = condition(&gateway["conditions"], "Programmed");
        assert_eq!(programmed, expected, "{asked}");
        assert_eq!(gateway["addresses"], ours);
    }
}

#[test]
fn a_gateway_with_certificates_in_files_serves_https_listeners_that_say_so() {
    let files = json!({ "waypost.dev/certificates": "files" });
    let other = json!({ "waypost.dev/certificates": "files", "example.org/x": "1" });
    let valid = ("True", "Accepted", "ResolvedRefs");
    let cases = [
        (json!({ "options": files }), valid),
        (json!({ "mode": "Terminate", "options": files }), valid),
        (
            json!({ "certificateRefs": [{ "name": "shop-tls" }], "options": files }),
            ("False", "Invalid", "Invalid"),
        ),
        (json!({}), ("False", "Invalid", "Invalid")),
        (json!({ "options": other }), ("False", "Invalid", "Invalid")),
        (
            json!({ "mode": "Passthrough", "options": files }),
            ("False", "Invalid", "Invalid"),
        ),
        (
            json!({ "frontendValidation": {}, "options": files }),
            ("False", "Invalid", "Invalid"),
        ),
        (
            Value::Null,
            ("False", "UnsupportedProtocol", "ResolvedRefs"),
        ),
    ];
    let listeners = cases.iter().enumerate().map(|(index, (tls, _))| {
        let name = format!("l{index}");
        let mut listener = listener(&name, Some(&format!("{name}.example")));
        listener["port"] = 443.into();
        if !tls.is_null() {
            listener["protocol"] = "HTTPS".into();
            listener["tls"] = tls.clone();
        }
        listener
    });
    let listeners: Vec<_> = listeners.collect();
    let input = serde_json::from_value(objects(&listeners, &[])).unwrap();
    let settings = Settings {
        has_tls: true,
        has_files: true,
        port: 443,
        ..settings()
    };
    let resolution = resolve(&input, &Secrets::new(), &settings);
    let gateway = status(&resolution, "front");
    for (index, (tls, (accepted, reason, resolved))) in cases.iter().enumerate() {
        let conditions = &gateway["listeners"][index]["conditions"];
        assert_eq!(
            condition(conditions, "Accepted"),
            (*accepted, *reason),
            "{tls}"
        );
        assert_eq!(condition(conditions, "ResolvedRefs").1, *resolved, "{tls}");
        let programmed = condition(conditions, "Programmed").0;
        assert_eq!(programmed, *accepted, "{tls}");
    }
}

/// An HTTPS listener with these references.
fn https_listener(name: &str, references: Value) -> Value {
    let hostname = format!("{name}.example");
    let mut listener = listener(name, Some(&hostname));
    listener["protocol"] = "HTTPS".into();
    listener["tls"] = json!({ "certificateRefs": references });
    listener
}

fn resolved_with(objects: Value, secrets: &Secrets) -> Resolution {
    let objects: Objects = serde_json::from_value(objects).unwrap();
    let settings = Settings {
        has_tls: true,
        ..settings()
    };
    resolve(&objects, secrets, &settings)
}

/// Secrets that have been read: whether each is valid.
fn secrets(all: &[(&str, &str, bool)]) -> Secrets {
    let secret = |(namespace, name, is_valid): &(&str, &str, bool)| {
        let secret = if *is_valid {
            Secret::valid(&format!("{name}.example"))
        } else {
            Secret::missing()
        };
        (ObjectKey::new(namespace, name), secret)
    };
    all.iter().map(secret).collect()
}

#[test]
fn a_listener_is_served_with_the_certificates_of_its_secrets_and_others_say_why_not() {
    let grant = json!({
        "metadata": metadata("pay", "grant"),
        "spec": {
            "from": [{ "group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "shop" }],
            "to": [{ "group": "", "kind": "Secret", "name": "granted" }],
        },
    });
    let known = secrets(&[
        ("shop", "good", true),
        ("shop", "missing", false),
        ("pay", "granted", true),
        ("pay", "other", true),
    ]);
    let invalid = "InvalidCertificateRef";
    let cases = [
        (json!([{ "name": "good" }]), 1, "ResolvedRefs", ""),
        (
            json!([{ "name": "good", "group": "", "kind": "Secret", "namespace": "shop" }]),
            1,
            "ResolvedRefs",
            "",
        ),
        (
            json!([{ "name": "missing" }]),
            0,
            invalid,
            "Secret shop/missing was not found",
        ),
        (
            json!([{ "name": "good" }, { "name": "missing" }]),
            1,
            invalid,
            "Secret shop/missing was not found",
        ),
        (
            json!([{ "name": "granted", "namespace": "pay" }]),
            1,
            "ResolvedRefs",
            "",
        ),
        (
            json!([{ "name": "other", "namespace": "pay" }]),
            0,
            "RefNotPermitted",
            "no ReferenceGrant in namespace pay allows Gateways of namespace shop to use Secret other",
        ),
        (
            json!([{ "name": "good", "kind": "ConfigMap" }]),
            0,
            invalid,
            "certificateRef \"good\" is a \"ConfigMap\"; only Secrets are supported",
        ),
        (
            json!([{ "name": "good", "group": "example.org" }]),
            0,
            invalid,
            "certificateRef \"good\" is a \"Secret.example.org\"; only Secrets are supported",
        ),
        (
            json!([{ "name": "../../../nodes/a" }]),
            0,
            invalid,
            "\"../../../nodes/a\" is no name of a Secret",
        ),
    ];
    for (references, count, reason, message) in cases {
        let mut input = objects(
            &[https_listener("a", references.clone())],
            &[route("r", &[], to_orders())],
        );
        input["grants"] = json!([grant]);
        let resolution = resolved_with(input, &known);
        let gateway = status(&resolution, "front");
        let conditions = &gateway["listeners"][0]["conditions"];
        let resolved = conditions.as_array().unwrap().iter();
        let mut resolved = resolved.filter(|it| it["type"] == "ResolvedRefs");
        let resolved = resolved.next().unwrap();
        assert_eq!(
            (resolved["reason"].as_str(), resolved["message"].as_str()),
            (Some(reason), Some(message)),
            "{references}"
        );
        assert_eq!(condition(conditions, "Accepted").0, "True");
        let is_served = if count > 0 { "True" } else { "False" };
        for conditions in [conditions, &gateway["conditions"]] {
            assert_eq!(condition(conditions, "Programmed").0, is_served);
        }
        let [listener] = resolution.tls_listeners.as_slice() else {
            panic!("one listener");
        };
        let ListenerCertificates::Own(keys) = &listener.certificates else {
            panic!("its own certificates");
        };
        assert_eq!(keys.len(), count, "{references}");
        assert_eq!(listener.hostname.as_ref().unwrap().to_string(), "a.example");
        // Routes attach regardless, so that nothing else has to happen when the Secret is there.
        assert_eq!(parent_condition(&resolution, "r", "Accepted").0, "True");
    }
}

#[test]
fn only_secrets_that_accepted_references_name_are_read() {
    let references = json!([
        { "name": "own" },
        { "name": "foreign", "namespace": "pay" },
        { "name": "a/b" },
        { "name": "config", "kind": "ConfigMap" },
    ]);
    let listeners = [https_listener("a", references)];
    let read = |input: Value| resolved_with(input, &Secrets::new()).secrets;
    let own = [ObjectKey::new("shop", "own")].into();
    assert_eq!(read(objects(&listeners, &[])), own);
    let mut other_class = objects(&listeners, &[]);
    other_class["gateways"][0]["spec"]["gatewayClassName"] = "other".into();
    assert!(read(other_class).is_empty());
    let without_tls = resolved(objects(&listeners, &[]));
    assert!(without_tls.secrets.is_empty());
}

#[test]
fn the_status_of_a_gateway_waits_until_its_secrets_have_been_read_once() {
    let listeners = [https_listener("a", json!([{ "name": "good" }]))];
    let changed = |secrets: &Secrets| {
        let resolution = resolved_with(objects(&listeners, &[]), secrets);
        let kinds = resolution.changes.iter().map(|it| it.kind.plural());
        kinds.filter(|kind| *kind == "gateways").count()
    };
    assert_eq!(changed(&Secrets::new()), 0);
    assert_eq!(changed(&secrets(&[("shop", "good", false)])), 1);
}

#[test]
fn certificates_of_the_oldest_gateway_come_first() {
    let references = json!([{ "name": "good" }]);
    let mut input = objects(&[https_listener("b", references.clone())], &[]);
    input["gateways"][0]["metadata"]["creationTimestamp"] = "2026-02-01T00:00:00Z".into();
    let mut older = objects(&[https_listener("a", references)], &[])["gateways"][0].clone();
    older["metadata"]["name"] = "older".into();
    older["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
    input["gateways"].as_array_mut().unwrap().push(older);
    let resolution = resolved_with(input, &Secrets::new());
    let hostnames = resolution.tls_listeners.iter();
    let hostnames: Vec<_> = hostnames
        .map(|it| it.hostname.as_ref().unwrap().to_string())
        .collect();
    assert_eq!(hostnames, ["a.example", "b.example"]);
}

#[test]
fn a_gateway_without_files_refuses_listeners_that_want_them() {
    let mut listener = https_listener("a", json!([]));
    listener["tls"]["options"] = json!({ "waypost.dev/certificates": "files" });
    let resolution = resolved_with(objects(from_ref(&listener), &[]), &Secrets::new());
    let conditions = &status(&resolution, "front")["listeners"][0]["conditions"];
    assert_eq!(condition(conditions, "Accepted"), ("False", "Invalid"));
    assert!(
        conditions.to_string().contains("--tls-cert"),
        "{conditions}"
    );
}

#[test]
fn listeners_that_cannot_be_served_say_why() {
    let mut tls = listener("tls", None);
    tls["protocol"] = "HTTPS".into();
    let mut port = listener("port", None);
    port["port"] = 8080.into();
    let twice = [
        listener("one", Some("a.example")),
        listener("two", Some("a.example")),
    ];
    let all = [
        tls,
        port,
        twice[0].clone(),
        twice[1].clone(),
        listener("good", None),
    ];
    let resolution = resolved(objects(&all, &[]));
    let gateway = status(&resolution, "front");
    for (index, expected) in [
        ("False", "UnsupportedProtocol"),
        ("False", "PortUnavailable"),
        ("False", "HostnameConflict"),
        ("False", "HostnameConflict"),
        ("True", "Accepted"),
    ]
    .into_iter()
    .enumerate()
    {
        let conditions = &gateway["listeners"][index]["conditions"];
        assert_eq!(condition(conditions, "Accepted"), expected);
    }
    assert_eq!(
        condition(&gateway["conditions"], "Accepted"),
        ("True", "ListenersNotValid")
    );
    let resolution = resolved(objects(&all[..1], &[route("a", &[], to_orders())]));
    let gateway = status(&resolution, "front");
    assert_eq!(
        condition(&gateway["conditions"], "Programmed"),
        ("False", "Invalid")
    );
    assert_eq!(parent_condition(&resolution, "a", "Accepted").0, "False");
    assert!(resolution.routes.is_empty());
}

#[test]
fn only_a_parent_of_the_kind_gateway_is_ours() {
    for (field, value, is_ours) in [
        ("group", "gateway.networking.k8s.io", true),
        ("group", "example.org", false),
        ("kind", "Gateway", true),
        ("kind", "Service", false),
    ] {
        let mut child = route("a", &[], to_orders());
        child["spec"]["parentRefs"][0][field] = value.into();
        let resolution = resolved(objects(&[listener("http", None)], &[child]));
        assert_eq!(resolution.routes.len(), usize::from(is_ours), "{value}");
        let mut changes = resolution.changes.iter();
        let has_status = changes.any(|change| &*change.key.name == "a");
        assert_eq!(has_status, is_ours, "{value}");
    }
}

#[test]
fn of_several_matches_of_a_header_or_parameter_the_first_is_used() {
    let matches = |first: &str| {
        json!([
            { "name": "a", "type": first, "value": "1" },
            { "name": "a", "value": "2" },
            { "name": "a", "type": "RegularExpression", "value": "3" },
            { "name": "b", "value": "4" },
        ])
    };
    for (kind, exact, expressions) in [
        ("Exact", &["a=1", "b=4"][..], &[][..]),
        ("RegularExpression", &["b=4"], &["a"]),
    ] {
        let both = matches(kind);
        let rule = json!([{
            "matches": [{ "headers": both, "queryParams": both }],
            "backendRefs": [{ "name": "orders", "port": 80 }],
        }]);
        let resolution = resolved(objects(&[listener("http", None)], &[route("a", &[], rule)]));
        let conditions = &resolution.routes[0].conditions;
        let headers = conditions.headers.iter();
        let headers = headers.map(|(name, value)| format!("{name}={}", value.to_str().unwrap()));
        assert_eq!(headers.collect::<Vec<_>>(), exact);
        let names = conditions.header_expressions.iter();
        let names: Vec<_> = names.map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, expressions);
        let parameters: Vec<_> = conditions.query.iter().map(|(name, _)| name).collect();
        assert_eq!(parameters, ["a", "b"]);
        assert_eq!(
            matches!(conditions.query[0].1, ValuePattern::Exact(_)),
            kind == "Exact"
        );
    }
}

#[test]
fn a_parent_without_the_section_or_port_is_no_match() {
    for (field, value) in [("sectionName", json!("other")), ("port", json!(81))] {
        let mut other = route("a", &[], to_orders());
        other["spec"]["parentRefs"][0][field] = value;
        let resolution = resolved(objects(&[listener("http", None)], &[other]));
        let accepted = parent_condition(&resolution, "a", "Accepted");
        assert_eq!(accepted, ("False", "NoMatchingParent"));
    }
}

#[test]
fn backends_are_resolved_by_kind_grant_name_and_port() {
    let grant = json!({
        "metadata": metadata("pay", "grant"),
        "spec": {
            "from": [{ "group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "shop" }],
            "to": [{ "group": "", "kind": "Service", "name": "bills" }],
        },
    });
    for (backend, expected) in [
        (json!({ "name": "orders", "port": 80 }), Ok("orders")),
        (json!({ "name": "two", "port": 81 }), Ok("two_admin")),
        (
            json!({ "name": "bills", "namespace": "pay", "port": 80 }),
            Ok("bills.pay"),
        ),
        (
            json!({ "name": "other", "namespace": "pay", "port": 80 }),
            Err("RefNotPermitted"),
        ),
        (
            json!({ "name": "gone", "port": 80 }),
            Err("BackendNotFound"),
        ),
        (
            json!({ "name": "orders", "port": 81 }),
            Err("BackendNotFound"),
        ),
        (json!({ "name": "orders" }), Err("BackendNotFound")),
        (
            json!({ "name": "x", "kind": "Bucket", "group": "example.org" }),
            Err("InvalidKind"),
        ),
        (
            json!({ "name": "outside", "port": 80 }),
            Err("UnsupportedServiceType"),
        ),
        (
            json!({ "name": "dns", "port": 53 }),
            Err("UnsupportedProtocol"),
        ),
    ] {
        let rules = json!([{ "backendRefs": [backend] }]);
        let mut input = objects(&[listener("http", None)], &[route("a", &[], rules)]);
        let mut outside = service("shop", "outside", &[("", 80)]);
        outside["spec"]["type"] = "ExternalName".into();
        let mut dns = service("shop", "dns", &[("", 53)]);
        dns["spec"]["ports"][0]["protocol"] = "UDP".into();
        input["services"].as_array_mut().unwrap().extend([
            service("shop", "two", &[("http", 80), ("admin", 81)]),
            service("pay", "bills", &[("", 80)]),
            service("pay", "other", &[("", 80)]),
            outside,
            dns,
        ]);
        input["grants"] = json!([grant]);
        let resolution = resolved(input);
        let action = &resolution.routes[0].action;
        let found = parent_condition(&resolution, "a", "ResolvedRefs");
        match expected {
            Ok(name) => {
                assert_eq!(action.backends, [(name.parse().unwrap(), 1)]);
                assert_eq!(found, ("True", "ResolvedRefs"));
            }
            Err(reason) => {
                assert_eq!((action.backends.len(), action.unresolved), (0, 1));
                assert_eq!(found, ("False", reason));
            }
        }
        assert_eq!(
            parent_condition(&resolution, "a", "Accepted"),
            ("True", "Accepted")
        );
    }
}

#[test]
fn a_rule_that_is_not_supported_fails_its_requests_instead_of_being_skipped() {
    let backend = json!([{ "name": "orders", "port": 80 }]);
    for rule in [
        json!({ "backendRefs": backend, "filters": [{ "type": "CORS" }] }),
        json!({ "backendRefs": backend, "filters": [{ "type": "ExtensionRef" }] }),
        json!({ "backendRefs": backend, "timeouts": { "request": "1y" } }),
        json!({ "backendRefs": backend, "filters": [{ "type": "RequestRedirect", "requestRedirect": {} }] }),
        json!({ "backendRefs": backend, "filters": [{ "type": "URLRewrite", "urlRewrite": {
            "path": { "type": "ReplaceFullPath", "replaceFullPath": "no-slash" } } }] }),
        json!({ "backendRefs": [{ "name": "orders", "port": 80, "filters": [{ "type": "X" }] }] }),
    ] {
        let good = json!({ "matches": [{ "path": { "value": "/good" } }], "backendRefs": backend });
        let alone = route("a", &[], json!([rule]));
        let resolution = resolved(objects(&[listener("http", None)], &[alone]));
        assert_eq!(
            parent_condition(&resolution, "a", "Accepted").0,
            "False",
            "{rule}"
        );
        assert!(resolution.routes[0].action.backends.is_empty());
        assert!(resolution.routes[0].action.redirect.is_none());

        let mixed = route("a", &[], json!([rule, good]));
        let resolution = resolved(objects(&[listener("http", None)], &[mixed]));
        assert_eq!(
            parent_condition(&resolution, "a", "Accepted"),
            ("True", "Accepted")
        );
        assert_eq!(
            parent_condition(&resolution, "a", "PartiallyInvalid").0,
            "True"
        );
        assert_eq!(resolution.routes.len(), 2);
    }
    let bad = json!([{ "matches": [{ "path": { "type": "RegularExpression", "value": "(" } }] }]);
    let resolution = resolved(objects(&[listener("http", None)], &[route("a", &[], bad)]));
    assert_eq!(
        parent_condition(&resolution, "a", "Accepted"),
        ("False", "UnsupportedValue")
    );
    assert!(resolution.routes.is_empty());
}

#[test]
fn the_oldest_route_comes_first() {
    let at = |name: &str, time: &str| {
        let mut route = route(name, &[], to_orders());
        route["metadata"]["creationTimestamp"] = time.into();
        route
    };
    let routes = [
        at("c", "2026-01-02T00:00:00Z"),
        at("b", "2026-01-01T00:00:00Z"),
        at("a", "2026-01-02T00:00:00Z"),
    ];
    let resolution = resolved(objects(&[listener("http", None)], &routes));
    let sources: Vec<_> = resolution.routes.iter().map(|it| &*it.source).collect();
    assert_eq!(
        sources,
        ["HTTPRoute shop/b", "HTTPRoute shop/a", "HTTPRoute shop/c"]
    );
}

#[test]
fn durations_are_those_of_the_gateway_api() {
    for (text, millis) in [
        ("0s", Some(0)),
        ("500ms", Some(500)),
        ("1h30m10s", Some(5_410_000)),
        ("1m", Some(60_000)),
        ("", None),
        ("1", None),
        ("1d", None),
        ("-1s", None),
        ("1.5s", None),
        ("100000s", None),
        ("1h1h1h1h1h", None),
    ] {
        let parsed = duration(text).ok().map(|time| time.as_millis());
        assert_eq!(parsed, millis, "{text:?}");
    }
}
