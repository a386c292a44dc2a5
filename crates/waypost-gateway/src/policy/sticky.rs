//! Sends a client's requests to the same instance, by a cookie.

use http::{HeaderMap, HeaderValue, header};
use waypost::{Instance, InstanceId};

/// The cookie of a route.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sticky {
    /// The cookie's name.
    pub(crate) cookie: String,
    /// Whether browsers send it over TLS only.
    pub(crate) secure: bool,
}

/// The instance that a cookie names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StickyKey(u64);

impl Sticky {
    /// The instance that got the client's earlier requests.
    pub(crate) fn key(&self, headers: &HeaderMap) -> Option<StickyKey> {
        headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|cookies| cookies.to_str().ok())
            .flat_map(|cookies| cookies.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='))
            .find(|(name, _)| *name == self.cookie)
            .and_then(|(_, value)| u64::from_str_radix(value, 16).ok())
            .map(StickyKey)
    }

    /// The `Set-Cookie` value that names this instance.
    pub(crate) fn set_cookie(&self, instance: &InstanceId, path: &str) -> Option<HeaderValue> {
        let (name, StickyKey(key)) = (&self.cookie, StickyKey::of(instance));
        let path = if path.is_empty() { "/" } else { path };
        let secure = if self.secure { "; Secure" } else { "" };
        let cookie = format!("{name}={key:016x}; Path={path}; HttpOnly; SameSite=Lax{secure}");
        HeaderValue::try_from(cookie).ok()
    }
}

impl StickyKey {
    /// FNV-1a, which is the same in every gateway and after every restart.
    fn of(instance: &InstanceId) -> Self {
        let hash = instance
            .as_str()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        Self(hash)
    }

    /// Whether this is the instance that the cookie names.
    pub(crate) fn names(self, instance: &Instance) -> bool {
        self == Self::of(instance.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_names_the_instance_that_set_it() {
        let sticky = Sticky {
            cookie: "at".into(),
            secure: true,
        };
        let (a, b) = (InstanceId::new("a"), InstanceId::new("b"));
        let cookie = sticky.set_cookie(&a, "/shop").unwrap();
        let cookie = cookie.to_str().unwrap();
        assert!(
            cookie.ends_with("; Path=/shop; HttpOnly; SameSite=Lax; Secure"),
            "{cookie}"
        );
        let pair = cookie.split(';').next().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("cookie", format!("x=1; {pair}").parse().unwrap());
        assert_eq!(sticky.key(&headers), Some(StickyKey::of(&a)));
        assert_ne!(sticky.key(&headers), Some(StickyKey::of(&b)));
        headers.insert("cookie", "at=nonsense".parse().unwrap());
        assert_eq!(sticky.key(&headers), None);
    }
}
