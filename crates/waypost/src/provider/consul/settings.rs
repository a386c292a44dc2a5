use std::{fmt, str::FromStr};

use crate::{
    error::ConfigError,
    model::{Host, Invalid},
    provider::parse_port,
    settings::Environment,
};

/// Where an agent listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) https: bool,
    pub(super) host: Host,
    pub(super) port: u16,
}

const DEFAULT_PORT: u16 = 8500;

impl Address {
    /// Part by part from the first variable that says something of it.
    pub(super) fn from_environment(environment: &Environment) -> Result<Self, ConfigError> {
        let name_and_value = |name: &'static str| environment.get(name).map(|value| (name, value));
        let parsed = |name: &'static str| -> Result<Option<Self>, ConfigError> {
            let value = environment.get(name);
            let address = value.map(str::parse).transpose();
            address.map_err(|fault: Invalid| ConfigError::new(name, fault))
        };
        let consul = parsed("CONSUL_HTTP_ADDR")?;
        let host_of = |name: &'static str| -> Result<Option<Host>, ConfigError> {
            let host = environment.get(name).map(str::parse).transpose();
            host.map_err(|fault: Invalid| ConfigError::new(name, fault))
        };
        let port_of = |name: &'static str| -> Result<Option<u16>, ConfigError> {
            let port = name_and_value(name);
            port.map(|(name, value)| parse_port(name, value))
                .transpose()
        };
        let own = (host_of("CONSUL_HOST")?, port_of("CONSUL_PORT")?);
        let stack = (
            host_of("SERVICE_REGISTRY_HOST")?,
            port_of("SERVICE_REGISTRY_PORT")?,
        );
        let ssl = match name_and_value("CONSUL_HTTP_SSL") {
            None | Some((_, "false" | "0")) => false,
            Some((_, "true" | "1")) => true,
            Some((name, other)) => {
                let problem = format!("{other:?} is neither true nor false");
                return Err(ConfigError::new(name, problem));
            }
        };
        let localhost = Host::Name("localhost".into());
        Ok(Self {
            https: ssl || consul.as_ref().is_some_and(|consul| consul.https),
            port: (own.1)
                .or(consul.as_ref().map(|consul| consul.port))
                .or(stack.1)
                .unwrap_or(DEFAULT_PORT),
            host: (own.0)
                .or(consul.map(|consul| consul.host))
                .or(stack.0)
                .unwrap_or(localhost),
        })
    }
}

impl FromStr for Address {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refused = |why: &str| Err(Invalid::new("Consul address", text, why));
        let (https, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) => return refused("use http:// or https://"),
            None => (false, text),
        };
        let authority = rest.trim_end_matches('/');
        if authority.contains('@') {
            return Err(Invalid::new(
                "Consul address",
                "(hidden)",
                "it carries credentials; use a token instead",
            ));
        }
        if authority.contains('/') {
            return refused("an agent has no path; use host:port");
        }
        // An IPv6 address has colons of its own, and its port comes after the bracket.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let port = match port.map(str::parse) {
            None => DEFAULT_PORT,
            Some(Ok(port)) if port != 0 => port,
            Some(_) => return refused("its port is no number from 1 to 65535"),
        };
        Ok(Self {
            https,
            host: host.parse()?,
            port,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_from_the_first_variable_that_tells_it() {
        for (variables, expected) in [
            (&[][..], "http://localhost:8500"),
            (&[("CONSUL_HTTP_ADDR", "10.0.0.1")], "http://10.0.0.1:8500"),
            (&[("CONSUL_HTTP_ADDR", "https://c:8501/")], "https://c:8501"),
            (&[("CONSUL_HTTP_ADDR", "[::1]:1")], "http://[::1]:1"),
            (
                &[("CONSUL_HTTP_ADDR", "c:1"), ("CONSUL_HTTP_SSL", "true")],
                "https://c:1",
            ),
            (
                &[("CONSUL_HTTP_ADDR", "c:1"), ("CONSUL_PORT", "2")],
                "http://c:2",
            ),
            (
                &[
                    ("SERVICE_REGISTRY_HOST", "r"),
                    ("SERVICE_REGISTRY_PORT", "9"),
                    ("CONSUL_HOST", "c"),
                ],
                "http://c:9",
            ),
        ] {
            let address = Address::from_environment(&variables.iter().copied().collect());
            assert_eq!(address.unwrap().to_string(), expected, "{variables:?}");
        }
    }

    #[test]
    fn a_bad_variable_is_named() {
        for (name, value) in [
            ("CONSUL_HTTP_ADDR", "ftp://c"),
            ("CONSUL_HTTP_ADDR", "c:port"),
            ("CONSUL_HTTP_ADDR", "http://me:secret@c"),
            ("CONSUL_PORT", "0"),
            ("SERVICE_REGISTRY_PORT", "x"),
            ("CONSUL_HOST", "a b"),
            ("CONSUL_HTTP_SSL", "perhaps"),
        ] {
            let error = Address::from_environment(&[(name, value)].into_iter().collect());
            let error = error.unwrap_err();
            assert_eq!(error.place(), name);
            assert!(!error.to_string().contains("secret"));
        }
    }
}
