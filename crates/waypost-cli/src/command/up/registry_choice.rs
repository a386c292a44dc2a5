//! The value of `up --registry`.

use std::str::FromStr;

use waypost::Host;

/// Which registry the stack uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RegistryChoice {
    Embedded,
    Consul,
    At { host: String, port: u16 },
}

impl FromStr for RegistryChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "embedded" => Ok(Self::Embedded),
            "consul" => Ok(Self::Consul),
            _ => parse_address(text)
                .ok_or_else(|| format!("{text:?}: use embedded, consul or HOST:PORT")),
        }
    }
}

fn parse_address(text: &str) -> Option<RegistryChoice> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let host: Host = host.parse().ok()?;
    Some(RegistryChoice::At {
        host: host.to_string(),
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_started_or_has_a_host_and_a_port() {
        let at = |host: &str| RegistryChoice::At {
            host: host.to_owned(),
            port: 8500,
        };
        for (text, choice) in [
            ("embedded", RegistryChoice::Embedded),
            ("consul", RegistryChoice::Consul),
            ("consul:8500", at("consul")),
            ("[::1]:8500", at("[::1]")),
            ("::1:8500", at("[::1]")),
        ] {
            assert_eq!(text.parse(), Ok(choice));
        }
        for text in [
            "",
            "etcd",
            "consul:",
            ":8500",
            "consul:0",
            "http://consul:8500",
            "me@c:8500",
            "a%b:8500",
        ] {
            let error = text.parse::<RegistryChoice>().unwrap_err();
            let expected = format!("{text:?}: use embedded, consul or HOST:PORT");
            assert_eq!(error, expected);
        }
    }
}
