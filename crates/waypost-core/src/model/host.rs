//! The host of an instance.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::invalid::Invalid;

/// The host of an instance: an IP address or a DNS name.
///
/// `Display` writes it as in a URL, so an IPv6 address is in brackets.
///
/// ```
/// # use waypost_core::Host;
/// assert_eq!("10.0.0.7".parse::<Host>()?.to_string(), "10.0.0.7");
/// assert_eq!("::1".parse::<Host>()?.to_string(), "[::1]");
/// assert!("a host".parse::<Host>().is_err());
/// # Ok::<(), waypost_core::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Host {
    /// An IP address.
    Ip(IpAddr),
    /// A DNS name, resolved when a connection is made.
    Name(Arc<str>),
}

impl Host {
    /// Whether this is `localhost`, a name below it, or a loopback address.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Ip(ip) => ip.is_loopback(),
            Self::Name(name) => &**name == "localhost" || name.ends_with(".localhost"),
        }
    }

    /// The host without brackets, as resolvers and registries expect it.
    pub fn bare(&self) -> String {
        match self {
            Self::Ip(ip) => ip.to_string(),
            Self::Name(name) => name.to_string(),
        }
    }
}

impl FromStr for Host {
    type Err = Invalid;

    fn from_str(host: &str) -> Result<Self, Invalid> {
        let unbracketed = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host);
        if let Ok(ip) = unbracketed.parse() {
            return Ok(Self::Ip(ip));
        }
        // The url crate validates hosts (WHATWG URL, "host parsing"), except for the length limit
        // of DNS names.
        match url::Host::parse(host) {
            Ok(url::Host::Domain(name)) if !name.is_empty() && name.len() <= 253 => {
                Ok(Self::Name(name.into()))
            }
            // `IpAddr` doesn't parse short forms such as `127.1`.
            Ok(url::Host::Ipv4(ip)) => Ok(Self::Ip(ip.into())),
            _ => Err(Invalid::new(
                "host",
                host,
                "use an IP address such as 10.0.0.7 or a DNS name such as auth.example",
            )),
        }
    }
}

impl TryFrom<String> for Host {
    type Error = Invalid;

    fn try_from(host: String) -> Result<Self, Invalid> {
        host.parse()
    }
}

impl TryFrom<&str> for Host {
    type Error = Invalid;

    fn try_from(host: &str) -> Result<Self, Invalid> {
        host.parse()
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(ip)
    }
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.bare()
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_and_the_names_below_it_are_loopback() {
        for (host, is_loopback) in [
            ("127.0.0.9", true),
            ("127.1", true),
            ("[::1]", true),
            ("localhost", true),
            ("auth.localhost", true),
            ("10.0.0.1", false),
            ("notlocalhost", false),
            ("localhost.example", false),
        ] {
            let parsed: Host = host.parse().unwrap();
            assert_eq!(parsed.is_loopback(), is_loopback, "{host}");
        }
    }
}
