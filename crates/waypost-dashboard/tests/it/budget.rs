//! Measures the page's use of CPU, memory and network. The figures are printed with `--nocapture`.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use waypost_testkit::browser::Page;

use crate::fake_stack::{FakeStack, ago};
use crate::shop::shop;

fn registered(number: usize, status: &str) -> Value {
    json!({"name": format!("service-{number:03}"), "tags": ["v1"], "instances": [{"id": format!("service-{number:03}-1"), "node": "laptop", "address": "127.0.0.1",
        "port": 4000 + number, "tags": ["v1"], "meta": {}, "status": status, "since": ago(1), "why": null, "history": [[1_700_000_000, "passing"]]}]})
}

/// The CPU time of the page's process in seconds, on all threads that draw or run scripts.
async fn task_seconds(page: &Page) -> f64 {
    let metrics = page.devtools("Performance.getMetrics", json!({})).await;
    let metrics = metrics["metrics"].as_array().unwrap();
    let find = |name: &str| {
        metrics.iter().find(|it| it["name"] == name).unwrap()["value"]
            .as_f64()
            .unwrap()
    };
    find("TaskDuration")
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_services_with_ten_changes_a_second_stay_within_the_budget() {
    let stack = FakeStack::new();
    for number in 0..500 {
        stack.set_registered(registered(number, "passing"));
    }
    let server = stack.serve().await;
    Page::test(&server.url, async |page| {
        page.resize(1440, 900).await;
        page.wait_for(".chips", "All 500").await;
        let nodes = page.js("document.querySelectorAll('*').length").await.as_u64().unwrap();
        assert!(nodes <= 3000, "{nodes} nodes");

        page.devtools("Performance.enable", json!({"timeDomain": "threadTicks"})).await;
        let (bytes, tasks, start) = (stack.bytes(), task_seconds(page).await, Instant::now());
        for round in 0..80usize {
            let status = if round % 2 == 0 { "warning" } else { "passing" };
            stack.set_registered(registered(round * 7 % 500, status));
            tokio::time::sleep_until(start + Duration::from_millis(100) * u32::try_from(round + 1).unwrap()).await;
        }
        let elapsed = start.elapsed().as_secs_f64();
        let share = (task_seconds(page).await - tasks) / elapsed;
        #[expect(clippy::cast_precision_loss)]
        let rate = (stack.bytes() - bytes) as f64 / elapsed;
        println!("500 services, {nodes} nodes; 10 changes/s: {:.1} % of a core, {rate:.0} bytes/s before compression", share * 100.0);
        // 10 % on an idle machine. Beside other work, the same task takes longer.
        assert!(share <= 0.5, "{:.1} % of a core", share * 100.0);
        // The test may send more slowly than ten changes a second, but not faster.
        assert!(rate <= 5000.0, "{rate} bytes/s");

        // Far down there are different rows, but not more.
        page.run("scrollTo(0, document.body.scrollHeight)").await;
        page.wait_for(".services table", "service-499").await;
        let nodes = page.js("document.querySelectorAll('*').length").await.as_u64().unwrap();
        assert!(nodes <= 3000, "{nodes} nodes");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_page_sends_no_request_and_uses_hardly_any_cpu() {
    let stack = shop();
    stack.set_service({
        let mut orders = stack.service("orders");
        orders["state"] = json!("ready");
        orders
    });
    let server = stack.serve().await;
    Page::test(&server.url, async |page| {
        page.wait_for("tr[data-name='web']", "Ready").await;
        page.devtools("Performance.enable", json!({"timeDomain": "threadTicks"}))
            .await;
        // Until the page has everything.
        let mut loaded = 0;
        while stack.requests() > loaded {
            loaded = stack.requests();
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        let (requests, tasks, start) = (stack.requests(), task_seconds(page).await, Instant::now());
        tokio::time::sleep(Duration::from_secs(10)).await;
        let share = (task_seconds(page).await - tasks) / start.elapsed().as_secs_f64();
        println!(
            "idle: {} requests, {:.2} % of a core",
            stack.requests() - requests,
            share * 100.0
        );
        assert_eq!(stack.requests(), requests);
        // 0.5 % on an idle machine.
        assert!(share <= 0.2, "{:.2} % of a core", share * 100.0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_paint_is_early() {
    let stack = shop();
    let server = stack.serve().await;
    Page::test(&server.url, async |page| {
        page.wait_for("tr[data-name='web']", "Ready").await;
        page.reload().await;
        page.wait_for("tr[data-name='web']", "Ready").await;
        page.wait_until("performance.getEntriesByName('first-contentful-paint').length")
            .await;
        let paint = page
            .js("performance.getEntriesByName('first-contentful-paint')[0].startTime")
            .await
            .as_f64()
            .unwrap();
        println!("first contentful paint after {paint:.0} ms");
        // 200 ms on an idle laptop. The machine of a test is busy, so this only excludes a page that waits
        // for something.
        assert!(paint <= 30_000.0, "{paint} ms");
    })
    .await;
}
