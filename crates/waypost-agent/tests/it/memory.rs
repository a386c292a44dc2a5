//! The memory use of the registry.

use allocation_counter::measure;
use tokio::runtime::Builder;
use waypost_agent::Agent;

use crate::raw_http::Request;

const INSTANCES: usize = 10_000;

/// Counts allocated bytes, which vary less than the resident memory of the process.
#[test]
fn ten_thousand_instances_with_a_ttl_check_each_take_at_most_60_mib() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut agent = None;
    let held = measure(|| {
        agent = Some(runtime.block_on(async {
            let agent = Agent::start().await.unwrap();
            for n in 0..INSTANCES {
                let (service, port) = (n % 100, 1_000 + n);
                let definition = format!(
                    r#"{{"ID":"service-{service}-{n}","Name":"service-{service}","Port":{port},
                        "Address":"10.0.{}.{}","Tags":["version=1.0.0"],"Meta":{{"team":"shop"}},
                        "Check":{{"TTL":"1h","Status":"passing"}}}}"#,
                    n / 256,
                    n % 256
                );
                let target = "/v1/agent/service/register";
                let request = Request::new("PUT", target, &definition);
                let response = request.send(agent.http_addr()).await.unwrap();
                assert_eq!(response.status, "200 OK", "{}", response.text());
            }
            agent
        }));
    });
    let mib = held.bytes_current as f64 / f64::from(1 << 20);
    assert!((5.0..=60.0).contains(&mib), "{mib:.1} MiB");
    println!("{mib:.1} MiB for {INSTANCES} instances");
    drop(agent);
}
