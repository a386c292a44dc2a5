//! All instances of one service, kept up to date slice by slice.
//!
//! A change of a slice costs in proportion to that slice: its instances are mapped again, those that
//! are unchanged stay the same objects, and the rest of the service is not touched.

mod addresses;
mod expiry;
mod locality;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::time::Instant;
use waypost_core::{Health, Instance, InstanceId};

use self::addresses::{Addresses, address};
use self::expiry::Expiry;
use self::locality::{Locality, Rule};
use crate::clock::Now;
use crate::mapping::{MappingContext, lacks_hint, map_slice};
use crate::ports::PortChoice;
use crate::resources::{EndpointSlice, Service};

/// The slices of one service, and the instances that they are mapped to.
pub(crate) struct EndpointSet {
    context: MappingContext,
    slices: BTreeMap<Arc<str>, SliceEntry>,
    by_id: BTreeMap<InstanceId, Vec<Candidate>>,
    addresses: Addresses,
    /// How many ready endpoints have no zone hint.
    unhinted: usize,
    next_expiry: Option<Instant>,
}

struct SliceEntry {
    slice: Arc<EndpointSlice>,
    instances: Vec<Option<Arc<Instance>>>,
    unhinted: usize,
    /// For a slice that must be renewed.
    expiry: Option<Expiry>,
}

impl SliceEntry {
    fn has_expired(&self) -> bool {
        self.expiry.is_some_and(Expiry::has_expired)
    }

    fn due(&self) -> Option<Instant> {
        self.expiry.and_then(Expiry::due)
    }
}

/// An instance as one slice describes it. Several slices hold the same instance while a pod moves
/// between slices, and always in dual-stack clusters. The candidate of the lowest rank is used.
struct Candidate {
    rank: (Health, bool),
    slice: Arc<str>,
    instance: Arc<Instance>,
    locality: Locality,
}

impl EndpointSet {
    pub(crate) fn new(context: MappingContext) -> Self {
        Self {
            context,
            slices: BTreeMap::new(),
            by_id: BTreeMap::new(),
            addresses: Addresses::default(),
            unhinted: 0,
            next_expiry: None,
        }
    }

    pub(crate) fn context(&self) -> &MappingContext {
        &self.context
    }

    pub(crate) fn has_slices(&self) -> bool {
        !self.slices.is_empty()
    }

    /// The instances to use, ordered by id: those that kube-proxy on this node would choose, if node and
    /// zone are known.
    pub(crate) fn instances(&self) -> Vec<Arc<Instance>> {
        let candidates = self.candidates();
        let options = &*self.context.options;
        let policy = self.context.service.as_deref();
        let policy = policy.and_then(|service| service.spec.internal_traffic_policy.as_deref());
        let ready = (candidates.iter())
            .filter(|candidate| candidate.instance.health().takes_traffic())
            .map(|candidate| candidate.locality);
        let rule = Rule::of(policy == Some("Local"), options, ready);
        let selected = candidates.iter().filter(|it| rule.selects(it.locality));
        selected.map(|it| Arc::clone(&it.instance)).collect()
    }

    /// The best candidate for each id, ordered by id. If several have the same address, only the
    /// healthiest is used, or the one with the lowest id among equals: otherwise the address would get
    /// several shares of the traffic.
    fn candidates(&self) -> Vec<&Candidate> {
        let candidates = self.by_id.values().filter_map(|all| all.first());
        if !self.addresses.are_shared() {
            return candidates.collect();
        }
        let mut best_at: HashMap<_, &Candidate> = HashMap::new();
        for candidate in candidates.clone() {
            let best = best_at
                .entry(address(&candidate.instance))
                .or_insert(candidate);
            if candidate.instance.health() < best.instance.health() {
                *best = candidate;
            }
        }
        let is_best = |candidate: &&Candidate| {
            let best = best_at.get(&address(&candidate.instance));
            best.is_some_and(|best| Arc::ptr_eq(&best.instance, &candidate.instance))
        };
        candidates.filter(is_best).collect()
    }

    /// Sets the Service, and what could not be read.
    pub(crate) fn set_service(
        &mut self,
        service: Option<&Arc<Service>>,
        degraded: Option<&'static str>,
    ) {
        let is_equivalent = match (&self.context.service, service) {
            (None, None) => true,
            (Some(before), Some(now)) => Arc::ptr_eq(before, now) || before.is_equivalent(now),
            _ => false,
        };
        if is_equivalent && degraded == self.context.degraded {
            return;
        }
        self.context.service = service.cloned();
        self.context.degraded = degraded;
        self.context.port = self.choose_port();
        self.map_all_again();
        self.update_context();
    }

    /// Adds a slice, or replaces the one of the same name.
    pub(crate) fn apply(&mut self, slice: &Arc<EndpointSlice>, now: Now) {
        let name = &slice.metadata.name;
        let known = self.slices.get(name);
        if known.is_some_and(|entry| Arc::ptr_eq(&entry.slice, slice)) {
            return;
        }
        let before = self.remove(name);
        let expiry = Expiry::of(slice, before.as_ref().and_then(|entry| entry.expiry), now);
        let has_expired = expiry.is_some_and(Expiry::has_expired);
        let earlier = before
            .as_ref()
            .filter(|entry| entry.has_expired() == has_expired)
            .map(|entry| (&*entry.slice, &entry.instances[..]));
        let instances = map_slice(&self.context, slice, has_expired, earlier);
        self.insert(slice, instances, expiry);
        self.update_context();
    }

    /// Deletes a slice, if it is there.
    pub(crate) fn delete(&mut self, slice: &str) {
        self.remove(slice);
        self.update_context();
    }

    /// Replaces all slices of the service.
    pub(crate) fn replace<'a>(
        &mut self,
        slices: impl Iterator<Item = &'a Arc<EndpointSlice>>,
        now: Now,
    ) {
        let slices: BTreeMap<_, _> = slices.map(|slice| (&slice.metadata.name, slice)).collect();
        let gone = self.slices.keys().filter(|name| !slices.contains_key(name));
        for name in gone.cloned().collect::<Vec<_>>() {
            self.remove(&name);
        }
        for slice in slices.into_values() {
            self.apply(slice, now);
        }
        self.update_context();
    }

    // --- slices that must be renewed ---

    /// The latest time at which [`Self::expire`] must be called.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.next_expiry
    }

    /// Makes the instances critical whose slices have not been renewed in time. Returns whether
    /// there are any.
    pub(crate) fn expire(&mut self, now: Instant) -> bool {
        let is_due = |entry: &SliceEntry| entry.due().is_some_and(|due| due <= now);
        let due = self.slices.iter().filter(|(_, entry)| is_due(entry));
        let due: Vec<_> = due.map(|(name, _)| Arc::clone(name)).collect();
        for name in &due {
            let Some(entry) = self.remove(name) else {
                continue;
            };
            let service = &self.context.name;
            tracing::warn!(slice = &**name, %service, "instance was not renewed in time; treating it as critical");
            let instances = map_slice(&self.context, &entry.slice, true, None);
            self.insert(&entry.slice, instances, entry.expiry.map(Expiry::expired));
        }
        self.find_next_expiry();
        !due.is_empty()
    }

    /// Restarts the time until slices expire, after a period in which nothing could be renewed.
    pub(crate) fn restart_expiry(&mut self, now: Instant) {
        for entry in self.slices.values_mut() {
            entry.expiry = entry.expiry.map(|expiry| expiry.restarted(now));
        }
        self.find_next_expiry();
    }

    fn find_next_expiry(&mut self) {
        self.next_expiry = self.slices.values().filter_map(SliceEntry::due).min();
    }

    // --- slices and their instances ---

    /// Updates the values that depend on all slices, and maps all slices again if one has changed. Zone
    /// hints apply to all instances or to none: they don't apply if one endpoint lacks a hint. The
    /// port to call depends on the slices if the Service has no ports.
    fn update_context(&mut self) {
        let port = self.choose_port();
        if self.context.port != port {
            self.context.port = port;
            self.map_all_again();
        }
        let use_hints = self.unhinted == 0 && self.has_slices();
        if std::mem::replace(&mut self.context.use_hints, use_hints) != use_hints {
            self.map_all_again();
        }
    }

    fn choose_port(&self) -> PortChoice {
        let slices = self.slices.values().map(|entry| &*entry.slice);
        self.context.choose_port(slices)
    }

    fn map_all_again(&mut self) {
        let slices = self.slices.values().map(|entry| Arc::clone(&entry.slice));
        for slice in slices.collect::<Vec<_>>() {
            let Some(before) = self.remove(&slice.metadata.name) else {
                continue;
            };
            let instances = map_slice(&self.context, &slice, before.has_expired(), None);
            // Most changes of a Service leave its instances as they are.
            let instances = instances.into_iter().zip(before.instances);
            let instances = instances.map(|(now, before)| if now == before { before } else { now });
            self.insert(&slice, instances.collect(), before.expiry);
        }
    }

    fn insert(
        &mut self,
        slice: &Arc<EndpointSlice>,
        instances: Vec<Option<Arc<Instance>>>,
        expiry: Option<Expiry>,
    ) {
        let name = &slice.metadata.name;
        let service = self.context.service.as_deref();
        let families = service.and_then(|service| service.spec.ip_families.as_ref());
        let preferred = families.and_then(|families| families.first());
        let is_secondary = preferred.is_some_and(|preferred| *preferred != slice.address_type);
        for (endpoint, instance) in slice.endpoints().iter().zip(&instances) {
            let Some(instance) = instance else { continue };
            let candidates = self.by_id.entry(instance.id().clone()).or_default();
            let candidate = Candidate {
                rank: (instance.health(), is_secondary),
                slice: Arc::clone(name),
                instance: Arc::clone(instance),
                locality: Locality::of(endpoint, &self.context.options),
            };
            let key = |candidate: &Candidate| (candidate.rank, Arc::clone(&candidate.slice));
            let at = candidates.partition_point(|other| key(other) <= key(&candidate));
            candidates.insert(at, candidate);
            self.addresses.add(instance);
        }
        let endpoints = slice.endpoints().iter().zip(&instances);
        let unhinted = endpoints.filter(|(endpoint, it)| it.is_some() && lacks_hint(endpoint));
        let unhinted = unhinted.count();
        let entry = SliceEntry {
            slice: Arc::clone(slice),
            instances,
            unhinted,
            expiry,
        };
        self.unhinted += unhinted;
        self.next_expiry = [self.next_expiry, entry.due()].into_iter().flatten().min();
        self.slices.insert(Arc::clone(name), entry);
    }

    fn remove(&mut self, slice: &str) -> Option<SliceEntry> {
        let entry = self.slices.remove(slice)?;
        self.unhinted -= entry.unhinted;
        for instance in entry.instances.iter().flatten() {
            self.addresses.remove(instance);
            if let Entry::Occupied(mut candidates) = self.by_id.entry(instance.id().clone()) {
                candidates.get_mut().retain(|other| *other.slice != *slice);
                if candidates.get().is_empty() {
                    candidates.remove();
                }
            }
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use serde_json::{Value, json};

    use super::*;
    use crate::options::DiscoveryOptions;

    fn endpoint_set() -> EndpointSet {
        EndpointSet::new(MappingContext {
            name: "web".parse().unwrap(),
            namespace: "demo".into(),
            options: Arc::new(DiscoveryOptions {
                node: Some("node-1".into()),
                zone: Some("a".into()),
                ..DiscoveryOptions::in_demo()
            }),
            service: None,
            port: PortChoice::Default,
            named_port: None,
            use_hints: false,
            degraded: None,
        })
    }

    fn random_slice(random: &mut fastrand::Rng, name: usize) -> Arc<EndpointSlice> {
        let endpoint = |random: &mut fastrand::Rng| -> Value {
            let pod = random.u32(0..12);
            let mut endpoint = json!({
                "addresses": [format!("10.0.0.{}", random.u32(1..4))],
                "conditions": { "ready": random.bool() },
                "zone": "a",
            });
            if random.u32(0..4) > 0 {
                endpoint["targetRef"] = json!({ "kind": "Pod", "name": format!("pod-{pod}") });
            }
            if random.u32(0..8) > 0 {
                endpoint["hints"] = json!({ "forZones": [{ "name": "b" }] });
            }
            endpoint
        };
        let count = random.usize(0..6);
        let endpoints: Vec<_> = (0..count).map(|_| endpoint(random)).collect();
        let slice = json!({
            "metadata": { "name": format!("slice-{name}") },
            "addressType": if random.bool() { "IPv4" } else { "IPv6" },
            "ports": match random.u32(0..4) {
                0 => Value::Null,
                1 => json!([{ "name": "metrics", "port": 9090 }]),
                _ => json!([{ "name": "http", "port": random.u16(80..82) }]),
            },
            "endpoints": endpoints,
        });
        Arc::new(serde_json::from_value(slice).unwrap())
    }

    fn random_service(random: &mut fastrand::Rng) -> Option<Arc<Service>> {
        let service = json!({
            "metadata": { "name": "web", "labels": { "team": random.u32(0..2).to_string() } },
            "spec": {
                "ipFamilies": [if random.bool() { "IPv4" } else { "IPv6" }],
                "ports": match random.u32(0..3) {
                    0 => Value::Null,
                    1 => json!([{ "name": "http", "port": 80 }]),
                    _ => json!([{ "name": "metrics", "port": 90 }]),
                },
            },
        });
        let service = serde_json::from_value(service).unwrap();
        random.bool().then(|| Arc::new(service))
    }

    /// Of each of seven endpoints: its node, its zone, and whether it has hints for both.
    fn spread(hinted: bool, ready: impl Fn(usize) -> bool) -> Arc<EndpointSlice> {
        let endpoint = |n: usize| {
            let (node, zone) = (format!("node-{n}"), if n == 1 { "a" } else { "b" });
            let mut endpoint = json!({
                "addresses": [format!("10.0.0.{n}")], "nodeName": node, "zone": zone,
                "conditions": { "ready": ready(n) },
            });
            if hinted {
                endpoint["hints"] = json!({ "forZones": [{ "name": zone }] });
            }
            endpoint
        };
        let slice = json!({
            "metadata": { "name": "s" }, "addressType": "IPv4", "ports": [{ "port": 80 }],
            "endpoints": (1..8).map(endpoint).collect::<Vec<_>>(),
        });
        Arc::new(serde_json::from_value(slice).unwrap())
    }

    fn hosts(set: &EndpointSet) -> Vec<String> {
        let instances = set.instances();
        instances
            .iter()
            .map(|instance| instance.host().to_string())
            .collect()
    }

    /// As kube-proxy does: all traffic stays in the zone, even if one of seven endpoints is there.
    #[test]
    fn with_hints_only_the_endpoints_for_this_zone_are_used_while_one_is_ready() {
        let now = Now::read();
        let mut set = endpoint_set();
        set.apply(&spread(true, |_| true), now);
        assert_eq!(hosts(&set), ["10.0.0.1"]);
        set.apply(&spread(true, |n| n != 1), now);
        assert_eq!(hosts(&set).len(), 7);
        // Without hints, traffic doesn't have to stay in the zone.
        set.apply(&spread(false, |_| true), now);
        assert_eq!(hosts(&set).len(), 7);
        assert!(
            set.instances()
                .iter()
                .all(|instance| instance.zone().is_none())
        );
        assert_eq!(set.instances()[0].meta("zone"), Some("a"));
    }

    #[test]
    fn hints_for_nodes_come_before_those_for_zones() {
        let mut set = endpoint_set();
        let endpoint = |host: &str, node: &str| {
            json!({ "addresses": [host], "hints": {
                "forNodes": [{ "name": node }], "forZones": [{ "name": "a" }],
            }})
        };
        let slice = json!({
            "metadata": { "name": "s" }, "addressType": "IPv4", "ports": [{ "port": 80 }],
            "endpoints": [endpoint("10.0.0.1", "node-1"), endpoint("10.0.0.2", "node-2")],
        });
        set.apply(
            &Arc::new(serde_json::from_value(slice).unwrap()),
            Now::read(),
        );
        assert_eq!(hosts(&set), ["10.0.0.1"]);
    }

    #[test]
    fn with_the_local_traffic_policy_only_endpoints_on_this_node_are_used() {
        let now = Now::read();
        let mut set = endpoint_set();
        let service = json!({
            "metadata": { "name": "web" }, "spec": { "internalTrafficPolicy": "Local" },
        });
        let service: Service = serde_json::from_value(service).unwrap();
        set.set_service(Some(&Arc::new(service)), None);
        set.apply(&spread(false, |_| true), now);
        assert_eq!(hosts(&set), ["10.0.0.1"]);
        // No others are used, even if it is not ready.
        set.apply(&spread(false, |n| n != 1), now);
        assert_eq!(hosts(&set), ["10.0.0.1"]);
        assert_eq!(set.instances()[0].health(), Health::Critical);
    }

    #[test]
    fn incremental_changes_have_the_same_result_as_replacing_everything() {
        let now = Now::read();
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut incremental = endpoint_set();
            let mut slices: BTreeMap<usize, Arc<EndpointSlice>> = BTreeMap::new();
            let mut service = None;
            for step in 0..30 {
                let name = random.usize(0..4);
                match random.u32(0..6) {
                    0 => {
                        if let Some(slice) = slices.remove(&name) {
                            incremental.delete(&slice.metadata.name);
                        }
                    }
                    1 => {
                        service = random_service(&mut random);
                        incremental.set_service(service.as_ref(), None);
                    }
                    2 => {
                        slices.insert(name, random_slice(&mut random, name));
                        incremental.replace(slices.values(), now);
                    }
                    _ => {
                        let slice = random_slice(&mut random, name);
                        incremental.apply(&slice, now);
                        slices.insert(name, slice);
                    }
                }
                let mut expected = endpoint_set();
                expected.set_service(service.as_ref(), None);
                expected.replace(slices.values(), now);
                let row = format!("seed {seed}, step {step}");
                assert_eq!(incremental.instances(), expected.instances(), "{row}");
                assert_eq!(incremental.has_slices(), expected.has_slices(), "{row}");
            }
        }
    }

    fn renewed_slice(renewed_at: &str) -> Arc<EndpointSlice> {
        let slice = json!({
            "metadata": { "name": "waypost-a", "annotations": {
                "waypost.dev/id": "a",
                "waypost.dev/renewed-at": renewed_at,
                "waypost.dev/expires-after": "10m",
            }},
            "addressType": "IPv4",
            "ports": [{ "name": "http", "port": 80 }],
            "endpoints": [{ "addresses": ["10.0.0.1"], "conditions": { "ready": true } }],
        });
        Arc::new(serde_json::from_value(slice).unwrap())
    }

    fn health(set: &EndpointSet) -> Health {
        let instances = set.instances();
        assert_eq!(instances.len(), 1);
        instances[0].health()
    }

    fn minutes(n: u64) -> Duration {
        Duration::from_secs(60 * n)
    }

    /// The writer's clock may be wrong by years in either direction.
    #[test]
    fn an_instance_is_critical_from_three_minutes_without_renewal_until_the_next_renewal() {
        let start = Now::read();
        let at = |after| Now {
            monotonic: start.monotonic + after,
            wall: start.wall + after,
        };
        let mut set = endpoint_set();
        set.apply(&renewed_slice("2999-01-01T00:00:00Z"), start);
        assert_eq!(health(&set), Health::Passing);
        assert!(!set.expire(at(minutes(2)).monotonic));
        set.apply(&renewed_slice("2999-01-01T00:01:00Z"), at(minutes(2)));
        assert!(!set.expire(at(minutes(4)).monotonic));
        assert_eq!(set.next_expiry(), Some(at(minutes(5)).monotonic));

        assert!(set.expire(at(minutes(5)).monotonic));
        assert_eq!(health(&set), Health::Critical);
        assert_eq!(set.next_expiry(), None);
        set.apply(&renewed_slice("2001-01-01T00:00:00Z"), at(minutes(6)));
        assert_eq!(health(&set), Health::Passing);
    }

    #[test]
    fn an_outage_of_the_api_server_restarts_the_expiry_of_what_has_not_expired() {
        let start = Instant::now();
        let wall = SystemTime::now();
        let mut set = endpoint_set();
        let renewed = renewed_slice("2999-01-01T00:00:00Z");
        set.apply(
            &renewed,
            Now {
                monotonic: start,
                wall,
            },
        );
        set.restart_expiry(start + minutes(30));
        assert!(!set.expire(start + minutes(30)));
        assert_eq!(health(&set), Health::Passing);
        assert_eq!(set.next_expiry(), Some(start + minutes(33)));

        assert!(set.expire(start + minutes(33)));
        set.restart_expiry(start + minutes(40));
        assert_eq!(health(&set), Health::Critical);
        assert_eq!(set.next_expiry(), None);
    }

    #[test]
    fn a_slice_that_is_seen_for_the_first_time_expires_by_its_timestamps() {
        let mut set = endpoint_set();
        set.apply(&renewed_slice("2001-01-01T00:00:00Z"), Now::read());
        assert_eq!(health(&set), Health::Critical);
    }
}
