//! Picks the instance for an attempt.

use waypost_core::{Error, Instance, InstanceId, Invalid, ServiceAddress};

use crate::balance::{Balancer, Key, Lease, Pick};
use crate::client::ServiceDiscoveryClient;

/// The number of attempts of a request, the first included, unless a policy sets another number.
pub const ATTEMPTS: usize = 3;

/// A lease on an instance that has the port and scheme of the address, and the URL to call. Instances
/// in `tried` are avoided if there is another. Waits for the provider's first answer.
///
/// # Errors
/// The same as for [`ServiceDiscoveryClient::discover_service`]; [`Error::Invalid`] if no instance has that port and
/// scheme.
pub async fn lease_for(
    client: &ServiceDiscoveryClient,
    address: &ServiceAddress,
    tried: &[InstanceId],
) -> Result<(Lease, String), Error> {
    let balancer = client.shared_balancer(address.service());
    pick_for(&balancer, address, None, tried).await
}

/// Picks an instance that has the port and scheme of the address, and returns a lease and the URL to
/// call. Instances in `tried` are avoided if there is another. The key is used only if `tried` is empty.
/// Waits for the provider's first answer.
pub(crate) async fn pick_for(
    balancer: &Balancer,
    address: &ServiceAddress,
    key: Option<Key>,
    tried: &[InstanceId],
) -> Result<(Lease, String), Error> {
    // A separate function: a `Pick` is not `Send`, so none may be held across the await.
    if let Ok(found) = try_pick_for(balancer, address, key, tried) {
        return Ok(found);
    }
    balancer.ready().await?;
    try_pick_for(balancer, address, key, tried)
}

fn try_pick_for(
    balancer: &Balancer,
    address: &ServiceAddress,
    key: Option<Key>,
    tried: &[InstanceId],
) -> Result<(Lease, String), Error> {
    let pick = pick_best_rank(balancer, address, key, tried)?;
    let url = address.url_at(&pick).ok_or_else(|| no_match(address))?;
    Ok((pick.lease(), url))
}

/// Picks an instance of the best [rank](ServiceAddress::rank) that any instance has.
fn pick_best_rank(
    balancer: &Balancer,
    address: &ServiceAddress,
    key: Option<Key>,
    tried: &[InstanceId],
) -> Result<Pick, Error> {
    let pick = match key {
        Some(key) if tried.is_empty() => balancer.pick_for(key)?,
        _ => balancer.pick_except(tried)?,
    };
    if address.rank(&pick) == Some(0) {
        return Ok(pick);
    }
    let endpoints = balancer.endpoints();
    let ranks = endpoints.iter().filter_map(|e| address.rank(e.instance()));
    let best = ranks.min().ok_or_else(|| no_match(address))?;
    let is_best = |instance: &Instance| address.rank(instance) == Some(best);
    let is_untried = |instance: &Instance| !tried.contains(instance.id());
    // If all instances of that rank were tried, one of them is used again.
    let found = match balancer.pick_where(|i| is_best(i) && is_untried(i))? {
        Some(pick) => Some(pick),
        None => balancer.pick_where(is_best)?,
    };
    found.ok_or_else(|| no_match(address))
}

fn no_match(address: &ServiceAddress) -> Error {
    let why = "no instance has this port and scheme";
    Invalid::new("service address", address.to_string(), why).into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use waypost_core::provider::MemoryProvider;

    use super::*;

    #[tokio::test]
    async fn a_matching_instance_is_tried_again_rather_than_one_that_does_not_match() {
        let memory = MemoryProvider::new();
        for (id, scheme) in [("a", "http"), ("b", "https"), ("c", "http")] {
            let url = format!("{scheme}://10.0.0.1");
            let instance = Instance::from_url("auth".parse().unwrap(), &url).unwrap();
            memory.insert(instance.id(id).build().unwrap());
        }
        let client = ServiceDiscoveryClient::new(Arc::new(memory));
        let balancer = client.balancer("auth").unwrap();
        let address = "https://auth/".parse().unwrap();
        for tried in [&[][..], &["b".into()]] {
            for _ in 0..3 {
                let (lease, _) = pick_for(&balancer, &address, None, tried).await.unwrap();
                assert_eq!(lease.id().as_str(), "b");
            }
        }
        // Another instance of the best rank is preferred to one that was tried.
        let address = "http://auth/".parse().unwrap();
        for (tried, others) in [("a", ["c"]), ("c", ["a"])] {
            for _ in 0..6 {
                let tried = [tried.into()];
                let (lease, _) = pick_for(&balancer, &address, None, &tried).await.unwrap();
                assert!(others.contains(&lease.id().as_str()), "{}", lease.id());
            }
        }
    }

    #[tokio::test]
    async fn a_key_decides_the_first_attempt_only() {
        let memory = MemoryProvider::new();
        for id in ["a", "b", "c"] {
            let instance = Instance::from_url("auth".parse().unwrap(), "http://10.0.0.1").unwrap();
            memory.insert(instance.id(id).build().unwrap());
        }
        let client = ServiceDiscoveryClient::builder()
            .provider(memory)
            .strategy(crate::balance::ConsistentHash::new);
        let balancer = client.build().unwrap().balancer("auth").unwrap();
        let address = "http://auth/".parse().unwrap();
        let key = Some(Key::new("a customer"));
        let (first, _) = pick_for(&balancer, &address, key, &[]).await.unwrap();
        let first = first.id().clone();
        for _ in 0..6 {
            let (again, _) = pick_for(&balancer, &address, key, &[]).await.unwrap();
            assert_eq!(*again.id(), first);
            let tried = std::slice::from_ref(&first);
            let (other, _) = pick_for(&balancer, &address, key, tried).await.unwrap();
            assert_ne!(*other.id(), first);
        }
    }
}
