use std::fmt;
use std::str::FromStr;

use super::{Instance, Invalid, ServiceName};

/// How a program names what it wants to call: a service, which of its endpoints, and how to speak
/// to it.
///
/// | address | means |
/// |---|---|
/// | `auth`, `waypost://auth` | an instance of `auth`, spoken to as it says |
/// | `http://auth/users` | the same for a path; `https` instances are taken too |
/// | `https://auth` | instances that speak `https` only |
/// | `https+http://auth` | those that speak `https`; if there is none, `http` |
/// | `https+http://_admin.billing` | the port named `admin` of an instance of `billing` |
///
/// As in .NET's service discovery. A port doesn't belong into it: each instance has its own.
///
/// ```
/// # use waypost_core::ServiceAddress;
/// let address: ServiceAddress = "https+http://_admin.billing/health".parse()?;
/// assert_eq!(address.service().as_str(), "billing");
/// assert_eq!(address.endpoint(), Some("admin"));
/// assert_eq!(address.path(), "/health");
/// # Ok::<(), waypost_core::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAddress {
    /// In order of preference; none means any.
    schemes: Vec<Box<str>>,
    endpoint: Option<Box<str>>,
    service: ServiceName,
    path: Box<str>,
}

impl ServiceAddress {
    /// A service, spoken to as its instances say.
    pub fn of(service: ServiceName) -> Self {
        Self {
            schemes: Vec::new(),
            endpoint: None,
            service,
            path: Box::default(),
        }
    }

    /// The service.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The name of the port, if not the instance's own one is meant.
    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// What follows the name: a path and a query, or nothing.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// How good an instance is for it: 0 is best, `None` is not at all.
    pub fn rank(&self, instance: &Instance) -> Option<usize> {
        if let Some(endpoint) = &self.endpoint {
            instance.named_port(endpoint)?;
        }
        if self.schemes.is_empty() {
            return Some(0);
        }
        let mut schemes = self.schemes.iter();
        schemes.position(|scheme| **scheme == *instance.scheme())
    }

    /// The URL at an instance. `None` if the instance has no port of that name.
    pub fn url_at(&self, instance: &Instance) -> Option<String> {
        let Some(endpoint) = &self.endpoint else {
            return Some(instance.url_for(&self.path));
        };
        let port = instance.named_port(endpoint)?;
        let (scheme, host) = (instance.scheme(), instance.host());
        Some(format!("{scheme}://{host}:{port}{}", self.path))
    }
}

impl FromStr for ServiceAddress {
    type Err = Invalid;

    fn from_str(address: &str) -> Result<Self, Invalid> {
        let (schemes, rest) = match address.split_once("://") {
            Some((schemes, rest)) => (schemes_of(schemes), rest),
            None => (Vec::new(), address),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        let refuse = |why| Err(Invalid::new("service address", address, why));
        if host.contains('@') {
            return refuse("credentials don't belong into it");
        }
        if host.contains(':') {
            return refuse("leave the port out: each instance has its own");
        }
        let (endpoint, service) = match host.strip_prefix('_') {
            None => (None, host),
            Some(named) => match named.split_once('.') {
                Some((endpoint, service)) if !endpoint.is_empty() => {
                    (Some(endpoint.into()), service)
                }
                _ => return refuse("name port and service as in _admin.billing"),
            },
        };
        Ok(Self {
            schemes,
            endpoint,
            service: service.parse()?,
            path: path.into(),
        })
    }
}

/// `waypost` means any; plain `http` doesn't mind being upgraded.
fn schemes_of(schemes: &str) -> Vec<Box<str>> {
    match schemes.to_ascii_lowercase().as_str() {
        "waypost" => Vec::new(),
        "http" => vec!["http".into(), "https".into()],
        several => several.split('+').map(Into::into).collect(),
    }
}

impl fmt::Display for ServiceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.schemes.is_empty() {
            true => f.write_str("waypost")?,
            false => f.write_str(&self.schemes.join("+"))?,
        }
        f.write_str("://")?;
        if let Some(endpoint) = &self.endpoint {
            write!(f, "_{endpoint}.")?;
        }
        write!(f, "{}{}", self.service, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(scheme: &str) -> Instance {
        let service = ServiceName::new("billing").unwrap();
        let builder = Instance::builder(service, "10.0.0.1".parse().unwrap(), 80);
        builder
            .scheme(scheme)
            .named_port("admin", 9_000)
            .build()
            .unwrap()
    }

    #[test]
    fn an_address_leads_to_the_right_port_and_scheme() {
        for (address, scheme, rank, url) in [
            ("billing", "grpc", Some(0), "grpc://10.0.0.1:80"),
            (
                "waypost://billing/x",
                "http",
                Some(0),
                "http://10.0.0.1:80/x",
            ),
            (
                "http://billing/x?y",
                "https",
                Some(1),
                "https://10.0.0.1:80/x?y",
            ),
            (
                "https+http://billing",
                "http",
                Some(1),
                "http://10.0.0.1:80",
            ),
            (
                "https://_admin.billing/x",
                "https",
                Some(0),
                "https://10.0.0.1:9000/x",
            ),
            ("https://billing", "http", None, "http://10.0.0.1:80"),
            ("_other.billing", "http", None, ""),
        ] {
            let address: ServiceAddress = address.parse().unwrap();
            let instance = instance(scheme);
            assert_eq!(address.rank(&instance), rank, "{address}");
            assert_eq!(address.url_at(&instance).unwrap_or_default(), url);
        }
    }

    #[test]
    fn a_refused_address_says_why() {
        for (address, hint) in [
            ("http://auth:80/x", "port"),
            ("http://me:x@auth", "credentials"),
            ("http://_admin/x", "_admin.billing"),
            ("http:///x", "empty"),
        ] {
            let error = address.parse::<ServiceAddress>().unwrap_err().to_string();
            assert!(error.contains(hint), "{address}: {error}");
        }
    }
}
