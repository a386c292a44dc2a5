//! The models that run inside the service.

use serde_json::{Value, json};

use crate::support::{Events, Server};

#[tokio::test]
async fn models_are_listed_and_described() {
    let server = Server::of_models(None).await;
    let list = server.get_json("/api/models").await;
    assert_eq!(list["served_by"], "ai-models-7");
    assert!(
        list.get("upstream").is_none(),
        "no upstream is configured: {list}"
    );
    let models = list["models"].as_array().unwrap();
    assert!(models.len() >= 3);
    for model in models {
        assert_eq!(model["status"], "available");
        let id = model["id"].as_str().unwrap();
        let mut described = server.get_json(&format!("/api/models/{id}")).await;
        described.as_object_mut().unwrap().remove("served_by");
        assert_eq!(&described, model);
    }
}

#[tokio::test]
async fn every_model_accepts_its_example_and_the_response_names_the_instance() {
    let server = Server::of_models(None).await;
    for model in server.get_json("/api/models").await["models"]
        .as_array()
        .unwrap()
    {
        let request = json!({"model": model["id"], "input": model["example"]});
        let response = server.post("/api/inference", &request).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["x-served-by"], "ai-models-7");
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["served_by"], "ai-models-7");
        assert_eq!(answer["model"], model["id"]);
        assert_eq!(answer["task"], model["task"]);
        assert!(answer["output"].is_object(), "{answer}");
        assert!(answer["elapsed_ms"].as_f64().unwrap() >= 0.0);
    }
}

#[tokio::test]
async fn results_depend_on_the_text() {
    let server = Server::of_models(None).await;
    let infer = async |model: &str, input: &str| {
        server.infer(json!({"model": model, "input": input})).await["output"].take()
    };

    assert_eq!(
        infer("sentiment", "I love this, it is wonderful!").await["label"],
        "positive"
    );
    assert_eq!(
        infer("sentiment", "I hate this, it is horrible.").await["label"],
        "negative"
    );
    assert_eq!(
        infer("language", "Wo ist der Bahnhof, bitte? Ich habe es eilig.").await["name"],
        "German"
    );
    assert_eq!(
        infer("language", "Где находится вокзал?").await["script"],
        "Cyrillic"
    );
    let keywords = infer(
        "keywords",
        "The lighthouse keeper painted the lighthouse. A lighthouse needs a keeper.",
    )
    .await;
    assert!(
        keywords["keywords"][0]["text"]
            .as_str()
            .unwrap()
            .to_lowercase()
            .contains("lighthouse"),
        "{keywords}"
    );
}

#[tokio::test]
async fn a_list_of_texts_gets_a_list_of_results_in_the_same_order() {
    let server = Server::of_models(None).await;
    let answer = server.infer(json!({"model": "language", "input": ["Bom dia, como está você hoje?", "Buongiorno, come sta oggi?"]})).await;
    let codes: Vec<_> = answer["output"]
        .as_array()
        .unwrap()
        .iter()
        .map(|output| &output["code"])
        .collect();
    assert_eq!(codes, ["por", "ita"]);
}

#[tokio::test]
async fn parameters_reach_the_model() {
    let server = Server::of_models(None).await;
    let text = "Trains carry coal, ships carry grain, lorries carry milk and planes carry letters.";
    let answer = server
        .infer(json!({"model": "keywords", "input": text, "parameters": {"limit": 2}}))
        .await;
    assert_eq!(answer["output"]["keywords"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_stream_has_a_part_for_each_sentence_and_ends_with_the_result_for_the_whole_text() {
    let server = Server::of_models(None).await;
    let text = "The room was lovely. The breakfast was awful! We left at nine.";
    let request = json!({"model": "sentiment", "input": text});
    let response = server.post("/api/inference/stream", &request).await;
    assert_eq!(response.headers()["x-served-by"], "ai-models-7");
    let events = Events::of(response).rest().await;

    let names: Vec<_> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["start", "part", "part", "part", "done"]);
    assert_eq!(
        events[0].1,
        json!({"model": "sentiment", "task": "sentiment-analysis", "served_by": "ai-models-7"})
    );
    let parts: Vec<_> = events[1..4]
        .iter()
        .map(|(_, part)| (&part["index"], &part["input"], &part["output"]["label"]))
        .collect();
    assert_eq!(
        parts[0],
        (
            &json!(0),
            &json!("The room was lovely."),
            &json!("positive")
        )
    );
    assert_eq!(
        parts[1],
        (
            &json!(1),
            &json!("The breakfast was awful!"),
            &json!("negative")
        )
    );
    assert_eq!(
        parts[2],
        (&json!(2), &json!("We left at nine."), &json!("neutral"))
    );
    let whole = server.infer(request).await;
    assert_eq!(
        events[4].1["output"], whole["output"],
        "the last event is the result for the whole text"
    );
}

#[tokio::test]
async fn concurrent_requests_get_their_own_results() {
    let server = Server::of_models(None).await;
    let texts = ["What a wonderful day!", "What a horrible day!"];
    let requests = (0..60).map(|i| {
        let request = json!({"model": "sentiment", "input": texts[i % 2]});
        let server = &server;
        async move {
            server.infer(request).await["output"]["label"]
                .as_str()
                .unwrap()
                .to_owned()
        }
    });
    let labels = futures_util::future::join_all(requests).await;
    for (i, label) in labels.iter().enumerate() {
        assert_eq!(label, ["positive", "negative"][i % 2]);
    }
}
