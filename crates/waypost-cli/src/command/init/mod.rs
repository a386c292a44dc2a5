//! `waypost init`: writes a stack file for the services that are found in a folder.

mod candidate;
mod cargo;
mod compose;
mod go;
mod node;
mod procfile;
mod python;
mod source_file;
mod stack_text;

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use waypost_runner::stack_file::{FILE_NAME, StackFile};

use self::candidate::Candidate;
use self::stack_text::stack_text;
use crate::error::{CommandError, CommandResult};
use crate::terminal::{print_line, print_verbatim};

/// Write a waypost.toml for the services found in this folder and one level below
///
/// Looks for package.json, pyproject.toml, requirements.txt, go.mod, Cargo.toml, Procfile and
/// compose.yaml. The file has a comment on each choice; an existing one is never overwritten.
#[derive(Args)]
pub(crate) struct Init {
    /// Print the file instead of writing it
    #[arg(long)]
    print: bool,
}

/// Folders that contain dependencies or build results.
const SKIPPED: [&str; 9] = [
    "node_modules",
    "target",
    "venv",
    "dist",
    "build",
    "vendor",
    "__pycache__",
    "bin",
    "obj",
];

impl Init {
    pub(super) fn run(&self) -> CommandResult {
        let root = std::env::current_dir()?;
        let path = Path::new(FILE_NAME);
        if !self.print && path.exists() {
            return Err(already_there());
        }
        let found = find(&root)?;
        let text = stack_text(&root, &found);
        // The result must be valid, whatever the contents of the files from which it was created.
        StackFile::parse(path, &text).map_err(CommandError::stack_file)?;
        if self.print {
            print_verbatim(&text)?;
            return Ok(ExitCode::SUCCESS);
        }
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        let mut file = file.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => already_there(),
            _ => CommandError::Other(format!("can't write {FILE_NAME}: {error}")),
        })?;
        file.write_all(text.as_bytes())?;
        for candidate in &found {
            let (name, source) = (&candidate.name, &candidate.source);
            print_line(format_args!("{name}  from {source}"))?;
        }
        if found.is_empty() {
            print_line(format_args!(
                "wrote {FILE_NAME} with an example: nothing that it could start was found here or \
                 one level below; edit it, then: waypost up"
            ))?;
        } else {
            print_line(format_args!("wrote {FILE_NAME}; read it, then: waypost up"))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn already_there() -> CommandError {
    CommandError::Invalid(format!(
        "{FILE_NAME} exists, and is not overwritten; `waypost init --print` prints the new one"
    ))
}

/// The services in a folder and its subfolders.
fn find(root: &Path) -> Result<Vec<Candidate>, CommandError> {
    let mut found: Vec<Candidate> = Vec::new();
    for folder in folders(root)? {
        for candidate in candidates(root, &folder) {
            // A Procfile and a package.json of one folder often describe the same program.
            let is_known = found
                .iter()
                .any(|it| it.name == candidate.name && it.dir == candidate.dir);
            if !is_known {
                found.push(candidate);
            }
        }
    }
    candidate::make_unique(&mut found);
    Ok(found)
}

/// The folder and its subfolders, sorted by name.
fn folders(root: &Path) -> Result<Vec<PathBuf>, CommandError> {
    let unreadable = |error| CommandError::Other(format!("can't read this folder: {error}"));
    let mut folders = Vec::new();
    for entry in fs::read_dir(root).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && !name.starts_with('.') && !SKIPPED.contains(&&*name) {
            folders.push(path);
        }
    }
    folders.sort();
    folders.insert(0, root.to_owned());
    Ok(folders)
}

/// The services in one folder. A Procfile takes precedence, because it was written for this purpose.
fn candidates(root: &Path, folder: &Path) -> Vec<Candidate> {
    let named = procfile::candidates(root, folder);
    let mut all = if named.is_empty() {
        let by_language = [
            node::candidates(root, folder),
            python::candidates(root, folder),
            go::candidates(root, folder),
            cargo::candidates(root, folder),
        ];
        by_language.concat()
    } else {
        named
    };
    all.extend(compose::candidates(root, folder));
    all
}

#[cfg(test)]
mod tests {
    use super::candidate::Port;
    use super::*;

    /// The services that are found in a folder `shop` with these files.
    fn found(files: &[(&str, &str)]) -> Vec<Candidate> {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("shop");
        for (name, text) in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        find(&root).unwrap()
    }

    /// The name, command and port of the only service.
    #[track_caller]
    fn only(files: &[(&str, &str)]) -> (String, String, Port) {
        let found = found(files);
        assert_eq!(found.len(), 1, "{found:#?}");
        (found[0].name.clone(), found[0].run.clone(), found[0].port)
    }

    #[track_caller]
    fn assert_only(files: &[(&str, &str)], name: &str, run: &str, port: Port) {
        assert_eq!(
            only(files),
            (name.to_owned(), run.to_owned(), port),
            "{files:?}"
        );
    }

    #[test]
    fn a_node_package_runs_its_script_by_its_package_manager() {
        let script =
            |name: &str, command: &str| format!(r#"{{"scripts": {{{name:?}: {command:?}}}}}"#);
        let strict = "npm run dev -- --port {port} --strictPort";
        for (name, command, run, port) in [
            ("dev", "vite --host", strict, Port::Any),
            ("dev", "NODE_ENV=x vite", strict, Port::Any),
            ("dev", "next dev", "npm run dev -- -p {port}", Port::Any),
            (
                "dev",
                "astro dev",
                "npm run dev -- --port {port}",
                Port::Any,
            ),
            (
                "start",
                "ng serve",
                "npm run start -- --port {port}",
                Port::Any,
            ),
            ("dev", "nuxt dev", "npm run dev -- --port {port}", Port::Any),
            (
                "serve",
                "nuxi dev",
                "npm run serve -- --port {port}",
                Port::Any,
            ),
            ("start", "other", "npm run start", Port::None),
        ] {
            assert_only(
                &[("package.json", &script(name, command))],
                "shop",
                run,
                port,
            );
        }
        let dev = script("dev", "vite");
        for (file, run) in [
            ("pnpm-lock.yaml", "pnpm run dev --port {port} --strictPort"),
            ("yarn.lock", "yarn run dev --port {port} --strictPort"),
            ("bun.lockb", "bun run dev --port {port} --strictPort"),
            ("bun.lock", "bun run dev --port {port} --strictPort"),
        ] {
            assert_only(
                &[("package.json", &dev), (file, "")],
                "shop",
                run,
                Port::Any,
            );
        }
        // The first of these scripts.
        let all = r#"{"name": "@acme/Web", "scripts": {"serve": "x", "start": "x", "dev": "x"}}"#;
        assert_only(&[("package.json", all)], "web", "npm run dev", Port::None);
    }

    #[test]
    fn the_port_of_a_node_package_is_that_of_its_program() {
        let start = r#"{"main": "main.js", "scripts": {"start": "node --watch src/server.mjs"}}"#;
        let main = ("main.js", "app.listen(5000)");
        let server = ("src/server.mjs", "app.listen(4000)");
        let run = "npm run start";
        let package = ("package.json", start);
        assert_only(&[package, main, server], "shop", run, Port::Fixed(4000));
        assert_only(&[package, main], "shop", run, Port::Fixed(5000));
        // Without a script, the main file is the program.
        let plain = ("package.json", r#"{"main": "main.js"}"#);
        assert_only(&[plain, main], "shop", "node main.js", Port::Fixed(5000));
        let index = ("index.js", "app.listen(process.env.PORT)");
        assert_only(
            &[("package.json", "{}"), index],
            "shop",
            "node index.js",
            Port::Any,
        );
        assert!(found(&[("package.json", "{}")]).is_empty());
        assert!(found(&[("package.json", "{")]).is_empty());
    }

    #[test]
    fn a_python_project_runs_its_framework_or_its_main_file() {
        let requirements = ("requirements.txt", "");
        let fast = "app = FastAPI()\n";
        let uvicorn =
            |module: &str| format!("python3 -m uvicorn {module} --port {{port}} --reload");
        for (file, text, run, port) in [
            ("main.py", fast, &*uvicorn("main:app"), Port::Any),
            ("src/shop/api.py", fast, &uvicorn("shop.api:app"), Port::Any),
            (
                "shop/__init__.py",
                "api: X = quart.Quart(__name__)\n",
                &uvicorn("shop:api"),
                Port::Any,
            ),
            (
                "web.py",
                "server = flask.Flask(__name__)\n",
                "python3 -m flask --app web:server run --port {port}",
                Port::Any,
            ),
            (
                "app.py",
                "serve(port=9000)\n",
                "python3 app.py",
                Port::Fixed(9000),
            ),
            ("server.py", "", "python3 server.py", Port::None),
            (
                "shop/__main__.py",
                "os.environ['PORT']",
                "python3 shop/__main__.py",
                Port::Any,
            ),
            (
                "manage.py",
                "",
                "python3 manage.py runserver 127.0.0.1:{port}",
                Port::Any,
            ),
        ] {
            assert_only(&[requirements, (file, text)], "shop", run, port);
        }
        // None of these starts the project.
        for file in [
            "tests/main.py",
            ".hidden/main.py",
            "venv/main.py",
            "main.txt",
        ] {
            assert!(found(&[requirements, (file, fast)]).is_empty(), "{file}");
        }
        assert!(found(&[requirements, ("other.py", "x = 1\n")]).is_empty());
        assert!(
            found(&[("main.py", fast)]).is_empty(),
            "it is not a project"
        );
    }

    #[test]
    fn a_python_project_has_its_name_and_its_interpreter() {
        let main = ("main.py", "");
        for (text, name) in [
            ("[project]\nname = \"orders\"\n", "orders"),
            ("[tool.poetry]\nname = \"Carts_1\"\n", "carts-1"),
            ("[tool.other]\nname = \"x\"\n", "shop"),
            ("not toml", "shop"),
        ] {
            assert_only(
                &[("pyproject.toml", text), main],
                name,
                "python3 main.py",
                Port::None,
            );
        }
        let project = ("pyproject.toml", "");
        let flask = ("app.py", "app = Flask(__name__)\n");
        for (file, run, module) in [
            (
                ".venv/bin/python",
                ".venv/bin/python main.py",
                ".venv/bin/python -m flask",
            ),
            (
                "venv/bin/python",
                "venv/bin/python main.py",
                "venv/bin/python -m flask",
            ),
            ("uv.lock", "uv run python main.py", "uv run flask"),
            (
                "poetry.lock",
                "poetry run python main.py",
                "poetry run flask",
            ),
        ] {
            assert_only(&[project, main, (file, "")], "shop", run, Port::None);
            let (_, run, _) = only(&[project, flask, (file, "")]);
            let expected = format!("{module} --app app:app run --port {{port}}");
            assert_eq!(run, expected);
        }
    }

    #[test]
    fn a_go_module_has_a_program_in_its_root_and_in_each_folder_of_cmd() {
        let module = (
            "go.mod",
            "// x\nmodule github.com/acme/Catalog \n\ngo 1.24\n",
        );
        let main = |port: u16| format!("func main() {{ http.ListenAndServe(\":{port}\", nil) }}");
        let (first, second) = (main(8081), main(8082));
        let all = found(&[
            module,
            ("main.go", "func main() { os.Getenv(\"PORT\") }"),
            ("cmd/worker/main.go", &first),
            ("cmd/api/main.go", &second),
            ("cmd/docs/readme.txt", ""),
        ]);
        let all: Vec<_> = all
            .iter()
            .map(|it| {
                (
                    it.name.as_str(),
                    it.build.as_deref().unwrap(),
                    it.run.as_str(),
                    it.port,
                )
            })
            .collect();
        assert_eq!(
            all,
            [
                (
                    "catalog",
                    "go build -o .waypost/bin/catalog .",
                    ".waypost/bin/catalog",
                    Port::Any
                ),
                (
                    "api",
                    "go build -o .waypost/bin/api ./cmd/api",
                    ".waypost/bin/api",
                    Port::Fixed(8082),
                ),
                (
                    "worker",
                    "go build -o .waypost/bin/worker ./cmd/worker",
                    ".waypost/bin/worker",
                    Port::Fixed(8081),
                ),
            ]
        );
        assert!(found(&[module]).is_empty());
    }

    #[test]
    fn a_cargo_workspace_has_the_programs_of_its_members() {
        let package = |name: &str| format!("[package]\nname = {name:?}\n");
        let (auth, web) = (package("auth"), package("web"));
        let web = format!("{web}[[bin]]\nname = \"server\"\npath = \"server.rs\"\n");
        let library = package("library");
        let all = found(&[
            (
                "Cargo.toml",
                "[workspace]\nmembers = [\"auth\", \"crates/*\"]\n",
            ),
            ("auth/Cargo.toml", &auth),
            ("auth/src/main.rs", ""),
            ("crates/web/Cargo.toml", &web),
            ("crates/web/server.rs", "bind(\"0.0.0.0:7000\")"),
            ("crates/library/Cargo.toml", &library),
            ("crates/library/src/lib.rs", ""),
        ]);
        let all: Vec<_> = all
            .iter()
            .map(|it| (it.name.as_str(), it.run.as_str(), it.port))
            .collect();
        assert_eq!(
            all,
            [
                ("auth", "target/debug/auth", Port::None),
                ("web", "target/debug/server", Port::Fixed(7000)),
            ]
        );
        // Below a folder that is no workspace, each package is one of its own.
        let one = found(&[("auth/Cargo.toml", &auth), ("auth/src/main.rs", "")]);
        assert_eq!(
            (one[0].dir.as_str(), one[0].source.as_str()),
            ("auth", "auth/Cargo.toml")
        );
        assert_eq!(one[0].build.as_deref(), Some("cargo build -p auth"));
        assert_eq!(one[0].watch, ["src/**", "Cargo.lock"]);
    }

    #[test]
    fn a_procfile_has_a_process_in_each_line() {
        let text = "# a comment: no\nweb: gunicorn -b :$PORT app\nworker: work | tee log\n\
                    api: run ${PORT}\nshell: echo ${HOME} $PORT\nplain: sleep 1\n\
                    release: migrate\nempty:\nno process\n";
        let all = found(&[
            ("Procfile", text),
            ("package.json", r#"{"scripts": {"dev": "vite"}}"#),
        ]);
        let all: Vec<_> = all
            .iter()
            .map(|it| (it.name.as_str(), it.run.as_str(), it.shell, it.port))
            .collect();
        assert_eq!(
            all,
            [
                ("web", "gunicorn -b :{port} app", false, Port::Any),
                ("worker", "work | tee log", true, Port::None),
                ("api", "run {port}", false, Port::Any),
                ("shell", "echo ${{HOME}} $PORT", true, Port::Any),
                ("plain", "sleep 1", false, Port::None),
            ]
        );
        // That for development is preferred.
        let both = [("Procfile", "web: a"), ("Procfile.dev", "web: b")];
        assert_only(&both, "web", "b", Port::Any);
    }

    #[test]
    fn a_compose_file_has_external_services_with_a_port_on_this_machine() {
        let text = "services:\n\
            \x20 db: {image: postgres, ports: [\"127.0.0.1:5433:5432/tcp\"]}\n\
            \x20 cache: {image: redis, ports: [{target: 6379, published: 6380}]}\n\
            \x20 queue: {image: nats, ports: [{target: 4222, published: \"4222\"}]}\n\
            \x20 any: {image: x, ports: [8080, {target: 1}, \"0:80\"]}\n\
            \x20 second: {image: x, ports: [8080, \"9090:80\"]}\n\
            \x20 built: {build: ., ports: [\"80:80\"]}\n\
            \x20 inner: {image: x}\n";
        for file in [
            "compose.yaml",
            "compose.yml",
            "docker-compose.yaml",
            "docker-compose.yml",
        ] {
            let all = found(&[(file, text)]);
            let addresses: Vec<_> = all
                .iter()
                .map(|it| (it.name.as_str(), it.external.as_deref().unwrap()))
                .collect();
            assert_eq!(
                addresses,
                [
                    ("cache", "localhost:6380"),
                    ("db", "localhost:5433"),
                    ("queue", "localhost:4222"),
                    ("second", "localhost:9090"),
                ]
            );
            let note = format!("Start it with: docker compose -f {file} up -d db");
            assert_eq!(all[1].notes[1], note);
        }
    }

    #[test]
    fn folders_of_dependencies_and_hidden_ones_are_left_out() {
        let package = r#"{"scripts": {"dev": "vite"}}"#;
        for folder in SKIPPED.iter().chain(&[".hidden"]) {
            assert!(
                found(&[(&format!("{folder}/package.json"), package)]).is_empty(),
                "{folder}"
            );
        }
        let all = found(&[("b/package.json", package), ("a/package.json", package)]);
        let names: Vec<_> = all.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(
            found(&[("a/b/package.json", package)]).is_empty(),
            "only one level below"
        );
    }
}
