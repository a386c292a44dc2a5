//! axe finds no problems in any view, colour scheme and width.

use waypost_testkit::browser::Page;

use crate::fake_stack::TOKEN;
use crate::shop;

/// The views: path, and what is shown when it is complete.
const VIEWS: [(&str, &str); 11] = [
    ("", "tr[data-name='payments']"),
    ("services/orders", ".side .why"),
    ("services/orders?tab=checks", ".transitions"),
    ("services/orders?tab=environment", ".pairs"),
    ("services/orders?tab=requests", ".requests"),
    ("logs?request=147cd2c3", "#t-one"),
    ("map", ".map .n"),
    ("registry", "table"),
    ("registry/keys/shop/flags", "textarea"),
    ("registry/dns", "table"),
    ("add", ".hello"),
];

#[tokio::test(flavor = "multi_thread")]
async fn axe_finds_nothing_in_any_view_scheme_and_width() {
    let stack = shop::shop();
    let server = stack.serve().await;
    let mut checked = 0;
    Page::test(&format!("{}#token={TOKEN}", server.url), async |page| {
        for scheme in ["light", "dark"] {
            page.emulate(&[
                ("prefers-color-scheme", scheme),
                ("prefers-reduced-motion", "reduce"),
            ])
            .await;
            for (width, height) in [(1440, 900), (390, 844), (320, 640)] {
                page.resize(width, height).await;
                for (path, shown) in VIEWS {
                    page.open(&format!("{}{path}", server.url)).await;
                    page.wait_for("#live", "Live").await;
                    page.wait_for(shown, "").await;
                    page.assert_accessible(&format!("{path:?} {scheme} {width} px"))
                        .await;
                    checked += 1;
                }
            }
        }
    })
    .await;
    println!("axe: 0 findings in {checked} combinations of view, scheme and width");
}

#[tokio::test(flavor = "multi_thread")]
async fn text_twice_as_large_and_forced_colours_leave_everything_readable() {
    let stack = shop::shop();
    let server = stack.serve().await;
    Page::test(&server.url, async |page| {
        // 200 % zoom of a window that is 1280 px wide.
        page.resize(640, 480).await;
        for (path, shown) in VIEWS {
            page.open(&format!("{}{path}", server.url)).await;
            page.wait_for(shown, "").await;
            let overflow = page
                .js("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                .await;
            let wide = page.js("[...document.querySelectorAll('body *')].filter((it) => it.getBoundingClientRect().right > innerWidth && !it.closest('.wide, .plan, .log, .chips, .tabs')).slice(0, 5).map((it) => it.outerHTML.slice(0, 120))").await;
            assert_eq!(overflow, 0, "{path} is too wide: {wide}");
        }
        page.emulate(&[("forced-colors", "active")]).await;
        page.open(&server.url).await;
        page.wait_for("tr[data-name='payments']", "Crash-looping")
            .await;
        page.wait_for("tr[data-name='web']", "Ready").await;
    })
    .await;
}
