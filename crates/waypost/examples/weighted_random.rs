//! Weighted random picks, with a weight computed from the version of an instance:
//! `cargo run --example weighted_random`
//!
//! Version 2.0.0 has weight 10, all others 5. Needs no registry.

use std::collections::BTreeMap;

use waypost::balance::WeightedRandom;
use waypost::provider::MemoryProvider;
use waypost::{Error, Instance, ServiceDiscoveryClient};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let memory = MemoryProvider::new();
    for (id, version) in [("new", "2.0.0"), ("old-1", "1.0.0"), ("old-2", "1.9.9")] {
        let builder = Instance::builder("auth".parse()?, "10.0.0.1".parse()?, 80);
        memory.insert(builder.id(id).version(version).build()?);
    }

    let client = ServiceDiscoveryClient::builder()
        .provider(memory)
        .strategy(|| {
            WeightedRandom::by(|instance| match instance.version() {
                Some("2.0.0") => 10.0,
                _ => 5.0,
            })
        })
        .build()?;

    const PICKS: u32 = 100_000;
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..PICKS {
        let pick = client.pick("auth").await?;
        *counts.entry(pick.id().to_string()).or_default() += 1;
    }
    let explanation = client.explain("auth").await?;
    println!("instance  picked  expected");
    for instance in &explanation.instances {
        let id = instance.id.as_str();
        let picked = counts.get(id).copied().unwrap_or_default();
        let share = 100.0 * f64::from(picked) / f64::from(PICKS);
        println!("{id:8} {share:6.1} %  {:6.1} %", 100.0 * instance.share);
    }
    Ok(())
}
