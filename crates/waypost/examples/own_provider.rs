//! A provider of your own: services from a table. `cargo run --example own_provider`

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use waypost::provider::{NamesWatch, Provider, ServiceAnswer, Watch};
use waypost::{ConfigError, Error, Instance, Invalid, ServiceDiscoveryClient, ServiceName};

/// A provider implements three methods. It doesn't retry, cache or keep old answers: the directory
/// does that for all providers.
#[derive(Debug)]
struct HostsTable {
    services: BTreeMap<ServiceName, Vec<Arc<Instance>>>,
}

impl HostsTable {
    /// Each line is a service's name, followed by the URLs of its instances.
    fn parse(table: &str) -> Result<Self, Error> {
        let mut services = BTreeMap::new();
        for (number, line) in (1..).zip(table.lines()) {
            let (name, instances) = parse_line(line)
                .map_err(|invalid| ConfigError::new(format!("line {number}"), invalid))?;
            services.insert(name, instances);
        }
        Ok(Self { services })
    }
}

fn parse_line(line: &str) -> Result<(ServiceName, Vec<Arc<Instance>>), Invalid> {
    let (name, urls) = line
        .trim()
        .split_once(' ')
        .ok_or_else(|| Invalid::new("line", line, "write a name and at least one URL"))?;
    let name = ServiceName::new(name)?;
    let instance = |url| Instance::from_url(name.clone(), url)?.build().map(Arc::new);
    let instances = urls
        .split_whitespace()
        .map(instance)
        .collect::<Result<_, _>>()?;
    Ok((name, instances))
}

impl Provider for HostsTable {
    fn describe(&self) -> Arc<str> {
        "hosts table".into()
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        let answer = match self.services.get(service) {
            Some(instances) => ServiceAnswer::Instances(instances.clone()),
            None => ServiceAnswer::Unknown,
        };
        // The table never changes, so there is only one answer.
        stream::iter([Ok(answer)]).chain(stream::pending()).boxed()
    }

    fn watch_names(&self) -> NamesWatch {
        let names = self.services.keys().cloned().collect();
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
