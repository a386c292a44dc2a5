//! The dashboard of a real `waypost up`, in a real browser.

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;
use waypost_testkit::browser::Page;
use waypost_testkit::free_ports;

use crate::support::*;

/// An HTTP service in Python. It fails its check while the file `fails-NAME` exists.
const SERVER: &str = r#"
import http.server, os, sys
name, port = sys.argv[1], int(sys.argv[2])
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        fails = os.path.exists("fails-" + name)
        body = b"the disk is full" if fails else name.encode()
        self.send_response(503 if fails else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
print(name, "listens on", port, flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"#;

/// The services of the stack; of `orders` there are two instances.
const SERVICES: [&str; 6] = ["auth", "catalog", "orders", "payments", "search", "web"];

/// Who calls whom, and how often.
const CALLS: [(&str, &str, u64); 4] = [
    ("web", "orders", 90),
    ("web", "catalog", 60),
    ("orders", "payments", 40),
    ("orders", "auth", 20),
];

/// A stack of six services that is running.
struct Shop {
    dir: TempDir,
    up: Program,
    gateway: u16,
    dashboard: u16,
    /// The link with the token of the session.
    link: String,
}

impl Shop {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [registry, gateway, dashboard] = free_ports();
        std::fs::write(dir.path().join("server.py"), SERVER).unwrap();
        let mut file = format!(
            "name = \"shop\"\n[waypost]\nregistry-port = {registry}\ngateway = {gateway}\n\
             dashboard = {dashboard}\n"
        );
        for name in SERVICES {
            let replicas = if name == "orders" { 2 } else { 1 };
            file += &format!(
                "[services.{name}]\nrun = \"python3 server.py {name} {{port}}\"\nport = 0\n\
                 replicas = {replicas}\nready = {{ http = \"/health\" }}\n"
            );
        }
        std::fs::write(dir.path().join("waypost.toml"), file).unwrap();
        let mut command = waypost(&["up"]);
        command
            .current_dir(dir.path())
            .env("XDG_RUNTIME_DIR", dir.path().join("run"));
        let mut up = Program::start(command);
        up.wait_for_output("Ctrl-C stops all").await;
        let output = up.output();
        let link = output.split_whitespace().find(|it| it.contains("#token="));
        let link = link.unwrap_or_else(|| panic!("no link in\n{output}"));
        let link = link.to_owned();
        Self {
            dir,
            up,
            gateway,
            dashboard,
            link,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://localhost:{}/{path}", self.dashboard)
    }

    /// The data of an instance, as the runner's API shows it.
    async fn instance(&self, service: &str, id: &str) -> Option<Value> {
        let stack = get_json(&self.url("api/stack")).await;
        let services = stack["services"].as_array().unwrap();
        let service = services.iter().find(|it| it["name"] == service)?;
        let instances = service["instances"].as_array().unwrap();
        instances.iter().find(|it| it["id"] == id).cloned()
    }

    async fn until_ready(&self, service: &str, id: &str) -> Value {
        eventually(&format!("{id} is ready"), async || {
            let instance = self.instance(service, id).await?;
            (instance["state"] == "ready").then_some(instance)
        })
        .await
    }

    /// Sends requests through the gateway, as a caller would.
    async fn call(&self, caller: &str, service: &str, count: u64) {
        let client = http();
        let url = format!("http://127.0.0.1:{}/{service}/", self.gateway);
        for _ in 0..count {
            let request = client.get(&url).header("x-waypost-caller", caller);
            assert_eq!(request.send().await.unwrap().status(), 200, "{service}");
        }
    }

    /// The requests that the gateway's metrics have counted for a service.
    async fn counted(&self, service: &str) -> u64 {
        let gateway = get_json(&self.url("v1/health/service/api-gateway?passing")).await;
        let internal = gateway[0]["Service"]["Meta"]["internal"].as_str().unwrap();
        let (_, metrics) = get(&format!("http://{internal}/metrics")).await;
        let prefix = format!("waypost_gateway_requests_total{{service=\"{service}\",");
        let lines = metrics.lines().filter(|line| line.starts_with(&prefix));
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }

    async fn stop(mut self) {
        self.up.interrupt();
        assert_eq!(
            self.up.wait_for_exit().await,
            Some(0),
            "{}",
            self.up.output()
        );
    }
}

/// Collects the text of each card and outage bar that appears, however briefly.
const COLLECT: &str = "window.seen = []; \
    const look = () => document.querySelectorAll('.need, .outage').forEach((it) => seen.push(it.textContent)); \
    new MutationObserver(look).observe(document.body, { childList: true, subtree: true, characterData: true }); \
    look();";

/// Waits until a card or bar with a text has appeared since [`COLLECT`] ran.
async fn until_seen(page: &Page, text: &str) {
    page.wait_until(&format!("seen.some((it) => it.includes({}))", json!(text)))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_instance_has_a_card_with_its_cause_and_services_are_controlled_from_the_page() {
    let shop = Shop::start().await;
    let killed = shop.until_ready("orders", "orders-2").await;
    Page::test(&shop.link, async |page| {
        page.wait_for("tr[data-name='orders']", "2/2").await;
        page.run(COLLECT).await;
        let pid = killed["pid"].as_i64().unwrap();
        let start = Instant::now();
        signal(i32::try_from(pid).unwrap(), Signal::KILL);
        until_seen(page, "orders-2 has ended").await;
        println!("the card appeared {:?} after kill -9", start.elapsed());
        until_seen(page, "killed by SIGKILL").await;
        until_seen(page, "orders-1 takes all requests").await;
        page.wait_for("tr[data-name='orders']", "2/2").await;
        page.wait_until("!document.querySelector('.need')").await;

        // By button.
        let before = shop.until_ready("web", "web-1").await["pid"].clone();
        page.click("tr[data-name='web'] button[aria-label='Restart web']")
            .await;
        page.wait_for("#toasts", "Restarting web").await;
        eventually("web has another pid", async || {
            let web = shop.instance("web", "web-1").await?;
            (web["pid"] != before && web["state"] == "ready").then_some(())
        })
        .await;
        page.open(&shop.url("services/search")).await;
        page.wait_for(".side", "Scale…").await;
        page.click(".side button.addr").await;
        page.write("#ask-field", "2").await;
        page.click("dialog .btn.go").await;
        page.wait_for("tr[data-name='search']", "2/2").await;

        // By key.
        page.open(&shop.url("")).await;
        page.wait_for("tr[data-name='auth']", "Ready").await;
        let before = shop.until_ready("auth", "auth-1").await["pid"].clone();
        page.run("document.querySelector(\"tr[data-name='auth'] a\").focus()")
            .await;
        page.type_keys("r").await;
        eventually("auth has another pid", async || {
            let auth = shop.instance("auth", "auth-1").await?;
            (auth["pid"] != before && auth["state"] == "ready").then_some(())
        })
        .await;
        page.wait_for("tr[data-name='auth']", "Ready").await;
        page.run("document.querySelector(\"tr[data-name='catalog'] a\").focus()")
            .await;
        page.type_keys("+").await;
        page.wait_for("tr[data-name='catalog']", "2/2").await;
    })
    .await;
    shop.stop().await;
}

/// Reads, in the page, how many requests to a service it was sent in all and in the last minute, and what the
/// map's table shows per second for a caller and the service.
fn seen_by_the_page(caller: &str, service: &str) -> String {
    let script = r"
        const done = arguments[0], stop = new AbortController();
        (async () => {
          const response = await fetch('/internal/traffic?seconds=900', { signal: stop.signal });
          const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
          let text = '';
          while (!text.includes('\n\n')) text += (await reader.read()).value;
          stop.abort();
          const { second, services } = JSON.parse(text.split('\n').find((line) => line.startsWith('data: ')).slice(6));
          const buckets = services['SERVICE']?.buckets ?? [];
          const sum = (buckets) => buckets.reduce((sum, bucket) => sum + bucket[1], 0);
          const rows = [...document.querySelectorAll('.calls-table tbody tr')];
          const row = rows.find(({ cells }) => cells[0].textContent === 'CALLER' && cells[1].textContent === 'SERVICE');
          done({ all: sum(buckets), minute: sum(buckets.filter((bucket) => bucket[0] > second - 60)), rate: parseFloat(row?.cells[2].textContent ?? '0') });
        })().catch((error) => done({ error: String(error) }));
    ";
    script.replace("CALLER", caller).replace("SERVICE", service)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_map_of_six_services_under_load_agrees_with_the_gateways_metrics() {
    let shop = Shop::start().await;
    Page::test(&shop.url("map"), async |page| {
        page.wait_for("#live", "Live").await;
        for (caller, service, count) in CALLS {
            shop.call(caller, service, count).await;
        }
        for (caller, service, count) in CALLS {
            // Health checks don't pass through the gateway, so all requests are those of the test.
            eventually(
                &format!("the metrics count {count} requests to {service}"),
                async || (shop.counted(service).await == count).then_some(()),
            )
            .await;
            let script = seen_by_the_page(caller, service);
            eventually(
                &format!("the page knows {count} requests to {service}"),
                async || (page.run_async(&script).await["all"] == count).then_some(()),
            )
            .await;
        }
        for (caller, service, _) in CALLS {
            let script = seen_by_the_page(caller, service);
            eventually(
                &format!("the map shows how often {service} was called"),
                async || {
                    let seen = page.run_async(&script).await;
                    let minute = seen["minute"].as_u64().unwrap();
                    // On a slow machine the calls may be more than a minute ago.
                    if minute < 20 {
                        shop.call(caller, service, 20).await;
                    }
                    let shown = seen["rate"].as_f64().unwrap() * 60.0;
                    #[expect(clippy::cast_precision_loss)]
                    let difference = (shown - minute as f64).abs();
                    // The rate is rounded to a tenth, which is six requests in a minute.
                    (minute > 0 && difference <= 4.0).then_some(())
                },
            )
            .await;
            page.wait_for(".map", service).await;
        }
    })
    .await;
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_of_a_check_survives_a_reload_and_an_outage_of_the_registry_is_shown() {
    let shop = Shop::start().await;
    let fails = shop.dir.path().join("fails-payments");
    Page::test(&shop.url("services/payments?tab=checks"), async |page| {
        page.wait_for(".transitions", "passing").await;
        std::fs::write(&fails, "").unwrap();
        page.wait_for(".need[data-name='payments']", "503").await;
        page.wait_for(".transitions", "critical").await;
        std::fs::remove_file(&fails).unwrap();
        page.wait_until("!document.querySelector('.need')").await;
        let shown = "JSON.stringify([...document.querySelectorAll('.transitions time')].map((it) => it.dateTime))";
        page.wait_until("document.querySelectorAll('.transitions li').length >= 3").await;
        page.wait_until("document.querySelector('.transitions li').textContent.includes('passing')").await;
        let before = page.js(shown).await;
        page.reload().await;
        page.wait_until("document.querySelectorAll('.transitions li').length >= 3").await;
        assert_eq!(page.js(shown).await, before);

        // All tabs follow.
        for _ in 1..8 {
            page.open_window(&shop.url("")).await;
        }
        for window in page.windows().await {
            page.switch_to(window).await;
            page.wait_for("tr[data-name='web']", "Ready").await;
        }

        page.run(COLLECT).await;
        let registry = descendant(shop.up.pid(), " agent ");
        signal(registry, Signal::STOP);
        signal(registry, Signal::KILL);
        let start = Instant::now();
        until_seen(page, "The registry can’t be reached").await;
        println!("the bar appeared {:?} after the registry's death", start.elapsed());
        until_seen(page, "Shown as it was").await;
        page.wait_for("tr[data-name='web']", "Ready").await;
        for window in page.windows().await {
            page.switch_to(window).await;
            page.wait_until("!document.querySelector('.outage')").await;
            page.wait_for("#live", "Live").await;
            page.wait_for("tr[data-name='web']", "Ready").await;
        }
    })
    .await;
    shop.stop().await;
}
