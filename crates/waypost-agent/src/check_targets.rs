//! The targets that health checks may connect to.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::store::CheckDefinition;

/// An allowlist of hosts. The default allows every host.
#[derive(Clone, Debug, Default)]
pub(crate) struct CheckTargets {
    is_limited: bool,
    networks: Vec<IpNet>,
    names: Vec<String>,
}

impl CheckTargets {
    /// Allows only these networks such as `10.0.0.0/8`, IP addresses and host names.
    pub(crate) fn only(allowed: &[String]) -> Self {
        let mut targets = Self {
            is_limited: true,
            ..Self::default()
        };
        for text in allowed {
            let address = text.parse::<IpAddr>().map(IpNet::from);
            match text.parse::<IpNet>().or(address) {
                Ok(network) => targets.networks.push(network),
                Err(_) => targets.names.push(text.to_ascii_lowercase()),
            }
        }
        targets
    }

    /// Whether a check may connect to a host. An IPv6 address may be in brackets.
    pub(crate) fn allow(&self, host: &str) -> bool {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        !self.is_limited
            || match bare.parse::<IpAddr>() {
                Ok(address) => self
                    .networks
                    .iter()
                    .any(|network| network.contains(&address)),
                Err(_) => self
                    .names
                    .iter()
                    .any(|name| name.eq_ignore_ascii_case(bare)),
            }
    }

    /// Checks the targets of a check definition. The error names the host.
    pub(crate) fn check(&self, check: &CheckDefinition) -> Result<(), String> {
        let of_url = url::Url::parse(&check.http).ok();
        let http = of_url.as_ref().and_then(url::Url::host_str);
        let grpc = check.grpc.split('/').next().unwrap_or_default();
        let hosts = [http, host_of(&check.tcp), host_of(grpc)];
        match hosts.into_iter().flatten().find(|host| !self.allow(host)) {
            Some(host) => Err(format!(
                "Health checks of {host:?} aren't allowed by this agent's check targets"
            )),
            None => Ok(()),
        }
    }
}

/// The host of `host:port`.
fn host_of(address: &str) -> Option<&str> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    Some(host).filter(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_targets_are_allowed() {
        let allowed = ["127.0.0.0/8", "::1", "api.internal"].map(str::to_owned);
        let targets = CheckTargets::only(&allowed);
        for (http, tcp, ok) in [
            ("http://127.0.0.1:80/", "", true),
            ("http://[::1]/", "", true),
            ("http://API.internal/", "", true),
            ("http://169.254.169.254/latest", "", false),
            ("http://localhost/", "", false),
            ("", "10.0.0.1:22", false),
            ("", "127.0.0.2:22", true),
        ] {
            let check = CheckDefinition {
                http: http.to_owned(),
                tcp: tcp.to_owned(),
                ..CheckDefinition::default()
            };
            assert_eq!(targets.check(&check).is_ok(), ok, "{http}{tcp}");
        }
        assert!(CheckTargets::default().allow("anything.example"));
    }
}
