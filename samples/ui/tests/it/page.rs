//! The page in a browser.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::body::{Body, Bytes};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use waypost::{Health, InstanceId};
use waypost_testkit::browser::Page;

use crate::support::{FlakyRegistry, Models, Server, Stack, ui};

const TAB: &str = "\u{e004}";
const RIGHT: &str = "\u{e014}";
const CONTROL_ENTER: &str = "\u{e009}\u{e007}";

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_of_a_model_is_shown_with_its_instance() {
    let stack = Stack::of(2).await;
    Page::test(&stack.ui.url("/"), async |page| {
        choose(page, "Sentiment").await;
        page.write("#input", "The room was lovely. The breakfast was awful!")
            .await;
        page.click("#send").await;
        page.wait_for("#answered", "Answered by ai-models-").await;
        let answered = page.text("#answered").await;
        assert!(
            answered.contains("through the gateway at 127.0.0.1:"),
            "{answered}"
        );
        // The result for each sentence is streamed, and shown below the result for the whole text.
        page.wait_for("#answer .parts li:nth-child(1)", "Positive")
            .await;
        page.wait_for("#answer .parts li:nth-child(2)", "Negative")
            .await;
        page.wait_for("#answer .headline", "score").await;

        page.click("#stream").await;
        choose(page, "Language").await;
        page.write("#input", "Onde fica a estação de comboios, por favor?")
            .await;
        page.click("#send").await;
        page.wait_for("#answer .headline", "Portuguese").await;
        assert_eq!(
            page.js("document.querySelectorAll('.parts li').length")
                .await,
            0,
            "the answer is not streamed"
        );

        choose(page, "Keywords").await;
        page.click("#example").await;
        page.click("#send").await;
        page.wait_for("#answer .keywords li", "registry").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_requests_show_how_the_load_is_balanced() {
    let stack = Stack::of(3).await;
    Page::test(&stack.ui.url("/"), async |page| {
        choose(page, "Sentiment").await;
        page.click("#burst").await;
        page.wait_for("#burst-status", "20 of 20 answered").await;
        let rows = page
            .js("[...document.querySelectorAll('#instance-counts li')].map((row) => row.innerText)")
            .await;
        let rows: Vec<_> = rows
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row.as_str().unwrap())
            .collect();
        assert_eq!(rows.len(), 3, "{rows:?}");
        let counts: Vec<u32> = rows
            .iter()
            .map(|row| {
                row.split_whitespace()
                    .find_map(|word| word.parse().ok())
                    .unwrap()
            })
            .collect();
        assert_eq!(counts.iter().sum::<u32>(), 20, "{rows:?}");
        assert!(
            counts.iter().all(|count| (6..=7).contains(count)),
            "the gateway balances round-robin: {rows:?}"
        );

        page.click("#reset").await;
        page.wait_for("#instance-counts li", "0 answers").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_services_are_updated_live() {
    let stack = Stack::of(1).await;
    Page::test(&stack.ui.url("/"), async |page| {
        page.wait_for("#registry", "Live from a registry in memory")
            .await;
        page.wait_for("[data-key='ai-models'] [data-key='ai-models-1']", "Healthy")
            .await;
        page.wait_for("[data-key='ai-models']", "1 of 1 ready")
            .await;

        stack.models.start(&stack.registry, "ai-models-2");
        page.wait_for("[data-key='ai-models'] [data-key='ai-models-2']", "Healthy")
            .await;
        page.wait_for("#instance-counts", "ai-models-2").await;

        let address = SocketAddr::from(([127, 0, 0, 1], 8002));
        stack
            .registry
            .add("ai-models", "ai-models-2", address, Health::Critical);
        page.wait_for("[data-key='ai-models-2'] .health", "✕ Failing")
            .await;
        page.wait_for("[data-key='ai-models']", "1 of 2 ready")
            .await;

        stack
            .registry
            .memory
            .remove(&InstanceId::new("ai-models-2"));
        page.wait_until("!document.querySelector(\".instance[data-key='ai-models-2']\")")
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_works_in_eight_tabs_at_once() {
    let stack = Stack::of(1).await;
    Page::test(&stack.ui.url("/"), async |page| {
        for number in 1..=8 {
            if number > 1 {
                page.open_window(&stack.ui.url("/")).await;
            }
            page.wait_for("#registry", "Live").await;
            page.wait_for("#models", "Sentiment").await;
            page.click("#send").await;
            page.wait_for("#answered", "Answered by ai-models-1").await;
        }
        // Each is still up to date.
        stack.models.start(&stack.registry, "ai-models-2");
        for window in page.windows().await {
            page.switch_to(window).await;
            page.wait_for("[data-key='ai-models'] [data-key='ai-models-2']", "Healthy")
                .await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_registry_is_down_the_last_known_state_is_shown_with_its_age() {
    let stack = Stack::of(1).await;
    Page::test(&stack.ui.url("/"), async |page| {
        page.wait_for(".instance[data-key='ai-models-1']", "Healthy")
            .await;
        stack.registry.set_down(true);
        page.wait_for("#banner", "The registry can't be reached").await;
        page.wait_for("#banner", "connection refused").await;
        let age = "parseInt(document.getElementById('banner').textContent.match(/as they were (\\d+) s ago/)[1])";
        let first = page.js(age).await;
        page.wait_until(&format!("{age} > {first}")).await;
        page.wait_for(".instance[data-key='ai-models-1']", "Healthy")
            .await;
        // The models are still found from the last known state.
        page.click("#send").await;
        page.wait_for("#answered", "Answered by ai-models-1").await;

        stack.registry.set_down(false);
        page.wait_until("document.getElementById('banner').hidden")
            .await;
        page.wait_for("#registry", "Live").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_reports_a_lost_connection_to_the_ui_service_and_reconnects() {
    let registry = FlakyRegistry::default();
    registry.add(
        "auth",
        "auth-1",
        SocketAddr::from(([10, 0, 0, 7], 80)),
        Health::Passing,
    );
    // Shutting down a separate runtime closes all its connections, as a crash would.
    let crashing = tokio::runtime::Runtime::new().unwrap();
    let serve = {
        let registry = registry.clone();
        async move { Server::of(ui(&registry)).await }
    };
    let ui_server = crashing.spawn(serve).await.unwrap();
    Page::test(&ui_server.url("/"), async |page| {
        page.wait_for(".instance[data-key='auth-1']", "Healthy")
            .await;
        crashing.shutdown_background();
        page.wait_for("#banner", "The connection to the UI service is lost")
            .await;
        page.wait_for(".instance[data-key='auth-1']", "Healthy")
            .await;

        let _restarted = Server::at(ui_server.address, ui(&registry)).await;
        page.wait_until("document.getElementById('banner').hidden")
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_shown_and_the_next_request_works() {
    let registry = FlakyRegistry::default();
    let ui = Server::of(ui(&registry)).await;
    Page::test(&ui.url("/"), async |page| {
        page.wait_for("#models", "No models yet: The gateway can't be found")
            .await;
        page.wait_for("#summary", "No service is registered").await;

        // A gateway and models that start later are shown without a reload.
        let models = Models::default();
        let gateway = Server::of(models.gateway()).await;
        registry.add("api-gateway", "gateway-1", gateway.address, Health::Passing);
        models.start(&registry, "ai-models-1");
        choose(page, "Sentiment").await;
        page.write("#input", " ").await;
        page.click("#send").await;
        page.wait_for("#problem", "Empty input").await;

        page.write("#input", "Lovely!").await;
        page.click("#send").await;
        page.wait_for("#answer", "Positive").await;
        assert_eq!(page.text("#problem").await, "");

        registry.memory.remove(&InstanceId::new("gateway-1"));
        page.wait_for("[data-key='api-gateway']", "no instances")
            .await;
        page.click("#send").await;
        page.wait_for("#problem", "No gateway").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_never_parsed_as_html() {
    const EVIL: &str = "<img src=x onerror=\"window.hacked=1\"><script>window.hacked=1</script>";
    let stack = Stack::of(1).await;
    stack.registry.add(
        "evil",
        EVIL,
        SocketAddr::from(([127, 0, 0, 1], 1)),
        Health::Passing,
    );
    Page::test(&stack.ui.url("/"), async |page| {
        page.wait_for("[data-key='evil'] .instance b", EVIL).await;
        for model in ["Sentiment", "Keywords"] {
            choose(page, model).await;
            page.write("#input", &format!("{EVIL} was here.")).await;
            page.click("#send").await;
            page.wait_for("#answered", "Answered by").await;
            page.wait_for("#answer .parts", "<img src=x").await;
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
async fn the_page_can_be_used_with_the_keyboard_alone() {
    let stack = Stack::of(1).await;
    Page::test(&stack.ui.url("/"), async |page| {
        page.wait_for("#models", "Keywords").await;
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
        page.wait_for("#answer", "score").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_controls_have_accessible_names() {
    let stack = Stack::of(1).await;
    Page::test(&stack.ui.url("/"), async |page| {
        page.wait_for("#models", "Keywords").await;
        let unnamed = page
            .js("[...document.querySelectorAll('a, button, input, textarea, img, section, aside')] \
                 .filter((it) => !(it.labels?.length || it.textContent.trim() || it.ariaLabel || it.alt === '' || it.ariaLabelledByElements)) \
                 .map((it) => it.outerHTML)")
            .await;
        assert_eq!(unnamed, json!([]));
        for (id, role) in [("answered", "status"), ("problem", "alert"), ("banner", "status")] {
            assert_eq!(page.js(&format!("document.getElementById('{id}').getAttribute('role')")).await, role);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_an_upstream_model_are_shown_as_they_arrive_and_can_be_stopped() {
    let (tokens, upstream) = start_upstream().await;
    let stack = Stack::of(0).await;
    let upstream = waypost_ai_models::Upstream::new(&upstream.url("/v1"), None).unwrap();
    stack
        .models
        .start_with(&stack.registry, "ai-models-1", Some(upstream));
    Page::test(&stack.ui.url("/"), async |page| {
        choose(page, "tiny-llm").await;
        page.click("#send").await;
        for (token, written) in [
            ("A", "A"),
            (" phone", "A phone"),
            (" book <b>!</b>", "A phone book <b>!</b>"),
        ] {
            tokens.send(token.to_owned()).await.unwrap();
            page.wait_for("#answer .written[data-writing]", written)
                .await;
        }
        page.click("#stop").await;
        page.wait_for("#answered", "Stopped").await;
        assert_eq!(
            page.text("#answer").await,
            "A phone book <b>!</b>",
            "the partial answer is kept"
        );
        tokio::time::timeout(crate::support::TIMEOUT, tokens.closed())
            .await
            .expect("the request to the upstream should be cancelled");
    })
    .await;
}

/// Clicks on the model with this name.
async fn choose(page: &Page, model: &str) {
    page.wait_for("#models", model).await;
    page.click_xpath(&format!("//label[b[text()='{model}']]"))
        .await;
}

/// An OpenAI-compatible server with one model, which streams the tokens sent to the channel.
async fn start_upstream() -> (mpsc::Sender<String>, Server) {
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
