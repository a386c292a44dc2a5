//! Parses names: the zone of a name, and the meaning of a name in the `consul.` zone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::{Name, RecordType};

/// The meaning of a name in the `consul.` zone.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// `[TAG.]NAME.service[.DC]`, `_NAME._TAG[.service][.DC]`
    Service { name: String, tag: String },
    /// `NAME.node[.DC]`. `None` in another datacenter.
    Node(Option<String>),
    /// `HEX.addr`: an address as hexadecimal digits. `None` if their number is wrong.
    Address(Option<IpAddr>),
    /// The name doesn't exist.
    NoSuchName,
}

/// The zone of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Zone {
    /// `consul.`, with the labels before it in lower case.
    Consul(Vec<String>),
    /// `arpa.`, with the address of the name. `None` if it isn't one.
    Reverse(Option<IpAddr>),
    /// Any other zone.
    Foreign,
}

const DOMAIN: &str = "consul";

pub(super) fn zone(name: &Name) -> Zone {
    let mut labels = labels(name);
    match labels.pop().as_deref() {
        Some(DOMAIN) => Zone::Consul(labels),
        Some("arpa") => Zone::Reverse(reverse_address(&labels)),
        _ => Zone::Foreign,
    }
}

impl Lookup {
    /// Parses the labels before `consul.`. The last label that is a known kind decides. What follows
    /// it is the datacenter.
    pub(super) fn of(labels: &[String], kind: RecordType, datacenter: &str) -> Self {
        for (at, label) in labels.iter().enumerate().rev() {
            let (before, after) = (&labels[..at], &labels[at + 1..]);
            match label.as_str() {
                "service" if is_local(after, datacenter) => return Self::service(before),
                "node" if after.len() <= 1 && !before.is_empty() => {
                    return Self::Node(is_local(after, datacenter).then(|| before.join(".")));
                }
                "addr" => return Self::address(before),
                "service" | "node" | "connect" | "ingress" | "query" => return Self::NoSuchName,
                // `service` is optional after a name in RFC 2782 notation.
                _ if kind == RecordType::SRV && label.starts_with('_') => {
                    if is_local(after, datacenter) {
                        return Self::service(&labels[..=at]);
                    }
                    return Self::NoSuchName;
                }
                _ => {}
            }
        }
        Self::NoSuchName
    }

    fn service(labels: &[String]) -> Self {
        if let [name, tag] = labels
            && let (Some(name), Some(tag)) = (name.strip_prefix('_'), tag.strip_prefix('_'))
        {
            // The protocol isn't a tag.
            let tag = if tag == "tcp" { "" } else { tag };
            return Self::Service {
                name: name.to_owned(),
                tag: tag.to_owned(),
            };
        }
        match labels.split_last() {
            Some((name, tag)) => Self::Service {
                name: name.clone(),
                tag: tag.join("."),
            },
            None => Self::NoSuchName,
        }
    }

    fn address(labels: &[String]) -> Self {
        let [digits] = labels else {
            return Self::NoSuchName;
        };
        let number = || {
            u128::from_str_radix(digits, 16)
                .ok()
                .filter(|_| !digits.starts_with('+'))
        };
        let address = match digits.len() {
            8 => number().and_then(|bits| Some(Ipv4Addr::from(u32::try_from(bits).ok()?).into())),
            32 => number().map(|bits| Ipv6Addr::from(bits).into()),
            _ => return Self::Address(None),
        };
        address.map_or(Self::NoSuchName, |address| Self::Address(Some(address)))
    }
}

fn labels(name: &Name) -> Vec<String> {
    let text = |label: &[u8]| String::from_utf8_lossy(label).to_lowercase();
    name.iter().map(text).collect()
}

fn is_local(labels: &[String], datacenter: &str) -> bool {
    match labels {
        [] => true,
        [label] => label.eq_ignore_ascii_case(datacenter),
        _ => false,
    }
}

/// The address of `1.0.0.127.in-addr` or of 32 hexadecimal digits before `ip6`.
fn reverse_address(labels: &[String]) -> Option<IpAddr> {
    let (kind, parts) = labels.split_last()?;
    let parts = parts.iter().rev().map(String::as_str);
    match kind.as_str() {
        "in-addr" => parts
            .collect::<Vec<_>>()
            .join(".")
            .parse()
            .ok()
            .map(IpAddr::V4),
        "ip6" if parts.len() == 32 && parts.clone().all(|digit| digit.len() == 1) => {
            let bits = u128::from_str_radix(&parts.collect::<String>(), 16).ok()?;
            Some(Ipv6Addr::from(bits).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str, kind: RecordType) -> Lookup {
        match zone(&Name::from_ascii(name).unwrap()) {
            Zone::Consul(labels) => Lookup::of(&labels, kind, "dc1"),
            other => panic!("{name}: {other:?}"),
        }
    }

    fn service(name: &str, tag: &str) -> Lookup {
        Lookup::Service {
            name: name.to_owned(),
            tag: tag.to_owned(),
        }
    }

    #[test]
    fn names_are_parsed_as_documented_by_consul() {
        use RecordType::{A, SRV};
        for (name, kind, expected) in [
            ("web.service.consul.", A, service("web", "")),
            ("V1.Web.Service.DC1.Consul.", A, service("web", "v1")),
            ("a.b.web.service.consul.", A, service("web", "a.b")),
            ("_web._tcp.service.consul.", SRV, service("web", "")),
            ("_web._v1.service.consul.", A, service("web", "v1")),
            ("_web._tcp.consul.", SRV, service("web", "")),
            ("_web._tcp.consul.", A, Lookup::NoSuchName),
            ("web.service.dc2.consul.", A, Lookup::NoSuchName),
            ("service.consul.", A, Lookup::NoSuchName),
            ("a.b.node.consul.", A, Lookup::Node(Some("a.b".to_owned()))),
            (
                "7f000001.addr.consul.",
                A,
                Lookup::Address(Some([127, 0, 0, 1].into())),
            ),
            ("7f0000.addr.consul.", A, Lookup::Address(None)),
            ("7f00000x.addr.consul.", A, Lookup::NoSuchName),
            ("consul.", A, Lookup::NoSuchName),
        ] {
            assert_eq!(lookup(name, kind), expected, "{name}");
        }
    }

    #[test]
    fn reverse_names_are_parsed_as_addresses() {
        let of = |name: &str| zone(&Name::from_ascii(name).unwrap());
        let loopback = Zone::Reverse(Some([127, 0, 0, 1].into()));
        assert_eq!(of("1.0.0.127.in-addr.arpa."), loopback);
        assert_eq!(of("0.127.in-addr.arpa."), Zone::Reverse(None));
        let six = format!("1.{}ip6.arpa.", "0.".repeat(31));
        assert_eq!(of(&six), Zone::Reverse(Some(Ipv6Addr::LOCALHOST.into())));
        assert_eq!(of("example.org."), Zone::Foreign);
    }
}
