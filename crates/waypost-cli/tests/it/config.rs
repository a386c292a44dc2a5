//! `waypost config show`

use serde_json::Value;

use crate::support::*;

/// The settings that the command prints in an empty folder, and its exit code.
async fn settings(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, Vec<Value>) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = waypost(&[&["config", "show", "-o", "json"], arguments].concat());
    command
        .envs(variables.iter().copied())
        .current_dir(folder.path());
    let output = Finished::of(command).await;
    let printed: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(printed["schema"], 1);
    (output.code, printed["settings"].as_array().unwrap().clone())
}

/// Asserts that each of these variables sets one of the settings.
#[track_caller]
fn assert_variables<'a>(settings: &[Value], names: impl IntoIterator<Item = &'a str>) {
    let known: Vec<_> = settings
        .iter()
        .flat_map(|setting| setting["variables"].as_array().unwrap())
        .filter_map(Value::as_str)
        .collect();
    for name in names {
        assert!(known.contains(&name), "{name}");
    }
}

#[track_caller]
fn assert_setting(settings: &[Value], name: &str, value: &str, source: &str, from: Option<&str>) {
    let found = settings.iter().find(|setting| setting["name"] == name);
    let found = found.unwrap_or_else(|| panic!("no {name} in {settings:#?}"));
    assert_eq!(
        (&found["value"], &found["source"], found["from"].as_str()),
        (&value.into(), &source.into(), from),
        "{name}"
    );
}

#[tokio::test]
async fn each_setting_is_shown_with_its_source() {
    let variables = [
        ("CONSUL_HTTP_ADDR", "consul.example:8501"),
        ("CONSUL_HTTP_TOKEN", "TOP-SECRET"),
        ("WAYPOST_AGENT_TOKEN", "TOP-SECRET"),
        ("SERVICE_DISCOVERY_ZONE", "eu-1"),
        ("RUST_LOG", "debug"),
    ];
    let (code, found) = settings(&[], &variables).await;
    assert_eq!(code, Some(0));
    let from_variable = |name, value, variable| {
        assert_setting(&found, name, value, "variable", Some(variable));
    };
    from_variable("provider", "consul", "CONSUL_HTTP_ADDR");
    from_variable(
        "consul.address",
        "http://consul.example:8501",
        "CONSUL_HTTP_ADDR",
    );
    from_variable("consul.token", "***", "CONSUL_HTTP_TOKEN");
    from_variable("zone", "eu-1", "SERVICE_DISCOVERY_ZONE");
    from_variable("agent --token", "***", "WAYPOST_AGENT_TOKEN");
    from_variable("explain --zone", "eu-1", "SERVICE_DISCOVERY_ZONE");
    from_variable("log-filter", "debug", "RUST_LOG");
    assert_setting(&found, "strategy", "round_robin", "default", None);
    assert_setting(&found, "agent --http-port", "8500", "default", None);
    assert!(!format!("{found:?}").contains("TOP-SECRET"));

    let arguments = ["--registry", "other:1", "--timeout", "1s"];
    let (_, found) = settings(&arguments, &variables).await;
    assert_setting(
        &found,
        "consul.address",
        "http://other:1",
        "flag",
        Some("--registry"),
    );
    assert_setting(&found, "timeout", "1s", "flag", Some("--timeout"));
}

#[tokio::test]
async fn the_variables_of_opentelemetry_are_settings() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "api-key=TOP-SECRET"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=TOP-SECRET-TOO"),
    ];
    let (_, found) = settings(&[], &variables).await;
    for (name, value, variable) in [
        (
            "spans.endpoint",
            "http://collector:4318",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ),
        ("spans.headers", "***", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"),
    ] {
        assert_setting(&found, name, value, "variable", Some(variable));
    }
    assert_setting(&found, "spans.queue", "2048", "default", None);
    assert!(!format!("{found:?}").contains("TOP-SECRET"));

    let page = include_str!("../../../../docs/environment.md");
    let documented = page.split('`').filter(|word| word.starts_with("OTEL_"));
    assert_variables(&found, documented);
}

#[tokio::test]
async fn the_stack_file_is_a_source() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("waypost.toml");
    std::fs::write(&file, "[waypost]\ngateway = 8123\n").unwrap();
    let mut command = waypost(&["config", "show", "-o", "wide"]);
    command.current_dir(folder.path());
    let printed = Finished::of(command).await.stdout;
    let line = |name: &str| printed.lines().find(|line| line.starts_with(name)).unwrap();
    assert!(line("stack.gateway").contains("8123"), "{printed}");
    assert!(line("stack.gateway").contains("waypost.toml"), "{printed}");
    assert!(line("stack.dashboard").contains("default"), "{printed}");
}

#[tokio::test]
async fn the_kubeconfig_in_the_home_folder_is_a_source() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join(".kube/config");
    let config = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "k", "user": "u", "namespace": "shop"}}],
        "clusters": [{"name": "k", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    });
    std::fs::create_dir(home.path().join(".kube")).unwrap();
    std::fs::write(&file, config.to_string()).unwrap();
    let variables = [
        ("HOME", home.path().to_str().unwrap()),
        ("SERVICE_DISCOVERY_PROVIDER", "kubernetes"),
    ];
    let (code, found) = settings(&[], &variables).await;
    assert_eq!(code, Some(0));
    let from_file = |name, value| assert_setting(&found, name, value, "file", file.to_str());
    from_file("kubernetes.server", "http://127.0.0.1:9");
    from_file("kubernetes.namespace", "shop");
}

#[tokio::test]
async fn an_invalid_setting_is_named_and_the_others_are_shown() {
    let mut command = waypost(&["config", "show"]);
    command.env("SERVICE_DISCOVERY_MAX_STALE", "soon");
    let output = Finished::of(command).await;
    assert_eq!(output.code, Some(2), "{output:?}");
    assert!(
        output
            .stderr
            .contains("SERVICE_DISCOVERY_MAX_STALE: \"soon\""),
        "{output:?}"
    );
    assert!(
        output.stdout.contains("http://localhost:8500"),
        "{output:?}"
    );
}

#[tokio::test]
async fn the_variables_in_the_help_are_settings() {
    let help = Finished::of(waypost(&["--help"])).await.stdout;
    let (_, section) = help.split_once("Environment variables").unwrap();
    let (section, _) = section.split_once("Exit codes").unwrap();
    let words = section.split([' ', ',', '\n']);
    let named: Vec<_> = words
        .filter(|word| word.contains('_') && word.to_uppercase() == *word)
        .collect();
    assert!(named.len() > 5, "{section}");
    let (_, settings) = settings(&[], &[]).await;
    assert_variables(&settings, named);
}
