//! A provider of your own, here one that reads `/etc/hosts`:
//! `cargo run --example own_provider -- localhost`
//!
//! A provider reports instances and errors. The directory retries, caches and serves stale answers for
//! all providers alike. This one uses only `waypost-core`, like a provider in a crate of its own;
//! within an application, import the same items from `waypost` and `waypost::provider`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::{env, fs};

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use waypost::ServiceDiscoveryClient;
use waypost_core::provider::{NamesWatch, Provider, ServiceAnswer, Watch};
use waypost_core::{Error, Host, Instance, ProviderError, ServiceName};

const PATH: &str = "/etc/hosts";

/// Each host name in the file is a service on port 80.
#[derive(Debug)]
struct HostsFile;

type Services = BTreeMap<ServiceName, Vec<Arc<Instance>>>;

impl HostsFile {
    fn read(&self) -> Result<Services, ProviderError> {
        let text = fs::read_to_string(PATH).map_err(|error| {
            ProviderError::unreachable(self.describe(), "can't read the file").with_source(error)
        })?;
        let mut services = Services::new();
        for line in text.lines() {
            let mut words = line
                .split('#')
                .next()
                .unwrap_or_default()
                .split_whitespace();
            let Some(Ok(address)) = words.next().map(str::parse::<Host>) else {
                continue;
            };
            for name in words.filter_map(|word| ServiceName::new(word).ok()) {
                let builder = Instance::builder(name.clone(), address.clone(), 80);
                if let Ok(instance) = builder.build() {
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
        once(
            self.read()
                .map(|mut services| match services.remove(service) {
                    Some(instances) => ServiceAnswer::Instances(instances),
                    None => ServiceAnswer::Unknown,
                }),
        )
    }

    fn watch_names(&self) -> NamesWatch {
        once(self.read().map(|services| services.into_keys().collect()))
    }
}

/// The stream stays open after an answer. It ends after an error, so that the directory starts another
/// watch after a backoff.
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
