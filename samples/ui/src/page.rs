//! The page itself: a few files inside this program, from nowhere else.

use axum::Router;
use axum::routing::get;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};

/// Scripts, styles, pictures and data come from this service alone, and nothing is run or styled
/// from within the page: whatever a service or a user writes stays text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Path, media type and content. The paths in the page are relative, so that it works behind a
/// gateway's prefix too.
const FILES: [(&str, &str, &str); 9] = [
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
    ("/live.js", JAVASCRIPT, include_str!("../page/live.js")),
    ("/sse.js", JAVASCRIPT, include_str!("../page/sse.js")),
    ("/tally.js", JAVASCRIPT, include_str!("../page/tally.js")),
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
                // Always the page of the program that runs now.
                (CACHE_CONTROL, "no-cache"),
            ];
            router.route(path, get(move || std::future::ready((headers, content))))
        })
}

#[cfg(test)]
mod tests {
    use super::FILES;

    #[test]
    fn nothing_comes_from_elsewhere() {
        for (path, _, content) in FILES {
            // The namespace of SVG is a name, not a place.
            let content = content.replace("http://www.w3.org/2000/svg", "");
            for elsewhere in [
                "http://",
                "https://",
                "src=\"//",
                "@import",
                "innerHTML",
                "insertAdjacentHTML",
                "eval(",
            ] {
                assert!(!content.contains(elsewhere), "{path} has {elsewhere}");
            }
        }
    }

    #[test]
    fn every_script_of_the_folder_is_served() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/page");
        for file in std::fs::read_dir(folder).unwrap() {
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
