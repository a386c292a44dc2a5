//! Rewrites redirects of services that don't know the prefix they are served under.

use http::uri::{Authority, PathAndQuery, Uri};
use waypost::Instance;

/// The `Location` to send to the client, or `None` if the instance's can be passed on unchanged.
///
/// A service that redirects to its own `/login` means `/{service}/login` here, whether it writes
/// the path only, its own address, or the `Host` of the request. Locations that begin with the
/// prefix already (from services that use `X-Forwarded-Prefix`) and locations on other hosts are
/// not changed.
pub(crate) fn rewrite(location: &str, instance: &Instance, host: Option<&str>) -> Option<String> {
    // "//host/path" is on another host.
    if location.starts_with("//") {
        return None;
    }
    let uri: Uri = location.parse().ok()?;
    let is_own = match uri.authority().map(Authority::as_str) {
        None => location.starts_with('/'),
        Some(authority) => authority == instance.authority() || Some(authority) == host,
    };
    if !is_own {
        return None;
    }
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let service = instance.service();
    if strip_prefix(path, &format!("/{service}")).is_some() {
        return None;
    }
    let path = strip_prefix(path, instance.path_prefix()).unwrap_or(path);
    // `Uri` drops the fragment.
    let fragment = location
        .find('#')
        .and_then(|at| location.get(at..))
        .unwrap_or_default();
    Some(format!("/{service}{path}{fragment}"))
}

/// The rest of the path after `prefix`, if the prefix ends at a segment boundary.
fn strip_prefix<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix)
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_redirects_to_the_service_itself_get_the_prefix() {
        let instance =
            Instance::from_url("auth".parse().unwrap(), "http://10.0.0.7:80/v2").unwrap();
        let instance = instance.build().unwrap();
        for (location, rewritten) in [
            ("/login?x=1#top", Some("/auth/login?x=1#top")),
            ("/v2/login", Some("/auth/login")),
            ("/v2", Some("/auth")),
            ("/v20/login", Some("/auth/v20/login")),
            ("http://10.0.0.7:80/v2/a", Some("/auth/a")),
            ("http://shop:8000/a/", Some("/auth/a/")),
            ("/auth/login", None),
            ("http://shop:8000/auth/login", None),
            ("login", None),
            ("../login", None),
            ("//other/login", None),
            ("https://other/login", None),
        ] {
            let found = rewrite(location, &instance, Some("shop:8000"));
            assert_eq!(found.as_deref(), rewritten, "{location}");
        }
    }
}
