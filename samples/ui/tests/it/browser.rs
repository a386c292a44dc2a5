//! Drives a real Chromium by its chromedriver.

use std::panic::AssertUnwindSafe;
use std::process::Stdio;

use fantoccini::error::NewSessionError;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use futures_util::FutureExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::SOON;

/// A page open in a browser.
pub(crate) struct Page {
    client: Client,
}

impl Page {
    /// Runs a test in a browser of its own, which is closed even if the test fails.
    pub(crate) async fn visit(url: &str, test: impl AsyncFnOnce(&Self)) {
        let (mut driver, client, _profile) = start_browser().await;
        let page = Self { client };
        let outcome = AssertUnwindSafe(async {
            page.client.goto(url).await.unwrap();
            test(&page).await;
            page.assert_no_complaints().await;
        });
        let outcome = outcome.catch_unwind().await;
        // Ending the session ends the browser; without a browser the driver may go too.
        let _ = page.client.clone().close().await;
        let _ = driver.kill().await;
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    }

    /// Waits until an element is shown and its text contains `wanted`.
    pub(crate) async fn until(&self, css: &str, wanted: &str) {
        let script = "const found = document.querySelector(arguments[0]); \
                      return found && found.checkVisibility() && found.textContent.includes(arguments[1]);";
        self.until_script(
            script,
            vec![json!(css), json!(wanted)],
            &format!("{css} with {wanted:?}"),
        )
        .await;
    }

    /// Waits until an expression is true in the page.
    pub(crate) async fn until_true(&self, expression: &str) {
        self.until_script(
            &format!("return Boolean({expression});"),
            vec![],
            expression,
        )
        .await;
    }

    async fn until_script(&self, script: &str, arguments: Vec<Value>, what: &str) {
        let shown = async {
            while self
                .client
                .execute(script, arguments.clone())
                .await
                .unwrap()
                != true
            {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(SOON, shown).await.is_err() {
            let text = self.js("document.body.innerText").await;
            panic!(
                "never saw {what}; the page says:\n{}",
                text.as_str().unwrap_or_default()
            );
        }
    }

    /// The value of an expression in the page.
    pub(crate) async fn js(&self, expression: &str) -> Value {
        self.client
            .execute(&format!("return {expression};"), vec![])
            .await
            .unwrap()
    }

    pub(crate) async fn click(&self, css: &str) {
        self.client
            .find(Locator::Css(css))
            .await
            .unwrap()
            .click()
            .await
            .unwrap();
    }

    /// Replaces what stands in a field.
    pub(crate) async fn write(&self, css: &str, text: &str) {
        let field = self.client.find(Locator::Css(css)).await.unwrap();
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Chooses a model as a user does, by the card that bears its name.
    pub(crate) async fn choose(&self, model: &str) {
        self.until("#models", model).await;
        let card = format!("//label[b[text()='{model}']]");
        self.client
            .find(Locator::XPath(&card))
            .await
            .unwrap()
            .click()
            .await
            .unwrap();
    }

    /// Types keys into whatever has the focus.
    pub(crate) async fn type_keys(&self, keys: &str) {
        self.client
            .active_element()
            .await
            .unwrap()
            .send_keys(keys)
            .await
            .unwrap();
    }

    pub(crate) async fn text(&self, css: &str) -> String {
        self.client
            .find(Locator::Css(css))
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    }

    /// Fails if the browser had anything to complain of: an exception, a file that is missing,
    /// something that the content security policy forbids.
    async fn assert_no_complaints(&self) {
        let log = self.client.issue_cmd(BrowserLog).await.unwrap();
        let complaints: Vec<_> = log
            .as_array()
            .unwrap()
            .iter()
            // An answer with an error status is logged too; whether it was right is for the test to say.
            .filter(|entry| entry["source"] != "network")
            .collect();
        assert!(complaints.is_empty(), "{complaints:?}");
    }
}

/// Chromium's command to read what the browser logged.
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

/// A browser and its driver, with a profile of its own. On a busy machine a browser sometimes isn't
/// there in the time that its driver gives it; then both are started again.
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

/// The driver takes a free port for IPv4 and then wants the same one for IPv6; when somebody else was
/// quicker it gives up, so it is started again.
async fn start_driver() -> (Child, u16) {
    for _ in 0..5 {
        let starting = tokio::time::timeout(SOON, try_to_start_driver());
        if let Some(started) = starting.await.expect("chromedriver should listen soon") {
            return started;
        }
    }
    panic!("chromedriver ended five times before it began to listen");
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

fn program(variable: &str, usual: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| usual.to_owned())
}
