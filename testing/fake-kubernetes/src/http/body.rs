//! The forms in which an object may be sent.

use serde_json::Value;

use super::{Call, Status, protobuf};

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

impl Call {
    /// The object in the body, of whatever kind.
    pub(crate) fn object(&self) -> Result<Value, Status> {
        match self.content_type() {
            "" | JSON => self.json(),
            YAML => self.yaml(),
            PROTOBUF => protobuf::read(&self.body)
                .ok_or_else(|| Status::bad_request("error decoding the body as protobuf")),
            _ => Err(Status::unsupported_media(
                &[JSON, YAML, PROTOBUF].join(", "),
            )),
        }
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Result<Value, Status> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Status::bad_request(format!("error decoding the body: {error}")))
    }

    /// The body as YAML, which JSON is too.
    pub(crate) fn yaml(&self) -> Result<Value, Status> {
        let invalid = |error: &dyn std::fmt::Display| {
            Status::bad_request(format!("error decoding the body: {error}"))
        };
        let text = std::str::from_utf8(&self.body).map_err(|error| invalid(&error))?;
        serde_saphyr::from_str(text).map_err(|error| invalid(&error))
    }
}
