//! Takes the pictures of the documentation, and checks each view in light and dark, wide and narrow.

use std::path::PathBuf;

use waypost_testkit::browser::Page;

use crate::fake_stack::TOKEN;
use crate::shop;

/// The views by the name of their picture.
const VIEWS: [(&str, &str, &str); 9] = [
    (
        "services",
        "services/orders",
        "tr[data-name='payments'], .side",
    ),
    ("services-all", "", "tr[data-name='payments']"),
    ("checks", "services/orders?tab=checks", ".transitions"),
    ("environment", "services/orders?tab=environment", ".pairs"),
    ("logs", "logs?request=147cd2c3", "#t-one"),
    ("logs-all", "logs", ".log .err"),
    ("map", "map", ".map .n"),
    ("registry", "registry/keys/shop/flags", "textarea"),
    ("add", "add", ".hello"),
];

/// The folder for pictures, such as `docs/pictures`, from `WAYPOST_PICTURES`. Without it, none are written.
fn directory() -> Option<PathBuf> {
    std::env::var_os("WAYPOST_PICTURES").map(PathBuf::from)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_view_is_drawn_in_each_scheme_and_width() {
    let stack = shop::shop();
    let server = stack.serve().await;
    Page::test(&format!("{}#token={TOKEN}", server.url), async |page| {
        page.wait_for("#live", "Live").await;
        for _ in 0..3 {
            stack.second(&shop::second());
        }
        for scheme in ["light", "dark"] {
            page.emulate(&[("prefers-color-scheme", scheme), ("prefers-reduced-motion", "reduce")]).await;
            for (device, width, height) in [("desktop", 1440, 900), ("phone", 390, 844), ("narrow", 320, 640)] {
                page.resize(width, height).await;
                for (name, path, shown) in VIEWS {
                    page.open(&format!("{}{path}", server.url)).await;
                    page.wait_for(shown, "").await;
                    stack.second(&shop::second());
                    page.wait_until("document.querySelector('#live').textContent.includes('Live')").await;
                    // The map learns from a second of traffic after the callers are known who calls whom.
                    stack.second(&shop::second());
                    page.wait_until("!document.querySelector('.calls-table') || [...document.querySelectorAll('.calls-table tbody tr')].some((row) => row.cells[0].textContent === 'orders')").await;
                    let overflow = page.js("document.documentElement.scrollWidth - document.documentElement.clientWidth").await;
                    assert_eq!(overflow, 0, "{name} {scheme} {width} px is too wide");
                    if let Some(directory) = directory().filter(|_| device != "narrow") {
                        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
                        std::fs::write(directory.join(format!("{name}-{device}-{scheme}.png")), page.screenshot().await).unwrap();
                    }
                }
            }
        }
    })
    .await;
}
