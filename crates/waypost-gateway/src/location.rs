//! Redirects of services that don't know they live below a prefix.

use http::uri::{Authority, PathAndQuery, Uri};
use waypost::Instance;

/// Where a client has to go for a `Location` that the instance wrote, if not there.
///
/// A service that redirects to its own `/login` means `/{service}/login` here, whether it wrote
/// the path alone, its own address, or the `Host` that it was called by. What already begins with
/// the prefix (the service honours `X-Forwarded-Prefix`) and what points elsewhere is left alone.
pub(crate) fn seen_from_outside(
    location: &str,
    instance: &Instance,
    called_as: Option<&str>,
) -> Option<String> {
    // "//host/path" names another host.
    if location.starts_with("//") {
        return None;
    }
    let uri: Uri = location.parse().ok()?;
    let own = match uri.authority().map(Authority::as_str) {
        None => location.starts_with('/'),
        Some(authority) => authority == instance.authority() || Some(authority) == called_as,
    };
    if !own {
        return None;
    }
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let service = instance.service();
    if below(path, &format!("/{service}")).is_some() {
        return None;
    }
    let path = below(path, instance.path_prefix()).unwrap_or(path);
    // A fragment is no part of what the URI type keeps.
    let fragment = location
        .find('#')
        .and_then(|at| location.get(at..))
        .unwrap_or_default();
    Some(format!("/{service}{path}{fragment}"))
}

/// What follows `prefix`, if the path lies below it.
fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix)
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_home_gets_the_prefix_and_no_other_does() {
        let instance =
            Instance::from_url("auth".parse().unwrap(), "http://10.0.0.7:80/v2").unwrap();
        let instance = instance.build().unwrap();
        for (location, outside) in [
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
            let found = seen_from_outside(location, &instance, Some("shop:8000"));
            assert_eq!(found.as_deref(), outside, "{location}");
        }
    }
}
