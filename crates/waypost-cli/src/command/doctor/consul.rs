//! The Consul agent, or the embedded registry.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use tokio::time::timeout;
use waypost::provider::Provider;
use waypost::provider::consul::{AgentReport, ConsulProvider};
use waypost::{ProviderError, ProviderErrorKind};

use super::finding::Finding;
use super::ports::holder_of;
use crate::output::rounded;

const SUBJECT: &str = "registry";

/// A larger difference between the clocks is a warning.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(5);

/// Examines each agent. Returns whether one can be used.
pub(super) async fn examine(
    consul: &ConsulProvider,
    limit: Duration,
    findings: &mut Vec<Finding>,
) -> bool {
    let Ok(reports) = timeout(limit, consul.agent_reports()).await else {
        let what = format!("{} does not respond within {limit:?}", consul.describe());
        let advice = "a firewall may drop the packets, or the address is another machine's; try \
                      another one with --registry, or wait longer with --timeout";
        findings.push(Finding::error(SUBJECT, what, advice));
        return false;
    };
    let mut is_usable = false;
    for report in reports {
        match report {
            Ok(report) => is_usable |= examine_report(&report, findings),
            Err(error) => findings.push(failure(&error)),
        }
    }
    is_usable
}

/// Adds the findings about an agent that responds. Returns whether it can be used.
fn examine_report(report: &AgentReport, findings: &mut Vec<Finding>) -> bool {
    let address = &report.address;
    let product = match (&report.identity, report.is_waypost) {
        (Ok(identity), true) => format!(
            "Waypost's registry, with the API of Consul {}",
            identity.version
        ),
        (Err(_), true) => "Waypost's registry".to_owned(),
        (Ok(identity), false) => format!(
            "Consul {}, node {} in datacenter {}",
            identity.version, identity.node_name, identity.datacenter
        ),
        (Err(_), false) => "Consul; the token may not read its version".to_owned(),
    };
    let mut is_usable = true;
    match &report.leader {
        Some(leader) => {
            let what = format!("{product}, at {address}; leader: {leader}");
            findings.push(Finding::ok(SUBJECT, what));
        }
        None => {
            is_usable = false;
            let what = format!("{product}, at {address}, has no leader");
            let advice = "too few of its servers are up or reach each other: see `consul operator \
                          raft list-peers` and `consul members`, and start the missing servers";
            findings.push(Finding::error(SUBJECT, what, advice));
        }
    }
    match &report.missing_rules {
        Ok(rules) if rules.is_empty() => {
            findings.push(Finding::ok("permissions", "services and nodes can be read"));
        }
        Ok(rules) => {
            let what = "the token doesn't allow look-ups".to_owned();
            let advice = format!("add to its policy:\n{}", rules.join("\n"));
            findings.push(Finding::error("permissions", what, advice));
        }
        Err(error) if error.kind() == ProviderErrorKind::NotAuthorised => {
            is_usable = false;
            findings.push(refusal(error));
        }
        // Without a leader, this query fails too.
        Err(_) if report.leader.is_none() => {}
        Err(error) => {
            let what = format!("the permissions of the token can't be determined: {error}");
            findings.push(Finding::warning(
                "permissions",
                what,
                "see the log of the agent",
            ));
        }
    }
    if let Some(clock) = report.clock {
        findings.push(compare_clocks(clock, SystemTime::now(), address));
    }
    is_usable
}

/// Compares the clock of the registry, known to the second, with this machine's.
fn compare_clocks(theirs: SystemTime, ours: SystemTime, address: &str) -> Finding {
    let (difference, word) = match ours.duration_since(theirs) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    if difference <= MAX_CLOCK_DIFFERENCE {
        return Finding::ok("clock", "agrees with the registry's");
    }
    let what = format!(
        "this machine's clock is {} {word} that of {address}",
        rounded(difference)
    );
    let advice = "set the clock by NTP (`timedatectl set-ntp true`): certificates and tokens are \
                  refused, and times in logs mislead";
    Finding::warning("clock", what, advice)
}

/// The finding about an agent that could not be examined.
fn failure(error: &ProviderError) -> Finding {
    let provider = error.provider();
    let address = provider.strip_prefix("consul at ").unwrap_or(provider);
    let text = error.to_string();
    let lower = text.to_lowercase();
    if error.kind() == ProviderErrorKind::NotAuthorised {
        return refusal(error);
    }
    if error.kind() == ProviderErrorKind::InvalidResponse {
        let holder = local_port(address).and_then(holder_of);
        let holder = holder.map(|holder| format!(": {holder}"));
        let what = format!(
            "{address} is not a registry, but another program{}",
            holder.unwrap_or_default()
        );
        let advice = "name the registry with --registry or CONSUL_HTTP_ADDR, or stop that program";
        return Finding::error(SUBJECT, what, advice);
    }
    if lower.contains("connection refused") {
        let what = format!("nothing listens at {address} (connection refused)");
        let advice = if local_port(address).is_some() {
            "start a registry: waypost up, or waypost agent; or name another with --registry"
        } else {
            "start the registry there, or name another with --registry or CONSUL_HTTP_ADDR"
        };
        return Finding::error(SUBJECT, what, advice);
    }
    if lower.contains("certificate") || lower.contains("tls") {
        let advice = "name the CA that signed the agent's certificate with CONSUL_CACERT, the name \
                      in it with CONSUL_TLS_SERVER_NAME, and use https:// only if the agent does";
        return Finding::error(SUBJECT, text, advice);
    }
    let is_name = ["lookup", "resolve", "dns", "not known", "no address"]
        .iter()
        .any(|word| lower.contains(word));
    if is_name {
        let what = format!("the name in {address} can't be resolved: {text}");
        let advice = "correct the name in --registry or CONSUL_HTTP_ADDR, or add it to DNS or \
                      /etc/hosts";
        return Finding::error("dns", what, advice);
    }
    let advice = "see whether it runs and a firewall lets you through; or name another with \
                  --registry";
    Finding::error(SUBJECT, text, advice)
}

fn refusal(error: &ProviderError) -> Finding {
    let advice = "set CONSUL_HTTP_TOKEN, or CONSUL_HTTP_TOKEN_FILE, to a token that the registry \
                  knows and whose policy allows it";
    Finding::error("permissions", error.to_string(), advice)
}

/// The address of a registry on this machine; `None` for another machine.
fn local_port(address: &str) -> Option<SocketAddr> {
    let (_, authority) = address.split_once("://")?;
    let (host, port) = authority.rsplit_once(':')?;
    let host = host.trim_matches(['[', ']']);
    let ip = match host {
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        host => host.parse::<IpAddr>().ok().filter(IpAddr::is_loopback)?,
    };
    Some(SocketAddr::new(ip, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_explained_by_its_cause() {
        use ProviderErrorKind::{InvalidResponse, NotAuthorised, Unreachable};
        let local = "consul at http://127.0.0.1:1";
        let remote = "consul at http://10.0.0.1:8500";
        for (provider, kind, message, subject, what, advice) in [
            (
                local,
                NotAuthorised,
                "403",
                "permissions",
                "403",
                "set CONSUL_HTTP_TOKEN",
            ),
            (
                remote,
                InvalidResponse,
                "html",
                "registry",
                "http://10.0.0.1:8500 is not a registry, but another program",
                "or stop that program",
            ),
            (
                local,
                Unreachable,
                "Connection refused",
                "registry",
                "nothing listens at http://127.0.0.1:1 (connection refused)",
                "start a registry: waypost up",
            ),
            (
                remote,
                Unreachable,
                "connection refused",
                "registry",
                "nothing listens at http://10.0.0.1:8500 (connection refused)",
                "start the registry there",
            ),
            (
                remote,
                Unreachable,
                "invalid Certificate",
                "registry",
                "invalid",
                "CONSUL_CACERT",
            ),
            (
                remote,
                Unreachable,
                "no TLS",
                "registry",
                "no TLS",
                "CONSUL_CACERT",
            ),
            (
                remote,
                Unreachable,
                "failed to lookup address",
                "dns",
                "the name in http://10.0.0.1:8500 can't be resolved",
                "/etc/hosts",
            ),
            (
                remote,
                Unreachable,
                "no route",
                "registry",
                "no route",
                "a firewall lets you through",
            ),
        ] {
            let finding = format!(
                "{:?}",
                failure(&ProviderError::new(provider, kind, message))
            );
            let subject = format!("subject: {subject:?}");
            for part in [&subject, "severity: Error", what, advice] {
                assert!(finding.contains(part), "no {part} in {finding}");
            }
        }
    }

    #[test]
    fn only_an_address_of_this_machine_can_be_held_by_its_processes() {
        for (address, expected) in [
            ("http://localhost:8500", Some("127.0.0.1:8500")),
            ("http://127.0.0.2:8500", Some("127.0.0.2:8500")),
            ("https://[::1]:8501", Some("[::1]:8501")),
            ("http://10.0.0.1:8500", None),
            ("http://consul:8500", None),
            ("localhost:8500", None),
            ("http://localhost", None),
        ] {
            let expected = expected.map(|address| address.parse().unwrap());
            assert_eq!(local_port(address), expected, "{address}");
        }
    }

    #[test]
    fn clocks_are_compared_in_both_directions() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let text = |theirs| format!("{:?}", compare_clocks(theirs, now, "http://r:1"));
        for theirs in [now - MAX_CLOCK_DIFFERENCE, now, now + MAX_CLOCK_DIFFERENCE] {
            assert!(text(theirs).contains("agrees"));
        }
        let ahead = text(now - Duration::from_secs(90));
        assert!(
            ahead.contains("1m 30s ahead of that of http://r:1"),
            "{ahead}"
        );
        let behind = text(now + Duration::from_secs(7_200));
        assert!(behind.contains("2h behind"), "{behind}");
    }
}
