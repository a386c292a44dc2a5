//! Stacks of `waypost.toml`: `waypost up` and the commands that control it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use waypost_testkit::free_ports;

use crate::support::*;

/// An HTTP service in Python that answers each request with its port and its environment, unless the
/// file `unhealthy` is in its folder.
const SERVER: &str = r#"
import http.server, json, os, sys
port = int(sys.argv[1])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ok = not os.path.exists("unhealthy")
        body = json.dumps({"port": port, "pid": os.getpid(), "env": dict(os.environ)}).encode()
        body = body if ok else b"database timed out"
        self.send_response(200 if ok else 503)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
print("listening on", port, flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"#;

/// A folder with a stack file, its own folder for sockets, and free ports for Waypost's programs.
struct Folder {
    dir: TempDir,
    registry: u16,
    gateway: u16,
}

impl Folder {
    /// `services` is the part of the file with the services.
    fn new(services: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [registry, gateway, dashboard] = free_ports();
        std::fs::write(dir.path().join("server.py"), SERVER).unwrap();
        let head = format!(
            "name = \"shop\"\n[waypost]\nregistry-port = {registry}\ngateway = {gateway}\n\
             dashboard = {dashboard}\n"
        );
        std::fs::write(dir.path().join("waypost.toml"), head + services).unwrap();
        Self {
            dir,
            registry,
            gateway,
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn command(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = waypost(arguments);
        command
            .current_dir(self.path())
            .env("XDG_RUNTIME_DIR", self.path().join("run"));
        command
    }

    async fn run(&self, arguments: &[&str]) -> Finished {
        Finished::of(self.command(arguments)).await
    }

    /// Starts the stack and waits for its summary.
    async fn up(&self, arguments: &[&str]) -> Program {
        let mut all = vec!["up"];
        all.extend(arguments);
        let mut up = Program::start(self.command(&all));
        up.wait_for_output("Ctrl-C stops all").await;
        up
    }

    /// The instances in the registry that pass their checks, as ids.
    async fn passing(&self, service: &str) -> Vec<String> {
        let path = format!("/v1/health/service/{service}?passing");
        let entries = get_json(&format!("http://127.0.0.1:{}{path}", self.registry)).await;
        let ids = entries.as_array().unwrap().iter();
        ids.map(|entry| entry["Service"]["ID"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The response of a service through the gateway.
    async fn call(&self, service: &str) -> Value {
        get_json(&format!("http://127.0.0.1:{}/{service}/", self.gateway)).await
    }

    /// Replaces a file atomically, so that there is one change, and no reader sees half a file.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        let new = self.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &path).unwrap();
        path
    }
}

/// Sends Ctrl-C, and checks that no process is left. Returns all output.
async fn stop(mut up: Program) -> String {
    let all = descendants(up.pid());
    up.interrupt();
    assert_eq!(up.wait_for_exit().await, Some(0), "{}", up.output());
    assert!(all.iter().all(|pid| !is_running(*pid)), "{}", up.output());
    up.output()
}

#[tokio::test]
async fn programs_that_do_not_use_waypost_are_found_and_balanced() {
    let [port] = free_ports();
    let folder = Folder::new(&format!(
        r#"
[services.orders]
run = "python3 server.py {{port}}"
port = {port}
replicas = 2
ready = {{ http = "/health" }}
register = {{ tags = ["v1"], version = "1.4.2" }}
uses = ["catalog"]
env = {{ CATALOG_PORT = "{{services.catalog.port}}" }}

[services.catalog]
run = "python3 server.py {{port}}"
port = 0
"#
    ));
    let up = folder.up(&[]).await;
    eventually("both instances are found", async || {
        (folder.passing("orders").await == ["orders-1", "orders-2"]).then_some(())
    })
    .await;
    let mut ports = std::collections::BTreeSet::new();
    eventually("both are called", async || {
        ports.insert(folder.call("orders").await["port"].as_u64().unwrap());
        (ports.len() == 2).then_some(())
    })
    .await;
    let catalog = folder.call("catalog").await["port"].to_string();
    let env = folder.call("orders").await["env"].clone();
    assert_eq!(env["CATALOG_PORT"], catalog);
    assert_eq!(
        env["CONSUL_HTTP_ADDR"],
        format!("127.0.0.1:{}", folder.registry)
    );
    assert_eq!(env["SERVICE_REGISTRY_PORT"], folder.registry.to_string());
    let url = format!("http://127.0.0.1:{}/catalog", folder.gateway);
    assert_eq!(
        (&env["CATALOG_URL"], &env["SERVICE_CATALOG_URL"]),
        (&json!(url), &json!(url))
    );
    assert!(ports.contains(&env["PORT"].as_str().unwrap().parse().unwrap()));
    stop(up).await;
}

#[tokio::test]
async fn a_failed_service_is_shown_with_its_last_lines_and_the_others_keep_running() {
    let folder = Folder::new(
        r#"
[services.web]
run = "python3 server.py {port}"
port = 0
[services.payments]
run = "sh -c 'echo starting; echo Error: STRIPE_KEY is wrong >&2; exit 3'"
[services.mailer]
run = "true"
needs-env = ["SMTP_URL"]
[services.late]
run = "sleep 600"
after = ["payments"]
"#,
    );
    let up = folder.up(&[]).await;
    let output = up.output();
    for text in [
        ": exited with code 3 after ",
        "Error: STRIPE_KEY is wrong",
        "waypost logs payments",
        "mailer is failed: SMTP_URL is not set",
        "add it to .env",
        "late is waiting: waits for payments",
        "3 of 6 ready",
    ] {
        assert!(output.contains(text), "no {text:?} in:\n{output}");
    }
    folder.call("web").await;
    stop(up).await;
}

#[tokio::test]
async fn a_second_up_reports_that_the_stack_is_already_running() {
    let folder = Folder::new("[services.worker]\nrun = \"sleep 600\"\n");
    let up = folder.up(&[]).await;
    let second = folder.run(&["up"]).await;
    assert_eq!(second.code, Some(1));
    let pid = format!("the stack `shop` is already running (pid {})", up.pid());
    assert!(second.stderr.contains(&pid), "{}", second.stderr);
    assert!(second.stderr.contains("waypost down"), "{}", second.stderr);
    stop(up).await;
    // The socket was removed, so the stack can be started again.
    stop(folder.up(&[]).await).await;
}

#[tokio::test]
async fn only_the_named_services_and_their_dependencies_are_started() {
    let folder = Folder::new(
        r#"
[services.web]
run = "sleep 600"
after = ["database"]
[services.database]
run = "sleep 600"
[services.other]
run = "sleep 600"
[services.storybook]
run = "sleep 600"
profiles = ["ui"]
"#,
    );
    let started = async |arguments: &[&str]| {
        let lines = stop(folder.up(arguments).await).await;
        let names = ["web", "database", "other", "storybook"].into_iter();
        names
            .filter(|name| {
                lines
                    .lines()
                    .any(|line| line.starts_with(name) && line.contains("| healthy"))
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(started(&[]).await, ["web", "database", "other"]);
    assert_eq!(started(&["web"]).await, ["web", "database"]);
    assert_eq!(started(&["web", "--no-deps"]).await, ["web"]);
    assert_eq!(started(&["storybook"]).await, ["storybook"]);
    let all = ["web", "database", "other", "storybook"];
    assert_eq!(started(&["--profile", "ui"]).await, all);
    let wrong = folder.run(&["up", "wbe"]).await;
    assert_eq!(wrong.code, Some(2));
    assert!(
        wrong.stderr.contains("did you mean web?"),
        "{}",
        wrong.stderr
    );
}

#[tokio::test]
async fn a_port_in_use_is_reported_with_its_process_and_auto_port_chooses_another() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let folder = Folder::new(&format!(
        "[services.web]\nrun = \"python3 server.py {{port}}\"\nport = {port}\n"
    ));
    let refused = folder.run(&["up"]).await;
    assert_eq!(refused.code, Some(1));
    let expected = format!(
        "port {port} of `web` is in use by pid {}",
        std::process::id()
    );
    assert!(refused.stderr.contains(&expected), "{}", refused.stderr);
    assert!(refused.stderr.contains("--auto-port"), "{}", refused.stderr);
    let up = folder.up(&["--auto-port"]).await;
    eventually("it is found", async || {
        (!folder.passing("web").await.is_empty()).then_some(())
    })
    .await;
    assert_ne!(folder.call("web").await["port"], json!(port));
    stop(up).await;
}

#[tokio::test]
async fn a_failing_check_is_in_the_registry_with_its_reason() {
    let folder = Folder::new(
        r#"
[services.orders]
run = "python3 server.py {port}"
port = 0
ready = { http = "/health", every = "100ms" }
"#,
    );
    let up = folder.up(&[]).await;
    eventually("it passes", async || {
        (folder.passing("orders").await.len() == 1).then_some(())
    })
    .await;
    folder.write("unhealthy", "");
    let url = format!(
        "http://127.0.0.1:{}/v1/health/checks/orders",
        folder.registry
    );
    let output = eventually("it is critical", async || {
        let checks = get_json(&url).await;
        let check = checks
            .as_array()?
            .iter()
            .find(|it| it["Status"] == "critical")?;
        Some(check["Output"].as_str()?.to_owned())
    })
    .await;
    assert!(output.contains("503"), "{output}");
    assert!(output.contains("database timed out"), "{output}");
    std::fs::remove_file(folder.path().join("unhealthy")).unwrap();
    eventually("it passes again", async || {
        (folder.passing("orders").await.len() == 1).then_some(())
    })
    .await;
    stop(up).await;
}

#[tokio::test]
async fn all_problems_of_an_invalid_file_are_reported_before_anything_starts() {
    let folder = Folder::new("[services.web]\nrun = \"x {port}\"\nprot = 1\nafter = [\"y\"]\n");
    for command in ["check", "up"] {
        let result = folder.run(&[command]).await;
        assert_eq!(result.code, Some(2));
        let errors: Vec<_> = result.stderr.lines().collect();
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert_eq!(errors[0], "waypost: 1 error in the stack file");
        assert_eq!(
            errors[1],
            "  waypost.toml:8:1: unknown key `prot`; did you mean `port`?"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_of_a_stack_has_the_routes_of_its_file_and_reads_them_again_after_a_change() {
    let folder = Folder::new(
        "routes = \"routes.yaml\"\n[services.orders]\nrun = \"python3 server.py {port}\"\nport = 0\n",
    );
    folder.write(
        "routes.yaml",
        "routes:\n- {match: {path: /api}, servce: orders}\n",
    );
    for command in ["check", "up"] {
        let refused = folder.run(&[command]).await;
        assert_ne!(refused.code, Some(0));
        for part in ["routes.yaml:2:", "servce"] {
            assert!(refused.stderr.contains(part), "{}", refused.stderr);
        }
    }

    let routes = |path: &str| format!("routes:\n- {{match: {{path: {path}}}, service: orders}}\n");
    folder.write("routes.yaml", &routes("/api"));
    let up = folder.up(&[]).await;
    for path in ["/api", "/v2"] {
        folder.write("routes.yaml", &routes(path));
        eventually(&format!("{path} is a route"), async || {
            let (status, _) = get(&format!("http://127.0.0.1:{}{path}/", folder.gateway)).await;
            (status == 200).then_some(())
        })
        .await;
    }
    stop(up).await;
}

#[tokio::test]
async fn a_running_stack_is_controlled_from_another_terminal() {
    let folder = Folder::new(
        r#"
[services.orders]
run = "python3 server.py {port}"
port = 0
ready = { http = "/health" }
env = { STRIPE_KEY = "sk_live_1", MODE = "test" }
[services.web]
run = "python3 server.py {port}"
port = 0
after = ["orders"]
[services.worker]
run = "sh -c 'echo INFO working; echo ERROR no mail; sleep 600'"
dir = "jobs"
[services.cleaner]
run = "sh -c 'echo no space >&2; sleep 600'"
"#,
    );
    std::fs::create_dir(folder.path().join("jobs")).unwrap();
    let up = folder.up(&[]).await;
    let pid = async |service: &str| {
        let stack = folder.run(&["ps", service, "--json"]).await;
        let stack: Value = serde_json::from_str(&stack.stdout).unwrap();
        stack["services"][0]["instances"][0]["pid"].clone()
    };
    let ps = folder.run(&["ps"]).await;
    assert_eq!(ps.code, Some(0), "{}", ps.stderr);
    for text in [
        "SERVICE",
        "orders",
        "● ready",
        "1/1",
        "● running",
        "registry",
    ] {
        assert!(ps.stdout.contains(text), "no {text:?} in:\n{}", ps.stdout);
    }

    let (orders, web) = (pid("orders").await, pid("web").await);
    let restarted = folder.run(&["restart", "orders"]).await;
    assert_eq!(
        (restarted.code, &*restarted.stdout),
        (Some(0), "orders restarted\n")
    );
    assert_ne!(pid("orders").await, orders);
    assert_eq!(pid("web").await, web);
    folder.run(&["restart", "--cascade", "orders"]).await;
    assert_ne!(pid("web").await, web);

    let scaled = folder.run(&["scale", "orders=3"]).await;
    assert_eq!(scaled.code, Some(0), "{}", scaled.stderr);
    eventually("all three are found", async || {
        (folder.passing("orders").await.len() == 3).then_some(())
    })
    .await;
    assert_eq!(folder.run(&["stop", "orders"]).await.code, Some(0));
    assert!(
        folder
            .run(&["ps", "orders"])
            .await
            .stdout
            .contains("○ stopped")
    );
    eventually("none is registered", async || {
        let path = format!(
            "http://127.0.0.1:{}/v1/health/service/orders",
            folder.registry
        );
        get_json(&path).await.as_array()?.is_empty().then_some(())
    })
    .await;
    assert_eq!(folder.run(&["start", "orders"]).await.code, Some(0));

    let logs = folder.run(&["logs", "worker", "--level", "error"]).await;
    assert_eq!(logs.stdout, "worker  ERROR no mail\n");
    let logs = folder.run(&["logs", "--grep", "WORKING", "--json"]).await;
    let line: Value = serde_json::from_str(&logs.stdout).unwrap();
    assert_eq!(
        (&line["service"], &line["level"]),
        (&json!("worker"), &json!("info"))
    );

    let env = folder.run(&["env", "orders"]).await.stdout;
    assert!(env.contains("MODE=test  # env\n"), "{env}");
    assert!(env.contains("STRIPE_KEY=***  # env\n"), "{env}");
    assert!(env.contains("  # waypost\n"), "{env}");
    let exec = folder
        .run(&["exec", "orders", "--", "sh", "-c", "echo $STRIPE_KEY; pwd"])
        .await;
    let directory = folder.path().canonicalize().unwrap();
    assert_eq!(exec.stdout, format!("sk_live_1\n{}\n", directory.display()));
    let exec = folder.run(&["exec", "worker", "--", "pwd"]).await;
    assert_eq!(exec.stdout, format!("{}/jobs\n", directory.display()));

    for (arguments, code, text) in [
        (&["restart", "odrers"][..], 3, "unknown service `odrers`"),
        (&["ps", "odrers"], 3, "did you mean orders?"),
        (&["logs", "odrers"], 3, "did you mean `orders`?"),
        (
            &["logs", "--level", "loud"],
            2,
            "use error, warn, info, debug or trace",
        ),
        (&["scale", "orders=many"], 2, "must be a number"),
        (&["scale", "worker"], 2, "use NAME=N"),
        (&["stop", "../x"], 2, "is not the name of a service"),
    ] {
        let result = folder.run(arguments).await;
        assert_eq!(result.code, Some(code), "{arguments:?}: {}", result.stderr);
        assert!(
            result.stderr.contains(text),
            "{arguments:?}: {}",
            result.stderr
        );
    }

    let all = descendants(up.pid());
    let down = folder.run(&["down"]).await;
    assert_eq!((down.code, &*down.stdout), (Some(0), "shop is down\n"));
    assert!(all.iter().all(|pid| !is_running(*pid)));
    let gone = folder.run(&["ps"]).await;
    assert_eq!(gone.code, Some(3));
    assert!(
        gone.stderr.contains("start it: waypost up"),
        "{}",
        gone.stderr
    );
    // Nothing new will be written.
    let followed = folder.run(&["logs", "--follow"]).await;
    assert_eq!((followed.code, &*followed.stdout), (Some(3), ""));
    assert!(
        followed.stderr.contains("start it: waypost up"),
        "{}",
        followed.stderr
    );
    // The output is still available.
    let kept = folder.run(&["logs", "cleaner", "--grep", "space"]).await;
    assert_eq!(kept.stdout, "cleaner  no space\n");
    let kept = folder.run(&["logs", "worker", "--level", "error"]).await;
    assert_eq!(kept.stdout, "worker  ERROR no mail\n");
    let of_worker = ["logs", "worker", "--level", "error", "--since"];
    for (since, expected) in [
        ("1h", "worker  ERROR no mail\n"),
        ("2100-01-01T00:00:00Z", ""),
    ] {
        let kept = folder.run(&[&of_worker[..], &[since]].concat()).await;
        assert_eq!((kept.code, &*kept.stdout), (Some(0), expected), "{since}");
    }
}

#[tokio::test]
async fn options_replace_the_ports_and_the_number_of_replicas_in_the_file() {
    let mut folder = Folder::new(
        r#"
[services.web]
run = "python3 server.py {port}"
port = 0
ready = { http = "/" }
[services.api]
run = "python3 server.py {port}"
port = 0
[services.migrate]
run = "true"
once = true
"#,
    );
    let [registry, gateway, dashboard, api] = free_ports();
    let ports = [
        format!("registry={registry}"),
        format!("gateway={gateway}"),
        format!("dashboard={dashboard}"),
        format!("api={api}"),
    ];
    let mut arguments: Vec<_> = ports.iter().flat_map(|port| ["--port", port]).collect();
    arguments.extend(["--scale", "web=2"]);
    (folder.registry, folder.gateway) = (registry, gateway);
    let up = folder.up(&arguments).await;
    eventually("both replicas are found", async || {
        (folder.passing("web").await.len() == 2).then_some(())
    })
    .await;
    assert_eq!(folder.call("api").await["port"], api);
    let (status, _) = get(&format!("http://127.0.0.1:{dashboard}/")).await;
    assert_eq!(status, 200);

    let ps = folder.run(&["ps", "-o", "wide"]).await.stdout;
    let of_instances = ps.lines().filter(|line| line.starts_with("  "));
    assert_eq!(of_instances.count(), 2, "{ps}");
    let web = folder.run(&["ps", "web", "--json"]).await.stdout;
    let web: Value = serde_json::from_str(&web).unwrap();
    let pids = [0, 1].map(|index| &web["services"][0]["instances"][index]["pid"]);
    let pids = format!(" {},{} ", pids[0], pids[1]);
    assert!(ps.contains(&pids), "no{pids}in:\n{ps}");
    stop(up).await;

    for (arguments, text) in [
        (&["--scale", "migrate=2"][..], "migrate is a one-time task"),
        (
            &["--registry", "127.0.0.1:9", "--port", "registry=10"],
            "the port is already given by the stack file or --registry",
        ),
    ] {
        let refused = folder.run(&[&["up"], arguments].concat()).await;
        assert_eq!(refused.code, Some(2), "{arguments:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(text), "{}", refused.stderr);
    }
}

#[tokio::test]
async fn ps_with_watch_prints_the_services_now_and_after_each_change() {
    let folder =
        Folder::new("[services.api]\nrun = \"sleep 600\"\n[services.web]\nrun = \"sleep 600\"\n");
    let up = folder.up(&[]).await;
    let mut watch = Program::start(folder.command(&["ps", "api", "web", "--watch"]));
    watch.wait_for_output("● running").await;
    assert_eq!(folder.run(&["stop", "web"]).await.code, Some(0));
    watch.wait_for_output("○ stopped").await;
    let printed = watch.output();
    let last = |name: &str| {
        let line = printed.lines().rfind(|line| line.starts_with(name));
        line.unwrap_or_else(|| panic!("no {name} in:\n{printed}"))
    };
    assert!(last("api").contains("● running"), "{printed}");
    assert!(last("web").contains("○ stopped"), "{printed}");
    stop(up).await;
}

#[tokio::test]
async fn open_starts_the_browser_with_the_address_of_the_service() {
    let [port] = free_ports();
    let folder = Folder::new(&format!(
        "[services.web]\nrun = \"python3 server.py {{port}}\"\nport = {port}\n\
         [services.worker]\nrun = \"sleep 600\"\n"
    ));
    let browser = folder.write("browser", "#!/bin/sh\necho \"$1\" > opened\n");
    std::fs::set_permissions(&browser, Permissions::from_mode(0o755)).unwrap();
    let open = async |service: &str| {
        let mut command = folder.command(&["open", service]);
        command.env("BROWSER", &browser);
        Finished::of(command).await
    };
    let up = folder.up(&[]).await;
    let dashboard = folder.command(&["open"]).env("BROWSER", "true").output();
    let dashboard = String::from_utf8(dashboard.await.unwrap().stdout).unwrap();
    let (page, token) = dashboard.trim_end().split_once("/#token=").unwrap();
    assert_eq!(get(page).await.0, 200, "{dashboard}");
    assert!(up.output().contains(token), "{}", up.output());

    let opened = open("web").await;
    let url = format!("http://localhost:{port}/\n");
    assert_eq!((opened.code, &*opened.stdout), (Some(0), &*url));
    eventually("the browser has the address", async || {
        let opened = std::fs::read_to_string(folder.path().join("opened")).ok()?;
        (opened == url).then_some(())
    })
    .await;
    for (service, text) in [
        ("wbe", "the stack has no service \"wbe\"; did you mean web?"),
        ("worker", "worker has no port to open"),
    ] {
        let result = open(service).await;
        assert_eq!(result.code, Some(3), "{}", result.stderr);
        assert!(result.stderr.contains(text), "{}", result.stderr);
    }
    stop(up).await;
}

#[tokio::test]
async fn a_failed_restart_is_reported_with_its_reason_and_the_last_lines() {
    let folder = Folder::new(
        "[services.web]\nrun = \"sh -c 'test ! -e broken || { echo Error: broken; exit 1; }; exec sleep 600'\"\n",
    );
    let up = folder.up(&[]).await;
    folder.write("broken", "");
    let result = folder.run(&["restart", "web"]).await;
    assert_eq!(result.code, Some(1));
    assert!(
        result.stderr.contains("exited with code 1"),
        "{}",
        result.stderr
    );
    assert!(result.stderr.contains("Error: broken"), "{}", result.stderr);
    stop(up).await;
}

#[tokio::test]
async fn a_detached_stack_keeps_running_and_a_failure_is_reported() {
    let folder = Folder::new("[services.web]\nrun = \"python3 server.py {port}\"\nport = 0\n");
    let up = folder.run(&["up", "-d", "--wait"]).await;
    assert_eq!(up.code, Some(0), "{}", up.stderr);
    assert!(up.stdout.contains("3 of 3 ready"), "{}", up.stdout);
    folder.call("web").await;
    let again = folder.run(&["up", "-d"]).await;
    assert!(again.stderr.contains("already running"), "{}", again.stderr);
    assert_eq!(folder.run(&["down"]).await.code, Some(0));

    let folder = Folder::new("[services.web]\nrun = \"false\"\n");
    let up = folder.run(&["up", "-d", "--wait"]).await;
    assert_eq!(up.code, Some(1));
    assert!(up.stdout.contains("exited with code 1"), "{}", up.stdout);
    assert_eq!(folder.run(&["down"]).await.code, Some(0));

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let folder = Folder::new(&format!(
        "[services.web]\nrun = \"sleep 9\"\nport = {port}\n"
    ));
    let up = folder.run(&["up", "-d"]).await;
    assert_eq!(up.code, Some(1));
    assert!(up.stderr.contains("is in use by pid"), "{}", up.stderr);
}

#[tokio::test]
async fn one_program_is_registered_for_as_long_as_it_runs() {
    let registry = Registry::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("server.py"), SERVER).unwrap();
    let arguments = ["run", "orders", "--health", "/health", "--"];
    let mut command =
        registry.command(&[&arguments[..], &["python3", "server.py", "{port}"]].concat());
    command.current_dir(dir.path());
    let mut program = Program::start(command);
    let port = eventually("it is registered", async || {
        let path = format!(
            "http://{}/v1/health/service/orders?passing",
            registry.address
        );
        get_json(&path).await[0]["Service"]["Port"].as_u64()
    })
    .await;
    let answer = get_json(&format!("http://127.0.0.1:{port}/")).await;
    assert_eq!(answer["env"]["PORT"], port.to_string());
    program.interrupt();
    assert_eq!(
        program.wait_for_exit().await,
        Some(0),
        "{}",
        program.output()
    );
    assert!(registry.instances("orders").await.is_empty());

    let failed = registry
        .run(&["run", "job", "--", "sh", "-c", "exit 7"])
        .await;
    assert_eq!(failed.code, Some(7), "{failed:?}");
}

#[tokio::test]
async fn a_second_ctrl_c_kills_programs_that_ignore_the_first() {
    let folder = Folder::new(
        "[services.stubborn]\nrun = \"sh -c 'trap : TERM; while :; do sleep 1; done'\"\n\
         stop = { within = \"10m\" }\n",
    );
    let mut up = folder.up(&[]).await;
    let all = descendants(up.pid());
    up.interrupt();
    up.wait_for_output("stubborn | stopping").await;
    assert!(all.iter().any(|pid| is_running(*pid)));
    up.interrupt();
    assert_eq!(up.wait_for_exit().await, Some(0), "{}", up.output());
    assert!(all.iter().all(|pid| !is_running(*pid)));
}

#[tokio::test]
async fn only_the_changed_service_is_restarted() {
    let folder = Folder::new(
        "[services.web]\nrun = \"python3 server.py {port}\"\nport = 0\n\
         build = \"cp page.txt built.txt\"\nwatch = { paths = [\"page.txt\"] }\n\
         [services.other]\nrun = \"sleep 600\"\nafter = [\"web\"]\n",
    );
    folder.write("page.txt", "one");
    let up = folder.up(&[]).await;
    folder.write("page.txt", "two");
    let built = folder.path().join("built.txt");
    eventually("it is built and restarted", async || {
        let stack = folder.run(&["ps", "--json"]).await;
        let stack: Value = serde_json::from_str(&stack.stdout).unwrap();
        let services = stack["services"].as_array().unwrap();
        let find = |name: &str| {
            services
                .iter()
                .find(|it| it["name"] == name)
                .unwrap()
                .clone()
        };
        let (web, other) = (find("web"), find("other"));
        assert_eq!(other["restarts"], 0);
        (web["restarts"] == 1 && web["state"] == "ready").then_some(())
    })
    .await;
    assert_eq!(std::fs::read_to_string(built).unwrap(), "two");
    let logs = folder.run(&["logs", "web"]).await.stdout;
    assert!(logs.contains("── page.txt changed"), "{logs}");
    stop(up).await;
}

#[tokio::test]
async fn no_process_is_left_when_the_runner_is_killed() {
    let folder = Folder::new(
        "[services.web]\nrun = \"python3 server.py {port}\"\nport = 0\n\
         [services.stubborn]\nrun = \"sh -c 'trap : TERM HUP INT; while :; do sleep 1; done'\"\n",
    );
    let mut up = folder.up(&[]).await;
    let all = descendants(up.pid());
    assert!(all.len() >= 8, "{all:?}");
    signal(up.pid(), rustix::process::Signal::KILL);
    up.wait_for_exit().await;
    eventually("all are gone", async || {
        all.iter().all(|pid| !is_running(*pid)).then_some(())
    })
    .await;
    // The stale socket is replaced.
    let second = folder.up(&[]).await;
    stop(second).await;
}

#[tokio::test]
async fn up_check_succeeds_only_if_everything_is_ready() {
    let good = Folder::new("[services.worker]\nrun = \"sleep 600\"\n");
    assert_eq!(good.run(&["up", "--check"]).await.code, Some(0));
    let bad = Folder::new("[services.worker]\nrun = \"false\"\n");
    let result = tokio::time::timeout(Duration::from_secs(60), bad.run(&["up", "--check"])).await;
    assert_eq!(result.unwrap().code, Some(1));
}
