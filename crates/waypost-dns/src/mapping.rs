//! Converts DNS records to instances.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use waypost_core::{Host, Instance, ServiceName, Weight};

/// An address where a service runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    /// The fields of the SRV record, if the address comes from one.
    pub(super) srv: Option<Srv>,
}

/// The fields of an SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Srv {
    /// A lower number is preferred.
    pub(super) priority: u16,
    pub(super) weight: u16,
    /// The name of the host, without the dot at the end.
    pub(super) host: String,
}

/// The targets of address records that share a port.
pub(super) fn targets_at_port(addresses: Vec<IpAddr>, port: u16) -> Vec<Target> {
    let target = |address| Target {
        address: SocketAddr::new(address, port),
        srv: None,
    };
    addresses.into_iter().map(target).collect()
}

/// The instances at these targets, ordered by address, one for each address.
///
/// Instances of the lowest-numbered priority get their weight; all others get the weight 0, so that they
/// are used only if no instance of the first priority is left. RFC 2782 gives a record of weight 0 among
/// others "a very small chance of being selected", so its weight is 1.
pub(super) fn instances(
    service: &ServiceName,
    scheme: &str,
    targets: Vec<Target>,
) -> Vec<Arc<Instance>> {
    let priorities = targets.iter().filter_map(|target| target.srv.as_ref());
    let first = priorities.map(|srv| srv.priority).min();
    let mut seen = BTreeSet::new();
    let mut targets = targets;
    // The lowest priority of an address that has several records comes first.
    targets.sort_by_key(|it| (it.address, it.srv.as_ref().map(|srv| srv.priority)));
    targets.retain(|target| seen.insert(target.address));
    let instances = targets.into_iter().filter_map(|target| {
        let (address, srv) = (target.address, target.srv);
        let mut builder =
            Instance::builder(service.clone(), Host::Ip(address.ip()), address.port())
                .id(address.to_string())
                .scheme(scheme);
        if let Some(srv) = srv {
            let weight = if Some(srv.priority) == first {
                srv.weight.max(1)
            } else {
                0
            };
            builder = builder
                .weight(Weight::new(weight))
                .meta("target", srv.host)
                .meta("priority", srv.priority.to_string());
        }
        match builder.build() {
            Ok(instance) => Some(Arc::new(instance)),
            Err(error) => {
                tracing::warn!(%service, %address, %error, "ignoring an unusable DNS record");
                None
            }
        }
    });
    instances.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(address: &str, priority: u16, weight: u16) -> Target {
        Target {
            address: address.parse().unwrap(),
            srv: Some(Srv {
                priority,
                weight,
                host: "node.example".into(),
            }),
        }
    }

    fn weights(targets: Vec<Target>) -> Vec<(String, u32)> {
        let service = "web".parse().unwrap();
        let all = instances(&service, "http", targets);
        let weight = |it: &Arc<Instance>| (it.id().to_string(), it.weight().get());
        all.iter().map(weight).collect()
    }

    #[test]
    fn only_the_first_priority_gets_traffic_while_it_has_instances() {
        let all = vec![
            target("10.0.0.3:80", 20, 5),
            target("10.0.0.1:80", 10, 3),
            target("10.0.0.2:80", 10, 0),
        ];
        let expected = [("10.0.0.1:80", 3), ("10.0.0.2:80", 1), ("10.0.0.3:80", 0)];
        assert_eq!(
            weights(all.clone()),
            expected.map(|(id, n)| (id.to_owned(), n))
        );
        assert_eq!(weights(all[..1].to_vec()), [("10.0.0.3:80".to_owned(), 5)]);
    }

    #[test]
    fn an_address_with_several_records_is_one_instance_of_its_best_priority() {
        let all = vec![target("[::1]:80", 20, 5), target("[::1]:80", 10, 3)];
        assert_eq!(weights(all), [("[::1]:80".to_owned(), 3)]);
    }
}
