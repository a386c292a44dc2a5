//! pyproject.toml and requirements.txt

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;

use super::candidate::{Candidate, Port, folder_name};
use super::source_file;

/// The program of a Python project: an ASGI or Flask application, a Django project, or a main file.
pub(super) fn candidates(root: &Path, folder: &Path) -> Vec<Candidate> {
    let files = ["pyproject.toml", "requirements.txt"];
    let found = files.into_iter().find(|file| folder.join(file).is_file());
    let found = found.and_then(|file| candidate(root, folder, file));
    found.into_iter().collect()
}

fn candidate(root: &Path, folder: &Path, file: &str) -> Option<Candidate> {
    let mut found = Candidate::new(root, folder, file, &project_name(folder));
    let python = Python::of(folder);
    if folder.join("manage.py").is_file() {
        found.run = python.run("manage.py runserver 127.0.0.1:{port}");
        found.port = Port::Any;
        return Some(found);
    }
    let sources: Vec<_> = sources(folder)
        .into_iter()
        .filter_map(|path| Some((source_file::read(&path)?, path)))
        .collect();
    for (text, path) in &sources {
        let Some((name, framework)) = application(text) else {
            continue;
        };
        let module = module(folder, path);
        found.port = Port::Any;
        found.run = match framework {
            "Flask" => python.module(&format!("flask --app {module}:{name} run --port {{port}}")),
            _ => python.module(&format!("uvicorn {module}:{name} --port {{port}} --reload")),
        };
        return Some(found);
    }
    let is_main = |path: &Path| {
        let names = ["main.py", "app.py", "server.py", "__main__.py"];
        names
            .iter()
            .any(|name| path.file_name().is_some_and(|it| it == *name))
    };
    let (text, path) = sources.iter().find(|(_, path)| is_main(path))?;
    let path = path.strip_prefix(folder).unwrap_or(path);
    found.run = python.run(&path.to_string_lossy());
    found.port = source_file::port(text);
    Some(found)
}

/// The name in pyproject.toml, or else that of the folder.
fn project_name(folder: &Path) -> String {
    let text = source_file::read(&folder.join("pyproject.toml")).unwrap_or_default();
    let name = toml::from_str::<toml::Table>(&text).ok().and_then(|table| {
        let project = table
            .get("project")
            .or_else(|| table.get("tool")?.get("poetry"));
        Some(project?.get("name")?.as_str()?.to_owned())
    });
    name.unwrap_or_else(|| folder_name(folder))
}

/// The Python files of a project that may start it, the likely ones first.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let list = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    };
    let mut all = Vec::new();
    for path in list(folder) {
        let is_hidden = path
            .file_name()
            .is_some_and(|it| it.to_string_lossy().starts_with('.'));
        if path.is_dir() && !is_hidden && !path.ends_with("venv") && !path.ends_with("tests") {
            let below = list(&path);
            // src/PACKAGE/main.py
            let deeper = below
                .iter()
                .filter(|it| path.ends_with("src") && it.is_dir());
            all.extend(deeper.flat_map(|it| list(it)));
            all.extend(below);
        } else {
            all.push(path);
        }
    }
    all.retain(|path| path.extension().is_some_and(|it| it == "py"));
    all.sort_by_key(|path| path.components().count());
    all
}

/// The variable that holds an application, and its framework.
fn application(text: &str) -> Option<(&str, &str)> {
    static APPLICATION: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(
            r"(?m)^(\w+)\s*(?::[^=\n]+)?=\s*(?:\w+\.)?(FastAPI|Starlette|Litestar|Quart|Flask)\(",
        )
        .ok()
    });
    let found = APPLICATION.as_ref()?.captures(text)?;
    Some((found.get(1)?.as_str(), found.get(2)?.as_str()))
}

/// The name under which Python imports a file.
fn module(folder: &Path, path: &Path) -> String {
    let path = path.strip_prefix(folder).unwrap_or(path).with_extension("");
    let parts = path
        .components()
        .map(|part| part.as_os_str().to_string_lossy());
    let parts: Vec<_> = parts
        .filter(|part| part != "src" && part != "__init__")
        .collect();
    parts.join(".")
}

/// How Python is started in a project.
enum Python {
    /// By `uv run` or `poetry run`.
    Tool(&'static str),
    /// This interpreter.
    Interpreter(&'static str),
}

impl Python {
    fn of(folder: &Path) -> Self {
        let has = |name: &str| folder.join(name).exists();
        if has(".venv/bin/python") {
            Self::Interpreter(".venv/bin/python")
        } else if has("venv/bin/python") {
            Self::Interpreter("venv/bin/python")
        } else if has("uv.lock") {
            Self::Tool("uv run")
        } else if has("poetry.lock") {
            Self::Tool("poetry run")
        } else {
            Self::Interpreter("python3")
        }
    }

    /// The command that runs a file with arguments.
    fn run(&self, arguments: &str) -> String {
        match self {
            Self::Tool(tool) => format!("{tool} python {arguments}"),
            Self::Interpreter(python) => format!("{python} {arguments}"),
        }
    }

    /// The command that runs an installed module with arguments.
    fn module(&self, arguments: &str) -> String {
        match self {
            Self::Tool(tool) => format!("{tool} {arguments}"),
            Self::Interpreter(python) => format!("{python} -m {arguments}"),
        }
    }
}
