//! Rejects registrations that cannot be written as an EndpointSlice, before anything is sent and with a
//! better explanation than the API server's.

use std::net::IpAddr;

use waypost_core::{Host, Instance};

use crate::mapping::ANNOTATION_PREFIX;
use crate::service_ref::is_dns_label;

/// The maximum size of tags, metadata and id together, in bytes. An object may have 256 KiB of
/// annotations; the other annotations are small.
const MAX_ANNOTATIONS: usize = 250 * 1024;

/// Checks tags, metadata and named ports. The error says what is wrong.
pub(super) fn validate_content(instance: &Instance) -> Result<(), String> {
    let is_bad_tag = |tag: &&str| tag.contains(',') || tag.trim() != *tag;
    if let Some(tag) = instance.tags().find(is_bad_tag) {
        return Err(format!(
            "the tag {tag:?}: use no commas, and no spaces around it"
        ));
    }
    let mut keys = instance.metadata().map(|(key, _)| key);
    if let Some(key) = keys.find(|key| !is_annotation_name(key)) {
        return Err(format!(
            "the metadata {key:?}: use a name of at most 58 letters, digits, '-', '_' and '.' that \
             ends with a letter or digit"
        ));
    }
    if let Some((name, _)) = instance.ports().find(|(name, _)| !is_dns_label(name)) {
        return Err(format!(
            "the port {name:?}: use a name of at most 63 of a-z, 0-9 and '-' that begins and ends \
             with a letter or digit"
        ));
    }
    let size = annotation_size(instance);
    if size > MAX_ANNOTATIONS {
        return Err(format!(
            "{size} bytes of tags and metadata: the limit is {MAX_ANNOTATIONS}"
        ));
    }
    Ok(())
}

/// Whether a metadata key makes a valid annotation name, after the prefix `meta.`.
fn is_annotation_name(key: &str) -> bool {
    let is_edge = |c: char| c.is_ascii_alphanumeric();
    let is_inner = |c: char| is_edge(c) || matches!(c, '-' | '_' | '.');
    (1..=58).contains(&key.len()) && key.chars().all(is_inner) && key.ends_with(is_edge)
}

fn annotation_size(instance: &Instance) -> usize {
    let prefix = ANNOTATION_PREFIX.len() + "meta.".len();
    let tags = instance.tags().map(|tag| tag.len() + 1);
    let metadata = instance.metadata();
    let metadata = metadata.map(|(key, value)| prefix + key.len() + value.len());
    tags.sum::<usize>() + metadata.sum::<usize>() + instance.id().as_str().len()
}

/// Checks an address by the API server's own rules. The error says what kind of address it is.
pub(super) fn validate_host(host: &Host) -> Result<(), &'static str> {
    let ip = match host {
        Host::Ip(ip) => *ip,
        Host::Name(name) => return validate_name(name.strip_suffix('.').unwrap_or(name)),
    };
    let is_link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    match ip {
        ip if ip.is_loopback() => Err("a loopback address, which means each pod itself"),
        ip if ip.is_unspecified() => Err("an unspecified address"),
        ip if ip.is_multicast() => Err("a multicast address"),
        _ if is_link_local => Err("a link-local address, which works in one network segment only"),
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => {
            Err("an IPv4 address written as IPv6; write it as IPv4")
        }
        _ => Ok(()),
    }
}

fn validate_name(name: &str) -> Result<(), &'static str> {
    if !name.contains('.') {
        return Err("a local name without a dot, which the cluster cannot resolve");
    }
    if !name.split('.').all(is_dns_label) {
        return Err("an invalid DNS name: use only a-z, 0-9 and '-' between the dots");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_addresses_are_rejected_with_the_reason() {
        for (host, word) in [
            ("127.0.0.1", "loopback"),
            ("::1", "loopback"),
            ("169.254.1.1", "link-local"),
            ("fe80::1", "link-local"),
            ("0.0.0.0", "unspecified"),
            ("224.0.0.1", "multicast"),
            ("::ffff:10.0.0.1", "IPv4"),
            ("localhost", "without a dot"),
            ("my_host.example.com", "a-z"),
        ] {
            let why = validate_host(&host.parse().unwrap()).unwrap_err();
            assert!(why.contains(word), "{host}: {why}");
        }
        for host in [
            "10.0.0.7",
            "2001:db8::1",
            "db.example.com",
            "db.example.com.",
        ] {
            assert_eq!(validate_host(&host.parse().unwrap()), Ok(()), "{host}");
        }
    }
}
