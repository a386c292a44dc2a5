//! A URL in the configuration that the gateway itself requests.

use std::fmt;
use std::sync::Arc;

use http::uri::PathAndQuery;
use waypost::{Instance, ServiceName};

/// An `http` or `https` URL, split into the instance to call and the request target.
#[derive(Clone, Debug)]
pub(crate) struct HttpUrl {
    text: String,
    pub(crate) instance: Arc<Instance>,
    pub(crate) target: PathAndQuery,
}

impl HttpUrl {
    /// # Errors
    /// If it is not such a URL, or has credentials or a fragment.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (base, query) = match text.split_once('?') {
            Some((base, query)) => (base, Some(query)),
            None => (text, None),
        };
        let scheme = base.split_once("://").map(|(scheme, _)| scheme);
        if !matches!(scheme, Some("http" | "https")) {
            return Err(format!(
                "{text:?} is not an http or https URL, such as https://login.example/keys"
            ));
        }
        let name = ServiceName::new("url").map_err(|error| error.to_string())?;
        let builder = Instance::from_url(name, base).map_err(|error| error.to_string())?;
        let instance = builder.build().map_err(|error| error.to_string())?;
        let path = match instance.path_prefix() {
            "" => "/",
            path => path,
        };
        let target = match query {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        let target = target
            .parse()
            .map_err(|error| format!("{text:?} is not a URL: {error}"))?;
        Ok(Self {
            text: text.to_owned(),
            instance: Arc::new(instance),
            target,
        })
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for HttpUrl {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_an_instance_and_a_target() {
        let url = HttpUrl::parse("https://login.example/keys?p=a").unwrap();
        assert_eq!(url.instance.host().to_string(), "login.example");
        assert_eq!((url.instance.scheme(), url.instance.port()), ("https", 443));
        assert_eq!(url.target, "/keys?p=a");
        assert_eq!(HttpUrl::parse("http://[::1]:80").unwrap().target, "/");
        let same = HttpUrl::parse("https://login.example/keys?p=a").unwrap();
        assert_eq!(url, same);
        assert_ne!(url, HttpUrl::parse("https://login.example/keys").unwrap());
        for bad in ["login.example/keys", "ftp://a/", "http://u:p@a/", "/x", ""] {
            assert!(HttpUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
