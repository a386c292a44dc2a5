//! Finds the records of a name: of a service, node or address, and reverse lookups.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};

use super::name::{Lookup, Zone, zone};
use super::records;
use crate::app::App;
use crate::store::{CheckStatus, Instance};

/// The depth to which CNAMEs are followed.
const MAX_CNAME_DEPTH: u8 = 3;

/// The maximum number of addresses that are added for a CNAME without EDNS.
const MAX_CNAME_ADDRESSES: usize = 5;

/// Builds the response to one query.
pub(super) struct Resolver<'a> {
    pub app: &'a App,
    pub kind: RecordType,
    pub has_edns: bool,
    /// Whether the client may see anything. DNS queries carry no token, so this is false if the agent
    /// has one.
    pub authorized: bool,
    pub message: Message,
}

impl Resolver<'_> {
    /// Resolves a name in the `consul.` zone.
    pub(super) fn resolve(&mut self, name: &Name, labels: &[String]) {
        match self.kind {
            RecordType::SOA => {
                self.message.answers.extend(records::soa(now()));
                self.message.authorities.extend(self.name_server());
                self.message.additionals.extend(self.glue());
            }
            RecordType::NS => {
                self.message.answers.extend(self.name_server());
                self.message.additionals.extend(self.glue());
            }
            RecordType::AXFR => self.message.metadata.response_code = ResponseCode::NotImp,
            kind => match Lookup::of(labels, kind, &self.app.datacenter) {
                Lookup::Service { name: service, tag } => self.service(name, &service, &tag),
                Lookup::Node(node) => self.node(name, node.as_deref()),
                Lookup::Address(address) => {
                    let name = name.to_lowercase();
                    let record = address.map(|address| records::address(name, address));
                    self.message.answers.extend(record);
                }
                Lookup::NoSuchName => self.no_such_name(),
            },
        }
    }

    fn service(&mut self, name: &Name, service: &str, tag: &str) {
        let instances = self.instances(name, service, tag);
        if instances.is_empty() {
            return self.no_such_name();
        }
        if self.kind == RecordType::SRV {
            self.srv(name, &instances);
        } else {
            let found = self.addresses(name, &instances, self.kind, MAX_CNAME_DEPTH);
            self.message.answers.extend(found);
        }
        if self.message.answers.is_empty() {
            self.message.authorities.extend(records::soa(now()));
        }
    }

    /// One record for each address and port.
    fn srv(&mut self, name: &Name, instances: &[Instance]) {
        let mut seen = HashSet::new();
        for instance in instances {
            let endpoint = (
                &instance.node.name,
                records::address_of(instance),
                instance.service.port,
            );
            if !seen.insert(endpoint) {
                continue;
            }
            let Some(target) = records::srv_target(instance) else {
                continue;
            };
            let addresses = match records::address_of(instance).parse() {
                Ok(address) => vec![records::address(target.clone(), address)],
                Err(_) => self.cname_addresses(&target, MAX_CNAME_DEPTH),
            };
            let record = records::srv(name.clone(), instance, target);
            self.message.answers.push(record);
            self.message.additionals.extend(addresses);
            if let Some(node) = records::node_name(&instance.node) {
                let metadata = records::metadata(&node, &instance.node);
                self.message.additionals.extend(metadata);
            }
        }
    }

    /// The addresses of instances without duplicates, or one CNAME if there are none.
    fn addresses(
        &self,
        name: &Name,
        instances: &[Instance],
        kind: RecordType,
        cname_depth: u8,
    ) -> Vec<Record> {
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        let mut cname = None;
        for instance in instances {
            let address = records::address_of(instance);
            if !seen.insert(address) {
                continue;
            }
            match address.parse() {
                Ok(address) if records::is_answer(address, kind) => {
                    found.push(records::address(name.clone(), address));
                }
                Ok(_) => {}
                Err(_) => cname = cname.or_else(|| records::host_name(address)),
            }
        }
        if found.is_empty()
            && let Some(target) = cname
        {
            found.push(records::cname(name.clone(), target.clone()));
            found.extend(self.cname_addresses(&target, cname_depth));
        }
        found
    }

    /// The addresses of a CNAME target in the `consul.` zone.
    fn cname_addresses(&self, target: &Name, cname_depth: u8) -> Vec<Record> {
        let Zone::Consul(labels) = zone(target) else {
            return Vec::new();
        };
        let Some(remaining_depth) = cname_depth.checked_sub(1) else {
            return Vec::new();
        };
        let any = RecordType::ANY;
        let mut found = match Lookup::of(&labels, any, &self.app.datacenter) {
            Lookup::Service { name, tag } => {
                let instances = self.instances(target, &name, &tag);
                self.addresses(target, &instances, any, remaining_depth)
            }
            Lookup::Node(_) if !self.authorized => Vec::new(),
            Lookup::Node(name) => self.app.store.read(|state| {
                let name = name.unwrap_or_default();
                let node = state.catalog.node(&name);
                let address = node.and_then(|(_, node, _)| node.address.parse().ok());
                let record = address.map(|address| records::address(target.clone(), address));
                record.into_iter().collect()
            }),
            Lookup::Address(address) => {
                let record = address.map(|address| records::address(target.clone(), address));
                record.into_iter().collect()
            }
            Lookup::NoSuchName => Vec::new(),
        };
        if !self.has_edns {
            found.truncate(MAX_CNAME_ADDRESSES);
        }
        found
    }

    fn node(&mut self, name: &Name, node: Option<&str>) {
        use RecordType::{A, AAAA, ANY, TXT};
        if !matches!(self.kind, A | AAAA | ANY | TXT) {
            return;
        }
        let found = self.app.store.read(|state| {
            let (_, node, _) = state.catalog.node(node.filter(|_| self.authorized)?)?;
            Some(Arc::clone(node))
        });
        let Some(node) = found else {
            return self.no_such_name();
        };
        if self.kind != TXT {
            match node.address.parse() {
                Ok(address) if records::is_answer(address, self.kind) => {
                    self.message
                        .answers
                        .push(records::address(name.clone(), address));
                }
                Ok(_) => {}
                Err(_) => {
                    let target = records::host_name(&node.address);
                    let cname = target.map(|target| records::cname(name.clone(), target));
                    self.message.answers.extend(cname);
                }
            }
        }
        let metadata = records::metadata(name, &node);
        match self.kind {
            ANY | TXT => self.message.answers.extend(metadata),
            _ => self.message.additionals.extend(metadata),
        }
    }

    /// Resolves a name in the `arpa.` zone.
    pub(super) fn resolve_reverse(&mut self, name: &Name, address: Option<IpAddr>) {
        let target = address.filter(|_| self.authorized).and_then(|address| {
            self.app.store.read(|state| {
                let (_, mut nodes) = state.catalog.nodes();
                if let Some(node) = nodes.find(|node| node.address.parse() == Ok(address)) {
                    return records::node_name(node);
                }
                let (service, node) = state
                    .catalog
                    .find_instance(|service| service.address.parse() == Ok(address))?;
                records::service_name(&service.name, &node.datacenter)
            })
        });
        match target {
            Some(target) => {
                self.message
                    .answers
                    .push(records::ptr(name.clone(), target));
                if self.kind == RecordType::SOA {
                    self.message.authorities.extend(records::soa(now()));
                }
            }
            // Consul would query its upstream resolvers. The agent has none.
            None => self.fail(),
        }
    }

    /// The instances without a critical check, in random order. An instance whose address is `name`,
    /// the name that is being resolved, gets the address of its node.
    fn instances(&self, name: &Name, service: &str, tag: &str) -> Vec<Instance> {
        if self.app.faults.returns_empty() || !self.authorized {
            return Vec::new();
        }
        let mut instances: Vec<_> = self.app.store.read(|state| {
            let instances = state.catalog.instances(service);
            let tagged = instances.filter(|instance| {
                let mut tags = instance.service.tags.iter();
                tag.is_empty() || tags.any(|own| own.to_lowercase() == tag)
            });
            let healthy = tagged.filter(|instance| {
                let mut checks = instance.checks.iter();
                checks.all(|check| check.status != CheckStatus::Critical)
            });
            healthy.collect()
        });
        for instance in &mut instances {
            if records::host_name(records::address_of(instance)).as_ref() == Some(name) {
                Arc::make_mut(&mut instance.service).address.clear();
            }
        }
        self.app.random(|random| random.shuffle(&mut instances));
        instances
    }

    fn name_server(&self) -> Option<Record> {
        records::ns(self.node_name()?)
    }

    fn glue(&self) -> Option<Record> {
        let address = self.app.address.parse().ok()?;
        Some(records::address(self.node_name()?, address))
    }

    fn node_name(&self) -> Option<Name> {
        if !self.authorized {
            return None;
        }
        let labels = self.app.node_name.split('.');
        records::consul_name(labels.chain(["node", &self.app.datacenter]))
    }

    fn no_such_name(&mut self) {
        self.message.metadata.response_code = ResponseCode::NXDomain;
        self.message.authorities.extend(records::soa(now()));
    }

    /// Turns the response into `SERVFAIL`.
    pub(super) fn fail(&mut self) {
        let header = &mut self.message.metadata;
        header.response_code = ResponseCode::ServFail;
        header.authoritative = false;
        header.recursion_available = true;
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
