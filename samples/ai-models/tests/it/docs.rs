//! The OpenAPI description and the page that shows it.

use axum::Router;
use serde_json::Value;
use waypost_testkit::browser::Page;

use crate::support::Server;

#[tokio::test]
async fn the_description_has_every_path_and_no_dangling_reference() {
    let server = Server::of_models(None).await;
    let description = server.get_json("/openapi.json").await;
    assert!(description["openapi"].as_str().unwrap().starts_with("3."));
    let paths: Vec<_> = description["paths"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    for path in [
        "/api/models",
        "/api/models/{id}",
        "/api/inference",
        "/api/inference/stream",
    ] {
        assert!(paths.contains(&path), "{path} in {paths:?}");
    }
    let mut references = Vec::new();
    collect_references(&description, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.trim_start_matches('#');
        assert!(
            description.pointer(pointer).is_some(),
            "{reference} is dangling"
        );
    }
}

#[tokio::test]
async fn the_page_loads_all_resources_from_the_service() {
    let server = Server::of_models(None).await;
    assert_page_works(&server, "").await;
}

#[tokio::test]
async fn the_page_works_behind_a_path_prefix() {
    let server =
        Server::of(Router::new().nest("/ai-models", waypost_ai_models::router("x", None))).await;
    assert_page_works(&server, "/ai-models").await;
}

/// Checks that the page, its scripts and styles, and the OpenAPI description are served below
/// `prefix`.
async fn assert_page_works(server: &Server, prefix: &str) {
    let bare = server.get(&format!("{prefix}/docs")).await;
    assert_eq!(bare.url().path(), format!("{prefix}/docs"));
    let html = bare.text().await.unwrap();
    assert!(html.contains("<base href=\"docs/\">"), "{html}");
    let response = server.get(&format!("{prefix}/docs/")).await;
    let policy = response.headers()["content-security-policy"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    let page = response.text().await.unwrap();
    let files: Vec<_> = ["src=\"", "href=\""]
        .iter()
        .flat_map(|attribute| {
            page.split(attribute)
                .skip(1)
                .filter_map(|rest| rest.split('"').next())
        })
        .collect();
    assert!(page.contains("name=\"viewport\""), "{page}");
    let own: Vec<_> = files
        .iter()
        .filter(|file| file.starts_with("docs."))
        .collect();
    assert_eq!(own.len(), 2, "{page}");
    for file in own {
        let response = server.get(&format!("{prefix}/docs/{file}")).await;
        assert_eq!(response.status(), 200, "{file}");
    }
    server.get_json(&format!("{prefix}/openapi.json")).await;
}

#[tokio::test]
async fn files_are_compressed_and_a_known_one_is_not_sent_again() {
    let server = Server::of_models(None).await;
    for path in [
        "/docs",
        "/docs/",
        "/docs/docs.js",
        "/docs/docs.css",
        "/openapi.json",
    ] {
        let plain = server.get(path).await;
        assert_eq!(plain.headers()["cache-control"], "no-cache", "{path}");
        let tag = plain.headers()["etag"].to_str().unwrap().to_owned();
        let length = plain.bytes().await.unwrap().len();
        let url = server.url(path);
        let client = &server.client;
        let request = client.get(&url).header("accept-encoding", "br, gzip");
        let gzip = request.send().await.unwrap();
        assert_eq!(gzip.headers()["content-encoding"], "gzip", "{path}");
        assert!(gzip.bytes().await.unwrap().len() < length, "{path}");
        let request = client.get(&url).header("if-none-match", tag);
        assert_eq!(request.send().await.unwrap().status(), 304, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_accessible_in_each_scheme_and_width_and_sends_requests() {
    let server = Server::of_models(None).await;
    Page::test(&server.url("/docs"), async |page| {
        for scheme in ["light", "dark"] {
            page.emulate(&[("prefers-color-scheme", scheme)]).await;
            for width in [1440, 390, 320] {
                page.resize(width, 900).await;
                page.open(&server.url("/docs")).await;
                page.wait_for("h1", "AI models").await;
                page.run("document.querySelectorAll('details').forEach((it) => (it.open = true))")
                    .await;
                page.assert_accessible(&format!("{scheme}, {width} px"))
                    .await;
                let overflow = page
                    .js("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                    .await;
                assert_eq!(overflow, 0, "{width} px");
            }
        }
        page.resize(1440, 900).await;
        page.write("#get_model input", "sentiment").await;
        page.click("#get_model button").await;
        page.wait_for("#get_model [role='status']", "200 in").await;
        page.wait_for("#get_model pre", "sentiment").await;
        page.click("#infer button").await;
        page.wait_for("#infer pre", "served_by").await;
        page.click("#stream button").await;
        page.wait_for("#stream pre", "event: ").await;
        page.write("#infer textarea", "{").await;
        page.click("#infer button").await;
        page.wait_for("#infer [role='status']", "400 in").await;
    })
    .await;
}

fn collect_references<'a>(value: &'a Value, references: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match value.as_str() {
                    Some(reference) if name == "$ref" => references.push(reference),
                    _ => collect_references(value, references),
                }
            }
        }
        Value::Array(values) => values
            .iter()
            .for_each(|value| collect_references(value, references)),
        _ => {}
    }
}
