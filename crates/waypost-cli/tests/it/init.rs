//! `waypost init`

use std::fs;
use std::path::Path;

use tokio::process::Command;

use crate::support::*;

/// Writes files below a folder.
fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn in_folder(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = waypost(arguments);
    command.current_dir(folder);
    command
}

/// The file that `waypost init` writes for these files. `waypost check` accepts it.
async fn stack_file(files: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), files);
    let output = Finished::of(in_folder(folder.path(), &["init"])).await;
    assert_eq!(output.code, Some(0), "{output:?}");
    let text = fs::read_to_string(folder.path().join("waypost.toml")).unwrap();
    let checked = Finished::of(in_folder(folder.path(), &["check"])).await;
    assert_eq!(checked.code, Some(0), "{checked:?}\n{text}");
    text
}

#[track_caller]
fn assert_lines(text: &str, lines: &[&str]) {
    for line in lines {
        let is_there = text.lines().any(|it| it.split("   #").next() == Some(line));
        assert!(is_there, "no line {line:?} in:\n{text}");
    }
}

#[tokio::test]
async fn a_service_of_each_language_is_found_here_and_one_level_below() {
    let package = r#"{ "name": "@shop/web", "scripts": { "dev": "vite" } }"#;
    let api = "from fastapi import FastAPI\n\napp = FastAPI()\n";
    let compose = "services:\n  db:\n    image: postgres:17\n    ports: [\"5432:5432\"]\n  \
                   api:\n    build: ./api\n    ports: [\"8000:8000\"]\n";
    let text = stack_file(&[
        ("web/package.json", package),
        ("web/pnpm-lock.yaml", ""),
        ("api/pyproject.toml", "[project]\nname = \"orders\"\n"),
        ("api/src/orders/main.py", api),
        (
            "catalog/go.mod",
            "module github.com/acme/catalog\n\ngo 1.24\n",
        ),
        (
            "catalog/main.go",
            "package main\nfunc main() { http.ListenAndServe(\":8080\", nil) }\n",
        ),
        ("Cargo.toml", "[workspace]\nmembers = [\"auth\"]\n"),
        (
            "auth/Cargo.toml",
            "[package]\nname = \"auth\"\nversion = \"0.1.0\"\n",
        ),
        (
            "auth/src/main.rs",
            "fn main() { let port = std::env::var(\"PORT\"); }\n",
        ),
        (
            "jobs/Procfile",
            "worker: python worker.py | tee log\nweb: gunicorn -b :$PORT app\n",
        ),
        ("compose.yaml", compose),
        ("node_modules/x/package.json", package),
    ])
    .await;
    assert_lines(
        &text,
        &[
            "[services.web]",
            "run = \"pnpm run dev --port {port} --strictPort\"",
            "dir = \"web\"",
            "[services.orders]",
            "run = \"python3 -m uvicorn orders.main:app --port {port} --reload\"",
            "[services.catalog]",
            "build = \"go build -o .waypost/bin/catalog .\"",
            "port = 8080",
            "[services.auth]",
            "build = \"cargo build -p auth\"",
            "run = \"target/debug/auth\"",
            "watch = { paths = [\"auth/src/**\",\"Cargo.lock\"] }",
            "[services.worker]",
            "shell = true",
            "[services.jobs-web]",
            "run = \"gunicorn -b :{port} app\"",
            "[services.db]",
            "external = \"localhost:5432\"",
        ],
    );
    // Each service once, and none from dependencies.
    assert_eq!(text.matches("cargo build").count(), 1, "{text}");
    assert_eq!(text.matches("[services.").count(), 7, "{text}");
}

#[tokio::test]
async fn frameworks_are_started_by_their_own_commands() {
    let flask = "from flask import Flask\nserver: Flask = Flask(__name__)\n";
    for (files, run) in [
        (
            &[("requirements.txt", "flask\n"), ("app.py", flask)][..],
            "python3 -m flask --app app:server run --port {port}",
        ),
        (
            &[("requirements.txt", "django\n"), ("manage.py", "")],
            "python3 manage.py runserver 127.0.0.1:{port}",
        ),
        (
            &[
                ("pyproject.toml", "[project]\nname = \"x\"\n"),
                ("uv.lock", ""),
                (
                    "main.py",
                    "from fastapi import FastAPI\napp = FastAPI(title='x')\n",
                ),
            ],
            "uv run uvicorn main:app --port {port} --reload",
        ),
        (
            &[("package.json", r#"{"scripts": {"dev": "next dev"}}"#)],
            "npm run dev -- -p {port}",
        ),
        (
            &[("package.json", r#"{"scripts": {"dev": "astro dev"}}"#)],
            "npm run dev -- --port {port}",
        ),
        (
            &[
                (
                    "package.json",
                    r#"{"scripts": {"start": "node server.js"}}"#,
                ),
                ("server.js", "app.listen(process.env.PORT)"),
            ],
            "npm run start",
        ),
    ] {
        let text = stack_file(files).await;
        assert_lines(&text, &[&format!("run = {run:?}"), "port = 4100"]);
    }
}

#[tokio::test]
async fn ports_in_the_code_are_kept_and_do_not_collide() {
    let listen = |port: u16| format!("app.listen({port})");
    let package = r#"{"scripts": {"start": "node server.js"}}"#;
    let text = stack_file(&[
        ("a/package.json", package),
        ("a/server.js", &listen(8000)),
        ("b/package.json", package),
        ("b/server.js", &listen(8000)),
        ("c/package.json", package),
        ("c/server.js", &listen(4100)),
        ("d/Procfile", "web: run $PORT"),
    ])
    .await;
    assert_lines(
        &text,
        &[
            "gateway = 8001",
            "port = 8000",
            "port = 4100",
            "port = 4200",
        ],
    );
    assert_eq!(text.matches("\nport = 8000").count(), 1, "{text}");
}

#[tokio::test]
async fn an_existing_file_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("waypost.toml", "# mine\n")]);
    let output = Finished::of(in_folder(folder.path(), &["init"])).await;
    assert_eq!(output.code, Some(2), "{output:?}");
    assert!(output.stderr.contains("is not overwritten"), "{output:?}");
    let kept = fs::read_to_string(folder.path().join("waypost.toml")).unwrap();
    assert_eq!(kept, "# mine\n");
    // Nor what a link leads to, even if that isn't there.
    let other = tempfile::tempdir().unwrap();
    let target = other.path().join("none");
    std::os::unix::fs::symlink(&target, other.path().join("waypost.toml")).unwrap();
    let output = Finished::of(in_folder(other.path(), &["init"])).await;
    assert_eq!(output.code, Some(2), "{output:?}");
    assert!(output.stderr.contains("is not overwritten"), "{output:?}");
    assert!(!target.exists());
    let printed = Finished::of(in_folder(folder.path(), &["init", "--print"])).await;
    assert!(printed.stdout.contains("name = "), "{printed:?}");
}

#[tokio::test]
async fn an_empty_folder_gets_an_example_that_is_valid_too() {
    let text = stack_file(&[]).await;
    assert!(text.contains("# [services.web]"), "{text}");
    let uncommented: Vec<_> = text
        .lines()
        .skip_while(|line| !line.starts_with("# [services"))
        .map(|line| line.trim_start_matches("# "))
        .filter(|line| !line.starts_with("after"))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("waypost.toml", &uncommented.join("\n"))]);
    let checked = Finished::of(in_folder(folder.path(), &["check"])).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
}

#[tokio::test]
async fn a_compose_file_that_is_skipped_is_named_with_line_and_cause() {
    let folder = tempfile::tempdir().unwrap();
    let compose = "services:\n  db: {image: postgres, ports: 5432}\n";
    write(folder.path(), &[("db/compose.yaml", compose)]);
    let output = Finished::of(in_folder(folder.path(), &["init", "--print"])).await;
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(
        output.stderr.contains("skipped db/compose.yaml:2:"),
        "{output:?}"
    );
    assert!(!output.stdout.contains("skipped"), "{output:?}");
}

#[tokio::test]
async fn the_result_is_valid_whatever_the_files_contain() {
    let name = "a\\\"b\u{7f}\n[services.evil]\nrun = \"x\"";
    let package = serde_json::json!({ "name": name, "scripts": { "start": "node x" } }).to_string();
    let procfile = "web: echo {a,b} ${HOME} \"$PORT\"\n: nothing\nregistry: sleep 1\n";
    let text = stack_file(&[
        ("a/package.json", &package),
        ("b/package.json", "{ not json"),
        ("c/Procfile", procfile),
        ("d/Cargo.toml", "not toml ["),
        ("e/compose.yaml", "services: [1, 2"),
        ("f/pyproject.toml", "\u{0}"),
        ("g\"#\\/package.json", r#"{"scripts": {"dev": "vite"}}"#),
    ])
    .await;
    assert!(!text.contains("[services.evil]"), "{text}");
    assert!(!text.contains("[services.registry]"), "{text}");
}
