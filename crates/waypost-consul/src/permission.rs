use std::borrow::Cow;
use std::fmt;

/// What a request needs of the ACL policy of its token, in the words of a policy.
#[derive(Clone, Debug)]
pub(super) struct Need {
    resource: &'static str,
    name: Option<Cow<'static, str>>,
    access: &'static str,
}

impl Need {
    pub(super) fn read_service(name: &str) -> Self {
        Self::of("service", Some(name), "read")
    }

    pub(super) fn write_service(name: Option<&str>) -> Self {
        Self::of("service", name, "write")
    }

    pub(super) fn read_all_services() -> Self {
        Self::of("service", Some(""), "read")
    }

    pub(super) fn read_all_nodes() -> Self {
        Self::of("node", Some(""), "read")
    }

    fn of(resource: &'static str, name: Option<&str>, access: &'static str) -> Self {
        Self {
            resource,
            name: name.map(|name| name.to_owned().into()),
            access,
        }
    }

    /// The question of `/v1/internal/acl/authorize`.
    pub(super) fn question(&self) -> serde_json::Value {
        serde_json::json!({
            "Resource": self.resource,
            "Segment": self.name.as_deref().unwrap_or_default(),
            "Access": self.access,
        })
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            resource, access, ..
        } = self;
        match self.name.as_deref() {
            Some("") => write!(f, "{resource}_prefix \"\" {{ policy = \"{access}\" }}"),
            Some(name) => write!(f, "{resource} \"{name}\" {{ policy = \"{access}\" }}"),
            None => write!(f, "{resource} \"<its name>\" {{ policy = \"{access}\" }}"),
        }
    }
}
