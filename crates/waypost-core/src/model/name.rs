//! The name of a service.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::invalid::Invalid;

/// The name of a service, such as `auth` or `web.demo`.
///
/// 1 to 255 ASCII letters, digits, `-`, `_` and `.`, starting and ending with a letter or digit.
/// Such a name fits into a DNS name, an environment variable and a URL path, so a name that works
/// with one provider works with all of them. Names are case-sensitive.
///
/// ```
/// # use waypost_core::ServiceName;
/// let auth: ServiceName = "auth".parse()?;
/// assert_eq!(auth.as_str(), "auth");
/// assert!("no spaces".parse::<ServiceName>().is_err());
/// # Ok::<(), waypost_core::Invalid>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// The maximum length in bytes, that of a DNS name (RFC 1035, section 2.3.4).
    pub const MAX_LEN: usize = 255;

    /// Parses a name.
    ///
    /// # Errors
    /// If the name is not valid.
    pub fn new(name: &str) -> Result<Self, Invalid> {
        match problem(name) {
            None => Ok(Self(name.into())),
            Some(why) => Err(Invalid::new("service name", name, why)),
        }
    }

    /// The name as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is wrong with the name, if anything.
fn problem(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("it is empty".into());
    }
    if name.len() > ServiceName::MAX_LEN {
        return Some(format!(
            "it has {} bytes, at most {} are allowed",
            name.len(),
            ServiceName::MAX_LEN
        ));
    }
    if let Some(bad) = name
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.'))
    {
        return Some(format!(
            "{bad:?} is not allowed; use ASCII letters, digits, '-', '_' and '.'"
        ));
    }
    let edges = [name.chars().next(), name.chars().next_back()];
    if edges.iter().flatten().any(|c| !c.is_ascii_alphanumeric()) {
        return Some("it must start and end with a letter or digit".into());
    }
    None
}

impl FromStr for ServiceName {
    type Err = Invalid;

    fn from_str(name: &str) -> Result<Self, Invalid> {
        Self::new(name)
    }
}

impl TryFrom<&str> for ServiceName {
    type Error = Invalid;

    fn try_from(name: &str) -> Result<Self, Invalid> {
        Self::new(name)
    }
}

impl TryFrom<String> for ServiceName {
    type Error = Invalid;

    fn try_from(name: String) -> Result<Self, Invalid> {
        Self::new(&name)
    }
}

impl TryFrom<&ServiceName> for ServiceName {
    type Error = Invalid;

    fn try_from(name: &ServiceName) -> Result<Self, Invalid> {
        Ok(name.clone())
    }
}

impl From<ServiceName> for String {
    fn from(name: ServiceName) -> Self {
        name.as_str().to_owned()
    }
}

impl Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for ServiceName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_name_is_refused_with_the_reason() {
        for (name, hint) in [
            ("", "empty"),
            ("a b", "' ' is not allowed"),
            ("a/b", "'/' is not allowed"),
            ("-a", "start and end"),
            ("a.", "start and end"),
            ("dienst-ä", "'ä' is not allowed"),
        ] {
            let error = ServiceName::new(name).unwrap_err().to_string();
            assert!(error.contains(hint), "{name:?}: {error}");
        }
        let long = "a".repeat(256);
        assert!(
            ServiceName::new(&long)
                .unwrap_err()
                .to_string()
                .contains("256 bytes")
        );
        assert!(ServiceName::new(&long[..255]).is_ok());
    }
}
