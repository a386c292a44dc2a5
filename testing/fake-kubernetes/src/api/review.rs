//! Questions about one's own rights.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::access::{Attributes, User, allows, rules_of};
use crate::app::App;
use crate::http::{Call, Reply, Status};

pub(super) fn answer(app: &App, user: &User, plural: &str, call: &Call) -> Result<Reply, Status> {
    if call.method != Method::POST {
        return Err(Status::method_not_allowed());
    }
    let mut review = call.object()?;
    let (kind, status) = match plural {
        "selfsubjectaccessreviews" => ("SelfSubjectAccessReview", access(app, user, &review)?),
        "selfsubjectrulesreviews" => ("SelfSubjectRulesReview", rules(app, user, &review)),
        _ => return Err(Status::no_such_resource()),
    };
    review["kind"] = kind.into();
    review["apiVersion"] = "authorization.k8s.io/v1".into();
    if review["metadata"].is_null() {
        review["metadata"] = json!({});
    }
    review["status"] = status;
    Ok(Reply::json(StatusCode::CREATED, &review))
}

fn access(app: &App, user: &User, review: &Value) -> Result<Value, Status> {
    let spec = &review["spec"];
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let resource = &spec["resourceAttributes"];
    let path = &spec["nonResourceAttributes"];
    let is_allowed = if resource.is_object() {
        let mut plural = text(resource, "resource");
        let subresource = text(resource, "subresource");
        if !subresource.is_empty() {
            plural = format!("{plural}/{subresource}");
        }
        let wanted = Attributes::Resource {
            verb: &text(resource, "verb"),
            group: &text(resource, "group"),
            resource: &plural,
            namespace: &text(resource, "namespace"),
            name: &text(resource, "name"),
        };
        allows(&app.store.read(), user, wanted)
    } else if path.is_object() {
        let wanted = Attributes::Path {
            verb: &text(path, "verb"),
            path: &text(path, "path"),
        };
        allows(&app.store.read(), user, wanted)
    } else {
        return Err(Status::bad_request(
            "SelfSubjectAccessReview.authorization.k8s.io \"\" is invalid: \
             spec.resourceAttributes: Invalid value: null: exactly one of \
             nonResourceAttributes or resourceAttributes must be specified",
        ));
    };
    let mut status = json!({ "allowed": is_allowed });
    if is_allowed {
        status["reason"] = "RBAC: allowed by a role".into();
    }
    Ok(status)
}

fn rules(app: &App, user: &User, review: &Value) -> Value {
    let namespace = review["spec"]["namespace"].as_str().unwrap_or_default();
    let mut rules = rules_of(&app.store.read(), user, namespace);
    rules.push(json!({
        "verbs": ["create"],
        "apiGroups": ["authorization.k8s.io"],
        "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
    }));
    if user.is_in(crate::access::MASTERS) {
        rules.push(json!({ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }));
        rules.push(json!({ "verbs": ["*"], "nonResourceURLs": ["*"] }));
    }
    let (paths, resources): (Vec<_>, Vec<_>) = rules
        .into_iter()
        .partition(|rule| rule["nonResourceURLs"].is_array());
    json!({ "resourceRules": resources, "nonResourceRules": paths, "incomplete": false })
}
