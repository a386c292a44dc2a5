//! Settings of discovery that are not about the connection.

use std::sync::Arc;

use waypost_core::provider::IgnoredValues;

use crate::label_selector::LabelSelector;
use crate::namespaces::Namespaces;

/// Which Services names refer to, and how Services become instances.
#[derive(Debug)]
pub(crate) struct DiscoveryOptions {
    /// The namespace of names that do not include one.
    pub(crate) namespace: Arc<str>,
    /// The namespaces whose Services are listed: the default one and others, or all.
    pub(crate) listed_namespaces: Vec<Namespaces>,
    /// Which Services are listed.
    pub(crate) listed_services: LabelSelector,
    pub(crate) cluster_domain: Arc<str>,
    /// Keys of the annotations that are copied into the metadata.
    pub(crate) annotations: Vec<Box<str>>,
    /// The name of the port to call.
    pub(crate) port: Option<Box<str>>,
    /// The node and the zone that this process runs in, if they are known.
    pub(crate) node: Option<Box<str>>,
    pub(crate) zone: Option<Box<str>>,
    /// Logs ignored values.
    pub(crate) ignored: IgnoredValues,
}

#[cfg(test)]
impl DiscoveryOptions {
    /// The options of a provider for the namespace `demo`, with defaults.
    pub(crate) fn in_demo() -> Self {
        Self {
            namespace: "demo".into(),
            listed_namespaces: Vec::new(),
            listed_services: LabelSelector::default(),
            cluster_domain: "cluster.local".into(),
            annotations: Vec::new(),
            port: None,
            node: None,
            zone: None,
            ignored: IgnoredValues::default(),
        }
    }
}
