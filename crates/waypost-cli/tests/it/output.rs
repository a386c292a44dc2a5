//! The formats of the output, colours, the width of the terminal, completions and the man page.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::{Value, json};
use tokio::process::Command;
use waypost_fake_kubernetes::{ApiServer, manifest};
use waypost_testkit::{Consul, free_ports};

use crate::support::*;

/// Runs a command on a terminal of this many columns, and returns what it prints.
async fn on_terminal(mut command: Command, columns: u16) -> String {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap();
    let size = Winsize {
        ws_row: 24,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&controller, size).unwrap();
    let open = || {
        let path = std::path::Path::new(name.to_str().unwrap());
        let terminal = File::options().read(true).write(true).open(path).unwrap();
        Stdio::from(OwnedFd::from(terminal))
    };
    command.stdin(open()).stdout(open()).stderr(open());
    let mut child = command.spawn().unwrap();
    // It keeps the terminal open until it is dropped, and the reader needs its end.
    drop(command);
    let reading = tokio::task::spawn_blocking(move || {
        let mut printed = Vec::new();
        let mut controller = File::from(controller);
        let mut buffer = [0; 4096];
        // Linux reports EIO when the last process has closed the terminal.
        while let Ok(count @ 1..) = controller.read(&mut buffer) {
            printed.extend_from_slice(&buffer[..count]);
        }
        String::from_utf8(printed).unwrap()
    });
    child.wait().await.unwrap();
    reading.await.unwrap().replace("\r\n", "\n")
}

async fn registry_with_two_services() -> Registry {
    let registry = Registry::start(&[]).await;
    let [dead] = free_ports();
    let failing = json!({ "Name": "alive", "TCP": format!("127.0.0.1:{dead}"), "Interval": "1s" });
    for (id, name, check) in [
        ("web-1", "web", json!({ "TTL": "1h", "Status": "passing" })),
        ("web-2", "web", failing),
        ("db-1", "db", Value::Null),
    ] {
        let tags: Vec<_> = (0..12).map(|n| format!("tag-number-{n}")).collect();
        registry
            .register(json!({ "ID": id, "Name": name, "Port": 80, "Tags": tags, "Check": check }))
            .await;
    }
    registry
}

#[tokio::test]
async fn services_shows_the_number_of_instances_by_health() {
    let registry = registry_with_two_services().await;
    let consul = Consul::start().await;
    let definition = json!({ "ID": "web-1", "Name": "web", "Port": 80,
        "Check": { "TTL": "1h", "Status": "warning" } });
    consul.put("/v1/agent/service/register", &definition).await;

    let table = registry.run(&["services"]).await.stdout;
    let cells = |name: &str| -> Vec<String> {
        let line = table.lines().find(|line| line.starts_with(name));
        line.unwrap()
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(
        cells("SERVICE"),
        [
            "SERVICE",
            "INSTANCES",
            "PASSING",
            "WARNING",
            "CRITICAL",
            "UNCHECKED"
        ]
    );
    assert_eq!(cells("web"), ["web", "2", "1", "-", "1", "-"], "{table}");
    // Without a check of its own, it has the health of its node.
    assert_eq!(cells("db"), ["db", "1", "1", "-", "-", "-"], "{table}");

    let mut command = waypost(&["services", "-o", "json", "--registry"]);
    command.arg(consul.address());
    let printed = Finished::of(command).await.stdout;
    let printed: Value = serde_json::from_str(&printed).unwrap();
    let services = printed["services"].as_array().unwrap();
    let web = services.iter().find(|service| service["name"] == "web");
    let web = web.unwrap();
    assert_eq!((&web["instances"], &web["warning"]), (&json!(1), &json!(1)));
    assert_eq!(web["error"], Value::Null);
}

#[tokio::test]
async fn every_query_prints_each_format() {
    let registry = registry_with_two_services().await;
    for (arguments, name) in [
        (&["services"][..], "web"),
        (&["instances", "web"], "web-2"),
        (&["explain", "web"], "web-1"),
        (&["resolve", "web"], "web-1"),
        (&["watch", "web", "--count", "1"], "web-1"),
        (
            &["register", "api", "--port", "1", "--id", "api-1"],
            "api-1",
        ),
        (&["registry", "status"], ""),
        (&["agent", "leftovers"], ""),
    ] {
        let run = async |format: &str| {
            let output = registry.run(&[arguments, &["-o", format]].concat()).await;
            assert_eq!(output.code, Some(0), "{arguments:?}: {output:?}");
            output.stdout
        };
        let json: Value = serde_json::from_str(&run("json").await).unwrap();
        assert_eq!(json["schema"], 1, "{arguments:?}");
        if arguments[0] != "resolve" {
            assert!(run("table").await.contains(name), "{arguments:?}");
        }
        assert!(run("wide").await.contains(name), "{arguments:?}");
        let names = run("name").await;
        assert!(names.contains(name), "{arguments:?}: {names}");
        let is_url = names.contains("http") && arguments[0] != "registry";
        assert!(!is_url, "{arguments:?}: {names}");
    }
    let both = registry.run(&["services", "--json", "-o", "name"]).await;
    assert_eq!(both.code, Some(2), "{both:?}");
    let unknown = registry.run(&["services", "-o", "yaml"]).await;
    assert!(
        unknown.stderr.contains("table, wide, json, name"),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn colours_are_used_only_on_terminals_that_support_them() {
    let registry = registry_with_two_services().await;
    let run = async |name: &str, value: &str| {
        let mut command = registry.command(&["instances", "web"]);
        command.env("TERM", "xterm").env(name, value);
        on_terminal(command, 200).await
    };
    let coloured = run("NO_COLOR", "").await;
    assert!(coloured.contains("\x1b[32mpassing\x1b[0m"), "{coloured}");
    assert!(coloured.contains("\x1b[31mcritical\x1b[0m"), "{coloured}");
    for plain in [run("NO_COLOR", "1").await, run("TERM", "dumb").await] {
        assert!(
            plain.contains("passing") && !plain.contains('\x1b'),
            "{plain}"
        );
    }
    let piped = registry.run(&["instances", "web"]).await.stdout;
    assert!(!piped.contains('\x1b'), "{piped}");
}

#[tokio::test]
async fn a_table_fits_the_terminal_and_a_pipe_gets_everything() {
    let registry = registry_with_two_services().await;
    let run = async |format: &str| {
        let mut command = registry.command(&["instances", "web", "-o", format]);
        command.env("NO_COLOR", "1");
        on_terminal(command, 80).await
    };
    let table = run("table").await;
    let rows = table.lines().filter(|line| !line.contains(": "));
    for line in rows {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert!(
        table.contains('…') && table.contains("http://127.0.0.1:80"),
        "{table}"
    );
    let piped = registry.run(&["instances", "web"]).await.stdout;
    for whole in [run("wide").await, piped] {
        assert!(whole.contains("tag-number-11"), "{whole}");
    }
}

#[tokio::test]
async fn a_usage_error_is_one_line_with_a_suggestion_and_how_to_get_help() {
    for (arguments, expected) in [
        (
            &["sevices"][..],
            "waypost: unrecognized subcommand 'sevices'; did you mean 'services'?; see `waypost --help`",
        ),
        (
            &["services", "--jsno"],
            "waypost: unexpected argument '--jsno' found; did you mean '--json'?; see `waypost services --help`",
        ),
        (
            &["agent", "leftovers", "--cler"],
            "did you mean '--clear'?; see `waypost agent leftovers --help`",
        ),
        (
            &["register", "web"],
            "the following required arguments were not provided: --port <PORT>; see `waypost register --help`",
        ),
        (
            &["services", "-o", "wid"],
            "did you mean 'wide'?; see `waypost services --help`",
        ),
    ] {
        let output = Finished::of(waypost(arguments)).await;
        assert_eq!(output.code, Some(2), "{output:?}");
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
        assert!(output.stderr.contains(expected), "{expected}: {output:?}");
    }
}

#[tokio::test]
async fn the_names_of_services_are_completed() {
    let registry = registry_with_two_services().await;
    let complete = async |words: &[&str], variables: &[(&str, &str)]| {
        let mut command = waypost(&["--"]);
        command
            .args(words)
            .env("WAYPOST_COMPLETE", "bash")
            .env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string())
            .env("_CLAP_IFS", "\n")
            .envs(variables.iter().copied());
        Finished::of(command).await.stdout
    };
    let variables = [("CONSUL_HTTP_ADDR", registry.address.as_str())];
    for command in ["instances", "explain", "resolve", "watch"] {
        let words = ["waypost", command, "w"];
        assert_eq!(
            complete(&words, &variables).await.trim(),
            "web",
            "{command}"
        );
    }
    let named = ["waypost", "instances", "--registry", &registry.address, "d"];
    assert_eq!(complete(&named, &[]).await.trim(), "db");
    // Without a registry there are no completions, and no error disturbs the command line.
    let [unused] = free_ports();
    let unused = format!("127.0.0.1:{unused}");
    let words = ["waypost", "instances", "w"];
    let nothing = complete(&words, &[("CONSUL_HTTP_ADDR", &unused)]).await;
    assert_eq!(nothing.trim(), "");
    let commands = complete(&["waypost", "serv"], &[]).await;
    assert!(commands.contains("services"), "{commands}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = Finished::of(waypost(&["completions", shell])).await;
        assert!(script.stdout.contains("WAYPOST_COMPLETE"), "{script:?}");
    }
}

#[tokio::test]
async fn the_man_pages_match_the_command_line() {
    let page = Finished::of(waypost(&["man", "services"])).await;
    assert!(page.stdout.contains(".TH"), "{page:?}");
    assert!(page.stdout.contains("\\-\\-registry"), "{page:?}");
    let directory = tempfile::tempdir().unwrap();
    let mut command = waypost(&["man", "--out"]);
    command.arg(directory.path());
    let written = Finished::of(command).await;
    assert_eq!(written.code, Some(0), "{written:?}");
    for name in [
        "waypost.1",
        "waypost-instances.1",
        "waypost-registry-start.1",
    ] {
        assert!(directory.path().join(name).is_file(), "{name}");
    }
    let unknown = Finished::of(waypost(&["man", "sevices"])).await;
    assert!(
        unknown.stderr.contains("did you mean services?"),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn quiet_and_verbose_choose_what_is_logged() {
    let registry = Registry::start(&[]).await;
    registry
        .register(json!({ "ID": "w", "Name": "not a name", "Port": 80 }))
        .await;
    let run = async |flags: &[&str]| registry.run(&[&["services"], flags].concat()).await.stderr;
    assert!(run(&[]).await.contains("left out"));
    assert_eq!(run(&["-q"]).await, "");
    let verbose = run(&["-v"]).await;
    assert!(verbose.contains("provider chosen"), "{verbose}");
}

/// Waits until the output of a command contains a text.
async fn until_printed(command: impl Fn() -> Command, text: &str) -> String {
    eventually(&format!("{text:?} is printed"), async || {
        let output = Finished::of(command()).await;
        output.stdout.contains(text).then_some(output.stdout)
    })
    .await
}

#[tokio::test]
async fn a_failing_check_is_shown_with_its_duration_if_the_registry_reports_it() {
    let registry = Registry::start(&[]).await;
    let consul = Consul::start().await;
    let [dead] = free_ports();
    let check = json!({ "Name": "alive", "TCP": format!("127.0.0.1:{dead}"), "Interval": "1s" });
    let definition = json!({ "ID": "web-1", "Name": "web", "Port": dead, "Check": check });
    registry.register(definition.clone()).await;
    consul.put("/v1/agent/service/register", &definition).await;
    for command in ["instances", "explain"] {
        let ask = |address: &str, more: &[&str]| {
            let mut ask = waypost(&[&[command, "web"], more].concat());
            ask.args(["--registry", address]);
            ask
        };
        let ours = until_printed(|| ask(&registry.address, &[]), "refused").await;
        let reason = ours
            .lines()
            .find(|line| line.starts_with("web-1: critical for "));
        assert!(reason.is_some(), "{ours}");
        let json = Finished::of(ask(&registry.address, &["-o", "json"]))
            .await
            .stdout;
        let json: Value = serde_json::from_str(&json).unwrap();
        let instance = &json["instances"][0];
        assert!(
            instance["why"].as_str().unwrap().contains("refused"),
            "{json}"
        );
        let checks = instance["checks"].as_array().unwrap();
        let alive = checks
            .iter()
            .find(|check| check["name"] == "alive")
            .unwrap();
        let since = alive["since"].as_str().unwrap();
        assert!(humantime::parse_rfc3339(since).is_ok(), "{since}");

        // Consul doesn't record the time, so only the reason is shown.
        let theirs = until_printed(|| ask(&consul.address(), &[]), "refused").await;
        assert!(
            theirs.contains("web-1: critical: check \"alive\": "),
            "{theirs}"
        );
    }
}

#[tokio::test]
async fn a_critical_instance_always_has_a_reason() {
    let registry = Registry::start(&[]).await;
    let consul = Consul::start().await;
    for address in [registry.address.clone(), consul.address()] {
        let put = async |path: &str, body: &Value| {
            let url = format!("http://{address}{path}");
            let response = http().put(url).json(body).send().await.unwrap();
            assert_eq!(response.status(), 200);
        };
        let check = json!({ "Name": "silent", "TTL": "1h", "Status": "critical" });
        let silent = json!({ "ID": "a-1", "Name": "silent", "Port": 80, "Check": check });
        put("/v1/agent/service/register", &silent).await;
        put(
            "/v1/agent/service/register",
            &json!({ "ID": "m-1", "Name": "out", "Port": 80 }),
        )
        .await;
        let maintenance = "/v1/agent/service/maintenance/m-1?enable=true&reason=new%20disks";
        put(maintenance, &Value::Null).await;
        let ask = |service: &'static str| {
            let address = address.clone();
            move || {
                let mut command = waypost(&["instances", service]);
                command.args(["--registry", &address]);
                command
            }
        };
        let text = "check \"silent\" has not run yet, or reports nothing";
        until_printed(ask("silent"), text).await;
        until_printed(ask("out"), "check \"Service Maintenance Mode\": new disks").await;
    }

    let server = ApiServer::builder().namespace("demo").start();
    let server = server.await.unwrap();
    server.put(&manifest::service("demo", "web", &[("http", 80)]));
    let mut endpoint = manifest::pod("10.0.0.1", "web-abc", "node-1", "eu-1");
    endpoint["conditions"] = json!({ "ready": false });
    let slice = manifest::slice("demo", "web", "web-1", &[("http", 8080)], [endpoint]);
    server.put(&slice);
    let ask = || {
        let mut command = waypost(&["instances", "web.demo"]);
        command
            .env("KUBECONFIG", server.kubeconfig())
            .env("SERVICE_DISCOVERY_PROVIDER", "kubernetes");
        command
    };
    until_printed(ask, "kubectl describe pod web-abc -n demo").await;
}
