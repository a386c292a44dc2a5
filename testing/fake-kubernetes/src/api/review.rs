//! SelfSubjectAccessReviews: whether the user of the request has a permission.

use http::{Method, StatusCode};
use k8s_openapi::api::authorization::v1::{SelfSubjectAccessReview, SubjectAccessReviewStatus};
use serde_json::json;

use crate::auth::credentials::User;
use crate::auth::rbac::{Action, allows};
use crate::cluster::Cluster;
use crate::http::request::ApiRequest;
use crate::http::response::{self, Response};
use crate::http::status::Status;

pub(super) fn answer(
    cluster: &Cluster,
    user: &User,
    request: &ApiRequest,
) -> Result<Response, Status> {
    if request.method != Method::POST {
        return Err(Status::method_not_allowed());
    }
    if user.is_anonymous() {
        let subject = "selfsubjectaccessreviews.authorization.k8s.io";
        let why = format!("User {:?} cannot create it at the cluster scope", user.name);
        return Err(Status::forbidden(subject, &why));
    }
    let invalid = |error| Status::bad_request(format!("error decoding the body: {error}"));
    let review = serde_json::from_value(request.json()?).map_err(invalid)?;
    let mut review: SelfSubjectAccessReview = review;
    let Some(asked) = &review.spec.resource_attributes else {
        return Err(Status::unsupported("a review without resourceAttributes"));
    };
    let action = Action {
        verb: asked.verb.as_deref().unwrap_or_default(),
        group: asked.group.as_deref().unwrap_or_default(),
        resource: asked.resource.as_deref().unwrap_or_default(),
        namespace: asked.namespace.as_deref().unwrap_or_default(),
        name: asked.name.as_deref().unwrap_or_default(),
    };
    review.status = Some(SubjectAccessReviewStatus {
        allowed: allows(&cluster.store(), user, action),
        ..SubjectAccessReviewStatus::default()
    });
    let json = json!(review).to_string();
    Ok(response::json(StatusCode::CREATED, json))
}
