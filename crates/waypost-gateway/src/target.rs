//! Reads out of a request where it wants to go, and refuses what can be read in two ways.

use http::uri::Authority;
use http::{HeaderMap, Method, Request, Version, header};

/// Where a request wants to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The first segment of the path.
    pub(crate) service: String,
    /// The rest with its query, beginning with a slash.
    pub(crate) path: String,
    /// Whether nothing followed the name, not even that slash.
    pub(crate) bare: bool,
    /// The authority that the client asked for.
    pub(crate) host: Option<String>,
}

/// Why a request is refused before anybody is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the request has both Content-Length and Transfer-Encoding")]
    AmbiguousLength,
    #[error("the only Transfer-Encoding that is understood is \"chunked\", once")]
    TransferCoding,
    #[error("an HTTP/1.1 request needs exactly one valid Host (RFC 9112, section 3.2)")]
    Host,
    #[error("the path has a \".\" or \"..\" segment; resolve it before sending")]
    DotSegment,
    #[error("the method {0} is not passed on")]
    Method(&'static str),
}

/// Reads the target of a request.
pub(crate) fn read<B>(request: &Request<B>) -> Result<Target, Refused> {
    match *request.method() {
        // We are no tunnel, and a trace would show a client what the proxies before us added.
        Method::CONNECT => return Err(Refused::Method("CONNECT")),
        Method::TRACE => return Err(Refused::Method("TRACE")),
        _ => {}
    }
    check_transfer_coding(request.headers())?;
    let host = host(request)?;
    let uri = request.uri();
    let path = uri.path();
    if path.split('/').any(is_dot_segment) {
        return Err(Refused::DotSegment);
    }
    let query = uri
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    let path = path.strip_prefix('/').unwrap_or(path);
    let (service, rest) = path.split_once('/').unwrap_or((path, ""));
    Ok(Target {
        service: service.to_owned(),
        path: format!("/{rest}{query}"),
        bare: service.len() == path.len(),
        host,
    })
}

/// The library has made sure that `chunked` is the last coding; one before it, such as `gzip`,
/// would be lost on the way, since every message is framed anew.
fn check_transfer_coding(headers: &HeaderMap) -> Result<(), Refused> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Refused::TransferCoding),
    }
}

/// The authority of an absolute URI wins over `Host` (RFC 9112, section 3.2.2).
fn host<B>(request: &Request<B>) -> Result<Option<String>, Refused> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (None, _) if request.version() == Version::HTTP_10 => None,
        (Some(host), None) => Some(host.to_str().map_err(|_| Refused::Host)?),
        _ => return Err(Refused::Host),
    };
    let host = match (request.uri().authority(), host) {
        (Some(authority), _) => authority.as_str(),
        // An empty Host is what a client sends that has no authority.
        (None, None | Some("")) => return Ok(None),
        (None, Some(host)) => host,
    };
    match host.parse::<Authority>() {
        Ok(authority) if !authority.as_str().contains('@') => Ok(Some(host.to_owned())),
        _ => Err(Refused::Host),
    }
}

/// `.` and `..`, also with their dots encoded: whoever decodes them further on would leave the
/// path that the instance's prefix confines them to.
fn is_dot_segment(segment: &str) -> bool {
    // At most "%2e%2e": longer ones need not be looked at.
    segment.len() <= 6
        && matches!(
            segment.to_ascii_lowercase().replace("%2e", ".").as_str(),
            "." | ".."
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_uri(uri: &str) -> Result<Target, Refused> {
        read(
            &Request::get(uri)
                .header("host", "gw:8000")
                .body(())
                .unwrap(),
        )
    }

    #[test]
    fn the_first_segment_names_the_service_and_the_rest_is_left_as_it_is() {
        for (uri, service, path, bare) in [
            ("/", "", "/", true),
            ("/auth", "auth", "/", true),
            ("/auth?x=1", "auth", "/?x=1", true),
            ("/auth/", "auth", "/", false),
            ("/auth/a//b%2Fc/?q=/../", "auth", "/a//b%2Fc/?q=/../", false),
            ("//auth/x", "", "/auth/x", false),
            ("/auth/...", "auth", "/...", false),
        ] {
            let target = read_uri(uri).unwrap();
            let read = (target.service.as_str(), target.path.as_str(), target.bare);
            assert_eq!(read, (service, path, bare), "{uri}");
        }
    }

    #[test]
    fn a_path_that_climbs_is_refused_however_it_is_written() {
        for uri in [
            "/auth/../admin",
            "/auth/%2e%2E/admin",
            "/auth/.%2e",
            "/./auth/",
            "/auth/x/.",
        ] {
            assert_eq!(read_uri(uri), Err(Refused::DotSegment), "{uri}");
        }
    }

    #[test]
    fn a_request_needs_one_valid_host() {
        let hosts = |hosts: &[&str], version| {
            let mut request = Request::get("/auth/").version(version);
            for host in hosts {
                request = request.header("host", *host);
            }
            read(&request.body(()).unwrap()).map(|target| target.host)
        };
        assert_eq!(hosts(&["a:1"], Version::HTTP_11), Ok(Some("a:1".into())));
        assert_eq!(hosts(&[""], Version::HTTP_11), Ok(None));
        assert_eq!(hosts(&[], Version::HTTP_10), Ok(None));
        for bad in [&[][..], &["a", "a"], &["a b"], &["me@a"], &["a/b"]] {
            assert_eq!(hosts(bad, Version::HTTP_11), Err(Refused::Host), "{bad:?}");
        }
        let absolute = Request::get("http://b:2/auth/")
            .header("host", "a:1")
            .body(())
            .unwrap();
        assert_eq!(read(&absolute).unwrap().host.as_deref(), Some("b:2"));
    }

    #[test]
    fn a_coding_that_would_get_lost_is_refused() {
        for (codings, allowed) in [
            (&["chunked"][..], true),
            (&["Chunked"], true),
            (&["gzip, chunked"], false),
            (&["chunked", "chunked"], false),
            (&["identity"], false),
        ] {
            let mut request = Request::post("/auth/").header("host", "a");
            for coding in codings {
                request = request.header("transfer-encoding", *coding);
            }
            assert_eq!(
                read(&request.body(()).unwrap()).is_ok(),
                allowed,
                "{codings:?}"
            );
        }
    }
}
