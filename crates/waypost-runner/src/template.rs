//! Placeholders in arguments, environment variables and probe addresses.
//!
//! Only the names listed at [`ServiceSpec`](crate::ServiceSpec) are replaced. Any other text in
//! braces, such as JSON or a shell's `${HOME}`, is left as it is.

use crate::ports::Ports;

/// The values of the placeholders for one instance.
#[derive(Clone, Debug)]
pub(crate) struct Variables<'a> {
    pub(crate) service: &'a str,
    pub(crate) instance: &'a str,
    pub(crate) replica: u32,
    /// An address or a name.
    pub(crate) host: String,
    pub(crate) ports: &'a Ports,
}

impl Variables<'_> {
    /// Replaces every placeholder.
    ///
    /// # Errors
    /// The template uses a port that the service does not have.
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
            if let Some((value, close)) = value {
                text.push_str(&value);
                rest = &rest[close + 1..];
            } else {
                text.push('{');
                rest = &rest[1..];
            }
        }
        text.push_str(rest);
        Ok(text)
    }

    /// The value of a placeholder, or `None` if there is no placeholder with that name.
    fn value(&self, name: &str) -> Result<Option<String>, String> {
        Ok(Some(match name {
            "service" => self.service.to_owned(),
            "name" => self.instance.to_owned(),
            "replica" => self.replica.to_string(),
            // An IPv6 address.
            "host" if self.host.contains(':') => format!("[{}]", self.host),
            "host" => self.host.clone(),
            "port" => self
                .ports
                .main()
                .ok_or("{port} is used, but the service has no main port")?
                .to_string(),
            _ => {
                let Some(port) = name.strip_prefix("port:") else {
                    return Ok(None);
                };
                let number = self.ports.named().remove(port);
                number
                    .ok_or_else(|| {
                        format!(
                            "{{port:{port}}} is used, but the service has no port named `{port}`"
                        )
                    })?
                    .to_string()
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::Transport;
    use crate::ports::PortSpec;

    const V4: &str = "127.0.0.1";

    fn expand(template: &str, host: &str, specs: &[PortSpec]) -> Result<String, String> {
        let ports = &Ports::new(specs, 1);
        Variables {
            service: "ai-models",
            instance: "ai-models-2",
            replica: 2,
            host: host.to_owned(),
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
        let text = expand(
            "{service}/{name}/{replica} at {host}:{port} and {port:dns}",
            V4,
            &ports(),
        );
        assert_eq!(
            text.unwrap(),
            "ai-models/ai-models-2/2 at 127.0.0.1:8002 and 8600"
        );
        assert_eq!(
            expand("http://{host}:{port}/", "::1", &ports()).unwrap(),
            "http://[::1]:8002/"
        );
    }

    #[test]
    fn other_braces_are_kept() {
        for text in [
            r#"{"port": 1}"#,
            "${HOME}",
            "awk '{print}'",
            "{",
            "}{",
            "{{x}}",
            "é{ü}",
        ] {
            assert_eq!(expand(text, V4, &ports()).unwrap(), text);
        }
        assert_eq!(expand("{{port}}", V4, &ports()).unwrap(), "{8002}");
    }

    #[test]
    fn a_missing_port_is_an_error() {
        assert_eq!(
            expand("{port}", V4, &[]).unwrap_err(),
            "{port} is used, but the service has no main port"
        );
        assert_eq!(
            expand("{port:x}", V4, &ports()).unwrap_err(),
            "{port:x} is used, but the service has no port named `x`"
        );
    }
}
