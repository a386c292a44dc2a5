//! How to write a provider. This one reads `/etc/hosts`:
//! `cargo run --example own_provider -- localhost`
//!
//! A provider reports instances and errors; the directory retries, caches and serves stale answers. A
//! provider in its own crate depends on `waypost-core` alone, as this one does up to `main`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::{env, fs};

use futures_util::stream::{self, BoxStream, StreamExt};
use waypost::ServiceDiscoveryClient;
use waypost_core::provider::{NamesWatch, Provider, ServiceAnswer, Watch};
use waypost_core::{Error, Host, Instance, ProviderError, ServiceName};

const PATH: &str = "/etc/hosts";

/// Each host name in the file is a service on port 80.
#[derive(Debug)]
struct HostsFile;

impl HostsFile {
    fn read(&self) -> Result<BTreeMap<ServiceName, Vec<Arc<Instance>>>, ProviderError> {
        let text = fs::read_to_string(PATH).map_err(|error| {
            ProviderError::unreachable(self.describe(), "can't read the file").with_source(error)
        })?;
        let mut services = BTreeMap::<_, Vec<_>>::new();
        for line in text.lines() {
            let entry = line.split('#').next().unwrap_or_default();
            let mut words = entry.split_whitespace();
            let Some(Ok(host)) = words.next().map(str::parse::<Host>) else {
                continue;
            };
            for name in words.filter_map(|word| ServiceName::new(word).ok()) {
                if let Ok(instance) = Instance::builder(name.clone(), host.clone(), 80).build() {
                    services.entry(name).or_default().push(Arc::new(instance));
                }
            }
        }
        Ok(services)
    }
}

impl Provider for HostsFile {
    fn describe(&self) -> Arc<str> {
        PATH.into()
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        let services = self.read();
        once(services.map(|mut services| match services.remove(service) {
            Some(instances) => ServiceAnswer::Instances(instances),
            None => ServiceAnswer::Unknown,
        }))
    }

    fn watch_names(&self) -> NamesWatch {
        once(self.read().map(|services| services.into_keys().collect()))
    }
}

/// A watch with one item. It stays open after an answer and ends after an error, so that the directory
/// starts it again after a backoff.
fn once<T: Send + 'static>(
    item: Result<T, ProviderError>,
) -> BoxStream<'static, Result<T, ProviderError>> {
    match item {
        Ok(_) => stream::iter([item]).chain(stream::pending()).boxed(),
        Err(_) => stream::iter([item]).boxed(),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let name = env::args().nth(1).unwrap_or_else(|| "localhost".into());
    let client = ServiceDiscoveryClient::new(Arc::new(HostsFile));
    println!("{}", client.service_url(name.as_str(), "/users").await?);
    Ok(())
}
