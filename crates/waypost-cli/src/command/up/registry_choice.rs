//! The value of `up --registry`.

use std::str::FromStr;

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
    Some(RegistryChoice::At {
        host: host.to_owned(),
        port,
    })
}
