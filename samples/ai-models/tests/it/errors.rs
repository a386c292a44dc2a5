//! The responses to invalid requests.

use serde_json::{Value, json};

use crate::support::Server;

async fn problem(server: &Server, path: &str, body: impl ToString, status: u16) -> Value {
    let body = body.to_string();
    let response = server.post(path, &body).await;
    assert_eq!(response.status(), status, "{body}");
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json",
        "{body}"
    );
    assert_eq!(response.headers()["x-served-by"], "ai-models-7", "{body}");
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["status"], status);
    for member in ["type", "title", "detail"] {
        assert!(
            problem[member]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{member} of {problem}"
        );
    }
    problem
}

fn detail(problem: &Value) -> &str {
    problem["detail"].as_str().unwrap()
}

#[tokio::test]
async fn the_error_for_an_unknown_model_lists_the_known_ones() {
    let server = Server::of_models(None).await;
    for path in ["/api/inference", "/api/inference/stream"] {
        let problem = problem(
            &server,
            path,
            json!({"model": "sentimnt", "input": "x"}),
            404,
        )
        .await;
        assert!(detail(&problem).contains("sentimnt"), "{problem}");
        assert_eq!(
            problem["models"],
            json!(["language", "sentiment", "keywords"])
        );
    }
    let response = server.get("/api/models/sentimnt").await;
    assert_eq!(response.status(), 404);
    assert_eq!(
        response.json::<Value>().await.unwrap()["models"],
        json!(["language", "sentiment", "keywords"])
    );
}

#[tokio::test]
async fn the_error_for_invalid_json_gives_the_position() {
    let server = Server::of_models(None).await;
    let syntax_error = problem(
        &server,
        "/api/inference",
        "{\"model\": \"sentiment\",\n \"input\" \"x\"}",
        400,
    )
    .await;
    assert_eq!(
        (&syntax_error["line"], &syntax_error["column"]),
        (&json!(2), &json!(10)),
        "{syntax_error}"
    );
    assert!(
        detail(&syntax_error).contains("expected `:`"),
        "{syntax_error}"
    );

    let wrong_type = problem(
        &server,
        "/api/inference",
        json!({"model": "sentiment", "input": 5}),
        400,
    )
    .await;
    assert!(
        detail(&wrong_type).contains("a string or a list of strings"),
        "{wrong_type}"
    );
    let missing = problem(
        &server,
        "/api/inference",
        json!({"model": "sentiment"}),
        400,
    )
    .await;
    assert!(
        detail(&missing).contains("missing field `input`"),
        "{missing}"
    );
    let misspelt = problem(
        &server,
        "/api/inference",
        json!({"modle": "sentiment", "input": "x"}),
        400,
    )
    .await;
    assert!(
        detail(&misspelt).contains("modle") && detail(&misspelt).contains("`model`"),
        "{misspelt}"
    );
    problem(&server, "/api/inference", "", 400).await;
}

#[tokio::test]
async fn input_must_be_neither_empty_nor_too_long() {
    let server = Server::of_models(None).await;
    for path in ["/api/inference", "/api/inference/stream"] {
        let empty = problem(
            &server,
            path,
            json!({"model": "sentiment", "input": " \n\t"}),
            422,
        )
        .await;
        assert_eq!(empty["field"], "input");
        let long = problem(
            &server,
            path,
            json!({"model": "sentiment", "input": "ä".repeat(10_001)}),
            422,
        )
        .await;
        assert_eq!(
            (&long["length"], &long["limit"]),
            (&json!(10_001), &json!(10_000))
        );
    }
    server
        .infer(json!({"model": "sentiment", "input": "ä".repeat(10_000)}))
        .await;

    let second = problem(
        &server,
        "/api/inference",
        json!({"model": "language", "input": ["good", ""]}),
        422,
    )
    .await;
    assert_eq!(second["field"], "input[1]");
    problem(
        &server,
        "/api/inference",
        json!({"model": "language", "input": []}),
        422,
    )
    .await;
    let many = problem(
        &server,
        "/api/inference",
        json!({"model": "language", "input": vec!["x"; 65]}),
        422,
    )
    .await;
    assert_eq!(many["limit"], 64);
    problem(
        &server,
        "/api/inference/stream",
        json!({"model": "language", "input": ["a", "b"]}),
        422,
    )
    .await;
    let huge = problem(&server, "/api/inference", " ".repeat(1024 * 1024 + 1), 413).await;
    assert_eq!(huge["limit"], 1024 * 1024);
}

#[tokio::test]
async fn parameters_are_validated_before_a_stream_begins() {
    let server = Server::of_models(None).await;
    for path in ["/api/inference", "/api/inference/stream"] {
        let unknown = problem(
            &server,
            path,
            json!({"model": "keywords", "input": "x", "parameters": {"limt": 3}}),
            422,
        )
        .await;
        assert_eq!(unknown["parameters"], json!(["limit"]));
        let wrong = problem(
            &server,
            path,
            json!({"model": "keywords", "input": "x", "parameters": {"limit": 0}}),
            422,
        )
        .await;
        assert!(detail(&wrong).contains("1 to 50"), "{wrong}");
    }
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_problems() {
    let server = Server::of_models(None).await;
    let response = server.get("/api/nothing").await;
    assert_eq!(response.status(), 404);
    assert!(detail(&response.json().await.unwrap()).contains("/api/nothing"));
    let response = server.get("/api/inference").await;
    assert_eq!(response.status(), 405);
    assert_eq!(response.headers()["allow"], "POST");
    assert!(detail(&response.json().await.unwrap()).contains("GET"));
}

#[tokio::test]
async fn unusual_texts_do_not_crash_the_models() {
    let server = Server::of_models(None).await;
    let texts = [
        "\0\u{202e}\u{feff}".to_owned(),
        "😀".repeat(5_000),
        "-".repeat(10_000),
        "A.".repeat(5_000),
        "(".repeat(10_000),
        "don't 'tis a- ".repeat(700),
        "\u{300}".repeat(1_000),
    ];
    for model in ["language", "sentiment", "keywords"] {
        let response = server.infer(json!({"model": model, "input": texts})).await;
        assert_eq!(
            response["output"].as_array().unwrap().len(),
            texts.len(),
            "{model}"
        );
    }
}

#[tokio::test]
async fn only_json_is_accepted() {
    let server = Server::of_models(None).await;
    let body = json!({"model": "sentiment", "input": "Lovely!"}).to_string();
    for path in ["/api/inference", "/api/inference/stream"] {
        for (content_type, status) in [
            ("application/json", 200),
            ("Application/JSON; charset=utf-8", 200),
            ("application/problem+json", 200),
            // A form on any web page can send these without a CORS preflight.
            ("text/plain", 415),
            ("text/plain; application/json", 415),
            ("application/x-www-form-urlencoded", 415),
            ("multipart/form-data; boundary=x", 415),
        ] {
            let request = server.client.post(server.url(path)).body(body.clone());
            let request = request.header("content-type", content_type);
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), status, "{path}, {content_type}");
        }
    }
}

#[tokio::test]
async fn requests_of_web_pages_of_other_sites_are_refused() {
    let server = Server::of_models(None).await;
    let body = json!({"model": "sentiment", "input": "Lovely!"}).to_string();
    for path in ["/api/inference", "/api/inference/stream"] {
        for (name, value, status) in [
            ("origin", server.url(""), 200),
            ("origin", "https://evil.example".to_owned(), 403),
            ("origin", "null".to_owned(), 403),
            ("sec-fetch-site", "cross-site".to_owned(), 403),
            ("host", "evil.example:8002".to_owned(), 403),
        ] {
            let request = server.client.post(server.url(path)).body(body.clone());
            let response = request.header(name, &value).send().await.unwrap();
            assert_eq!(response.status(), status, "{path}, {name}: {value}");
        }
    }
}
