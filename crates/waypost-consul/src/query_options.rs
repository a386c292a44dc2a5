//! The options of reads.

use std::time::Duration;

/// How up to date a read of Consul must be ("Consistency Modes" in its API documentation).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Consistency {
    /// The leader answers without consulting the other servers.
    #[default]
    Default,
    /// Any server answers, even if its data is behind the leader's. This spreads the load and works
    /// without a leader.
    Stale,
    /// The leader answers after the other servers have confirmed that it still is the leader.
    Consistent,
}

/// How services are read.
#[derive(Clone, Debug)]
pub(super) struct QueryOptions {
    /// The longest wait of a blocking query.
    pub(super) wait: Duration,
    pub(super) passing_only: bool,
    pub(super) tagged_address: Option<String>,
    pub(super) datacenter: Option<String>,
    pub(super) consistency: Consistency,
    pub(super) tags: Vec<String>,
    pub(super) filter: Option<String>,
    pub(super) near: Option<String>,
    pub(super) node_meta: Vec<(String, String)>,
}

impl Default for QueryOptions {
    fn default() -> Self {
        Self {
            wait: Duration::from_secs(60),
            passing_only: false,
            tagged_address: None,
            datacenter: None,
            consistency: Consistency::Default,
            tags: Vec::new(),
            filter: None,
            near: None,
            node_meta: Vec::new(),
        }
    }
}

impl QueryOptions {
    /// The query parameters of a read of a service's instances.
    pub(super) fn health_params(&self) -> Vec<(String, String)> {
        let mut params = self.catalog_params();
        let mut add = |key: &str, value: &str| params.push((key.to_owned(), value.to_owned()));
        for tag in &self.tags {
            add("tag", tag);
        }
        if let Some(filter) = &self.filter {
            add("filter", filter);
        }
        if let Some(near) = &self.near {
            add("near", near);
        }
        params
    }

    /// The query parameters of a read of the services' names.
    pub(super) fn catalog_params(&self) -> Vec<(String, String)> {
        let mut params = Vec::new();
        let mut add = |key: &str, value: &str| params.push((key.to_owned(), value.to_owned()));
        if let Some(datacenter) = &self.datacenter {
            add("dc", datacenter);
        }
        match self.consistency {
            Consistency::Default => {}
            Consistency::Stale => add("stale", ""),
            Consistency::Consistent => add("consistent", ""),
        }
        for (key, value) in &self.node_meta {
            add("node-meta", &format!("{key}:{value}"));
        }
        params
    }
}
