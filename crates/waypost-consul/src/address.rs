//! The addresses of agents.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use waypost_core::{ConfigError, Environment, Host, Invalid};

/// The address that an agent listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Tcp { https: bool, host: Host, port: u16 },
    Unix(PathBuf),
}

const DEFAULT_PORT: u16 = 8500;

impl Address {
    /// The start of every request's URL. A socket has no host, but HTTP needs one.
    pub(super) fn base_url(&self) -> String {
        match self {
            Self::Tcp { .. } => self.to_string(),
            Self::Unix(_) => "http://localhost".into(),
        }
    }

    /// The path of the Unix socket, if this is one.
    pub(super) fn socket(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Tcp { .. } => None,
        }
    }

    /// The agents that the environment configures, in order of preference. `CONSUL_HOST` and
    /// `CONSUL_PORT` override the parts of `CONSUL_HTTP_ADDR`, which overrides
    /// `SERVICE_REGISTRY_HOST` and `SERVICE_REGISTRY_PORT`.
    pub(super) fn from_environment(environment: &Environment) -> Result<Vec<Self>, ConfigError> {
        let addresses = environment.get("CONSUL_HTTP_ADDR").unwrap_or_default();
        let mut addresses = addresses
            .split(',')
            .map(str::trim)
            .filter(|address| !address.is_empty())
            .map(str::parse)
            .collect::<Result<Vec<Self>, Invalid>>()
            .map_err(|invalid| ConfigError::new("CONSUL_HTTP_ADDR", invalid))?;
        let host_of = |name: &'static str| -> Result<Option<Host>, ConfigError> {
            let host = environment.get(name).map(str::parse).transpose();
            host.map_err(|invalid: Invalid| ConfigError::new(name, invalid))
        };
        let consul_host = host_of("CONSUL_HOST")?;
        let consul_port = environment.port("CONSUL_PORT")?;
        let ssl = environment.flag("CONSUL_HTTP_SSL")?.unwrap_or(false);

        if consul_host.is_none() && consul_port.is_none() && !addresses.is_empty() {
            for address in &mut addresses {
                if let Self::Tcp { https, .. } = address {
                    *https |= ssl;
                }
            }
            return Ok(addresses);
        }
        let first = addresses.iter().find_map(|address| match address {
            Self::Tcp { https, host, port } => Some((*https, host.clone(), *port)),
            Self::Unix(_) => None,
        });
        let https = ssl || first.as_ref().is_some_and(|(https, ..)| *https);
        // Variables that others override are not read, so that they need not be valid.
        let port = match consul_port.or(first.as_ref().map(|(.., port)| *port)) {
            Some(port) => Some(port),
            None => environment.port("SERVICE_REGISTRY_PORT")?,
        };
        let host = match consul_host.or(first.map(|(_, host, _)| host)) {
            Some(host) => Some(host),
            None => host_of("SERVICE_REGISTRY_HOST")?,
        };
        let port = port.unwrap_or(DEFAULT_PORT);
        let host = host.unwrap_or_else(|| Host::Name("localhost".into()));
        Ok(vec![Self::Tcp { https, host, port }])
    }
}

impl FromStr for Address {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refused = |why: &str| Err(Invalid::new("Consul address", text, why));
        let (https, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(("unix", path)) if path.starts_with('/') => return Ok(Self::Unix(path.into())),
            Some(("unix", _)) => return refused("write a socket as unix:///path/to/socket"),
            Some(_) => return refused("use http://, https:// or unix://"),
            None => (false, text),
        };
        let authority = rest.trim_end_matches('/');
        if authority.contains('@') {
            return Err(Invalid::new(
                "Consul address",
                "(hidden)",
                "it contains credentials; use a token instead",
            ));
        }
        if authority.contains('/') {
            return refused("it has a path; use host:port");
        }
        // An IPv6 address has colons itself; its port comes after the bracket.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let port = match port.map(str::parse) {
            None => DEFAULT_PORT,
            Some(Ok(port)) if port != 0 => port,
            Some(_) => return refused("its port is not a number from 1 to 65535"),
        };
        Ok(Self::Tcp {
            https,
            host: host.parse()?,
            port,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { https, host, port } => {
                let scheme = if *https { "https" } else { "http" };
                write!(f, "{scheme}://{host}:{port}")
            }
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_an_address_comes_from_the_first_variable_that_sets_it() {
        for (variables, expected) in [
            (&[][..], "http://localhost:8500"),
            (&[("CONSUL_HTTP_ADDR", "10.0.0.1")], "http://10.0.0.1:8500"),
            (&[("CONSUL_HTTP_ADDR", "https://c:8501/")], "https://c:8501"),
            (&[("CONSUL_HTTP_ADDR", "[::1]:1")], "http://[::1]:1"),
            (
                &[("CONSUL_HTTP_ADDR", "unix:///run/c.sock")],
                "unix:///run/c.sock",
            ),
            (
                &[("CONSUL_HTTP_ADDR", "a:1, b:2"), ("CONSUL_HTTP_SSL", "1")],
                "https://a:1 https://b:2",
            ),
            (
                &[("CONSUL_HTTP_ADDR", "c:1"), ("CONSUL_HTTP_SSL", "true")],
                "https://c:1",
            ),
            (
                &[("CONSUL_HTTP_ADDR", "c:1"), ("CONSUL_PORT", "2")],
                "http://c:2",
            ),
            (
                &[("CONSUL_HOST", "c"), ("CONSUL_HTTP_SSL", "1")],
                "https://c:8500",
            ),
            (
                &[("CONSUL_HTTP_ADDR", "https://c:1"), ("CONSUL_PORT", "2")],
                "https://c:2",
            ),
            (
                &[
                    ("SERVICE_REGISTRY_HOST", "r"),
                    ("SERVICE_REGISTRY_PORT", "9"),
                    ("CONSUL_HOST", "c"),
                ],
                "http://c:9",
            ),
            (
                &[
                    ("CONSUL_HTTP_ADDR", "c:1"),
                    ("SERVICE_REGISTRY_PORT", "http"),
                    ("SERVICE_REGISTRY_HOST", "not a host"),
                ],
                "http://c:1",
            ),
            // The service links of Services named `consul` and `service-registry`.
            (
                &[
                    ("CONSUL_HOST", "c"),
                    ("CONSUL_PORT", "tcp://10.0.0.1:8500"),
                    ("SERVICE_REGISTRY_PORT", "tcp://10.0.0.1:80"),
                ],
                "http://c:8500",
            ),
        ] {
            let all = Address::from_environment(&variables.iter().copied().collect()).unwrap();
            let all: Vec<_> = all.iter().map(Address::to_string).collect();
            assert_eq!(all.join(" "), expected, "{variables:?}");
        }
    }

    #[test]
    fn an_invalid_variable_is_named_in_the_error() {
        for (name, value) in [
            ("CONSUL_HTTP_ADDR", "ftp://c"),
            ("CONSUL_HTTP_ADDR", "unix://relative"),
            ("CONSUL_HTTP_ADDR", "c:port"),
            ("CONSUL_HTTP_ADDR", "http://me:secret@c"),
            ("CONSUL_PORT", "0"),
            ("SERVICE_REGISTRY_PORT", "x"),
            ("CONSUL_HOST", "a b"),
            ("CONSUL_HTTP_SSL", "perhaps"),
        ] {
            let error = Address::from_environment(&[(name, value)].into_iter().collect());
            let error = error.unwrap_err();
            assert_eq!(error.location(), name);
            assert!(!error.to_string().contains("secret"));
        }
    }
}
