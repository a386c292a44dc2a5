//! A node of the cluster: its address and ports.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde_json::{Value, json};

/// A server or client agent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) ip: IpAddr,
    /// The first of six consecutive ports; `None` for Consul's default ports.
    first_port: Option<u16>,
}

impl FromStr for Node {
    type Err = String;

    /// Parses `IP` or `IP:PORT`.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ip) = text.parse() {
            return Ok(Self {
                ip,
                first_port: None,
            });
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if (1..u16::MAX - 6).contains(&address.port()) => Ok(Self {
                ip: address.ip(),
                first_port: Some(address.port()),
            }),
            _ => Err(format!(
                "{text:?} is not an address; use 10.0.0.1, or 10.0.0.1:9000 for six ports from \
                 9000 on"
            )),
        }
    }
}

impl Node {
    pub(super) fn has_default_ports(&self) -> bool {
        self.first_port.is_none()
    }

    /// The `ports` of Consul's configuration. Ports that are left out have their default, such as
    /// 8500 for the plain HTTP API.
    pub(super) fn ports(&self) -> Value {
        match self.first_port {
            None => json!({ "https": 8501, "serf_wan": -1 }),
            Some(first) => json!({
                "http": first, "https": first + 1, "server": first + 2,
                "serf_lan": first + 3, "dns": first + 4, "grpc": -1, "serf_wan": -1,
            }),
        }
    }

    pub(super) fn gossip_address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.first_port.map_or(8301, |first| first + 3))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_the_default_ports_or_six_from_its_own_on() {
        let node = |text: &str| text.parse::<Node>();
        let default = node("10.0.0.1").unwrap();
        assert!(default.has_default_ports());
        assert_eq!(default.ports(), json!({ "https": 8501, "serf_wan": -1 }));
        assert_eq!(default.gossip_address(), "10.0.0.1:8301".parse().unwrap());
        let own = node("[::1]:9000").unwrap();
        assert!(!own.has_default_ports());
        let ports = own.ports();
        let names = ["http", "https", "server", "serf_lan", "dns"];
        assert_eq!(
            names.map(|name| &ports[name]),
            [9000, 9001, 9002, 9003, 9004]
        );
        assert_eq!(
            (&ports["grpc"], &ports["serf_wan"]),
            (&json!(-1), &json!(-1))
        );
        assert_eq!(own.gossip_address(), "[::1]:9003".parse().unwrap());
        for wrong in ["", "consul", "consul:9000", "10.0.0.1:0", "10.0.0.1:65535"] {
            let error = node(wrong).unwrap_err();
            assert!(
                error.starts_with(&format!("{wrong:?} is not an address; use ")),
                "{error}"
            );
        }
    }
}
