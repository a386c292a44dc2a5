//! The address under which a program calls a service.

use std::fmt;
use std::str::FromStr;

use super::instance::{Instance, is_scheme};
use super::invalid::Invalid;
use super::name::ServiceName;

/// The address of a service as a program writes it: the service, optionally a named port, and the
/// schemes to use.
///
/// | address | instances it selects |
/// |---|---|
/// | `auth`, `waypost://auth` | any instance of `auth`, with the instance's own scheme |
/// | `http://auth/users` | instances with the scheme `http`, or else `https`; the path is `/users` |
/// | `https://auth` | instances with the scheme `https` only |
/// | `https+http://auth` | instances with the scheme `https`, or else `http` |
/// | `https+http://_admin.billing` | the port named `admin` of an instance of `billing` |
///
/// The syntax is that of .NET's service discovery. An address has no port, because each instance has
/// its own.
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
    /// In order of preference; empty means any.
    schemes: Vec<Box<str>>,
    endpoint: Option<Box<str>>,
    service: ServiceName,
    path: Box<str>,
}

impl ServiceAddress {
    /// The address of a service, with any scheme.
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

    /// The name of the port, if the address has one. Otherwise the instance's main port is used.
    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// The path and query after the service's name; may be empty.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The position of the instance's scheme among the preferred ones: 0 is best, `None` means that
    /// the address doesn't select the instance.
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

    /// The URL of the address on an instance. `None` if the instance has no port of that name.
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
        let refused = |why| Err(Invalid::new("service address", address, why));
        let (schemes, rest) = match address.split_once("://") {
            Some((schemes, rest)) => (schemes_of(schemes), rest),
            None => (Vec::new(), address),
        };
        if !schemes.iter().all(|scheme| is_scheme(scheme)) {
            return refused("write the schemes as in http:// or https+http://");
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        if host.contains('@') {
            return refused("it must not contain credentials");
        }
        if host.contains(':') {
            return refused("leave the port out: each instance has its own");
        }
        let (endpoint, service) = match host.strip_prefix('_') {
            None => (None, host),
            Some(named) => match named.split_once('.') {
                Some((endpoint, service)) if !endpoint.is_empty() => {
                    (Some(endpoint.into()), service)
                }
                _ => return refused("write port name and service as in _admin.billing"),
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

/// `waypost` means any scheme; plain `http` also accepts `https`.
fn schemes_of(schemes: &str) -> Vec<Box<str>> {
    match schemes.to_ascii_lowercase().as_str() {
        "waypost" => Vec::new(),
        "http" => vec!["http".into(), "https".into()],
        several => several.split('+').map(Into::into).collect(),
    }
}

impl fmt::Display for ServiceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.schemes.is_empty() {
            f.write_str("waypost")?;
        } else {
            f.write_str(&self.schemes.join("+"))?;
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
    fn an_address_selects_instances_by_scheme_and_named_port() {
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
            assert_eq!(address.service().as_str(), "billing");
            let instance = instance(scheme);
            assert_eq!(address.rank(&instance), rank, "{address}");
            assert_eq!(address.url_at(&instance).unwrap_or_default(), url);
        }
    }

    #[test]
    fn an_address_has_a_port_name_and_a_path_only_if_they_are_written() {
        for (address, endpoint, path) in [
            ("billing", None, ""),
            ("billing/x", None, "/x"),
            ("http://billing?q=1", None, "?q=1"),
            ("_admin.billing", Some("admin"), ""),
            ("https+http://_admin.billing/x?y#z", Some("admin"), "/x?y#z"),
        ] {
            let address: ServiceAddress = address.parse().unwrap();
            assert_eq!(address.endpoint(), endpoint, "{address}");
            assert_eq!(address.path(), path, "{address}");
        }
        let address = ServiceAddress::of(ServiceName::new("billing").unwrap());
        assert_eq!((address.endpoint(), address.path()), (None, ""));
    }

    #[test]
    fn an_invalid_address_is_refused_with_the_reason() {
        for (address, hint) in [
            ("http://auth:80/x", "port"),
            ("http://me:x@auth", "credentials"),
            ("http://_admin/x", "_admin.billing"),
            ("http:///x", "empty"),
            ("://auth", "schemes"),
            ("https+://auth", "schemes"),
            ("ht tp://auth", "schemes"),
        ] {
            let error = address.parse::<ServiceAddress>().unwrap_err().to_string();
            assert!(error.contains(hint), "{address}: {error}");
        }
    }
}
