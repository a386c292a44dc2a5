//! Distinguishes names of services from other host names.

use std::net::IpAddr;

use waypost_core::{Error, ServiceName};

use crate::client::ServiceDiscoveryClient;

/// The service with the name of a host; `None` if the host is an address, is `localhost` or can't be the
/// name of a service, or if it has a dot and the provider doesn't know it. A misspelt name without a dot
/// is an error that says so, instead of a failed DNS look-up.
pub(crate) async fn service_named(
    discovery: &ServiceDiscoveryClient,
    host: &str,
) -> Result<Option<ServiceName>, Error> {
    let is_address = host.starts_with('[') || host.parse::<IpAddr>().is_ok();
    if is_address || host == "localhost" || host.ends_with(".localhost") {
        return Ok(None);
    }
    let Ok(service) = ServiceName::new(host) else {
        return Ok(None);
    };
    if !host.contains('.') {
        return Ok(Some(service));
    }
    let snapshot = discovery.directory().lookup(&service).await?;
    Ok(snapshot.is_known().then_some(service))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use waypost_core::Instance;
    use waypost_core::provider::MemoryProvider;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_host_is_a_service_unless_it_is_an_address_or_an_unknown_name_with_a_dot() {
        let memory = MemoryProvider::new();
        for service in ["auth", "auth.eu"] {
            let service = service.parse().unwrap();
            let instance = Instance::builder(service, "10.0.0.1".parse().unwrap(), 80);
            memory.insert(instance.build().unwrap());
        }
        let discovery = ServiceDiscoveryClient::new(Arc::new(memory));
        for (host, is_service) in [
            ("auth", true),
            ("auth.eu", true),
            ("misspelt", true),
            ("example.com", false),
            ("localhost", false),
            ("web.localhost", false),
            ("10.0.0.1", false),
            ("[::1]", false),
            ("a~b", false),
        ] {
            let service = service_named(&discovery, host).await.unwrap();
            let expected = is_service.then_some(host);
            assert_eq!(service.as_ref().map(|it| it.as_str()), expected, "{host}");
        }
    }
}
