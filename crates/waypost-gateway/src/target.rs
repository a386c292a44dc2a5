//! Extracts the target of a request, and rejects requests whose target or framing is ambiguous.

use http::uri::Authority;
use http::{HeaderMap, Method, Request, Version, header};

/// The target of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The first segment of the path.
    pub(crate) service: String,
    /// The rest of the path with its query, beginning with a slash.
    pub(crate) path: String,
    /// Whether nothing follows the first segment, not even a slash.
    pub(crate) bare: bool,
    /// The authority that the client requested.
    pub(crate) host: Option<String>,
}

/// Why a request is rejected without being forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidRequest {
    #[error("the request has both Content-Length and Transfer-Encoding")]
    AmbiguousLength,
    #[error("Transfer-Encoding must be \"chunked\" and occur once")]
    TransferCoding,
    #[error("an HTTP/1.1 request needs exactly one valid Host (RFC 9112, section 3.2)")]
    Host,
    #[error("the path has a \".\" or \"..\" segment; resolve it before sending the request")]
    DotSegment,
    #[error("the method {0} is not forwarded")]
    Method(&'static str),
}

/// Reads the target of a request.
pub(crate) fn read<B>(request: &Request<B>) -> Result<Target, InvalidRequest> {
    match *request.method() {
        // CONNECT would open a tunnel to any address; TRACE would disclose what proxies in front of
        // the gateway have added.
        Method::CONNECT => return Err(InvalidRequest::Method("CONNECT")),
        Method::TRACE => return Err(InvalidRequest::Method("TRACE")),
        _ => {}
    }
    check_transfer_coding(request.headers())?;
    let host = host(request)?;
    let uri = request.uri();
    let path = uri.path();
    if path.split('/').any(is_dot_segment) {
        return Err(InvalidRequest::DotSegment);
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

/// hyper accepts any codings that end in `chunked`. A coding before it, such as `gzip`, would be
/// lost, since the request is forwarded with new framing.
fn check_transfer_coding(headers: &HeaderMap) -> Result<(), InvalidRequest> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(InvalidRequest::TransferCoding),
    }
}

/// The authority of an absolute URI takes precedence over `Host` (RFC 9112, section 3.2.2).
fn host<B>(request: &Request<B>) -> Result<Option<String>, InvalidRequest> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (None, _) if request.version() == Version::HTTP_10 => None,
        (Some(host), None) => Some(host.to_str().map_err(|_| InvalidRequest::Host)?),
        _ => return Err(InvalidRequest::Host),
    };
    let host = match (request.uri().authority(), host) {
        (Some(authority), _) => authority.as_str(),
        // A client without an authority sends an empty Host.
        (None, None | Some("")) => return Ok(None),
        (None, Some(host)) => host,
    };
    match host.parse::<Authority>() {
        Ok(authority) if !authority.as_str().contains('@') => Ok(Some(host.to_owned())),
        _ => Err(InvalidRequest::Host),
    }
}

/// Matches `.` and `..`, also with encoded dots: a server that decodes them could resolve the path
/// to one outside of the instance's prefix.
fn is_dot_segment(segment: &str) -> bool {
    // The longest spelling is "%2e%2e".
    segment.len() <= 6
        && matches!(
            segment.to_ascii_lowercase().replace("%2e", ".").as_str(),
            "." | ".."
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_uri(uri: &str) -> Result<Target, InvalidRequest> {
        read(
            &Request::get(uri)
                .header("host", "gw:8000")
                .body(())
                .unwrap(),
        )
    }

    #[test]
    fn the_first_segment_is_the_service_and_the_rest_is_unchanged() {
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
    fn dot_segments_are_rejected_in_every_spelling() {
        for uri in [
            "/auth/../admin",
            "/auth/%2e%2E/admin",
            "/auth/.%2e",
            "/./auth/",
            "/auth/x/.",
        ] {
            assert_eq!(read_uri(uri), Err(InvalidRequest::DotSegment), "{uri}");
        }
    }

    #[test]
    fn a_request_needs_exactly_one_valid_host() {
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
            assert_eq!(
                hosts(bad, Version::HTTP_11),
                Err(InvalidRequest::Host),
                "{bad:?}"
            );
        }
        let absolute = Request::get("http://b:2/auth/")
            .header("host", "a:1")
            .body(())
            .unwrap();
        assert_eq!(read(&absolute).unwrap().host.as_deref(), Some("b:2"));
    }

    #[test]
    fn only_a_single_chunked_coding_is_allowed() {
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
