//! The body of `/v1/internal/acl/authorize`.

use super::{Fault, Fields, Json};

/// A question of whether something is allowed.
#[derive(Debug)]
pub(crate) struct Authorization {
    pub resource: String,
    pub segment: String,
    pub access: String,
}

pub(crate) fn authorizations(json: Json<'_>) -> Result<Vec<Authorization>, Fault> {
    match json {
        Json::Array(items) => items.into_iter().map(authorization).collect(),
        Json::Null => Ok(Vec::new()),
        other => Err(Fault::mismatch(&other, "[]structs.ACLAuthorizationRequest")),
    }
}

fn authorization(json: Json<'_>) -> Result<Authorization, Fault> {
    let go_type = "structs.ACLAuthorizationRequest";
    let mut fields = Fields::of(json, "ACLAuthorizationRequest", go_type)?;
    let authorization = Authorization {
        resource: fields.take("Resource"),
        segment: fields.take("Segment"),
        access: fields.take("Access"),
    };
    fields.finish_leniently()?;
    Ok(authorization)
}
