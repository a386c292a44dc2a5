//! A valid stack file, and the errors of an invalid one.

use std::fmt;
use std::path::{Path, PathBuf};

use super::check::check;
use super::document::{Document, Problem};
use super::format::{Contents, Service, tables};

/// The name of a stack file.
pub const FILE_NAME: &str = "waypost.toml";

/// A valid stack file.
///
/// ```
/// use std::path::Path;
/// use waypost_runner::stack_file::StackFile;
///
/// let text = r#"
///     [services.web]
///     run = "python3 -m http.server {port}"
///     prot = 8080
/// "#;
/// let error = StackFile::parse(Path::new("waypost.toml"), text).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "waypost.toml:4:5: unknown key `prot`; did you mean `port`?",
/// );
/// ```
#[derive(Clone, Debug)]
pub struct StackFile {
    path: PathBuf,
    /// The names of the services, in the order of the file.
    order: Vec<String>,
    contents: Contents,
}

/// Why a stack file can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StackFileError {
    /// It can't be read.
    #[error("can't read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// It is invalid.
    #[error("{}", OnePerLine(.0))]
    Invalid(
        /// All problems, in the order of the file.
        Vec<Problem>,
    ),
}

impl StackFile {
    /// The stack file of a folder: the one in it, or in the nearest folder above it.
    pub fn find(folder: &Path) -> Option<PathBuf> {
        let mut files = folder.ancestors().map(|folder| folder.join(FILE_NAME));
        files.find(|file| file.is_file())
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// The file can't be read, or is invalid.
    pub fn read(path: &Path) -> Result<Self, StackFileError> {
        let text = std::fs::read(path)
            .and_then(|bytes| {
                String::from_utf8(bytes)
                    .map_err(|_| std::io::Error::other("it is not UTF-8, as TOML has to be"))
            })
            .map_err(|source| StackFileError::Unreadable {
                path: path.to_owned(),
                source,
            })?;
        Self::parse(path, &text)
    }

    /// Checks the text of a file. Relative paths in it refer to the folder of `path`.
    ///
    /// # Errors
    /// [`StackFileError::Invalid`] with all problems.
    pub fn parse(path: &Path, text: &str) -> Result<Self, StackFileError> {
        let mut document = Document::parse(path, text, tables());
        let mut contents: Contents = document.read("services");
        let services = document.read_each::<Service>("services");
        let order: Vec<String> = services.iter().map(|(name, _)| name.clone()).collect();
        contents.services = services
            .into_iter()
            .filter_map(|(name, service)| Some((name, service?)))
            .collect();
        check(&mut document, folder_of(path), &contents, &order);
        let problems = document.into_problems();
        if !problems.is_empty() {
            return Err(StackFileError::Invalid(problems));
        }
        Ok(Self {
            path: path.to_owned(),
            order,
            contents,
        })
    }

    /// The JSON schema of a stack file, for editors.
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Contents).to_value()
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of the file, which relative paths in it refer to.
    pub fn directory(&self) -> &Path {
        folder_of(&self.path)
    }

    /// The path of the gateway's routes file.
    pub fn routes(&self) -> Option<PathBuf> {
        let routes = self.contents.waypost.routes.as_ref()?;
        Some(self.directory().join(routes))
    }

    /// The name of the stack: the one in the file, or else the name of its folder.
    pub fn name(&self) -> String {
        let folder = || {
            let folder = std::path::absolute(self.directory()).ok()?;
            Some(folder.file_name()?.to_string_lossy().into_owned())
        };
        let name = self.contents.name.clone().or_else(folder);
        name.unwrap_or_else(|| "stack".to_owned())
    }

    /// The names of the services, in the order of the file.
    pub fn order(&self) -> &[String] {
        &self.order
    }

    /// The parsed contents of the file.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }
}

/// The folder of a file.
fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

struct OnePerLine<'a>(&'a [Problem]);

impl fmt::Display for OnePerLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{problem}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The problems of a text, without the name of the file.
    fn problems(text: &str) -> Vec<String> {
        match StackFile::parse(Path::new("waypost.toml"), text) {
            Ok(_) => Vec::new(),
            Err(StackFileError::Invalid(problems)) => problems
                .iter()
                .map(|problem| problem.to_string().replace("waypost.toml:", ""))
                .collect(),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn all_problems_are_reported_at_once_with_their_positions() {
        let text = r#"
nmae = "shop"
env-files = [".env"]

[defaults]
restart = "sometimes"
stop = { singal = "TERM" }

[services.orders]
run = "orders --port {port}"
prot = 4100
after = ["postgers", "web:done"]
ready = { http = "/health", every = "2 parsecs", timout = "1s" }

[services.postgres]
external = "localhost"
replicas = 2

[services.web]
run = "npm 'run dev"
port = 8000
uses = ["order"]
env = { URL = "http://localhost:{services.postgres.prot}" }
"#;
        let expected = [
            "2:1: unknown key `nmae`; did you mean `name`?",
            "3:14: there is no file ./.env; write \".env?\" if it may be missing",
            "6:11: unknown variant `sometimes`, expected one of `crash`, `always`, `never`",
            "7:10: unknown key `singal`; did you mean `signal`?",
            "11:1: unknown key `prot`; did you mean `port`?",
            "13:37: \"2 parsecs\" is not a duration; use one such as \"200ms\", \"2s\" or \"1m\"",
            "13:50: unknown key `timout`; did you mean `timeout`?",
            "16:12: \"localhost\" is not an address; use HOST:PORT, such as localhost:5432",
            "17:12: `replicas` has no meaning for an external service, which Waypost doesn't start",
            "20:7: a quote is not closed, or the last character is a backslash",
            "21:8: port 8000 is also used by the gateway; use another one, or 0",
            "22:9: there is no service `order`; did you mean `orders`?",
            "23:15: {services.postgres.prot} is not a placeholder; use {services.NAME.port}",
        ];
        assert_eq!(problems(text), expected);
    }

    #[test]
    fn the_error_for_an_invalid_file_has_a_line_for_each_problem() {
        let path = Path::new("waypost.toml");
        let error = StackFile::parse(path, "nmae = \"shop\"\nprofile = 1\n").unwrap_err();
        let lines = error.to_string();
        let lines: Vec<_> = lines.lines().collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("waypost.toml:1:1: "), "{lines:?}");
        assert!(lines[1].starts_with("waypost.toml:2:1: "), "{lines:?}");
    }

    #[test]
    fn the_gateway_and_the_dashboard_have_a_port_or_are_off() {
        let expected = [
            "2:11: a port is a number from 1 to 65535",
            "3:13: expected a port from 1 to 65535, or false",
        ];
        let text = "[waypost]\ngateway = 0\ndashboard = true\n";
        assert_eq!(problems(text), expected);
        let text = "[waypost]\ngateway = 8001\ndashboard = false\n";
        assert_eq!(problems(text), [""; 0]);
        let expected = ["3:13: port 8001 is also used by the gateway"];
        let text = "[waypost]\ngateway = 8001\ndashboard = 8001\n";
        assert_eq!(problems(text), expected);
    }

    #[test]
    fn the_registry_is_embedded_a_consul_or_the_address_of_a_running_one() {
        for (settings, expected) in [
            ("registry = \"embedded\"", ""),
            ("registry = \"consul\"", ""),
            ("registry = \"consul.local:8500\"", ""),
            (
                "registry = \"etcd\"",
                "2:12: \"etcd\" is not a registry; use embedded, consul or HOST:PORT",
            ),
            // The port of a registry that is started can't be that of another.
            (
                "registry-port = 8000",
                "waypost: port 8000 is also used by the registry",
            ),
            ("registry = \"other:8000\"\nregistry-port = 8000", ""),
        ] {
            let problems = problems(&format!("[waypost]\n{settings}\n")).join("\n");
            let expected = expected.trim_start_matches("waypost: ");
            assert!(problems.ends_with(expected), "{settings}: {problems}");
            assert_eq!(
                problems.is_empty(),
                expected.is_empty(),
                "{settings}: {problems}"
            );
        }
    }

    #[test]
    fn a_stack_has_its_own_name_or_that_of_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("shop");
        std::fs::create_dir_all(folder.join("deep/down")).unwrap();
        let path = folder.join(FILE_NAME);
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            StackFile::read(&path).unwrap()
        };
        let file = read("");
        assert_eq!((file.name().as_str(), file.routes()), ("shop", None));
        assert_eq!((file.path(), file.directory()), (&*path, &*folder));
        assert_eq!(read("name = \"market\"").name(), "market");
        // A folder with the name of the file is not the file.
        std::fs::create_dir(folder.join("deep").join(FILE_NAME)).unwrap();
        let found = StackFile::find(&folder.join("deep/down"));
        assert_eq!(found.as_deref(), Some(&*path));
        assert_eq!(StackFile::find(dir.path()), None);

        std::fs::write(folder.join("routes.yaml"), "").unwrap();
        let routes = read("[waypost]\nroutes = \"routes.yaml\"").routes();
        assert_eq!(routes, Some(folder.join("routes.yaml")));
        for (content, problem) in [(&b"name = \"\xff\""[..], "it is not UTF-8"), (b"a", "")] {
            std::fs::write(&path, content).unwrap();
            let error = StackFile::read(&path).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
            assert!(error.contains("waypost.toml"), "{error}");
        }
        let error = StackFile::read(&folder.join("none.toml")).unwrap_err();
        assert!(
            matches!(error, StackFileError::Unreadable { .. }),
            "{error}"
        );
    }

    #[test]
    fn a_check_of_readiness_is_of_one_kind_and_can_be_done() {
        let problem = |ready: &str| {
            let text = format!("[services.web]\nrun = \"web\"\nready = {{ {ready} }}\n");
            problems(&text).join("\n")
        };
        let cases = [
            ("http = \"http://localhost:9/health\"", ""),
            (
                "http = \"health\"",
                "3:18: \"health\" is neither a path such as \"/health\" nor an address that begins \
                 with http://",
            ),
            (
                "http = \"/health\"",
                "3:18: there is no `port` to send the request to",
            ),
            ("tcp = true", "3:17: there is no `port` to connect to"),
            ("tcp = false", "3:17: use true, or another kind of check"),
            (
                "log = \"ready\", exec = \"true\"",
                "3:1: only one of http, tcp, log and exec can decide",
            ),
        ];
        for (ready, expected) in cases {
            assert_eq!(problem(ready), expected, "{ready}");
        }
    }

    #[test]
    fn the_error_for_a_key_in_the_wrong_table_says_where_it_belongs() {
        let web = "[services.web]\nrun = \"web\"\n";
        let text = |before: &str, after: &str| format!("{before}{web}{after}");
        for (text, expected) in [
            (
                text("routes = \"r.yaml\"\n", ""),
                "1:1: `routes` belongs in [waypost]",
            ),
            (
                text("gateway = 8001\n", ""),
                "1:1: `gateway` belongs in [waypost]",
            ),
            (
                text("", "registry = \"consul\"\n"),
                "3:1: `registry` belongs in [waypost]",
            ),
            (
                text("port = 80\n", ""),
                "1:1: `port` belongs in [services.NAME]",
            ),
            (
                text("[waypost]\nrun = \"web\"\n", ""),
                "2:1: `run` belongs in [services.NAME]",
            ),
            (
                text("restart = \"always\"\n", ""),
                "1:1: `restart` belongs in [defaults] or in [services.NAME]",
            ),
            (
                text("[waypost]\nenv-files = []\n", ""),
                "2:1: `env-files` belongs at the top level or in [services.NAME]",
            ),
            (
                text("", "http = \"/health\"\n"),
                "3:1: `http` belongs in [services.NAME.ready]",
            ),
            (
                text("", "[services.web.ready]\nreplicas = 2\n"),
                "4:1: `replicas` belongs in [services.NAME]",
            ),
            (
                text("rotues = \"r.yaml\"\n", ""),
                "1:1: unknown key `rotues`; did you mean `routes`, which belongs in [waypost]?",
            ),
            (
                text("[api]\nrun = \"api\"\n", ""),
                "1:2: unknown key `api`; the table of a service is [services.api]",
            ),
            (
                "[services]\nrun = \"web\"\n".to_owned(),
                "2:7: `run` belongs in a table such as [services.NAME]",
            ),
        ] {
            assert_eq!(problems(&text)[..1], [expected], "{text}");
        }
    }

    #[test]
    fn a_routes_file_needs_a_gateway_and_has_to_exist() {
        let missing = "[waypost]\nroutes = \"routes.yaml\"\n";
        let expected = ["2:10: there is no file ./routes.yaml"];
        assert_eq!(problems(missing), expected);
        let unused = "[waypost]\ngateway = false\nroutes = \"routes.yaml\"\n";
        let expected = ["3:10: there is no gateway to use it, because `gateway` is false"];
        assert_eq!(problems(unused), expected);
    }

    #[test]
    fn a_service_with_an_error_is_still_known_to_others() {
        let text = "[services.a]\nrun = 1\n[services.b]\nrun = \"b\"\nafter = [\"a\", \"c\"]\n";
        assert_eq!(
            problems(text),
            [
                "2:7: expected a command: a string such as \"npm run dev\", or a list of strings",
                "5:15: there is no service `c`; did you mean `a`?",
            ]
        );
    }

    #[test]
    fn a_cycle_is_shown_as_a_path() {
        let service = |name: &str, after: &str| {
            format!("[services.{name}]\nrun = \"x\"\nafter = [\"{after}\"]\n")
        };
        let text = service("ui", "a")
            + &service("a", "b")
            + &service("b", "c:started")
            + &service("c", "a");
        assert_eq!(
            problems(&text),
            [
                "12:10: these services wait for each other, so none of them could start: \
                 a -> b -> c -> a"
            ]
        );
    }

    #[test]
    fn errors_of_the_syntax_are_reported_with_the_others() {
        let text = "name = \n[services.a]\nrum = \"x\"\nrun = \"x\"\nport = 4100 4200\n";
        let problems = problems(text);
        assert!(problems.iter().any(|p| p.starts_with("1:")), "{problems:?}");
        assert!(problems.iter().any(|p| p.starts_with("5:")), "{problems:?}");
        let unknown = "3:1: unknown key `rum`; did you mean `run`?".to_owned();
        assert!(problems.contains(&unknown), "{problems:?}");
    }

    #[test]
    fn the_keys_of_a_service_must_fit_its_kind() {
        for (keys, expected) in [
            ("", "neither `run`"),
            ("run = \"\"", "the command is empty"),
            ("run = []", "the command is empty"),
            ("run = [\"a\"]\nshell = true", "without a shell"),
            ("run = \"a\"\nopen = true", "no `port` to open"),
            ("run = \"a {port}\"", "add `port = 0`"),
            ("run = \"a\"\nonce = true\nreplicas = 2", "one-time task"),
            (
                "run = \"a\"\nready = { tcp = true }",
                "no `port` to connect to",
            ),
            (
                "run = \"a\"\nready = { log = \"(\" }",
                "not a regular expression",
            ),
            (
                "run = \"a\"\nport = 1\nready = { tcp = true, http = \"/\" }",
                "only one of",
            ),
            ("run = \"a\"\nafter = [\"t:completed\"]", "never completes"),
            ("run = \"a\"\ndir = \"nowhere\"", "no folder ./nowhere"),
            ("run = \"a\"\nport = 70000", "70000"),
            ("run = \"a 'b\"\nshell = true", ""),
            ("run = \"a\"\nbuild = \"b 'c\"", "a quote is not closed"),
            ("run = \"a\"\nbuild = \"b {port}\"", "add `port = 0`"),
            ("run = \"a\"\nreplicas = 0", "at least 1 instance is needed"),
            (
                "run = \"a\"\nport = 1\nready = { failures = 0 }",
                "at least 1 failure is needed",
            ),
            (
                "run = \"a\"\nready = { exec = \"b {port}\" }",
                "add `port = 0`",
            ),
            (
                "run = \"a\"\nready = { exec = \"\" }",
                "the command is empty",
            ),
            (
                "run = \"a\"\nready = { http = \"http://{port}/\" }",
                "add `port = 0`",
            ),
            (
                "run = \"a\"\nenv = { \"A=B\" = \"\" }",
                "not the name of a variable",
            ),
            (
                "run = \"a\"\nenv = { \"\" = \"\" }",
                "not the name of a variable",
            ),
            ("run = \"a\"\nenv = { A = \"{port}\" }", "add `port = 0`"),
            (
                "run = \"a\"\nenv = { A = \"{services.t.port}\" }",
                "`t` has no port",
            ),
            ("run = \"a {services.x.port}\"", "no service `x`"),
            (
                "run = \"a\"\nenv-files = [\"none\"]",
                "write \"none?\" if it may be missing",
            ),
            ("run = \"a\"\nenv-files = [\"none?\"]", ""),
            (
                "run = \"a\"\nafter = [\"t:done\"]",
                "use t:started, t:ready or t:completed",
            ),
            ("run = \"a\"\nafter = [\"s\"]", "could start: s -> s"),
            (
                "run = \"a\"\nonce = true\nready = { log = \"x\" }",
                "`ready` has no meaning",
            ),
            (
                "run = \"a\"\nonce = true\nrestart = \"never\"",
                "`restart` has no meaning",
            ),
            (
                "run = \"a\"\nonce = true\nopen = true\nport = 1",
                "`open` has no meaning",
            ),
            ("external = \"a:1\"\nrun = \"a\"", "`run` has no meaning"),
            (
                "external = \"a:1\"\nbuild = \"a\"",
                "`build` has no meaning",
            ),
            ("external = \"a:1\"\nwatch = {}", "`watch` has no meaning"),
            ("external = \"a:1\"\nport = 1", "`port` has no meaning"),
            ("external = \"a:1\"\nonce = true", "`once` has no meaning"),
            (
                "external = \"a:1\"\nrestart = \"never\"",
                "`restart` has no meaning",
            ),
            ("external = \"a:1\"\nstop = {}", "`stop` has no meaning"),
            ("external = \"a:1\"\ndir = \".\"", "`dir` has no meaning"),
            (
                "external = \"a:1\"\nready = { log = \"a\" }",
                "no output here",
            ),
            ("external = \"a:1\"\nready = { http = \"/\" }", ""),
            ("external = \"a:1\"\nready = { tcp = true }", ""),
            ("external = \"a:1\"\nenv = { A = \"{port}\" }", ""),
            ("run = \"a\"\nwatch = { paths = [\"{\"] }", "not a pattern"),
        ] {
            let problems = problems(&format!(
                "[services.t]\nrun = \"t\"\n[services.s]\n{keys}\n"
            ));
            let is_expected = match expected {
                "" => problems.is_empty(),
                _ => problems.len() == 1 && problems[0].contains(expected),
            };
            assert!(is_expected, "{keys}: {problems:?}");
        }
        let long = "a".repeat(201);
        for name in ["gateway", "dashboard", "a-", &long] {
            let problems = problems(&format!("[services.{name}]\nrun = \"a\"\n"));
            assert_eq!(problems.len(), 1, "{name}");
        }
        for name in [&long[1..], "a", "A.b-c_1"] {
            let name = format!("[services.\"{name}\"]\nrun = \"a\"\n");
            assert_eq!(problems(&name), [""; 0], "{name}");
        }
        for name in ["registry", "\"a b\"", "-a"] {
            let problems = problems(&format!("[services.{name}]\nrun = \"a\"\n"));
            assert!(
                problems.len() == 1 && problems[0].contains("name"),
                "{problems:?}"
            );
        }
    }

    #[test]
    fn the_schema_names_every_key_and_describes_it() {
        let schema = StackFile::schema();
        let service = &schema["$defs"]["Service"];
        for key in ["run", "after", "needs-env", "env-files", "external"] {
            let description = &service["properties"][key]["description"];
            assert!(description.is_string(), "{key}: {service}");
        }
        assert_eq!(service["additionalProperties"], false);
        assert_eq!(schema["properties"]["services"]["type"], "object");
    }
}
