//! The OpenAPI documents in `docs/api` have every route, and the programs answer as they say.

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use boon::{Compiler, Schemas};
use reqwest::{Client, Method};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};
use waypost_testkit::free_ports;

use crate::session::repository;

const TIME_LIMIT: Duration = Duration::from_secs(60);

/// A document, whose schemas can be used for validation.
struct Document {
    json: Value,
    name: &'static str,
}

impl Document {
    fn open(name: &'static str) -> Self {
        let path = repository().join("docs/api").join(name);
        let json = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        Self { json, name }
    }

    fn paths(&self) -> BTreeSet<String> {
        self.json["paths"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect()
    }

    /// Validates a response with the schema for its status and content type.
    fn check(&self, method: &str, path: &str, status: u16, content_type: &str, body: &Value) {
        let content = content_type.split(';').next().unwrap();
        let escape = |part: &str| part.replace('~', "~0").replace('/', "~1");
        let pointer = format!(
            "/paths/{}/{method}/responses/{status}/content/{}/schema",
            escape(path),
            escape(content)
        );
        let place = format!("{}: {method} {path}: {status} {content}", self.name);
        assert!(
            self.json.pointer(&pointer).is_some(),
            "{place} is not documented\n{body}"
        );

        let (mut compiler, mut schemas) = (Compiler::new(), Schemas::new());
        let url = format!("file:///{}", self.name);
        compiler.add_resource(&url, self.json.clone()).unwrap();
        // In a URL, the braces of a path are encoded.
        let fragment = pointer.replace('{', "%7B").replace('}', "%7D");
        let index = compiler.compile(&format!("{url}#{fragment}"), &mut schemas);
        let index = index.unwrap_or_else(|error| panic!("{place}: {error}"));
        if let Err(error) = schemas.validate(body, index) {
            panic!("{place}: {error:#}\n{body:#}");
        }
    }
}

/// A stack with a program, on free ports.
struct Stack {
    _folder: TempDir,
    process: Child,
    registry: String,
    dashboard: String,
    internal: String,
    token: String,
    http: Client,
}

impl Stack {
    async fn start() -> Self {
        // The client of this test needs a provider, though it only uses plain HTTP.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let [registry, gateway, internal, dashboard, program] = free_ports();
        let folder = tempfile::tempdir().unwrap();
        // The gateway of a stack has its internal listener on 8001 or a free port, so that another one is started.
        let file = format!(
            "[waypost]\nregistry-port = {registry}\ngateway = false\ndashboard = {dashboard}\n\
             [services.web]\nrun = \"python3 -m http.server -b 127.0.0.1 {{port}}\"\nport = {program}\n\
             [services.api]\nrun = [{:?}, \"gateway\", \"--port\", \"{gateway}\", \"--internal\", \
             \"127.0.0.1:{internal}\"]\nport = {gateway}\nregister = \"self\"\n",
            env!("CARGO_BIN_EXE_waypost"),
        );
        fs::write(folder.path().join("waypost.toml"), file).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_waypost"))
            .arg("up")
            .current_dir(folder.path())
            .env("XDG_RUNTIME_DIR", folder.path())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stack = Self {
            process,
            registry: format!("http://127.0.0.1:{registry}"),
            dashboard: format!("http://localhost:{dashboard}"),
            internal: format!("http://127.0.0.1:{internal}"),
            token: String::new(),
            http: Client::builder().no_proxy().build().unwrap(),
            _folder: folder,
        };
        let deadline = Instant::now() + TIME_LIMIT;
        loop {
            let log = fs::read_to_string(stack._folder.path().join("log")).unwrap();
            let token = log.split("#token=").nth(1);
            let token = token.and_then(|rest| rest.split_whitespace().next());
            stack.token = token.unwrap_or_default().to_owned();
            let services = format!("{}/internal/services?service=web", stack.internal);
            let found = stack.http.get(services).send().await;
            let is_ready = match found {
                Ok(response) => response
                    .text()
                    .await
                    .is_ok_and(|text| text.contains("\"ready\":1")),
                Err(_) => false,
            };
            if is_ready && !stack.token.is_empty() {
                return stack;
            }
            assert!(Instant::now() < deadline, "not ready: {log}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sends a request and compares its response with the document. `path` is one of the document, `name` the service
    /// that stands for `{name}` in it.
    async fn ask(
        &self,
        document: &Document,
        server: &str,
        method: Method,
        path: &str,
        query: &str,
        body: &str,
    ) {
        let url = format!("{server}{}{query}", path.replace("{name}", "web"));
        let request = self.http.request(method.clone(), url).body(body.to_owned());
        let request = request.header("X-Waypost-Token", &self.token);
        let response = request.timeout(TIME_LIMIT).send().await.unwrap();
        let status = response.status().as_u16();
        let content_type = response.headers().get("content-type").cloned();
        let content_type = content_type.as_ref().map_or("", |it| it.to_str().unwrap());
        let text = response.text().await.unwrap();
        let bodies: Vec<Value> = match content_type.split(';').next().unwrap() {
            "application/x-ndjson" => text
                .lines()
                .map(|it| serde_json::from_str(it).unwrap())
                .collect(),
            "text/plain" => vec![Value::from(text)],
            _ => vec![serde_json::from_str(&text).unwrap_or_else(|_| panic!("{path}: {text}"))],
        };
        for body in &bodies {
            document.check(
                method.as_str().to_lowercase().as_str(),
                path,
                status,
                content_type,
                body,
            );
        }
    }

    /// The first event of a stream, by its name.
    async fn first_event(&self, url: &str) -> (String, Value) {
        let mut response = self.http.get(url).send().await.unwrap();
        let mut text = String::new();
        while !text.contains("\n\n") {
            let chunk = tokio::time::timeout(TIME_LIMIT, response.chunk())
                .await
                .unwrap();
            text.push_str(std::str::from_utf8(&chunk.unwrap().unwrap()).unwrap());
        }
        let field = |name: &str| {
            let mut lines = text.lines();
            lines
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or_else(|| panic!("no {name}: {text}"))
        };
        (
            field("event: ").to_owned(),
            serde_json::from_str(field("data: ")).unwrap(),
        )
    }
}

#[tokio::test]
async fn the_programs_answer_as_the_openapi_documents_say() {
    let stack = Stack::start().await;
    let (get, post) = (Method::GET, Method::POST);

    let api = Document::open("stack.json");
    let server = stack.dashboard.as_str();
    stack
        .ask(&api, server, get.clone(), "/api/stack", "", "")
        .await;
    stack
        .ask(&api, server, get.clone(), "/api/logs", "?n=50", "")
        .await;
    stack
        .ask(
            &api,
            server,
            get.clone(),
            "/api/logs",
            "?since=tomorrow",
            "",
        )
        .await;
    stack
        .ask(
            &api,
            server,
            get.clone(),
            "/api/logs",
            "?service=nobody",
            "",
        )
        .await;
    let environment = "/api/services/{name}/environment";
    stack
        .ask(&api, server, get.clone(), environment, "", "")
        .await;
    for (action, query, body) in [
        ("stop", "?wait=true", ""),
        ("start", "?wait=true", ""),
        ("restart", "", "{\"cascade\": true}"),
        ("restart", "", "{\"cascade\": 1}"),
        ("scale", "?wait=true", "{\"replicas\": 2}"),
        ("scale", "", "{\"replicas\": 1000}"),
    ] {
        let path = format!("/api/services/{{name}}/{action}");
        stack
            .ask(&api, server, post.clone(), &path, query, body)
            .await;
    }
    let (name, data) = stack.first_event(&format!("{server}/api/events")).await;
    assert_eq!(name, "snapshot");
    api.check("get", "/api/stack", 200, "application/json", &data);

    let registry = Document::open("registry.json");
    let server = stack.registry.as_str();
    stack
        .ask(&registry, server, get.clone(), "/v1/waypost/checks", "", "")
        .await;
    stack
        .ask(
            &registry,
            server,
            get.clone(),
            "/v1/waypost/checks",
            "?service=web",
            "",
        )
        .await;
    stack
        .ask(
            &registry,
            server,
            get.clone(),
            "/v1/waypost/events",
            "?after=x",
            "",
        )
        .await;
    let (name, data) = stack
        .first_event(&format!("{server}/v1/waypost/events"))
        .await;
    assert_eq!(name, "snapshot");
    registry.check_component("Snapshot", &data);

    let gateway = Document::open("gateway.json");
    let server = stack.internal.as_str();
    for path in [
        "/",
        "/internal/health",
        "/internal/services",
        "/internal/routes",
        "/livez",
        "/readyz",
        "/health",
    ] {
        stack.ask(&gateway, server, get.clone(), path, "", "").await;
    }
    stack
        .ask(
            &gateway,
            server,
            get.clone(),
            "/internal/services",
            "?limit=0",
            "",
        )
        .await;
    stack
        .ask(&gateway, server, get.clone(), "/metrics", "", "")
        .await;
    let (name, data) = stack
        .first_event(&format!("{server}/internal/traffic?seconds=60"))
        .await;
    assert_eq!(name, "snapshot");
    assert!(
        data["second"].is_u64() && data["services"].is_object(),
        "{data}"
    );
    // Last, since it ends everything.
    let down = format!("{}/api/down", stack.dashboard);
    let without_token = stack.http.post(&down).send().await.unwrap();
    let (status, text) = (
        without_token.status().as_u16(),
        without_token.text().await.unwrap(),
    );
    let problem = serde_json::from_str(&text).unwrap();
    api.check(
        "post",
        "/api/down",
        status,
        "application/problem+json",
        &problem,
    );
    let down = stack
        .http
        .post(down)
        .header("X-Waypost-Token", &stack.token)
        .send()
        .await;
    assert_eq!(down.unwrap().status(), 202);
    let Stack {
        mut process,
        _folder,
        ..
    } = stack;
    let ended = tokio::time::timeout(TIME_LIMIT, process.wait()).await;
    assert!(ended.unwrap().unwrap().success());
}

impl Document {
    fn check_component(&self, name: &str, value: &Value) {
        let (mut compiler, mut schemas) = (Compiler::new(), Schemas::new());
        let url = format!("file:///{}", self.name);
        compiler.add_resource(&url, self.json.clone()).unwrap();
        let index = compiler
            .compile(&format!("{url}#/components/schemas/{name}"), &mut schemas)
            .unwrap();
        if let Err(error) = schemas.validate(value, index) {
            panic!("{}: {name}: {error:#}\n{value:#}", self.name);
        }
    }
}

/// The paths in string literals of the files in a folder that begin with `prefix`.
fn literals(folder: &str, prefix: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![repository().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            let lines = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            for line in lines {
                let literals = line.split('"').skip(1).step_by(2);
                found.extend(
                    literals
                        .filter(|it| it.starts_with(prefix))
                        .map(str::to_owned),
                );
            }
        }
    }
    found
}

/// The routes of the control API, without those that only the socket has.
fn routes() -> BTreeSet<String> {
    let source = repository().join("crates/waypost-runner/src/control/routes.rs");
    let source = fs::read_to_string(source).unwrap();
    let (_, common) = source.split_once("\nfn common(").unwrap();
    let calls = common.split(".route(\"").skip(1);
    calls
        .filter_map(|rest| rest.split('"').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_openapi_documents_have_every_route_and_no_other() {
    let control = routes();
    assert_eq!(Document::open("stack.json").paths(), control);

    let registry = literals("crates/waypost-agent/src/http/waypost", "/v1/");
    assert_eq!(Document::open("registry.json").paths(), registry);

    let mut gateway = literals("crates/waypost-gateway/src/pages", "/internal/");
    let others = ["/", "/metrics", "/livez", "/readyz", "/health"];
    gateway.extend(others.map(str::to_owned));
    gateway.retain(|path| !path.contains([' ', ',']));
    assert_eq!(Document::open("gateway.json").paths(), gateway);
}
