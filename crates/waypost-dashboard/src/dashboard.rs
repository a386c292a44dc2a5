//! The page with its sources, and the responses to requests for it.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde::Serialize;

use crate::assets::{Assets, INDEX, compress, hash};

/// Allows only the page's own files, and no inline scripts or styles, so that text from services can't
/// be executed. The icon with a count is a `data:` URL.
const POLICY: &str = "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; \
                      img-src 'self' data:; connect-src 'self'; base-uri 'self'; \
                      form-action 'none'; frame-ancestors 'none'";

/// The first part of the paths of the views.
const VIEWS: [&str; 5] = ["services", "logs", "map", "registry", "add"];

/// Where the page gets its data from. URLs are relative to the root of the dashboard and on its
/// origin. A view whose sources are all `None` isn't shown. The default has none.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sources {
    /// The title of the page. With `None`, the name of the stack or the datacenter.
    pub name: Option<String>,
    /// The API of the runner, such as `api/`.
    pub stack: Option<String>,
    /// The API of the registry, such as `v1/`.
    pub registry: Option<String>,
    /// The kind of registry as shown to users, such as `Consul`.
    #[serde(rename = "registryKind")]
    pub registry_kind: Option<String>,
    /// The stream of the gateway's traffic, such as `internal/traffic`.
    pub traffic: Option<String>,
    /// Further pages to link to, by title.
    pub links: BTreeMap<String, String>,
}

/// The page with its sources.
#[derive(Clone, Debug)]
pub struct Dashboard {
    /// The document, except for its base.
    index: String,
}

impl Dashboard {
    /// Prepares the page for the sources.
    #[must_use]
    pub fn new(sources: &Sources) -> Self {
        // Text and maps of text can always be serialized.
        let sources = serde_json::to_string(sources).unwrap_or_default();
        let index = INDEX
            .replace("{{sources}}", &escape(&sources))
            .replace("{{assets}}", &format!("assets/{}", Assets::get().hash));
        Self { index }
    }

    /// The response to a GET request. `path` is below the root of the dashboard and has no leading
    /// slash. `None` if it is neither a view nor a file of the page.
    #[must_use]
    pub fn respond(&self, path: &str, headers: &HeaderMap) -> Option<Response<Bytes>> {
        if let Some(file) = path.strip_prefix("assets/") {
            return asset(file, headers);
        }
        let view = path.split('/').next().unwrap_or_default();
        if !path.is_empty() && !VIEWS.contains(&view) {
            return None;
        }
        let depth = path.matches('/').count();
        let base = if depth == 0 {
            "./".to_owned()
        } else {
            "../".repeat(depth)
        };
        Some(self.document(&base, headers))
    }

    /// The start page at an address other than the root of the dashboard. `root` is the path from
    /// that address to the root, such as `internal/ui/`.
    #[must_use]
    pub fn start_page(&self, root: &str, headers: &HeaderMap) -> Response<Bytes> {
        self.document(root, headers)
    }

    fn document(&self, base: &str, headers: &HeaderMap) -> Response<Bytes> {
        let content = Bytes::from(self.index.replace("{{base}}", &escape(base)));
        let tag = hash([&content]);
        let gzip = compress(&content);
        let mut response = send(&content, &gzip, &tag, headers);
        let fields = response.headers_mut();
        fields.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        );
        fields.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        // The browser checks for a new version each time.
        fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }
}

/// A file at `HASH/NAME`.
fn asset(path: &str, headers: &HeaderMap) -> Option<Response<Bytes>> {
    let assets = Assets::get();
    let name = path.strip_prefix(&assets.hash)?.strip_prefix('/')?;
    let file = assets.files.iter().find(|file| file.name == name)?;
    let mut response = send(&file.plain, &file.gzip, &assets.hash, headers);
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(file.media_type));
    // The address changes with the content.
    let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
    fields.insert(CACHE_CONTROL, forever);
    Some(response)
}

/// The content, compressed if the client accepts that, or 304 if the client has it.
fn send(plain: &Bytes, gzip: &Bytes, tag: &str, headers: &HeaderMap) -> Response<Bytes> {
    let is_known = list(headers, &IF_NONE_MATCH).any(|known| known.contains(tag) || known == "*");
    let is_compressed = accepts_gzip(headers);
    let mut response = Response::new(match (is_known, is_compressed) {
        (true, _) => Bytes::new(),
        (false, true) => gzip.clone(),
        (false, false) => plain.clone(),
    });
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let fields = response.headers_mut();
    if is_compressed && !is_known {
        fields.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    fields.insert(VARY, HeaderValue::from_static("accept-encoding"));
    // Weak, since the compressed content has the same tag.
    if let Ok(tag) = HeaderValue::from_str(&format!("W/\"{tag}\"")) {
        fields.insert(ETAG, tag);
    }
    fields.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    fields.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// The elements of a list in all header fields of that name.
fn list<'a>(
    headers: &'a HeaderMap,
    name: &http::HeaderName,
) -> impl Iterator<Item = &'a str> + use<'a> {
    let values = headers.get_all(name).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// Whether `Accept-Encoding` lists `gzip` with a weight above 0.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    list(headers, &ACCEPT_ENCODING).any(|coding| {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = parameters.trim().strip_prefix("q=");
        name.trim().eq_ignore_ascii_case("gzip")
            && weight.is_none_or(|weight| weight.parse().is_ok_and(|weight: f32| weight > 0.0))
    })
}

/// Text in an attribute of HTML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('"', "&quot;")
        .replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn text(response: &Response<Bytes>) -> &str {
        std::str::from_utf8(response.body()).unwrap()
    }

    #[test]
    fn gzip_is_used_only_if_the_client_accepts_it() {
        for (value, expected) in [
            ("gzip", true),
            ("br, GZIP;q=0.1", true),
            ("gzip; q=1", true),
            ("gzip;q=0", false),
            ("gzip;q=0.0", false),
            ("gzip;q=x", false),
            ("br", false),
            ("", false),
        ] {
            let found = accepts_gzip(&headers(&[("accept-encoding", value)]));
            assert_eq!(found, expected, "{value}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn a_view_has_the_path_to_the_root_as_its_base() {
        let dashboard = Dashboard::new(&Sources::default());
        let none = headers(&[]);
        for (path, base) in [
            ("", "./"),
            ("logs", "./"),
            ("services/orders", "../"),
            ("registry/keys/shop/flags", "../../../"),
        ] {
            let page = dashboard.respond(path, &none).unwrap();
            let expected = format!("<base href=\"{base}\">");
            assert!(text(&page).contains(&expected), "{path}: {}", text(&page));
        }
        for path in ["v1/kv/x", "serviceses", "assets/app.js", "../services"] {
            assert!(dashboard.respond(path, &none).is_none(), "{path}");
        }
    }

    #[test]
    fn a_page_is_compressed_for_clients_that_accept_gzip() {
        let dashboard = Dashboard::new(&Sources::default());
        for (accepted, is_compressed) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5, br", true),
            ("br, gzip; q=0", false),
            ("gzip;q=many", false),
            ("br", false),
        ] {
            let page = dashboard.respond("", &headers(&[("accept-encoding", accepted)]));
            let page = page.unwrap();
            let encoding = page.headers().get(CONTENT_ENCODING);
            assert_eq!(encoding.is_some(), is_compressed, "{accepted}");
        }
    }

    /// Everything that a first visit loads, as the browser receives it.
    #[test]
    fn the_whole_page_is_at_most_40_kb() {
        let sources = Sources {
            name: Some("a stack with a long name".into()),
            stack: Some("api/".into()),
            registry: Some("v1/".into()),
            registry_kind: Some("embedded".into()),
            traffic: Some("internal/traffic".into()),
            links: [("AI models demo".to_owned(), "try/ai-models/".to_owned())].into(),
        };
        let dashboard = Dashboard::new(&sources);
        let gzip = headers(&[("accept-encoding", "gzip")]);
        let files = Assets::get().files.iter();
        let paths = files.map(|file| format!("assets/{}/{}", Assets::get().hash, file.name));
        let sizes: Vec<_> = std::iter::once("services/orders".to_owned())
            .chain(paths)
            .map(|path| (dashboard.respond(&path, &gzip).unwrap().body().len(), path))
            .collect();
        let total: usize = sizes.iter().map(|(size, _)| size).sum();
        println!("compressed: {total} bytes, {sizes:?}");
        assert!(total <= 40_000, "{total}: {sizes:?}");
    }

    #[test]
    fn a_name_cannot_leave_its_attribute() {
        let sources = Sources {
            name: Some("\"><script>alert(1)</script>".to_owned()),
            ..Sources::default()
        };
        let page = Dashboard::new(&sources).respond("", &headers(&[])).unwrap();
        assert!(!text(&page).contains("<script>alert"), "{}", text(&page));
    }

    #[test]
    fn files_are_compressed_and_kept_and_a_known_one_is_not_sent_again() {
        let dashboard = Dashboard::new(&Sources::default());
        let path = format!("assets/{}/app.js", Assets::get().hash);
        let plain = dashboard.respond(&path, &headers(&[])).unwrap();
        let gzip = dashboard
            .respond(&path, &headers(&[("accept-encoding", "br, gzip")]))
            .unwrap();
        assert_eq!(gzip.headers()[CONTENT_ENCODING], "gzip");
        assert!(gzip.body().len() < plain.body().len() / 2);
        let caching = gzip.headers()[CACHE_CONTROL].to_str().unwrap();
        assert!(caching.contains("immutable"), "{caching}");

        let page = dashboard.respond("", &headers(&[])).unwrap();
        assert_eq!(page.headers()[CACHE_CONTROL], "no-cache");
        let policy = page.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(!policy.contains("unsafe"), "{policy}");
        let mut known = HeaderMap::new();
        known.insert(IF_NONE_MATCH, page.headers()[ETAG].clone());
        let again = dashboard.respond("", &known).unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert!(again.body().is_empty());
    }
}
