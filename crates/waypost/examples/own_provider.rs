//! A provider of one's own: services from a table of host names. `cargo run --example own_provider`
//!
//! A provider is one type with three methods. It need not retry, cache, or remember: the directory
//! does that for all of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use waypost::provider::{NamesWatch, Provider, ServiceAnswer, Watch};
use waypost::{Error, Instance, ServiceDiscoveryClient, ServiceName};

#[derive(Debug)]
struct HostsTable {
    hosts: BTreeMap<ServiceName, Vec<Arc<Instance>>>,
}

impl HostsTable {
    fn parse(table: &str) -> Result<Self, Error> {
        let mut hosts: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for line in table.lines() {
            let mut words = line.split_whitespace();
            let Some(name) = words.next() else { continue };
            let name = ServiceName::new(name)?;
            for url in words {
                let instance = Instance::from_url(name.clone(), url)?.build()?;
                hosts
                    .entry(name.clone())
                    .or_default()
                    .push(Arc::new(instance));
            }
        }
        Ok(Self { hosts })
    }
}

impl Provider for HostsTable {
    fn describe(&self) -> Arc<str> {
        "table of hosts".into()
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        let answer = match self.hosts.get(service) {
            Some(instances) => ServiceAnswer::Instances(instances.clone()),
            None => ServiceAnswer::Unknown,
        };
        // The table never changes, so there is one answer and then silence.
        stream::iter([Ok(answer)]).chain(stream::pending()).boxed()
    }

    fn watch_names(&self) -> NamesWatch {
        let names = self.hosts.keys().cloned().collect();
        stream::iter([Ok(names)]).chain(stream::pending()).boxed()
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let table = HostsTable::parse(
        "auth   http://10.0.0.1:5001  http://10.0.0.2:5001
         search https://search.example/v2",
    )?;
    let client = ServiceDiscoveryClient::builder().provider(table).build()?;
    for _ in 0..4 {
        println!("{}", client.service_url("auth", "/users").await?);
    }
    println!("{}", client.service_url("search", "/?q=x").await?);
    if let Err(error) = client.service_url("billing", "").await {
        println!("{error}");
    }
    Ok(())
}
