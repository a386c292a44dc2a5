//! Writes the text of a stack file for the services that were found.

use std::fmt::Write;
use std::path::Path;

use serde_json::json;

use super::candidate::{Candidate, Port, folder_name, service_name};

/// The port of the first service without a fixed port. The next ones follow in steps of 100.
const FIRST_PORT: u16 = 4100;

/// The stack file, with a comment that explains each choice.
pub(super) fn stack_text(root: &Path, candidates: &[Candidate]) -> String {
    let name = json!(service_name(&folder_name(root)));
    let mut text = format!(
        "# What `waypost up` starts in this folder. `waypost check` checks the file, `waypost schema` \
         prints\n# the schema for editors: docs/running-locally.md of Waypost has all keys.\n\n\
         name = {name}\n\
         env-files = [\".env?\"]   # variables for all services; \"?\" says that it may be missing\n"
    );
    let mut ports = Ports::avoiding(candidates);
    text.push_str(&built_in(candidates));
    for candidate in candidates {
        text.push('\n');
        write_service(&mut text, candidate, &mut ports);
    }
    if candidates.is_empty() {
        text.push_str(EXAMPLE);
    }
    text
}

const EXAMPLE: &str = "
# [services.web]
# run = \"python3 -m http.server {port}\"   # split as a shell does; `shell = true` for pipes and &&
# port = 4100                             # others find it at localhost:8000/web/ through the gateway
# ready = { http = \"/\" }                  # when it is ready; default: it accepts connections
# after = [\"db\"]                          # what must be ready before it starts
";

/// Other ports for Waypost's own programs whose default port is used by a service of the stack.
fn built_in(candidates: &[Candidate]) -> String {
    let is_taken = |port| candidates.iter().any(|it| it.port == Port::Fixed(port));
    let mut lines = String::new();
    for (key, port) in [
        ("registry-port", 8500),
        ("gateway", 8000),
        ("dashboard", 3000),
    ] {
        if let Some(free) = (port..)
            .find(|port| !is_taken(*port))
            .filter(|free| *free != port)
        {
            let _ = writeln!(
                lines,
                "{key} = {free}   # {port} is that of a service below"
            );
        }
    }
    if lines.is_empty() {
        lines
    } else {
        format!("\n[waypost]\n{lines}")
    }
}

/// Chooses ports.
struct Ports {
    /// The fixed ports that are already in the text.
    written: Vec<u16>,
    taken: Vec<u16>,
    next: u16,
}

impl Ports {
    fn avoiding(candidates: &[Candidate]) -> Self {
        let fixed = candidates
            .iter()
            .filter_map(|candidate| match candidate.port {
                Port::Fixed(port) => Some(port),
                _ => None,
            });
        Self {
            written: Vec::new(),
            // The ports of the registry, its DNS, the gateway and the dashboard.
            taken: fixed.chain([8500, 8600, 8000, 3000]).collect(),
            next: FIRST_PORT,
        }
    }

    /// Whether a fixed port is used for the first time.
    fn is_first(&mut self, port: u16) -> bool {
        let is_first = !self.written.contains(&port);
        self.written.push(port);
        is_first
    }

    fn next(&mut self) -> u16 {
        loop {
            let port = self.next;
            self.next = self.next.checked_add(100).unwrap_or(FIRST_PORT + 1);
            if !self.taken.contains(&port) {
                self.taken.push(port);
                return port;
            }
        }
    }
}

fn write_service(text: &mut String, candidate: &Candidate, ports: &mut Ports) {
    // JSON strings and lists are TOML strings and lists.
    let mut line = |line: String| {
        let _ = writeln!(text, "{line}");
    };
    let Candidate {
        name,
        source,
        dir,
        run,
        ..
    } = candidate;
    line(format!("# From {}.", one_line(source)));
    for note in &candidate.notes {
        line(format!("# {}", one_line(note)));
    }
    line(format!("[services.{name}]"));
    if let Some(address) = &candidate.external {
        line(format!("external = {}", json!(address)));
        line("ready = { tcp = true }".to_owned());
        return;
    }
    if let Some(build) = &candidate.build {
        line(format!(
            "build = {}   # before the first start, and after a change",
            json!(build)
        ));
    }
    line(format!("run = {}", json!(run)));
    if candidate.shell {
        line("shell = true".to_owned());
    }
    if !dir.is_empty() {
        line(format!("dir = {}", json!(dir)));
    }
    match candidate.port {
        Port::None => line(
            "# port = 4100   # found no port in its code; without one, it is a worker without clients"
                .to_owned(),
        ),
        Port::Any => {
            let how = if run.contains("{port}") {
                ""
            } else {
                "   # passed to it as the variable PORT"
            };
            line(format!("port = {}{how}", ports.next()));
        }
        Port::Fixed(port) if !ports.is_first(port) => line(format!(
            "# port = {port}   # as in its code, but a service above uses it: make one of them read PORT"
        )),
        Port::Fixed(port) => line(format!(
            "port = {port}   # as in its code; if it read the variable PORT, it could have replicas"
        )),
    }
    if !candidate.watch.is_empty() {
        let paths = json!(candidate.watch);
        line(format!(
            "watch = {{ paths = {paths} }}   # restart after a change"
        ));
    }
}

/// Reduces a text to a single line, so that it can be a comment.
fn one_line(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, port: Port) -> Candidate {
        Candidate {
            name: name.to_owned(),
            source: "Procfile".to_owned(),
            run: name.to_owned(),
            port,
            ..Candidate::default()
        }
    }

    fn text(candidates: &[Candidate]) -> String {
        stack_text(Path::new("/work/Shop"), candidates)
    }

    /// The lines that begin with a key, without their comments.
    fn values(text: &str, key: &str) -> Vec<String> {
        let lines = text
            .lines()
            .filter(|line| line.starts_with(&format!("{key} = ")));
        lines
            .map(|line| line.split("   #").next().unwrap_or_default().to_owned())
            .collect()
    }

    #[test]
    fn each_service_without_a_port_in_its_code_gets_one_that_is_free() {
        let ports = [
            Port::Any,
            Port::Fixed(4200),
            Port::None,
            Port::Any,
            Port::Any,
        ];
        let names = ["a", "b", "c", "d", "e"];
        let all: Vec<_> = names
            .iter()
            .zip(ports)
            .map(|(name, port)| candidate(name, port))
            .collect();
        let text = text(&all);
        let ports = ["port = 4100", "port = 4200", "port = 4300", "port = 4400"];
        assert_eq!(values(&text, "port"), ports);
        assert_eq!(values(&text, "name"), ["name = \"shop\""]);
        assert!(!text.contains("[waypost]"), "{text}");
    }

    #[test]
    fn the_ports_of_waypost_give_way_to_those_of_services() {
        let fixed = [8500, 8000, 8001, 3000].map(|port| candidate("x", Port::Fixed(port)));
        let text = text(&fixed);
        assert_eq!(values(&text, "registry-port"), ["registry-port = 8501"]);
        assert_eq!(values(&text, "gateway"), ["gateway = 8002"]);
        assert_eq!(values(&text, "dashboard"), ["dashboard = 3001"]);
    }

    #[test]
    fn a_port_that_two_services_use_is_written_once() {
        let text = text(&["a", "b"].map(|name| candidate(name, Port::Fixed(5000))));
        assert_eq!(values(&text, "port"), ["port = 5000"]);
        let comment = "\n# port = 5000   # as in its code, but a service above uses it";
        let (above, _) = text.split_once(comment).unwrap();
        assert!(above.contains("\nport = 5000"), "{text}");
    }

    #[test]
    fn what_a_port_is_for_is_said_only_if_the_command_does_not() {
        let in_command = Candidate {
            run: "a --port {port}".to_owned(),
            ..candidate("a", Port::Any)
        };
        let by_variable = "port = 4100   # passed to it as the variable PORT";
        assert!(text(&[candidate("a", Port::Any)]).contains(by_variable));
        assert!(!text(&[in_command]).contains("variable PORT"));
        let worker = text(&[candidate("a", Port::None)]);
        assert!(
            worker.contains("# port = 4100   # found no port"),
            "{worker}"
        );
    }

    #[test]
    fn each_property_is_a_line_and_a_comment_is_one_line() {
        let all = Candidate {
            source: "x/Procfile\nevil".to_owned(),
            dir: "x".to_owned(),
            shell: true,
            build: Some("make".to_owned()),
            watch: vec!["*.go".to_owned()],
            notes: vec!["a\nb".to_owned()],
            ..candidate("web", Port::None)
        };
        let text = text(&[all]);
        for line in [
            "# From x/Procfile evil.",
            "# a b",
            "[services.web]",
            "build = \"make\"   # before the first start, and after a change",
            "run = \"web\"",
            "shell = true",
            "dir = \"x\"",
            "watch = { paths = [\"*.go\"] }   # restart after a change",
        ] {
            assert!(text.lines().any(|it| it == line), "no {line:?} in:\n{text}");
        }
        let external = Candidate {
            external: Some("localhost:5432".to_owned()),
            ..candidate("db", Port::None)
        };
        let text = self::text(&[external]);
        assert!(
            text.ends_with("external = \"localhost:5432\"\nready = { tcp = true }\n"),
            "{text}"
        );
        assert!(!text.contains("run = "), "{text}");
    }
}
