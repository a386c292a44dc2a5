//! Controls Chromium through chromedriver. Needs the feature `browser`.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use fantoccini::error::NewSessionError;
use fantoccini::wd::{WebDriverCompatibleCommand, WindowHandle};
use fantoccini::{Client, ClientBuilder, Locator};
use futures_util::FutureExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// The longest that a test waits for anything, generous enough for a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A page that is open in a browser.
#[derive(Debug)]
pub struct Page {
    client: Client,
}

impl Page {
    /// Runs a test in a new browser, which is closed even if the test fails. Also fails if the
    /// browser logged an error.
    pub async fn test(url: &str, test: impl AsyncFnOnce(&Self)) {
        let (mut driver, client, _profile) = start_browser().await;
        let page = Self { client };
        let outcome = AssertUnwindSafe(async {
            page.client.goto(url).await.unwrap();
            test(&page).await;
            page.assert_no_errors().await;
        });
        let outcome = outcome.catch_unwind().await;
        // Closing the session closes the browser.
        let _ = page.client.clone().close().await;
        let _ = driver.kill().await;
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    }

    /// Opens a page in a new window of the same browser, and switches to it.
    pub async fn open_window(&self, url: &str) {
        let window = self.client.new_window(false).await.unwrap();
        self.client.switch_to_window(window.handle).await.unwrap();
        self.client.goto(url).await.unwrap();
    }

    /// The open windows.
    pub async fn windows(&self) -> Vec<WindowHandle> {
        self.client.windows().await.unwrap()
    }

    /// Makes a window the current one.
    pub async fn switch_to(&self, window: WindowHandle) {
        self.client.switch_to_window(window).await.unwrap();
    }

    /// Waits until an element is shown and its text contains `wanted`.
    pub async fn wait_for(&self, css: &str, wanted: &str) {
        let script = "const found = document.querySelector(arguments[0]); \
                      return found && found.checkVisibility() && found.textContent.includes(arguments[1]);";
        self.wait_for_script(
            script,
            vec![json!(css), json!(wanted)],
            &format!("{css} with {wanted:?}"),
        )
        .await;
    }

    /// Waits until an expression is true in the page.
    pub async fn wait_until(&self, expression: &str) {
        self.wait_for_script(
            &format!("return Boolean({expression});"),
            vec![],
            expression,
        )
        .await;
    }

    async fn wait_for_script(&self, script: &str, arguments: Vec<Value>, what: &str) {
        let shown = async {
            while self
                .client
                .execute(script, arguments.clone())
                .await
                .unwrap()
                != true
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(TIMEOUT, shown).await.is_err() {
            let text = self.js("document.body.innerText").await;
            panic!(
                "no {what} within {TIMEOUT:?}; the page shows:\n{}",
                text.as_str().unwrap_or_default()
            );
        }
    }

    /// The value of an expression in the page.
    pub async fn js(&self, expression: &str) -> Value {
        self.client
            .execute(&format!("return {expression};"), vec![])
            .await
            .unwrap()
    }

    /// Clicks on an element.
    pub async fn click(&self, css: &str) {
        self.client
            .find(Locator::Css(css))
            .await
            .unwrap()
            .click()
            .await
            .unwrap();
    }

    /// Replaces the text of a field.
    pub async fn write(&self, css: &str, text: &str) {
        let field = self.client.find(Locator::Css(css)).await.unwrap();
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Sends keys to the element that has the focus.
    pub async fn type_keys(&self, keys: &str) {
        let typed = async {
            loop {
                let focused = self.client.active_element().await.unwrap();
                match focused.send_keys(keys).await {
                    Ok(()) => return,
                    // The page is replacing the element, or a dialog is still closing.
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let typed = tokio::time::timeout(TIMEOUT, typed).await;
        assert!(typed.is_ok(), "can't type {keys:?}");
    }

    /// The visible text of an element.
    pub async fn text(&self, css: &str) -> String {
        self.client
            .find(Locator::Css(css))
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    }

    /// Clicks on the first element that an XPath expression selects.
    pub async fn click_xpath(&self, xpath: &str) {
        let element = self.client.find(Locator::XPath(xpath)).await.unwrap();
        element.click().await.unwrap();
    }

    /// Loads the page again.
    pub async fn reload(&self) {
        self.client.refresh().await.unwrap();
    }

    /// Loads another page.
    pub async fn open(&self, url: &str) {
        self.client.goto(url).await.unwrap();
    }

    /// Sets the size of the page in CSS pixels, with two device pixels for each.
    pub async fn resize(&self, width: u32, height: u32) {
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics)
            .await;
    }

    /// Sets media features, such as `prefers-color-scheme` to `dark`.
    pub async fn emulate(&self, features: &[(&str, &str)]) {
        let features: Vec<_> = features
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        self.devtools("Emulation.setEmulatedMedia", json!({"features": features}))
            .await;
    }

    /// A screenshot of the visible part of the page, as a PNG.
    pub async fn screenshot(&self) -> Vec<u8> {
        self.client.screenshot().await.unwrap()
    }

    /// Runs statements in the page, and returns what they return.
    pub async fn run(&self, script: &str) -> Value {
        self.client.execute(script, vec![]).await.unwrap()
    }

    /// Runs statements in the page, which call `arguments[0]` with the result.
    pub async fn run_async(&self, script: &str) -> Value {
        self.client.execute_async(script, vec![]).await.unwrap()
    }

    /// Checks the page as it is now with axe.
    ///
    /// # Panics
    /// If axe finds a problem with accessibility; `what` says in which state the page was.
    pub async fn assert_accessible(&self, what: &str) {
        self.run(&axe()).await;
        let script = "const done = arguments[0]; axe.run().then(({ violations }) => done(violations.map((it) => \
                      `${it.id}: ${it.nodes.slice(0, 3).map((node) => `${node.html.slice(0, 200)} ${node.failureSummary}`).join(' | ')}`)), (error) => done([String(error)]))";
        assert_eq!(self.run_async(script).await, json!([]), "{what}");
    }

    /// Sends a command of the Chrome DevTools Protocol.
    pub async fn devtools(&self, command: &str, parameters: Value) -> Value {
        let command = DevTools {
            command: command.to_owned(),
            parameters,
        };
        self.client.issue_cmd(command).await.unwrap()
    }

    /// Checks that the browser logged no error, such as an exception or a violation of the content
    /// security policy.
    async fn assert_no_errors(&self) {
        let log = self.client.issue_cmd(BrowserLog).await.unwrap();
        let errors: Vec<_> = log
            .as_array()
            .unwrap()
            .iter()
            // Responses with an error status are logged too, but some tests expect them.
            .filter(|entry| entry["source"] != "network")
            .collect();
        assert!(errors.is_empty(), "{errors:?}");
    }
}

/// The script of axe, which `cargo xtask setup` fetches.
fn axe() -> String {
    let named = std::env::var_os("WAYPOST_AXE").map(PathBuf::from);
    let fetched = || {
        let tools = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/tools");
        let folders = std::fs::read_dir(tools).ok()?;
        let mut folders = folders.filter_map(|folder| folder.ok().map(|folder| folder.path()));
        let folder = folders.find(|it| it.to_string_lossy().contains("npm-axe-core-"))?;
        Some(folder.join("node_modules/axe-core/axe.min.js"))
    };
    let script = named.or_else(fetched).map(std::fs::read_to_string);
    script
        .expect("this test needs axe-core: run `cargo xtask setup` to fetch it")
        .unwrap()
}

/// chromedriver's command to read the log of the browser.
#[derive(Debug)]
struct BrowserLog;

impl WebDriverCompatibleCommand for BrowserLog {
    fn endpoint(
        &self,
        base: &url::Url,
        session: Option<&str>,
    ) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/se/log", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (
            http::Method::POST,
            Some(json!({"type": "browser"}).to_string()),
        )
    }
}

/// chromedriver's command to use the Chrome DevTools Protocol.
#[derive(Debug)]
struct DevTools {
    command: String,
    parameters: Value,
}

impl WebDriverCompatibleCommand for DevTools {
    fn endpoint(
        &self,
        base: &url::Url,
        session: Option<&str>,
    ) -> Result<url::Url, url::ParseError> {
        base.join(&format!(
            "session/{}/goog/cdp/execute",
            session.unwrap_or_default()
        ))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        let body = json!({"cmd": self.command, "params": self.parameters});
        (http::Method::POST, Some(body.to_string()))
    }
}

/// Starts a browser with a new profile, and its driver. On a busy machine the browser sometimes
/// doesn't start within the driver's timeout, so both are started up to three times.
async fn start_browser() -> (Child, Client, TempDir) {
    let mut failure = String::new();
    for _ in 0..3 {
        let profile = TempDir::new().unwrap();
        let (mut driver, port) = start_driver().await;
        match connect(port, &profile).await {
            Ok(client) => return (driver, client, profile),
            Err(error) => failure = error.to_string(),
        }
        let _ = driver.kill().await;
    }
    panic!("this test needs Chromium ({failure}): run `cargo xtask setup` to install it")
}

/// The driver chooses a free IPv4 port, and exits if that port is in use on IPv6. Then it is started
/// again.
async fn start_driver() -> (Child, u16) {
    for _ in 0..5 {
        let starting = tokio::time::timeout(TIMEOUT, try_to_start_driver());
        if let Some(started) = starting.await.expect("chromedriver should start in time") {
            return started;
        }
    }
    panic!("chromedriver exited five times before it listened");
}

async fn try_to_start_driver() -> Option<(Child, u16)> {
    let program = program("WAYPOST_CHROMEDRIVER", "chromedriver");
    let child = Command::new(&program)
        .arg("--port=0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let mut child = child.unwrap_or_else(|error| {
        panic!("this test needs Chromium and {program} ({error}): run `cargo xtask setup` to install them")
    });
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some((_, port)) = line.split_once("started successfully on port ") {
            return Some((child, port.trim_end_matches('.').parse().unwrap()));
        }
    }
    None
}

async fn connect(port: u16, profile: &TempDir) -> Result<Client, NewSessionError> {
    let chromium = program("WAYPOST_CHROMIUM", "chromium");
    let mut options = json!({
        "args": [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--window-size=1300,1000", format!("--user-data-dir={}", profile.path().display()),
        ],
    });
    if chromium != "chromium" {
        options["binary"] = json!(chromium);
    }
    let capabilities =
        json!({"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}});
    let Value::Object(capabilities) = capabilities else {
        unreachable!()
    };
    ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
        .capabilities(capabilities)
        .connect(&format!("http://127.0.0.1:{port}"))
        .await
}

fn program(variable: &str, default: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| default.to_owned())
}
