//! The page in a browser.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::body::{Body, Bytes};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use waypost::{Health, InstanceId};

use crate::browser::Page;
use crate::support::{Flaky, Models, Server, Stack, ui};

const TAB: &str = "\u{e004}";
const RIGHT: &str = "\u{e014}";
const CONTROL_ENTER: &str = "\u{e009}\u{e007}";

#[tokio::test(flavor = "multi_thread")]
async fn one_asks_a_model_and_sees_the_answer_and_who_gave_it() {
    let stack = Stack::of(2).await;
    Page::visit(&stack.ui.url("/"), async |page| {
        page.choose("Sentiment").await;
        page.write("#input", "The room was lovely. The breakfast was awful!")
            .await;
        page.click("#send").await;
        page.until("#answered", "Answered by ai-models-").await;
        let gateway = page.text("#answered").await;
        assert!(
            gateway.contains("through the gateway at 127.0.0.1:"),
            "{gateway}"
        );
        // Streamed: the answer for each sentence stands below the one for the whole.
        page.until("#answer .parts li:nth-child(1)", "Positive")
            .await;
        page.until("#answer .parts li:nth-child(2)", "Negative")
            .await;
        page.until("#answer .headline", "score").await;

        page.click("#stream").await;
        page.choose("Language").await;
        page.write("#input", "Onde fica a estação de comboios, por favor?")
            .await;
        page.click("#send").await;
        page.until("#answer .headline", "Portuguese").await;
        assert_eq!(
            page.js("document.querySelectorAll('.parts li').length")
                .await,
            0,
            "asked for in one piece"
        );

        page.choose("Keywords").await;
        page.click("#example").await;
        page.click("#send").await;
        page.until("#answer .keywords li", "registry").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_requests_show_how_the_load_is_shared() {
    let stack = Stack::of(3).await;
    Page::visit(&stack.ui.url("/"), async |page| {
        page.choose("Sentiment").await;
        page.click("#burst").await;
        page.until("#burst-status", "20 of 20 answered").await;
        let tally = page
            .js("[...document.querySelectorAll('#tally li')].map((row) => row.innerText)")
            .await;
        let tally: Vec<_> = tally
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row.as_str().unwrap())
            .collect();
        assert_eq!(tally.len(), 3, "{tally:?}");
        let counts: Vec<u32> = tally
            .iter()
            .map(|row| {
                row.split_whitespace()
                    .find_map(|word| word.parse().ok())
                    .unwrap()
            })
            .collect();
        assert_eq!(counts.iter().sum::<u32>(), 20, "{tally:?}");
        assert!(
            counts.iter().all(|count| (6..=7).contains(count)),
            "the gateway takes turns: {tally:?}"
        );

        page.click("#reset").await;
        page.until("#tally li", "0 answers").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_live_services_follow_the_registry() {
    let stack = Stack::of(1).await;
    Page::visit(&stack.ui.url("/"), async |page| {
        page.until("#registry", "Live from a registry in memory")
            .await;
        page.until("[data-key='ai-models'] [data-key='ai-models-1']", "Healthy")
            .await;
        page.until("[data-key='ai-models']", "1 of 1 ready").await;

        stack.models.start(&stack.registry, "ai-models-2");
        page.until("[data-key='ai-models'] [data-key='ai-models-2']", "Healthy")
            .await;
        page.until("#tally", "ai-models-2").await;

        let address = SocketAddr::from(([127, 0, 0, 1], 8002));
        stack
            .registry
            .add("ai-models", "ai-models-2", address, Health::Critical);
        page.until("[data-key='ai-models-2'] .health", "✕ Failing")
            .await;
        page.until("[data-key='ai-models']", "1 of 2 ready").await;

        stack
            .registry
            .content
            .remove(&InstanceId::new("ai-models-2"));
        page.until_true("!document.querySelector(\".instance[data-key='ai-models-2']\")")
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_registry_is_down_the_last_picture_stays_and_tells_its_age() {
    let stack = Stack::of(1).await;
    Page::visit(&stack.ui.url("/"), async |page| {
        page.until(".instance[data-key='ai-models-1']", "Healthy")
            .await;
        stack.registry.set_down(true);
        page.until("#banner", "The registry can't be reached").await;
        page.until("#banner", "connection refused").await;
        let age = "parseInt(document.getElementById('banner').textContent.match(/as they were (\\d+) s ago/)[1])";
        let first = page.js(age).await;
        page.until_true(&format!("{age} > {first}")).await;
        page.until(".instance[data-key='ai-models-1']", "Healthy")
            .await;
        // Found before, so still found: the models go on answering.
        page.click("#send").await;
        page.until("#answered", "Answered by ai-models-1").await;

        stack.registry.set_down(false);
        page.until_true("document.getElementById('banner').hidden")
            .await;
        page.until("#registry", "Live").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_ui_service_itself_is_gone_the_page_says_so_and_comes_back() {
    let registry = Flaky::default();
    registry.add(
        "auth",
        "auth-1",
        SocketAddr::from(([10, 0, 0, 7], 80)),
        Health::Passing,
    );
    // In a runtime of its own, which can be ended with all its connections, as by a crash.
    let crashing = tokio::runtime::Runtime::new().unwrap();
    let serve = {
        let registry = registry.clone();
        async move { Server::of(ui(&registry)).await }
    };
    let ui_server = crashing.spawn(serve).await.unwrap();
    Page::visit(&ui_server.url("/"), async |page| {
        page.until(".instance[data-key='auth-1']", "Healthy").await;
        crashing.shutdown_background();
        page.until("#banner", "The line to the UI service is down")
            .await;
        page.until(".instance[data-key='auth-1']", "Healthy").await;

        let _again = Server::at(ui_server.address, ui(&registry)).await;
        page.until_true("document.getElementById('banner').hidden")
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_says_what_is_wrong_and_asking_again_works() {
    let registry = Flaky::default();
    let ui = Server::of(ui(&registry)).await;
    Page::visit(&ui.url("/"), async |page| {
        page.until("#models", "No models yet: The gateway can't be found")
            .await;
        page.until("#summary", "No service is registered").await;

        // As soon as there are a gateway and models, they are there without a reload.
        let models = Models::default();
        let gateway = Server::of(models.gateway()).await;
        registry.add("api-gateway", "gateway-1", gateway.address, Health::Passing);
        models.start(&registry, "ai-models-1");
        page.choose("Sentiment").await;
        page.write("#input", " ").await;
        page.click("#send").await;
        page.until("#problem", "Empty input").await;

        page.write("#input", "Lovely!").await;
        page.click("#send").await;
        page.until("#answer", "Positive").await;
        assert_eq!(page.text("#problem").await, "");

        registry.content.remove(&InstanceId::new("gateway-1"));
        page.until("[data-key='api-gateway']", "no instances").await;
        page.click("#send").await;
        page.until("#problem", "No gateway").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_never_read_as_html() {
    const EVIL: &str = "<img src=x onerror=\"window.hacked=1\"><script>window.hacked=1</script>";
    let stack = Stack::of(1).await;
    stack.registry.add(
        "evil",
        EVIL,
        SocketAddr::from(([127, 0, 0, 1], 1)),
        Health::Passing,
    );
    Page::visit(&stack.ui.url("/"), async |page| {
        page.until("[data-key='evil'] .instance b", EVIL).await;
        for model in ["Sentiment", "Keywords"] {
            page.choose(model).await;
            page.write("#input", &format!("{EVIL} was here.")).await;
            page.click("#send").await;
            page.until("#answered", "Answered by").await;
            page.until("#answer .parts", "<img src=x").await;
        }
        assert_eq!(
            page.js("document.querySelectorAll('main img, aside img, main script').length")
                .await,
            0
        );
        assert_eq!(page.js("window.hacked ?? null").await, Value::Null);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_used_with_the_keyboard_alone() {
    let stack = Stack::of(1).await;
    Page::visit(&stack.ui.url("/"), async |page| {
        page.until("#models", "Keywords").await;
        page.type_keys(TAB).await;
        assert_eq!(
            page.js("document.activeElement.textContent").await,
            "Skip to the models"
        );
        page.type_keys(TAB).await;
        assert_eq!(page.js("document.activeElement.value").await, "language");
        page.type_keys(RIGHT).await;
        assert_eq!(page.js("document.activeElement.value").await, "sentiment");
        page.type_keys(TAB).await; // Use an example
        page.type_keys(TAB).await;
        assert_eq!(page.js("document.activeElement.id").await, "input");
        page.type_keys(CONTROL_ENTER).await;
        page.until("#answer", "score").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_one_can_use_has_a_name_for_screen_readers() {
    let stack = Stack::of(1).await;
    Page::visit(&stack.ui.url("/"), async |page| {
        page.until("#models", "Keywords").await;
        let nameless = page
            .js("[...document.querySelectorAll('a, button, input, textarea, img, section, aside')] \
                 .filter((it) => !(it.labels?.length || it.textContent.trim() || it.ariaLabel || it.alt === '' || it.ariaLabelledByElements)) \
                 .map((it) => it.outerHTML)")
            .await;
        assert_eq!(nameless, json!([]));
        for (id, role) in [("answered", "status"), ("problem", "alert"), ("banner", "status")] {
            assert_eq!(page.js(&format!("document.getElementById('{id}').getAttribute('role')")).await, role);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_upstream_model_writes_is_shown_token_by_token_and_can_be_stopped() {
    let (tokens, upstream) = writer().await;
    let stack = Stack::of(0).await;
    let upstream = waypost_ai_models::Upstream::new(&upstream.url("/v1"), None).unwrap();
    stack
        .models
        .start_with(&stack.registry, "ai-models-1", Some(upstream));
    Page::visit(&stack.ui.url("/"), async |page| {
        page.choose("tiny-llm").await;
        page.click("#send").await;
        for (token, written) in [
            ("A", "A"),
            (" phone", "A phone"),
            (" book <b>!</b>", "A phone book <b>!</b>"),
        ] {
            tokens.send(token.to_owned()).await.unwrap();
            page.until("#answer .written[data-writing]", written).await;
        }
        page.click("#stop").await;
        page.until("#answered", "Stopped").await;
        assert_eq!(
            page.text("#answer").await,
            "A phone book <b>!</b>",
            "what was written stays"
        );
        tokio::time::timeout(crate::support::SOON, tokens.closed())
            .await
            .expect("the writer should be told to stop");
    })
    .await;
}

/// An OpenAI-compatible server with one model, which writes what it's sent here.
async fn writer() -> (mpsc::Sender<String>, Server) {
    let (sender, receiver) = mpsc::channel::<String>(1);
    let receiver = std::sync::Arc::new(std::sync::Mutex::new(Some(receiver)));
    let complete = async move || {
        let receiver = receiver.lock().unwrap().take().unwrap();
        let chunks = futures_util::stream::unfold(receiver, |mut receiver| async move {
            let chunk = json!({"choices": [{"delta": {"content": receiver.recv().await?}}]});
            Some((
                Ok::<_, Infallible>(Bytes::from(format!("data: {chunk}\n\n"))),
                receiver,
            ))
        });
        (
            [("content-type", "text/event-stream")],
            Body::from_stream(chunks),
        )
    };
    let router = Router::new()
        .route(
            "/v1/models",
            get(async || Json(json!({"data": [{"id": "tiny-llm"}]}))),
        )
        .route("/v1/chat/completions", post(complete));
    (sender, Server::of(router).await)
}
