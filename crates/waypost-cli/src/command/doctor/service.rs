//! One service: whether it is registered, whether its checks pass, and whether it can be reached.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use tokio::net::TcpStream;
use tokio::time::timeout;
use waypost::directory::Directory;
use waypost::provider::{CheckResult, Provider};
use waypost::{Error, Health, Host, Instance, ServiceName};

use super::finding::Finding;
use crate::command::registry_args::RegistryArgs;
use crate::error::CommandError;
use crate::output::why_text;

const SUBJECT: &str = "service";

/// The time limit for connecting to an address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The number of addresses that are tried concurrently.
const CONCURRENCY: usize = 16;

pub(super) async fn examine(
    service: &ServiceName,
    provider: Arc<dyn Provider>,
    registry: &RegistryArgs,
    findings: &mut Vec<Finding>,
) {
    let directory = registry.directory_of(provider);
    let snapshot = match directory.lookup(service).await {
        Ok(snapshot) => snapshot,
        Err(error) => {
            findings.push(not_found(error, &directory, registry).await);
            return;
        }
    };
    let instances: Vec<_> = snapshot.instances().cloned().collect();
    if instances.is_empty() {
        let error = snapshot.usable().err();
        let finding = match error {
            Some(error) => not_found(error, &directory, registry).await,
            None => no_instances(service),
        };
        findings.push(finding);
        return;
    }
    let ready = instances.iter().filter(|it| it.health().takes_traffic());
    let (ready, all) = (ready.count(), instances.len());
    let what = format!("{service}: {ready} of {all} instances take requests");
    findings.push(if ready == 0 {
        let advice = "fix one of the instances below; until then every call fails";
        Finding::error(SUBJECT, what, advice)
    } else {
        Finding::ok(SUBJECT, what)
    });
    let checks = registry.check_results(&directory, service).await;
    let describe = directory.provider().describe();
    let tried = stream::iter(&instances).map(async |instance| {
        let is_reachable = reach(instance).await;
        (instance, is_reachable)
    });
    let tried: Vec<_> = tried.buffered(CONCURRENCY).collect().await;
    for (instance, reached) in tried {
        findings.extend(of_instance(instance, &reached, &checks, &describe));
    }
}

/// The finding about a service that has no instances.
async fn not_found(error: Error, directory: &Directory, registry: &RegistryArgs) -> Finding {
    let Error::UnknownService { service, .. } = &error else {
        let advice = "see the other findings";
        return Finding::error(SUBJECT, error.to_string(), advice);
    };
    let service = service.clone();
    let what = error.to_string();
    let hint = match registry.with_suggestion(directory, error).await {
        CommandError::WithHint(_, hint) => hint,
        _ => String::new(),
    };
    let advice = format!(
        "{hint}\nor register it: `waypost register {service} --port PORT --hold`, by the library, or \
         in waypost.toml"
    );
    Finding::error(SUBJECT, what, advice.trim_start())
}

fn no_instances(service: &ServiceName) -> Finding {
    let advice = "start one, and see in its log whether it registers";
    Finding::error(SUBJECT, format!("{service} has no instances"), advice)
}

/// The problem of one instance, if there is one.
fn of_instance(
    instance: &Instance,
    reached: &Result<(), String>,
    checks: &[CheckResult],
    provider: &str,
) -> Vec<Finding> {
    let id = instance.id();
    let address = format!("{}:{}", instance.host(), instance.port());
    let mut findings = Vec::new();
    let health = instance.health();
    if let Some(why) = why_text(instance, checks, provider) {
        let advice = match reached {
            Ok(()) => format!("{address} accepts connections, so fix what its check tests"),
            Err(_) => format!(
                "start the program at {address}, or deregister it: `waypost deregister {id}`"
            ),
        };
        let what = format!("{id} is {health}: {why}");
        findings.push(match health {
            Health::Critical => Finding::error(SUBJECT, what, advice),
            _ => Finding::warning(SUBJECT, what, advice),
        });
    }
    if let (Err(error), true) = (reached, health.takes_traffic()) {
        let what = format!("{id} is {health}, but {address} can't be reached from here: {error}");
        let advice = unreachable_advice(instance.host());
        findings.push(Finding::error("network", what, advice));
    }
    findings
}

fn unreachable_advice(host: &Host) -> &'static str {
    let is_loopback = |host: &Host| match host {
        Host::Ip(IpAddr::V4(ip)) => ip.is_loopback(),
        Host::Ip(IpAddr::V6(ip)) => ip.is_loopback(),
        Host::Name(name) => &**name == "localhost",
    };
    if is_loopback(host) {
        "a loopback address is this machine's own: if the program runs elsewhere, have it register \
         the address at which others reach it (--address, or `host` in the library); if it runs \
         here, start it, and give it a check so that the registry notices"
    } else {
        "if the program runs, a firewall or a container network is in between, or it registered an \
         address of another network: have it register one that others reach, or publish the port"
    }
}

/// Whether the address of an instance accepts a connection.
async fn reach(instance: &Instance) -> Result<(), String> {
    let port = instance.port();
    let connecting = async {
        match instance.host() {
            Host::Ip(ip) => TcpStream::connect(SocketAddr::new(*ip, port)).await,
            Host::Name(name) => TcpStream::connect((&**name, port)).await,
        }
    };
    match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no connection within {CONNECT_TIMEOUT:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(health: Health) -> Instance {
        let service = ServiceName::new("web").unwrap();
        let builder = Instance::builder(service, "10.0.0.1".parse().unwrap(), 80);
        builder.id("web-1").health(health).build().unwrap()
    }

    /// The findings, each with its severity, subject and text.
    fn findings(health: Health, reached: Result<(), &str>) -> Vec<String> {
        let instance = instance(health);
        let check = CheckResult::new(instance.id().clone(), "ping", health, "no pong");
        let reached = reached.map_err(str::to_owned);
        let findings = of_instance(&instance, &reached, &[check], "consul at http://c");
        findings
            .iter()
            .map(|finding| format!("{finding:?}"))
            .collect()
    }

    #[track_caller]
    fn assert_parts(findings: &[String], expected: &[&[&str]]) {
        assert_eq!(findings.len(), expected.len(), "{findings:#?}");
        for (finding, parts) in findings.iter().zip(expected) {
            for part in *parts {
                assert!(finding.contains(part), "no {part:?} in {finding}");
            }
        }
    }

    #[test]
    fn an_instance_is_a_problem_if_it_is_not_healthy_or_can_not_be_reached() {
        assert_parts(&findings(Health::Passing, Ok(())), &[]);
        let fix = "10.0.0.1:80 accepts connections, so fix what its check tests";
        let start =
            "start the program at 10.0.0.1:80, or deregister it: `waypost deregister web-1`";
        let critical = "web-1 is critical: check";
        assert_parts(
            &findings(Health::Critical, Ok(())),
            &[&["Error", critical, fix]],
        );
        assert_parts(
            &findings(Health::Critical, Err("refused")),
            &[&["Error", critical, "no pong", start]],
        );
        assert_parts(
            &findings(Health::Warning, Ok(())),
            &[&["severity: Warning", "web-1 is warning", fix]],
        );
        let network = "can't be reached from here: refused";
        assert_parts(
            &findings(Health::Passing, Err("refused")),
            &[&["network", network]],
        );
        assert_parts(
            &findings(Health::Warning, Err("refused")),
            &[&["web-1 is warning", start], &["network", network]],
        );
    }

    #[test]
    fn an_address_that_others_can_not_use_is_the_likely_cause() {
        for (host, is_loopback) in [
            ("127.0.0.1", true),
            ("127.1.2.3", true),
            ("::1", true),
            ("localhost", true),
            ("10.0.0.1", false),
            ("2001:db8::1", false),
            ("web", false),
        ] {
            let advice = unreachable_advice(&host.parse().unwrap());
            assert_eq!(
                advice.starts_with("a loopback address"),
                is_loopback,
                "{host}"
            );
        }
    }
}
