//! The kinds of objects that are served.

/// One of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// The API group; empty for the core.
    pub group: &'static str,
    pub version: &'static str,
    /// As in paths and rules.
    pub plural: &'static str,
    pub singular: &'static str,
    pub name: &'static str,
    pub is_namespaced: bool,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    /// Whether an update must say which version it changes.
    pub needs_version: bool,
    /// Whether its changes are counted in `metadata.generation`.
    pub has_generation: bool,
    /// What an empty object of the kind looks like beside its metadata: Go writes fields that are
    /// empty unless told otherwise.
    pub zero: &'static str,
}

const RBAC: &str = "rbac.authorization.k8s.io";

const fn kind(group: &'static str, plural: &'static str, name: &'static str) -> Kind {
    Kind {
        group,
        version: "v1",
        plural,
        singular: "",
        name,
        is_namespaced: true,
        short_names: &[],
        categories: &[],
        needs_version: false,
        has_generation: false,
        zero: "",
    }
}

pub(crate) static KINDS: [Kind; 10] = [
    Kind {
        singular: "namespace",
        is_namespaced: false,
        short_names: &["ns"],
        zero: r#","spec":{},"status":{}"#,
        ..kind("", "namespaces", "Namespace")
    },
    Kind {
        singular: "pod",
        short_names: &["po"],
        categories: &["all"],
        zero: r#","spec":{"containers":null},"status":{}"#,
        ..kind("", "pods", "Pod")
    },
    Kind {
        singular: "service",
        short_names: &["svc"],
        categories: &["all"],
        zero: r#","spec":{},"status":{"loadBalancer":{}}"#,
        ..kind("", "services", "Service")
    },
    Kind {
        singular: "serviceaccount",
        short_names: &["sa"],
        ..kind("", "serviceaccounts", "ServiceAccount")
    },
    Kind {
        singular: "endpointslice",
        has_generation: true,
        zero: r#","addressType":"","endpoints":null,"ports":null"#,
        ..kind("discovery.k8s.io", "endpointslices", "EndpointSlice")
    },
    Kind {
        singular: "lease",
        needs_version: true,
        zero: r#","spec":{}"#,
        ..kind("coordination.k8s.io", "leases", "Lease")
    },
    Kind {
        singular: "role",
        zero: r#","rules":null"#,
        ..kind(RBAC, "roles", "Role")
    },
    Kind {
        singular: "rolebinding",
        zero: r#","roleRef":{"apiGroup":"","kind":"","name":""}"#,
        ..kind(RBAC, "rolebindings", "RoleBinding")
    },
    Kind {
        singular: "clusterrole",
        is_namespaced: false,
        zero: r#","rules":null"#,
        ..kind(RBAC, "clusterroles", "ClusterRole")
    },
    Kind {
        singular: "clusterrolebinding",
        is_namespaced: false,
        zero: r#","roleRef":{"apiGroup":"","kind":"","name":""}"#,
        ..kind(RBAC, "clusterrolebindings", "ClusterRoleBinding")
    },
];

impl Kind {
    /// `v1` or `discovery.k8s.io/v1`.
    pub(crate) fn api_version(&self) -> String {
        group_version(self.group, self.version)
    }

    /// `services` or `endpointslices.discovery.k8s.io`, as in error texts.
    pub(crate) fn qualified_plural(&self) -> String {
        qualified(self.plural, self.group)
    }

    /// `Service` or `EndpointSlice.discovery.k8s.io`, as in error texts.
    pub(crate) fn qualified_name(&self) -> String {
        qualified(self.name, self.group)
    }

    /// The kind with this plural in this group.
    pub(crate) fn find(group: &str, version: &str, plural: &str) -> Option<&'static Self> {
        KINDS
            .iter()
            .find(|it| it.group == group && it.version == version && it.plural == plural)
    }

    /// The kind that a manifest names.
    pub(crate) fn of(api_version: &str, name: &str) -> Option<&'static Self> {
        KINDS
            .iter()
            .find(|it| it.name == name && it.api_version() == api_version)
    }

    /// Its place among all.
    pub(crate) fn index(&self) -> usize {
        KINDS.iter().position(|it| it == self).unwrap_or_default()
    }
}

/// `group/version`, or the version alone for the core.
pub(crate) fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

/// `name.group`, or the name alone for the core.
pub(crate) fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() {
        name.to_owned()
    } else {
        format!("{name}.{group}")
    }
}
