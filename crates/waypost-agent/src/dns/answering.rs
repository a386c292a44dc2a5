//! What there is under a name: services, nodes, addresses, and names of addresses.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};

use super::question::{Subject, Zone, zone};
use super::records;
use crate::app::App;
use crate::store::{Instance, Status};

/// A name that stands for another is followed this often.
const MOST_ALIASES: u8 = 3;

/// Without EDNS an alias brings this many addresses along.
const MOST_ADDRESSES_OF_ALIAS: usize = 5;

/// An answer as it grows.
pub(super) struct Answering<'a> {
    pub app: &'a App,
    pub kind: RecordType,
    pub has_edns: bool,
    /// Whether there is anything to be seen. DNS carries no token, so that where one is asked for
    /// all who ask are strangers.
    pub sees: bool,
    pub message: Message,
}

impl Answering<'_> {
    pub(super) fn in_zone(&mut self, name: &Name, labels: &[String]) {
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
            kind => match Subject::of(labels, kind, &self.app.datacenter) {
                Subject::Service { name: service, tag } => self.service(name, &service, &tag),
                Subject::Node(node) => self.node(name, node.as_deref()),
                Subject::Address(address) => {
                    let name = name.to_lowercase();
                    let record = address.map(|address| records::address(name, address));
                    self.message.answers.extend(record);
                }
                Subject::Nothing => self.no_such_name(),
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
            let found = self.addresses(name, &instances, self.kind, MOST_ALIASES);
            self.message.answers.extend(found);
        }
        if self.message.answers.is_empty() {
            self.message.authorities.extend(records::soa(now()));
        }
    }

    /// One record for every place, each once.
    fn srv(&mut self, name: &Name, instances: &[Instance]) {
        let mut seen = Vec::new();
        for instance in instances {
            let place = (
                &instance.node.name,
                records::place(instance),
                instance.service.port,
            );
            if seen.contains(&place) {
                continue;
            }
            seen.push(place);
            let Some(target) = records::srv_target(instance) else {
                continue;
            };
            let extra = match records::place(instance).parse() {
                Ok(address) => vec![records::address(target.clone(), address)],
                Err(_) => self.alias(&target, MOST_ALIASES),
            };
            let record = records::srv(name.clone(), instance, target);
            self.message.answers.push(record);
            self.message.additionals.extend(extra);
            if let Some(node) = records::node_name(&instance.node) {
                let metadata = records::metadata(&node, &instance.node);
                self.message.additionals.extend(metadata);
            }
        }
    }

    /// The addresses of instances, each once; one alias if there is nothing better.
    fn addresses(
        &self,
        name: &Name,
        instances: &[Instance],
        kind: RecordType,
        aliases: u8,
    ) -> Vec<Record> {
        let mut found = Vec::new();
        let mut seen = std::collections::HashSet::new();
        let mut alias = None;
        for instance in instances {
            let place = records::place(instance);
            if !seen.insert(place) {
                continue;
            }
            match place.parse() {
                Ok(address) if records::answers(address, kind) => {
                    found.push(records::address(name.clone(), address));
                }
                Ok(_) => {}
                Err(_) => alias = alias.or_else(|| records::foreign_name(place)),
            }
        }
        if found.is_empty()
            && let Some(target) = alias
        {
            found.push(records::cname(name.clone(), target.clone()));
            found.extend(self.alias(&target, aliases));
        }
        found
    }

    /// What is known of a name that somebody gave for an address.
    fn alias(&self, target: &Name, aliases: u8) -> Vec<Record> {
        let Zone::Consul(labels) = zone(target) else {
            return Vec::new();
        };
        let Some(left) = aliases.checked_sub(1) else {
            return Vec::new();
        };
        let any = RecordType::ANY;
        let mut found = match Subject::of(&labels, any, &self.app.datacenter) {
            Subject::Service { name, tag } => {
                let instances = self.instances(target, &name, &tag);
                self.addresses(target, &instances, any, left)
            }
            Subject::Node(_) if !self.sees => Vec::new(),
            Subject::Node(name) => self.app.store.read(|state| {
                let name = name.unwrap_or_default();
                let node = state.catalog.node(&name);
                let address = node.and_then(|(_, node, _)| node.address.parse().ok());
                let record = address.map(|address| records::address(target.clone(), address));
                record.into_iter().collect()
            }),
            Subject::Address(address) => {
                let record = address.map(|address| records::address(target.clone(), address));
                record.into_iter().collect()
            }
            Subject::Nothing => Vec::new(),
        };
        if !self.has_edns {
            found.truncate(MOST_ADDRESSES_OF_ALIAS);
        }
        found
    }

    fn node(&mut self, name: &Name, node: Option<&str>) {
        use RecordType::{A, AAAA, ANY, TXT};
        if !matches!(self.kind, A | AAAA | ANY | TXT) {
            return;
        }
        let found = self.app.store.read(|state| {
            let (_, node, _) = state.catalog.node(node.filter(|_| self.sees)?)?;
            Some(Arc::clone(node))
        });
        let Some(node) = found else {
            return self.no_such_name();
        };
        if self.kind != TXT {
            match node.address.parse() {
                Ok(address) if records::answers(address, self.kind) => {
                    self.message
                        .answers
                        .push(records::address(name.clone(), address));
                }
                Ok(_) => {}
                Err(_) => {
                    let target = records::foreign_name(&node.address);
                    let alias = target.map(|target| records::cname(name.clone(), target));
                    self.message.answers.extend(alias);
                }
            }
        }
        let metadata = records::metadata(name, &node);
        match self.kind {
            ANY | TXT => self.message.answers.extend(metadata),
            _ => self.message.additionals.extend(metadata),
        }
    }

    pub(super) fn reverse(&mut self, name: &Name, address: Option<IpAddr>) {
        let target = address.filter(|_| self.sees).and_then(|address| {
            self.app.store.read(|state| {
                let (_, mut nodes) = state.catalog.nodes();
                if let Some(node) = nodes.find(|node| node.address.parse() == Ok(address)) {
                    return records::node_name(node);
                }
                let (service, node) = state
                    .catalog
                    .service_where(|service| service.address.parse() == Ok(address))?;
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
            // Another server might know. There is none to ask.
            None => self.fail(),
        }
    }

    /// The instances that are fit for traffic, in an order that is new every time. One that says
    /// it is at `name`, the very name that was asked for, is where its node is.
    fn instances(&self, name: &Name, service: &str, tag: &str) -> Vec<Instance> {
        if self.app.faults.empties() || !self.sees {
            return Vec::new();
        }
        let mut instances: Vec<_> = self.app.store.read(|state| {
            let instances = state.catalog.instances(service);
            let tagged = instances.filter(|instance| {
                let mut tags = instance.service.tags.iter();
                tag.is_empty() || tags.any(|own| own.to_lowercase() == tag)
            });
            let alive = tagged.filter(|instance| {
                let mut checks = instance.checks.iter();
                checks.all(|check| check.status != Status::Critical)
            });
            alive.collect()
        });
        for instance in &mut instances {
            if records::foreign_name(records::place(instance)).as_ref() == Some(name) {
                Arc::make_mut(&mut instance.service).address.clear();
            }
        }
        self.app.random(|random| random.shuffle(&mut instances));
        instances
    }

    fn name_server(&self) -> Option<Record> {
        records::ns(self.own_name()?)
    }

    fn glue(&self) -> Option<Record> {
        let address = self.app.address.parse().ok()?;
        Some(records::address(self.own_name()?, address))
    }

    fn own_name(&self) -> Option<Name> {
        if !self.sees {
            return None;
        }
        let labels = self.app.node_name.split('.');
        records::name_of(labels.chain(["node", &self.app.datacenter]))
    }

    fn no_such_name(&mut self) {
        self.message.metadata.response_code = ResponseCode::NXDomain;
        self.message.authorities.extend(records::soa(now()));
    }

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
