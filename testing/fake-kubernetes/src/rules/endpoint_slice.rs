//! The rules of EndpointSlices.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use serde_json::{Value, json};

use super::Circumstances;
use super::names::Form;
use crate::http::Cause;

const MOST_ENDPOINTS: usize = 1000;
const MOST_ADDRESSES: usize = 100;

pub(super) fn set_defaults(slice: &mut Value) {
    for field in ["endpoints", "ports"] {
        // Go's decoder of what is stored makes no difference between empty and absent.
        if slice[field].as_array().is_none_or(Vec::is_empty) {
            slice[field] = Value::Null;
        }
    }
    for port in slice["ports"].as_array_mut().into_iter().flatten() {
        if port["name"].is_null() {
            port["name"] = "".into();
        }
        if port["protocol"].is_null() {
            port["protocol"] = "TCP".into();
        }
        if port["port"].is_null()
            && let Some(port) = port.as_object_mut()
        {
            port.remove("port");
        }
    }
    for endpoint in slice["endpoints"].as_array_mut().into_iter().flatten() {
        if endpoint["conditions"].is_null() {
            endpoint["conditions"] = json!({});
        }
    }
}

pub(super) fn check(slice: &Value, circumstances: Circumstances<'_>, causes: &mut Vec<Cause>) {
    let address_type = slice["addressType"].as_str().unwrap_or_default();
    match address_type {
        "" => causes.push(Cause::required("addressType", "")),
        "IPv4" | "IPv6" | "FQDN" => {}
        _ => causes.push(Cause::not_supported(
            "addressType",
            &slice["addressType"],
            &["FQDN", "IPv4", "IPv6"],
        )),
    }
    if let Some(before) = circumstances.before
        && before["addressType"] != slice["addressType"]
    {
        let why = "field is immutable";
        causes.push(Cause::invalid("addressType", &slice["addressType"], why));
    }
    let endpoints = slice["endpoints"].as_array();
    let endpoints = endpoints.map(Vec::as_slice).unwrap_or_default();
    if endpoints.len() > MOST_ENDPOINTS {
        let found = endpoints.len();
        causes.push(Cause::too_many("endpoints", found, MOST_ENDPOINTS));
        return;
    }
    for (number, endpoint) in endpoints.iter().enumerate() {
        let field = format!("endpoints[{number}].addresses");
        let addresses = endpoint["addresses"].as_array();
        let addresses = addresses.map(Vec::as_slice).unwrap_or_default();
        if addresses.is_empty() {
            let why = "must contain at least 1 address";
            causes.push(Cause::required(&field, why));
        } else if addresses.len() > MOST_ADDRESSES {
            causes.push(Cause::too_many(&field, addresses.len(), MOST_ADDRESSES));
        }
        for (place, address) in addresses.iter().enumerate() {
            let text = address.as_str().unwrap_or_default();
            let faults = faults_of(text, address_type, circumstances.allow_loopback);
            let field = format!("{field}[{place}]");
            causes.extend(faults.map(|why| Cause::invalid(&field, address, why)));
        }
    }
    check_ports(slice, causes);
}

fn check_ports(slice: &Value, causes: &mut Vec<Cause>) {
    let mut names = BTreeSet::new();
    let ports = slice["ports"].as_array().into_iter().flatten();
    for (number, port) in ports.enumerate() {
        let field = |name: &str| format!("ports[{number}].{name}");
        let name = port["name"].as_str().unwrap_or_default();
        if !name.is_empty() && Form::Label.fault(name).is_some() {
            let why = Form::Label.fault(name).unwrap_or_default();
            causes.push(Cause::invalid(&field("name"), &port["name"], why));
        }
        if !names.insert(name.to_owned()) {
            causes.push(Cause::duplicate(&field("name"), &port["name"]));
        }
        if !matches!(port["protocol"].as_str(), Some("TCP" | "UDP" | "SCTP")) {
            let supported = ["SCTP", "TCP", "UDP"];
            causes.push(Cause::not_supported(
                &field("protocol"),
                &port["protocol"],
                &supported,
            ));
        }
        // Of the number nothing is asked, not even that it is a port.
    }
}

/// Why nothing can be at an address.
fn faults_of(
    text: &str,
    address_type: &str,
    allow_loopback: bool,
) -> impl Iterator<Item = &'static str> {
    let fault = match (address_type, text.parse::<IpAddr>()) {
        ("FQDN", _) if !is_domain(text) => {
            Some("should be a domain with at least two segments separated by dots")
        }
        ("IPv4" | "IPv6", Err(_)) => {
            Some("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")
        }
        ("IPv4", Ok(IpAddr::V6(_))) => Some("must be an IPv4 address"),
        ("IPv6", Ok(IpAddr::V4(_))) => Some("must be an IPv6 address"),
        ("IPv4" | "IPv6", Ok(address)) => special(address, allow_loopback),
        _ => None,
    };
    fault.into_iter()
}

fn special(address: IpAddr, allow_loopback: bool) -> Option<&'static str> {
    let (link_local, link_local_multicast) = match address {
        IpAddr::V4(it) => (it.is_link_local(), it.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(it) if it.to_ipv4_mapped().is_some() => {
            return Some("must not be an IPv4-mapped IPv6 address");
        }
        IpAddr::V6(it) => (it.is_unicast_link_local(), is_multicast_link_local(it)),
    };
    if address.is_unspecified() {
        Some("may not be unspecified (0.0.0.0 or ::)")
    } else if address.is_loopback() && !allow_loopback {
        Some("may not be in the loopback range (127.0.0.0/8, ::1/128)")
    } else if link_local {
        Some("may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    } else if link_local_multicast {
        Some("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
    } else {
        None
    }
}

fn is_multicast_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xff0f == 0xff02
}

/// At least two segments; an IPv4 address passes for one, there as here.
fn is_domain(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    Form::Subdomain.fault(text).is_none() && text.contains('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(address_type: &str, addresses: &[&str], allow_loopback: bool) -> Vec<String> {
        let mut slice = json!({
            "addressType": address_type,
            "endpoints": [{ "addresses": addresses }],
        });
        let mut causes = Vec::new();
        set_defaults(&mut slice);
        let circumstances = Circumstances {
            allow_loopback,
            ..Circumstances::default()
        };
        check(&slice, circumstances, &mut causes);
        causes.into_iter().map(|it| it.message).collect()
    }

    #[test]
    fn refuses_addresses_that_mean_something_else_elsewhere() {
        for (address_type, address) in [
            ("IPv4", "127.0.0.1"),
            ("IPv4", "169.254.1.1"),
            ("IPv4", "0.0.0.0"),
            ("IPv4", "fd00::1"),
            ("IPv4", "web"),
            ("IPv6", "::1"),
            ("IPv6", "fe80::1"),
            ("IPv6", "::ffff:10.0.0.1"),
            ("FQDN", "localhost"),
        ] {
            assert_eq!(
                faults(address_type, &[address], false).len(),
                1,
                "{address}"
            );
        }
        for (address_type, address) in [
            ("IPv4", "10.0.0.1"),
            ("IPv6", "fd00::1"),
            ("FQDN", "db.example.com"),
            ("FQDN", "10.0.0.1"),
        ] {
            assert!(
                faults(address_type, &[address], false).is_empty(),
                "{address}"
            );
        }
        assert!(faults("IPv4", &["127.0.0.1"], true).is_empty());
    }

    #[test]
    fn empty_lists_come_back_as_null() {
        let mut slice = json!({ "endpoints": [], "ports": [] });
        set_defaults(&mut slice);
        assert_eq!(slice, json!({ "endpoints": null, "ports": null }));
    }

    #[test]
    fn port_names_differ() {
        let slice = json!({ "addressType": "IPv4", "ports": [
            { "name": "http", "protocol": "TCP" },
            { "name": "http", "protocol": "TCP", "port": 80 },
        ]});
        let mut causes = Vec::new();
        check(&slice, Circumstances::default(), &mut causes);
        assert_eq!(causes.len(), 1);
        assert_eq!(causes[0].field, "ports[1].name");
    }
}
