//! The files of the page, which are embedded in the program.

use axum::Router;
use axum::routing::get;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};

/// Allows only resources of this service, and no inline scripts or styles, so that text from
/// services and users can't be executed.
const POLICY: &str = "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Path, media type and content. The page uses relative paths, so that it works behind a gateway's
/// path prefix.
const FILES: [(&str, &str, &str); 11] = [
    ("/", HTML, include_str!("../page/index.html")),
    ("/style.css", CSS, include_str!("../page/style.css")),
    ("/icon.svg", SVG, include_str!("../page/icon.svg")),
    ("/app.js", JAVASCRIPT, include_str!("../page/app.js")),
    (
        "/answers.js",
        JAVASCRIPT,
        include_str!("../page/answers.js"),
    ),
    ("/dom.js", JAVASCRIPT, include_str!("../page/dom.js")),
    (
        "/services.js",
        JAVASCRIPT,
        include_str!("../page/services.js"),
    ),
    (
        "/overviews.js",
        JAVASCRIPT,
        include_str!("../page/overviews.js"),
    ),
    (
        "/overview-worker.js",
        JAVASCRIPT,
        include_str!("../page/overview-worker.js"),
    ),
    ("/sse.js", JAVASCRIPT, include_str!("../page/sse.js")),
    ("/counts.js", JAVASCRIPT, include_str!("../page/counts.js")),
];

pub(crate) fn router() -> Router {
    FILES
        .into_iter()
        .fold(Router::new(), |router, (path, media_type, content)| {
            let headers = [
                (CONTENT_TYPE, media_type),
                (CONTENT_SECURITY_POLICY, POLICY),
                (X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (REFERRER_POLICY, "no-referrer"),
                // The browser revalidates, so the page always matches the running program.
                (CACHE_CONTROL, "no-cache"),
            ];
            router.route(path, get(move || std::future::ready((headers, content))))
        })
}

#[cfg(test)]
mod tests {
    use super::FILES;

    #[test]
    fn no_file_loads_external_resources_or_inserts_html() {
        for (path, _, content) in FILES {
            // The SVG namespace is not a link.
            let content = content.replace("http://www.w3.org/2000/svg", "");
            for forbidden in [
                "http://",
                "https://",
                "src=\"//",
                "@import",
                "innerHTML",
                "insertAdjacentHTML",
                "eval(",
            ] {
                assert!(!content.contains(forbidden), "{path} has {forbidden}");
            }
        }
    }

    #[test]
    fn every_file_of_the_directory_is_served() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/page");
        for file in std::fs::read_dir(directory).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            let path = if name == "index.html" {
                "/".to_owned()
            } else {
                format!("/{name}")
            };
            assert!(FILES.iter().any(|(served, ..)| *served == path), "{name}");
        }
    }
}
