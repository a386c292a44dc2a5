//! Placeholders in arguments, environment values and probe addresses.
//!
//! Only the names listed at [`Process`](crate::Process) are replaced; any other text in braces,
//! such as JSON or a shell's `${HOME}`, stays as it is.

use std::net::IpAddr;

use crate::ports::Ports;

/// What the placeholders of one instance stand for.
#[derive(Clone, Debug)]
pub(crate) struct Vars<'a> {
    pub(crate) service: &'a str,
    pub(crate) instance: &'a str,
    pub(crate) replica: u32,
    pub(crate) host: IpAddr,
    pub(crate) ports: &'a Ports,
}

impl Vars<'_> {
    /// The text with every placeholder replaced.
    ///
    /// # Errors
    /// A placeholder for a port that the process does not have.
    pub(crate) fn expand(&self, template: &str) -> Result<String, String> {
        let mut text = String::with_capacity(template.len());
        let mut rest = template;
        while let Some(open) = rest.find('{') {
            text.push_str(&rest[..open]);
            rest = &rest[open..];
            let value = match rest.find('}') {
                Some(close) => self.value(&rest[1..close])?.map(|value| (value, close)),
                None => None,
            };
            match value {
                Some((value, close)) => {
                    text.push_str(&value);
                    rest = &rest[close + 1..];
                }
                None => {
                    text.push('{');
                    rest = &rest[1..];
                }
            }
        }
        text.push_str(rest);
        Ok(text)
    }

    fn value(&self, name: &str) -> Result<Option<String>, String> {
        Ok(Some(match name {
            "service" => self.service.to_owned(),
            "name" => self.instance.to_owned(),
            "replica" => self.replica.to_string(),
            "host" => match self.host {
                IpAddr::V4(host) => host.to_string(),
                IpAddr::V6(host) => format!("[{host}]"),
            },
            "port" => self
                .ports
                .main()
                .ok_or("{port} is used, but the process has no port: add .port(…)")?
                .to_string(),
            _ => match name.strip_prefix("port:") {
                Some(port) => self
                    .ports
                    .named()
                    .remove(port)
                    .ok_or_else(|| format!("{{port:{port}}} is used, but the process has no port of that name: add .named_port(\"{port}\", …)"))?
                    .to_string(),
                None => return Ok(None),
            },
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::port::Transport;
    use crate::ports::PortSpec;

    fn expand(template: &str, host: IpAddr, specs: &[PortSpec]) -> Result<String, String> {
        let ports = &Ports::new(specs, 1);
        Vars {
            service: "ai-models",
            instance: "ai-models-2",
            replica: 2,
            host,
            ports,
        }
        .expand(template)
    }

    fn ports() -> Vec<PortSpec> {
        let spec = |name: Option<&str>, number| PortSpec {
            name: name.map(str::to_owned),
            number,
            transport: Transport::Tcp,
        };
        vec![spec(None, 8002), spec(Some("dns"), 8600)]
    }

    #[test]
    fn every_placeholder_is_replaced() {
        let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let text = expand(
            "{service}/{name}/{replica} at {host}:{port} and {port:dns}",
            v4,
            &ports(),
        );
        assert_eq!(
            text.unwrap(),
            "ai-models/ai-models-2/2 at 127.0.0.1:8002 and 8600"
        );
        let v6 = "::1".parse().unwrap();
        assert_eq!(
            expand("http://{host}:{port}/", v6, &ports()).unwrap(),
            "http://[::1]:8002/"
        );
    }

    #[test]
    fn other_braces_stay() {
        let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
        for text in [
            r#"{"port": 1}"#,
            "${HOME}",
            "awk '{print}'",
            "{",
            "}{",
            "{{x}}",
            "é{ü}",
        ] {
            assert_eq!(expand(text, v4, &ports()).unwrap(), text);
        }
        assert_eq!(expand("{{port}}", v4, &ports()).unwrap(), "{8002}");
    }

    #[test]
    fn a_port_that_is_not_there_is_an_error() {
        let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert!(
            expand("{port}", v4, &[])
                .unwrap_err()
                .contains("the process has no port")
        );
        assert!(
            expand("{port:x}", v4, &ports())
                .unwrap_err()
                .contains("{port:x} is used")
        );
    }
}
