//! All instances of one service name, with their own index and cached responses, so that the cost of a
//! change doesn't depend on the number of other services.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::case_folding::fold_case;
use super::super::changes::Changes;
use super::super::model::{Check, Service};
use super::super::response_cache::{CacheKey, CacheSlot, ResponseCache};
use super::super::watch::Topic;

/// The instances of one case-folded name.
#[derive(Clone, Debug, Default)]
pub(super) struct ServiceGroup {
    index: u64,
    /// By case-folded node name and service id.
    rows: BTreeMap<(String, String), InstanceRow>,
    /// By name as registered, because the instances may differ in case. Saves looking at each instance
    /// when services are listed.
    tag_counts: BTreeMap<String, TagCounts>,
    /// The case-folded names of services that instances are or were Connect proxies of.
    proxied: BTreeSet<String>,
    cache: ResponseCache,
}

/// An instance and its checks.
#[derive(Clone, Debug)]
pub(super) struct InstanceRow {
    pub service: Arc<Service>,
    /// Sorted by case-folded id.
    pub checks: Vec<Arc<Check>>,
}

/// The number of instances with one name, and with each tag.
#[derive(Clone, Debug, Default)]
struct TagCounts {
    instances: usize,
    by_tag: BTreeMap<String, usize>,
}

impl ServiceGroup {
    pub(super) fn index(&self) -> u64 {
        self.index
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether an instance is or was a Connect proxy of a service.
    pub(super) fn has_proxied(&self, name_key: &str) -> bool {
        self.proxied.contains(name_key)
    }

    /// The name of the first instance as registered.
    pub(super) fn name(&self) -> Option<&str> {
        let (_, row) = self.rows.first_key_value()?;
        Some(&row.service.name)
    }

    /// Each name as registered, with the tags of its instances.
    pub(super) fn tags_by_name(&self) -> impl Iterator<Item = (&str, Vec<&str>)> {
        self.tag_counts.iter().map(|(name, counts)| {
            let tags = counts.by_tag.keys().map(String::as_str).collect();
            (name.as_str(), tags)
        })
    }

    /// The instances with the key of their node, sorted by node and id.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&str, &InstanceRow)> {
        let rows = self.rows.iter();
        rows.map(|((node_key, _), row)| (node_key.as_str(), row))
    }

    pub(super) fn cache_slot(&self, key: &CacheKey) -> CacheSlot {
        self.cache.slot(key)
    }

    /// Adds or replaces an instance. A replaced one keeps its checks; a new one starts with
    /// `checks`.
    pub(super) fn insert(
        &mut self,
        node_key: &str,
        id_key: &str,
        service: Arc<Service>,
        checks: Vec<Arc<Check>>,
    ) {
        self.count_tags(&service);
        self.proxied
            .extend(service.proxied_service().map(fold_case));
        let key = (node_key.to_owned(), id_key.to_owned());
        if let Some(row) = self.rows.get_mut(&key) {
            let old = std::mem::replace(&mut row.service, service);
            self.uncount_tags(&old);
        } else {
            self.rows.insert(key, InstanceRow { service, checks });
        }
    }

    /// Removes an instance and returns its checks.
    pub(super) fn remove(&mut self, node_key: &str, id_key: &str) -> Option<Vec<Arc<Check>>> {
        let key = (node_key.to_owned(), id_key.to_owned());
        let row = self.rows.remove(&key)?;
        self.uncount_tags(&row.service);
        Some(row.checks)
    }

    pub(super) fn checks_mut(
        &mut self,
        node_key: &str,
        id_key: &str,
    ) -> Option<&mut Vec<Arc<Check>>> {
        let key = (node_key.to_owned(), id_key.to_owned());
        Some(&mut self.rows.get_mut(&key)?.checks)
    }

    /// Marks the group as changed. `name_key` is its case-folded name.
    pub(super) fn touch(&mut self, name_key: &str, changes: &mut Changes) {
        self.index = changes.index();
        self.cache.clear();
        changes.touch(Topic::Service(name_key.to_owned()));
        for proxied in &self.proxied {
            changes.touch(Topic::Service(proxied.clone()));
        }
    }

    fn count_tags(&mut self, service: &Service) {
        let counts = self.tag_counts.entry(service.name.clone()).or_default();
        counts.instances += 1;
        for tag in &service.tags {
            *counts.by_tag.entry(tag.clone()).or_default() += 1;
        }
    }

    fn uncount_tags(&mut self, service: &Service) {
        let Some(counts) = self.tag_counts.get_mut(&service.name) else {
            return;
        };
        counts.instances -= 1;
        for tag in &service.tags {
            if let Some(count) = counts.by_tag.get_mut(tag) {
                *count -= 1;
                if *count == 0 {
                    counts.by_tag.remove(tag);
                }
            }
        }
        if counts.instances == 0 {
            self.tag_counts.remove(&service.name);
        }
    }
}
