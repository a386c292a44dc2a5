//! Makes the records of instances, nodes and addresses.

use std::net::IpAddr;

use hickory_proto::rr::rdata::{CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::store::{Check, CheckStatus, Instance, Node};

/// Responses aren't cached, because health can change at any time (Consul's default).
const TTL: u32 = 0;

const PRIORITY: u16 = 1;

/// A name in the `consul.` zone. `None` if a label is empty or longer than 63 bytes.
pub(super) fn consul_name<'a>(labels: impl IntoIterator<Item = &'a str>) -> Option<Name> {
    let labels = labels.into_iter().chain(["consul"]);
    let mut name = Name::from_labels(labels.map(str::as_bytes)).ok()?;
    name.set_fqdn(true);
    Some(name)
}

pub(super) fn node_name(node: &Node) -> Option<Name> {
    consul_name(node.name.split('.').chain(["node", &node.datacenter]))
}

pub(super) fn service_name(service: &str, datacenter: &str) -> Option<Name> {
    consul_name(service.split('.').chain(["service", datacenter]))
}

/// The name of an address: `7f000001.addr.dc1.consul.`
fn address_name(address: IpAddr, datacenter: &str) -> Option<Name> {
    let digits = match address {
        IpAddr::V4(address) => format!("{:08x}", address.to_bits()),
        IpAddr::V6(address) => format!("{:032x}", address.to_bits()),
    };
    consul_name([&digits, "addr", datacenter])
}

/// A host name that was registered in place of an address.
pub(super) fn host_name(address: &str) -> Option<Name> {
    let mut name = Name::from_ascii(address).ok()?;
    name.set_fqdn(true);
    Some(name)
}

pub(super) fn address(name: Name, address: IpAddr) -> Record {
    let data = match address {
        IpAddr::V4(address) => RData::A(address.into()),
        IpAddr::V6(address) => RData::AAAA(address.into()),
    };
    Record::from_rdata(name, TTL, data)
}

/// Whether queries of this type are answered with the address.
pub(super) fn is_answer(address: IpAddr, kind: RecordType) -> bool {
    use RecordType::{A, AAAA, ANY, NAPTR, SRV, TXT};
    match kind {
        SRV | ANY | NAPTR | TXT => true,
        A => address.is_ipv4(),
        AAAA => address.is_ipv6(),
        _ => false,
    }
}

pub(super) fn cname(name: Name, target: Name) -> Record {
    Record::from_rdata(name, TTL, RData::CNAME(CNAME(target)))
}

pub(super) fn ptr(name: Name, target: Name) -> Record {
    Record::from_rdata(name, TTL, RData::PTR(PTR(target)))
}

pub(super) fn srv(name: Name, instance: &Instance, target: Name) -> Record {
    let port = u16::try_from(instance.service.port & 0xffff).unwrap_or_default();
    let data = SRV::new(PRIORITY, weight(instance), port, target);
    Record::from_rdata(name, TTL, RData::SRV(data))
}

/// The target of an instance's SRV record.
pub(super) fn srv_target(instance: &Instance) -> Option<Name> {
    let Instance { node, service, .. } = instance;
    if service.address.is_empty() {
        return node_name(node);
    }
    match service.address.parse() {
        Ok(address) => address_name(address, &node.datacenter),
        Err(_) => host_name(&service.address),
    }
}

/// The address of an instance, which defaults to that of its node.
pub(super) fn address_of(instance: &Instance) -> &str {
    match instance.service.address.as_str() {
        "" => &instance.node.address,
        address => address,
    }
}

/// TXT records with the metadata of a node. Each is `key=value`, or the value alone if the key
/// begins with `rfc1035-`.
pub(super) fn metadata<'a>(name: &Name, node: &'a Node) -> impl Iterator<Item = Record> + 'a {
    let name = name.clone();
    node.meta.iter().flatten().map(move |(key, value)| {
        let text = if key.to_lowercase().starts_with("rfc1035-") {
            value.clone()
        } else {
            format!("{key}={value}")
        };
        let parts = text.as_bytes().chunks(255).collect();
        Record::from_rdata(name.clone(), TTL, RData::TXT(TXT::from_bytes(parts)))
    })
}

/// The SOA record of the zone. `now`, in Unix seconds, is the serial number.
pub(super) fn soa(now: u64) -> Option<Record> {
    const REFRESH: i32 = 3600;
    const RETRY: i32 = 600;
    const EXPIRE: i32 = 86_400;
    let (master, mail) = (consul_name(["ns"])?, consul_name(["hostmaster"])?);
    // Serial numbers wrap around (RFC 1982).
    let serial = (now & u64::from(u32::MAX)) as u32;
    let data = SOA::new(master, mail, serial, REFRESH, RETRY, EXPIRE, TTL);
    Some(Record::from_rdata(consul_name([])?, TTL, RData::SOA(data)))
}

pub(super) fn ns(server: Name) -> Option<Record> {
    Some(Record::from_rdata(
        consul_name([])?,
        TTL,
        RData::NS(NS(server)),
    ))
}

/// The weight of an instance for its worst check status.
fn weight(instance: &Instance) -> u16 {
    let statuses = instance
        .checks
        .iter()
        .map(|check: &std::sync::Arc<Check>| check.status);
    let weights = &instance.service.weights;
    let weight = match statuses.max() {
        None | Some(CheckStatus::Passing) => weights.passing,
        Some(CheckStatus::Warning) => weights.warning,
        Some(CheckStatus::Critical) => 0,
    };
    u16::try_from(weight).unwrap_or(u16::MAX)
}
