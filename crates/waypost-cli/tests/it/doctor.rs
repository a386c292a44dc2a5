//! `waypost doctor` on broken set-ups: it names the cause and what to do about it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use waypost_fake_kubernetes::{ApiServer, manifest};
use waypost_testkit::{Ca, Consul, ROOT_TOKEN, free_ports};

use crate::support::*;

/// The findings of the command.
struct Diagnosis {
    code: Option<i32>,
    findings: Vec<Value>,
}

impl Diagnosis {
    /// Runs `waypost doctor` in a folder without a stack file.
    async fn of(command: Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::in_folder(command, folder.path()).await
    }

    async fn in_folder(mut command: Command, folder: &Path) -> Self {
        command.args(["-o", "json"]).current_dir(folder);
        let output = Finished::of(command).await;
        let printed: Value = serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        assert_eq!(printed["schema"], 1);
        let findings = printed["findings"].as_array().unwrap().clone();
        let worst = match output.code {
            Some(0) => "ok",
            Some(1) => "warning",
            _ => "error",
        };
        assert_eq!(printed["worst"], worst, "{output:?}");
        Self {
            code: output.code,
            findings,
        }
    }

    /// Asserts that there is a finding of this severity and subject that says what is wrong, and what
    /// to do.
    #[track_caller]
    fn assert(&self, severity: &str, subject: &str, what: &str, advice: &str) {
        let contains = |value: &Value, text: &str| value.as_str().unwrap_or("").contains(text);
        let is_match = |it: &&Value| {
            it["severity"] == severity
                && it["subject"] == subject
                && contains(&it["what"], what)
                && contains(&it["advice"], advice)
        };
        let found = self.findings.iter().find(is_match);
        let expected = format!("{severity} {subject}: {what} → {advice}");
        assert!(found.is_some(), "no {expected}\nin {:#?}", self.findings);
        // Each warning and error has advice.
        for finding in &self.findings {
            assert_eq!(
                finding["severity"] != "ok",
                finding["advice"].is_string(),
                "{finding}"
            );
        }
        let code = if severity == "error" { 2 } else { 1 };
        if severity != "ok" {
            assert!(self.code >= Some(code), "{:?}", self.code);
        }
    }
}

fn doctor(arguments: &[&str]) -> Command {
    waypost(&[&["doctor"], arguments].concat())
}

#[tokio::test]
async fn a_healthy_setup_has_no_warnings() {
    let registry = Registry::start(&[]).await;
    let consul = Consul::start().await;
    let instance = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = instance.local_addr().unwrap().port();
    for address in [registry.address.clone(), consul.address()] {
        let port = port.to_string();
        let mut register = waypost(&["register", "web", "--port", &port]);
        register.args(["--address", "127.0.0.1", "--registry", &address]);
        assert_eq!(Finished::of(register).await.code, Some(0));
        let mut command = doctor(&["web"]);
        command.env("CONSUL_HTTP_ADDR", &address);
        let found = Diagnosis::of(command).await;
        let product = if address == registry.address {
            "Waypost's registry"
        } else {
            "Consul 1."
        };
        found.assert("ok", "registry", product, "");
        found.assert("ok", "provider", "because CONSUL_HTTP_ADDR is set", "");
        found.assert("ok", "service", "web: 1 of 1 instances take requests", "");
        found.assert("ok", "clock", "agrees", "");
        // The ports of `waypost up` may be taken by others on this machine.
        let is_bad = |it: &&Value| it["severity"] != "ok" && it["subject"] != "ports";
        let bad: Vec<_> = found.findings.iter().filter(is_bad).collect();
        assert!(bad.is_empty(), "{bad:#?}");
    }
}

#[tokio::test]
async fn no_registry() {
    let [unused] = free_ports();
    let address = format!("127.0.0.1:{unused}");
    let found = Diagnosis::of(doctor(&["--registry", &address])).await;
    found.assert(
        "error",
        "registry",
        &format!("nothing listens at http://{address}"),
        "waypost up",
    );
}

#[tokio::test]
async fn another_program_in_place_of_the_registry() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let response =
                "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(response.as_bytes()).await;
        }
    });
    let found = Diagnosis::of(doctor(&["--registry", &address])).await;
    // That other program is this test.
    let what = format!("another program: pid {}", std::process::id());
    found.assert("error", "registry", &what, "or stop that program");
    serving.abort();
}

#[tokio::test]
async fn a_consul_without_a_leader() {
    let directory = tempfile::tempdir().unwrap();
    let [http, server, lan, wan] = free_ports();
    let consul = std::env::var_os("CONSUL_BIN").unwrap_or_else(|| "consul".into());
    let mut agent = Command::new(consul)
        .args(["agent", "-server", "-bootstrap-expect=3", "-bind=127.0.0.1"])
        .args(["-client=127.0.0.1", "-dns-port=-1", "-grpc-port=-1"])
        .arg(format!("-data-dir={}", directory.path().display()))
        .arg(format!("-http-port={http}"))
        .arg(format!("-server-port={server}"))
        .arg(format!("-serf-lan-port={lan}"))
        .arg(format!("-serf-wan-port={wan}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let address = format!("127.0.0.1:{http}");
    let url = format!("http://{address}/v1/status/leader");
    eventually("the agent responds", async || http_get(&url).await).await;
    let found = Diagnosis::of(doctor(&["--registry", &address])).await;
    found.assert(
        "error",
        "registry",
        "has no leader",
        "start the missing servers",
    );
    agent.kill().await.unwrap();
}

/// An agent that knows its leader, and fails at everything else.
async fn failing_agent(leader: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let count = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..count]);
            let (status, body) = if request.starts_with("GET /v1/status/leader") {
                ("200 OK", format!("{leader:?}"))
            } else {
                ("500 Internal Server Error", "rpc error".to_owned())
            };
            let length = body.len();
            let response = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            let _ = stream.write_all(response.as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn permissions_that_can_not_be_determined() {
    let address = failing_agent("127.0.0.1:8300").await;
    let found = Diagnosis::of(doctor(&["--registry", &address])).await;
    let what = "the permissions of the token can't be determined: ";
    found.assert("warning", "permissions", what, "see the log of the agent");
    found.assert("ok", "registry", "leader: 127.0.0.1:8300", "");

    // Without a leader, that is no second problem.
    let address = failing_agent("").await;
    let found = Diagnosis::of(doctor(&["--registry", &address])).await;
    found.assert("error", "registry", "has no leader", "start the missing");
    let is_permission = |it: &&Value| it["subject"] == "permissions";
    assert_eq!(found.findings.iter().filter(is_permission).count(), 0);
}

async fn http_get(url: &str) -> Option<()> {
    http()
        .get(url)
        .send()
        .await
        .ok()?
        .error_for_status()
        .ok()
        .map(drop)
}

#[tokio::test]
async fn an_unknown_token_and_one_without_rights() {
    let consul = Consul::with_acl().await;
    let weak = consul
        .create_token("weak", "service \"web\" { policy = \"read\" }")
        .await;
    let with_token = async |token: &str| {
        let mut command = doctor(&["--registry", &consul.address()]);
        command.env("CONSUL_HTTP_TOKEN", token);
        Diagnosis::of(command).await
    };
    let unknown = with_token("5f1d0f4e-6c1c-4d0e-9c44-7f6a7f3c2d00").await;
    unknown.assert(
        "error",
        "permissions",
        "ACL not found",
        "set CONSUL_HTTP_TOKEN",
    );
    let weak = with_token(&weak).await;
    weak.assert(
        "error",
        "permissions",
        "the token doesn't allow look-ups",
        "service_prefix \"\" { policy = \"read\" }",
    );
    let root = with_token(ROOT_TOKEN).await;
    root.assert("ok", "permissions", "can be read", "");

    // The registry that comes with Waypost has one token.
    let registry = Registry::start(&["--token", "secret"]).await;
    let found = Diagnosis::of(doctor(&["--registry", &registry.address])).await;
    found.assert("error", "permissions", "403", "set CONSUL_HTTP_TOKEN");
}

#[tokio::test]
async fn missing_permissions_in_kubernetes() {
    let server = ApiServer::builder().namespace("demo").start();
    let server = server.await.unwrap();
    server.add_user("weak");
    server.grant("weak", "demo", &manifest::read_rules(&["list"]));
    let mut command = doctor(&[]);
    command
        .env("SERVICE_DISCOVERY_PROVIDER", "kubernetes")
        .env("KUBERNETES_NAMESPACE", "demo")
        .env("KUBECONFIG", server.kubeconfig_of("weak").unwrap());
    let found = Diagnosis::of(command).await;
    let what = "finding services needs: watch services, watch endpointslices";
    found.assert("error", "permissions", what, "kind: Role\n");
    found.assert("error", "permissions", what, "kind: RoleBinding\n");

    // A token that the cluster doesn't know.
    let mut command = doctor(&[]);
    let kubeconfig = std::fs::read_to_string(server.kubeconfig_of("weak").unwrap()).unwrap();
    let mut kubeconfig: Value = serde_json::from_str(&kubeconfig).unwrap();
    kubeconfig["users"][0]["user"] = json!({ "token": "expired" });
    let folder = tempfile::tempdir().unwrap();
    let expired = folder.path().join("config");
    std::fs::write(&expired, kubeconfig.to_string()).unwrap();
    command
        .env("SERVICE_DISCOVERY_PROVIDER", "kubernetes")
        .env("KUBECONFIG", expired);
    let found = Diagnosis::of(command).await;
    found.assert("error", "registry", "401", "kubectl auth whoami");

    // Everything is allowed in the namespace, nothing at the cluster scope.
    server.grant("weak", "demo", &manifest::read_rules(&["list", "watch"]));
    let in_all_namespaces = async || {
        let mut command = doctor(&[]);
        command
            .env("SERVICE_DISCOVERY_PROVIDER", "kubernetes")
            .env("KUBERNETES_NAMESPACES", "*")
            .env("KUBECONFIG", server.kubeconfig_of("weak").unwrap());
        Diagnosis::of(command).await
    };
    let what = "finding services needs: list services, watch services, list endpointslices";
    let found = in_all_namespaces().await;
    found.assert("error", "permissions", what, "kind: ClusterRoleBinding\n");
    server.grant("weak", "", &manifest::read_rules(&["list", "watch"]));
    let found = in_all_namespaces().await;
    found.assert("ok", "permissions", "in all namespaces", "");
}

#[tokio::test]
async fn a_service_whose_check_fails() {
    let registry = Registry::start(&[]).await;
    let [dead] = free_ports();
    let check = json!({ "Name": "alive", "TCP": format!("127.0.0.1:{dead}"), "Interval": "1s" });
    registry
        .register(json!({ "ID": "billing-1", "Name": "billing", "Port": dead, "Check": check }))
        .await;
    eventually("the check has run", async || {
        let output = registry.run(&["instances", "billing"]).await;
        output.stdout.contains("refused").then_some(())
    })
    .await;
    let found = Diagnosis::of(registry.command(&["doctor", "billing"])).await;
    found.assert(
        "error",
        "service",
        "0 of 1 instances take requests",
        "fix one",
    );
    found.assert(
        "error",
        "service",
        "billing-1 is critical: check \"alive\": dial tcp",
        "waypost deregister billing-1",
    );
}

#[tokio::test]
async fn a_service_that_is_not_registered() {
    let registry = Registry::start(&[]).await;
    registry
        .register(json!({ "ID": "m-1", "Name": "ai-models", "Port": 80 }))
        .await;
    let found = Diagnosis::of(registry.command(&["doctor", "ai-model"])).await;
    found.assert(
        "error",
        "service",
        "\"ai-model\" is unknown",
        "did you mean ai-models?",
    );
    let found = Diagnosis::of(registry.command(&["doctor", "billing"])).await;
    let advice = "waypost register billing --port PORT --hold";
    found.assert("error", "service", "\"billing\" is unknown", advice);
}

#[tokio::test]
async fn an_instance_that_passes_and_cannot_be_reached() {
    let registry = Registry::start(&[]).await;
    let [dead] = free_ports();
    registry
        .register(json!({ "ID": "web-1", "Name": "web", "Port": dead, "Address": "127.0.0.1" }))
        .await;
    let found = Diagnosis::of(registry.command(&["doctor", "web"])).await;
    let what = format!("127.0.0.1:{dead} can't be reached from here");
    let advice = "a loopback address is this machine's own";
    found.assert("error", "network", &what, advice);
}

#[tokio::test]
async fn a_port_of_the_stack_that_another_process_holds() {
    let registry = Registry::start(&[]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let stack = format!("[services.orders]\nrun = \"orders --port {{port}}\"\nport = {port}\n");
    std::fs::write(folder.path().join("waypost.toml"), stack).unwrap();
    let found = Diagnosis::in_folder(registry.command(&["doctor"]), folder.path()).await;
    let what = format!(
        "port {port} of orders is in use by pid {}",
        std::process::id()
    );
    found.assert("warning", "ports", &what, "`port` in [services.orders] of ");
}

#[tokio::test]
async fn a_stack_file_with_a_mistake_and_one_whose_variables_are_missing() {
    let registry = Registry::start(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("waypost.toml");
    let run = async || Diagnosis::in_folder(registry.command(&["doctor"]), folder.path()).await;
    std::fs::write(&file, "[services.web]\nrun = \"web\"\nprot = 1\n").unwrap();
    let found = run().await;
    found.assert(
        "error",
        "stack",
        "waypost.toml:3:1: unknown key `prot`",
        "waypost check",
    );

    let stack =
        "env-files = [\".env?\"]\n[services.pay]\nrun = \"pay\"\nneeds-env = [\"STRIPE_KEY\"]\n";
    std::fs::write(&file, stack).unwrap();
    let found = run().await;
    let what = "pay needs STRIPE_KEY, which is not set";
    found.assert("error", "variables", what, "add STRIPE_KEY=… to .env");
    std::fs::write(folder.path().join(".env"), "STRIPE_KEY=abc\n").unwrap();
    let found = run().await;
    let is_missing = |it: &Value| it["subject"] == "variables";
    assert!(
        !found.findings.iter().any(is_missing),
        "{:#?}",
        found.findings
    );
}

#[tokio::test]
async fn the_routes_file_that_a_stack_file_names() {
    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("routes.yaml");
    let stack = "[waypost]\nroutes = \"routes.yaml\"\n[services.orders]\nrun = \"orders\"\n";
    std::fs::write(folder.path().join("waypost.toml"), stack).unwrap();

    std::fs::write(
        &routes,
        "routes:\n  - {match: {path: /o}, servcie: orders}\n",
    )
    .unwrap();
    let diagnosis = Diagnosis::in_folder(waypost(&["doctor"]), folder.path()).await;
    diagnosis.assert(
        "error",
        "routes",
        "routes.yaml:2:",
        "waypost gateway --check",
    );
    assert_eq!(diagnosis.code, Some(2));

    std::fs::write(
        &routes,
        "routes:\n  - {match: {path: /o}, service: orders}\n",
    )
    .unwrap();
    let diagnosis = Diagnosis::in_folder(waypost(&["doctor"]), folder.path()).await;
    diagnosis.assert("ok", "routes", "routes.yaml: 1 route", "");
}

#[tokio::test]
async fn a_service_of_the_running_stack_that_crashes() {
    let [registry, gateway, dashboard, web] = free_ports();
    let folder = tempfile::tempdir().unwrap();
    let stack = format!(
        "[services.web]\nrun = \"python3 -m http.server {{port}} --bind 127.0.0.1\"\nport = {web}\n\
         [services.broken]\nrun = \"sh -c 'echo ERROR no database >&2; exit 3'\"\n\
         [waypost]\nregistry-port = {registry}\ngateway = {gateway}\ndashboard = {dashboard}\n"
    );
    std::fs::write(folder.path().join("waypost.toml"), stack).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = waypost(arguments);
        command
            .current_dir(folder.path())
            .env("XDG_RUNTIME_DIR", folder.path())
            .env("CONSUL_HTTP_ADDR", format!("127.0.0.1:{registry}"));
        command
    };
    let mut up = Program::start(run(&["up"]));
    let found = eventually("the service has crashed", async || {
        let found = Diagnosis::in_folder(run(&["doctor"]), folder.path()).await;
        let is_broken = |it: &Value| {
            it["what"]
                .as_str()
                .unwrap()
                .starts_with("broken is crash-looping")
        };
        let is_ready = |it: &Value| {
            it["what"]
                .as_str()
                .unwrap()
                .contains("3 of 4 services are ready")
        };
        let is_seen = found.findings.iter().any(is_broken) && found.findings.iter().any(is_ready);
        is_seen.then_some(found)
    })
    .await;
    found.assert(
        "error",
        "stack",
        "exited with code 3",
        "waypost logs broken",
    );
    // Ports that the stack itself uses are not reported.
    let is_port = |it: &&Value| it["subject"] == "ports" && it["severity"] != "ok";
    let ports: Vec<_> = found.findings.iter().filter(is_port).collect();
    assert!(ports.is_empty(), "{ports:#?}");
    up.interrupt();
    assert_eq!(up.wait_for_exit().await, Some(0), "{}", up.output());
}

#[tokio::test]
async fn a_proxy_without_an_exception_for_this_machine() {
    let registry = Registry::start(&[]).await;
    let mut command = registry.command(&["doctor"]);
    command.env("HTTP_PROXY", "http://ann:PW@proxy.example:3128");
    let found = Diagnosis::of(command).await;
    let what =
        "HTTP_PROXY is http://***@proxy.example:3128, and NO_PROXY does not include localhost";
    found.assert(
        "warning",
        "proxy",
        what,
        "export NO_PROXY=localhost,127.0.0.1",
    );
    let mut command = registry.command(&["doctor"]);
    command
        .env("HTTP_PROXY", "http://proxy.example:3128")
        .env("NO_PROXY", "localhost, 127.0.0.1");
    Diagnosis::of(command)
        .await
        .assert("ok", "proxy", "with an exception", "");
}

#[tokio::test]
async fn too_few_open_files() {
    let registry = Registry::start(&[]).await;
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "ulimit -n 200; exec \"$0\" doctor \"$@\""])
        .arg(env!("CARGO_BIN_EXE_waypost"))
        .args(["--registry", &registry.address])
        .stdin(Stdio::null());
    let found = Diagnosis::of(command).await;
    found.assert("warning", "limits", "only 200 files", "ulimit -n");
}

/// Passes requests on to a server, and changes the `Date` of its responses.
async fn with_other_date(server: String, date: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let server = server.clone();
            tokio::spawn(async move {
                let mut request = vec![0; 65_536];
                let count = client.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..count]);
                // Makes the response end with the connection.
                let request = request.replacen("\r\n", "\r\nConnection: close\r\n", 1);
                let mut upstream = TcpStream::connect(server).await.unwrap();
                upstream.write_all(request.as_bytes()).await.unwrap();
                let mut response = Vec::new();
                upstream.read_to_end(&mut response).await.unwrap();
                let response = String::from_utf8(response).unwrap();
                let lines = response.split("\r\n").map(|line| {
                    let is_date = line.to_lowercase().starts_with("date:");
                    if is_date {
                        format!("Date: {date}")
                    } else {
                        line.to_owned()
                    }
                });
                let response = lines.collect::<Vec<_>>().join("\r\n");
                let _ = client.write_all(response.as_bytes()).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_clock_that_is_wrong() {
    let registry = Registry::start(&[]).await;
    let past = "Thu, 01 Jan 2015 00:00:00 GMT";
    let address = with_other_date(registry.address.clone(), past).await;
    let found = Diagnosis::of(doctor(&["--registry", &address])).await;
    found.assert(
        "warning",
        "clock",
        "ahead of that of http://127.0.0.1",
        "NTP",
    );
}

#[tokio::test]
async fn a_name_that_does_not_resolve() {
    let found = Diagnosis::of(doctor(&["--registry", "registry.invalid:8500"])).await;
    let what = "the name in http://registry.invalid:8500 can't be resolved";
    found.assert("error", "dns", what, "/etc/hosts");
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority() {
    let ca = Ca::new();
    let (certificate, key) = ca.issue("consul", &["localhost", "127.0.0.1"]);
    let consul = Consul::with(json!({ "cert_file": certificate, "key_file": key })).await;
    let address = format!("https://{}", consul.https_address());
    let found = Diagnosis::of(doctor(&["--registry", &address])).await;
    found.assert("error", "registry", "certificate", "CONSUL_CACERT");
    let mut command = doctor(&["--registry", &address]);
    command.env("CONSUL_CACERT", ca.certificate());
    Diagnosis::of(command)
        .await
        .assert("ok", "registry", "Consul 1.", "");
}

#[tokio::test]
async fn a_setting_that_is_invalid_or_overruled() {
    for (name, value, what) in [
        (
            "SERVICE_DISCOVERY_PROVIDER",
            "etcd",
            "unknown provider \"etcd\"; use one of: env",
        ),
        ("CONSUL_HTTP_ADDR", "ftp://c", "CONSUL_HTTP_ADDR: "),
        (
            "SERVICE_DISCOVERY_STRATEGY",
            "best",
            "SERVICE_DISCOVERY_STRATEGY: ",
        ),
        (
            "SERVICE_DISCOVERY_MAX_STALE",
            "soon",
            "SERVICE_DISCOVERY_MAX_STALE: ",
        ),
        (
            "SERVICE_DISCOVERY_CONFIG_FILE",
            "/no/such.yaml",
            "/no/such.yaml",
        ),
    ] {
        let mut command = doctor(&[]);
        command.env(name, value);
        let found = Diagnosis::of(command).await;
        found.assert("error", "provider", what, "correct or unset it");
    }
    let mut command = doctor(&["auth"]);
    command
        .env("SERVICE_DISCOVERY_PROVIDER", "env")
        .env("SERVICE_AUTH_URL", "http://127.0.0.1:1")
        .env("CONSUL_HOST", "consul.example");
    let found = Diagnosis::of(command).await;
    let what = "CONSUL_HOST is set too, but not used, because SERVICE_DISCOVERY_PROVIDER is set";
    found.assert("warning", "provider", what, "unset one of them");
}

#[tokio::test]
async fn a_registry_that_hangs() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let started = tokio::time::Instant::now();
    let found = Diagnosis::of(doctor(&["--registry", &address, "--timeout", "500ms"])).await;
    found.assert(
        "error",
        "registry",
        "does not respond within 500ms",
        "--timeout",
    );
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn the_text_output_has_each_problem_with_its_advice_below() {
    let [unused] = free_ports();
    let folder = tempfile::tempdir().unwrap();
    let mut command = doctor(&["--registry", &format!("127.0.0.1:{unused}")]);
    command.current_dir(folder.path());
    let output = Finished::of(command).await;
    assert_eq!(output.code, Some(2), "{output:?}");
    let lines: Vec<_> = output.stdout.lines().collect();
    let error = lines
        .iter()
        .position(|line| line.starts_with("error    registry"));
    assert!(lines[error.unwrap() + 1].contains("→ start a registry: waypost up"));
    assert!(lines.last().unwrap().starts_with("1 error, "), "{output:?}");
}
