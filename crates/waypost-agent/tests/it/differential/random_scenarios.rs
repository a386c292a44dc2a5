//! Random scenarios, generated from a seed and sent to both registries. If the responses differ, the
//! scenario is reduced to the relevant lines, so that it can become a case.

use std::collections::HashMap;
use std::fmt::Write;

use fastrand::Rng;
use waypost_agent::Agent;

use super::{Comparison, NODE};
use crate::real_consul::Consul;

/// The default of the environment variable `SCENARIOS`. The seeds start at `SEED`, or at 1.
const SCENARIOS: u64 = 100;

/// Changes in a scenario. A few queries follow each of them.
const CHANGES: usize = 12;

/// The requests after every change, which wait until both registries agree before the next.
const SETTLE: &str = "GET /v1/health/state/any\nGET /v1/catalog/node/n1\n";

#[tokio::test(flavor = "multi_thread")]
async fn responses_to_random_requests_match_a_real_consul() {
    let consul = Consul::start(NODE).await;
    let agent = Agent::builder().node_name(NODE).start().await.unwrap();
    let mut comparison = Comparison::of(&consul, &agent).await;
    comparison.last_responses = Some(HashMap::new());
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first: u64 = number("SEED").unwrap_or(1);
    let count = number("SCENARIOS").unwrap_or(SCENARIOS);
    for seed in first..first + count {
        let scenario = scenario(&mut Rng::with_seed(seed));
        comparison.run("random", &scenario.concat()).await;
        if !comparison.failures.is_empty() {
            // Consul's agent updates its catalog asynchronously, and on a busy machine several changes
            // in any order. An accidental difference doesn't occur again.
            comparison.failures.clear();
            comparison.run("random", &scenario.concat()).await;
        }
        if !comparison.failures.is_empty() {
            let (scenario, failures) = reduce(&mut comparison, scenario).await;
            panic!("SEED={seed} differs in:\n\n{scenario}\n{failures}");
        }
    }
    println!("{count} scenarios, {} requests", comparison.cases);
    assert!(comparison.cases > 0);
    agent.shutdown().await;
}

/// Removes the changes that aren't needed for a difference. Returns the scenario and the
/// difference.
async fn reduce(comparison: &mut Comparison, mut scenario: Vec<String>) -> (String, String) {
    let mut failures = std::mem::take(&mut comparison.failures);
    let mut at = scenario.len();
    while at > 0 {
        at -= 1;
        let mut shorter = scenario.clone();
        shorter.remove(at);
        comparison.run("random", &shorter.concat()).await;
        let found = std::mem::take(&mut comparison.failures);
        if !found.is_empty() {
            (scenario, failures) = (shorter, found);
        }
    }
    (scenario.concat(), failures.concat())
}

/// A title, and then changes, each followed by queries.
fn scenario(random: &mut Rng) -> Vec<String> {
    let mut scenario = vec!["== Random\n".to_owned()];
    for _ in 0..CHANGES {
        let mut part = change(random);
        part.push_str(SETTLE);
        for _ in 0..random.usize(1..4) {
            part.push_str(&query(random));
        }
        scenario.push(part);
    }
    scenario
}

fn change(random: &mut Rng) -> String {
    match random.u8(..14) {
        0..=2 => register_service(random),
        3 => format!("PUT /v1/agent/service/deregister/{}\n", instance(random)),
        4 => register_check(random),
        5 => format!("PUT /v1/agent/check/deregister/{}\n", check(random)),
        6 | 7 => {
            let verb = pick(random, &["pass", "warn", "fail", "pass"]);
            format!("PUT /v1/agent/check/{verb}/{}?note=n\n", check(random))
        }
        8 => {
            let enable = random.bool();
            match random.u8(..3) {
                0 => format!("PUT /v1/agent/maintenance?enable={enable}\n"),
                _ => format!(
                    "PUT /v1/agent/service/maintenance/{}?enable={enable}&reason=r\n",
                    instance(random)
                ),
            }
        }
        9 | 10 => change_key(random),
        11 => change_session(random),
        12 => transaction(random),
        _ => change_catalog(random),
    }
}

fn query(random: &mut Rng) -> String {
    let name = service(random);
    let target = match random.u8(..16) {
        0 | 1 => format!("health/service/{name}{}", condition(random)),
        2 => format!(
            "health/service/{name}?filter={}",
            filter(random, "Service.")
        ),
        3 => format!("catalog/service/{name}{}", condition(random)),
        4 => format!(
            "catalog/service/{name}?filter={}",
            filter(random, "Service")
        ),
        5 => "catalog/services".to_owned(),
        6 => format!("health/checks/{name}"),
        7 => format!(
            "health/state/{}",
            pick(random, &["passing", "warning", "critical"])
        ),
        8 => "agent/services".to_owned(),
        9 => "agent/checks".to_owned(),
        10 => format!("agent/health/service/name/{name}"),
        11 => format!("agent/health/service/id/{}", instance(random)),
        12 => format!(
            "kv/{}",
            pick(
                random,
                &[
                    "?recurse",
                    "k/?recurse",
                    "k/a",
                    "k/b",
                    "?keys",
                    "?keys&separator=/"
                ]
            )
        ),
        13 => pick(
            random,
            &["session/list", "session/node/n1", "session/info/{session}"],
        )
        .to_owned(),
        14 => format!("catalog/node/{}", pick(random, &["n1", "x1"])),
        _ => pick(
            random,
            &[
                "catalog/nodes",
                "health/node/x1",
                "catalog/node-services/x1",
            ],
        )
        .to_owned(),
    };
    format!("GET /v1/{target}\n")
}

fn register_service(random: &mut Rng) -> String {
    // Each id has one service name: in Consul the checks of a renamed instance keep the old name.
    let id = instance(random);
    let name = if id.starts_with('a') { "web" } else { "db" };
    let mut body = format!(
        r#"{{"ID":"{id}","Name":"{name}","Port":{}"#,
        random.u8(80..83)
    );
    if random.bool() {
        let tags = pick(random, &[r#""v1""#, r#""v1","v2""#, r#""v2""#]);
        let _ = write!(body, r#","Tags":[{tags}]"#);
    }
    if random.u8(..3) == 0 {
        let _ = write!(body, r#","Meta":{{"k":"{}"}}"#, random.u8(..2));
    }
    if random.u8(..3) == 0 {
        body.push_str(r#","Address":"10.0.0.1""#);
    }
    if random.u8(..4) == 0 {
        body.push_str(r#","EnableTagOverride":true"#);
    }
    match random.u8(..4) {
        0 => body.push_str(r#","Check":{"TTL":"1h"}"#),
        1 => {
            let status = pick(random, STATES);
            let _ = write!(body, r#","Check":{{"TTL":"1h","Status":"{status}"}}"#);
        }
        2 => body
            .push_str(r#","Checks":[{"TTL":"1h","CheckID":"c1"},{"TTL":"1h","Status":"passing"}]"#),
        _ => {}
    }
    let replace = pick(random, &["", "", "?replace-existing-checks"]);
    format!("PUT /v1/agent/service/register{replace} {body}}}\n")
}

fn register_check(random: &mut Rng) -> String {
    let id = pick(random, &["c1", "c2"]);
    let mut body = format!(r#"{{"ID":"{id}","Name":"check {id}","TTL":"1h""#);
    if random.bool() {
        let _ = write!(body, r#","ServiceID":"{}""#, instance(random));
    }
    // Without a status: it has no effect on an existing check, but Consul counts it as a change.
    format!("PUT /v1/agent/check/register {body}}}\n")
}

fn change_key(random: &mut Rng) -> String {
    let key = pick(random, &["k/a", "k/b", "k/c/d", "l"]);
    let how = pick(
        random,
        &[
            "",
            "",
            "?flags=3",
            "?cas=0",
            "?cas={modified}",
            "?acquire={session}",
            "?release={session}",
            "?acquire={earlier session}",
        ],
    );
    match random.u8(..4) {
        0 => format!(
            "DELETE /v1/kv/{key}{}\n",
            pick(random, &["", "?recurse", "?cas={modified}", "?cas=0"])
        ),
        _ => format!(
            "PUT /v1/kv/{key}{how} {}\n",
            pick(random, &["one", "two", ""])
        ),
    }
}

fn change_session(random: &mut Rng) -> String {
    match random.u8(..4) {
        0 => "PUT /v1/session/destroy/{session}\n".to_owned(),
        1 => "PUT /v1/session/renew/{session}\n".to_owned(),
        _ => {
            let body = pick(
                random,
                &[
                    r#"{"LockDelay":"0s"}"#,
                    r#"{"Name":"s","TTL":"1h","Behavior":"delete"}"#,
                    r#"{"NodeChecks":["c1"],"Behavior":"delete"}"#,
                    r#"{"ServiceChecks":[{"ID":"c1"}]}"#,
                    r#"{"Node":"x1","NodeChecks":[]}"#,
                ],
            );
            format!("PUT /v1/session/create {body}\n")
        }
    }
}

fn transaction(random: &mut Rng) -> String {
    let operations = (0..random.usize(1..4)).map(|_| {
        let verb = pick(
            random,
            &[
                "set",
                "get",
                "get-tree",
                "delete",
                "delete-tree",
                "cas",
                "check-not-exists",
                "lock",
                "unlock",
                "check-session",
                "delete-cas",
            ],
        );
        let key = pick(random, &["k/a", "k/b", "k/"]);
        format!(
            r#"{{"KV":{{"Verb":"{verb}","Key":"{key}","Value":"dA==","Session":"{{session}}"}}}}"#
        )
    });
    let operations = operations.collect::<Vec<_>>().join(",");
    format!("PUT /v1/txn [{operations}]\n")
}

fn change_catalog(random: &mut Rng) -> String {
    let status = pick(random, STATES);
    let body = match random.u8(..6) {
        0 => return "PUT /v1/catalog/deregister {\"Node\":\"x1\"}\n".to_owned(),
        1 => {
            return "PUT /v1/catalog/deregister {\"Node\":\"x1\",\"ServiceID\":\"o1\"}\n"
                .to_owned();
        }
        2 => return "PUT /v1/catalog/deregister {\"Node\":\"x1\",\"CheckID\":\"oc\"}\n".to_owned(),
        3 => r#","Service":{"ID":"o1","Service":"db","Tags":["v1"]}"#.to_owned(),
        4 => format!(
            r#","Service":{{"ID":"o1","Service":"db","Port":9}},"Check":{{"CheckID":"oc","ServiceID":"o1","Status":"{status}"}}"#
        ),
        _ => format!(r#","Check":{{"CheckID":"on","Name":"on","Status":"{status}"}}"#),
    };
    format!("PUT /v1/catalog/register {{\"Node\":\"x1\",\"Address\":\"10.0.0.9\"{body}}}\n")
}

fn condition(random: &mut Rng) -> &'static str {
    pick(
        random,
        &[
            "",
            "?passing",
            "?tag=v1",
            "?tag=v1&tag=v2",
            "?near=_agent",
            "?node-meta=a:b",
            "?stale",
        ],
    )
}

/// A filter on the fields of a service, whose names have this prefix.
fn filter(random: &mut Rng, prefix: &str) -> String {
    let one = |random: &mut Rng| match random.u8(..6) {
        0 => format!("{prefix}Port==8{}", random.u8(..3)),
        1 => format!("v1%20in%20{prefix}Tags"),
        2 => format!("{prefix}Tags%20is%20empty"),
        3 => format!("{prefix}Meta.k%20==%20{}", random.u8(..2)),
        4 => format!("{prefix}ID%20matches%20%22^a%22"),
        _ => format!("not%20{prefix}Address%20==%20%2210.0.0.1%22"),
    };
    let first = one(random);
    match random.u8(..3) {
        0 => format!("{first}%20and%20{}", one(random)),
        1 => format!("({first})%20or%20{}", one(random)),
        _ => first,
    }
}

const STATES: &[&str] = &["passing", "warning", "critical"];

fn service(random: &mut Rng) -> &'static str {
    pick(random, &["web", "db"])
}

fn instance(random: &mut Rng) -> &'static str {
    pick(random, &["a1", "a2", "b1"])
}

fn check(random: &mut Rng) -> &'static str {
    pick(
        random,
        &["c1", "c2", "service:a1", "service:a2", "service:b1"],
    )
}

fn pick(random: &mut Rng, from: &[&'static str]) -> &'static str {
    from[random.usize(..from.len())]
}
