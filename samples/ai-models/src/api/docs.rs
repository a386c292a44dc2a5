//! The OpenAPI description, and a page that shows it and sends requests.

use std::borrow::Cow;
use std::future::ready;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, StatusCode, header};
use utoipa::{OpenApi, openapi};

use crate::problem::Problem;

const INDEX: &str = include_str!("../../docs-page/index.html");
const STYLE: &str = include_str!("../../docs-page/docs.css");
const SCRIPT: &str = include_str!("../../docs-page/docs.js");

/// Allows only resources of this service, and the empty icon.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; \
                      connect-src 'self'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "AI models",
        description = "Small models that run inside the service: language identification, sentiment analysis \
                       and keyword extraction. With an OpenAI-compatible upstream server, that server's \
                       models too.",
    ),
    // Relative to this document, so that it works behind a gateway's path prefix.
    servers((url = ".", description = "The server of this document")),
    tags((name = "models", description = "List the models"), (name = "inference", description = "Run a model"))
)]
struct Description;

/// The description without the paths, which the router adds.
pub(super) fn openapi() -> openapi::OpenApi {
    Description::openapi()
}

pub(super) fn router(mut description: openapi::OpenApi) -> Router {
    // OpenAPI has no wildcards in paths.
    if let Some(model) = description.paths.paths.remove("/api/models/{*id}") {
        description
            .paths
            .paths
            .insert("/api/models/{id}".to_owned(), model);
    }
    // A description can always be serialized.
    let description = serde_json::to_string(&description).unwrap_or_default();
    let description = Arc::new(File::new("application/json", description));
    // Without a trailing slash, a base URL makes relative links work.
    let bare = INDEX.replacen("<head>", "<head><base href=\"docs/\">", 1);
    let bare = Arc::new(File::new("text/html; charset=utf-8", bare));
    let files = Arc::new([
        ("", File::new("text/html; charset=utf-8", INDEX)),
        ("docs.css", File::new("text/css; charset=utf-8", STYLE)),
        (
            "docs.js",
            File::new("text/javascript; charset=utf-8", SCRIPT),
        ),
    ]);
    let page = Arc::clone(&files);
    Router::new()
        .route(
            "/openapi.json",
            get(move |headers: HeaderMap| ready(description.respond(&headers))),
        )
        // Relative, so that a gateway's path prefix is kept.
        .route("/", get(|| ready(Redirect::temporary("docs"))))
        .route(
            "/docs",
            get(move |headers: HeaderMap| ready(bare.respond(&headers))),
        )
        .route(
            "/docs/",
            get(move |headers: HeaderMap| ready(page[0].1.respond(&headers))),
        )
        .route(
            "/docs/{*file}",
            get(move |Path(name): Path<String>, headers: HeaderMap| {
                let found = files.iter().find(|(known, _)| *known == name);
                ready(match found {
                    Some((_, file)) => file.respond(&headers),
                    None => Problem::no_such_path(&format!("/docs/{name}")).into_response(),
                })
            }),
        )
}

/// A file as it is sent.
struct File {
    media_type: &'static str,
    plain: Bytes,
    gzip: Bytes,
    tag: String,
}

impl File {
    fn new(media_type: &'static str, content: impl Into<Cow<'static, str>>) -> Self {
        let plain = Bytes::from(content.into().into_owned());
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        // Writing to memory doesn't fail.
        let _ = encoder.write_all(&plain);
        let mut hasher = DefaultHasher::new();
        plain.hash(&mut hasher);
        Self {
            media_type,
            gzip: encoder.finish().unwrap_or_default().into(),
            // Weak, since the compressed content has the same tag.
            tag: format!("W/\"{:016x}\"", hasher.finish()),
            plain,
        }
    }

    /// The content, compressed if the client accepts that, or 304 if the client has it.
    fn respond(&self, headers: &HeaderMap) -> Response {
        let field = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let known = field(header::IF_NONE_MATCH).unwrap_or_default();
        let accepted = field(header::ACCEPT_ENCODING).unwrap_or_default();
        let common = [
            (header::CONTENT_TYPE, self.media_type),
            (header::ETAG, self.tag.as_str()),
            // The browser asks each time whether its copy is current.
            (header::CACHE_CONTROL, "no-cache"),
            (header::VARY, "accept-encoding"),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        let accepts_gzip = accepted.split(',').any(|coding| {
            let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
            name.trim().eq_ignore_ascii_case("gzip") && !matches!(weight.trim(), "q=0" | "q=0.0")
        });
        if known.split(',').any(|tag| tag.trim() == self.tag) {
            (StatusCode::NOT_MODIFIED, common).into_response()
        } else if accepts_gzip {
            let encoding = [(header::CONTENT_ENCODING, "gzip")];
            (common, encoding, self.gzip.clone()).into_response()
        } else {
            (common, self.plain.clone()).into_response()
        }
    }
}
