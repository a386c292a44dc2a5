//! The OpenAPI description and Swagger UI.

use axum::Router;
use serde_json::Value;

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
    assert!(policy.starts_with("default-src 'self'"), "{policy}");
    let page = response.text().await.unwrap();
    let files: Vec<_> = ["src=\"", "href=\""]
        .iter()
        .flat_map(|attribute| {
            page.split(attribute)
                .skip(1)
                .filter_map(|rest| rest.split('"').next())
        })
        .collect();
    assert!(files.len() >= 3, "{page}");
    for file in files {
        assert!(!file.contains("//"), "{file} is on another server");
        let response = server.get(&format!("{prefix}/docs/{file}")).await;
        assert_eq!(response.status(), 200, "{file}");
    }
    let script = server
        .get(&format!("{prefix}/docs/swagger-initializer.js"))
        .await
        .text()
        .await
        .unwrap();
    assert!(script.contains("\"../openapi.json\""), "{script}");
    server.get_json(&format!("{prefix}/openapi.json")).await;
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
