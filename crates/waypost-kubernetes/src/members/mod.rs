//! All instances of one service, kept up to date slice by slice.
//!
//! A change of a slice costs what the slice costs: its instances are looked at again, those that
//! say the same stay the same objects, and the rest of the service isn't touched.

mod lease;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use tokio::time::Instant;
use waypost_core::{Health, Instance, InstanceId};

use self::lease::{Lease, earliest};
use super::join;
use super::join::Context;
use super::wire::{Service, Slice};

pub(super) struct Members {
    context: Context,
    slices: BTreeMap<Arc<str>, Part>,
    by_id: BTreeMap<InstanceId, Vec<Claim>>,
    /// How many ready endpoints have no hint.
    unhinted: usize,
    /// When the first of the leases may be over.
    next_due: Option<Instant>,
}

struct Part {
    slice: Arc<Slice>,
    instances: Vec<Option<Arc<Instance>>>,
    unhinted: usize,
    /// Where the slice must be renewed.
    lease: Option<Lease>,
}

impl Part {
    fn is_overdue(&self) -> bool {
        self.lease.is_some_and(|lease| lease.is_over)
    }
}

/// One of the slices that name an instance. While pods move between slices, and in dual-stack
/// clusters always, several do.
struct Claim {
    rank: (Health, bool),
    slice: Arc<str>,
    instance: Arc<Instance>,
}

impl Members {
    pub(super) fn new(context: Context) -> Self {
        Self {
            context,
            slices: BTreeMap::new(),
            by_id: BTreeMap::new(),
            unhinted: 0,
            next_due: None,
        }
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    pub(super) fn has_slices(&self) -> bool {
        !self.slices.is_empty()
    }

    /// All instances in the order of their ids; of each the best that is said of it.
    pub(super) fn all(&self) -> Vec<Arc<Instance>> {
        let best = |claims: &Vec<Claim>| claims.first().map(|claim| Arc::clone(&claim.instance));
        self.by_id.values().filter_map(best).collect()
    }

    /// Takes in what the Service says now, and what can't be read.
    pub(super) fn describe(
        &mut self,
        service: Option<&Arc<Service>>,
        degraded: Option<&'static str>,
    ) {
        let same = match (&self.context.service, service) {
            (None, None) => true,
            (Some(before), Some(now)) => Arc::ptr_eq(before, now) || before.says_the_same(now),
            _ => false,
        };
        if same && degraded == self.context.degraded {
            return;
        }
        self.context.service = service.cloned();
        self.context.degraded = degraded;
        self.remake();
    }

    /// Takes in a slice that is new or has changed.
    pub(super) fn put(&mut self, slice: &Arc<Slice>) {
        let name = &slice.metadata.name;
        if self
            .slices
            .get(name)
            .is_some_and(|part| Arc::ptr_eq(&part.slice, slice))
        {
            return;
        }
        let before = self.take(name);
        let lease = Lease::of(slice, before.as_ref().and_then(|part| part.lease));
        let is_overdue = lease.is_some_and(|lease| lease.is_over);
        let earlier = before
            .as_ref()
            .filter(|part| part.is_overdue() == is_overdue)
            .map(|part| (&*part.slice, &part.instances[..]));
        let instances = join::instances(&self.context, slice, is_overdue, earlier);
        self.insert(slice, instances, lease);
        self.check_hints();
    }

    pub(super) fn remove(&mut self, slice: &str) {
        self.take(slice);
        self.check_hints();
    }

    /// Makes these the slices, and no others.
    pub(super) fn replace<'a>(&mut self, slices: impl Iterator<Item = &'a Arc<Slice>>) {
        let now: BTreeMap<_, _> = slices.map(|slice| (&slice.metadata.name, slice)).collect();
        let gone = self.slices.keys().filter(|name| !now.contains_key(name));
        for name in gone.cloned().collect::<Vec<_>>() {
            self.take(&name);
        }
        for slice in now.into_values() {
            self.put(slice);
        }
        self.check_hints();
    }

    /// The hints count for all or for none, so the first without one and the last one with it
    /// change all instances.
    fn check_hints(&mut self) {
        let hinted = self.unhinted == 0 && self.has_slices();
        if std::mem::replace(&mut self.context.hinted, hinted) != hinted {
            self.remake();
        }
    }

    fn remake(&mut self) {
        let slices: Vec<_> = self
            .slices
            .values()
            .map(|part| Arc::clone(&part.slice))
            .collect();
        for slice in slices {
            let Some(before) = self.take(&slice.metadata.name) else {
                continue;
            };
            let made = join::instances(&self.context, &slice, before.is_overdue(), None);
            // Most changes of a Service are of no concern to its instances.
            let made = made.into_iter().zip(before.instances);
            let made = made.map(|(now, before)| if now == before { before } else { now });
            self.insert(&slice, made.collect(), before.lease);
        }
    }

    fn insert(
        &mut self,
        slice: &Arc<Slice>,
        instances: Vec<Option<Arc<Instance>>>,
        lease: Option<Lease>,
    ) {
        let name = &slice.metadata.name;
        let service = self.context.service.as_deref();
        let families = service.and_then(|service| service.spec.ip_families.as_ref());
        let preferred = families.and_then(|families| families.first());
        let is_second = preferred.is_some_and(|preferred| *preferred != slice.address_type);
        for instance in instances.iter().flatten() {
            let claims = self.by_id.entry(instance.id().clone()).or_default();
            let claim = Claim {
                rank: (instance.health(), is_second),
                slice: Arc::clone(name),
                instance: Arc::clone(instance),
            };
            let key = |claim: &Claim| (claim.rank, Arc::clone(&claim.slice));
            let at = claims.partition_point(|other| key(other) <= key(&claim));
            claims.insert(at, claim);
        }
        let unhinted = slice
            .endpoints()
            .iter()
            .filter(|e| join::is_unhinted(e))
            .count();
        self.unhinted += unhinted;
        self.next_due = earliest([self.next_due, lease.and_then(Lease::due)]);
        let part = Part {
            slice: Arc::clone(slice),
            instances,
            unhinted,
            lease,
        };
        self.slices.insert(Arc::clone(name), part);
    }

    fn take(&mut self, slice: &str) -> Option<Part> {
        let part = self.slices.remove(slice)?;
        self.unhinted -= part.unhinted;
        for instance in part.instances.iter().flatten() {
            if let Entry::Occupied(mut claims) = self.by_id.entry(instance.id().clone()) {
                claims.get_mut().retain(|claim| *claim.slice != *slice);
                if claims.get().is_empty() {
                    claims.remove();
                }
            }
        }
        Some(part)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::views::Setup;

    pub(super) fn members() -> Members {
        Members::new(Context {
            name: "web".parse().unwrap(),
            namespace: "demo".into(),
            setup: Arc::new(Setup {
                namespace: "demo".into(),
                cluster_domain: "cluster.local".into(),
                annotations: Vec::new(),
                port: None,
            }),
            service: None,
            hinted: false,
            degraded: None,
        })
    }

    fn random_slice(random: &mut fastrand::Rng, name: usize) -> Arc<Slice> {
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
            "ports": [{ "name": "http", "port": random.u16(80..82) }],
            "endpoints": endpoints,
        });
        Arc::new(serde_json::from_value(slice).unwrap())
    }

    fn random_service(random: &mut fastrand::Rng) -> Option<Arc<Service>> {
        let service = json!({
            "metadata": { "name": "web", "labels": { "team": random.u32(0..2).to_string() } },
            "spec": { "ipFamilies": [if random.bool() { "IPv4" } else { "IPv6" }] },
        });
        let service = serde_json::from_value(service).unwrap();
        random.bool().then(|| Arc::new(service))
    }

    /// However it came there, what is known is what the slices and the Service say now.
    #[test]
    fn changes_one_by_one_come_to_the_same_as_reading_all_anew() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut followed = members();
            let mut slices: BTreeMap<usize, Arc<Slice>> = BTreeMap::new();
            let mut service = None;
            for step in 0..30 {
                let name = random.usize(0..4);
                match random.u32(0..6) {
                    0 => {
                        if let Some(slice) = slices.remove(&name) {
                            followed.remove(&slice.metadata.name);
                        }
                    }
                    1 => {
                        service = random_service(&mut random);
                        followed.describe(service.as_ref(), None);
                    }
                    2 => {
                        slices.insert(name, random_slice(&mut random, name));
                        followed.replace(slices.values());
                    }
                    _ => {
                        let slice = random_slice(&mut random, name);
                        followed.put(&slice);
                        slices.insert(name, slice);
                    }
                }
                let mut anew = members();
                anew.describe(service.as_ref(), None);
                anew.replace(slices.values());
                assert_eq!(followed.all(), anew.all(), "seed {seed}, step {step}");
                assert_eq!(followed.has_slices(), anew.has_slices());
            }
        }
    }
}
