//! The ACL rules that requests need.

use std::fmt;

use serde_json::{Value, json};

/// A rule that the policy of a token must contain for a request to succeed.
#[derive(Clone, Debug)]
pub(super) struct AclRule {
    resource: &'static str,
    name: ResourceName,
    access: &'static str,
}

#[derive(Clone, Debug)]
enum ResourceName {
    Exact(String),
    /// Every resource, as the empty prefix.
    All,
    /// The request has only an id, so the name isn't known.
    Unknown,
}

impl AclRule {
    pub(super) fn read_service(name: &str) -> Self {
        Self::new("service", ResourceName::Exact(name.to_owned()), "read")
    }

    pub(super) fn write_service(name: &str) -> Self {
        Self::new("service", ResourceName::Exact(name.to_owned()), "write")
    }

    pub(super) fn write_unknown_service() -> Self {
        Self::new("service", ResourceName::Unknown, "write")
    }

    pub(super) fn read_all_services() -> Self {
        Self::new("service", ResourceName::All, "read")
    }

    pub(super) fn read_all_nodes() -> Self {
        Self::new("node", ResourceName::All, "read")
    }

    fn new(resource: &'static str, name: ResourceName, access: &'static str) -> Self {
        Self {
            resource,
            name,
            access,
        }
    }

    /// The item for this rule in a request to `/v1/internal/acl/authorize`.
    pub(super) fn authorization_request(&self) -> Value {
        let segment = match &self.name {
            ResourceName::Exact(name) => name,
            ResourceName::All | ResourceName::Unknown => "",
        };
        json!({ "Resource": self.resource, "Segment": segment, "Access": self.access })
    }
}

/// Writes the rule as in a policy.
impl fmt::Display for AclRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            resource,
            name,
            access,
        } = self;
        match name {
            ResourceName::Exact(name) => write!(f, "{resource} \"{name}\"")?,
            ResourceName::All => write!(f, "{resource}_prefix \"\"")?,
            ResourceName::Unknown => write!(f, "{resource} \"<its name>\"")?,
        }
        write!(f, " {{ policy = \"{access}\" }}")
    }
}
