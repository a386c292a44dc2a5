//! The manifests of the stack, checked against each other and against Kubernetes' types.

use std::collections::BTreeMap;
use std::fs;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};

use super::manifests::*;

#[test]
fn a_misspelled_field_is_an_error() {
    let policy = |field: &str| {
        let spec = json!({ "selector": {"matchLabels": {"app": "web"}}, field: 1 });
        json!({ "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {}, "spec": spec })
    };
    assert!(parse(&policy("maxUnavailable")).is_ok());
    let error = parse(&policy("maxUnavailble")).err().unwrap();
    assert!(error.contains("maxUnavailble"), "{error}");
}

#[test]
fn every_file_is_listed_and_matches_its_kubernetes_type() {
    for directory in [BASE, "kubernetes/production"] {
        let listed = kustomization(directory);
        for entry in fs::read_dir(deploy(directory)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let is_listed = listed.to_string().contains(&format!("\"{name}\""));
            assert!(
                is_listed || name == "kustomization.yaml",
                "{directory}/{name}"
            );
        }
        assert!(!documents(directory).is_empty());
    }
}

/// The objects of a gateway for HTTPS, apart from those of the Gateway API.
fn https_gateway() -> Vec<Document> {
    let text = fs::read_to_string(deploy("kubernetes/gateway-api/https.yaml")).unwrap();
    let all: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let of_kubernetes = all.iter().filter(|document| {
        let version = document["apiVersion"].as_str().unwrap();
        !version.starts_with("gateway.networking.k8s.io/")
    });
    of_kubernetes
        .map(|document| parse(document).unwrap())
        .collect()
}

#[test]
fn an_https_gateway_may_get_the_secrets_of_its_listeners_and_no_others() {
    let text = fs::read_to_string(deploy("kubernetes/gateway-api/https.yaml")).unwrap();
    let all: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let of_kind = |kind: &str| all.iter().find(|it| it["kind"] == kind).unwrap();
    let listeners = of_kind("Gateway")["spec"]["listeners"].as_array().unwrap();
    let references = listeners.iter().flat_map(|listener| {
        let references = listener["tls"]["certificateRefs"].as_array();
        references.into_iter().flatten()
    });
    let named: Value = references
        .map(|reference| reference["name"].clone())
        .collect();
    assert_eq!(
        of_kind("Role")["rules"],
        json!([{
            "apiGroups": [""], "resources": ["secrets"], "resourceNames": named, "verbs": ["get"],
        }])
    );
    let documents = https_gateway();
    let (_, container) = containers(&documents).next().unwrap();
    // Without a certificate, handshakes fail; that is no reason to restart the container.
    let liveness = container.liveness_probe.as_ref().unwrap();
    assert!(liveness.tcp_socket.is_some() && liveness.http_get.is_none());
    let service = documents.iter().find_map(|document| match document {
        Document::Service(service) => service.spec.as_ref(),
        _ => None,
    });
    for port in service.unwrap().ports.as_ref().unwrap() {
        let target = port.target_port.as_ref().unwrap();
        assert_eq!(port_number(container, target), 8443);
    }
}

#[test]
fn every_selector_matches_its_pods() {
    let documents = documents(BASE);
    let pods: Vec<_> = documents
        .iter()
        .filter_map(Document::pod_template)
        .collect();
    assert_eq!(pods.len(), 3);
    let select = |selector: &BTreeMap<String, String>| {
        let is_selected = |labels: &BTreeMap<String, String>| {
            let mut wanted = selector.iter();
            wanted.all(|(key, value)| labels.get(key) == Some(value))
        };
        let labels = pods.iter().map(|(name, template)| {
            let metadata = template.metadata.as_ref().unwrap();
            (*name, metadata.labels.as_ref().unwrap())
        });
        let selected: Vec<_> = labels
            .filter(|(_, labels)| is_selected(labels))
            .map(|(name, _)| name.to_owned())
            .collect();
        selected
    };
    let matching = |selector: &Option<LabelSelector>| {
        let labels = selector.as_ref().and_then(|it| it.match_labels.clone());
        select(&labels.unwrap_or_default())
    };
    for document in &documents {
        match document {
            Document::Service(service) => {
                let spec = service.spec.as_ref().unwrap();
                let name = service.metadata.name.clone().unwrap();
                assert_eq!(select(spec.selector.as_ref().unwrap()), [name.as_str()]);
                let (_, container) = containers(&documents)
                    .find(|(workload, _)| *workload == name)
                    .unwrap();
                for port in spec.ports.as_ref().unwrap() {
                    assert!(port.app_protocol.is_some(), "{name}");
                    port_number(container, port.target_port.as_ref().unwrap());
                }
            }
            Document::Deployment(deployment) => {
                let spec = deployment.spec.as_ref().unwrap();
                let name = deployment.metadata.name.clone().unwrap();
                assert_eq!(matching(&Some(spec.selector.clone())), [name]);
            }
            Document::PodDisruptionBudget(budget) => {
                let name = budget.metadata.name.clone().unwrap();
                assert_eq!(matching(&budget.spec.as_ref().unwrap().selector), [name]);
            }
            Document::NetworkPolicy(policy) => {
                let selector = policy.spec.as_ref().unwrap().pod_selector.clone();
                assert!(!matching(&selector).is_empty());
            }
            _ => {}
        }
    }
}

#[test]
fn only_services_that_use_discovery_have_read_access_and_a_token() {
    let documents = documents(BASE);
    let mut allowed = Vec::new();
    for document in &documents {
        match document {
            Document::Role(role) => {
                for rule in role.rules.iter().flatten() {
                    assert_eq!(rule.verbs, ["list", "watch"]);
                    let resources = rule.resources.iter().flatten();
                    allowed.extend(resources.map(String::as_str));
                }
            }
            Document::RoleBinding(binding) => {
                assert_eq!(binding.role_ref.kind, "Role");
                let subjects = binding.subjects.iter().flatten();
                let names: Vec<_> = subjects.map(|subject| subject.name.as_str()).collect();
                assert_eq!(names, ["api-gateway", "ui"]);
            }
            _ => {}
        }
    }
    assert_eq!(allowed, ["services", "endpointslices"]);
    for (name, template) in documents.iter().filter_map(Document::pod_template) {
        let spec = template.spec.as_ref().unwrap();
        assert_eq!(spec.service_account_name.as_deref(), Some(name));
        let has_token = spec.automount_service_account_token;
        assert_eq!(has_token, Some(name != "ai-models"), "{name}");
    }
}

/// The Pod Security Standard "restricted", and a read-only root file system.
#[test]
fn pods_meet_the_restricted_security_standard() {
    let mut documents = documents(BASE);
    documents.extend(https_gateway());
    for (name, template) in documents.iter().filter_map(Document::pod_template) {
        let spec = template.spec.as_ref().unwrap();
        let pod = spec.security_context.as_ref().unwrap();
        assert_eq!(pod.run_as_non_root, Some(true), "{name}");
        assert_ne!(pod.run_as_user, Some(0), "{name}");
        assert_eq!(
            pod.seccomp_profile.as_ref().unwrap().type_,
            "RuntimeDefault"
        );
        assert!(spec.host_network.is_none(), "{name}");
        assert_eq!(spec.enable_service_links, Some(false), "{name}");
    }
    for (name, container) in containers(&documents) {
        let security = container.security_context.as_ref().unwrap();
        assert_eq!(security.allow_privilege_escalation, Some(false), "{name}");
        assert_eq!(security.read_only_root_filesystem, Some(true), "{name}");
        let dropped = security.capabilities.as_ref().unwrap().drop.as_ref();
        assert_eq!(dropped.unwrap(), &["ALL"], "{name}");
        let resources = container.resources.as_ref().unwrap();
        assert!(resources.limits.as_ref().unwrap().contains_key("memory"));
        assert_eq!(resources.requests.as_ref().unwrap().len(), 2, "{name}");
    }
}

#[test]
fn every_environment_variable_is_documented() {
    let documented = include_str!("../../../../waypost/src/settings/mod.rs");
    let mut documents = documents(BASE);
    documents.extend(https_gateway());
    for (name, container) in containers(&documents) {
        for variable in container.env.iter().flatten() {
            let quoted = format!("`{}", variable.name);
            assert!(documented.contains(&quoted), "{name}: {}", variable.name);
        }
    }
}
