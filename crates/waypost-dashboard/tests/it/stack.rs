//! The page of a stack, with a fake stack that the test controls.

use serde_json::{Value, json};
use tokio::time::Instant;
use waypost_testkit::browser::Page;

use crate::fake_stack::{FakeStack, TOKEN, ago};
use crate::shop::{self, shop};

/// A service with one instance.
fn service(name: &str, state: &str, why: Option<&str>) -> Value {
    let is_up = state == "ready";
    json!({"name": name, "kind": "process", "state": state, "since": ago(0), "why": why, "advice": null, "last_error": null,
        "ready": usize::from(is_up), "wanted": 1, "address": "localhost:4100", "url": null, "restarts": 0, "cpu_percent": 0.5, "memory_bytes": 1_000_000,
        "after": [], "uses": [], "links": {}, "profiles": [], "instances": [{"id": name, "state": state, "since": ago(0), "pid": 7, "port": 4100, "restarts": 0,
            "exit": null, "next_start_at": null, "cpu_percent": 0.5, "memory_bytes": 1_000_000, "why": why, "started_at": ago(9), "registered": true}]})
}

fn small_stack() -> FakeStack {
    let stack = FakeStack::new();
    for name in ["orders", "payments", "web"] {
        stack.set_service(service(name, "ready", None));
    }
    stack
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_instance_has_a_card_with_the_cause() {
    let stack = small_stack();
    let server = stack.serve().await;
    Page::test(&server.url, async |page| {
        page.wait_for("tr[data-name='orders']", "Ready").await;
        let start = Instant::now();
        let mut failed = service(
            "orders",
            "failed",
            Some("ended by SIGKILL, next start in 1 s"),
        );
        failed["last_error"] = json!("Error: out of memory");
        stack.set_service(failed);
        page.wait_for(".need[data-name='orders']", "orders has failed")
            .await;
        page.wait_for(".need[data-name='orders'] code", "Error: out of memory")
            .await;
        page.wait_for(".need[data-name='orders']", "ended by SIGKILL")
            .await;
        println!("the card appeared after {:?}", start.elapsed());
        page.wait_until("document.title.startsWith('1 need you · shop')")
            .await;
        assert_eq!(
            page.js("document.querySelector('tbody tr[data-name]').dataset.name")
                .await,
            "orders",
            "trouble first"
        );

        stack.set_service(service("orders", "ready", None));
        page.wait_until("!document.querySelector('.need')").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_restarted_and_scaled_by_button_and_by_key() {
    let stack = shop();
    let server = stack.serve().await;
    Page::test(&format!("{}#token={TOKEN}", server.url), async |page| {
        page.wait_for(".need[data-name='payments']", "payments is crash-looping")
            .await;
        assert_eq!(
            page.js("location.hash").await,
            "",
            "the token isn't left in the address"
        );
        page.click(".need[data-name='payments'] button").await;
        page.wait_for("#toasts", "Restarting payments").await;

        page.run("document.querySelector(\"tr[data-name='auth'] a\").focus()")
            .await;
        page.type_keys("r").await;
        page.wait_for("#toasts", "Restarting auth").await;
        page.type_keys("+").await;
        page.wait_for("#toasts", "Scaling auth to 2").await;

        page.open(&format!("{}services/orders", server.url)).await;
        page.wait_for(".side", "Scale…").await;
        page.click(".side button.addr").await;
        page.write("#ask-field", "3").await;
        page.click("dialog .btn.go").await;
        page.wait_for("#toasts", "Scaling orders to 3").await;
        page.click(".side button[aria-label='Stop orders']").await;
        page.wait_for("#toasts", "Stopping orders").await;
        let actions: Vec<_> = stack
            .actions()
            .into_iter()
            .map(|(verb, name, body)| format!("{verb} {name} {body}"))
            .collect();
        assert_eq!(
            actions,
            [
                "restart payments {}",
                "restart auth {}",
                "scale auth {\"replicas\":2}",
                "scale orders {\"replicas\":3}",
                "stop orders {}"
            ]
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_token_of_the_session_the_page_is_read_only() {
    let stack = shop();
    let server = stack.serve().await;
    Page::test(&server.url, async |page| {
        page.wait_for(".need[data-name='payments']", "payments")
            .await;
        page.click(".need[data-name='payments'] button").await;
        page.wait_for("#toasts", "open the link that “waypost up” has printed")
            .await;
        assert!(stack.actions().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn selection_focus_and_scroll_survive_fifty_changes() {
    let stack = shop();
    let server = stack.serve().await;
    Page::test(&format!("{}services/orders", server.url), async |page| {
        page.resize(1300, 600).await;
        page.wait_for(".side .why", "503").await;
        page.wait_for(".side .log", "order 8830").await;
        page.run(
            "document.querySelector(\"tr[data-name='web'] a\").focus(); \
                  document.querySelector('.side .scroll').scrollTop = 60; \
                  getSelection().selectAllChildren(document.querySelector('.side .why pre'));",
        )
        .await;
        let selected = page.js("getSelection().toString()").await;
        assert!(selected.as_str().unwrap().contains("503"), "{selected}");
        let marked = page
            .js("document.querySelector(\"tr[data-name='web']\").marked = 'the same row'")
            .await;
        for number in 0..50 {
            // Each changes the order of the rows.
            let state = if number % 2 == 0 { "failed" } else { "ready" };
            stack.set_service(service("auth", state, Some("try")));
            stack.set_service(service(
                "catalog",
                if number % 3 == 0 { "failed" } else { "ready" },
                None,
            ));
            page.wait_for(
                "tr[data-name='auth'] .st",
                if state == "failed" { "Failed" } else { "Ready" },
            )
            .await;
        }
        assert_eq!(
            page.js("document.activeElement.closest('tr').dataset.name")
                .await,
            "web"
        );
        assert_eq!(
            page.js("document.activeElement.closest('tr').marked").await,
            marked
        );
        assert_eq!(page.js("getSelection().toString()").await, selected);
        assert_eq!(
            page.js("document.querySelector('.side .scroll').scrollTop")
                .await,
            60
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_shows_the_same_view() {
    let stack = shop();
    let server = stack.serve().await;
    Page::test(&server.url, async |page| {
        page.wait_for(".chips", "Need you 2").await;
        page.click(".chips button:nth-child(2)").await;
        page.click("tr[data-name='orders'] a").await;
        page.wait_for(".tabs", "Checks 2").await;
        page.click_xpath("//nav[@class='tabs']/a[contains(., 'Checks')]")
            .await;
        page.wait_for(".transitions", "critical").await;
        page.reload().await;
        page.wait_for(".transitions", "critical").await;
        assert_eq!(
            page.js("document.querySelectorAll('tbody tr[data-name]').length")
                .await,
            2
        );

        page.click("#views [data-view='logs']").await;
        page.wait_for(".log", "STRIPE_KEY").await;
        page.write(".logs input[type='search']", "stripe").await;
        page.wait_until("document.querySelectorAll('.log li').length === 1")
            .await;
        page.wait_for(".log mark", "STRIPE").await;
        page.reload().await;
        page.wait_until("document.querySelectorAll('.log li').length === 1")
            .await;
        assert_eq!(
            page.js("new URL(location.href).searchParams.get('q')")
                .await,
            "stripe"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_does_not_repeat_the_time_beside_it() {
    let stack = FakeStack::new();
    let time = ago(7).replace("Z", "").replace(".000", "");
    let (date, clock) = time.split_once('T').unwrap();
    let slashed = date.replace('-', "/");
    for text in [
        format!("{time}.123456Z  INFO waypost: one"),
        format!("\u{1b}[2m{time}.1Z\u{1b}[0m two"),
        format!("{date} {clock},123 three"),
        format!("[{date} {clock} +0000] [71] four"),
        format!("{slashed} {clock} five"),
        format!("[{clock}] six"),
        // The time of something else.
        "1999-12-31T23:59:59Z seven".to_owned(),
    ] {
        stack.log(7, "orders", "stdout", None, &text);
    }
    let server = stack.serve().await;
    Page::test(&format!("{}logs", server.url), async |page| {
        page.wait_for(".log", "seven").await;
        let shown = page
            .js("[...document.querySelectorAll('.log .msg')].map((it) => it.textContent)")
            .await;
        let expected = [
            "INFO waypost: one",
            "two",
            "three",
            "[71] four",
            "five",
            "six",
            "1999-12-31T23:59:59Z seven",
        ];
        assert_eq!(shown, json!(expected));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_tabs_stay_live_with_one_set_of_streams() {
    let stack = small_stack();
    let server = stack.serve().await;
    Page::test(&server.url, async |page| {
        for number in 1..=8 {
            if number > 1 {
                page.open_window(&server.url).await;
            }
            page.wait_for("tr[data-name='orders']", "Ready").await;
        }
        stack.set_service(service("orders", "failed", Some("no disk")));
        for window in page.windows().await {
            page.switch_to(window).await;
            page.wait_for(".need", "no disk").await;
        }
        println!("streams opened for eight tabs: {}", stack.streams());
        // The stack, the registry and the traffic; some tabs were hidden meanwhile and all closed.
        assert!(stack.streams() <= 3 * 3, "{}", stack.streams());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_shown_with_its_age_until_the_registry_is_back() {
    let stack = small_stack();
    let server = stack.serve().await;
    let address = server.url.clone();
    Page::test(&address, async |page| {
        page.wait_for("tr[data-name='orders']", "Ready").await;
        let runtime_url = server.url.clone();
        server.stop().await;
        page.wait_for(".outage .age", "Shown as it was").await;
        page.wait_until("document.title.startsWith('registry down')").await;
        assert_eq!(page.js("getComputedStyle(document.querySelector('.card')).borderTopStyle").await, "dashed");
        let age = "parseFloat(document.querySelector('.outage .age').textContent.match(/was ([\\d.]+) s ago/)[1])";
        let first = page.js(age).await;
        page.wait_until(&format!("{age} > {first}")).await;
        page.wait_for("tr[data-name='orders']", "Ready").await;
        stack.set_service(service("orders", "failed", Some("no disk")));
        let _again = stack.serve_at(&runtime_url).await;
        page.wait_until("!document.querySelector('.outage')").await;
        page.wait_for(".need", "no disk").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_map_agrees_with_the_traffic() {
    let stack = shop();
    let server = stack.serve().await;
    Page::test(&format!("{}map", server.url), async |page| {
        page.wait_for(".map", "catalog").await;
        stack.second(&shop::second());
        page.wait_until("document.querySelector('.calls-table tbody td')?.textContent === 'orders'").await;
        let rows = page.js("[...document.querySelectorAll('.calls-table tbody tr')].map((row) => [...row.cells].slice(0, 6).map((cell) => cell.textContent))").await;
        let rows = rows.as_array().unwrap();
        assert_eq!(rows[0][0], "orders");
        assert_eq!(rows[0][1], "payments");
        assert_eq!(rows[0][5], "100 %", "{rows:?}");
        let catalog = rows.iter().find(|row| row[1] == "catalog").unwrap();
        let per_second: f64 = catalog[2].as_str().unwrap().trim_end_matches(" /s").parse().unwrap();
        assert!((50.0..80.0).contains(&per_second), "{catalog}");
        // Each call of the table is a line of the map.
        page.wait_for(".map .t", "/s").await;
        page.click_xpath("//*[name()='a'][@data-box='payments']").await;
        page.wait_for(".side h2", "payments").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_can_be_used_with_the_keyboard_alone() {
    let stack = shop();
    let server = stack.serve().await;
    Page::test(&format!("{}#token={TOKEN}", server.url), async |page| {
        page.wait_for("tr[data-name='orders']", "1 of 2 ready")
            .await;
        page.run("document.body.focus()").await;
        for key in ["j", "j"] {
            page.type_keys(key).await;
        }
        assert_eq!(
            page.js("document.activeElement.textContent").await,
            "orders"
        );
        page.type_keys("o").await;
        page.wait_for(".side h2", "orders").await;
        page.type_keys("\u{e00c}").await; // Escape
        page.wait_until("document.querySelector('.side').hidden")
            .await;
        page.type_keys("/").await;
        page.type_keys("restart orders").await;
        page.wait_for("#results", "restart orders").await;
        page.type_keys("\u{e007}").await; // Enter
        page.wait_for("#toasts", "Restarting orders").await;
        page.type_keys("?").await;
        page.wait_for("dialog", "restart the service").await;
        page.type_keys("\u{e00c}").await;
        page.type_keys("m").await;
        page.wait_for(".map", "orders").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_saved_only_if_nobody_has_changed_it() {
    let stack = shop();
    let server = stack.serve().await;
    Page::test(
        &format!("{}registry/keys/shop/orders/vat", server.url),
        async |page| {
            page.wait_until("document.querySelector('textarea')?.value === '0.19'")
                .await;
            page.write("textarea", "0.07").await;
            stack.set_key("shop/orders/vat", "0.20");
            page.click(".entry .btn.go").await;
            page.wait_for("dialog", "was changed meanwhile").await;
            assert_eq!(stack.key("shop/orders/vat").unwrap(), "0.20");
            page.click("dialog .btn.go").await;
            page.wait_until("document.querySelector('textarea')?.value === '0.20'")
                .await;
            page.write("textarea", "0.07").await;
            page.click(".entry .btn.go").await;
            page.wait_for("#toasts", "Saved").await;
            assert_eq!(stack.key("shop/orders/vat").unwrap(), "0.07");
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_from_outside_is_never_parsed_as_html() {
    const EVIL: &str = "<img src=x onerror=\"window.hacked=1\"><script>window.hacked=1</script>";
    let stack = FakeStack::new();
    let mut evil = service(EVIL, "failed", Some(EVIL));
    evil["last_error"] = json!(EVIL);
    stack.set_service(evil);
    stack.log(1, "web", "stdout", Some("error"), EVIL);
    stack.set_key(EVIL, EVIL);
    let server = stack.serve().await;
    Page::test(&server.url, async |page| {
        page.wait_for(".need", EVIL).await;
        page.click(".need h2 a").await;
        page.wait_for(".side h2", EVIL).await;
        for (path, shown) in [
            ("logs", ".log"),
            ("map", ".map"),
            ("registry/keys", ".keys-list"),
        ] {
            page.open(&format!("{}{path}", server.url)).await;
            page.wait_for(shown, "<img").await;
        }
        assert_eq!(
            page.js("document.querySelectorAll('main img, main script').length")
                .await,
            0
        );
        assert_eq!(page.js("window.hacked ?? null").await, Value::Null);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_alone_shows_its_routes_and_the_map_of_its_traffic() {
    let stack = FakeStack::gateway();
    let server = stack.serve().await;
    Page::test(&server.url, async |page| {
        page.wait_for("#live", "Live").await;
        page.wait_for(".nothing", "There is no service yet").await;
        let route = |service: &str, source: &str, usable: Option<u8>, error: Option<&str>| {
            json!({"path": format!("/{service}/"), "source": source, "service": service, "instances": usable.map(|_| 2), "usable": usable, "error": error})
        };
        let routes = json!([
            route("catalog", "HTTPRoute shop/catalog", Some(2), None),
            route("payments", "discovery", Some(0), Some("all 2 instances of payments are critical")),
            route("orders", "discovery", Some(1), None),
            route("unused", "discovery", None, None),
        ]);
        stack.set_routes(&routes, &[("team/users", "'/' is not allowed")], None);
        page.wait_for("tr[data-name='catalog']", "2/2").await;
        page.wait_for("tr[data-name='orders']", "1 of 2 ready").await;
        page.wait_for("tr[data-name='unused']", "Not called yet").await;
        // A service that nobody has called is neither ready nor a problem.
        page.wait_for(".vital", "of 3").await;
        let rows = page.js("[...document.querySelectorAll('tr[data-name]')].map((it) => it.dataset.name)");
        assert_eq!(rows.await, json!(["payments", "orders", "catalog", "unused"]));
        stack.second(&shop::second());
        page.wait_for(".need", "payments has no ready instance").await;
        page.wait_for(".need", "all 2 instances of payments are critical").await;
        page.wait_for("tr[data-name='catalog'] .rate", "/s").await;
        let link = page.js("new URL(document.querySelector(\"tr[data-name='catalog'] .at a\").href).pathname");
        assert_eq!(link.await, "/catalog/");
        page.click("tr[data-name='orders'] .name a").await;
        page.wait_for(".side .rows", "127.0.0.1:4100").await;

        stack.set_routes(&routes, &[], Some("the registry at 127.0.0.1:8500 can't be reached"));
        page.wait_for(".outage", "127.0.0.1:8500").await;
        page.wait_for("tr[data-name='catalog']", "2/2").await;
        stack.set_routes(&routes, &[], None);
        page.wait_until("!document.querySelector('.outage')").await;

        page.click("#views [data-view='map']").await;
        page.wait_for(".map", "catalog").await;
        page.wait_for(".calls-table", "payments").await;
        let views = page
            .js("[...document.querySelectorAll('#views a')].map((it) => it.textContent)")
            .await;
        assert_eq!(views, json!(["Services", "Map"]));
    })
    .await;
}
